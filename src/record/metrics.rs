//! The metrics, in Prometheus's text form.
//!
//! Registries are labels, and anybody may name one: only those have their own that the configuration lists or that have
//! answered, and only so many; the others are `other`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::answers::Front;
use crate::proto::v1;

/// How many registries, and sources of limits, have a label of their own.
const MOST_LABELS: usize = 64;
const OTHER: &str = "other";

/// From 50 µs to half a minute.
const SECONDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// They were held, and had not to be downloaded for that.
    Hold,
    /// They were downloaded for it, meanwhile or just before.
    Upstream,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// A manifest, from being asked for to the answer.
    Resolve,
    /// A blob of the mirror, from being asked for to its first byte.
    BlobFirstByte,
    /// A `Read` of a containerd.
    ContentRead,
    /// A commit of a containerd.
    ContentCommit,
}

/// What others know at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Bytes that some containerd relies on.
    pub adopted_bytes: u64,
    /// Bytes that are only cache.
    pub cached_bytes: u64,
    /// Bytes of what is being written.
    pub ingest_bytes: u64,
    /// The most that may be cached.
    pub cache_limit_bytes: u64,
    /// What is free on the disk that it all is on.
    pub disk_free_bytes: u64,
    /// What of that is to stay free.
    pub disk_reserve_bytes: u64,
}

pub(super) struct Metrics {
    registry: Registry,
    upstream: IntCounterVec,
    requests: IntCounterVec,
    downloaded: IntCounterVec,
    remaining: IntGaugeVec,
    limit: IntGaugeVec,
    gate_open: IntGaugeVec,
    hold_bytes: IntGaugeVec,
    /// The most that may be cached, what is free on the disk, what is to stay free.
    room: [IntGauge; 3],
    /// In the order of [`Front`] and [`From`].
    bytes: [[IntCounter; 2]; 2],
    latencies: [Histogram; 4],
    /// All requests, and the counted ones.
    all: [AtomicU64; 2],
    all_downloaded: AtomicU64,
    labels: Mutex<BTreeSet<String>>,
    /// Held while the metrics are written: what others know is put in anew each time.
    writing: Mutex<()>,
}

