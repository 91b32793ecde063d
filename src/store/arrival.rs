//! Blobs that somebody else has put beside the hold's own, to be taken over as they are: no byte of them is copied.
//!
//! Who puts them there (a command in the machine's own name space, where a hard link to another store's file can be
//! made) does so below the names that an [`Arrivals`] gives out. What is found there is trusted in nothing: not to be a
//! file, not to have the bytes that its name says, not to stay as it is while it is read.
//!
//! Invariant: as for any commit. A file is verified and durable before it is renamed to its digest, and the entry comes
//! after that. Many are taken over together, so that they share the waits for the disk: then the index is flushed before
//! anybody is answered, in the place of notes, and the marks follow it. Until then nothing was promised: what a crash
//! leaves of it is put by again.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::draft::rehash_telling;
use super::records::{BlobRecord, Time};
use super::{Blob, Hold, Kept, Owner, StoreError};
use crate::oci::Digest;

/// A place for arrivals, as long as it is held: what is in it at the end is removed. *Dropping it waits for the disk.*
pub struct Arrivals {
    hold: Hold,
    number: u64,
}

/// Why a blob was not taken over. Its file is left where it is, until the arrivals end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArrivalError {
    /// Nothing was put there, and it is not held either.
    #[error("it is not held, and no file of it has arrived")]
    Missing,
    /// Something that is not a file: a link, a folder, a pipe.
    #[error("it is not a file")]
    NotAFile,
    /// It has other bytes.
    #[error("its bytes have {actual}")]
    Digest {
        /// What the bytes have.
        actual: Digest,
    },
    /// Somebody wrote to it while it was read.
    #[error("it was changed while it was read")]
    Changed,
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Whoever waited for it has gone.
    #[error("it was broken off")]
    BrokenOff,
}

/// What was found of a blob that is to be taken over.
enum Found {
    /// The hold has it.
    Held(Blob),
    /// It has arrived, whole and durable.
    Arrived(BlobRecord),
}

impl Hold {
    /// A place for arrivals.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals { hold: self.clone(), number: self.inner.files.next_number() }
    }

    /// Where the hold is, and all that arrives.
    pub fn data_dir(&self) -> &Path {
        self.inner.files.data_dir()
    }

    /// A blob that is held, by what its file looks like; nothing of it is read. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn held(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        self.untouched(digest)
    }
}

impl Arrivals {
    /// The folder to put files into.
    pub fn folder(&self) -> PathBuf {
        self.hold.inner.files.arriving()
    }

    /// What the names of these arrivals' files begin with.
    pub fn prefix(&self) -> String {
        format!("{}-", self.number)
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.folder().join(format!("{}{}-{}", self.prefix(), digest.algorithm().name(), digest.hex()))
    }

