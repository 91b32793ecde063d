//! Which blobs which containerd relies on.
//!
//! A blob is *adopted* by a containerd from the moment that we told it that we have it, or took it from it, until
//! that containerd deletes it. Everything else is *cached*: ours to drop, and none of its business.
//!
//! Invariant: an adoption is its mark, an empty file of its own, durable before anybody is answered. What the index
//! has of it is for looking up and listing, and adds labels and times; where the two differ, the mark is right.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::records::{AdoptionRecord, Time};
use super::{Blob, Hold, StoreError};
use crate::oci::Digest;

/// A containerd on this node, by the name of its listener in the configuration.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// The name stands in file and index keys; the configuration lets only letters, digits and `-` through.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An adopted blob, as the containerd that relies on it sees it.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The blob itself.
    pub blob: Blob,
    /// When its labels were last changed, or when it was adopted.
    pub updated_at: SystemTime,
    /// The labels that this containerd gave it.
    pub labels: HashMap<String, String>,
}

impl Hold {
    /// Adopts a blob that is held: it stays until the owner releases it. What the owner has adopted before is
    /// answered even while it is lost. Durable before the answer. *Blocking.*
    ///
    /// # Errors
    /// When the disk or the index fails.
    pub fn adopt(
        &self,
        owner: &Owner,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<Adopted>, StoreError> {
        let _alone = self.inner.adopting.lock(digest);
        let record = self.adopted_record(owner, digest, now)?;
        Ok(record.map(|record| Adopted::new(digest.clone(), record)))
    }

    /// What [`Hold::adopt`] would answer for a blob that is adopted already: no waiting for the disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn adopted(&self, owner: &Owner, digest: &Digest) -> Result<Option<Adopted>, StoreError> {
        let record = self.inner.index.adoption(owner.as_str(), digest)?;
        Ok(record.map(|record| Adopted::new(digest.clone(), record)))
    }

    /// Adopts blobs, many with one wait for the disk. Answers with those that are not held any more. *Blocking.*
    pub(super) fn adopt_all(
        &self,
        owner: &Owner,
        blobs: &[&Blob],
        now: SystemTime,
    ) -> Result<HashSet<Digest>, StoreError> {
        let _alone = self.inner.adopting.lock_all();
        let (mut new, mut gone) = (Vec::new(), HashSet::new());
        for blob in blobs {
            if self.blob(&blob.digest)?.is_none() {
                gone.insert(blob.digest.clone());
            } else if self.inner.index.adoption(owner.as_str(), &blob.digest)?.is_none() {
                new.push(*blob);
            }
        }
        if new.is_empty() {
            return Ok(gone);
        }
        self.inner.files.mark_all(owner.as_str(), &new)?;
        for blob in new {
            let record = AdoptionRecord::new(blob.size, blob.committed_at.into(), now.into());
            self.inner.index.put_adoption(owner.as_str(), &blob.digest, &record)?;
        }
        Ok(gone)
    }

    /// Changes the labels of an adopted blob, adopting it where it is not yet. `None` where it is not held.
    /// *Blocking.*
    ///
    /// # Errors
    /// When the disk or the index fails.
    pub fn relabel(
        &self,
        owner: &Owner,
        digest: &Digest,
        now: SystemTime,
        change: impl FnOnce(&mut HashMap<String, String>),
    ) -> Result<Option<Adopted>, StoreError> {
        let _alone = self.inner.adopting.lock(digest);
        let Some(mut record) = self.adopted_record(owner, digest, now)? else { return Ok(None) };
        change(&mut record.labels);
        record.updated_at = now.into();
        self.inner.index.put_adoption(owner.as_str(), digest, &record)?;
        self.inner.index.flush()?;
        Ok(Some(Adopted::new(digest.clone(), record)))
    }

    /// Ends an adoption; the blob stays, as cache. Answers whether there was one. A release that a crash undoes
    /// costs nothing: the containerd's next collection asks for it again.
    ///
    /// # Errors
    /// When the disk or the index fails.
    pub fn release(&self, owner: &Owner, digest: &Digest) -> Result<bool, StoreError> {
        let _alone = self.inner.adopting.lock(digest);
        let Some(record) = self.inner.index.adoption(owner.as_str(), digest)? else { return Ok(false) };
        self.inner.files.unmark(owner.as_str(), digest, record.size)?;
        self.inner.index.remove_adoption(owner.as_str(), digest)?;
        self.used(digest);
        Ok(true)
    }

    /// Up to `limit` of an owner's adopted blobs whose digests come after one, in order, lost ones too.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn adopted_after(
        &self,
        owner: &Owner,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Adopted>, StoreError> {
        let adoptions = self.inner.index.adoptions_after(owner.as_str(), after).take(limit);
        adoptions.map(|entry| entry.map(|(digest, record)| Adopted::new(digest, record))).collect()
    }

    /// The length in bytes of a blob that some containerd relies on, held or lost; `None` where none does.
    pub(super) fn relied_on(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.inner.index.adopters(digest)?.first().map(|(_, size)| *size))
    }

    /// The names of the containerds that rely on a blob.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn adopted_by(&self, digest: &Digest) -> Result<Vec<String>, StoreError> {
        Ok(self.inner.index.adopters(digest)?.into_iter().map(|(owner, _)| owner).collect())
    }

    /// The record of an adoption, made where there is none and the blob is held. The mark comes first.
    fn adopted_record(
        &self,
        owner: &Owner,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<AdoptionRecord>, StoreError> {
        let index = &self.inner.index;
        if let Some(record) = index.adoption(owner.as_str(), digest)? {
            return Ok(Some(record));
        }
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        self.inner.files.mark(owner.as_str(), digest, blob.size)?;
        let record = AdoptionRecord::new(blob.size, blob.committed_at.into(), now.into());
        index.put_adoption(owner.as_str(), digest, &record)?;
        Ok(Some(record))
    }
}

impl AdoptionRecord {
    pub(super) fn new(size: u64, committed_at: Time, now: Time) -> Self {
        Self { adopted_at: now, updated_at: now, labels: HashMap::new(), size, committed_at }
    }
}

impl Adopted {
    fn new(digest: Digest, record: AdoptionRecord) -> Self {
        let blob = Blob { digest, size: record.size, committed_at: record.committed_at.into() };
        Self { blob, updated_at: record.updated_at.into(), labels: record.labels }
    }
}

/// One lock for each of some groups of digests: who changes an adoption is alone with it, mark and record, and
/// seldom waits for somebody else's disk.
pub(super) struct Stripes([Mutex<()>; 64]);

impl Default for Stripes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Stripes {
    /// All of them, in their order: who has one waits for no other.
    fn lock_all(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(|group| group.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    pub(super) fn lock(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let group = digest.hex().bytes().take(4).fold(0, |sum, digit| sum * 31 + usize::from(digit));
        let [first, ..] = &self.0;
        self.0.get(group % self.0.len()).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}
