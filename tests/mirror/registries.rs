//! Registries other than Docker Hub, and several in the place of one; and clients that do not take everything.

use http::{Method, StatusCode};
use serde_json::json;

use crate::bench::{
    ASKS_ALWAYS, Bench, assert_gives, assert_refused, hex_of, images_only, marker, soon, standing,
};
use crate::people::{ADA, SECRET, adas, ask_as, assert_gets, basic, token, with_private};
use crate::support::hub::client::Reply;
use crate::support::hub::{
    Fault, HeadStyle, Hub, HubConfig, Image, ImageSpec, Kind, MediaTypes, REPOSITORY, digest_of,
};

/// A mirror that asks for no token and has what the registry has, but for the tag `gone`.
struct Pair {
    mirror: Hub,
    bench: Bench,
}

impl Pair {
    async fn start(mirror: HubConfig, registry: HubConfig) -> Self {
        let (mirror, registry) = (Hub::start(mirror).await, Hub::start(registry).await);
        let rest = format!(
            "[tags]\n{ASKS_ALWAYS}\n[registries.\"docker.io\"]\nupstream = [\"{}\", \"{}\"]\n",
            mirror.registry_url(),
            registry.registry_url()
        );
        Self { mirror, bench: Bench::with(registry, &rest) }
    }

    async fn usual() -> Self {
        Self::start(open_to_all(), images_only()).await
    }
}

fn open_to_all() -> HubConfig {
    HubConfig { auth: false, ..images_only() }
}

#[tokio::test]
async fn the_last_of_several_says_who_may_read_and_the_first_gives_the_rest() {
    let pair = Pair::usual().await;
    let ((), cost) = pair.bench.cost_of(pair.bench.pull("latest")).await;
    assert_eq!((cost.manifest_heads, cost.manifest_gets, cost.blob_gets), (1, 0, 0), "{cost:?}");
    let asked = pair.mirror.counters();
    assert_eq!((asked.manifest_heads, asked.manifest_gets), (0, 2), "{asked:?}");

    let ((), cost) = pair.bench.cost_of(pair.bench.pull("latest")).await;
    assert_eq!(cost.requests, 0, "{cost:?}");
    assert_eq!(pair.mirror.counters().manifest_heads, 1);
}

