//! Lists of tags and of referrers: passed on a page at a time, kept as tags are, and shown to nobody else.

use std::fs;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::bench::{
    ASKS_ALWAYS, ASKS_ONCE, Bench, assert_refused, images_only, marker, retry_after, standing,
};
use crate::support::hub::client::Reply;
use crate::support::hub::{Account, Fault, HubConfig, Image, Kind, Private, REPOSITORY, digest_of};

const SECRET: &str = "team/secret";
const SIGNATURE: &str = "application/vnd.example.signature+json";
const SBOM: &str = "application/spdx+json";

/// More than the daemon keeps.
const MANY: usize = 1040;
const MOST_KEPT: usize = 1024;

#[tokio::test]
async fn a_list_of_tags_is_passed_on_at_no_cost_and_is_no_blob() {
    let bench = Bench::start().await;
    bench.hub.set_remaining(0);
    let (get, cost) = bench.cost_of(bench.get(&tags(&bench, ""))).await;
    assert_lists(&get, &["1.0", "latest"], "changed");
    assert_eq!((cost.lists, cost.manifest_gets, cost.manifest_heads), (1, 0, 0), "{cost:?}");
    let head = bench.head(&tags(&bench, "")).await;
    assert_eq!((head.status, head.body.len(), standing(&head)), (StatusCode::OK, 0, "unchanged"));
    for reply in [&head, &get] {
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("content-length"), Some(get.body.len().to_string().as_str()));
        assert_eq!(reply.header("age"), Some("0"));
        for header in ["docker-content-digest", "link", "warning"] {
            assert_eq!(reply.header(header), None, "{reply:?}");
        }
    }
    assert_eq!(get.json()["name"], REPOSITORY);
    assert_eq!(bench.held(), [] as [&str; 0]);
}

#[tokio::test]
async fn links_lead_through_the_mirror_to_the_end_in_both_forms() {
    let bench = Bench::before(HubConfig { page: 3, ..images_only() }, ASKS_ALWAYS).await;
    for tag in ["2.0", "a", "b", "c", "d"] {
        bench.hub.tag(REPOSITORY, tag, &bench.hub.first().digest);
    }
    let all = ["1.0", "2.0", "a", "b", "c", "d", "latest"];
    let mirror = bench.daemon.mirror();
    let by_path = format!("{mirror}/v2/docker.io/{REPOSITORY}/tags/list");
    for (first, pages) in [
        (tags(&bench, ""), 3),
        (tags(&bench, "&n=2"), 4),
        (tags(&bench, "&n=1000"), 3),
        (by_path.clone(), 3),
        (format!("{by_path}?n=2&last=a"), 2),
    ] {
        let (mut url, mut seen, mut asked) = (first.clone(), Vec::new(), 0);
        loop {
            let reply = bench.get(&url).await;
            assert_eq!(reply.status, StatusCode::OK, "{url}: {reply:?}");
            seen.extend(tags_in(&reply));
            asked += 1;
            let Some(link) = reply.header("link") else { break };
            let target =
                link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
            assert_eq!(target.contains("ns=docker.io"), first.contains("ns=docker.io"), "{link}");
            assert!(target.starts_with("/v2/"), "{link}");
            url = format!("{mirror}{target}");
        }
        let expected = if first.contains("last=a") { &all[3..] } else { &all[..] };
        assert_eq!((seen, asked), (expected.iter().map(ToString::to_string).collect(), pages), "{first}");
    }
}

#[tokio::test]
async fn a_fresh_list_asks_nobody_and_each_page_is_its_own() {
    let bench = Bench::before(images_only(), ASKS_ONCE).await;
    assert_lists(&bench.get(&tags(&bench, "&n=5")).await, &["1.0", "latest"], "changed");
    bench.hub.tag(REPOSITORY, "2.0", &bench.hub.first().digest);
    for url in [tags(&bench, "&n=5"), tags(&bench, "&n=05&x=y")] {
        for method in [Method::HEAD, Method::GET] {
            let (reply, cost) = bench.cost_of(bench.ask(method, &url, &[])).await;
            assert_eq!((standing(&reply), cost.requests), ("fresh", 0), "{url}: {cost:?}");
        }
    }
    assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "2.0", "latest"], "changed");
    assert_lists(&bench.get(&tags(&bench, "&last=1.0")).await, &["2.0", "latest"], "changed");
}

