//! Removing what is only cache.
//!
//! Invariants:
//! - Nothing that a containerd relies on is removed, nor what somebody has [protected](Hold::protect). Both are looked at
//!   under the digest's lock of adoptions, which whoever adopts takes too: an `Info` comes before the removal, and keeps
//!   the blob, or after it, and does not find it.
//! - The entry leaves first and for good, then the file. A crash in between leaves a file without an entry, which the
//!   next sweep finds; never an entry without a file. A commit of the same blob in between wins: its file stays.
//! - Who has the file open reads on.

use std::sync::{Mutex, PoisonError};

use super::{Hold, StoreError};
use crate::oci::Digest;

/// How many leave with one flush of the index.
const AT_ONCE: usize = 64;

/// Files whose entries are gone and that were left, since somebody was about to commit them anew.
#[derive(Default)]
pub(super) struct Unlinked(Mutex<Vec<Digest>>);

/// A blob that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Hold {
    /// Removes these, but for what is relied on, protected or not held at all, and answers with those that it removed, in
    /// that order. *Blocking.*
    ///
    /// # Errors
    /// When the disk or the index fails. What was removed until then stays so.
    pub fn remove_cached(&self, digests: &[Digest]) -> Result<Vec<Removed>, StoreError> {
        let mut removed = Vec::new();
        for some in digests.chunks(AT_ONCE) {
            let mut taken = Vec::new();
            for digest in some {
                taken.extend(self.take_entry(digest)?);
            }
            self.flush()?;
            let left = std::mem::take(&mut *self.left());
            for digest in left.iter().chain(taken.iter().map(|removed| &removed.digest)) {
                self.unlink(digest)?;
            }
            removed.extend(taken);
        }
        Ok(removed)
    }

    /// Removes a blob's entry, where nobody needs the blob.
    fn take_entry(&self, digest: &Digest) -> Result<Option<Removed>, StoreError> {
        let _alone = self.inner.adopting.lock(digest);
        if self.inner.protections.contain(digest) || self.relied_on(digest)?.is_some() {
            return Ok(None);
        }
        let index = &self.inner.index;
        let Some(record) = index.blob(digest)? else { return Ok(None) };
        if !index.replace_blob(digest, &record, None)? {
            return Ok(None);
        }
        self.inner.open_files.close(digest);
        Ok(Some(Removed { digest: digest.clone(), size: record.size }))
    }

    /// Removes the file of a blob without an entry. It is no use to wait for whoever commits it just now: then it is
    /// theirs, or is looked at again with the next removal.
    fn unlink(&self, digest: &Digest) -> Result<(), StoreError> {
        let inner = &self.inner;
        let _alone = inner.adopting.lock(digest);
        // No sweep enters the file while it goes.
        let _commits = inner.commits.read().unwrap_or_else(PoisonError::into_inner);
        if inner.protections.contain(digest) {
            self.left().push(digest.clone());
            return Ok(());
        }
        if inner.index.blob(digest)?.is_some() {
            return Ok(());
        }
        if self.relied_on(digest)?.is_none() {
            inner.index.remove_notes_of(digest)?;
        }
        inner.files.disk().remove(&inner.files.blob(digest))?;
        // Somebody may have opened it between the two.
        inner.open_files.close(digest);
        inner.uses.forget(digest);
        Ok(())
    }

    /// Forgets that manifests list these, of which none is held and no manifest that is held lists any.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_listed(&self, children: &[Digest]) -> Result<(), StoreError> {
        for child in children {
            if self.inner.index.blob(child)?.is_none() && self.relied_on(child)?.is_none() {
                self.inner.index.remove_listed(child)?;
            }
        }
        Ok(())
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Vec<Digest>> {
        self.inner.unlinked.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::oci::{Registry, Repository};
    use crate::store::{Kept, Owner, Reading};

    fn hold() -> (tempfile::TempDir, Hold) {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        (folder, hold)
    }

    fn keep(hold: &Hold, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        hold.keep(bytes, &digest, clock::now()).unwrap();
        digest
    }

    #[test]
    fn what_is_only_cache_goes_with_its_file_and_its_notes() {
        let (_folder, hold) = hold();
        let digest = keep(&hold, b"cache");
        let repository = Repository::new(Registry::docker_hub(), "nginx").unwrap();
        hold.note_source(&digest, &repository).unwrap();
        let Reading::Open(open) = hold.read(&digest).unwrap() else { panic!("not held") };
        let removed = hold.remove_cached(&[digest.clone(), Digest::of(b"never held")]).unwrap();
        assert_eq!(removed, [Removed { digest: digest.clone(), size: 5 }]);
        assert!(!hold.path_of(&digest).exists());
        assert!(matches!(hold.read(&digest).unwrap(), Reading::No));
        assert!(!hold.seen_in(&digest, &repository).unwrap());
        assert_eq!(open.read_at(0, 9).unwrap(), "cache");
        // It may come back.
        assert!(matches!(hold.keep(b"cache", &digest, clock::now()).unwrap(), Kept::New(_)));
    }

    #[test]
    fn what_is_adopted_or_protected_stays() {
        let (_folder, hold) = hold();
        let (adopted, protected) = (keep(&hold, b"adopted"), keep(&hold, b"protected"));
        let system = Owner::new("system");
        hold.adopt(&system, &adopted, clock::now()).unwrap();
        let guard = hold.protect(&protected);
        let both = [adopted.clone(), protected.clone()];
        assert_eq!(hold.remove_cached(&both).unwrap(), []);
        assert!(both.iter().all(|digest| hold.path_of(digest).exists()));
        drop(guard);
        hold.release(&system, &adopted).unwrap();
        assert_eq!(hold.remove_cached(&both).unwrap().len(), 2);
    }

    /// Each round ends in one of two ways: adopted and there, or removed and not adopted.
    #[test]
    fn an_adoption_and_a_removal_at_the_same_time_leave_no_adopted_blob_without_its_file() {
        let (_folder, hold) = hold();
        let system = Owner::new("system");
        for round in 0_u32..200 {
            let digest = keep(&hold, &round.to_le_bytes());
            let start = std::sync::Barrier::new(3);
            let adopted = std::thread::scope(|scope| {
                let adopting = scope.spawn(|| {
                    start.wait();
                    hold.adopt(&system, &digest, clock::now()).unwrap().is_some()
                });
                scope.spawn(|| {
                    start.wait();
                    hold.remove_cached(std::slice::from_ref(&digest)).unwrap();
                });
                start.wait();
                adopting.join().unwrap()
            });
            assert_eq!(hold.adopted(&system, &digest).unwrap().is_some(), adopted, "round {round}");
            assert_eq!(hold.path_of(&digest).exists(), adopted, "round {round}");
        }
    }

    #[test]
    fn a_commit_and_a_removal_at_the_same_time_leave_the_entry_and_the_file_or_neither() {
        let (_folder, hold) = hold();
        for round in 0_u32..200 {
            let digest = keep(&hold, &round.to_le_bytes());
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    hold.keep(&round.to_le_bytes(), &digest, clock::now()).unwrap();
                });
                start.wait();
                hold.remove_cached(std::slice::from_ref(&digest)).unwrap();
            });
            let held = hold.blob(&digest).unwrap().is_some();
            assert_eq!(hold.path_of(&digest).exists(), held, "round {round}");
            assert_eq!(matches!(hold.read(&digest).unwrap(), Reading::Open(_)), held, "round {round}");
        }
    }
}