#[tokio::test]
async fn what_a_mirror_gives_to_all_is_nobodys_whom_the_registry_turns_away() {
    let pair = Pair::start(open_to_all(), with_private(SECRET)).await;
    let image = Image::build(&marker("secret")).unwrap();
    for hub in [&pair.mirror, &pair.bench.hub] {
        hub.push(SECRET, &image);
        hub.tag(SECRET, "latest", &image.digest);
    }
    let ada = adas(&pair.bench).await;
    for outage in [false, true] {
        if outage {
            assert_gets(&pair.bench, Some(&ada), SECRET, &image).await;
            pair.bench.break_everything(Fault::Unavailable).await;
        }
        for url in [
            pair.bench.manifest_of(SECRET, "latest"),
            pair.bench.manifest_of(SECRET, &image.digest),
            pair.bench.blob_of(SECRET, &image.own().config),
        ] {
            let reply = pair.bench.get(&url).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "outage: {outage}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_the_first_that_makes_no_sense_is_none() {
    for fault in [Fault::CaptivePortal, Fault::WrongBytes, Fault::CutAfter(100)] {
        let pair = Pair::usual().await;
        for kind in [Kind::ManifestHead, Kind::ManifestGet] {
            pair.mirror.fault(kind, fault).await;
        }
        pair.bench.pull("latest").await;
        let reply = pair.bench.get(&pair.bench.manifest("latest")).await;
        assert_gives(&reply, pair.bench.hub.first(), "unchanged");
    }
}

#[tokio::test]
async fn where_the_first_is_out_of_order_the_next_serves() {
    for fault in [Fault::Unavailable, Fault::Refuse, Fault::Reset, Fault::PullLimit, Fault::AbuseLimit] {
        let pair = Pair::usual().await;
        for kind in Kind::ALL {
            pair.mirror.fault(kind, fault).await;
        }
        pair.bench.pull("latest").await;
        let reply = pair.bench.get(&pair.bench.manifest("latest")).await;
        assert_gives(&reply, pair.bench.hub.first(), "unchanged");
    }
}

/// This one takes as long as the daemon waits for a mirror.
#[tokio::test]
async fn where_the_first_hangs_the_next_serves() {
    let pair = Pair::usual().await;
    for kind in Kind::ALL {
        pair.mirror.fault(kind, Fault::Hang).await;
    }
    let reply = pair.bench.get(&pair.bench.manifest("latest")).await;
    assert_gives(&reply, pair.bench.hub.first(), "changed");
}

#[tokio::test]
async fn what_the_first_lacks_comes_from_the_next_and_what_the_last_says_holds() {
    let pair = Pair::usual().await;
    let image = Image::build(&marker("newer")).unwrap();
    pair.bench.hub.push(REPOSITORY, &image);
    pair.bench.hub.tag(REPOSITORY, "2.0", &image.digest);
    pair.bench.pull("2.0").await;
    let unknown = pair.bench.get(&pair.bench.manifest("9.9")).await;
    assert_refused(&unknown, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    let denied = pair.bench.get(&pair.bench.manifest_of("team/none", "latest")).await;
    assert_eq!(denied.status, StatusCode::UNAUTHORIZED, "{denied:?}");

    // The mirror has nothing of it, and the registry cannot be asked: that is no 404.
    pair.bench.break_everything(Fault::Unavailable).await;
    let unasked = pair.bench.get(&pair.bench.manifest("8.8")).await;
    assert_refused(&unasked, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
}

#[tokio::test]
async fn a_blob_that_the_first_gives_up_on_comes_whole_from_the_next() {
    let pair = Pair::usual().await;
    let layer = pair.bench.hub.first().own().layers[0].clone();
    pair.mirror.fault(Kind::Cdn, Fault::Unavailable.only(hex_of(&layer))).await;
    let reply = pair.bench.get(&pair.bench.blob(&layer)).await;
    assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, layer));
}

#[tokio::test]
async fn a_clients_token_goes_to_the_registry_itself_and_to_no_mirror() {
    let pair = Pair::start(open_to_all(), with_private(SECRET)).await;
    let image = Image::build(&marker("secret")).unwrap();
    pair.bench.hub.push(SECRET, &image);
    pair.bench.hub.tag(SECRET, "latest", &image.digest);
    let ada = adas(&pair.bench).await;
    assert_gets(&pair.bench, Some(&ada), SECRET, &image).await;
    let tide = token(&pair.bench, Some(ADA), REPOSITORY).await;
    for who in [tide.as_str(), "Bearer nonsense", &basic(ADA)] {
        ask_as(&pair.bench, Some(who), Method::GET, &pair.bench.manifest("latest")).await;
        ask_as(&pair.bench, Some(who), Method::GET, &pair.bench.manifest_of(SECRET, "latest")).await;
    }
    let log = pair.mirror.log();
    assert!(log.iter().any(|entry| entry.path.contains("library/tide")), "the mirror was asked");
    assert!(log.iter().all(|entry| !entry.authorized), "{log:?}");
    assert!(pair.bench.hub.log().iter().any(|entry| entry.credentials.as_deref() == Some("Bearer ada")));
}

#[tokio::test]
async fn a_registry_that_names_no_digest_or_knows_no_head_is_asked_with_a_get_from_then_on() {
    for registry in [
        HubConfig { head: HeadStyle::WithoutDigest, ..images_only() },
        HubConfig { head: HeadStyle::MethodNotAllowed, ..images_only() },
        HubConfig { names_digests: false, ..images_only() },
    ] {
        let bench = Bench::before(registry, ASKS_ALWAYS).await;
        assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "changed");
        for (tag, expected) in [("latest", "unchanged"), ("1.0", "changed")] {
            let (reply, cost) = bench.cost_of(bench.get(&bench.manifest(tag))).await;
            assert_gives(&reply, bench.hub.first(), expected);
            assert_eq!((cost.manifest_heads, cost.manifest_gets, cost.requests), (0, 1, 1), "{cost:?}");
        }
        bench.pull("latest").await;
        bench.point_latest_at(bench.hub.second());
        assert_gives(&bench.head(&bench.manifest("latest")).await, bench.hub.second(), "changed");
        bench.pull("latest").await;
        bench.break_everything(Fault::Unavailable).await;
        assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.second(), "stale");
    }
}

#[tokio::test]
async fn schema_1_is_refused_in_words() {
    let bench = Bench::start().await;
    let old = json!({
        "schemaVersion": 1, "name": "library/tide", "tag": "old", "architecture": "amd64",
        "fsLayers": [{ "blobSum": digest_of(b"layer") }], "history": [{ "v1Compatibility": "{}" }],
    });
    for media_type in [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/json",
    ] {
        let image = Image::of_manifest(media_type, old.to_string());
        bench.hub.push(REPOSITORY, &image);
        let tag = format!("old{}", media_type.len());
        bench.hub.tag(REPOSITORY, &tag, &image.digest);
        for reference in [&tag, &image.digest] {
            let reply = bench.get(&bench.manifest(reference)).await;
            assert!(reply.status.is_client_error() || reply.status.is_server_error(), "{reply:?}");
            assert_eq!((reply.header("docker-content-digest"), standing(&reply)), (None, "none"));
            let text = String::from_utf8_lossy(&reply.body).to_lowercase();
            assert!(text.contains("schema"), "{media_type}: {text}");
        }
    }
    assert_eq!(bench.held(), [] as [&str; 0]);
}

