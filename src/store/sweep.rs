//! Looking through the blobs' files for what the index does not know, and through the index for what is gone.
//!
//! Needed in the foreground only where the index was made anew. After a crash it goes on beside the daemon's work,
//! and finds what no answer depended on: a file whose commit was cut off by a loss of power, and what others have
//! done to the folder. After a clean stop it looks only where something was done meanwhile. A folder at a time, so
//! that it takes little memory.
//!
//! Invariant: a file or an entry that a commit made meanwhile is left alone. So what is to be changed is looked at
//! once more while nobody commits.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::draft::rehash;
use super::files::Files;
use super::index::Index;
use super::records::{BlobRecord, ClosedRecord, Time};
use super::{Hold, StoreError};
use crate::clock;
use crate::oci::Digest;

/// How often a sweep says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How long a folder has to have been left alone when the hold is closed: what is done to it in the same tick of the
/// file system's clock would not be seen.
const SETTLED: Duration = Duration::from_secs(2);

/// What a sweep found and put right.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that it saw to be held.
    pub blobs: usize,
    /// Of these, the ones that the index did not know: each was hashed.
    pub entered_blobs: usize,
    /// Files that were not the blob their name claims, removed.
    pub removed_files: usize,
    /// Index entries whose file is gone or of another length, removed.
    pub lost_blobs: usize,
    /// Adoptions of blobs that are not held and have to be fetched again.
    pub lost_adoptions: usize,
}

impl Swept {
    /// Whether there was anything to put right.
    pub fn put_right(&self) -> bool {
        let Self { blobs, lost_adoptions, .. } = *self;
        *self != Self { blobs, lost_adoptions, ..Self::default() }
    }
}

/// Which folders of blobs have not been looked through since the hold was opened.
#[derive(Debug, PartialEq)]
pub(super) enum Unswept {
    All,
    /// All that were not last changed at these times.
    ChangedSince(HashMap<String, Time>),
    Nothing,
}

impl Hold {
    /// Looks through the files that a crash or somebody else may have left. *Blocking*, and for long; it can be cut
    /// off before any file, and is taken up from its beginning by the next start.
    ///
    /// # Errors
    /// When the disk or the index fails.
    pub fn sweep(&self, now: SystemTime, go_on: impl Fn() -> bool) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let inner = &self.inner;
        let sweep =
            Sweep { files: &inner.files, index: &inner.index, commits: &inner.commits, now: now.into() };
        let unswept = std::mem::replace(&mut *self.unswept(), Unswept::All);
        if sweep.all(&unswept, &go_on, &mut swept)? {
            *self.unswept() = Unswept::Nothing;
            swept.lost_adoptions = self.lost_adoptions()?;
        }
        Ok(swept)
    }

    fn lost_adoptions(&self) -> Result<usize, StoreError> {
        let mut lost = 0;
        for owner in self.inner.index.owners()? {
            for entry in self.inner.index.adoptions_after(&owner, None) {
                lost += usize::from(self.inner.index.blob(&entry?.0)?.is_none());
            }
        }
        Ok(lost)
    }

    /// Brings everything to the disk and notes how it stands there, so that the next start has little to look
    /// through. What is committed afterwards is not lost. *Blocking.*
    ///
    /// # Errors
    /// When the disk or the index fails.
    pub fn close(&self, now: SystemTime) -> Result<(), StoreError> {
        self.flush()?;
        if *self.unswept() == Unswept::Nothing {
            let mut record = ClosedRecord::default();
            for shard in self.inner.files.shards()? {
                if let Some(changed_at) = self.inner.files.shard_changed_at(&shard) {
                    // A time that no folder has lets it be looked through.
                    let settled = changed_at + SETTLED <= now;
                    let at = if settled { changed_at.into() } else { Time::default() };
                    record.changed_at.insert(shard, at);
                }
            }
            self.inner.index.put_closed(&record)?;
        }
        self.inner.index.put_counts()?;
        self.inner.index.flush()
    }

    fn unswept(&self) -> MutexGuard<'_, Unswept> {
        self.inner.unswept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Sweep<'a> {
    pub(super) files: &'a Files,
    pub(super) index: &'a Index,
    /// Held for reading by each commit.
    pub(super) commits: &'a RwLock<()>,
    pub(super) now: Time,
}