#[tokio::test]
async fn a_list_is_unchanged_until_it_changes() {
    let bench = Bench::start().await;
    bench.get(&tags(&bench, "")).await;
    assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "latest"], "unchanged");
    bench.hub.tag(REPOSITORY, "2.0", &bench.hub.first().digest);
    assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "2.0", "latest"], "changed");
    assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "2.0", "latest"], "unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_one_request() {
    let bench = Bench::before(images_only(), ASKS_ONCE).await;
    bench.hub.fault(Kind::List, Fault::Hang).await;
    let url = tags(&bench, "");
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (client, url) = (bench.client.clone(), url.clone());
            tokio::spawn(async move { client.get(&url, &[]).await })
        })
        .collect();
    bench.hub.held(Kind::List, 1).await;
    bench.hub.clear(Kind::List).await;
    for asked in asking {
        assert_eq!(tags_in(&asked.await.unwrap()), ["1.0", "latest"]);
    }
    // The first one was sent twice, the second time with the token that it lacked.
    let answered = bench.hub.log().into_iter().filter(|entry| entry.status == Some(200));
    assert_eq!(answered.filter(|entry| entry.path.ends_with("/tags/list")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_list_is_stale_in_an_outage_and_after_a_restart() {
    for fault in
        [Fault::Unavailable, Fault::AbuseLimit, Fault::Reset, Fault::CaptivePortal, Fault::CutAfter(9)]
    {
        let mut bench = Bench::before(HubConfig { page: 1, ..images_only() }, ASKS_ALWAYS).await;
        let digest = bench.hub.refer(REPOSITORY, &bench.hub.first().digest, SBOM);
        let urls = [
            tags(&bench, ""),
            tags(&bench, "&last=1.0"),
            referrers(&bench, &format!("&artifactType={}", "application%2Fspdx%2Bjson")),
        ];
        let mut before = Vec::new();
        for url in &urls {
            before.push(bench.get(url).await);
        }
        assert_eq!(tags_in(&before[1]), ["latest"]);
        assert_eq!(before[2].json()["manifests"][0]["digest"], digest.as_str());
        bench.break_everything(fault).await;
        for restarts in [false, true] {
            if restarts {
                assert!(bench.daemon.terminate().success());
                bench.daemon.start_again();
            }
            for (url, before) in urls.iter().zip(&before) {
                let reply = bench.get(url).await;
                assert_eq!(
                    (reply.status, standing(&reply)),
                    (StatusCode::OK, "stale"),
                    "{fault:?}: {reply:?}"
                );
                assert_eq!(reply.body, before.body);
                for header in ["link", "oci-filters-applied", "content-type"] {
                    assert_eq!(reply.header(header), before.header(header));
                }
                assert!(reply.header("warning").unwrap().starts_with("110 "));
            }
        }
        let other = bench.get(&tags(&bench, "&n=9")).await;
        assert!(other.status.is_server_error() || other.status == StatusCode::TOO_MANY_REQUESTS, "{other:?}");
        assert_eq!(standing(&other), "none");
    }
}

#[tokio::test]
async fn referrers_are_passed_on_with_what_they_were_filtered_by() {
    let bench = Bench::start().await;
    let subject = &bench.hub.first().digest;
    let signature = bench.hub.refer(REPOSITORY, subject, SIGNATURE);
    let sbom = bench.hub.refer(REPOSITORY, subject, SBOM);
    let all = bench.get(&referrers(&bench, "")).await;
    assert_eq!((all.status, standing(&all)), (StatusCode::OK, "changed"), "{all:?}");
    assert_eq!(all.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    assert_eq!(all.header("oci-filters-applied"), None);
    let mut both = [signature.clone(), sbom];
    both.sort();
    assert_eq!(digests_in(&all), both);

    let filtered =
        bench.get(&referrers(&bench, "&artifactType=application/vnd.example.signature%2Bjson")).await;
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(digests_in(&filtered), [signature]);
    let asked = bench.hub.log().into_iter().rev().find(|entry| entry.path.contains("/referrers/")).unwrap();
    let query = "artifactType=application%2Fvnd.example.signature%2Bjson";
    assert_eq!(
        asked.path,
        format!("/v2/{REPOSITORY}/referrers/{subject}?{query}"),
        "nothing else is passed on"
    );
    assert_eq!(asked.accept.as_deref(), Some("application/vnd.oci.image.index.v1+json"));

    let none = bench.get(&referrers_of(&bench, REPOSITORY, &digest_of(b"nothing"), "")).await;
    assert_eq!((none.status, digests_in(&none).len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_registry_without_referrers_is_no_registry_without_the_repository() {
    let bench = Bench::before(HubConfig { referrers: false, ..images_only() }, ASKS_ALWAYS).await;
    let reply = bench.get(&referrers(&bench, "")).await;
    // A client that is told NAME_UNKNOWN does not look for the tag that stands in.
    assert_refused(&reply, StatusCode::NOT_FOUND, "UNSUPPORTED");
    let (again, cost) = bench.cost_of(bench.get(&referrers(&bench, ""))).await;
    assert_refused(&again, StatusCode::NOT_FOUND, "UNSUPPORTED");
    assert_eq!(cost.requests, 0, "it is not asked at once again: {cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_gone_does_not_come_back_in_an_outage() {
    let open = HubConfig { auth: false, ..images_only() };
    let mut bench = Bench::before(open.clone(), ASKS_ALWAYS).await;
    let missing = bench.get(&tags_of(&bench, "library/none", "")).await;
    assert_refused(&missing, StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    assert_eq!(bench.get(&referrers(&bench, "")).await.status, StatusCode::OK);
    bench.replace_registry(HubConfig { referrers: false, ..open }).await;
    assert_eq!(bench.get(&referrers(&bench, "")).await.status, StatusCode::NOT_FOUND);
    bench.break_everything(Fault::Unavailable).await;
    let reply = bench.get(&referrers(&bench, "")).await;
    assert!(!reply.status.is_success(), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_list_is_for_those_whom_its_registry_shows_it_to() {
    let mut bench = Bench::before(with_private(SECRET), ASKS_ONCE).await;
    push_secret(&bench);
    let url = tags_of(&bench, SECRET, "");
    let denied = bench.get(&url).await;
    assert_refused(&denied, StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    let token = token_of_ada(&bench, &denied).await;
    let own = [("authorization", token.as_str())];
    assert_lists(&bench.ask(Method::GET, &url, &own).await, &["latest"], "changed");
    let (reply, cost) = bench.cost_of(bench.ask(Method::GET, &url, &own)).await;
    assert_lists(&reply, &["latest"], "fresh");
    assert_eq!(cost.requests, 0, "{cost:?}");

    let others = [[("authorization", "Bearer somebody's")], [("accept", "*/*")]];
    for headers in &others {
        assert_kept(&bench.ask(Method::GET, &url, headers).await);
    }
    bench.break_everything(Fault::Unavailable).await;
    for restarts in [false, true] {
        if restarts {
            assert!(bench.daemon.terminate().success());
            bench.daemon.start_again();
        }
        for headers in &others {
            assert_kept(&bench.ask(Method::GET, &url, headers).await);
        }
        // Within the time for which a proof is good, and the list fresh.
        assert_lists(&bench.ask(Method::GET, &url, &own).await, &["latest"], "fresh");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_has_become_private_is_not_served_stale() {
    let mut bench = Bench::start().await;
    assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "latest"], "changed");
    bench.replace_registry(with_private(REPOSITORY)).await;
    assert_kept(&bench.get(&tags(&bench, "")).await);
    bench.break_everything(Fault::Unavailable).await;
    assert_kept(&bench.get(&tags(&bench, "")).await);
}

#[tokio::test]
async fn whoever_may_list_may_not_therefore_pull() {
    let bench = Bench::before(HubConfig { open_lists: true, ..with_private(SECRET) }, ASKS_ONCE).await;
    let image = push_secret(&bench);
    let manifest = bench.manifest_of(SECRET, &image.digest);
    let token = token_of_ada(&bench, &bench.get(&manifest).await).await;
    let pulled = bench.ask(Method::GET, &manifest, &[("authorization", &token)]).await;
    assert_eq!(pulled.status, StatusCode::OK);
    for _ in 0..2 {
        assert_eq!(bench.get(&tags_of(&bench, SECRET, "")).await.status, StatusCode::OK);
        let listed = bench.get(&referrers_of(&bench, SECRET, &image.digest, "")).await;
        assert_eq!(listed.status, StatusCode::OK);
        for reference in ["latest", &image.digest] {
            assert_kept(&bench.get(&bench.manifest_of(SECRET, reference)).await);
        }
    }
    bench.break_everything(Fault::Unavailable).await;
    assert_kept(&bench.get(&manifest).await);
}

#[tokio::test]
async fn a_hostile_list_is_given_to_nobody_and_leaves_nothing() {
    for fault in [Fault::CaptivePortal, Fault::CutAfter(9)] {
        let bench = Bench::start().await;
        bench.hub.fault(Kind::List, fault).await;
        for url in [tags(&bench, ""), referrers(&bench, "")] {
            let reply = bench.get(&url).await;
            assert!(reply.status.is_server_error(), "{fault:?}: {reply:?}");
            assert_eq!((standing(&reply), reply.error_code().as_str()), ("none", "UNAVAILABLE"));
        }
        assert_eq!(lists_kept(&bench), 0);
        bench.hub.clear(Kind::List).await;
        assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "latest"], "changed");
    }
}

#[tokio::test]
async fn one_bad_answer_is_asked_about_again_where_nothing_is_held() {
    let bench = Bench::start().await;
    bench.hub.fault(Kind::List, Fault::Unavailable.next(1)).await;
    assert_lists(&bench.get(&tags(&bench, "")).await, &["1.0", "latest"], "changed");
}

#[tokio::test]
async fn an_outage_without_a_held_list_says_when_to_come_back() {
    let bench = Bench::start().await;
    bench.break_everything(Fault::Unavailable).await;
    let reply = bench.get(&tags(&bench, "")).await;
    assert_refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
    assert!(retry_after(&reply) >= 1);
}

#[tokio::test]
async fn a_malformed_question_is_a_bad_request_and_asks_nobody() {
    let bench = Bench::start().await;
    for query in ["&n=many", "&n=-1", "&n=10001", "&n=1&n=1", "&last=a%20b", "&last=a%0Ab"] {
        let reply = bench.get(&tags(&bench, query)).await;
        assert_refused(&reply, StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID");
    }
    let reply = bench.get(&referrers(&bench, "&artifactType=signature")).await;
    assert_refused(&reply, StatusCode::BAD_REQUEST, "UNSUPPORTED");
    let reply = bench.get(&referrers_of(&bench, REPOSITORY, "sha256:abc", "")).await;
    assert_refused(&reply, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    let reply = bench.get(&tags_of(&bench, "Library/Tide", "")).await;
    assert_refused(&reply, StatusCode::BAD_REQUEST, "NAME_INVALID");
    let unknown = format!("{}/v2/{REPOSITORY}/tags/all?ns=docker.io", bench.daemon.mirror());
    assert_refused(&bench.get(&unknown).await, StatusCode::NOT_FOUND, "UNSUPPORTED");
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn whoever_asks_for_page_after_page_fills_no_disk() {
    let bench = Bench::start().await;
    for number in 0..MANY {
        let reply = bench.get(&tags(&bench, &format!("&last=0.{number}"))).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
    assert_eq!(lists_kept(&bench), MOST_KEPT);
    bench.break_everything(Fault::Unavailable).await;
    let kept = |number| tags(&bench, &format!("&last=0.{number}"));
    assert_eq!(standing(&bench.get(&kept(MANY - 1)).await), "stale");
    assert_eq!(standing(&bench.get(&kept(0)).await), "none");
}

fn tags(bench: &Bench, query: &str) -> String {
    tags_of(bench, REPOSITORY, query)
}

fn tags_of(bench: &Bench, repository: &str, query: &str) -> String {
    format!("{}/v2/{repository}/tags/list?ns=docker.io{query}", bench.daemon.mirror())
}

/// What refers to the first image.
fn referrers(bench: &Bench, query: &str) -> String {
    referrers_of(bench, REPOSITORY, &bench.hub.first().digest, query)
}

fn referrers_of(bench: &Bench, repository: &str, subject: &str, query: &str) -> String {
    format!("{}/v2/{repository}/referrers/{subject}?ns=docker.io{query}", bench.daemon.mirror())
}

fn tags_in(reply: &Reply) -> Vec<String> {
    texts(&reply.json()["tags"], |tag| tag)
}

fn digests_in(reply: &Reply) -> Vec<String> {
    texts(&reply.json()["manifests"], |entry| &entry["digest"])
}

fn texts(entries: &Value, text: impl Fn(&Value) -> &Value) -> Vec<String> {
    entries.as_array().unwrap().iter().map(|entry| text(entry).as_str().unwrap().to_owned()).collect()
}

/// How many lists the daemon has on the disk.
fn lists_kept(bench: &Bench) -> usize {
    fs::read_dir(bench.daemon.data().join("lists")).map_or(0, Iterator::count)
}

fn with_private(repository: &str) -> HubConfig {
    HubConfig {
        accounts: vec![Account::free("ada", "s3cret")],
        private: vec![Private { repository: repository.to_owned(), account: "ada".to_owned() }],
        ..images_only()
    }
}

fn push_secret(bench: &Bench) -> Image {
    let image = Image::build(&marker("secret")).unwrap();
    bench.hub.push(SECRET, &image);
    bench.hub.tag(SECRET, "latest", &image.digest);
    image
}

/// A token of her own, by the challenge of a refusal.
async fn token_of_ada(bench: &Bench, refusal: &Reply) -> String {
    let login = [("authorization", "Basic YWRhOnMzY3JldA==")];
    format!("Bearer {}", bench.client.token(&refusal.challenge(), &login).await)
}

#[track_caller]
fn assert_lists(reply: &Reply, tags: &[&str], expected: &str) {
    assert_eq!((reply.status, standing(reply)), (StatusCode::OK, expected), "{reply:?}");
    assert_eq!(tags_in(reply), tags);
}

/// A refusal, with nothing of what was asked for about it.
#[track_caller]
fn assert_kept(reply: &Reply) {
    assert!(reply.status.is_client_error(), "{reply:?}");
    for header in ["docker-content-digest", "etag", "link", "tidehold-standing"] {
        assert_eq!(reply.header(header), None, "{reply:?}");
    }
}
