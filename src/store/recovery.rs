//! What is put right when the hold is opened: the index is made to agree with the files.
//!
//! The files are right: a blob's file that hashes to its name is a blob, a mark is an adoption. So an index that is
//! missing, damaged or merely behind is one case, and every step can be cut off and taken again: what was not
//! entered yet is found the next time. Nothing that was answered is removed here, only what is not what it claims.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::StoreError;
use super::draft::rehash;
use super::files::Files;
use super::index::Index;
use super::records::{AdoptionRecord, BlobRecord, Time};
use crate::oci::Digest;

/// What opening the hold found and put right.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Blobs that are held.
    pub blobs: usize,
    /// Of these, the ones that the index did not know: each was hashed again.
    pub entered_blobs: usize,
    /// Files that were not the blob their name claims, removed.
    pub removed_files: usize,
    /// Index entries whose file is gone or of another length, removed.
    pub lost_blobs: usize,
    /// Adoptions by all containerds.
    pub adoptions: usize,
    /// Of these, the ones that the index did not know.
    pub entered_adoptions: usize,
    /// Adoptions in the index that had been released, removed.
    pub ended_adoptions: usize,
    /// Adoptions of blobs that are not held and have to be fetched again.
    pub lost_adoptions: usize,
    /// Downloads that a stop cut off, removed.
    pub downloads: usize,
    /// Ingests that lacked their file or their entry, removed.
    pub broken_ingests: usize,
    /// Where an index that could not be used was moved.
    pub damaged_index: Option<PathBuf>,
}

impl Recovered {
    /// Whether there was anything to put right.
    pub fn put_right(&self) -> bool {
        let Self { blobs, adoptions, lost_adoptions, .. } = *self;
        *self != Self { blobs, adoptions, lost_adoptions, ..Self::default() }
    }
}

/// Opens the index, in place of a damaged one if need be, and makes it agree with the files.
pub(super) fn open(files: &Files, now: SystemTime) -> Result<(Index, Recovered), StoreError> {
    // The database finds some damage by an error and some by a failed assertion.
    let attempt = std::panic::catch_unwind(AssertUnwindSafe(|| reconciled(files, now)));
    let damage = match attempt {
        Ok(Err(StoreError::Damaged(damage))) => damage,
        Ok(outcome) => return outcome,
        Err(_) => "the database gave up on it".to_owned(),
    };
    let aside = files.set_index_aside()?;
    tracing::error!(%damage, moved_to = %aside.display(), "the index is damaged: making it anew from the files");
    let (index, mut recovered) = reconciled(files, now)?;
    recovered.damaged_index = Some(aside);
    Ok((index, recovered))
}

fn reconciled(files: &Files, now: SystemTime) -> Result<(Index, Recovered), StoreError> {
    let index = Index::open(&files.index(), files.disk().clone())?;
    files.disk().sync_folder(files.data_dir())?;
    let mut recovered = Recovered::default();
    clear_downloads(files, &mut recovered)?;
    clear_broken_ingests(files, &index, &mut recovered)?;
    let held = enter_blobs(files, &index, now.into(), &mut recovered)?;
    enter_adoptions(files, &index, &held, now.into(), &mut recovered)?;
    index.flush()?;
    Ok((index, recovered))
}

fn clear_downloads(files: &Files, recovered: &mut Recovered) -> Result<(), StoreError> {
    for path in files.left_downloads()? {
        files.disk().remove(&path)?;
        recovered.downloads += 1;
    }
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

/// Answers with the digests of all blobs that are held, so that nobody has to look them up one by one.
fn enter_blobs(
    files: &Files,
    index: &Index,
    now: Time,
    recovered: &mut Recovered,
) -> Result<HashSet<Digest>, StoreError> {
    let mut unknown = HashMap::new();
    for (path, digest) in files.blobs()? {
        match digest {
            Some(digest) => {
                unknown.insert(digest, path);
            }
            None => {
                files.disk().remove(&path)?;
                recovered.removed_files += 1;
            }
        }
    }
    let mut held = HashSet::with_capacity(unknown.len());
    for entry in index.blobs() {
        let (digest, record) = entry?;
        match unknown.remove_entry(&digest) {
            Some((digest, path)) if length(&path) == Some(record.size) => {
                held.insert(digest);
            }
            // It is what its name says, or not: its hash will tell.
            Some((digest, path)) => {
                index.replace_blob(&digest, &record, None)?;
                recovered.lost_blobs += 1;
                unknown.insert(digest, path);
            }
            None => {
                index.replace_blob(&digest, &record, None)?;
                recovered.lost_blobs += 1;
            }
        }
    }
    if !unknown.is_empty() {
        tracing::info!(files = unknown.len(), "hashing files that the index does not know");
    }
    let mut unknown: Vec<_> = unknown.into_iter().collect();
    unknown.sort();
    files.sync_folders_of(unknown.iter().map(|(_, path)| path))?;
    for (digest, path) in unknown {
        if let Some(record) = examined(&digest, &path, now)? {
            index.put_blob(&digest, &record)?;
            recovered.entered_blobs += 1;
            held.insert(digest);
        } else {
            files.disk().remove(&path)?;
            recovered.removed_files += 1;
        }
    }
    recovered.blobs = held.len();
    Ok(held)
}

fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// The record of a file that is the blob its name claims.
fn examined(digest: &Digest, path: &Path, now: Time) -> Result<Option<BlobRecord>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let modified_at = modified.map_err(StoreError::io("inspect", path))?.into();
    let size = match rehash(&file, digest.algorithm()) {
        Ok((hasher, size)) if hasher.digest() == *digest => size,
        Ok(_) => return Ok(None),
        Err(error) => {
            tracing::warn!(%digest, %error, "a blob's file cannot be read back");
            return Ok(None);
        }
    };
    Ok(Some(BlobRecord { size, committed_at: now, modified_at }))
}

fn enter_adoptions(
    files: &Files,
    index: &Index,
    held: &HashSet<Digest>,
    now: Time,
    recovered: &mut Recovered,
) -> Result<(), StoreError> {
    let mut marks = files.marks()?;
    for (owner, marked) in &marks {
        recovered.adoptions += marked.len();
        recovered.lost_adoptions += marked.keys().filter(|digest| !held.contains(*digest)).count();
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