impl Sweep<'_> {
    /// Answers whether it came to its end.
    pub(super) fn all(
        &self,
        unswept: &Unswept,
        go_on: &dyn Fn() -> bool,
        swept: &mut Swept,
    ) -> Result<bool, StoreError> {
        let mut told_at = clock::instant();
        let mut shards = self.files.shards()?;
        shards.extend(self.index.shards()?);
        for shard in shards {
            let skipped = match unswept {
                Unswept::All => false,
                Unswept::ChangedSince(times) => {
                    times.get(&shard).copied() == self.files.shard_changed_at(&shard).map(Time::from)
                }
                Unswept::Nothing => true,
            };
            if skipped {
                continue;
            }
            let mut unknown = self.compare(&shard, swept)?;
            self.files.sync_folders_of(unknown.values())?;
            while let Some((digest, path)) = unknown.pop_first() {
                if !go_on() {
                    return Ok(false);
                }
                self.enter(&digest, &path, swept)?;
                if told_at.elapsed() >= PROGRESS_EVERY {
                    told_at = clock::instant();
                    let Swept { blobs, entered_blobs, .. } = *swept;
                    tracing::info!(
                        at = shard,
                        blobs,
                        entered_blobs,
                        "hashing files that the index does not know"
                    );
                }
            }
            if !go_on() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the entries of one folder that have no file. Answers with the files that have no entry.
    fn compare(&self, shard: &str, swept: &mut Swept) -> Result<BTreeMap<Digest, PathBuf>, StoreError> {
        let mut unknown = BTreeMap::new();
        for (path, digest) in self.files.blobs_in(shard)? {
            match digest {
                Some(digest) => {
                    unknown.insert(digest, path);
                }
                // No commit makes such a one.
                None => {
                    self.files.disk().remove(&path)?;
                    swept.removed_files += 1;
                }
            }
        }
        for entry in self.index.blobs_like(&shard.replacen('/', ":", 1)) {
            let (digest, record) = entry?;
            let path = self.files.blob(&digest);
            let listed = unknown.remove(&digest);
            if listed.is_some() && length(&path) == Some(record.size) {
                swept.blobs += 1;
                continue;
            }
            let _alone = self.alone();
            let lost = length(&path) != Some(record.size);
            if lost && self.index.replace_blob(&digest, &record, None)? {
                swept.lost_blobs += 1;
                // It is what its name says, or not: its hash will tell.
                unknown.extend(listed.map(|path| (digest, path)));
            }
        }
        Ok(unknown)
    }

    /// Enters a file that the index does not know, or removes it where it is not what its name says.
    pub(super) fn enter(&self, digest: &Digest, path: &Path, swept: &mut Swept) -> Result<(), StoreError> {
        let Some(seen) = Seen::of(path)? else { return Ok(()) };
        let whole = is_whole(digest, path)?;
        let _alone = self.alone();
        if self.index.blob(digest)?.is_some() || Seen::of(path)? != Some(seen) {
            return Ok(());
        }
        if whole {
            let Seen { size, modified_at, .. } = seen;
            self.index.put_blob(digest, &BlobRecord { size, committed_at: self.now, modified_at })?;
            swept.blobs += 1;
            swept.entered_blobs += 1;
        } else {
            self.files.disk().remove(path)?;
            swept.removed_files += 1;
        }
        Ok(())
    }

    fn alone(&self) -> std::sync::RwLockWriteGuard<'_, ()> {
        self.commits.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// What tells a file from the one that a commit puts in its place.
#[derive(Clone, Copy, PartialEq)]
struct Seen {
    size: u64,
    modified_at: Time,
    inode: u64,
}

impl Seen {
    fn of(path: &Path) -> Result<Option<Self>, StoreError> {
        let look = || {
            let metadata = std::fs::metadata(path)?;
            let (size, modified_at) = (metadata.len(), metadata.modified()?.into());
            Ok::<_, io::Error>(Self { size, modified_at, inode: metadata.ino() })
        };
        match look() {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("inspect", path)(error)),
        }
    }
}

/// One that cannot be opened just now, for lack of something, is not said to be bad.
fn is_whole(digest: &Digest, path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    Ok(match rehash(&file, digest.algorithm()) {
        Ok((hasher, _)) => hasher.digest() == *digest,
        Err(error) => {
            tracing::warn!(%digest, %error, "a blob's file cannot be read back");
            false
        }
    })
}
