//! Reading blobs: open files, kept open, and reads at an offset.
//!
//! Unpacking reads a layer in small pieces, each a request of its own: what counts is that none of them opens
//! the file again.
//!
//! Invariant: a file is opened only where it is still the one that was committed, by its length and the time of its
//! last change. One that is not is hashed again, and if it is another, the blob is no longer held.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use rustix::io::{ReadWriteFlags, preadv2};

use super::draft::rehash;
use super::records::{BlobRecord, Time};
use super::{Blob, Hold, StoreError, blocking};
use crate::oci::Digest;

/// How many files stay open between reads.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What there is of a blob to read.
#[derive(Clone, Debug)]
pub enum Reading {
    /// All of it.
    Open(OpenBlob),
    /// Nothing any more, though a containerd relies on it: its file is gone or damaged. Fetching it again heals it.
    Lost {
        /// Its length in bytes.
        size: u64,
    },
    /// Nothing, and nobody relies on it.
    No,
}

impl Hold {
    /// Opens a blob for reading: at once where its file is open still, else where it holds up nobody.
    ///
    /// # Errors
    /// When the index or the file cannot be read.
    pub async fn reading(&self, digest: &Digest) -> Result<Reading, StoreError> {
        if let Some(open) = self.open_still(digest) {
            return Ok(Reading::Open(open));
        }
        let (hold, digest) = (self.clone(), digest.clone());
        blocking(move || hold.read(&digest)).await
    }

    /// A blob whose file is open since an earlier read, and has not been touched since.
    pub fn open_still(&self, digest: &Digest) -> Option<OpenBlob> {
        self.inner.open_files.find(digest)
    }

    /// Opens a blob for reading. *Blocking*, and for long where its file has changed since it was committed.
    ///
    /// # Errors
    /// When the index or the file cannot be read.
    pub fn read(&self, digest: &Digest) -> Result<Reading, StoreError> {
        match self.open_still(digest) {
            Some(open) => Ok(Reading::Open(open)),
            None => self.open_blob(digest, Doubt::IfChanged),
        }
    }

    /// Opens a blob anew after a read of it has failed: what the disk does not give back any more is not held.
    /// *Blocking*: all of it is hashed.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn read_again(&self, digest: &Digest) -> Result<Reading, StoreError> {
        self.inner.open_files.close(digest);
        self.open_blob(digest, Doubt::Always)
    }

    /// The bytes of a small blob, without that being a use of it; `None` where it is not held, is longer than `most`
    /// bytes, or is not what its digest says. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn glance(&self, digest: &Digest, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let held = self.inner.index.blob(digest)?.is_some_and(|record| record.size <= most);
        let bytes = held.then(|| std::fs::read(self.inner.files.blob(digest)).ok()).flatten();
        Ok(bytes.filter(|bytes| digest.matches(bytes)))
    }

    /// A blob that is held, if its file looks like the one that was committed. Reads nothing of it.
    pub(super) fn untouched(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let Some(record) = self.inner.index.blob(digest)? else { return Ok(None) };
        let metadata = std::fs::metadata(self.inner.files.blob(digest));
        let seen = metadata.and_then(|metadata| Ok((metadata.len(), Time::from(metadata.modified()?))));
        let same = seen.is_ok_and(|seen| seen == (record.size, record.modified_at));
        Ok(same.then(|| Blob::new(digest, &record)))
    }

    fn open_blob(&self, digest: &Digest, doubt: Doubt) -> Result<Reading, StoreError> {
        let Some(record) = self.inner.index.blob(digest)? else { return self.lost(digest) };
        let path = self.inner.files.blob(digest);
        match opened(&path, digest, &record, doubt) {
            Ok((file, modified_at)) => {
                if modified_at != record.modified_at {
                    let seen = BlobRecord { modified_at, ..record.clone() };
                    self.inner.index.replace_blob(digest, &record, Some(&seen))?;
                }
                let open = OpenBlob { file: Arc::new(file), size: record.size, modified_at };
                self.inner.open_files.keep(digest, open.clone());
                Ok(Reading::Open(open))
            }
            Err(Unusable::Now(error)) => Err(StoreError::io("open", &path)(error)),
            Err(Unusable::ForGood(why)) => {
                // The file stays: a commit replaces it, the next start removes it.
                if !self.inner.index.replace_blob(digest, &record, None)? {
                    // It was removed, or committed anew, since the index was asked.
                    return self.open_blob(digest, doubt);
                }
                tracing::error!(%digest, why, "a blob's file is not what was committed: it is no longer held");
                self.lost(digest)
            }
        }
    }

    fn lost(&self, digest: &Digest) -> Result<Reading, StoreError> {
        Ok(self.relied_on(digest)?.map_or(Reading::No, |size| Reading::Lost { size }))
    }
}

