//! How `tidehold warm` shows what it does: bars on a terminal, else lines, or JSON.

use std::collections::HashMap;
use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidehold::proto::v1::warm_response::{Failed as Reason, Step, Summary};
use tonic::Code;

use super::words::{self, plain, size};
use super::{Failed, print};

/// How much of a digest tells it from others for a reader: as docker prints it.
const SHORT_DIGEST: usize = "sha256:".len() + 12;

/// In one of three ways.
pub(super) enum Shown {
    Lines,
    Json,
    Bars(Bars),
}

impl Shown {
    pub(super) fn new(json: bool) -> Self {
        match json {
            true => Self::Json,
            false if stdout().is_terminal() && stderr().is_terminal() => Self::Bars(Bars::new()),
            false => Self::Lines,
        }
    }

    pub(super) fn step(&mut self, reference: &str, step: &Step) -> Result<(), Failed> {
        match self {
            Self::Json => match as_json(reference, step) {
                Some(object) => print(&object.to_string()),
                None => Ok(()),
            },
            Self::Lines => match (as_line(reference, step), step) {
                (Some(line), Step::Failed(_)) => {
                    eprintln!("tidehold: {line}");
                    Ok(())
                }
                (Some(line), _) => print(&line),
                (None, _) => Ok(()),
            },
            Self::Bars(bars) => {
                bars.step(reference, step);
                match step {
                    Step::Finished(_) | Step::Failed(_) => {
                        let line = as_line(reference, step).unwrap_or_default();
                        bars.all.suspend(|| print(&line))
                    }
                    Step::Resolved(_)
                    | Step::Planned(_)
                    | Step::BlobStarted(_)
                    | Step::BlobProgress(_)
                    | Step::BlobDone(_)
                    | Step::Summary(_) => Ok(()),
                }
            }
        }
    }

    /// How all of it came out.
    pub(super) fn end(self, all: &Summary, took: Duration) -> Result<(), Failed> {
        match self {
            Self::Json => return print(&summary_as_json(all).to_string()),
            Self::Lines => {}
            Self::Bars(bars) => bars.total.finish_and_clear(),
        }
        let failed = if all.failed == 0 { String::new() } else { format!(", {} failed", all.failed) };
        print(&format!(
            "{} done{failed}: {}, in {}",
            all.finished,
            taken(all.fetched_bytes, all.held_bytes, all.cost.unwrap_or_default()),
            words::length(took.as_secs())
        ))
    }
}

fn taken(fetched: u64, held: u64, cost: tidehold::proto::v1::Cost) -> String {
    format!("{} fetched, {} held before, {}", size(fetched), size(held), words::cost(cost))
}

/// What a person reads where lines are all there is; progress alone is no news.
fn as_line(reference: &str, step: &Step) -> Option<String> {
    let what = match step {
        Step::Resolved(resolved) => {
            let digest = resolved.target.as_ref().map(|target| target.digest.as_str()).unwrap_or_default();
            format!("{digest} ({})", words::standing(resolved.standing()))
        }
        Step::Planned(planned) => {
            let plural = if planned.blobs == 1 { "blob" } else { "blobs" };
            format!("{} {plural}, {}", planned.blobs, size(planned.bytes))
        }
        Step::BlobStarted(blob) => format!("{}: fetching {}", short(&blob.digest), size(blob.size)),
        Step::BlobProgress(_) | Step::Summary(_) => return None,
        Step::BlobDone(blob) => {
            let how = if blob.fetched { "fetched" } else { "held before" };
            format!("{}: {} {how}", short(&blob.digest), size(blob.size))
        }
        Step::Finished(finished) => {
            let cost = finished.cost.unwrap_or_default();
            format!("done: {}", taken(finished.fetched_bytes, finished.held_bytes, cost))
        }
        // An earlier daemon does not say what it took.
        Step::Failed(Reason { reason, cost: None, .. }) => format!("failed: {reason}"),
        Step::Failed(Reason { reason, cost: Some(cost), .. }) => {
            format!("failed: {reason} ({})", words::cost(*cost))
        }
    };
    Some(plain(&format!("{reference}: {what}")))
}

