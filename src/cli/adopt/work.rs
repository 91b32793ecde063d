//! The work of taking over: files are put before the daemon while it verifies those that came before, and its answers are
//! counted. What was changed just then is tried again.
//!
//! Invariant: something comes of each blob, or an error does. Nothing is forgotten where the daemon ends too soon.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use tidehold::proto::v1;
use tidehold::proto::v1::take_over_response::Answer;
use tokio::sync::Semaphore;

use super::super::Failed;
use super::daemon::{Daemon, TakingOver, refused};
use super::put::{PutError, Way, put};
use super::shown::Shown;
use super::store::StoredBlob;

/// How many blobs, and about how many bytes, share the waits for the disk.
const TOGETHER: usize = 128;
const TOGETHER_BYTES: u64 = 64 << 20;

/// How many files may stand before the daemon: it verifies them in the meantime.
const AHEAD: usize = 8 * TOGETHER;

/// How often what was changed just then is tried.
const TRIES: usize = 3;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) taken: BTreeMap<Way, u64>,
    pub(super) held: u64,
    pub(super) gone: u64,
    /// Not what their names say.
    pub(super) bad: u64,
    /// Left out for another reason.
    pub(super) failed: u64,
}

impl Outcome {
    /// How many blobs something came of.
    fn count(&self) -> u64 {
        let Self { taken, held, gone, bad, failed } = self;
        taken.values().sum::<u64>() + held + gone + bad + failed
    }
}

/// That there is no room for a file.
pub(super) fn full(path: &Path, error: &std::io::Error) -> Failed {
    anyhow!(
        "write {}: {error}: make room and run this again, it goes on where it was. What was taken over stays",
        path.display()
    )
    .into()
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

pub(super) struct Work<'a> {
    pub(super) shown: &'a mut Shown,
    pub(super) may_copy: bool,
    pub(super) outcome: Outcome,
}

impl Work<'_> {
    /// Takes over what is unknown, and has what is held relied on.
    pub(super) async fn all(
        mut self,
        daemon: &mut Daemon,
        taking: TakingOver,
        unknown: Vec<StoredBlob>,
        held: Vec<StoredBlob>,
    ) -> Result<Outcome, Failed> {
        let unknown = unknown.into_iter().map(|blob| Todo { blob, put: true });
        let held = held.into_iter().map(|blob| Todo { blob, put: false });
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
    place_of: impl Fn(&str) -> PathBuf,
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

#[cfg(test)]
mod tests {
    use tidehold::oci::Digest;

    use super::*;

    fn blob(name: &str, size: u64) -> StoredBlob {
        StoredBlob { digest: Digest::of(name.as_bytes()), size, path: name.into() }
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
