//! `tidehold status`: the daemon and its hold at a glance.

use clap::Args;
use tidehold::proto::v1;

use super::control::{Control, answered, soon};
use super::paint::{Painted, bad, faint, good, odd, strong};
use super::{Failed, budget, print, words};

#[derive(Args)]
pub(crate) struct Status {
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Status {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let mut hold = self.control.hold().await?;
            let status = answered(hold.status(soon(v1::StatusRequest {})).await)?;
            print(&if self.json { words::json(&status)? } else { as_text(&status) })
        })
    }
}

fn as_text(status: &v1::StatusResponse) -> String {
    let v1::StatusResponse { version, started_at, data_dir, mirror, web, .. } = status;
    let hold = status.hold.unwrap_or_default();
    let disk = status.disk.unwrap_or_default();
    let mut lines =
        vec![format!("{} {version}, running for {}", strong("tidehold"), words::since(*started_at))];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<11} {value}"));
    let page = if web.is_empty() { String::new() } else { format!("http://{web}/") };
    for (listener, name, address) in [
        ("mirror", "mirror", mirror.clone()),
        ("web", "status page", page),
        ("control", "control", String::new()),
    ] {
        match status.missing.iter().find(|missing| missing.name == listener) {
            Some(missing) => line(name, bad(format!("none: {}", missing.why)).to_string()),
            None if address.is_empty() => {}
            None => line(name, address),
        }
    }
    line(
        "hold",
        format!("{data_dir}, {} of {} free", words::size(disk.free_bytes), words::size(disk.total_bytes)),
    );
    if let Some(v1::Unwritable { why, mend }) = &status.unwritable {
        line("", bad(format!("nothing new can be kept: {why}")).to_string());
        line("", format!("to mend it: {mend}"));
    }
    line("adopted", blobs(hold.adopted_blobs, hold.adopted_bytes));
    let most = words::size(disk.max_cached_bytes);
    line("cached", format!("{} of {most} at most", blobs(hold.cached_blobs, hold.cached_bytes)));
    if hold.ingests > 0 {
        line(
            "coming in",
            format!("{}, {}", words::count(hold.ingests, "blob"), words::size(hold.ingest_bytes)),
        );
    }
    let digests = match hold.pinned_digests {
        0 => String::new(),
        digests => format!(" and {}", words::count(digests, "digest")),
    };
    line("tags", format!("{}{digests}, {} pinned", hold.tags, hold.pins));
    for containerd in &status.containerds {
        let called = match containerd.called_at {
            Some(_) => format!("called {} ago", words::since(containerd.called_at)),
            None => odd("has not called since the daemon started").to_string(),
        };
        let relies = blobs(containerd.adopted_blobs, containerd.adopted_bytes);
        line("containerd", format!("{} relies on {relies}; {called}", containerd.name));
    }
    line("answered", told(&status.answered));
    line("upstream", sent(status));
    line("last day", saved(status));
    line("downloaded", format!("{} from registries since the start", words::size(status.bytes_downloaded)));
    line("given", given(status));
    for registry in &status.registries {
        line("registry", format!("{}: {}", registry.registry, budget::in_short(registry)));
    }
    for kept in &status.kept_out {
        line("not cached", odd(kept_out(kept)).to_string());
    }
    lines.join("\n")
}

/// Why nothing of a registry is held.
fn kept_out(kept: &v1::KeptOutRegistry) -> String {
    let v1::KeptOutRegistry { registry, address, standing, last_at, .. } = kept;
    let since = words::since(*last_at);
    format!(
        "{registry}: it is at {address}, {standing}, and not listed under [registries]; asked for {since} ago (tidehold doctor \
         has the lines)"
    )
}

fn blobs(blobs: u64, bytes: u64) -> String {
    format!("{}, {}", words::count(blobs, "blob"), words::size(bytes))
}

/// How often each standing was answered, fronts and kinds together.
fn told(answered: &[v1::Answered]) -> String {
    let sum = |standing: &str| {
        let such = answered.iter().filter(|answered| answered.standing == standing);
        such.map(|answered| answered.times).sum::<u64>()
    };
    let standings = ["immutable", "fresh", "unchanged", "changed", "stale", "challenged", "refused"];
    let told =
        standings.into_iter().map(|standing| (standing, sum(standing))).filter(|(_, times)| *times > 0);
    let told: Vec<_> = told.map(|(standing, times)| format!("{times} {}", painted(standing))).collect();
    if told.is_empty() { faint("nothing since the start").to_string() } else { told.join(", ") }
}

/// A standing in the colour of what it means.
pub(super) fn painted(standing: &str) -> Painted {
    match standing {
        "stale" | "challenged" => odd(standing),
        "refused" => bad(standing),
        "immutable" | "fresh" | "unchanged" | "changed" => good(standing),
        other => other.into(),
    }
}

/// What clients have read: what had not to be downloaded for that comes first.
fn given(status: &v1::StatusResponse) -> String {
    let v1::StatusResponse { bytes_from_hold, bytes_from_upstream, .. } = status;
    if bytes_from_hold + bytes_from_upstream == 0 {
        return faint("nothing since the start").to_string();
    }
    let [all, hold, upstream] =
        [bytes_from_hold + bytes_from_upstream, *bytes_from_hold, *bytes_from_upstream].map(words::size);
    format!("{all} of blobs since the start: {hold} out of the hold, {upstream} downloaded for it")
}

fn sent(status: &v1::StatusResponse) -> String {
    let requests = words::count(status.upstream_requests, "request");
    format!("{requests} since the start, {} counted", status.upstream_counted)
}

/// What pulls have cost beside what they would have: over the day, which outlasts a restart.
fn saved(status: &v1::StatusResponse) -> String {
    let sum = |of: fn(&v1::AnsweredSpan) -> u64| status.history.iter().map(of).sum::<u64>();
    let (counted, without) = (sum(|span| span.counted), sum(|span| span.counted_without));
    let by_operator = words::by_operator(sum(|span| span.counted_by_operator));
    format!(
        "{} counted{by_operator}; it would have been {} without Tidehold",
        strong(counted.to_string()),
        strong(without.to_string())
    )
}
