//! Blobs, whole and in ranges, held and still coming in.

use http::{Method, StatusCode};

use crate::bench::{Bench, blobs_of, hex_of, soon, standing};
use crate::support::hub::{Fault, Kind, digest_of};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[tokio::test]
async fn a_blob_is_given_with_its_digest_and_its_length() {
    let bench = Bench::start().await;
    for digest in blobs_of(bench.hub.first().own()) {
        let bytes = bench.hub.first().bytes_of(digest).unwrap();
        let length = bytes.len().to_string();
        let (head, cost) = bench.cost_of(bench.head(&bench.blob(digest))).await;
        assert_eq!(
            (cost.blob_gets, cost.cdn_gets),
            (0, 0),
            "a question about a blob fetches nothing: {cost:?}"
        );
        let get = bench.get(&bench.blob(digest)).await;
        let again = bench.head(&bench.blob(digest)).await;
        for reply in [&head, &get, &again] {
            assert_eq!((reply.status, standing(reply)), (StatusCode::OK, "immutable"));
            assert_eq!(reply.header("docker-content-digest"), Some(digest));
            assert_eq!(reply.header("content-length"), Some(length.as_str()));
        }
        assert_eq!(get.body, bytes);
    }
}

#[tokio::test]
async fn a_held_blob_asks_nobody() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().own().layers[0];
    bench.get(&bench.blob(digest)).await;
    let (reply, cost) = bench.cost_of(bench.get(&bench.blob(digest))).await;
    assert_eq!((digest_of(&reply.body), cost.requests), (digest.clone(), 0), "{cost:?}");
}

#[tokio::test]
async fn an_unknown_blob_is_a_404_that_names_itself_so() {
    let bench = Bench::start().await;
    let digest = digest_of(b"no blob of this repository");
    let reply = bench.get(&bench.blob(&digest)).await;
    crate::bench::assert_refused(&reply, StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    assert_eq!(bench.head(&bench.blob(&digest)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bytes_come_as_they_are_whatever_encodings_a_client_takes() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().own().layers[0];
    for url in [bench.blob(digest), bench.manifest("latest")] {
        let reply = bench.ask(http::Method::GET, &url, &[("accept-encoding", "gzip, zstd, br")]).await;
        assert_eq!(reply.header("content-encoding"), None);
        assert_eq!(Some(digest_of(&reply.body).as_str()), reply.header("docker-content-digest"));
    }
}

#[tokio::test]
async fn a_held_blob_is_given_in_ranges() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let (url, bytes) = (bench.blob(&large.layer), &large.bytes);
    bench.get(&url).await;
    let total = bytes.len();
    let (last, tail) = (total - 1, total - 100);
    bench.hub.reset_counters();
    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 0),
        ("bytes=100-199".to_owned(), 100, 199),
        ("bytes=0-".to_owned(), 0, last),
        (format!("bytes={tail}-"), tail, last),
        ("bytes=-100".to_owned(), tail, last),
        (format!("bytes=0-{}", total + 100), 0, last),
        (format!("bytes=-{}", total + 100), 0, last),
    ] {
        let reply = bench.range(&url, &range).await;
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            reply.header("content-range"),
            Some(format!("bytes {from}-{to}/{total}").as_str()),
            "{range}"
        );
        assert_eq!(reply.header("content-length"), Some((to - from + 1).to_string().as_str()), "{range}");
        assert!(reply.body == bytes.slice(from..=to), "{range}");
    }
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn a_range_of_another_blob_than_this_is_answered_with_the_whole() {
    let bench = Bench::start().await;
    let config = &bench.hub.first().own().config;
    let this = format!("\"{config}\"");
    for (of, status) in [(&*this, StatusCode::PARTIAL_CONTENT), ("\"another\"", StatusCode::OK)] {
        let headers = [("range", "bytes=1-2"), ("if-range", of)];
        let reply = bench.ask(Method::GET, &bench.blob(config), &headers).await;
        assert_eq!(reply.status, status, "{of}");
    }
}

