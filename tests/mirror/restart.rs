//! What is held outlives the daemon.

use crate::bench::{Bench, assert_gives, blobs_of};
use crate::support::hub::{Fault, digest_of};

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_blobs_serve_after_a_stop_with_the_registry_and_without_it() {
    let mut bench = Bench::start().await;
    bench.pull("latest").await;
    assert!(bench.daemon.terminate().success());
    bench.daemon.start_again();
    assert_eq!(bench.held().len(), 2 + blobs_of(bench.hub.first().own()).len());
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.first(), "unchanged");
    assert_eq!((cost.manifest_heads, cost.manifest_gets), (1, 0), "{cost:?}");

    bench.break_everything(Fault::Refuse).await;
    let reply = bench.get(&bench.manifest("latest")).await;
    assert_gives(&reply, bench.hub.first(), "stale");
    assert_eq!(digest_of(&reply.body), bench.hub.first().digest);
    bench.pull("latest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_after_a_crash_costs_no_get_and_no_blob_and_needs_no_registry() {
    let mut bench = Bench::start().await;
    bench.pull("latest").await;
    bench.daemon.kill();
    bench.daemon.start_again();
    assert_eq!(bench.held().len(), 2 + blobs_of(bench.hub.first().own()).len());
    bench.break_everything(Fault::Refuse).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "stale");
    bench.pull("latest").await;

    bench.hub.clear_all().await;
    let ((), cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!((cost.manifest_gets, cost.blob_gets, cost.cdn_gets), (0, 0, 0), "{cost:?}");
}
