//! The differ's engine: a layer from the hold's file onto a snapshot, as containerd's own applier would leave it.
//!
//! Three threads a layer: one reads the file and decompresses it ([`packing`]), one hashes what comes of it, one takes
//! the archive apart ([`tar`]) and writes it ([`tree`]); between them a few MiB of chunks ([`stream`]). So a layer takes
//! as long as its slowest part, and its memory does not depend on what is in it.
//!
//! Invariants:
//! - Nothing is written outside the target's folder, whatever an archive says: [`root`].
//! - What cannot be done here as containerd would do it is [`ApplyError::Unsupported`], and then nothing was written.
//!   After the first byte there is no such answer: whoever asked throws the snapshot away.
//! - The digest is of the bytes that were written.
//!
//! A layer's own claims allocate nothing; what it can fill is the disk, and a full one is said to be full.

mod folders;
mod go_path;
mod metadata;
mod mounts;
mod packing;
pub mod piped;
mod root;
mod stream;
mod tar;
#[cfg(test)]
mod tests;
mod tree;
mod whiteouts;
mod xattrs;

use std::path::PathBuf;

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::oci::Digest;
use crate::store::OpenBlob;
pub use mounts::Mount;
use mounts::{NoTarget, Target};
use packing::{BlobReader, Packing};
use stream::{StreamError, stream};
use tar::{Entries, TarError};
use tree::{Tree, TreeError, in_user_namespace};

/// What is to be done with a layer.
#[derive(Debug)]
pub struct Plan {
    packing: Packing,
    target: Target,
    sync: bool,
}

/// A layer that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Of the uncompressed archive: what an image's configuration calls a diff id.
    pub digest: Digest,
    /// The archive's length in bytes.
    pub size: u64,
}

impl Plan {
    /// A plan for a layer of this media type onto these mounts. With `sync` it ends only when the file system has
    /// everything on the disk.
    ///
    /// # Errors
    /// When somebody else has to do it, or nobody can.
    pub fn new(media_type: &str, mounts: &[Mount], sync: bool) -> Result<Self, ApplyError> {
        let unsupported = |what| ApplyError::Unsupported(format!("{what} is not applied here"));
        let packing = Packing::of(media_type)
            .ok_or_else(|| unsupported(format!("a layer of the media type {media_type:?}")))?;
        let target = Target::of(mounts).map_err(|error| match error {
            NoTarget::Unknown(what) => unsupported(what),
            NoTarget::ReadOnly => ApplyError::ReadOnly,
        })?;
        if in_user_namespace() {
            return Err(unsupported("a layer in a user namespace".to_owned()));
        }
        Ok(Self { packing, target, sync })
    }

    /// Carries it out. *Blocking*, on this thread and two more.
    ///
    /// # Errors
    /// When the layer is damaged, the disk refuses, or nobody waits any more. The folder then has part of it.
    pub fn apply(&self, blob: OpenBlob, cancel: CancellationToken) -> Result<Applied, ApplyError> {
        let mut tree = Tree::open(&self.target).map_err(|(path, error)| ApplyError::Target(path, error))?;
        let (source, hashing, mut stream) = stream(cancel);
        let packing = self.packing;
        let (digest, size) = std::thread::scope(|scope| {
            let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let pump = move || match packing.unpacked(BlobReader::new(blob)) {
                Ok(bytes) => source.pump(bytes),
                Err(error) => source.fail(&error),
            };
            thread("apply-unpack").spawn_scoped(scope, pump).map_err(ApplyError::Thread)?;
            let hash = thread("apply-hash").spawn_scoped(scope, move || hashing.hash());
            let hash = hash.map_err(ApplyError::Thread)?;
            let written = tree.write(&mut Entries::new(&mut stream));
            written.map_err(ApplyError::from)?;
            // What follows the archive is part of the layer's digest.
            stream.drain().map_err(ApplyError::from)?;
            drop(stream);
            hash.join().map_err(|_| ApplyError::Thread(std::io::Error::other("the hash ended early")))
        })?;
        if self.sync {
            tree.sync().map_err(|error| ApplyError::Target(self.target.root.clone(), error))?;
        }
        Ok(Applied { digest, size })
    }
}

/// Why a layer was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Nothing was written: another differ may know how.
    #[error("{0}")]
    Unsupported(String),
    /// The mount may not be written to.
    #[error("the mount is read-only: a layer can only be applied to one that can be written")]
    ReadOnly,
    /// The layer is not what a layer should be.
    #[error("{0}")]
    Damaged(String),
    /// There is no room left.
    #[error("no space is left for the snapshot: {0}")]
    Full(String),
    /// The snapshot's folder cannot be used.
    #[error("{}: {_1}", _0.display())]
    Target(PathBuf, #[source] Errno),
    /// An entry cannot be written.
    #[error("{0}")]
    Disk(String),
    /// The hold's own file cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// Nobody waits for it any more.
    #[error("whoever asked for the layer has gone")]
    Cancelled,
    /// The system has no thread left for it.
    #[error("no thread for the work: {0}")]
    Thread(#[source] std::io::Error),
}

impl From<StreamError> for ApplyError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Damaged(_) => Self::Damaged(error.to_string()),
            StreamError::Unreadable(_) => Self::Unreadable(error.to_string()),
            StreamError::Cancelled => Self::Cancelled,
        }
    }
}

impl From<TreeError> for ApplyError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Tar(TarError::Stream(error)) => error.into(),
            TreeError::Tar(TarError::Header(_) | TarError::CutOff) | TreeError::Refused { .. } => {
                Self::Damaged(error.to_string())
            }
            TreeError::System { source: Errno::NOSPC | Errno::DQUOT, .. } => Self::Full(error.to_string()),
            TreeError::System { .. } => Self::Disk(error.to_string()),
        }
    }
}