#[tokio::test]
async fn a_range_past_the_end_is_refused_with_the_length() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().own().config;
    let total = bench.get(&bench.blob(digest)).await.body.len();
    let reply = bench.range(&bench.blob(digest), &format!("bytes={total}-")).await;
    assert_eq!(reply.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(reply.header("content-range"), Some(format!("bytes */{total}").as_str()));
}

#[tokio::test]
async fn a_range_that_cannot_be_read_is_answered_with_the_whole() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().own().config;
    for range in ["bytes=9-3", "bytes=a-b", "lines=0-1", "bytes=0-1,4-5"] {
        let reply = bench.range(&bench.blob(digest), range).await;
        assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, digest.clone()), "{range}");
    }
}

#[tokio::test]
async fn the_first_request_for_a_blob_may_be_for_a_range_and_fetches_the_whole_once() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let reply = bench.range(&bench.blob(&large.layer), "bytes=-1000").await;
    assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
    assert!(reply.body == large.bytes.slice(large.bytes.len() - 1000..));
    let (reply, cost) = bench.cost_of(bench.get(&bench.blob(&large.layer))).await;
    assert!(reply.body == large.bytes);
    assert_eq!((cost.cdn_gets, cost.range_requests), (0, 0), "{cost:?}");
}

#[tokio::test]
async fn what_has_come_of_a_blob_is_given_to_every_client_while_the_rest_is_coming() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let (url, bytes) = (bench.blob(&large.layer), &large.bytes);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(512 * 1024).only(hex_of(&large.layer))).await;

    let mut first = bench.begin(&url).await;
    soon(bench.hub.held(Kind::Cdn, 1)).await;
    let mut second = bench.begin(&url).await;
    for reading in [&mut first, &mut second] {
        assert_eq!((reading.status(), reading.announced()), (StatusCode::OK, bytes.len()));
        let read = reading.at_least(400 * KIB).await;
        assert!(read.len() < bytes.len() && bytes.starts_with(read));
    }

    bench.hub.clear(Kind::Cdn).await;
    assert!(first.whole().await == *bytes && second.whole().await == *bytes);
    assert_eq!(bench.hub.counters().cdn_wholes_by_digest.get(&large.layer), Some(&1));
}

#[tokio::test]
async fn a_range_behind_the_write_position_is_answered_before_the_download_ends() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let (url, bytes) = (bench.blob(&large.layer), &large.bytes);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(512 * 1024).only(hex_of(&large.layer))).await;

    let first = bench.begin(&url).await;
    soon(bench.hub.held(Kind::Cdn, 1)).await;
    let ahead = bench.begin_range(&url, Some("bytes=1000000-")).await;
    let behind = bench.range(&url, "bytes=300000-399999").await;
    assert_eq!(behind.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(behind.header("content-range"), Some(format!("bytes 300000-399999/{}", bytes.len()).as_str()));
    assert!(behind.body == bytes.slice(300_000..400_000));

    bench.hub.clear(Kind::Cdn).await;
    assert!(ahead.whole().await == bytes[1_000_000..]);
    assert!(first.whole().await == *bytes);
    let counters = bench.hub.counters();
    assert_eq!(counters.cdn_wholes_by_digest.get(&large.layer), Some(&1), "{counters:?}");
}

#[tokio::test]
async fn a_download_goes_on_when_the_client_that_began_it_leaves() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(8 * MIB);
    let (url, bytes) = (bench.blob(&large.layer), &large.bytes);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(64 * 1024).only(hex_of(&large.layer))).await;

    let first = bench.begin(&url).await;
    soon(bench.hub.held(Kind::Cdn, 1)).await;
    drop(first);
    bench.hub.clear(Kind::Cdn).await;
    let total = u64::try_from(bytes.len()).unwrap();
    soon(bench.hub.counted(|counters| counters.cdn_bytes == total)).await;

    let (reply, cost) = bench.cost_of(bench.get(&url)).await;
    assert!(reply.body == *bytes);
    assert_eq!((cost.blob_gets, cost.cdn_gets), (0, 0), "{cost:?}");
}