fn as_json(reference: &str, step: &Step) -> Option<Value> {
    let mut object = match step {
        Step::Resolved(resolved) => {
            let target = resolved.target.clone().unwrap_or_default();
            json!({
                "event": "resolved",
                "digest": target.digest,
                "media_type": target.media_type,
                "size": target.size,
                "standing": words::standing(resolved.standing()),
                "age_seconds": words::seconds(resolved.age),
            })
        }
        Step::Planned(planned) => {
            json!({ "event": "planned", "blobs": planned.blobs, "bytes": planned.bytes })
        }
        Step::BlobStarted(blob) => {
            json!({ "event": "blob_started", "digest": blob.digest, "size": blob.size })
        }
        Step::BlobProgress(blob) => json!({
            "event": "blob_progress",
            "digest": blob.digest,
            "received": blob.received,
            "size": blob.size,
        }),
        Step::BlobDone(blob) => json!({
            "event": "blob_done",
            "digest": blob.digest,
            "size": blob.size,
            "fetched": blob.fetched,
        }),
        Step::Finished(finished) => json!({
            "event": "finished",
            "cost": words::cost_json(finished.cost),
            "fetched_bytes": finished.fetched_bytes,
            "held_bytes": finished.held_bytes,
        }),
        Step::Failed(Reason { code, reason, retry_after, cost }) => json!({
            "event": "failed",
            "code": words::code(Code::from(*code)),
            "reason": reason,
            "retry_after_seconds": retry_after.map(|after| words::seconds(Some(after))),
            "cost": words::cost_json(*cost),
        }),
        Step::Summary(_) => return None,
    };
    if let Some(object) = object.as_object_mut() {
        object.insert("reference".to_owned(), reference.into());
    }
    Some(object)
}

fn summary_as_json(all: &Summary) -> Value {
    json!({
        "event": "summary",
        "finished": all.finished,
        "failed": all.failed,
        "cost": words::cost_json(all.cost),
        "fetched_bytes": all.fetched_bytes,
        "held_bytes": all.held_bytes,
    })
}

fn short(digest: &str) -> &str {
    digest.get(..SHORT_DIGEST).unwrap_or(digest)
}

/// A bar for each blob that is coming in, above one for all.
pub(super) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    /// By reference: its own part of the total.
    parts: HashMap<String, Part>,
}

#[derive(Default)]
struct Part {
    planned_bytes: u64,
    done_bytes: u64,
    /// By digest.
    blobs: HashMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(bar("{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}", 0));
        Self { all, total, parts: HashMap::new() }
    }

    fn step(&mut self, reference: &str, step: &Step) {
        let part = self.parts.entry(reference.to_owned()).or_default();
        match step {
            Step::Resolved(_) | Step::Summary(_) => {}
            Step::Planned(planned) => {
                part.planned_bytes = planned.bytes;
                self.total.inc_length(planned.bytes);
            }
            Step::BlobStarted(blob) => {
                let new = bar("  {msg} {bar:30} {binary_bytes}/{binary_total_bytes}", blob.size);
                let new = self.all.insert_before(&self.total, new);
                new.set_message(short(&blob.digest).to_owned());
                part.blobs.insert(blob.digest.clone(), new);
            }
            Step::BlobProgress(blob) => {
                if let Some(bar) = part.blobs.get(&blob.digest) {
                    let more = blob.received.saturating_sub(bar.position());
                    bar.set_position(blob.received);
                    part.done_bytes = part.done_bytes.saturating_add(more);
                    self.total.inc(more);
                }
            }
            Step::BlobDone(blob) => {
                let bar = part.blobs.remove(&blob.digest);
                let more = blob.size.saturating_sub(bar.as_ref().map_or(0, ProgressBar::position));
                part.done_bytes = part.done_bytes.saturating_add(more);
                self.total.inc(more);
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            }
            Step::Finished(_) | Step::Failed(_) => {
                // What will not come now is no part of the whole any more.
                self.total.dec_length(part.planned_bytes.saturating_sub(part.done_bytes));
                for bar in part.blobs.values() {
                    bar.finish_and_clear();
                }
                self.parts.remove(reference);
            }
        }
    }
}

fn bar(template: &str, length: u64) -> ProgressBar {
    // The templates above are sound; one that was not would show as the default one.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
