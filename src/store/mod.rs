//! The hold: what this node keeps of the registries, and what its containerds rely on.
//!
//! Owns the data folder: blobs as files named by their digest, an index of what is known of them, and beside them
//! the lists that registries made up. Knows no registry and no protocol.
//!
//! Invariants:
//! - *An index entry means a complete, verified, durable file.* A commit verifies, syncs the file, renames it, syncs
//!   the folder, and only then enters it in the index.
//! - *What was answered is in the files, whatever becomes of the index:* blobs in their own, adoptions in marks
//!   beside them. [`recovery`] makes the index agree with the files whenever the hold is opened.
//!
//! Look-ups answer from memory and may be called anywhere. What is documented as *blocking* waits for the disk:
//! async callers go through [`blocking`].

mod adopted_from;
mod adoption;
mod arrival;
mod disk;
mod download;
mod draft;
mod entering;
mod files;
mod flush;
mod index;
mod ingest;
mod lists;
mod pins;
mod protected;
mod read;
mod readers;
mod records;
mod recovery;
mod removal;
mod room;
mod send;
mod sources;
mod sweep;
mod tags;
#[cfg(test)]
mod tests;
mod usage;
mod uses;
mod writable;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

pub use adopted_from::AdoptedFrom;
pub use adoption::{Adopted, Owner};
pub use arrival::{ArrivalError, Arrivals};
pub use download::{Download, DownloadState, FollowError, Follower};
pub use draft::{CommitError, Draft};
pub use ingest::{Announced, Ingest, IngestStatus, Ingests, OpenIngestError};
pub use lists::ListEntry;
pub use pins::Pin;
pub use protected::Protected;
pub use read::{OpenBlob, Reading};
pub use readers::Readers;
pub use recovery::Recovered;
pub use removal::Removed;
pub use room::DiskSpace;
pub use send::Sendable;
pub use sources::{Listed, SeenIn};
pub use sweep::Swept;
pub use tags::{HeldTag, TagEntry};
pub use usage::{Amount, Usage};
pub use uses::Cached;
pub use writable::Unkept;

use crate::oci::Digest;
use adoption::Stripes;
use disk::Disk;
use entering::Entering;
use files::Files;
use index::Index;
use lists::Lists;
use protected::Protections;
use read::OpenFiles;
use records::BlobRecord;
use removal::Unlinked;
use room::Floor;
use sweep::Unswept;
use uses::Uses;

/// The node's one store. Cheap to clone: every clone is the same hold.
#[derive(Clone)]
pub struct Hold {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    index: Index,
    lists: Lists,
    open_files: OpenFiles,
    adopting: Stripes,
    entering: Entering,
    /// Held for reading by each commit, so that a sweep can be alone with what it changes.
    commits: RwLock<()>,
    unswept: Mutex<Unswept>,
    uses: Uses,
    protections: Protections,
    unlinked: Unlinked,
    floor: Floor,
}

/// What the index knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was committed here.
    pub committed_at: SystemTime,
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The blob is new here.
    New(Blob),
    /// It was held already, and the second copy is gone.
    Already(Blob),
}

impl Blob {
    fn new(digest: &Digest, record: &BlobRecord) -> Self {
        Self { digest: digest.clone(), size: record.size, committed_at: record.committed_at.into() }
    }
}

impl Kept {
    /// The blob, in either case.
    pub fn blob(&self) -> &Blob {
        match self {
            Self::New(blob) | Self::Already(blob) => blob,
        }
    }
}

impl Hold {
    /// Opens the hold in a folder, making it where it is missing, and finds what was answered before a crash. What
    /// else a crash may have left, [`Hold::sweep`] looks for. *Blocking.*
    ///
    /// # Errors
    /// When the folder cannot be used, or another daemon has it.
    pub fn open(data_dir: &Path, now: SystemTime) -> Result<(Self, Recovered), StoreError> {
        Self::open_on(Disk::default(), data_dir, now)
    }

    fn open_on(disk: Disk, data_dir: &Path, now: SystemTime) -> Result<(Self, Recovered), StoreError> {
        let files = Files::open(data_dir, disk)?;
        let (index, unswept, recovered) = recovery::open(&files, now)?;
        let lists = Lists::open(&files)?;
        let (open_files, adopting) = (OpenFiles::default(), Stripes::default());
        let (entering, commits, unswept) = (Entering::default(), RwLock::default(), Mutex::new(unswept));
        let (uses, protections) = (Uses::default(), Protections::default());
        let (unlinked, floor) = (Unlinked::default(), Floor::default());
        let inner = Inner {
            files,
            index,
            lists,
            open_files,
            adopting,
            entering,
            commits,
            unswept,
            uses,
            protections,
            unlinked,
            floor,
        };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// What is known of a blob, if it is held.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let record = self.inner.index.blob(digest)?;
        Ok(record.map(|record| Blob::new(digest, &record)))
    }

