//! When each blob was last of use: read by somebody, committed once more, or let go by a containerd.
//!
//! Whoever uses a blob leaves a word in memory, next to what it looks at anyway. Once in a while these words get their
//! time ([`Hold::note_uses`]) and, for each blob at most every few minutes, an entry in the index: a crash sets a use
//! back by as much, which is no harm.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Hold, StoreError};
use crate::oci::Digest;

/// How old a blob's entry gets before a later use takes its place.
const COARSE: Duration = Duration::from_secs(5 * 60);

/// What the index does not have of uses.
#[derive(Default)]
pub(super) struct Uses(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    /// Used, nobody has said when.
    untold: HashSet<Digest>,
    /// Used since the index's entry was written.
    told: HashMap<Digest, SystemTime>,
}

impl Uses {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That a blob is gone, and its uses with it.
    pub(super) fn forget(&self, digest: &Digest) {
        let mut pending = self.pending();
        pending.untold.remove(digest);
        pending.told.remove(digest);
    }
}

/// A blob that no containerd relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last of use, or came.
    pub used_at: SystemTime,
    /// Whether its file has another name beside ours, as what was taken over from another store has while that keeps it:
    /// removing it frees nothing.
    pub shared: bool,
}

impl Hold {
    /// That a blob has just been of use.
    pub(super) fn used(&self, digest: &Digest) {
        self.inner.uses.pending().untold.insert(digest.clone());
    }

    /// Gives the uses since the last time this one, and writes down those whose entries have grown old; at most as many
    /// as blobs were used since. *Blocking.*
    ///
    /// # Errors
    /// When the index fails.
    pub fn note_uses(&self, now: SystemTime) -> Result<(), StoreError> {
        let told = self.tell_uses(now);
        for (digest, used_at) in told {
            let index = &self.inner.index;
            if index.blob(&digest)?.is_none() {
                self.inner.uses.forget(&digest);
                continue;
            }
            let entry = index.used_at(&digest)?.map(SystemTime::from);
            let fresh = |entry: SystemTime| used_at.duration_since(entry).unwrap_or_default() < COARSE;
            if !entry.is_some_and(fresh) {
                index.put_use(&digest, used_at.into())?;
                let mut pending = self.inner.uses.pending();
                if pending.told.get(&digest) == Some(&used_at) {
                    pending.told.remove(&digest);
                }
            }
        }
        Ok(())
    }

    /// All uses that the index may not have.
    fn tell_uses(&self, now: SystemTime) -> HashMap<Digest, SystemTime> {
        let read = self.inner.open_files.take_used();
        let mut pending = self.inner.uses.pending();
        let untold = std::mem::take(&mut pending.untold);
        pending.told.extend(untold.into_iter().chain(read).map(|digest| (digest, now)));
        pending.told.clone()
    }

    /// When a blob was last of use; `None` where it is not held. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn used_at(&self, digest: &Digest) -> Result<Option<SystemTime>, StoreError> {
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        let told = self.inner.uses.pending().told.get(digest).copied();
        let noted = self.inner.index.used_at(digest)?.map(SystemTime::from);
        Ok([told, noted].into_iter().flatten().chain([blob.committed_at]).max())
    }

    /// All blobs that no containerd relies on, and when each was last of use. *Blocking*: takes some microseconds a blob, one
    /// of them for its file.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn cached(&self, now: SystemTime) -> Result<Vec<Cached>, StoreError> {
        self.tell_uses(now);
        let mut cached = Vec::new();
        for group in 0..=u8::MAX {
            self.inner.index.each_of(group, |digest, held| {
                if let (Some(size), []) = (held.size, held.adopters.as_slice())
                    && let Some(used_at) = self.used_at(digest)?
                {
                    // A file that is gone frees nothing either, and its entry may go.
                    let file = std::fs::symlink_metadata(self.inner.files.blob(digest));
                    let shared = file.is_ok_and(|file| file.nlink() > 1);
                    cached.push(Cached { digest: digest.clone(), size, used_at, shared });
                }
                Ok(())
            })?;
        }
        Ok(cached)
    }

    /// The blobs that somebody reads just now, as far as is known: who has had a file open for long may have been lost
    /// sight of, and reads on whatever becomes of it.
    pub fn being_read(&self) -> HashSet<Digest> {
        self.inner.open_files.being_read()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::store::{Owner, Reading};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_use_is_known_at_once_and_written_down_once_in_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), at(0)).unwrap().0;
        let digest = Digest::of(b"blob");
        hold.keep(b"blob", &digest, at(10)).unwrap();
        let used_at = || hold.cached(at(9999)).unwrap().remove(0).used_at;
        assert_eq!(used_at(), at(10));
        let read = || assert!(matches!(hold.read(&digest).unwrap(), Reading::Open(_)));
        read();
        let changes = hold.changes();
        hold.note_uses(at(20)).unwrap();
        assert_eq!(used_at(), at(20));
        assert_eq!(hold.changes(), changes + 1);
        // Nobody has used it since.
        hold.note_uses(at(30)).unwrap();
        assert_eq!(used_at(), at(20));
        read();
        hold.note_uses(at(40)).unwrap();
        assert_eq!((used_at(), hold.changes()), (at(40), changes + 1));
        read();
        hold.note_uses(at(400)).unwrap();
        assert_eq!((used_at(), hold.changes()), (at(400), changes + 2));
    }

    #[test]
    fn what_a_containerd_lets_go_counts_as_used_until_then() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), at(0)).unwrap().0;
        let digest = Digest::of(b"blob");
        hold.keep(b"blob", &digest, at(0)).unwrap();
        let system = Owner::new("system");
        hold.adopt(&system, &digest, at(0)).unwrap();
        assert_eq!(hold.cached(at(50)).unwrap(), []);
        hold.release(&system, &digest).unwrap();
        assert_eq!(
            hold.cached(at(100)).unwrap(),
            [Cached { digest, size: 4, used_at: at(100), shared: false }]
        );
    }
}
