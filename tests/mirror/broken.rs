//! Bodies that are cut, or not what their digest says.

use http::StatusCode;

use crate::bench::{Bench, Large, hex_of, retry_after, soon};
use crate::support::hub::client::Client;
use crate::support::hub::{Fault, Kind, digest_of};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_body_that_was_cut_is_taken_up_where_it_broke_off() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    bench.hub.fault(Kind::Cdn, Fault::CutAfter(300_000).next(1).only(hex_of(&large.layer))).await;
    let read = bench.begin(&bench.blob(&large.layer)).await.whole().await;
    assert!(read == large.bytes);

    let counters = bench.hub.counters();
    assert_eq!(
        (counters.cdn_gets, counters.range_requests),
        (2, 2),
        "at the registry and at the CDN: {counters:?}"
    );
    let log = bench.hub.log();
    let ranges: Vec<_> =
        log.iter().filter(|entry| entry.listener == "cdn").map(|entry| entry.range.clone()).collect();
    assert_eq!(ranges, [None, Some("bytes=300000-".to_owned())]);
    assert_eq!(bench.held(), [&*large.layer]);
    assert_eq!(bench.files_of_length(large.bytes.len()), 1);
}

#[tokio::test]
async fn a_body_that_is_cut_again_and_again_still_comes_whole() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    bench.hub.fault(Kind::Cdn, Fault::CutAfter(200_000).next(4).only(hex_of(&large.layer))).await;
    let read = bench.begin(&bench.blob(&large.layer)).await.whole().await;
    assert!(read == large.bytes);
    assert_eq!(bench.hub.counters().cdn_gets, 5);
}

#[tokio::test]
async fn the_signed_address_may_expire_while_a_body_is_coming() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(300_000).only(hex_of(&large.layer))).await;
    let reading = bench.begin(&bench.blob(&large.layer)).await;
    soon(bench.hub.held(Kind::Cdn, 1)).await;
    bench.hub.expire_addresses();
    bench.hub.revoke_tokens();
    // Closing the CDN cuts the body that is held there.
    bench.hub.fault(Kind::Cdn, Fault::Refuse).await;
    bench.hub.clear(Kind::Cdn).await;
    assert!(reading.whole().await == large.bytes);
    assert!(bench.hub.counters().range_requests > 0);
}

#[tokio::test]
async fn wrong_bytes_are_completed_to_nobody_and_kept_nowhere() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let url = bench.blob(&large.layer);
    bench.hub.fault(Kind::Cdn, Fault::WrongBytes.only(hex_of(&large.layer))).await;
    for _ in 0..3 {
        let clients = [None, None, Some("bytes=0-"), Some("bytes=-100")];
        for failed in futures_util::future::join_all(clients.map(|range| fails(&url, range))).await {
            assert!(failed, "a client was given a whole body with a wrong byte in it");
        }
    }
    assert_eq!(bench.held(), [] as [&str; 0]);

    bench.hub.clear_all().await;
    assert!(bench.begin(&url).await.whole().await == large.bytes);
    assert_eq!(bench.held(), [&*large.layer]);
    assert_eq!(bench.files_of_length(large.bytes.len()), 1);
}

#[tokio::test]
async fn a_small_blob_with_a_wrong_byte_is_given_to_nobody() {
    let bench = Bench::start().await;
    let config = &bench.hub.first().own().config;
    bench.hub.fault(Kind::Cdn, Fault::WrongBytes.only(hex_of(config))).await;
    assert!(fails(&bench.blob(config), None).await);
    assert!(!bench.file_of(config).exists());
}

#[tokio::test]
async fn a_page_of_html_is_never_taken_for_a_blob() {
    for kind in [Kind::Blob, Kind::Cdn] {
        let bench = Bench::start().await;
        let large = bench.push_with_layer(MIB);
        let config = &bench.hub.first().own().config;
        bench.hub.fault(kind, Fault::CaptivePortal).await;
        for digest in [&large.layer, config] {
            assert!(fails(&bench.blob(digest), None).await);
        }
        assert_eq!(bench.held(), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn a_blob_whose_first_answers_fail_still_comes() {
    for (kind, fault) in [(Kind::Blob, Fault::Unavailable), (Kind::Cdn, Fault::Unavailable)] {
        let bench = Bench::start().await;
        let config = &bench.hub.first().own().config;
        bench.hub.fault(kind, fault.next(2)).await;
        let reply = bench.get(&bench.blob(config)).await;
        assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, config.clone()));
    }
}

#[tokio::test]
async fn a_cdn_that_refuses_is_an_honest_error() {
    for (fault, status) in [
        (Fault::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Refuse, StatusCode::SERVICE_UNAVAILABLE),
        (Fault::AbuseLimit, StatusCode::TOO_MANY_REQUESTS),
    ] {
        let bench = Bench::start().await;
        let config = &bench.hub.first().own().config;
        bench.hub.fault(Kind::Cdn, fault).await;
        let reply = bench.get(&bench.blob(config)).await;
        assert_eq!(reply.status, status, "{fault:?}: {reply:?}");
        assert!(retry_after(&reply) >= 1);
        bench.hub.clear(Kind::Cdn).await;
        assert_eq!(digest_of(&bench.get(&bench.blob(config)).await.body), *config);
    }
}

/// The connection of the client that got the bad body has only just broken when it comes back.
#[tokio::test]
async fn a_client_that_tries_again_at_once_gets_a_new_download() {
    let bench = Bench::start().await;
    for turn in 0..20 {
        let Large { layer, bytes } = bench.push_with_layer(64 * 1024 + turn);
        bench.hub.fault(Kind::Cdn, Fault::WrongBytes.next(1).only(hex_of(&layer))).await;
        assert!(fails(&bench.blob(&layer), None).await);
        assert!(!fails(&bench.blob(&layer), None).await, "turn {turn}");
        assert!(bench.get(&bench.blob(&layer)).await.body == bytes);
    }
}

#[tokio::test]
async fn a_body_that_stays_short_is_completed_to_nobody() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let url = bench.blob(&large.layer);
    bench.hub.fault(Kind::Cdn, Fault::CutAfter(0).only(hex_of(&large.layer))).await;
    assert!(fails(&url, None).await);
    assert!(!bench.file_of(&large.layer).exists());
    bench.hub.clear_all().await;
    assert!(bench.begin(&url).await.whole().await == large.bytes);
}

/// Whether a client is left without the whole of what it asked for.
async fn fails(url: &str, range: Option<&str>) -> bool {
    use http_body_util::BodyExt as _;
    let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
    let Ok(response) = soon(Client::new().send(http::Method::GET, url, &headers)).await else { return true };
    let status = response.status();
    let announced: usize =
        response.headers().get("content-length").unwrap().to_str().unwrap().parse().unwrap();
    match soon(response.into_body().collect()).await {
        Err(_) => true,
        Ok(body) => {
            let whole = body.to_bytes().len() == announced;
            assert!(whole, "a body that ends without an error is as long as announced");
            ![StatusCode::OK, StatusCode::PARTIAL_CONTENT].contains(&status)
        }
    }
}
