//! The hold: what this node keeps of the registries, and what its containerds rely on.
//!
//! Owns the data folder: blobs as files named by their digest, and an index of what is known of them. Knows no
//! registry and no protocol.
//!
//! Invariant: *an index entry means a complete, verified, durable file; a file without an entry is garbage.*
//! A commit verifies, syncs the file, renames it, syncs the folder, and only then enters it in the index.
//!
//! Look-ups answer from memory and may be called anywhere. What is documented as *blocking* waits for the disk:
//! async callers go through [`blocking`].

mod adoption;
mod download;
mod draft;
mod files;
mod index;
mod ingest;
mod read;
mod records;
mod recovery;
mod tags;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use adoption::{Adopted, Owner};
pub use download::{Download, DownloadState, FollowError, Follower};
pub use draft::{CommitError, Draft};
pub use ingest::{Announced, Ingest, IngestStatus, Ingests, OpenIngestError};
pub use read::OpenBlob;
pub use recovery::Recovered;
pub use tags::TagEntry;

use crate::oci::Digest;
use files::Files;
use index::Index;
use read::OpenFiles;

/// The node's one store. Cheap to clone: every clone is the same hold.
#[derive(Clone)]
pub struct Hold {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    index: Index,
    open_files: OpenFiles,
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

impl Kept {
    /// The blob, in either case.
    pub fn blob(&self) -> &Blob {
        match self {
            Self::New(blob) | Self::Already(blob) => blob,
        }
    }
}

impl Hold {
    /// Opens the hold in a folder, making it where it is missing, and clears away what a crash left. *Blocking.*
    ///
    /// # Errors
    /// When the folder cannot be used, or another daemon has it.
    pub fn open(data_dir: &Path, now: SystemTime) -> Result<(Self, Recovered), StoreError> {
        let files = Files::open(data_dir)?;
        let index = Index::open(&data_dir.join("index"))?;
        let recovered = recovery::recover(&files, &index, now)?;
        let inner = Inner { files, index, open_files: OpenFiles::default() };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// What is known of a blob, if it is held.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        self.inner.index.blob(digest)
    }

    /// Opens a blob for reading, if it is held.
    ///
    /// # Errors
    /// When the index or the file cannot be read.
    pub fn read(&self, digest: &Digest) -> Result<Option<OpenBlob>, StoreError> {
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        let file = self.inner.open_files.open(digest, &self.inner.files.blob(digest))?;
        Ok(Some(OpenBlob::new(file, blob.size)))
    }

    /// A new file to write a blob into, unnamed until it is committed. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        Draft::create(self.inner.files.new_download())
    }

    /// Makes a draft a blob, in the order of the invariant above. *Blocking.*
    ///
    /// # Errors
    /// When the draft is not the blob it should be: its file stays. Or when the disk refuses.
    pub fn commit(&self, draft: &Draft, expected: &Digest, now: SystemTime) -> Result<Kept, CommitError> {
        draft.verify(expected)?;
        if let Some(blob) = self.blob(expected)? {
            draft.remove();
            return Ok(Kept::Already(blob));
        }
        self.inner.files.publish(draft, expected)?;
        let blob = Blob { digest: expected.clone(), size: draft.offset(), committed_at: now };
        self.inner.index.insert_blob(&blob)?;
        Ok(Kept::New(blob))
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

    /// Waits until everything that was answered is on the disk. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.inner.index.flush()
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
    /// The index could not be read or written.
    #[error("the index in {path}: {source}")]
    Index {
        /// The index's folder.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A record in the index is not of the form it was written in.
    #[error("the index holds a damaged record of {0}")]
    Damaged(String),
}

impl StoreError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }
}
