//! What is put right when the hold is opened: the difference between the index and the files.

use std::collections::HashSet;

use std::time::SystemTime;

use super::draft::Draft;
use super::files::{self, Files};
use super::index::Index;
use super::{Blob, StoreError};

/// What opening the hold found and cleared away.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Blobs in the index and on the disk.
    pub blobs: usize,
    /// Files that no index entry stands for, removed: a crash came between the rename and the entry.
    pub orphan_files: usize,
    /// Index entries whose file is gone, removed.
    pub lost_blobs: usize,
    /// Downloads that a stop cut off, removed.
    pub downloads: usize,
    /// Blobs that a new index was given from the files alone, each hashed again.
    pub rebuilt: usize,
}

pub(super) fn recover(files: &Files, index: &Index, now: SystemTime) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered { downloads: clear_downloads(files)?, ..Recovered::default() };
    if index.is_new() {
        recovered.rebuilt = rebuild(files, index, now)?;
    }
    clear_stray_ingests(files, index)?;
    let mut on_disk = HashSet::new();
    for (path, digest) in files.blobs()? {
        match digest {
            Some(digest) if index.blob(&digest)?.is_some() => {
                on_disk.insert(digest);
            }
            Some(_) | None => {
                files::remove_file(&path)?;
                recovered.orphan_files += 1;
            }
        }
    }
    let lost: Vec<_> = index
        .blobs()
        .filter(|digest| digest.as_ref().map_or(true, |digest| !on_disk.contains(digest)))
        .collect::<Result<_, _>>()?;
    for digest in &lost {
        index.remove_blob(digest)?;
    }
    recovered.blobs = on_disk.len();
    recovered.lost_blobs = lost.len();
    Ok(recovered)
}

/// Enters every file that is the blob its name claims into an index that was lost.
fn rebuild(files: &Files, index: &Index, now: SystemTime) -> Result<usize, StoreError> {
    let mut rebuilt = 0;
    for (path, digest) in files.blobs()? {
        let Some(digest) = digest else { continue };
        let draft = Draft::resume(path)?;
        if draft.verify(&digest).is_ok() {
            index.insert_blob(&Blob { digest, size: draft.offset(), committed_at: now })?;
            rebuilt += 1;
        }
    }
    Ok(rebuilt)
}

fn clear_downloads(files: &Files) -> Result<usize, StoreError> {
    let left = files.left_downloads()?;
    for path in &left {
        files::remove_file(path)?;
    }
    Ok(left.len())
}

/// Files of ingests that the index does not know, and entries whose file is gone.
fn clear_stray_ingests(files: &Files, index: &Index) -> Result<(), StoreError> {
    let mut known = HashSet::new();
    for (owner, name, record) in index.ingests()? {
        let path = files.ingest(&owner, record.number);
        if path.exists() {
            known.insert(path);
        } else {
            index.remove_ingest(&owner, &name)?;
        }
    }
    for path in files.ingests()? {
        if !known.contains(&path) {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}
