//! What tags pointed at when they were last asked about.

use std::time::SystemTime;

use super::records::TagRecord;
use super::{Hold, StoreError};
use crate::oci::{Digest, Repository, Tag};

/// A tag as it was last confirmed by its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEntry {
    /// The manifest that it pointed at.
    pub digest: Digest,
    /// When the registry said so.
    pub confirmed_at: SystemTime,
}

impl Hold {
    /// What a tag pointed at, if it was ever asked about.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagEntry>, StoreError> {
        let Some(record) = self.inner.index.tag(&repository.to_string(), tag.as_str())? else {
            return Ok(None);
        };
        let digest = record
            .digest
            .parse()
            .map_err(|_| StoreError::Damaged(format!("the record of the tag {repository}:{tag}")))?;
        Ok(Some(TagEntry { digest, confirmed_at: record.confirmed_at.into() }))
    }

    /// Points a tag at a manifest, or confirms that it still does. Durable within a tenth of a second: a tag that a
    /// crash sets back is asked about again.
    ///
    /// # Errors
    /// When the index fails.
    pub fn point_tag(&self, repository: &Repository, tag: &Tag, entry: &TagEntry) -> Result<(), StoreError> {
        let record = TagRecord { digest: entry.digest.to_string(), confirmed_at: entry.confirmed_at.into() };
        self.inner.index.put_tag(&repository.to_string(), tag.as_str(), &record)
    }

    /// Forgets a tag that its registry no longer has.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        self.inner.index.remove_tag(&repository.to_string(), tag.as_str())
    }
}
