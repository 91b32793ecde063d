//! How much is held, as counters that go along with every change, so that asking costs the same however much it is.
//!
//! There is a counter for each of 256 groups of digests. It is made from the index once, beside the daemon's work, and
//! followed from then on: whoever changes an entry has its group's counter to itself while it does. A clean stop writes
//! the counters down, and the next start takes them from there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::records::{AmountRecord, CountRecord, CountsRecord};
use super::{Hold, StoreError};
use crate::oci::Digest;

/// Blobs, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub blobs: u64,
    /// How large they are together.
    pub bytes: u64,
}

/// What the hold holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// What some containerd relies on, lost blobs too.
    pub adopted: Amount,
    /// What is held beside that.
    pub cached: Amount,
    /// What each containerd relies on, by its name.
    pub by_containerd: BTreeMap<String, Amount>,
    /// Whether all of it has been counted: shortly after a start it may not have been.
    pub complete: bool,
}

/// What there is of one blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Its length in bytes, where it is held.
    pub(super) size: Option<u64>,
    /// The containerds that rely on it, with its length in bytes.
    pub(super) adopters: Vec<(String, u64)>,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: u64) {
        self.blobs = self.blobs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn merge(&mut self, other: Self) {
        self.blobs += other.blobs;
        self.bytes += other.bytes;
    }
}

/// The counter of one group.
#[derive(Debug, Default)]
pub(super) struct Count {
    adopted: Amount,
    cached: Amount,
    by_containerd: BTreeMap<String, Amount>,
}

impl Count {
    /// That a blob is another way than it was.
    pub(super) fn replace(&mut self, before: &Held, after: &Held) {
        if before == after {
            return;
        }
        self.each(before, Amount::subtract);
        self.each(after, Amount::add);
        self.by_containerd.retain(|_, amount| *amount != Amount::default());
    }

    fn each(&mut self, held: &Held, change: impl Fn(&mut Amount, u64)) {
        match (held.adopters.first(), held.size) {
            (Some((_, size)), _) => change(&mut self.adopted, *size),
            (None, Some(size)) => change(&mut self.cached, size),
            (None, None) => {}
        }
        for (owner, size) in &held.adopters {
            change(self.by_containerd.entry(owner.clone()).or_default(), *size);
        }
    }
}

/// The counters of all groups; `None` where one has not been counted yet.
pub(super) struct Counters([Mutex<Option<Count>>; 256]);

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Counters {
    pub(super) fn of(&self, digest: &Digest) -> MutexGuard<'_, Option<Count>> {
        let first = digest.hex().get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        self.group(first.unwrap_or_default())
    }

    pub(super) fn group(&self, group: u8) -> MutexGuard<'_, Option<Count>> {
        let [first, ..] = &self.0;
        self.0.get(usize::from(group)).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sum(&self) -> Usage {
        let mut usage = Usage { complete: true, ..Usage::default() };
        for group in 0..=u8::MAX {
            match &*self.group(group) {
                Some(count) => {
                    usage.adopted.merge(count.adopted);
                    usage.cached.merge(count.cached);
                    for (owner, amount) in &count.by_containerd {
                        usage.by_containerd.entry(owner.clone()).or_default().merge(*amount);
                    }
                }
                None => usage.complete = false,
            }
        }
        usage
    }

    /// To be written down; nothing where not all has been counted.
    pub(super) fn record(&self) -> Option<CountsRecord> {
        let groups = (0..=u8::MAX).map(|group| self.group(group).as_ref().map(CountRecord::from));
        Some(CountsRecord { groups: groups.collect::<Option<_>>()? })
    }

    /// Takes up what was written down.
    pub(super) fn restore(&self, record: &CountsRecord) {
        if record.groups.len() == self.0.len() {
            for (group, record) in (0..=u8::MAX).zip(&record.groups) {
                *self.group(group) = Some(record.into());
            }
        }
    }
}

impl From<Amount> for AmountRecord {
    fn from(Amount { blobs, bytes }: Amount) -> Self {
        Self { blobs, bytes }
    }
}

