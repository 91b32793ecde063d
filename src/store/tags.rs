//! What tags pointed at when they were last asked about, and before.

use std::time::SystemTime;

use super::records::TagRecord;
use super::sources::parsed;
use super::{Hold, StoreError};
use crate::oci::{Repository, Tag};

/// How many of a tag's former manifests are remembered.
const MOST_PAST: usize = 8;

/// A tag as it was last confirmed by its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEntry {
    /// The manifest that it pointed at.
    pub digest: crate::oci::Digest,
    /// When the registry said so.
    pub confirmed_at: SystemTime,
}

/// A tag that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTag {
    /// Where it is.
    pub repository: Repository,
    /// Its name there.
    pub tag: Tag,
    /// What it points at, then what it pointed at before.
    pub history: Vec<TagEntry>,
}

fn entries(record: &TagRecord, repository: &Repository, tag: &Tag) -> Result<Vec<TagEntry>, StoreError> {
    let entry = |record: &TagRecord| {
        let digest = record.digest.parse();
        let damaged = |_| StoreError::Damaged(format!("the record of the tag {repository}:{tag}"));
        Ok(TagEntry { digest: digest.map_err(damaged)?, confirmed_at: record.confirmed_at.into() })
    };
    std::iter::once(record).chain(&record.past).map(entry).collect()
}

impl Hold {
    /// What a tag pointed at, if it was ever asked about: the latest first, then what it pointed at before, each once.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Vec<TagEntry>, StoreError> {
        let Some(record) = self.inner.index.tag(&repository.to_string(), tag.as_str())? else {
            return Ok(Vec::new());
        };
        entries(&record, repository, tag)
    }

    /// How many tags are known.
    pub fn count_tags(&self) -> u64 {
        self.inner.index.count_tags()
    }

    /// Every tag that is known, in the order of repositories and tags.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn tags(&self) -> Result<Vec<HeldTag>, StoreError> {
        let tag = |entry: Result<(String, String, TagRecord), StoreError>| {
            let (repository, tag, record) = entry?;
            let repository = parsed(&repository)?;
            let damaged = |_| StoreError::Damaged(format!("the record of the tag {repository}:{tag}"));
            let tag = tag.parse().map_err(damaged)?;
            let history = entries(&record, &repository, &tag)?;
            Ok(HeldTag { repository, tag, history })
        };
        self.inner.index.tags().map(tag).collect()
    }

    /// Points a tag at a manifest, or confirms that it still does. Durable within a tenth of a second: a tag that a
    /// crash sets back is asked about again.
    ///
    /// # Errors
    /// When the index fails.
    pub fn point_tag(&self, repository: &Repository, tag: &Tag, entry: &TagEntry) -> Result<(), StoreError> {
        let index = &self.inner.index;
        let repository = repository.to_string();
        let digest = entry.digest.to_string();
        let mut past = Vec::new();
        if let Some(mut old) = index.tag(&repository, tag.as_str())? {
            past = std::mem::take(&mut old.past);
            past.insert(0, old);
            past.retain(|old| old.digest != digest);
            past.truncate(MOST_PAST);
        }
        let record = TagRecord { digest, confirmed_at: entry.confirmed_at.into(), past };
        index.put_tag(&repository, tag.as_str(), &record)
    }

    /// Forgets a tag that its registry no longer has.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        self.inner.index.remove_tag(&repository.to_string(), tag.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::oci::{Digest, Registry};

    #[test]
    fn a_tag_remembers_what_it_pointed_at_before() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let repository = Repository::new(Registry::docker_hub(), "nginx").unwrap();
        let tag = "latest".parse().unwrap();
        let start = clock::now();
        let mut seconds = 0;
        let mut point = |name: &str| {
            seconds += 1;
            let confirmed_at = start + Duration::from_secs(seconds);
            let entry = TagEntry { digest: Digest::of(name.as_bytes()), confirmed_at };
            hold.point_tag(&repository, &tag, &entry).unwrap();
        };
        let pointed_at = || -> Vec<Digest> {
            hold.tag(&repository, &tag).unwrap().into_iter().map(|entry| entry.digest).collect()
        };
        let digests = |names: &[&str]| -> Vec<Digest> {
            names.iter().map(|name| Digest::of(name.as_bytes())).collect()
        };
        assert_eq!(pointed_at(), []);
        ["a", "a", "b"].into_iter().for_each(&mut point);
        assert_eq!(pointed_at(), digests(&["b", "a"]));
        // A roll-back is no third manifest.
        point("a");
        assert_eq!(pointed_at(), digests(&["a", "b"]));
        let many: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        many.iter().for_each(|name| point(name));
        assert_eq!(pointed_at().len(), 1 + MOST_PAST);
        hold.forget_tag(&repository, &tag).unwrap();
        assert_eq!(pointed_at(), []);
    }
}