/// When a file is hashed before it is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    IfChanged,
    Always,
}

/// Why a file is not given out.
enum Unusable {
    /// It may be all right: the system lacks something, or does not let us.
    Now(std::io::Error),
    ForGood(String),
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        /// `EMFILE` and `ENFILE`, which have no kind of their own.
        const TOO_MANY_OPEN_FILES: [i32; 2] = [24, 23];
        let lacking = error.raw_os_error().is_some_and(|code| TOO_MANY_OPEN_FILES.contains(&code));
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::OutOfMemory | ErrorKind::Interrupted => Self::Now(error),
            _ if lacking => Self::Now(error),
            _ => Self::ForGood(error.to_string()),
        }
    }
}

/// The file, if it is the blob, and when it was changed last.
fn opened(
    path: &std::path::Path,
    digest: &Digest,
    record: &BlobRecord,
    doubt: Doubt,
) -> Result<(File, Time), Unusable> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let modified_at = Time::from(metadata.modified()?);
    if metadata.len() != record.size {
        let length = metadata.len();
        return Err(Unusable::ForGood(format!("it has {length} bytes where {} belong", record.size)));
    }
    if doubt == Doubt::Always || modified_at != record.modified_at {
        let actual = rehash(&file, digest.algorithm())?.0.digest();
        if actual != *digest {
            return Err(Unusable::ForGood(format!("its bytes have {actual}")));
        }
    }
    Ok((file, modified_at))
}

/// A blob that can be read, whole and immutable.
#[derive(Clone, Debug)]
pub struct OpenBlob {
    file: Arc<File>,
    size: u64,
    modified_at: Time,
}

impl OpenBlob {
    /// Whether the file still looks like the one that was opened: one call that the kernel answers from memory.
    fn is_untouched(&self) -> bool {
        let look = || {
            let metadata = self.file.metadata()?;
            let same = metadata.len() == self.size && Time::from(metadata.modified()?) == self.modified_at;
            Ok::<_, std::io::Error>(same && metadata.nlink() > 0)
        };
        look().unwrap_or(false)
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
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

    /// Fills a buffer from an offset on where the page cache has all of it. Never waits for the disk; `None` where
    /// that would be needed, or anything else is the matter.
    pub fn read_from_memory(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        let length = buffer.len();
        let read = preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
        read.ok().filter(|read| *read == length).map(drop)
    }

    /// Fills the buffer from an offset on as far as one read does, and answers how far; 0 only at the end. *Blocking.*
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

pub(super) fn read_exact_at(file: &File, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length);
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.freeze())
}

/// The blobs that were read last, still open.
pub(super) struct OpenFiles {
    files: Mutex<LastRead>,
}

struct LastRead {
    open: LruCache<Digest, OpenFile>,
    /// Used, and closed since.
    used: HashSet<Digest>,
}

struct OpenFile {
    blob: OpenBlob,
    /// Since uses were looked at last.
    used: bool,
}

impl Default for OpenFiles {
    fn default() -> Self {
        let open = LruCache::new(OPEN_FILES);
        Self { files: Mutex::new(LastRead { open, used: HashSet::new() }) }
    }
}

impl OpenFiles {
    /// A file that was changed or removed since it was opened is not found, so that it is looked at again.
    fn find(&self, digest: &Digest) -> Option<OpenBlob> {
        let open = self.files().open.get_mut(digest).map(|file| {
            file.used = true;
            file.blob.clone()
        });
        open.filter(OpenBlob::is_untouched)
    }

    fn keep(&self, digest: &Digest, blob: OpenBlob) {
        let mut files = self.files();
        if let Some((digest, file)) = files.open.push(digest.clone(), OpenFile { blob, used: true })
            && file.used
        {
            files.used.insert(digest);
        }
    }

    /// Lets the next read look at the file again.
    pub(super) fn close(&self, digest: &Digest) {
        self.files().open.pop(digest);
    }

    /// The blobs that were used since this was asked last.
    pub(super) fn take_used(&self) -> HashSet<Digest> {
        let mut files = self.files();
        let mut used = std::mem::take(&mut files.used);
        for (digest, file) in files.open.iter_mut().filter(|(_, file)| file.used) {
            file.used = false;
            used.insert(digest.clone());
        }
        used
    }

    /// Those of which somebody else has the file too.
    pub(super) fn being_read(&self) -> HashSet<Digest> {
        let files = self.files();
        let shared = files.open.iter().filter(|(_, file)| Arc::strong_count(&file.blob.file) > 1);
        shared.map(|(digest, _)| digest.clone()).collect()
    }

    fn files(&self) -> MutexGuard<'_, LastRead> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
