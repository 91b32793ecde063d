//! The entries that keeping and evicting go by: uses, pins, what belongs to a blob, and the counters over all of them.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prost::Message;

use super::super::StoreError;
use super::super::records::{AdoptionRecord, PinRecord, TagRecord, Time, UseRecord};
use super::super::usage::{Held, Usage};
use super::{Index, Table, decoded, key, parsed_digest, wrapped};
use crate::oci::{Algorithm, Digest};

/// An entry of the hold as a whole.
const COUNTS: &[u8] = b"counts";

impl Index {
    pub(in crate::store) fn used_at(&self, digest: &Digest) -> Result<Option<Time>, StoreError> {
        let found: Option<UseRecord> = self.find(&self.uses, digest.as_str().as_bytes())?;
        Ok(found.map(|record| record.used_at))
    }

    pub(in crate::store) fn put_use(&self, digest: &Digest, used_at: Time) -> Result<(), StoreError> {
        self.put(&self.uses, digest.as_str().as_bytes(), &UseRecord { used_at })
    }

    /// Every pin as repository and reference, in order.
    pub(in crate::store) fn pins(&self) -> Result<Vec<(String, String, PinRecord)>, StoreError> {
        self.named(&self.pins, "a pin").collect()
    }

    pub(in crate::store) fn pin(
        &self,
        repository: &str,
        name: &str,
    ) -> Result<Option<PinRecord>, StoreError> {
        self.find(&self.pins, &key([repository, name]))
    }

    pub(in crate::store) fn put_pin(
        &self,
        repository: &str,
        name: &str,
        record: &PinRecord,
    ) -> Result<(), StoreError> {
        self.put(&self.pins, &key([repository, name]), record)
    }

    pub(in crate::store) fn remove_pin(&self, repository: &str, name: &str) -> Result<(), StoreError> {
        self.remove(&self.pins, &key([repository, name]))
    }

