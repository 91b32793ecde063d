//! Taking over: what a store has and the hold has not is put before the daemon, which verifies it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::fs::statvfs;
use serde_json::json;
use tidehold::clock;
use tidehold::proto::v1::take_over_response::Answer;
use tidehold::proto::v1::{self, Known};
use tokio::sync::Semaphore;

use super::super::Failed;
use super::super::words::{length, plain, size};
use super::Adopt;
use super::daemon::{Daemon, TakingOver, refused};
use super::put::{PutError, Way, put};
use super::shown::{Shown, blobs};
use super::store::{ContentStore, Listing, StoredBlob};

/// How many blobs, and about how many bytes, share the waits for the disk.
const TOGETHER: usize = 128;
const TOGETHER_BYTES: u64 = 64 << 20;

/// How many files may stand before the daemon: it verifies them in the meantime.
const AHEAD: usize = 8 * TOGETHER;

/// How often what was changed just then is tried.
const TRIES: usize = 3;

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

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    taken: BTreeMap<Way, u64>,
    held: u64,
    gone: u64,
    /// Not what their names say.
    bad: u64,
    /// Left out for another reason.
    failed: u64,
}

impl Outcome {
    /// How many blobs something came of.
    fn count(&self) -> u64 {
        let Self { taken, held, gone, bad, failed } = self;
        taken.values().sum::<u64>() + held + gone + bad + failed
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
    let outcome = Work { shown: &mut shown, may_copy: asked.copy, outcome: Outcome::default() };
    let outcome = outcome.all(daemon, taking, plan).await?;
    let whole = outcome.bad + outcome.failed == 0;
    if whole {
        daemon.note(&store.root, at, total - outcome.gone).await?;
    }
    show_end(shown, daemon, &outcome, adopted, begun.elapsed())?;
    if whole { Ok(()) } else { Err(left_out(&outcome, &daemon.containerd)) }
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
    if free < needed {
        return Err(anyhow!(
            "the copies take {space}: make room, or have data_dir on the file system of {root}"
        )
        .into());
    }
    Ok(())
}

fn full(path: &Path, error: &std::io::Error) -> Failed {
    anyhow!(
        "write {}: {error}: make room and run this again, it goes on where it was. What was taken over stays",
        path.display()
    )
    .into()
}

fn left_out(outcome: &Outcome, containerd: &str) -> Failed {
    let Outcome { bad, failed, .. } = outcome;
    let mut said = Vec::new();
    if *bad > 0 {
        said.push(format!(
            "{} left out for not being what their names say: `ctr -n NAMESPACE content ls` shows by their labels which \
             images they are of (the namespaces: `ctr namespaces ls`); remove these images, pull them again",
            are(*bad)
        ));
    }
    if *failed > 0 {
        said.push(format!("{} left out since they could not be had", are(*failed)));
    }
    let said = said.join("; ");
    anyhow!("{said}, and run this again. Until then {containerd} is not ready for Tidehold as its store")
        .into()
}

fn are(count: u64) -> String {
    format!("{} {}", blobs(count), if count == 1 { "was" } else { "were" })
}

/// A blob, and whether its file has to be put before the daemon.
#[derive(Clone)]
struct Todo {
    blob: StoredBlob,
    put: bool,
}

/// Groups of blobs, none of them large but where one blob is.
fn grouped(todo: Vec<Todo>) -> VecDeque<Vec<Todo>> {
    let mut groups: VecDeque<Vec<Todo>> = VecDeque::new();
    let mut bytes: u64 = 0;
    for one in todo {
        let cost = if one.put { one.blob.size } else { 0 };
        match groups.back_mut() {
            Some(group) if group.len() < TOGETHER && bytes.saturating_add(cost) <= TOGETHER_BYTES => {
                bytes += cost;
                group.push(one);
            }
            _ => {
                bytes = cost;
                groups.push_back(vec![one]);
            }
        }
    }
    groups
}

/// What the one who puts tells the one who is answered.
#[derive(Default)]
struct Placed {
    ways: HashMap<String, Way>,
    gone: u64,
    /// What cannot be put there, and why.
    failed: Vec<(String, String)>,
}

/// Ends a wait for room when it is dropped.
struct Closing<'a>(&'a Semaphore);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Work<'a> {
    shown: &'a mut Shown,
    may_copy: bool,
    outcome: Outcome,
}

