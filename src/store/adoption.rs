//! Which blobs which containerd relies on.
//!
//! A blob is *adopted* by a containerd from the moment that we told it that we have it, or took it from it, until
//! that containerd deletes it. Everything else is *cached*: ours to drop, and none of its business.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::records::AdoptionRecord;
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

    pub(super) fn as_str(&self) -> &str {
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
    /// Adopts a blob that is held: it stays until the owner releases it. Durable before the answer. *Blocking.*
    ///
    /// # Errors
    /// When the index fails.
    pub fn adopt(
        &self,
        owner: &Owner,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<Adopted>, StoreError> {
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        let index = &self.inner.index;
        if let Some(record) = index.adoption(owner.as_str(), digest)? {
            return Ok(Some(Adopted::new(blob, record)));
        }
        let record =
            AdoptionRecord { adopted_at: now.into(), updated_at: now.into(), labels: HashMap::new() };
        index.put_adoption(owner.as_str(), digest, &record)?;
        index.flush()?;
        Ok(Some(Adopted::new(blob, record)))
    }

    /// What [`Hold::adopt`] would answer for a blob that is adopted already: no waiting for the disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn adopted(&self, owner: &Owner, digest: &Digest) -> Result<Option<Adopted>, StoreError> {
        let Some(record) = self.inner.index.adoption(owner.as_str(), digest)? else { return Ok(None) };
        Ok(self.blob(digest)?.map(|blob| Adopted::new(blob, record)))
    }

    /// Changes the labels of an adopted blob, adopting it where it is not yet. `None` where it is not held.
    /// *Blocking.*
    ///
    /// # Errors
    /// When the index fails.
    pub fn relabel(
        &self,
        owner: &Owner,
        digest: &Digest,
        now: SystemTime,
        change: impl FnOnce(&mut HashMap<String, String>),
    ) -> Result<Option<Adopted>, StoreError> {
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        let index = &self.inner.index;
        let mut record = index.adoption(owner.as_str(), digest)?.unwrap_or_else(|| AdoptionRecord {
            adopted_at: now.into(),
            updated_at: now.into(),
            labels: HashMap::new(),
        });
        change(&mut record.labels);
        record.updated_at = now.into();
        index.put_adoption(owner.as_str(), digest, &record)?;
        index.flush()?;
        Ok(Some(Adopted::new(blob, record)))
    }

    /// Ends an adoption; the blob stays, as cache. Answers whether there was one. A release that a crash undoes
    /// costs nothing: the containerd's next collection asks for it again.
    ///
    /// # Errors
    /// When the index fails.
    pub fn release(&self, owner: &Owner, digest: &Digest) -> Result<bool, StoreError> {
        self.inner.index.remove_adoption(owner.as_str(), digest)
    }

    /// Up to `limit` of an owner's adopted blobs whose digests come after one, in order.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn adopted_after(
        &self,
        owner: &Owner,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Adopted>, StoreError> {
        let mut found = Vec::new();
        for entry in self.inner.index.adoptions_after(owner.as_str(), after) {
            let (digest, record) = entry?;
            if let Some(blob) = self.blob(&digest)? {
                found.push(Adopted::new(blob, record));
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }
}

impl Adopted {
    fn new(blob: Blob, record: AdoptionRecord) -> Self {
        Self { blob, updated_at: record.updated_at.into(), labels: record.labels }
    }
}
