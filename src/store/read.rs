//! Reading blobs: open files, kept open, and reads at an offset.
//!
//! Unpacking reads a layer in small pieces, each a request of its own: what counts is that none of them opens
//! the file again.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use lru::LruCache;

use super::StoreError;
use crate::oci::Digest;

/// How many files stay open between reads.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// A blob that can be read, whole and immutable.
#[derive(Clone, Debug)]
pub struct OpenBlob {
    file: Arc<File>,
    size: u64,
}

impl OpenBlob {
    pub(super) fn new(file: Arc<File>, size: u64) -> Self {
        Self { file, size }
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from an offset on, at most `length`, fewer only at the end. *Blocking*, though mostly answered
    /// from the page cache.
    ///
    /// # Errors
    /// When the disk fails, or the file is shorter than the index says.
    pub fn read_at(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        let length = length.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        read_exact_at(&self.file, offset, length)
    }
}

pub(super) fn read_exact_at(file: &File, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length);
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.freeze())
}

/// The files that were read last, still open.
pub(super) struct OpenFiles {
    files: Mutex<LruCache<Digest, Arc<File>>>,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self { files: Mutex::new(LruCache::new(OPEN_FILES)) }
    }
}

impl OpenFiles {
    pub(super) fn open(&self, digest: &Digest, path: &Path) -> Result<Arc<File>, StoreError> {
        let lock = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = lock().get(digest) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(path).map_err(StoreError::io("open", path))?);
        lock().put(digest.clone(), Arc::clone(&file));
        Ok(file)
    }
}
