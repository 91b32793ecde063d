//! What is fetched before it is asked for: the blobs of an image for this node that somebody pulls, and nothing else.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use http::{Method, StatusCode};

use crate::bench::{Bench, blobs_of, hex_of, images_only, marker, soon, until};
use crate::people::{SECRET, adas, ask_as, push_secret, with_private};
use crate::strangers::{beside, evils, registry};
use crate::support::hub::{Fault, Hub, Image, ImageSpec, Kind, Platform, REPOSITORY, digest_of};

const AHEAD: &str = "fresh_for = \"0s\"\n[fetch]\nahead = true";

async fn bench() -> Bench {
    Bench::before(images_only(), AHEAD).await
}

async fn all_held(bench: &Bench, image: &Image) {
    for blob in blobs_of(image.own()) {
        until(async || bench.file_of(blob).exists()).await;
    }
}

#[tokio::test]
async fn whoever_gets_an_images_manifest_finds_its_blobs_on_their_way() {
    let bench = bench().await;
    let image = bench.hub.first();
    let (_, cost) = bench
        .cost_of(async {
            bench.get(&bench.manifest("latest")).await;
            bench.get(&bench.manifest(&image.own().manifest)).await;
            all_held(&bench, image).await;
        })
        .await;
    assert_eq!((cost.manifest_gets, cost.token_requests), (2, 1), "no pull more than without: {cost:?}");
    assert_eq!(cost.cdn_gets, blobs_of(image.own()).len() as u64, "{cost:?}");
    let (_, cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!(cost.blob_gets, 0, "{cost:?}");
}

#[tokio::test]
async fn a_pull_fetches_each_blob_once_whether_it_comes_before_or_after() {
    let bench = bench().await;
    let ((), cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    for blob in blobs_of(bench.hub.first().own()) {
        assert_eq!(cost.cdn_gets_by_digest.get(blob), Some(&1), "{cost:?}");
    }
}

#[tokio::test]
async fn asking_what_a_tag_points_at_fetches_nothing_ahead() {
    let bench = bench().await;
    let spec = ImageSpec { platforms: vec![Platform::own()], ..marker("one") };
    let image = Image::build(&spec).unwrap();
    bench.hub.push(REPOSITORY, &image);
    bench.point_latest_at(&image);
    assert_eq!(bench.head(&bench.manifest("latest")).await.status, StatusCode::OK);
    assert_eq!(bench.head(&bench.manifest(&image.digest)).await.status, StatusCode::OK);
    // What was begun would be under way by the time that another question is answered with a blob.
    let other = &bench.hub.first().own().config;
    bench.get(&bench.blob(other)).await;
    let counters = bench.hub.counters();
    assert_eq!((counters.blob_gets, bench.held().len()), (1, 2), "{counters:?}");

    // Its config is asked for in a pull alone.
    bench.get(&bench.blob(&image.own().config)).await;
    all_held(&bench, &image).await;
}

#[tokio::test]
async fn images_of_other_machines_are_not_fetched_ahead() {
    let bench = bench().await;
    let image = bench.hub.first();
    bench.get(&bench.manifest("latest")).await;
    let others: Vec<_> = image.platforms.iter().filter(|other| other.platform != Platform::own()).collect();
    assert!(!others.is_empty());
    for other in &others {
        bench.get(&bench.manifest(&other.manifest)).await;
    }
    bench.get(&bench.manifest(&image.own().manifest)).await;
    all_held(&bench, image).await;
    let blobs = blobs_of(image.own());
    let counters = bench.hub.counters();
    for other in others {
        for blob in blobs_of(other).into_iter().filter(|blob| !blobs.contains(blob)) {
            assert_eq!(counters.cdn_gets_by_digest.get(blob), None, "{counters:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_fetched_ahead_where_the_configuration_says_so() {
    let bench = Bench::before(images_only(), "fresh_for = \"0s\"\n[fetch]\nahead = false").await;
    let own = bench.hub.first().own();
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest(&own.manifest)).await;
    bench.get(&bench.blob(&own.config)).await;
    let counters = bench.hub.counters();
    assert_eq!((counters.blob_gets, bench.held().len()), (1, 3), "{counters:?}");
}

#[tokio::test]
async fn no_more_blobs_come_at_a_time_than_are_allowed_ahead() {
    let bench = Bench::before(images_only(), "[fetch]\nparallel = 1").await;
    let image = bench.hub.first();
    bench.hub.fault(Kind::Cdn, Fault::Hang).await;
    bench.get(&bench.manifest(&image.own().manifest)).await;
    soon(bench.hub.held(Kind::Cdn, 1)).await;
    assert_eq!(bench.hub.counters().blob_gets, 1);
    bench.hub.clear(Kind::Cdn).await;
    all_held(&bench, image).await;
}

#[tokio::test]
async fn what_only_some_may_read_is_not_fetched_ahead_for_a_client() {
    let bench = Bench::before(with_private(SECRET), AHEAD).await;
    let image = push_secret(&bench);
    let token = adas(&bench).await;
    let ask = async |kind: &str, reference: &str| {
        let url = format!("{}/v2/{SECRET}/{kind}/{reference}?ns=docker.io", bench.daemon.mirror());
        ask_as(&bench, Some(&token), Method::GET, &url).await.status
    };
    for reference in ["latest", &image.own().manifest] {
        assert_eq!(ask("manifests", reference).await, StatusCode::OK);
    }
    assert_eq!(ask("blobs", &image.own().config).await, StatusCode::OK);
    assert_eq!(bench.hub.counters().cdn_gets, 1, "only what the client asked for itself");
    assert_eq!(bench.held().len(), 3);
}

#[tokio::test]
async fn a_slow_registry_that_gives_parts_is_asked_for_them_on_several_connections() {
    let bench = Bench::before(images_only(), "[fetch]\nconnections = 3").await;
    let large = bench.push_with_layer(40 << 20);
    bench.hub.fault(Kind::Cdn, Fault::Slow(8 << 20).only(hex_of(&large.layer))).await;
    let reply = bench.get(&bench.blob(&large.layer)).await;
    assert!(reply.body == large.bytes);
    let counters = bench.hub.counters();
    assert!(counters.range_requests > 0, "{counters:?}");
    assert_eq!(counters.manifest_gets, 0);
}

#[tokio::test]
async fn one_connection_is_all_that_a_blob_gets_where_no_more_are_allowed() {
    let bench = Bench::before(images_only(), "[fetch]\nconnections = 1").await;
    let large = bench.push_with_layer(24 << 20);
    bench.hub.fault(Kind::Cdn, Fault::Slow(8 << 20).only(hex_of(&large.layer))).await;
    let reply = bench.get(&bench.blob(&large.layer)).await;
    assert!(reply.body == large.bytes);
    assert_eq!(bench.hub.counters().range_requests, 0);
}

#[tokio::test]
async fn parts_that_break_are_taken_up_by_others() {
    let bench = Bench::before(images_only(), "[fetch]\nconnections = 2").await;
    let large = bench.push_with_layer(40 << 20);
    let hex = hex_of(&large.layer);
    bench.hub.fault(Kind::Cdn, Fault::Slow(8 << 20).only(hex)).await;
    let url = bench.blob(&large.layer);
    let mut reading = bench.begin(&url).await;
    reading.at_least(1 << 20).await;
    // Every further connection ends after a little, until that is over.
    bench.hub.fault(Kind::Cdn, Fault::CutAfter(100_000).next(6).only(hex)).await;
    assert!(reading.whole().await == large.bytes);
}

#[tokio::test]
async fn a_registry_may_stop_giving_parts() {
    let bench = Bench::before(images_only(), "[fetch]\nconnections = 4").await;
    let large = bench.push_with_layer(24 << 20);
    bench.hub.fault(Kind::Cdn, Fault::Slow(8 << 20).only(hex_of(&large.layer))).await;
    let reading = bench.begin(&bench.blob(&large.layer)).await;
    bench.hub.fault(Kind::Blob, Fault::Unavailable).await;
    assert!(reading.whole().await == large.bytes, "the first connection brings all of it");
}

/// What clients were given out of downloads and out of the hold, once it is so much in all.
async fn given(bench: &Bench, all: u64) -> (u64, u64) {
    let mut given = (0, 0);
    until(async || {
        let status = bench.get(&format!("{}/api/status", bench.daemon.web())).await;
        let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
        let bytes = |of: &str| status[of].as_u64().unwrap();
        given = (bytes("bytes_from_upstream"), bytes("bytes_from_hold"));
        assert!(bytes("bytes_downloaded") >= given.0, "manifests and tokens are downloaded too");
        given.0 + given.1 == all
    })
    .await;
    given
}

#[tokio::test]
async fn what_was_fetched_ahead_counts_as_downloaded_for_the_client_that_reads_it_first() {
    let bench = bench().await;
    let image = bench.hub.first();
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest(&image.own().manifest)).await;
    all_held(&bench, image).await;
    let bytes: u64 =
        blobs_of(image.own()).iter().map(|digest| bench.file_of(digest).metadata().unwrap().len()).sum();
    bench.pull("latest").await;
    assert_eq!(given(&bench, bytes).await, (bytes, 0));
    bench.pull("latest").await;
    assert_eq!(given(&bench, 2 * bytes).await, (bytes, bytes));
}

#[tokio::test]
async fn what_has_come_in_before_its_answer_begins_counts_as_downloaded_for_who_asked_for_it() {
    // Without a length, there is no answer before its end.
    let chunks = || stream::iter(["ebb ", "and ", "flow"].map(Ok::<_, Infallible>));
    let without_length = registry(move |_| Response::new(Body::from_stream(chunks()))).await;
    let bench = beside(Hub::start(images_only()).await, &without_length);
    let url = evils(&bench, &format!("blobs/{}", digest_of(b"ebb and flow")));
    for expected in [(12, 0), (12, 12)] {
        let reply = bench.get(&url).await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"ebb and flow"[..]));
        assert_eq!(given(&bench, expected.0 + expected.1).await, expected);
    }
}
