//! How a client names what it wants, and what the mirror does not do.

use std::net::TcpListener;

use http::{Method, StatusCode};

use crate::bench::{Bench, assert_gives, assert_refused};
use crate::support::hub::digest_of;

#[tokio::test]
async fn the_registry_may_be_named_by_the_path_as_well_as_by_ns() {
    let bench = Bench::start().await;
    let mirror = bench.daemon.mirror();
    let (image, layer) = (bench.hub.first(), &bench.hub.first().own().layers[0]);
    let by_ns = bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.blob(layer)).await;

    let base = format!("{mirror}/v2/docker.io/library/tide");
    let (by_path, cost) = bench.cost_of(bench.get(&format!("{base}/manifests/latest"))).await;
    assert_gives(&by_path, image, "unchanged");
    assert_eq!((by_path.body, cost.manifest_gets), (by_ns.body, 0));
    let (blob, cost) = bench.cost_of(bench.get(&format!("{base}/blobs/{layer}"))).await;
    assert_eq!((blob.status, digest_of(&blob.body), cost.requests), (StatusCode::OK, layer.clone(), 0));
}

#[tokio::test]
async fn the_path_form_works_for_a_repository_that_nobody_asked_for_by_ns() {
    let bench = Bench::start().await;
    let base = format!("{}/v2/docker.io/library/tide", bench.daemon.mirror());
    assert_gives(&bench.head(&format!("{base}/manifests/1.0")).await, bench.hub.first(), "changed");
    let config = &bench.hub.first().own().config;
    assert_eq!(digest_of(&bench.get(&format!("{base}/blobs/{config}")).await.body), *config);
}

#[tokio::test]
async fn a_registry_on_this_machine_that_is_not_listed_is_refused_without_a_connection() {
    let bench = Bench::start().await;
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "127.9.8.7", "localhost", "0.0.0.0"] {
        let ns = format!("{host}:{port}");
        for path in ["a/b/manifests/latest".to_owned(), format!("a/b/blobs/{}", digest_of(b""))] {
            let reply = bench.get(&format!("{}/v2/{path}?ns={ns}", bench.daemon.mirror())).await;
            assert_refused(&reply, StatusCode::FORBIDDEN, "DENIED");
        }
        let by_path = format!("{}/v2/{ns}/a/b/manifests/latest", bench.daemon.mirror());
        assert_refused(&bench.get(&by_path).await, StatusCode::FORBIDDEN, "DENIED");
    }
    // Other spellings of the same address need not be names at all; they must not get through either.
    for host in ["[::ffff:127.0.0.1]", "[::1]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::]"] {
        let reply =
            bench.get(&format!("{}/v2/a/b/manifests/latest?ns={host}:{port}", bench.daemon.mirror())).await;
        assert!(
            [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST].contains(&reply.status),
            "{host}: {reply:?}"
        );
    }
    // The kernel queues a connection whether or not it is accepted: none was ever made.
    assert!(listener.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn a_registry_at_a_private_address_that_is_not_listed_is_refused() {
    let bench = Bench::start().await;
    for address in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1:5000",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "[fe80::1]:443",
    ] {
        let url = format!("{}/v2/a/b/manifests/latest?ns={address}", bench.daemon.mirror());
        assert_refused(&bench.get(&url).await, StatusCode::FORBIDDEN, "DENIED");
    }
}

#[tokio::test]
async fn the_address_of_a_listed_registry_is_no_name_for_it() {
    let bench = Bench::start().await;
    let address = bench.hub.registry_address();
    let url = format!("{}/v2/library/tide/manifests/latest?ns={address}", bench.daemon.mirror());
    assert_refused(&bench.get(&url).await, StatusCode::FORBIDDEN, "DENIED");
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn what_cannot_be_a_name_is_a_bad_request_and_asks_nobody() {
    let bench = Bench::start().await;
    let mirror = bench.daemon.mirror();
    for ns in [
        "",
        "http://registry.test",
        "registry.test/team",
        "user@registry.test",
        "a%20b.test",
        "registry.test:0x50",
    ] {
        let reply = bench.get(&format!("{mirror}/v2/library/tide/manifests/latest?ns={ns}")).await;
        assert_refused(&reply, StatusCode::BAD_REQUEST, "NAME_INVALID");
    }
    let upper = bench.get(&bench.manifest_of("Library/Tide", "latest")).await;
    assert_refused(&upper, StatusCode::BAD_REQUEST, "NAME_INVALID");
    let short = bench.get(&bench.blob("sha256:abc")).await;
    assert_refused(&short, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn the_mirror_says_that_it_is_a_registry() {
    let bench = Bench::start().await;
    for url in
        [format!("{}/v2/", bench.daemon.mirror()), format!("{}/v2/?ns=docker.io", bench.daemon.mirror())]
    {
        for method in [Method::GET, Method::HEAD] {
            let reply = bench.ask(method, &url, &[]).await;
            assert_eq!(reply.status, StatusCode::OK);
            assert_eq!(reply.header("www-authenticate"), None);
        }
    }
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn nothing_can_be_pushed_or_deleted() {
    let bench = Bench::start().await;
    let uploads = format!("{}/v2/library/tide/blobs/uploads/?ns=docker.io", bench.daemon.mirror());
    for (method, url) in [
        (Method::POST, uploads),
        (Method::PUT, bench.manifest("latest")),
        (Method::PATCH, bench.manifest("latest")),
        (Method::DELETE, bench.manifest("latest")),
        (Method::DELETE, bench.blob(&bench.hub.first().own().config)),
    ] {
        let reply = bench.ask(method, &url, &[]).await;
        assert_refused(&reply, StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    }
    assert_eq!(bench.hub.counters().requests, 0);
}