    /// Every tag as repository, name and record, in order.
    pub(in crate::store) fn tags(
        &self,
    ) -> impl Iterator<Item = Result<(String, String, TagRecord), StoreError>> + '_ {
        self.named(&self.tags, "a tag")
    }

    fn named<'a, R: Message + Default>(
        &'a self,
        table: &'a Table,
        what: &'static str,
    ) -> impl Iterator<Item = Result<(String, String, R), StoreError>> + 'a {
        table.tree.iter().map(move |entry| {
            let (key, value) = entry.map_err(|source| wrapped(&self.path, source))?;
            let key = String::from_utf8_lossy(&key).into_owned();
            let Some((first, second)) = key.split_once('\0') else {
                return Err(StoreError::Damaged(format!("the record of {what}, {key:?}")));
            };
            Ok((first.to_owned(), second.to_owned(), decoded(&value, what)?))
        })
    }

    pub(in crate::store) fn remove_source(
        &self,
        digest: &Digest,
        repository: &str,
    ) -> Result<(), StoreError> {
        self.remove(&self.sources, &key([digest.as_str(), repository]))
    }

    /// Removes what was noted beside a blob that is no longer held.
    pub(in crate::store) fn remove_notes_of(&self, digest: &Digest) -> Result<(), StoreError> {
        self.remove_where_it_is(&self.uses, digest.as_str().as_bytes())?;
        for repository in self.sources(digest)? {
            self.remove_source(digest, &repository)?;
        }
        Ok(())
    }

    pub(in crate::store) fn remove_listed(&self, child: &Digest) -> Result<(), StoreError> {
        self.remove_where_it_is(&self.listed, child.as_str().as_bytes())
    }

    fn remove_where_it_is(&self, table: &Table, key: &[u8]) -> Result<(), StoreError> {
        match table.tree.contains_key(key).map_err(|source| wrapped(&self.path, source))? {
            true => self.remove(table, key),
            false => Ok(()),
        }
    }

    /// The containerds that have adopted a blob, with its length in bytes.
    pub(in crate::store) fn adopters(&self, digest: &Digest) -> Result<Vec<(String, u64)>, StoreError> {
        let mut adopters = Vec::new();
        for owner in self.owners()? {
            if let Some(record) = self.adoption(&owner, digest)? {
                adopters.push((owner, record.size));
            }
        }
        Ok(adopters)
    }

    /// Makes a change that concerns one blob and counts what it changed.
    pub(super) fn counted<T>(
        &self,
        digest: &Digest,
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let counting = self.counting.read().unwrap_or_else(PoisonError::into_inner);
        if counting.swap(false, Ordering::AcqRel) {
            // They are no longer what was written.
            self.remove(&self.state, COUNTS)?;
        }
        let mut count = self.counters.of(digest);
        let Some(count) = count.as_mut() else {
            // The count that is made later will find it.
            return change();
        };
        let before = self.standing_of(digest)?;
        let changed = change()?;
        count.replace(&before, &self.standing_of(digest)?);
        Ok(changed)
    }

    fn standing_of(&self, digest: &Digest) -> Result<Held, StoreError> {
        let size = self.blob(digest)?.map(|record| record.size);
        Ok(Held { size, adopters: self.adopters(digest)? })
    }

    /// Counts a group where that has not been done.
    pub(in crate::store) fn count_once(&self, group: u8) -> Result<(), StoreError> {
        let counted = self.counters.group(group).is_some();
        if counted { Ok(()) } else { self.count(group) }
    }

    /// Writes the counters down; what changes them afterwards removes that again.
    pub(in crate::store) fn put_counts(&self) -> Result<(), StoreError> {
        let counting = self.counting.write().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = self.counters.record() else { return Ok(()) };
        self.put(&self.state, COUNTS, &record)?;
        counting.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the counters up that the last stop wrote down. A crash after this leaves none.
    pub(in crate::store) fn take_counts(&self) -> Result<(), StoreError> {
        if let Some(record) = self.find(&self.state, COUNTS)? {
            self.counters.restore(&record);
            self.remove(&self.state, COUNTS)?;
        }
        Ok(())
    }

    /// Counts the blobs of one of the 256 groups. Nobody changes any of them meanwhile.
    pub(in crate::store) fn count(&self, group: u8) -> Result<(), StoreError> {
        let mut count = self.counters.group(group);
        let mut made = super::super::usage::Count::default();
        self.each_of(group, |_, held| {
            made.replace(&Held::default(), held);
            Ok(())
        })?;
        *count = Some(made);
        Ok(())
    }

    /// Every blob of a group that is held or relied on, and when it was committed and used last.
    pub(in crate::store) fn each_of(
        &self,
        group: u8,
        mut see: impl FnMut(&Digest, &Held) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for algorithm in Algorithm::ALL {
            let begin = format!("{}:{group:02x}", algorithm.name());
            let mut adopted = std::collections::BTreeMap::<Digest, Vec<(String, u64)>>::new();
            for owner in self.owners()? {
                let prefix = key([&owner, &begin]);
                for entry in self.adoptions.tree.scan_prefix(&prefix) {
                    let (key, value) = entry.map_err(|source| wrapped(&self.path, source))?;
                    let record: AdoptionRecord = decoded(&value, "an adoption")?;
                    let digest = parsed_digest(key.get(owner.len() + 1..).unwrap_or_default())?;
                    adopted.entry(digest).or_default().push((owner.clone(), record.size));
                }
            }
            for entry in self.blobs_like(&begin) {
                let (digest, record) = entry?;
                let adopters = adopted.remove(&digest).unwrap_or_default();
                see(&digest, &Held { size: Some(record.size), adopters })?;
            }
            for (digest, adopters) in adopted {
                see(&digest, &Held { size: None, adopters })?;
            }
        }
        Ok(())
    }

    /// What is held, as far as it has been counted.
    pub(in crate::store) fn usage(&self) -> Usage {
        self.counters.sum()
    }
}