impl Work<'_> {
    async fn all(mut self, daemon: &mut Daemon, taking: TakingOver, plan: Plan) -> Result<Outcome, Failed> {
        let unknown = plan.unknown.into_iter().map(|blob| Todo { blob, put: true });
        let held = plan.held.into_iter().map(|blob| Todo { blob, put: false });
        let mut todo: Vec<Todo> = held.chain(unknown).collect();
        let mut taking = Some(taking);
        for last in (0..TRIES).rev() {
            if todo.is_empty() {
                break;
            }
            let taking = match taking.take() {
                Some(taking) => taking,
                None => daemon.take_over().await?,
            };
            let again = self.once(taking, &todo, last == 0).await?;
            todo.retain(|one| again.contains(one.blob.digest.as_str()));
            todo.iter_mut().for_each(|one| one.put = true);
        }
        Ok(self.outcome)
    }

    /// Answers with what is to be tried again.
    async fn once(
        &mut self,
        taking: TakingOver,
        todo: &[Todo],
        last: bool,
    ) -> Result<HashSet<String>, Failed> {
        let TakingOver { begin, prefix, requests, mut answers } = taking;
        let placed = Arc::new(Mutex::new(Placed::default()));
        let (telling, may_copy) = (Arc::clone(&placed), self.may_copy);
        let room = Arc::new(Semaphore::new(AHEAD));
        let (waiting, before) = (Arc::clone(&room), self.outcome.count() + todo.len() as u64);
        let groups = grouped(todo.to_vec());
        let placing = async move {
            for group in groups {
                let taken = u32::try_from(group.len()).unwrap_or(u32::MAX);
                match waiting.acquire_many(taken).await {
                    Ok(room) => room.forget(),
                    // The answers are over.
                    Err(_) => break,
                }
                let (begin, prefix, telling) = (begin.clone(), prefix.clone(), Arc::clone(&telling));
                let put = move || {
                    place(&group, |digest| TakingOver::place(&begin, &prefix, digest), may_copy, &telling)
                };
                let digests = tokio::task::spawn_blocking(put).await.context("put files")??;
                waiting.add_permits((taken as usize).saturating_sub(digests.len()));
                let request = v1::TakeOverRequest { containerd: String::new(), digests };
                if requests.send(request).await.is_err() {
                    // The answers say why.
                    break;
                }
            }
            Ok::<_, Failed>(())
        };
        let mut again = HashSet::new();
        let answering = async {
            // Whatever comes of it, nobody waits for room then.
            let _closing = Closing(&room);
            while let Some(answer) = answers.message().await.map_err(|status| refused(&status))? {
                room.add_permits(usize::from(matches!(
                    answer.answer,
                    Some(Answer::Taken(_) | Answer::Refused(_))
                )));
                self.answered(answer.answer, &placed, &mut again, last)?;
            }
            Ok(())
        };
        tokio::try_join!(placing, answering)?;
        let placed = std::mem::take(&mut *placed.lock().unwrap_or_else(PoisonError::into_inner));
        self.outcome.gone += placed.gone;
        for (digest, reason) in placed.failed {
            self.outcome.failed += 1;
            self.shown.problem("failed", &digest, &reason)?;
        }
        if self.outcome.count() + again.len() as u64 != before {
            return Err(anyhow!("the daemon ended before all was done: run this again to go on").into());
        }
        Ok(again)
    }

    fn answered(
        &mut self,
        answer: Option<Answer>,
        placed: &Mutex<Placed>,
        again: &mut HashSet<String>,
        last: bool,
    ) -> Result<(), Failed> {
        match answer {
            Some(Answer::Verified(v1::Verified { bytes })) => self.shown.read(bytes),
            Some(Answer::Taken(v1::Taken { digest, size, held })) => {
                let way = placed.lock().unwrap_or_else(PoisonError::into_inner).ways.remove(&digest);
                match way.filter(|_| !held) {
                    Some(way) => {
                        *self.outcome.taken.entry(way).or_default() += 1;
                        self.shown.done("taken", &digest, size, way.word())?;
                    }
                    None => {
                        self.outcome.held += 1;
                        self.shown.done("taken", &digest, if way.is_some() { size } else { 0 }, "held")?;
                    }
                }
            }
            Some(Answer::Refused(v1::Refused { digest, bad: true, reason })) => {
                self.outcome.bad += 1;
                self.shown.problem("bad", &digest, &reason)?;
            }
            Some(Answer::Refused(v1::Refused { digest, bad: false, reason })) if last => {
                self.outcome.failed += 1;
                self.shown.problem("failed", &digest, &reason)?;
            }
            Some(Answer::Refused(v1::Refused { digest, bad: false, .. })) => {
                again.insert(digest);
            }
            // Said at the beginning; or a newer daemon's.
            Some(Answer::Place(_)) | None => {}
        }
        Ok(())
    }
}

