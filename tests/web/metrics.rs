//! The metrics: their names, and that they move as what happens does.

use crate::bench::{ASKS_ALWAYS, Bench, blobs_of, images_only, pull, until};
use crate::exposition::Metrics;
use crate::support::hub::client::Client;
use crate::support::hub::{Fault, HubConfig, Kind};

pub(crate) async fn scrape(bench: &Bench) -> Metrics {
    let reply = bench.get(&format!("{}/metrics", bench.daemon.web())).await;
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    Metrics::parse(str::from_utf8(&reply.body).unwrap())
}

/// A daemon of which each kind of metric has something to say.
pub(crate) async fn busy() -> Bench {
    let registry = HubConfig { limit: Some(2), ..images_only() };
    let bench = Bench::before(registry, ASKS_ALWAYS).await;
    for _ in 0..2 {
        bench.pull("latest").await;
    }
    bench.point_latest_at(bench.hub.second());
    bench.get(&bench.manifest("latest")).await;
    // Nothing else would do, so it is asked for although nothing is left.
    bench.get(&bench.manifest(&bench.hub.second().digest)).await;
    bench.get(&bench.manifest_of("library/nothing", "latest")).await;
    bench
}

/// The metrics, once so many bytes were given in all, the last of which are counted a moment after they have left, and as
/// soon as what is held has been counted, which may be a moment after the start.
async fn scrape_given(bench: &Bench, bytes: u64, held: u64) -> Metrics {
    let mut metrics = scrape(bench).await;
    until(async || {
        metrics = scrape(bench).await;
        metrics.sum("tidehold_bytes_total", &[("front", "mirror")]) >= bytes as f64
            && metrics.sum("tidehold_hold_bytes", &[("state", "cached")]) >= held as f64
    })
    .await;
    metrics
}

#[tokio::test]
async fn a_pull_counts_what_the_registry_counts_and_where_the_bytes_came_from() {
    let bench = Bench::start().await;
    let before = scrape(&bench).await;
    assert_eq!(before.sum("tidehold_upstream_requests_total", &[]), 0.0);
    bench.pull("latest").await;
    let own = bench.hub.first().own();
    let bytes: u64 = blobs_of(own).iter().map(|digest| bench.file_of(digest).metadata().unwrap().len()).sum();
    let cold = scrape_given(&bench, bytes, bytes).await;
    let hub = bench.hub.counters();
    assert_eq!(hub.manifest_gets, 2);
    let upstream = |wished: &[(&str, &str)]| cold.sum("tidehold_upstream_requests_total", wished);
    assert_eq!(upstream(&[("counted", "true")]), 2.0);
    assert_eq!(
        upstream(&[("counted", "true"), ("method", "GET"), ("kind", "manifest"), ("status", "200")]),
        2.0
    );
    assert_eq!(
        upstream(&[("method", "HEAD"), ("counted", "false"), ("registry", "docker.io"), ("status", "200")]),
        1.0
    );
    assert_eq!(upstream(&[("kind", "token")]), hub.token_requests as f64);
    let given = |of: &Metrics, from| of.sum("tidehold_bytes_total", &[("front", "mirror"), ("from", from)]);
    assert_eq!((given(&cold, "upstream"), given(&cold, "hold")), (bytes as f64, 0.0));
    assert_eq!(cold.sum("tidehold_ratelimit_limit", &[("registry", "docker.io")]), 100.0);
    assert_eq!(cold.sum("tidehold_ratelimit_remaining", &[("registry", "docker.io")]), 98.0);
    assert_eq!(cold.sum("tidehold_gate_open", &[("registry", "docker.io")]), 1.0);
    assert_eq!(cold.sum("tidehold_requests_total", &[("standing", "changed"), ("front", "mirror")]), 1.0);
    assert_eq!(cold.sum("tidehold_blob_first_byte_seconds_count", &[]), blobs_of(own).len() as f64);

    pull(&Client::new(), &bench.daemon.mirror(), "latest").await;
    let warm = scrape_given(&bench, 2 * bytes, bytes).await;
    assert_eq!(warm.sum("tidehold_upstream_requests_total", &[("counted", "true")]), 2.0);
    assert_eq!((given(&warm, "upstream"), given(&warm, "hold")), (bytes as f64, bytes as f64));
    assert!(
        warm.sum("tidehold_resolve_seconds_count", &[]) > cold.sum("tidehold_resolve_seconds_count", &[])
    );
}

#[tokio::test]
async fn a_limit_that_is_reached_shuts_the_gate_and_makes_answers_stale() {
    let bench = busy().await;
    let metrics = scrape(&bench).await;
    assert_eq!(metrics.sum("tidehold_gate_open", &[("registry", "docker.io")]), 0.0);
    assert_eq!(metrics.sum("tidehold_upstream_requests_total", &[("status", "429")]), 1.0);
    assert_eq!(metrics.sum("tidehold_requests_total", &[("standing", "stale"), ("kind", "manifest")]), 1.0);
    for standing in ["refused", "challenged"] {
        assert_eq!(metrics.sum("tidehold_requests_total", &[("standing", standing)]), 1.0, "{standing}");
    }
    bench.hub.fault(Kind::ManifestHead, Fault::Reset).await;
    bench.get(&bench.manifest("latest")).await;
    let metrics = scrape(&bench).await;
    assert!(metrics.sum("tidehold_upstream_requests_total", &[("status", "none")]) >= 1.0);
}

#[tokio::test]
async fn the_names_and_labels_are_those_that_were_promised() {
    let metrics = scrape(&busy().await).await;
    for (name, kind, labels) in [
        (
            "tidehold_upstream_requests_total",
            "counter",
            &["counted", "kind", "method", "registry", "status"][..],
        ),
        ("tidehold_requests_total", "counter", &["front", "kind", "standing"]),
        ("tidehold_ratelimit_remaining", "gauge", &["registry", "source"]),
        ("tidehold_ratelimit_limit", "gauge", &["registry", "source"]),
        ("tidehold_gate_open", "gauge", &["registry"]),
        ("tidehold_bytes_total", "counter", &["from", "front"]),
        ("tidehold_downloaded_bytes_total", "counter", &["registry"]),
        ("tidehold_hold_bytes", "gauge", &["state"]),
        ("tidehold_cache_limit_bytes", "gauge", &[]),
        ("tidehold_disk_free_bytes", "gauge", &[]),
        ("tidehold_disk_reserve_bytes", "gauge", &[]),
    ] {
        assert_eq!(metrics.types.get(name).map(String::as_str), Some(kind), "{name}");
        let found: Vec<_> = metrics.labels(name).into_keys().collect();
        assert_eq!(found, labels, "{name}");
    }
    for name in ["resolve", "blob_first_byte", "content_read", "content_commit"] {
        let name = format!("tidehold_{name}_seconds");
        assert_eq!(metrics.types.get(&name).map(String::as_str), Some("histogram"), "{name}");
    }
    let states: Vec<_> = metrics.labels("tidehold_hold_bytes")["state"].iter().copied().collect();
    assert_eq!(states, ["adopted", "cached", "ingest"]);
    assert_eq!(
        metrics.types.len(),
        15,
        "docs/monitoring.md and this list have all: {:?}",
        metrics.types.keys()
    );
}

#[tokio::test]
async fn the_page_about_monitoring_names_every_metric() {
    let metrics = scrape(&busy().await).await;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md")).unwrap();
    for name in metrics.types.keys() {
        assert!(page.contains(&format!("`{name}")), "{name} is not in docs/monitoring.md");
    }
}
