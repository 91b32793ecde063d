//! What is put right when the hold is opened: the index is made to agree with the files.
//!
//! The files are right: a blob's file that hashes to its name is a blob, a mark is an adoption. An index that is
//! merely behind lacks what was committed last, and of that there are notes ([`super::entering`]). One that is missing
//! or damaged is made anew from all files. Every step can be cut off and taken again: what was not entered yet is found
//! the next time. Nothing that was answered is removed here, only what is not what it claims.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::RwLock;
use std::time::SystemTime;

use super::StoreError;
use super::files::Files;
use super::index::Index;
use super::records::{AdoptionRecord, Time};
use super::sweep::{Sweep, Swept, Unswept};
use crate::oci::Digest;

/// What opening the hold found and put right.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// What became of the blobs that the index lacked, or of all blobs where it was made anew.
    pub swept: Swept,
    /// Adoptions by all containerds.
    pub adoptions: usize,
    /// Of these, the ones that the index did not know.
    pub entered_adoptions: usize,
    /// Adoptions in the index that had been released, removed.
    pub ended_adoptions: usize,
    /// Downloads that a stop cut off, removed.
    pub downloads: usize,
    /// Files that arrived and were not taken over before a stop, removed.
    pub arrivals: usize,
    /// Ingests that lacked their file or their entry, removed.
    pub broken_ingests: usize,
    /// Where an index that could not be used was moved.
    pub damaged_index: Option<PathBuf>,
}

impl Recovered {
    /// Whether there was anything to put right.
    pub fn put_right(&self) -> bool {
        let swept = Swept { blobs: self.swept.blobs, ..Swept::default() };
        *self != Self { swept, adoptions: self.adoptions, ..Self::default() }
    }
}

/// Opens the index, in place of a damaged one if need be, and makes it agree with the files.
pub(super) fn open(files: &Files, now: SystemTime) -> Result<(Index, Unswept, Recovered), StoreError> {
    // The database finds some damage by an error and some by a failed assertion.
    let attempt = std::panic::catch_unwind(AssertUnwindSafe(|| reconciled(files, now)));
    let damage = match attempt {
        Ok(Err(StoreError::Damaged(damage))) => damage,
        Ok(outcome) => return outcome,
        Err(_) => "the database gave up on it".to_owned(),
    };
    let aside = files.set_index_aside()?;
    tracing::error!(%damage, moved_to = %aside.display(), "the index is damaged: making it anew from the files");
    let (index, unswept, mut recovered) = reconciled(files, now)?;
    recovered.damaged_index = Some(aside);
    Ok((index, unswept, recovered))
}

fn reconciled(files: &Files, now: SystemTime) -> Result<(Index, Unswept, Recovered), StoreError> {
    let index = Index::open(&files.index(), files.disk().clone())?;
    files.disk().sync_folder(files.data_dir())?;
    // Before anything is changed, so that they follow.
    index.take_counts()?;
    index.flush()?;
    let mut recovered = Recovered::default();
    clear_downloads(files, &mut recovered)?;
    clear_broken_ingests(files, &index, &mut recovered)?;
    let unswept = enter_blobs(files, &index, now.into(), &mut recovered.swept)?;
    enter_adoptions(files, &index, now.into(), &mut recovered)?;
    Ok((index, unswept, recovered))
}

fn clear_downloads(files: &Files, recovered: &mut Recovered) -> Result<(), StoreError> {
    for path in files.left_downloads()? {
        files.disk().remove(&path)?;
        recovered.downloads += 1;
    }
    recovered.arrivals = files.clear_arrivals("")?;
    Ok(())
}

/// Files of ingests that the index does not know, and entries whose file is gone.
fn clear_broken_ingests(files: &Files, index: &Index, recovered: &mut Recovered) -> Result<(), StoreError> {
    let mut known = HashSet::new();
    for (owner, name, record) in index.ingests()? {
        files.skip_number(record.number);
        let path = files.ingest(&owner, record.number);
        if path.exists() {
            known.insert(path);
        } else {
            index.remove_ingest(&owner, &name)?;
            recovered.broken_ingests += 1;
        }
    }
    for path in files.ingests()? {
        if !known.contains(&path) {
            files.disk().remove(&path)?;
            recovered.broken_ingests += 1;
        }
    }
    Ok(())
}

/// Enters what the index does not know of the blobs that it has to. Answers with what remains to be looked through.
fn enter_blobs(files: &Files, index: &Index, now: Time, swept: &mut Swept) -> Result<Unswept, StoreError> {
    // Before it is opened nobody commits.
    let sweep = Sweep { files, index, commits: &RwLock::default(), now };
    let notes = files.notes()?;
    let unswept = if index.is_complete()? {
        enter_noted(files, &sweep, &notes, swept)?;
        index.closed()?.map_or(Unswept::All, |closed| Unswept::ChangedSince(closed.changed_at))
    } else {
        sweep.all(&Unswept::All, &|| true, swept)?;
        index.set_complete()?;
        Unswept::Nothing
    };
    // What comes from here on is not as it was when the hold was closed.
    index.remove_closed()?;
    index.flush()?;
    notes.iter().try_for_each(|(note, _)| files.disk().remove(note))?;
    Ok(unswept)
}

/// The blobs whose notes stand: the index had them, or has lost them with its last moments. The notes go once it has
/// them for good.
fn enter_noted(
    files: &Files,
    sweep: &Sweep<'_>,
    notes: &[(PathBuf, Option<Digest>)],
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let mut unknown = BTreeMap::new();
    for digest in notes.iter().filter_map(|(_, digest)| digest.as_ref()) {
        let path = files.blob(digest);
        if sweep.index.blob(digest)?.is_none() && path.exists() {
            unknown.insert(digest, path);
        }
    }
    files.sync_folders_of(unknown.values())?;
    unknown.into_iter().try_for_each(|(digest, path)| sweep.enter(digest, &path, swept))
}

fn enter_adoptions(
    files: &Files,
    index: &Index,
    now: Time,
    recovered: &mut Recovered,
) -> Result<(), StoreError> {
    let mut marks = files.marks()?;
    for (owner, marked) in &marks {
        recovered.adoptions += marked.len();
        tracing::debug!(containerd = owner, adoptions = marked.len(), "read the marks");
    }
    for owner in index.owners()? {
        let marked = marks.entry(owner.clone()).or_default();
        for entry in index.adoptions_after(&owner, None) {
            let (digest, record) = entry?;
            if marked.get(&digest) == Some(&record.size) {
                marked.remove(&digest);
            } else {
                index.remove_adoption(&owner, &digest)?;
                recovered.ended_adoptions += 1;
            }
        }
    }
    for (owner, marked) in marks {
        recovered.entered_adoptions += marked.len();
        for (digest, size) in marked {
            let committed_at = index.blob(&digest)?.map_or(now, |blob| blob.committed_at);
            index.put_adoption(&owner, &digest, &AdoptionRecord::new(size, committed_at, now))?;
        }
    }
    Ok(())
}
