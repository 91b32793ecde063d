//! A blob that is being written: a file that grows, and the hash of what is in it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::StoreError;
use super::disk::Disk;
use super::flush::Flush;
use super::records::Time;
use crate::oci::{Algorithm, Digest, Hasher};

/// How much is read at a time where a file has to be hashed again, in bytes.
const REHASH_CHUNK_BYTES: usize = 1 << 20;

/// From how many bytes on hashing them is worth a thread of its own. containerd sends 1 MiB at a time.
const HASH_BESIDE_BYTES: usize = 512 << 10;

/// A file that grows at its end, with the hash of all its bytes. Dropping it leaves the file: whoever owns the
/// draft decides whether that is an ingest to go on with or rubbish to [remove](Draft::remove).
pub struct Draft {
    disk: Disk,
    path: PathBuf,
    file: Arc<File>,
    hasher: Hasher,
    offset: u64,
    flush: Mutex<Flush>,
}

impl Draft {
    pub(super) fn create(disk: &Disk, path: PathBuf) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            disk.make_folder(folder)?;
        }
        let file = Arc::new(disk.create(&path)?);
        Ok(Self::new(disk, path, file, Hasher::new(Algorithm::Sha256), 0))
    }

    /// Takes up a file where it was left: its hash is made anew from its bytes.
    pub(super) fn resume(disk: &Disk, path: PathBuf) -> Result<Self, StoreError> {
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => Arc::new(file),
            // Its first stream failed before it had one.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::create(disk, path),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let (hasher, offset) = rehash(&file, Algorithm::Sha256).map_err(StoreError::io("read", &path))?;
        Ok(Self::new(disk, path, file, hasher, offset))
    }

    fn new(disk: &Disk, path: PathBuf, file: Arc<File>, hasher: Hasher, offset: u64) -> Self {
        Self { disk: disk.clone(), path, file, hasher, offset, flush: Mutex::default() }
    }

    /// Adds bytes at the end. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses, a full one for instance: the draft is then as it was. Or when it could not keep what
    /// it had taken: nothing but [clearing](Draft::clear) the draft helps then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.flush().disturbed()?;
        let hasher = match self.put(bytes) {
            Ok(hasher) => hasher,
            Err(error) => {
                // Some of the bytes may have come to stand behind the end, where nothing would hash them.
                self.disk.truncate(&self.path, &self.file, self.offset)?;
                return Err(error);
            }
        };
        self.hasher = hasher;
        self.offset += bytes.len() as u64;
        self.flush().grown(&self.disk, &self.path, &self.file, self.offset)
    }

    /// Writes bytes to the file, and hashes them at the same time where they are many: a client waits for the one
    /// and the other before it sends more.
    fn put(&self, bytes: &[u8]) -> Result<Hasher, StoreError> {
        let write = || self.disk.write(&self.path, &self.file, bytes, self.offset);
        let hash = || {
            let mut hasher = self.hasher.clone();
            hasher.update(bytes);
            hasher
        };
        if bytes.len() < HASH_BESIDE_BYTES {
            return write().map(|()| hash());
        }
        let (hasher, written) = thread::scope(|scope| {
            let hashing = thread::Builder::new().name("hash".to_owned()).spawn_scoped(scope, hash);
            let written = write();
            let hasher = match hashing {
                Ok(hashing) => hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // No thread to be had.
                Err(_) => hash(),
            };
            (hasher, written)
        });
        written.map(|()| hasher)
    }

    /// Places bytes somewhere behind the end, to be [taken in](Self::absorb) once the end has come there. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses: the draft is then as good for nothing but to be removed.
    pub(super) fn place(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.flush().disturbed()?;
        self.disk.write(&self.path, &self.file, bytes, at)
    }

    /// Moves the end over bytes that were [placed](Self::place) right behind it, so many of them, and hashes them: they
    /// come from the page cache. *Blocking.*
    ///
    /// # Errors
    /// When the disk does not give them back.
    pub(super) fn absorb(&mut self, bytes: u64, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let until = self.offset + bytes;
        buffer.resize(REHASH_CHUNK_BYTES, 0);
        while self.offset < until {
            let length = usize::try_from(until - self.offset).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            self.file.read_exact_at(chunk, self.offset).map_err(StoreError::io("read", &self.path))?;
            self.hasher.update(chunk);
            self.offset += length as u64;
        }
        self.flush().grown(&self.disk, &self.path, &self.file, self.offset)
    }

    /// Drops everything written so far. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        self.disk.truncate(&self.path, &self.file, 0)?;
        self.hasher = Hasher::new(Algorithm::Sha256);
        self.offset = 0;
        *self.flush() = Flush::default();
        Ok(())
    }

    /// Whether the disk could not keep what was written: then it can only be cleared.
    pub(super) fn is_broken(&self) -> bool {
        self.flush().failed()
    }

    #[cfg(test)]
    pub(super) fn break_down(&self) {
        *self.flush() = Flush::refused(StoreError::Damaged("bytes that the disk did not keep".to_owned()));
    }

    fn flush(&self) -> MutexGuard<'_, Flush> {
        self.flush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes were written.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The SHA-256 digest of what was written so far.
    pub fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    /// The file, to read behind the write position.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that what was written is this blob, and all that stands in the file. Digests of other algorithms
    /// are made from the file.
    pub(super) fn verify(&self, expected: &Digest) -> Result<(), CommitError> {
        let length = self.file.metadata().map_err(StoreError::io("inspect", &self.path))?.len();
        if length != self.offset {
            return Err(CommitError::Size { expected: self.offset, actual: length });
        }
        let actual = match expected.algorithm() {
            Algorithm::Sha256 => self.digest(),
            other => rehash(&self.file, other).map_err(StoreError::io("read", &self.path))?.0.digest(),
        };
        if actual == *expected {
            Ok(())
        } else {
            Err(CommitError::Digest { expected: expected.clone(), actual })
        }
    }

    /// The file's own time of its last change.
    pub(super) fn modified_at(&self) -> Result<Time, StoreError> {
        let modified = self.file.metadata().and_then(|metadata| metadata.modified());
        modified.map(Time::from).map_err(StoreError::io("inspect", &self.path))
    }

    /// Makes all that was written durable, where it is not yet.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.flush().finish(&self.disk, &self.path, &self.file, self.offset)
    }

    /// Removes the file, on a best effort: what stays is swept at the next start.
    pub fn remove(&self) {
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::warn!(%error, "a draft's file could not be removed");
        }
    }
}