    /// Takes over these blobs, each once, and has a containerd rely on them: durable before the answer, which has one
    /// for each. What is held already needs no file. Tells how many bytes were read as it reads them, and breaks off
    /// where the answer to that is false. *Blocking.*
    ///
    /// # Errors
    /// When the disk or the index fails. Some may have been taken over then.
    pub fn take_over(
        &self,
        owner: &Owner,
        digests: &[Digest],
        now: SystemTime,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<Vec<Result<Kept, ArrivalError>>, StoreError> {
        // What is found to be held, or made a blob here, is not evicted before it is adopted.
        let _protected: Vec<_> = digests.iter().map(|digest| self.hold.protect(digest)).collect();
        let found: Vec<_> =
            digests.iter().map(|digest| self.find(digest, now, &mut go_on)).collect::<Result<_, _>>()?;
        let arrived: Vec<(&Digest, &BlobRecord)> = (digests.iter().zip(&found))
            .filter_map(|(digest, found)| match found {
                Ok(Found::Arrived(record)) => Some((digest, record)),
                Ok(Found::Held(_)) | Err(_) => None,
            })
            .collect();
        self.publish(&arrived)?;
        let mut all = Vec::new();
        for (digest, found) in digests.iter().zip(found) {
            all.push(found.map(|found| match found {
                Found::Held(blob) => Kept::Already(blob),
                Found::Arrived(record) => Kept::New(Blob::new(digest, &record)),
            }));
        }
        let blobs: Vec<&Blob> = all.iter().flatten().map(Kept::blob).collect();
        // What nobody relied on yet may have been evicted since.
        let gone = self.hold.adopt_all(owner, &blobs, now)?;
        let stays = |kept: Kept| {
            if gone.contains(&kept.blob().digest) { Err(ArrivalError::Missing) } else { Ok(kept) }
        };
        Ok(all.into_iter().map(|kept| kept.and_then(stays)).collect())
    }

    fn find(
        &self,
        digest: &Digest,
        now: SystemTime,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<Result<Found, ArrivalError>, StoreError> {
        let path = self.file(digest);
        if let Some(blob) = self.hold.untouched(digest)? {
            self.hold.inner.files.disk().remove(&path)?;
            return Ok(Ok(Found::Held(blob)));
        }
        let (file, record) = match verified(&path, digest, now, go_on) {
            Ok(verified) => verified,
            Err(error) => return Ok(Err(error)),
        };
        // Whoever wrote it may not have waited for the disk.
        self.hold.inner.files.disk().sync(&path, &file)?;
        Ok(Ok(Found::Arrived(record)))
    }

    /// Makes verified files blobs, and waits until the index knows them for good.
    fn publish(&self, arrived: &[(&Digest, &BlobRecord)]) -> Result<(), StoreError> {
        if arrived.is_empty() {
            return Ok(());
        }
        let inner = &self.hold.inner;
        let commits = inner.commits.read().unwrap_or_else(PoisonError::into_inner);
        let files = arrived.iter().map(|(digest, _)| (self.file(digest), *digest));
        inner.files.publish_all(&files.collect::<Vec<_>>())?;
        for (digest, record) in arrived {
            inner.index.put_blob(digest, record)?;
        }
        drop(commits);
        inner.index.flush()?;
        for (digest, _) in arrived {
            inner.open_files.close(digest);
        }
        Ok(())
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let files = &self.hold.inner.files;
        if let Err(error) = files.clear_arrivals(&self.prefix()) {
            tracing::warn!(%error, "what arrived and was not taken over could not be removed: the next start does it");
        }
    }
}

/// A file that is the blob, and its record.
fn verified(
    path: &Path,
    digest: &Digest,
    now: SystemTime,
    go_on: &mut impl FnMut(u64) -> bool,
) -> Result<(File, BlobRecord), ArrivalError> {
    let file = opened(path)?;
    let look = || {
        let metadata = file.metadata()?;
        Ok((metadata.is_file(), metadata.len(), Time::from(metadata.modified()?)))
    };
    let before @ (is_file, size, modified_at) = look().map_err(unreadable)?;
    if !is_file {
        return Err(ArrivalError::NotAFile);
    }
    let Some((hasher, read)) = rehash_telling(&file, digest.algorithm(), go_on).map_err(unreadable)? else {
        return Err(ArrivalError::BrokenOff);
    };
    let actual = hasher.digest();
    if look().map_err(unreadable)? != before || read != size {
        return Err(ArrivalError::Changed);
    }
    if actual != *digest {
        return Err(ArrivalError::Digest { actual });
    }
    Ok((file, BlobRecord { size, committed_at: now.into(), modified_at }))
}

/// Follows no link, and waits for nobody at the other end of a pipe.
fn opened(path: &Path) -> Result<File, ArrivalError> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(careful.bits()).unwrap_or_default();
    File::options().read(true).custom_flags(flags).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ArrivalError::Missing,
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => ArrivalError::NotAFile,
        // A socket has no way to be opened.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => ArrivalError::NotAFile,
        _ => unreadable(error),
    })
}

fn unreadable(error: io::Error) -> ArrivalError {
    ArrivalError::Unreadable(error.to_string())
}
