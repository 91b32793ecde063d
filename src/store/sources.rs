//! Where blobs come from: the repositories that have them, and the ones whose manifests list them.
//!
//! Two kinds of knowledge, and only the first is proof: a *source* has served the blob, or said that it has it, to us or to
//! a containerd that brought the blob along. What is *listed* was named by a manifest; it tells where to ask, and nothing
//! of who may have the answer.

use std::time::SystemTime;

use super::records::{ListedRecord, Time};
use super::{Hold, Owner, StoreError};
use crate::oci::{Child, Digest, Registry, Repository};

/// How many sources are looked at to count those of one repository: some tens of milliseconds.
const MOST_COUNTED: usize = 1 << 16;

/// How many blobs a repository is known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenIn {
    /// So many.
    Exactly(usize),
    /// So many among those that were looked at.
    AtLeast(usize),
}

/// As what a manifest lists a child, which decides the endpoint that it is fetched from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// A manifest of an index.
    Manifest,
    /// A config or a layer.
    Blob,
}

impl Hold {
    /// Notes that a repository has a blob: its registry served it or confirmed it there.
    ///
    /// # Errors
    /// When the index fails.
    pub fn note_source(&self, digest: &Digest, repository: &Repository) -> Result<(), StoreError> {
        self.inner.index.put_source(digest, &repository.to_string())
    }

    /// Notes that a repository has a blob, as a containerd that relies on the blob tells. Answers whether that is news: not
    /// where some repository is known to have it, this or another one, whose bytes these may be as well.
    ///
    /// # Errors
    /// When the index fails.
    pub fn note_told_source(
        &self,
        teller: &Owner,
        digest: &Digest,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        if self.adopted(teller, digest)?.is_none() || !self.sources(digest)?.is_empty() {
            return Ok(false);
        }
        self.note_source(digest, repository)?;
        Ok(true)
    }

    /// Forgets that a repository has a blob.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_source(&self, digest: &Digest, repository: &Repository) -> Result<(), StoreError> {
        self.inner.index.remove_source(digest, &repository.to_string())
    }

    /// Whether a repository is known to have a blob.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn seen_in(&self, digest: &Digest, repository: &Repository) -> Result<bool, StoreError> {
        self.inner.index.has_source(digest, &repository.to_string())
    }

    /// How many blobs a repository is known to have, of which not all need be held. Looks through sources, which may be
    /// very many, and so at no more than a bound.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn count_seen_in(&self, repository: &Repository) -> Result<SeenIn, StoreError> {
        self.count_seen_within(repository, MOST_COUNTED)
    }

    fn count_seen_within(&self, repository: &Repository, most: usize) -> Result<SeenIn, StoreError> {
        let (blobs, all) = self.inner.index.count_seen_in(&repository.to_string(), most)?;
        Ok(if all { SeenIn::Exactly(blobs) } else { SeenIn::AtLeast(blobs) })
    }

    /// Every repository that is known to have a blob, in the order of their names.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn sources(&self, digest: &Digest) -> Result<Vec<Repository>, StoreError> {
        self.inner.index.sources(digest)?.iter().map(|name| parsed(name)).collect()
    }

    /// Notes that a manifest in a repository lists a child. The latest such note is kept.
    ///
    /// # Errors
    /// When the index fails.
    pub fn note_listed(
        &self,
        child: &Child,
        repository: &Repository,
        kind: Listed,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let noted_at = Time::from(now);
        let newer = |old: ListedRecord| old.noted_at > noted_at;
        if self.inner.index.listed(&child.digest)?.is_some_and(newer) {
            return Ok(());
        }
        let manifest = match kind {
            Listed::Manifest => true,
            Listed::Blob => false,
        };
        let record =
            ListedRecord { repository: repository.to_string(), manifest, noted_at, size: child.size };
        self.inner.index.put_listed(&child.digest, &record)
    }

    /// How long a child is, in bytes, by the manifest that listed it last, if that was in this repository: another one's
    /// word counts for nothing here.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn listed_size(&self, child: &Digest, repository: &Repository) -> Result<Option<u64>, StoreError> {
        let record = self.inner.index.listed(child)?;
        let record = record.filter(|record| record.size > 0 && record.repository == repository.to_string());
        Ok(record.map(|record| record.size))
    }

    /// The repository of the manifest that listed a child last, and as what.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn listed(&self, child: &Digest) -> Result<Option<(Repository, Listed)>, StoreError> {
        let Some(record) = self.inner.index.listed(child)? else { return Ok(None) };
        let kind = if record.manifest { Listed::Manifest } else { Listed::Blob };
        Ok(Some((parsed(&record.repository)?, kind)))
    }
}