impl From<AmountRecord> for Amount {
    fn from(AmountRecord { blobs, bytes }: AmountRecord) -> Self {
        Self { blobs, bytes }
    }
}

impl From<&Count> for CountRecord {
    fn from(count: &Count) -> Self {
        let by_containerd = count.by_containerd.iter();
        let by_containerd = by_containerd.map(|(owner, amount)| (owner.clone(), (*amount).into())).collect();
        Self { adopted: count.adopted.into(), cached: count.cached.into(), by_containerd }
    }
}

impl From<&CountRecord> for Count {
    fn from(record: &CountRecord) -> Self {
        let by_containerd = record.by_containerd.iter();
        let by_containerd = by_containerd.map(|(owner, amount)| (owner.clone(), (*amount).into())).collect();
        Self { adopted: record.adopted.into(), cached: record.cached.into(), by_containerd }
    }
}

impl Hold {
    /// Counts what is held, group by group, until this says no. From then on [`Hold::usage`] is right. *Blocking*, and
    /// for some seconds where there are a million blobs.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn count(&self, go_on: impl Fn() -> bool) -> Result<(), StoreError> {
        for group in 0..=u8::MAX {
            if !go_on() {
                break;
            }
            self.inner.index.count_once(group)?;
        }
        Ok(())
    }

    /// How much is held. Answers at once.
    pub fn usage(&self) -> Usage {
        self.inner.index.usage()
    }

    /// What is being written: files and bytes of downloads and of what containerds write, cut-off ones of theirs too.
    /// *Blocking.*
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ingesting(&self) -> Result<Amount, StoreError> {
        let mut amount = Amount::default();
        let files = self.inner.files.ingests()?.into_iter().chain(self.inner.files.left_downloads()?);
        for path in files {
            // One that ended meanwhile counts no more.
            if let Ok(metadata) = path.metadata() {
                amount.add(metadata.len());
            }
        }
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::store::Owner;

    fn amount(blobs: u64, bytes: u64) -> Amount {
        Amount { blobs, bytes }
    }

    #[test]
    fn the_counters_follow_commits_adoptions_releases_and_removals() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        assert!(!hold.usage().complete);
        let keep = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            hold.keep(bytes, &digest, clock::now()).unwrap();
            digest
        };
        let early = keep(b"kept before it was counted");
        hold.count(|| true).unwrap();
        let late = keep(b"kept after");
        keep(b"kept after");
        assert_eq!((hold.usage().cached, hold.usage().complete), (amount(2, 36), true));

        let [system, other] = ["system", "other"].map(Owner::new);
        for owner in [&system, &other, &system] {
            hold.adopt(owner, &early, clock::now()).unwrap();
        }
        let usage = hold.usage();
        assert_eq!((usage.adopted, usage.cached), (amount(1, 26), amount(1, 10)));
        assert_eq!(usage.by_containerd["other"], amount(1, 26));
        hold.release(&system, &early).unwrap();
        assert_eq!(hold.usage().adopted, amount(1, 26));
        hold.release(&other, &early).unwrap();
        hold.remove_cached(std::slice::from_ref(&late)).unwrap();
        let usage = hold.usage();
        assert_eq!((usage.adopted, usage.cached), (amount(0, 0), amount(1, 26)));

        // What was followed is what would be counted anew, and what is known after a restart.
        for group in 0..=u8::MAX {
            hold.inner.index.count(group).unwrap();
        }
        assert_eq!(hold.usage(), usage);
        hold.close(clock::now()).unwrap();
        drop(hold);
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        assert_eq!(hold.usage(), usage);
        // Neither a crash nor a change after the stop leaves any.
        drop(hold);
        {
            let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
            assert!(!hold.usage().complete);
            hold.count(|| true).unwrap();
            hold.close(clock::now()).unwrap();
            hold.keep(b"after the stop", &Digest::of(b"after the stop"), clock::now()).unwrap();
        }
        assert!(!Hold::open(folder.path(), clock::now()).unwrap().0.usage().complete);
    }
}
