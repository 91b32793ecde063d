//! Who asks: ada, who may read the private repository; bob, who has an account and may not; and those without one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};

use crate::bench::{Bench, images_only, marker, soon, standing};
use crate::support::hub::client::{Client, Reply};
use crate::support::hub::{Account, HubConfig, Image, Private, REPOSITORY, digest_of};

pub(crate) const SECRET: &str = "team/secret";
pub(crate) const ADA: (&str, &str) = ("ada", "s3cret-of-ada");
pub(crate) const BOB: (&str, &str) = ("bob", "s3cret-of-bob");

/// A registry with both accounts, where this repository is ada's alone.
pub(crate) fn with_private(repository: &str) -> HubConfig {
    HubConfig {
        accounts: [ADA, BOB].map(|(name, password)| Account::free(name, password)).into(),
        private: vec![Private { repository: repository.to_owned(), account: ADA.0.to_owned() }],
        ..images_only()
    }
}

/// An image of the private repository alone.
pub(crate) fn push_secret(bench: &Bench) -> Image {
    let image = Image::build(&marker("secret")).unwrap();
    bench.hub.push(SECRET, &image);
    bench.hub.tag(SECRET, "latest", &image.digest);
    image
}

/// A token for the repository, as the token service gives it to this account, or to nobody in particular. What the
/// account may not read it is not good for.
pub(crate) async fn token(bench: &Bench, account: Option<(&str, &str)>, repository: &str) -> String {
    let realm = format!("{}/token", bench.hub.token_url());
    let url = format!("{realm}?service=registry.docker.io&scope=repository:{repository}:pull");
    let basic = account.map(basic);
    let headers: Vec<_> = basic.iter().map(|basic| ("authorization", basic.as_str())).collect();
    let reply = soon(Client::new().get(&url, &headers)).await;
    format!("Bearer {}", reply.json()["token"].as_str().unwrap())
}

pub(crate) fn basic((name, password): (&str, &str)) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// Ada's token for the private repository.
pub(crate) async fn adas(bench: &Bench) -> String {
    token(bench, Some(ADA), SECRET).await
}

/// What others than ada come with: nothing, nonsense, a password, and tokens that are good for something else.
pub(crate) async fn others(bench: &Bench) -> Vec<Option<String>> {
    vec![
        None,
        Some("Bearer nonsense".to_owned()),
        Some("Bearer ".to_owned()),
        Some(basic(ADA)),
        Some(token(bench, None, SECRET).await),
        Some(token(bench, Some(BOB), SECRET).await),
        Some(token(bench, Some(ADA), REPOSITORY).await),
    ]
}

/// Asks with these credentials.
pub(crate) async fn ask_as(bench: &Bench, who: Option<&str>, method: Method, url: &str) -> Reply {
    let headers: Vec<_> = who.map(|who| ("authorization", who)).into_iter().collect();
    bench.ask(method, url, &headers).await
}

/// As [`ask_as`], for a few bytes of it.
pub(crate) async fn range_as(bench: &Bench, who: Option<&str>, url: &str) -> Reply {
    let who = who.map(|who| ("authorization", who));
    let headers: Vec<_> = who.into_iter().chain([("range", "bytes=1-3")]).collect();
    bench.ask(Method::GET, url, &headers).await
}

/// Where each part of an image that a node needs is asked for, tag and all, and its digest.
pub(crate) fn parts(bench: &Bench, repository: &str, image: &Image) -> Vec<(String, String)> {
    let own = image.own();
    let manifests = ["latest", &image.digest, &own.manifest];
    let blobs = std::iter::once(&own.config).chain(&own.layers);
    let digest_of_reference = |reference: &str| match reference {
        "latest" => image.digest.clone(),
        digest => digest.to_owned(),
    };
    let manifests = manifests
        .into_iter()
        .map(|reference| (bench.manifest_of(repository, reference), digest_of_reference(reference)));
    let blobs = blobs.map(|digest| (bench.blob_of(repository, digest), digest.clone()));
    manifests.chain(blobs).collect()
}

/// Whoever has these credentials gets the whole of the image, by HEAD, by GET and in ranges.
pub(crate) async fn assert_gets(bench: &Bench, who: Option<&str>, repository: &str, image: &Image) {
    for (url, digest) in parts(bench, repository, image) {
        let head = ask_as(bench, who, Method::HEAD, &url).await;
        let get = ask_as(bench, who, Method::GET, &url).await;
        for reply in [&head, &get] {
            assert_eq!(reply.status, StatusCode::OK, "{url}: {reply:?}");
            assert_eq!(reply.header("docker-content-digest"), Some(digest.as_str()), "{url}");
        }
        assert_eq!(digest_of(&get.body), digest, "{url}");
        if url.contains("/blobs/") {
            let range = range_as(bench, who, &url).await;
            assert_eq!((range.status, &range.body[..]), (StatusCode::PARTIAL_CONTENT, &get.body[1..=3]));
        }
    }
}

/// Whoever has these credentials gets nothing of the private image, and is told where a token is to be had.
pub(crate) async fn assert_challenged(bench: &Bench, who: Option<&str>, image: &Image) {
    for (url, digest) in parts(bench, SECRET, image) {
        for reply in all_ways(bench, who, &url).await {
            assert_challenge(bench, SECRET, &reply, &format!("{who:?}: {url}"));
            assert_nothing_of(&reply, &digest);
        }
    }
}

/// Whoever has these credentials gets nothing of the image under this repository, whatever the error says.
pub(crate) async fn assert_kept_from(bench: &Bench, who: Option<&str>, repository: &str, image: &Image) {
    for (url, digest) in parts(bench, repository, image) {
        assert_kept(&all_ways(bench, who, &url).await, &digest, &format!("{who:?}: {url}"));
    }
}

/// Errors, with nothing about them of what was asked for.
#[track_caller]
pub(crate) fn assert_kept(replies: &[Reply], digest: &str, who: &str) {
    for reply in replies {
        let refused = reply.status.is_client_error() || reply.status.is_server_error();
        assert!(refused, "{who}: {reply:?}");
        assert_nothing_of(reply, digest);
    }
}

/// 401, and the registry's own challenge: where to get a token, for what.
#[track_caller]
pub(crate) fn assert_challenge(bench: &Bench, repository: &str, reply: &Reply, who: &str) {
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{who}: {reply:?}");
    let challenge = reply.challenge();
    let asks_for = (challenge.realm, challenge.service, challenge.scope);
    let realm = format!("{}/token", bench.hub.token_url());
    let scope = format!("repository:{repository}:pull");
    assert_eq!(asks_for, (realm, "registry.docker.io".to_owned(), scope), "{who}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{who}");
    if !reply.body.is_empty() {
        assert_eq!(reply.error_code(), "UNAUTHORIZED", "{who}");
    }
}

/// By HEAD, by GET and for a range.
pub(crate) async fn all_ways(bench: &Bench, who: Option<&str>, url: &str) -> [Reply; 3] {
    [
        ask_as(bench, who, Method::HEAD, url).await,
        ask_as(bench, who, Method::GET, url).await,
        range_as(bench, who, url).await,
    ]
}

#[track_caller]
fn assert_nothing_of(reply: &Reply, digest: &str) {
    for header in ["docker-content-digest", "etag", "content-range", "age"] {
        assert_eq!(reply.header(header), None, "{reply:?}");
    }
    assert_eq!(standing(reply), "none");
    let text = String::from_utf8_lossy(&reply.body);
    assert!(digest_of(&reply.body) != digest && !text.contains("schemaVersion"), "{text}");
}