    /// Where a blob's file is, if it is held. It is never written to, and stays readable for whoever has it open.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.inner.files.blob(digest)
    }

    /// A new file to write a blob into, unnamed until it is committed. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        self.inner.files.can_write()?;
        Draft::create(self.inner.files.disk(), self.inner.files.new_download())
    }

    /// Makes a draft a blob, in the order of the invariant above. The index is not waited for: a crash that takes
    /// the entry back leaves the file and a note of it, so that the next start enters it again. *Blocking.*
    ///
    /// # Errors
    /// When the draft is not the blob it should be: its file stays. Or when the disk refuses.
    pub fn commit(&self, draft: &Draft, expected: &Digest, now: SystemTime) -> Result<Kept, CommitError> {
        draft.verify(expected)?;
        // What is found to be held is not to be removed before whoever commits has it.
        let _protected = self.protect(expected);
        if let Some(blob) = self.untouched(expected)? {
            self.used(expected);
            draft.remove();
            return Ok(Kept::Already(blob));
        }
        let modified_at = draft.modified_at()?;
        let record = BlobRecord { size: draft.offset(), committed_at: now.into(), modified_at };
        let commits = self.inner.commits.read().unwrap_or_else(PoisonError::into_inner);
        let note = self.inner.files.publish(draft, expected)?;
        self.inner.index.put_blob(expected, &record)?;
        drop(commits);
        self.entered(note)?;
        self.inner.open_files.close(expected);
        Ok(Kept::New(Blob::new(expected, &record)))
    }

    /// Keeps a small blob that is in memory, a manifest for one. *Blocking.*
    ///
    /// # Errors
    /// When the bytes do not have that digest, or the disk refuses.
    pub fn keep(&self, bytes: &[u8], expected: &Digest, now: SystemTime) -> Result<Kept, CommitError> {
        let mut draft = self.draft()?;
        let written = draft.write(bytes).map_err(CommitError::Store);
        let kept = written.and_then(|()| self.commit(&draft, expected, now));
        if kept.is_err() {
            draft.remove();
        }
        kept
    }

    /// Ends once the index could not be written. What is held is served on from then on, and nothing is remembered
    /// any more, until the hold is opened anew.
    pub async fn index_lost(&self) {
        self.inner.index.lost().cancelled().await;
    }

    /// How often what is known was changed since the hold was opened: what was looked up after this was asked would be
    /// found the same for as long as the number stays.
    pub fn changes(&self) -> u64 {
        self.inner.index.changes()
    }
}

/// Runs something that waits for the disk where it holds up nobody else.
///
/// # Errors
/// Those of the work itself.
///
/// # Panics
/// Where the work panics, which then is one panic, not two.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// The disk or the index failed. The message names the path; nothing of it is the asker's fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A file or folder could not be used.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The disk refused to change a file or folder.
    #[error("{action} {path}: {source}")]
    Unwritten {
        /// What was tried, such as `create`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The folder of the hold, or one in it, was taken away under the daemon, or another put in its place.
    #[error("{} is not the folder that the daemon opened: it was removed, or something else was put in its place", .0.display())]
    Replaced(PathBuf),
    /// A write to the index has failed, and it takes nothing until it is opened anew.
    #[error("the index in {} could not be written", .0.display())]
    IndexLost(PathBuf),
    /// The index could not be read or written.
    #[error("the index in {path}: {source}")]
    Index {
        /// The index's folder.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The index, or a record in it, is not of the form it was written in.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Another daemon has the folder open.
    #[error("another tidehold has {}: stop it, or give this one another data_dir", .0.display())]
    InUse(PathBuf),
}

impl StoreError {
    /// Whether room on the disk would have helped.
    pub fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Unwritten { source, .. } => {
                matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            Self::Replaced(_)
            | Self::IndexLost(_)
            | Self::Index { .. }
            | Self::Damaged(_)
            | Self::InUse(_) => false,
        }
    }

    /// Whether the disk takes no writes: what could not be written was as it should be.
    pub fn is_of_writing(&self) -> bool {
        match self {
            Self::Unwritten { .. } | Self::Replaced(_) | Self::IndexLost(_) => true,
            Self::Io { .. } | Self::Index { .. } | Self::Damaged(_) | Self::InUse(_) => false,
        }
    }

    /// What to do about it, where that is known.
    pub fn mend(&self) -> Option<String> {
        match self {
            Self::Unwritten { path, source, .. } => {
                // The file may never have come to be.
                let folder = path.parent().filter(|_| !path.is_dir()).unwrap_or(path);
                let folder = format!("'{}'", folder.display().to_string().replace('\'', r"'\''"));
                Some(match source.kind() {
                    ErrorKind::ReadOnlyFilesystem => format!(
                        "see why (dmesg | tail), then: mount -o remount,rw $(findmnt -n -o TARGET -T {folder})"
                    ),
                    ErrorKind::PermissionDenied => format!(
                        "see whose it is and what is set on it, since the daemon's user has to be able to write there: \
                         ls -ld {folder}; lsattr -d {folder}"
                    ),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                        format!("make room, for bytes and for files: df -h {folder}; df -i {folder}")
                    }
                    _ => "see what the system says of the disk: dmesg | tail".to_owned(),
                })
            }
            Self::Replaced(_) => {
                Some("put it back, or begin with what is there now: systemctl restart tidehold".to_owned())
            }
            Self::IndexLost(path) => Some(format!(
                "see that the disk has room and can be written (df -h '{}'; dmesg | tail): the daemon then ends, to be \
                 started anew",
                path.display()
            )),
            Self::Io { .. } | Self::Index { .. } | Self::Damaged(_) | Self::InUse(_) => None,
        }
    }

    fn unwritten(action: &'static str, path: &Path, error: std::io::Error) -> Self {
        Self::Unwritten { action, path: path.to_owned(), source: Arc::new(error) }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }
}