/// Asks by GET and by HEAD with these `Accept` headers alone.
async fn accepting(bench: &Bench, url: &str, accept: &[&str]) -> Reply {
    let headers: Vec<_> = accept.iter().map(|accept| ("accept", *accept)).collect();
    let get = soon(bench.client.get(url, &headers)).await;
    let head = soon(bench.client.head(url, &headers)).await;
    assert_eq!(head.status, get.status, "{accept:?}");
    for header in ["docker-content-digest", "content-type", "content-length"] {
        assert_eq!(head.header(header), get.header(header), "{accept:?}");
    }
    get
}

#[tokio::test]
async fn a_client_that_knows_no_index_gets_the_image_for_linux_on_amd64() {
    for media in [MediaTypes::Oci, MediaTypes::Docker] {
        let bench = Bench::before(HubConfig { media, ..images_only() }, ASKS_ALWAYS).await;
        let amd64 = bench.hub.first().platforms.iter().find(|image| image.platform.architecture == "amd64");
        let amd64 = amd64.unwrap().manifest.clone();
        let url = bench.manifest("latest");
        for accept in [[media.manifest()].as_slice(), &["text/html", media.manifest()]] {
            let reply = accepting(&bench, &url, accept).await;
            assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, amd64.clone()), "{accept:?}");
            assert_eq!(reply.header("docker-content-digest"), Some(amd64.as_str()));
            assert_eq!(reply.header("content-type"), Some(media.manifest()));
        }
        // What one client takes changes nothing for another.
        assert_gives(&bench.get(&url).await, bench.hub.first(), "unchanged");
        bench.break_everything(Fault::Unavailable).await;
        let reply = accepting(&bench, &url, &[media.manifest()]).await;
        assert_eq!((digest_of(&reply.body), standing(&reply)), (amd64, "stale"));
    }
}

#[tokio::test]
async fn a_tag_in_no_form_that_a_client_takes_is_unknown_and_a_digest_is_always_given() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    let first = bench.hub.first();
    for accept in ["application/vnd.docker.distribution.manifest.v2+json", "text/html", "image/png, text/*"] {
        let reply = accepting(&bench, &bench.manifest("latest"), &[accept]).await;
        assert_refused(&reply, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        for digest in [&first.digest, &first.own().manifest] {
            let reply = accepting(&bench, &bench.manifest(digest), &[accept]).await;
            assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, digest.clone()), "{accept}");
        }
    }
    for accept in [[].as_slice(), &["*/*"], &["application/*"], &[MediaTypes::Oci.index()]] {
        assert_gives(&accepting(&bench, &bench.manifest("latest"), accept).await, first, "unchanged");
    }
}

#[tokio::test]
async fn an_index_without_an_image_for_amd64_is_unknown_to_a_client_that_knows_no_index() {
    let bench = Bench::start().await;
    let platforms = ["arm64", "riscv64"].map(|name| crate::support::hub::Platform::linux(name, None)).into();
    let image = Image::build(&ImageSpec { platforms, ..marker("arms") }).unwrap();
    bench.hub.push(REPOSITORY, &image);
    bench.point_latest_at(&image);
    let reply = accepting(&bench, &bench.manifest("latest"), &[MediaTypes::Oci.manifest()]).await;
    assert_refused(&reply, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn two_registries_at_once_are_a_bad_request_and_one_said_twice_is_one() {
    let bench = Bench::start().await;
    let mirror = bench.daemon.mirror();
    let blob = &bench.hub.first().own().config;
    bench.hub.reset_counters();
    for what in ["manifests/latest".to_owned(), format!("blobs/{blob}")] {
        for query in ["ns=docker.io&ns=other.test", "ns=docker.io&x=1&ns=", "ns=other.test&ns=docker.io"] {
            let reply = bench.get(&format!("{mirror}/v2/{REPOSITORY}/{what}?{query}")).await;
            assert_refused(&reply, StatusCode::BAD_REQUEST, "NAME_INVALID");
        }
    }
    assert_eq!(bench.hub.counters().requests, 0);
    let url = format!("{mirror}/v2/{REPOSITORY}/manifests/latest?ns=docker.io&ns=docker.io");
    assert_eq!(bench.get(&url).await.status, StatusCode::OK);
}
