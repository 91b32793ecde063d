//! Taking over: what a store has and the hold has not is put before the daemon, which verifies it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::fs::statvfs;
use serde_json::json;
use tidehold::clock;
use tidehold::proto::v1::Known;

use super::super::Failed;
use super::super::words::{count, length, plain, size};
use super::Adopt;
use super::clear;
use super::daemon::{Daemon, TakingOver};
use super::put::{PutError, Way, put};
use super::shown::{Shown, blobs, named};
use super::sources::{self, Asked};
use super::store::{ContentStore, Listing, StoredBlob};
use super::work::{Outcome, Work, full};

/// What is to be left of the hold's disk beside the copies, in bytes: for the index, and for what comes in meanwhile.
const LEFT_FREE: u64 = 32 << 20;

/// How far the clock of a file system may be behind the system's: a tick of the kernel's.
const CLOCKS_APART: Duration = Duration::from_millis(10);

/// What of a store is to be done.
#[derive(Debug, Default)]
struct Plan {
    /// Has to be put before the daemon.
    unknown: Vec<StoredBlob>,
    /// Is held, and only to be relied on.
    held: Vec<StoredBlob>,
    /// Was taken over before.
    adopted: u64,
    total: u64,
    total_bytes: u64,
    others: usize,
    ingests: usize,
}

impl Plan {
    /// Pure: what is known of the blobs stands in their order.
    fn new(listing: Listing, known: Vec<Known>) -> Self {
        let (others, ingests) = (listing.others.len(), listing.ingests);
        let mut plan = Self { others, ingests, ..Self::default() };
        for (blob, known) in listing.blobs.into_iter().zip(known) {
            plan.total += 1;
            plan.total_bytes = plan.total_bytes.saturating_add(blob.size);
            match known {
                Known::Unspecified => plan.unknown.push(blob),
                Known::Held => plan.held.push(blob),
                Known::Adopted => plan.adopted += 1,
            }
        }
        plan
    }

