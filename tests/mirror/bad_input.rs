//! What no client should send and no registry should answer: each gets an error that clients can read, asks nobody
//! in vain, and leaves nothing behind.

use std::fs;
use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::{Bench, assert_gives, assert_refused, soon, standing};
use crate::support::hub::client::{ALL_MANIFESTS, Reply};
use crate::support::hub::{Image, Kind, MediaTypes, REPOSITORY, digest_of};

const MIB: usize = 1024 * 1024;

/// What stands on a line of its own in a request, sent as it is, and the answer's status and body.
async fn raw(bench: &Bench, request: &str) -> (u16, String) {
    let address = bench.daemon.mirror().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let exchange = async {
        // It may answer, and close, before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = soon(exchange).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A request line, and headers that close the connection after the answer.
fn closing(line: &str, headers: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {ALL_MANIFESTS}\r\n{headers}\r\n"
    )
}

/// The daemon asked nobody, has nothing new, and answers as before.
async fn assert_unharmed(bench: &Bench, requests: u64) {
    assert_eq!(bench.hub.counters().requests, requests, "{:?}", bench.hub.log());
    assert_eq!(bench.held(), [] as [&str; 0]);
    assert_eq!(leftovers(bench), [] as [String; 0]);
    assert_gives(&bench.get(&bench.manifest("1.0")).await, bench.hub.first(), "changed");
}

/// Files of the hold, finished or not, beside its index.
fn leftovers(bench: &Bench) -> Vec<String> {
    let files = bench.daemon.files().into_iter();
    let data = bench.daemon.data();
    let names = files.map(|file| file.strip_prefix(&data).unwrap().display().to_string());
    names.filter(|name| name.starts_with("blobs") || name.starts_with("ingest")).collect()
}

#[track_caller]
fn assert_error(reply: &Reply, statuses: &[u16], what: &str) {
    assert!(statuses.contains(&reply.status.as_u16()), "{what}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
    assert!(!reply.error_code().is_empty(), "{what}: {reply:?}");
    assert_eq!((reply.header("docker-content-digest"), standing(reply)), (None, "none"), "{what}");
}

#[tokio::test]
async fn references_and_digests_that_are_none_are_bad_requests() {
    let bench = Bench::start().await;
    let hex = "a".repeat(64);
    for reference in [
        ".hidden".to_owned(),
        "-dash".to_owned(),
        "a".repeat(129),
        "a%20b".to_owned(),
        "a%00b".to_owned(),
        "a%0d%0ab".to_owned(),
        "%2e%2e%2f%2e%2e%2fetc".to_owned(),
        "%C3%A9".to_owned(),
        "%FF".to_owned(),
        "sha256:abc".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}0"),
        format!("sha256:{}g", &hex[1..]),
        format!("md5:{}", &hex[..32]),
        format!("SHA256:{hex}"),
        format!("sha256:{hex}@latest"),
        format!("latest@sha256:{hex}"),
    ] {
        let manifest = bench.get(&bench.manifest(&reference)).await;
        assert_error(&manifest, &[400], &reference);
        let blob = bench.get(&bench.blob(&reference)).await;
        assert_refused(&blob, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        assert_eq!(bench.head(&bench.manifest(&reference)).await.status, StatusCode::BAD_REQUEST);
    }
    assert_unharmed(&bench, 0).await;
}

#[tokio::test]
async fn names_that_are_none_are_bad_requests() {
    let bench = Bench::start().await;
    for name in [
        "a//b",
        "a/../b",
        "../a",
        "a/./b",
        "a/b/",
        "_a/b",
        "a__b__/c",
        "a-/b",
        "A/b",
        "a%2fb",
        "a%2f..%2fb",
        "a%00",
        "a%5cb",
        "a:b",
        "caf%C3%A9",
        &"a/".repeat(200),
        &"a".repeat(300),
    ] {
        for what in ["manifests/latest".to_owned(), format!("blobs/{}", digest_of(b""))] {
            let url = format!("{}/v2/{name}/{what}?ns=docker.io", bench.daemon.mirror());
            assert_error(&bench.get(&url).await, &[400, 404], name);
        }
    }
    assert_unharmed(&bench, 0).await;
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_errors() {
    let bench = Bench::start().await;
    for path in [
        "/",
        "/v1/",
        "/v2",
        "/v2x/a/manifests/b",
        "/v2//",
        "/v2/a",
        "/v2/manifests/latest",
        "/v2/a/manifests/",
        "/v2/a/manifests",
        "/v2/a/blobs/",
        "/v2/a/b/c/d",
        "//v2/a/manifests/latest",
        "/v2/../v2/a/manifests/b",
        "/etc/passwd",
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/a/manifests/latest/x",
        "/_hub/log",
        "/metrics",
    ] {
        let (status, body) = raw(&bench, &closing(&format!("GET {path}?ns=docker.io"), "")).await;
        let base = path == "/v2";
        assert!(base && status == 200 || !base && [400, 404].contains(&status), "{path}: {status} {body}");
        let json: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!(json["errors"][0]["code"].is_string(), !base, "{path}: {body}");
    }
    assert_unharmed(&bench, 0).await;
}

#[tokio::test]
async fn queries_that_make_no_sense_name_nobody_or_are_bad_requests() {
    let bench = Bench::start().await;
    for query in ["ns=%00", "ns=%FF", "ns=a%0d%0ab", "ns=..", "ns=docker.io%2f..", "ns=docker.io:99999"] {
        let url = format!("{}/v2/{REPOSITORY}/manifests/latest?{query}", bench.daemon.mirror());
        assert_error(&bench.get(&url).await, &[400, 403], query);
    }
    let long = format!("ns={}", "a".repeat(5000));
    let url = format!("{}/v2/{REPOSITORY}/manifests/latest?{long}", bench.daemon.mirror());
    assert_error(&bench.get(&url).await, &[400], "a long ns");
    assert_unharmed(&bench, 0).await;
    // Whatever else stands there is nothing to us.
    for query in ["ns=docker.io&n=9&ns", "&&ns=docker.io", "ns=docker.io&%%%=1"] {
        let url = format!("{}/v2/{REPOSITORY}/manifests/latest?{query}", bench.daemon.mirror());
        let reply = bench.get(&url).await;
        assert!([StatusCode::OK, StatusCode::BAD_REQUEST].contains(&reply.status), "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn requests_too_long_to_be_read_are_refused_and_the_next_is_answered() {
    let bench = Bench::start().await;
    let manifest = format!("/v2/{REPOSITORY}/manifests/latest?ns=docker.io");
    let many: String = (0..500).map(|number| format!("X-{number}: y\r\n")).collect();
    for (what, request) in [
        ("path", closing(&format!("GET /v2/{}/manifests/latest", "a/".repeat(200_000)), "")),
        ("query", closing(&format!("GET {manifest}&x={}", "y".repeat(MIB)), "")),
        ("header", closing(&format!("GET {manifest}"), &format!("X-Long: {}\r\n", "y".repeat(MIB)))),
        (
            "token",
            closing(&format!("GET {manifest}"), &format!("Authorization: Bearer {}\r\n", "y".repeat(MIB))),
        ),
        ("headers", closing(&format!("GET {manifest}"), &many)),
        ("version", format!("GET {manifest} HTTP/9.9\r\n\r\n")),
        ("noise", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
    ] {
        let (status, body) = raw(&bench, &request).await;
        assert!((400..500).contains(&status) || status == 0, "{what}: {status} {body}");
    }
    assert_unharmed(&bench, 0).await;
}

#[tokio::test]
async fn a_long_token_that_can_be_read_is_no_worse_than_none() {
    let bench = Bench::start().await;
    for token in ["y".repeat(60_000), "\u{e9}".to_owned(), String::new(), "a b c".to_owned()] {
        let header = format!("Authorization: Bearer {token}\r\n");
        let line = format!("GET /v2/{REPOSITORY}/manifests/latest?ns=docker.io");
        let (status, body) = raw(&bench, &closing(&line, &header)).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(digest_of(body.as_bytes()), bench.hub.first().digest);
    }
}

#[tokio::test]
async fn a_body_on_a_get_is_nothing_to_us() {
    let bench = Bench::start().await;
    let line = format!("GET /v2/{REPOSITORY}/manifests/latest?ns=docker.io");
    let small = format!("{}{{\"a\":1}}", closing(&line, "Content-Length: 7\r\n"));
    let chunked = format!("{}5\r\nhello\r\n0\r\n\r\n", closing(&line, "Transfer-Encoding: chunked\r\n"));
    for request in [small, chunked] {
        let (status, body) = raw(&bench, &request).await;
        assert_eq!((status, digest_of(body.as_bytes())), (200, bench.hub.first().digest.clone()));
    }
    // One that is announced and never comes does not keep the answer back, nor does a large one fill anything.
    let unsent = closing(&line, "Content-Length: 99999999\r\n");
    let large = format!("{unsent}{}", "y".repeat(8 * MIB));
    for request in [unsent, large] {
        let (status, _) = raw(&bench, &request).await;
        assert!([0, 200].contains(&status), "{status}");
    }
    // One that has gone since is none.
    let small = |file: &PathBuf| fs::metadata(file).map_or(true, |found| found.len() < MIB as u64);
    assert!(bench.daemon.files().iter().all(small));
    assert_eq!(bench.get(&bench.manifest("latest")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn ranges_of_every_kind_are_answered_or_416_and_fetch_a_blob_once() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().own().config;
    let url = bench.blob(digest);
    let total = bench.hub.first().bytes_of(digest).unwrap().len();
    for range in [
        format!("bytes={total}-"),
        "bytes=99999999999999999999-".to_owned(),
        "bytes=18446744073709551615-".to_owned(),
        format!("bytes={}-{}", total + 1, total + 2),
        "bytes=-0".to_owned(),
    ] {
        let reply = bench.range(&url, &range).await;
        match reply.status {
            StatusCode::RANGE_NOT_SATISFIABLE => {
                assert_eq!(
                    reply.header("content-range"),
                    Some(format!("bytes */{total}").as_str()),
                    "{range}"
                );
                assert!(!reply.error_code().is_empty());
            }
            // A number that no machine can hold is as good as no range.
            status => assert!(
                status == StatusCode::OK && range.contains("99999999999999999999"),
                "{range}: {status}"
            ),
        }
    }
    let spaces = "bytes=0-0,".repeat(5000);
    for range in ["bytes=", "bytes=-", "bytes=--1", "bytes=0x0-0x1", "", "bytes=1-0", spaces.as_str()] {
        let reply = bench.range(&url, range).await;
        assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, digest.clone()), "{range:.40}");
    }
    assert_eq!(bench.hub.counters().cdn_gets, 1);
}

/// A tag whose manifest is this, which no client could use.
async fn refuses(bench: &Bench, media_type: &'static str, bytes: Vec<u8>, what: &str) {
    let image = Image::of_manifest(media_type, bytes);
    bench.hub.push(REPOSITORY, &image);
    bench.hub.tag(REPOSITORY, "bad", &image.digest);
    for reference in ["bad", &image.digest] {
        let reply = bench.get(&bench.manifest(reference)).await;
        assert_error(&reply, &[404, 502], what);
    }
    assert_eq!(bench.head(&bench.manifest("bad")).await.header("docker-content-digest"), None, "{what}");
    bench.hub.untag(REPOSITORY, "bad");
}

#[tokio::test]
async fn manifests_that_are_none_are_given_to_nobody_and_kept_nowhere() {
    let index = MediaTypes::Oci.index();
    let entry = json!({ "mediaType": MediaTypes::Oci.manifest(), "digest": digest_of(b"x"), "size": 1 });
    let too_large =
        json!({ "schemaVersion": 2, "mediaType": index, "manifests": [], "x": "y".repeat(4 * MIB) });
    let deep = |open: &str, close: &str| {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":{nested}}}"#)
    };
    for (what, bytes) in [
        ("too large", too_large.to_string()),
        ("nothing", String::new()),
        ("no JSON", "<!doctype html><p>sign in".to_owned()),
        ("no object", "[]".to_owned()),
        ("nothing in it", "{}".to_owned()),
        ("deep lists", deep("[", "]")),
        ("deep objects", deep(r#"{"a":"#, "}")),
        (
            "another version",
            json!({ "schemaVersion": 3, "mediaType": index, "manifests": [entry] }).to_string(),
        ),
        ("cut", format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[{{"#)),
        (
            "no digest",
            json!({ "schemaVersion": 2, "mediaType": index, "manifests": [{ "size": 1 }] }).to_string(),
        ),
        (
            "a path for a digest",
            json!({ "schemaVersion": 2, "mediaType": index,
                    "manifests": [{ "mediaType": index, "digest": "sha256:../../etc", "size": 1 }] })
            .to_string(),
        ),
    ] {
        let bench = Bench::start().await;
        refuses(&bench, index, bytes.into_bytes(), what).await;
        assert_eq!(bench.held(), [] as [&str; 0], "{what}");
        assert_eq!(leftovers(&bench), [] as [String; 0], "{what}");
        assert_gives(&bench.get(&bench.manifest("1.0")).await, bench.hub.first(), "changed");
    }
}

#[tokio::test]
async fn an_index_of_tens_of_thousands_is_answered_in_time_and_asks_for_none_of_them() {
    let bench = Bench::start().await;
    let index = MediaTypes::Oci.index();
    let entries: Vec<Value> = (0..25_000_u32)
        .map(|number| json!({ "mediaType": "a/b", "digest": digest_of(&number.to_le_bytes()), "size": 1 }))
        .collect();
    let text = json!({ "schemaVersion": 2, "mediaType": index, "manifests": entries }).to_string();
    assert!(text.len() < 4 * MIB);
    let image = Image::of_manifest(index, text);
    bench.hub.push(REPOSITORY, &image);
    bench.point_latest_at(&image);
    bench.hub.reset_counters();
    let reply = bench.get(&bench.manifest("latest")).await;
    match reply.status {
        StatusCode::OK => assert_eq!(digest_of(&reply.body), image.digest),
        _ => assert_error(&reply, &[502], "a large index"),
    }
    let alone = bench.ask(Method::GET, &bench.manifest("1.0"), &[]).await;
    assert_gives(&alone, bench.hub.first(), "changed");
    assert!(bench.hub.counters().requests < 10, "{:?}", bench.hub.counters());
}

#[tokio::test]
async fn a_page_of_html_is_no_manifest_and_leaves_nothing() {
    let bench = Bench::start().await;
    for kind in [Kind::ManifestHead, Kind::ManifestGet] {
        bench.hub.fault(kind, crate::support::hub::Fault::CaptivePortal).await;
    }
    for reference in ["latest", &bench.hub.first().digest] {
        let reply = bench.get(&bench.manifest(reference)).await;
        assert_error(&reply, &[502, 503], "HTML");
    }
    assert_eq!(leftovers(&bench), [] as [String; 0]);
    bench.hub.clear_all().await;
    assert_gives(&bench.get(&bench.manifest("1.0")).await, bench.hub.first(), "changed");
}

#[tokio::test]
async fn indexes_within_indexes_come_to_an_end() {
    let bench = Bench::start().await;
    let (index, amd64) = (MediaTypes::Oci.index(), json!({ "os": "linux", "architecture": "amd64" }));
    let mut inner = Image::of_manifest(
        index,
        json!({ "schemaVersion": 2, "mediaType": index, "manifests": [] }).to_string(),
    );
    for _ in 0..50 {
        bench.hub.push(REPOSITORY, &inner);
        let entry = json!({ "mediaType": index, "digest": inner.digest, "size": 100, "platform": amd64 });
        let outer = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [entry] });
        inner = Image::of_manifest(index, outer.to_string());
    }
    bench.hub.push(REPOSITORY, &inner);
    bench.point_latest_at(&inner);
    bench.hub.reset_counters();
    let headers = [("accept", MediaTypes::Oci.manifest())];
    let reply = soon(bench.client.get(&bench.manifest("latest"), &headers)).await;
    assert_error(&reply, &[404, 502], "indexes all the way down");
    assert!(bench.hub.counters().manifest_gets <= 4, "{:?}", bench.hub.counters());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_stands_in_a_query_is_in_no_log() {
    let mut bench = Bench::start().await;
    let manifest = format!("{}&token=a-secret", bench.manifest("1.0"));
    assert_gives(&bench.get(&manifest).await, bench.hub.first(), "changed");
    assert!(bench.daemon.terminate().success());
    let log = bench.daemon.log();
    assert!(log.contains("docker.io/library/") && !log.contains("a-secret"), "{log}");
}