pub(super) fn parsed(name: &str) -> Result<Repository, StoreError> {
    let parse = || {
        let (registry, name) = name.split_once('/')?;
        Repository::new(registry.parse::<Registry>().ok()?, name).ok()
    };
    parse().ok_or_else(|| StoreError::Damaged(format!("the record of the repository {name:?}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn where_a_child_was_listed_last_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let of = |size| {
            let (digest, media_type) = (Digest::of(b"layer"), String::new());
            Child { digest, size, media_type, platform: None, has_urls: false }
        };
        let child = of(0).digest;
        let nginx = Repository::new(Registry::docker_hub(), "nginx").unwrap();
        let other = Repository::new("quay.io:5000".parse().unwrap(), "a/b/c").unwrap();
        let now = clock::now();
        assert!(hold.listed(&child).unwrap().is_none());
        hold.note_listed(&of(0), &nginx, Listed::Manifest, now).unwrap();
        assert_eq!(hold.listed_size(&child, &nginx).unwrap(), None);
        hold.note_listed(&of(5), &other, Listed::Blob, now + Duration::from_secs(1)).unwrap();
        hold.note_listed(&of(7), &nginx, Listed::Manifest, now).unwrap();
        let sizes = [&nginx, &other].map(|repository| hold.listed_size(&child, repository).unwrap());
        assert_eq!(sizes, [None, Some(5)]);
        assert_eq!(hold.listed(&child).unwrap(), Some((other, Listed::Blob)));
    }

    #[test]
    fn a_containerd_is_believed_of_what_it_relies_on_and_nobody_else_has() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let digest = Digest::of(b"layer");
        hold.keep(b"layer", &digest, clock::now()).unwrap();
        let (node, other) = (Owner::new("node"), Owner::new("other"));
        hold.adopt(&node, &digest, clock::now()).unwrap();
        let hub = |name: &str| Repository::new(Registry::docker_hub(), name).unwrap();
        let elsewhere = Repository::new("quay.io".parse().unwrap(), "a/b").unwrap();
        let tell = |teller: &Owner, repository: &Repository| {
            hold.note_told_source(teller, &digest, repository).unwrap()
        };
        assert!(!tell(&other, &hub("nginx")), "it does not rely on it");
        assert!(tell(&node, &hub("nginx")) && !tell(&node, &hub("nginx")), "once");
        assert!(!tell(&node, &hub("mine/nginx")), "another one of the same registry");
        assert!(!tell(&node, &elsewhere), "another registry's");
        assert_eq!(hold.sources(&digest).unwrap(), [hub("nginx")]);
    }

    #[test]
    fn the_sources_of_a_blob_are_told_apart_from_those_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let nginx = Repository::new(Registry::docker_hub(), "nginx").unwrap();
        let other = Repository::new("[::1]:5000".parse().unwrap(), "a").unwrap();
        let digest = Digest::of(b"layer");
        assert!(hold.sources(&digest).unwrap().is_empty());
        let seen_in = |repository| hold.count_seen_in(repository).unwrap();
        assert_eq!(seen_in(&nginx), SeenIn::Exactly(0));
        hold.note_source(&digest, &nginx).unwrap();
        hold.note_source(&digest, &other).unwrap();
        hold.note_source(&Digest::of(b"another"), &nginx).unwrap();
        let longer = Repository::new("r.docker.io".parse().unwrap(), "library/nginx").unwrap();
        assert_eq!([&nginx, &other, &longer].map(seen_in), [2, 1, 0].map(SeenIn::Exactly));
        // One digest, which two have, was looked at, or all three entries.
        let within = |most| hold.count_seen_within(&nginx, most).unwrap();
        assert_eq!(
            [within(0), within(3), within(4)],
            [SeenIn::AtLeast(0), SeenIn::Exactly(2), SeenIn::Exactly(2)]
        );
        assert!(matches!(within(2), SeenIn::AtLeast(1)));
        assert_eq!(hold.sources(&digest).unwrap(), [other, nginx]);
    }
}