    fn unknown_bytes(&self) -> u64 {
        self.unknown.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

pub(super) async fn take_over(daemon: &mut Daemon, asked: &Adopt, mut shown: Shown) -> Result<(), Failed> {
    let begun = clock::instant();
    let store = ContentStore::find(&asked.from)?;
    let at = clock::now() - CLOCKS_APART;
    let listing = store.list()?;
    if let Some(first) = listing.others.first() {
        shown.warn(&format!(
            "{} there that containerd has no use for as blobs, such as {}: left alone",
            if listing.others.len() == 1 {
                "1 thing is".to_owned()
            } else {
                format!("{} things are", listing.others.len())
            },
            first.display()
        ));
    }
    let digests = listing.blobs.iter().map(|blob| blob.digest.to_string()).collect();
    let known = daemon.look(digests).await?;
    let plan = Plan::new(listing, known);
    let taking = daemon.take_over().await?;
    let way = way_of(&taking, &plan, asked.copy)?;
    show_plan(&mut shown, &store, daemon, &plan, way, asked.dry_run)?;
    if asked.dry_run {
        return Ok(());
    }
    if way == Some(Way::Copy) {
        there_is_room(&daemon.data_dir, &store, &plan, asked.copy)?;
    }
    let (total, adopted) = (plan.total, plan.adopted);
    let work = Work { shown: &mut shown, may_copy: asked.copy, outcome: Outcome::default() };
    let outcome = work.all(daemon, taking, plan.unknown, plan.held).await?;
    let whole = outcome.bad + outcome.failed == 0;
    if whole {
        daemon.note(&store.root, at, total - outcome.gone).await?;
    }
    let (address, by_itself) = (asked.address(), !asked.within_setup);
    let asked = sources::note(daemon, &address, &store.root, asked.offline).await?;
    let next = match by_itself {
        true if clear::is_left(&address, &store.root).await => Next::Nothing,
        true => Next::Setup,
        false => Next::Unsaid,
    };
    let end = End { adopted, next, took: begun.elapsed() };
    show_end(shown, daemon, &outcome, &asked, &end)?;
    if whole { Ok(()) } else { Err(left_out(&outcome, &daemon.containerd, &store)) }
}

/// In which way the files can be put before the daemon; `None` where none has to be.
fn way_of(taking: &TakingOver, plan: &Plan, may_copy: bool) -> Result<Option<Way>, Failed> {
    for blob in &plan.unknown {
        let place = taking.place_of(blob.digest.as_str());
        let tried = put(&blob.path, &place, false);
        // It is put there again when its turn comes.
        let _ = std::fs::remove_file(&place);
        match tried {
            Ok(way) => return Ok(Some(way)),
            Err(PutError::NeedsCopy) => return Ok(Some(Way::Copy)),
            Err(PutError::Gone) => {}
            Err(PutError::Full(error)) => return Err(full(&place, &error)),
            // It may be only this one's fault.
            Err(PutError::Other(_)) if may_copy => return Ok(Some(Way::Copy)),
            Err(PutError::Other(error)) => {
                let path = blob.path.display();
                return Err(
                    anyhow!("link {path} to {}: {error}: is this run as root?", place.display()).into()
                );
            }
        }
    }
    Ok(None)
}

/// A copy is the operator's decision, and not begun where it cannot end well.
fn there_is_room(data_dir: &Path, store: &ContentStore, plan: &Plan, may_copy: bool) -> Result<(), Failed> {
    let disk = statvfs(data_dir).with_context(|| format!("look at the disk of {}", data_dir.display()))?;
    let (free, needed) = (disk.f_bavail.saturating_mul(disk.f_frsize), plan.unknown_bytes());
    let left = free.saturating_sub(LEFT_FREE);
    let (hold, root) = (data_dir.display(), store.root.display());
    let space = format!("{} in {}, and {} is free", size(needed), hold, size(free));
    if !may_copy {
        let count = blobs(plan.unknown.len() as u64);
        return Err(anyhow!(
            "{root} and {hold} are on two file systems, or on one without reflinks, so {count} can only be copied: that \
             takes {space}. Run this again with --copy, or have data_dir on the file system of {root}"
        )
        .into());
    }
    // Each takes whole blocks.
    let blocks = plan.unknown.iter().map(|blob| blob.size.div_ceil(disk.f_frsize.max(1)));
    if left < blocks.fold(0, u64::saturating_add).saturating_mul(disk.f_frsize) {
        return Err(anyhow!(
            "the copies take {space}, of which the hold itself needs {}: make room, or have data_dir on the file system of \
             {root}",
            size(LEFT_FREE)
        )
        .into());
    }
    Ok(())
}

fn left_out(outcome: &Outcome, containerd: &str, store: &ContentStore) -> Failed {
    let Outcome { bad, failed, .. } = outcome;
    let mut said = Vec::new();
    if *bad > 0 {
        said.push(format!(
            "{} left out for not being what their names say: `ctr -n NAMESPACE content ls` shows by their labels which \
             images they are of (the namespaces: `ctr namespaces ls`); remove these images, pull them again. What no namespace \
             has is nobody's: remove its file, which is named by the digest, from {}",
            are(*bad),
            plain(&store.blobs().display().to_string())
        ));
    }
    if *failed > 0 {
        said.push(format!("{} left out since they could not be had", are(*failed)));
    }
    let said = said.join("; ");
    anyhow!(
        "{said}, and run this again. Until then {} is not ready for Tidehold as its store",
        named(containerd)
    )
    .into()
}

fn are(count: u64) -> String {
    format!("{} {}", blobs(count), if count == 1 { "was" } else { "were" })
}

fn show_plan(
    shown: &mut Shown,
    store: &ContentStore,
    daemon: &Daemon,
    plan: &Plan,
    way: Option<Way>,
    dry_run: bool,
) -> Result<(), Failed> {
    let (unknown, bytes) = (plan.unknown.len() as u64, plan.unknown_bytes());
    let json = json!({
        "event": "planned",
        "containerd": daemon.containerd,
        "root": store.root,
        "dry_run": dry_run,
        "blobs": plan.total,
        "bytes": plan.total_bytes,
        "adopted": plan.adopted,
        "held": plan.held.len(),
        "new": unknown,
        "new_bytes": bytes,
        "way": way.map(Way::word),
        "others": plan.others,
        "ingests": plan.ingests,
    });
    let mut text = format!(
        "{} has {}, {}: {} taken over before, {} held already, {unknown} new",
        plain(&store.root.display().to_string()),
        blobs(plan.total),
        size(plan.total_bytes),
        plan.adopted,
        plan.held.len(),
    );
    if let Some(way) = way {
        let verb = if dry_run { "would be" } else { "are" };
        text = format!("{text} ({}), which {verb} taken over as {}", size(bytes), way.plural());
    }
    if plan.ingests > 0 {
        text = format!("{text}. Left alone there: {}", count(plan.ingests as u64, "unfinished write"));
    }
    shown.begin(&json, &text, bytes)
}

/// What is to be done next.
enum Next {
    /// That containerd has Tidehold as its store already.
    Nothing,
    Setup,
    /// Who runs this knows.
    Unsaid,
}

/// What there is to say at the end beside what came of the blobs.
struct End {
    adopted: u64,
    next: Next,
    took: Duration,
}

fn show_end(
    shown: Shown,
    daemon: &Daemon,
    outcome: &Outcome,
    asked: &Asked,
    end: &End,
) -> Result<(), Failed> {
    let End { adopted, next, took } = end;
    let of = |way| outcome.taken.get(&way).copied().unwrap_or_default();
    let taken: u64 = outcome.taken.values().sum();
    let json = json!({
        "event": "summary",
        "containerd": daemon.containerd,
        "linked": of(Way::Link),
        "reflinked": of(Way::Reflink),
        "copied": of(Way::Copy),
        "held": outcome.held,
        "adopted": adopted,
        "gone": outcome.gone,
        "bad": outcome.bad,
        "failed": outcome.failed,
        "whole": outcome.bad + outcome.failed == 0,
        "sources": asked.as_json(),
    });
    let ways: Vec<String> =
        outcome.taken.iter().map(|(way, count)| format!("{count} as {}", way.plural())).collect();
    let ways = if ways.is_empty() { String::new() } else { format!(" ({})", ways.join(", ")) };
    let mut text = format!(
        "{} taken over{ways}, {} held already, {adopted} taken over before, in {}",
        blobs(taken),
        outcome.held,
        length(took.as_secs())
    );
    if outcome.gone > 0 {
        text = format!("{text}; containerd removed {} meanwhile", blobs(outcome.gone));
    }
    if let Some(said) = asked.as_text() {
        text = format!("{text}\n{said}");
    }
    if outcome.bad + outcome.failed == 0 {
        let containerd = named(&daemon.containerd);
        text = match next {
            Next::Unsaid => text,
            Next::Nothing => {
                format!("{text}\n{containerd} has Tidehold as its content store: nothing more is to be done")
            }
            Next::Setup => format!(
                "{text}\n{containerd} can be given Tidehold as its content store: go on with `tidehold setup --restart`, which \
                 also takes over what it pulls until then"
            ),
        };
    }
    shown.end(&json, &text)
}

#[cfg(test)]
mod tests {
    use tidehold::oci::Digest;

    use super::*;

    fn blob(name: &str, size: u64) -> StoredBlob {
        StoredBlob { digest: Digest::of(name.as_bytes()), size, path: name.into() }
    }

    #[test]
    fn what_is_known_is_not_put_again() {
        let blobs = vec![blob("new", 5), blob("held", 7), blob("adopted", 11)];
        let listing = Listing { blobs, ..Listing::default() };
        let plan = Plan::new(listing, vec![Known::Unspecified, Known::Held, Known::Adopted]);
        assert_eq!((plan.unknown_bytes(), plan.held.len(), plan.adopted), (5, 1, 1));
        assert_eq!((plan.total, plan.total_bytes), (3, 23));
    }
}