/// Puts the files of a group, and answers with the digests of those that the daemon is to look at.
fn place(
    group: &[Todo],
    place_of: impl Fn(&str) -> std::path::PathBuf,
    may_copy: bool,
    telling: &Mutex<Placed>,
) -> Result<Vec<String>, Failed> {
    let mut digests = Vec::with_capacity(group.len());
    let tell = || telling.lock().unwrap_or_else(PoisonError::into_inner);
    for Todo { blob, put: to_put } in group {
        let digest = blob.digest.to_string();
        if *to_put {
            let place = place_of(&digest);
            match put(&blob.path, &place, may_copy) {
                Ok(way) => drop(tell().ways.insert(digest.clone(), way)),
                Err(PutError::Gone) => {
                    tell().gone += 1;
                    continue;
                }
                Err(PutError::Full(error)) => return Err(full(&place, &error)),
                Err(PutError::NeedsCopy) => {
                    tell()
                        .failed
                        .push((digest, "it can only be copied: run this again with --copy".to_owned()));
                    continue;
                }
                Err(PutError::Other(error)) => {
                    tell().failed.push((digest, format!("{}: {error}", blob.path.display())));
                    continue;
                }
            }
        }
        digests.push(digest);
    }
    Ok(digests)
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
        let pulls =
            if plan.ingests == 1 { "1 blob is".to_owned() } else { format!("{} blobs are", plan.ingests) };
        text = format!("{text}. {pulls} being written there and left alone");
    }
    shown.begin(&json, &text, bytes)
}

fn show_end(
    shown: Shown,
    daemon: &Daemon,
    outcome: &Outcome,
    adopted: u64,
    took: Duration,
) -> Result<(), Failed> {
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
    if outcome.bad + outcome.failed == 0 {
        text = format!(
            "{text}\n{} can be given Tidehold as its content store: stop it, run this again for what it has pulled since, \
             and go on with `tidehold setup`",
            daemon.containerd
        );
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

    #[test]
    fn groups_are_small_but_for_a_blob_that_is_not() {
        let todo = |size, put| Todo { blob: blob("x", size), put };
        let lengths = |todo| grouped(todo).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(vec![todo(1, true); 2 * TOGETHER + 1]), [TOGETHER, TOGETHER, 1]);
        assert_eq!(lengths(vec![todo(TOGETHER_BYTES * 4, true), todo(1, true), todo(1, true)]), [1, 2]);
        assert_eq!(lengths(vec![todo(TOGETHER_BYTES, false); 3]), [3], "what is held is not read");
        assert!(grouped(Vec::new()).is_empty());
    }
}
