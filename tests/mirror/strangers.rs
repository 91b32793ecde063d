//! What somebody else's registry, repository or trouble may not do: open what is private, or hold up or refuse what is
//! everybody's.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::{ASKS_ALWAYS, Bench, assert_gives, images_only, marker, soon};
use crate::people::{ADA, SECRET, adas, assert_gets, push_secret, with_private};
use crate::support::hub::client::Client;
use crate::support::hub::{Fault, HeadStyle, Hub, HubConfig, Image, Kind, Refusal, digest_of};

/// A registry that answers each request with this. It ends with its test.
pub(crate) async fn registry(answer: impl Fn(Method) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(move |request: Request| {
        let response = answer(request.method().clone());
        async move { response }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// A registry whose blobs break off, and whose answer to whoever asks for the rest has neither length nor end.
async fn cut_short_and_then_endless() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answered = async |mut stream: TcpStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let piece = [b'x'; 70_000];
        if !String::from_utf8_lossy(&head).contains("range:") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
            return stream.write_all(&piece).await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        loop {
            stream.write_all(&[b"11170\r\n", piece.as_slice(), b"\r\n"].concat()).await?;
        }
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client hangs up at last.
            tokio::spawn(answered(stream));
        }
    });
    format!("http://{address}")
}

/// A daemon before the Hub and this registry, `evil.test`.
pub(crate) fn beside(hub: Hub, evil: &str) -> Bench {
    let rest = format!(
        "[tags]\n{ASKS_ALWAYS}\n[registries.\"docker.io\"]\nupstream = \"{}\"\n\
         [registries.\"evil.test\"]\nupstream = \"{evil}\"\n",
        hub.registry_url()
    );
    Bench::with(hub, &rest)
}

pub(crate) fn evils(bench: &Bench, path: &str) -> String {
    format!("{}/v2/x/y/{path}?ns=evil.test", bench.daemon.mirror())
}

#[tokio::test]
async fn a_registry_that_says_yes_to_all_is_given_nothing_that_came_from_another() {
    let hub = Hub::start(with_private(SECRET)).await;
    let evil = registry(|_| Response::new(Body::empty())).await;
    let bench = beside(hub, &evil);
    let image = push_secret(&bench);
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    let own = image.own();
    for path in [
        format!("manifests/{}", image.digest),
        format!("manifests/{}", own.manifest),
        format!("blobs/{}", own.config),
        format!("blobs/{}", own.layers[0]),
    ] {
        for method in [Method::HEAD, Method::GET] {
            let reply = bench.ask(method, &evils(&bench, &path), &[]).await;
            assert!(reply.status.is_server_error(), "{path}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_web_page_in_the_place_of_a_blob_shows_nobody_to_be_a_reader() {
    let bench = Bench::before(with_private(SECRET), ASKS_ALWAYS).await;
    let image = push_secret(&bench);
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    bench.hub.fault(Kind::Blob, Fault::CaptivePortal).await;
    for layer in &image.own().layers {
        let reply = bench.get(&bench.blob_of(SECRET, layer)).await;
        assert_ne!(reply.status, StatusCode::OK, "{reply:?}");
    }
    bench.hub.clear(Kind::Blob).await;
    let reply = bench.get(&bench.manifest_of(SECRET, &image.digest)).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{reply:?}");
}

#[tokio::test]
async fn a_registry_that_never_ends_a_blob_holds_up_nobody_elses() {
    let hub = Hub::start(images_only()).await;
    let evil = registry(|method| {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
        let endless = Body::from_stream(first.chain(stream::pending()));
        let body = if method == Method::HEAD { Body::empty() } else { endless };
        Response::builder().header("content-length", "100000000").body(body).unwrap()
    })
    .await;
    let bench = beside(hub, &evil);
    let layer = bench.hub.first().own().layers[0].clone();
    let waiting = Client::new();
    let begun = waiting.send(Method::GET, &evils(&bench, &format!("blobs/{layer}")), &[]).await;
    assert!(begun.is_ok(), "it is on its way");
    let reply = bench.get(&bench.blob(&layer)).await;
    assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, layer));
}

#[tokio::test]
async fn a_registry_that_sends_more_of_a_blob_than_there_is_holds_up_nobody_elses() {
    let hub = Hub::start(images_only()).await;
    let evil = cut_short_and_then_endless().await;
    let bench = beside(hub, &evil);
    // More than there are threads to be kept busy.
    for number in 0..2 * std::thread::available_parallelism().unwrap().get() {
        let digest = digest_of(number.to_string().as_bytes());
        let url = evils(&bench, &format!("blobs/{digest}"));
        let begun = soon(Client::new().send(Method::GET, &url, &[])).await.unwrap();
        assert!(soon(begun.collect()).await.is_err(), "it was given a whole blob");
    }
    let layer = bench.hub.first().own().layers[0].clone();
    let reply = bench.get(&bench.blob(&layer)).await;
    assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, layer));
}

#[tokio::test]
async fn a_login_that_is_refused_keeps_nobody_from_public_images_at_registries_without_digests() {
    let hub = Hub::start(HubConfig { head: HeadStyle::WithoutDigest, ..with_private(SECRET) }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logins.json");
    let login = json!({ "auths": { "docker.io": { "username": ADA.0, "password": "wrong" } } });
    std::fs::write(&file, login.to_string()).unwrap();
    let rest = format!(
        "[tags]\n{ASKS_ALWAYS}\n[registries.\"docker.io\"]\nupstream = \"{}\"\ncredentials = {file:?}\n",
        hub.registry_url()
    );
    let bench = Bench::with(hub, &rest);
    for _ in 0..3 {
        let reply = bench.get(&bench.manifest("latest")).await;
        assert_eq!(
            (reply.status, digest_of(&reply.body)),
            (StatusCode::OK, bench.hub.first().digest.clone())
        );
    }
}

#[tokio::test]
async fn a_blob_that_is_forbidden_closes_nothing_else_of_its_repository() {
    let bench = Bench::start().await;
    let image = bench.hub.first().clone();
    bench.pull("latest").await;
    let other = bench.hub.second().own().config.clone();
    bench.hub.fault(Kind::Blob, Fault::Forbidden.only(&other)).await;
    let reply = bench.get(&bench.blob(&other)).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{reply:?}");
    assert_gives(&bench.get(&bench.manifest("latest")).await, &image, "unchanged");
    bench.break_everything(Fault::Unavailable).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, &image, "stale");
    assert_eq!(bench.get(&bench.blob(&image.own().config)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_repository_with_a_limit_of_its_own_keeps_nobody_from_the_others() {
    for refusal in [Refusal::TooManyRequests, Refusal::Denied] {
        let bench = Bench::before(HubConfig { refusal, ..images_only() }, ASKS_ALWAYS).await;
        let always = Image::build(&marker("always")).unwrap();
        bench.hub.push("ratelimitalways/test", &always);
        bench.hub.tag("ratelimitalways/test", "latest", &always.digest);
        for _ in 0..2 {
            let limited = bench.get(&bench.manifest_of("ratelimitalways/test", "latest")).await;
            assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "{limited:?}");
        }
        bench.pull("latest").await;
        assert_eq!(bench.hub.counters().too_many_requests, 1);
    }
}