/// The hash of all bytes of a file, and how many they are.
pub(super) fn rehash(file: &File, algorithm: Algorithm) -> std::io::Result<(Hasher, u64)> {
    // It always goes on.
    let whole = rehash_telling(file, algorithm, &mut |_| true)?;
    Ok(whole.unwrap_or_else(|| (Hasher::new(algorithm), 0)))
}

/// As [`rehash`], telling how many bytes were read each time some were; `None` where the answer to that was false.
pub(super) fn rehash_telling(
    file: &File,
    algorithm: Algorithm,
    go_on: &mut impl FnMut(u64) -> bool,
) -> std::io::Result<Option<(Hasher, u64)>> {
    let mut hasher = Hasher::new(algorithm);
    let length = file.metadata()?.len();
    let chunk = usize::try_from(length).unwrap_or(usize::MAX).clamp(1, REHASH_CHUNK_BYTES);
    let mut buffer = vec![0; chunk];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(Some((hasher, offset)));
        };
        hasher.update(bytes);
        offset += read as u64;
        if !go_on(read as u64) {
            return Ok(None);
        }
    }
}

/// Why a draft did not become a blob.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// It has another length than was announced.
    #[error("unexpected size: {actual} bytes were written, {expected} announced")]
    Size {
        /// What was announced, in bytes.
        expected: u64,
        /// What was written, in bytes.
        actual: u64,
    },
    /// It has another digest than was announced.
    #[error("unexpected digest: the bytes written have {actual}, not {expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// The disk is so full that what is cached must not take more of it.
    #[error("the disk is nearly full: nothing more is stored beyond the reserve that it keeps free")]
    NoRoom,
    /// The disk or the index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