impl Metrics {
    #[expect(clippy::expect_used, reason = "names and labels are constants, and a test makes them")]
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a metric's name");
            register(&registry, &counters);
            counters
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("a metric's name");
            register(&registry, &gauges);
            gauges
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a metric's name");
            register(&registry, &gauge);
            gauge
        };
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let histogram = Histogram::with_opts(options).expect("a metric's name");
            register(&registry, &histogram);
            histogram
        };
        let bytes = counters(
            "tidehold_bytes_total",
            "Bytes of blobs that clients read, by where they came from; upstream: downloaded for just that.",
            &["front", "from"],
        );
        Self {
            upstream: counters(
                "tidehold_upstream_requests_total",
                "Requests sent upstream; counted: whether a registry with a pull limit counts them.",
                &["registry", "method", "kind", "status", "counted"],
            ),
            requests: counters(
                "tidehold_requests_total",
                "Requests answered, by the standing of the answer; refused: there was none to give.",
                &["front", "kind", "standing"],
            ),
            downloaded: counters(
                "tidehold_downloaded_bytes_total",
                "Bytes that came from registries, whoever they were for.",
                &["registry"],
            ),
            remaining: gauges(
                "tidehold_ratelimit_remaining",
                "Pulls that are left, as the registry said last.",
                &["registry", "source"],
            ),
            limit: gauges(
                "tidehold_ratelimit_limit",
                "Pulls that the registry allows in each window, as it said last.",
                &["registry", "source"],
            ),
            gate_open: gauges(
                "tidehold_gate_open",
                "Whether pulls are let through to the registry: 1, or 0 while what is held serves.",
                &["registry"],
            ),
            hold_bytes: gauges(
                "tidehold_hold_bytes",
                "Bytes held: those that a containerd relies on, those that are cache, those being written.",
                &["state"],
            ),
            room: [
                gauge("tidehold_cache_limit_bytes", "The most bytes that may be cached."),
                gauge("tidehold_disk_free_bytes", "Bytes that are free on the disk of the hold."),
                gauge(
                    "tidehold_disk_reserve_bytes",
                    "Bytes that are to stay free there: beyond that nothing is stored.",
                ),
            ],
            bytes: [Front::Mirror, Front::Content].map(|front| {
                ["hold", "upstream"].map(|from| bytes.with_label_values(&[front.as_str(), from]))
            }),
            latencies: [
                histogram("tidehold_resolve_seconds", "From asking for a manifest to the answer."),
                histogram(
                    "tidehold_blob_first_byte_seconds",
                    "From asking the mirror for a blob to its first byte.",
                ),
                histogram("tidehold_content_read_seconds", "One Read of a containerd."),
                histogram("tidehold_content_commit_seconds", "One commit of a containerd."),
            ],
            all: Default::default(),
            all_downloaded: AtomicU64::new(0),
            labels: Mutex::default(),
            writing: Mutex::default(),
            registry,
        }
    }

    pub(super) fn sent(&self, request: &v1::UpstreamRequest) {
        if request.status != 0 {
            self.name(&request.registry);
        }
        let registry = self.label(&request.registry);
        let status = if request.status == 0 { "none".to_owned() } else { request.status.to_string() };
        let counted = if request.counted { "true" } else { "false" };
        let labels = [registry.as_str(), &request.method, &request.kind, &status, counted];
        self.upstream.with_label_values(&labels).inc();
        let [all, all_counted] = &self.all;
        all.fetch_add(1, Ordering::Relaxed);
        all_counted.fetch_add(request.counted.into(), Ordering::Relaxed);
    }

    pub(super) fn downloaded(&self, registry: &str, bytes: u64) {
        self.downloaded.with_label_values(&[self.label(registry).as_str()]).inc_by(bytes);
        self.all_downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn all_downloaded(&self) -> u64 {
        self.all_downloaded.load(Ordering::Relaxed)
    }

    /// All requests, and the counted ones.
    pub(super) fn upstream(&self) -> [u64; 2] {
        self.all.each_ref().map(|all| all.load(Ordering::Relaxed))
    }

    pub(super) fn bytes(&self, front: Front, from: From, bytes: u64) {
        let [mirror, content] = &self.bytes;
        let [hold, upstream] = match front {
            Front::Mirror | Front::Control => mirror,
            Front::Content => content,
        };
        match from {
            From::Hold => hold.inc_by(bytes),
            From::Upstream => upstream.inc_by(bytes),
        }
    }

    pub(super) fn bytes_from(&self, from: From) -> u64 {
        let of = |[hold, upstream]: &[IntCounter; 2]| match from {
            From::Hold => hold.get(),
            From::Upstream => upstream.get(),
        };
        self.bytes.iter().map(of).sum()
    }

    pub(super) fn took(&self, what: Latency, time: Duration) {
        let [resolve, first_byte, read, commit] = &self.latencies;
        let histogram = match what {
            Latency::Resolve => resolve,
            Latency::BlobFirstByte => first_byte,
            Latency::ContentRead => read,
            Latency::ContentCommit => commit,
        };
        histogram.observe(time.as_secs_f64());
    }

    /// All of them. What others know is put in first.
    pub(super) fn text(
        &self,
        budgets: &[v1::RegistryBudget],
        answered: &[v1::Answered],
        gauges: &Gauges,
    ) -> String {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.remaining.reset();
        self.limit.reset();
        self.gate_open.reset();
        for budget in budgets {
            let registry = self.label(&budget.registry);
            if registry == OTHER {
                continue;
            }
            self.gate_open.with_label_values(&[registry.as_str()]).set(budget.gate_open.into());
            for limit in &budget.limits {
                let labels = [registry.as_str(), &limit.source];
                self.remaining.with_label_values(&labels).set(limit.remaining);
                if let Some(most) = limit.limit {
                    self.limit.with_label_values(&labels).set(most);
                }
            }
        }
        for (state, bytes) in [
            ("adopted", gauges.adopted_bytes),
            ("cached", gauges.cached_bytes),
            ("ingest", gauges.ingest_bytes),
        ] {
            self.hold_bytes.with_label_values(&[state]).set(signed(bytes));
        }
        let room = [gauges.cache_limit_bytes, gauges.disk_free_bytes, gauges.disk_reserve_bytes];
        for (gauge, bytes) in self.room.iter().zip(room) {
            gauge.set(signed(bytes));
        }
        for answered in answered {
            let labels = [&*answered.front, &*answered.kind, &*answered.standing];
            let counter = self.requests.with_label_values(&labels);
            // Kept elsewhere, where counting is cheaper; it only ever grows.
            counter.inc_by(answered.times.saturating_sub(counter.get()));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Gives a registry a label of its own, while there are any.
    pub(super) fn name(&self, registry: &str) {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if labels.len() < MOST_LABELS && !labels.contains(registry) {
            labels.insert(registry.to_owned());
        }
    }

    fn label(&self, registry: &str) -> String {
        let labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if labels.contains(registry) { registry.to_owned() } else { OTHER.to_owned() }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[expect(clippy::expect_used, reason = "each name is registered once, and a test does it")]
fn register(registry: &Registry, metric: &(impl Collector + Clone + 'static)) {
    registry.register(Box::new(metric.clone())).expect("a metric that is not there yet");
}
