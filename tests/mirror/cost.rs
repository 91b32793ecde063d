//! What a pull costs the registry, however many pull at once, and at registries that answer a HEAD otherwise.

use http::StatusCode;

use crate::bench::{ASKS_ALWAYS, ASKS_ONCE, Bench, assert_gives, blobs_of, images_only, pull, soon};
use crate::support::hub::client::Client;
use crate::support::hub::{BlobStyle, Counters, HeadStyle, HubConfig, MediaTypes, Platform, digest_of};

#[tokio::test]
async fn a_cold_pull_costs_two_counted_gets_and_each_blob_once() {
    let bench = Bench::start().await;
    let ((), cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_each_blob_came_once(&bench, &cost);
    assert_eq!(bench.held().len(), 2 + blobs_of(bench.hub.first().own()).len());
}

#[tokio::test]
async fn a_pull_again_costs_no_get_and_a_move_costs_two() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    for (image, gets) in [(bench.hub.first(), 0), (bench.hub.second(), 2), (bench.hub.first(), 0)] {
        bench.point_latest_at(image);
        let ((), cost) = bench.cost_of(bench.pull("latest")).await;
        assert_eq!((cost.manifest_gets, cost.token_requests), (gets, 0), "{cost:?}");
    }
}

#[tokio::test]
async fn two_hundred_clients_at_once_cost_what_one_does() {
    const CLIENTS: usize = 200;
    let bench = Bench::before(images_only(), ASKS_ONCE).await;
    let mirror = bench.daemon.mirror();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new()).collect();
    let all = futures_util::future::join_all(clients.iter().map(|client| pull(client, &mirror, "latest")));
    let (_, cost) = bench.cost_of(soon(all)).await;

    assert_eq!((cost.manifest_gets, cost.token_requests), (2, 1), "{cost:?}");
    let expected = [&bench.hub.first().digest, &bench.hub.first().own().manifest];
    for digest in expected {
        assert_eq!(
            cost.manifest_gets_by_reference.get(&format!("library/tide@{digest}")),
            Some(&1),
            "{cost:?}"
        );
    }
    assert!(cost.manifest_heads <= 2, "{cost:?}");
    assert_each_blob_came_once(&bench, &cost);
}

fn assert_each_blob_came_once(bench: &Bench, cost: &Counters) {
    let blobs = blobs_of(bench.hub.first().own());
    for blob in &blobs {
        assert_eq!(cost.cdn_gets_by_digest.get(*blob), Some(&1), "{cost:?}");
    }
    assert_eq!(cost.cdn_gets, u64::try_from(blobs.len()).unwrap(), "{cost:?}");
    let bytes: usize = blobs.iter().map(|blob| bench.hub.first().bytes_of(blob).unwrap().len()).sum();
    assert_eq!(cost.cdn_bytes, u64::try_from(bytes).unwrap(), "{cost:?}");
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.hub.revoke_tokens();
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.first(), "unchanged");
    assert_eq!((cost.token_requests, cost.manifest_gets), (1, 0), "{cost:?}");
}

#[tokio::test]
async fn a_registry_that_names_no_digest_on_a_head_is_asked_with_a_get() {
    works_with(HeadStyle::WithoutDigest).await;
}

#[tokio::test]
async fn a_registry_that_knows_no_head_is_asked_with_a_get() {
    works_with(HeadStyle::MethodNotAllowed).await;
}

async fn works_with(head: HeadStyle) {
    let bench = Bench::before(HubConfig { head, ..images_only() }, ASKS_ALWAYS).await;
    let reply = bench.head(&bench.manifest("latest")).await;
    assert_gives(&reply, bench.hub.first(), "changed");
    let reply = bench.get(&bench.manifest("latest")).await;
    assert_gives(&reply, bench.hub.first(), "unchanged");
    assert_eq!(digest_of(&reply.body), bench.hub.first().digest);
    bench.pull("latest").await;

    bench.point_latest_at(bench.hub.second());
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.second(), "changed");
    bench.hub.untag("library/tide", "latest");
    assert_eq!(bench.get(&bench.manifest("latest")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn blobs_come_by_either_redirect_or_from_the_registry_itself() {
    for blobs in [BlobStyle::Redirect307, BlobStyle::Redirect302, BlobStyle::Inline] {
        let bench = Bench::before(HubConfig { blobs, ..images_only() }, ASKS_ALWAYS).await;
        bench.pull("latest").await;
    }
}

#[tokio::test]
async fn a_registry_that_asks_for_no_token_is_asked_without_one() {
    let bench = Bench::before(HubConfig { auth: false, ..images_only() }, ASKS_ALWAYS).await;
    let ((), cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!((cost.manifest_gets, cost.token_requests), (2, 0), "{cost:?}");
}

#[tokio::test]
async fn an_image_in_dockers_own_types_keeps_them() {
    let bench = Bench::before(HubConfig { media: MediaTypes::Docker, ..images_only() }, ASKS_ALWAYS).await;
    bench.pull("latest").await;
    let head = bench.head(&bench.manifest("latest")).await;
    assert_eq!(head.header("content-type"), Some(MediaTypes::Docker.index()));
    let own = bench.head(&bench.manifest(&bench.hub.first().own().manifest)).await;
    assert_eq!(own.header("content-type"), Some(MediaTypes::Docker.manifest()));
}

#[tokio::test]
async fn an_image_of_one_platform_costs_one_counted_get() {
    let bench = Bench::start().await;
    let spec =
        crate::support::hub::ImageSpec { platforms: vec![Platform::own()], ..crate::bench::marker("single") };
    let image = crate::support::hub::Image::build(&spec).unwrap();
    bench.hub.push("library/tide", &image);
    bench.point_latest_at(&image);
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, &image, "changed");
    assert_eq!((reply.header("content-type"), cost.manifest_gets), (Some(image.media_type), 1), "{cost:?}");
}
