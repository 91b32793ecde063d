//! The index: the one file that knows which database keeps it.
//!
//! Keys join their parts with a zero byte, which no name or digest can hold, so that the parts of one thing stand
//! together and a prefix finds them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use sled::{Db, Tree};

use super::records::{AdoptionRecord, BlobRecord, IngestRecord, TagRecord};
use super::{Blob, StoreError};
use crate::oci::Digest;

/// How much of the index the database keeps in memory, in bytes.
const CACHE_BYTES: u64 = 64 << 20;

pub(super) struct Index {
    path: PathBuf,
    db: Db,
    blobs: Tree,
    adoptions: Tree,
    tags: Tree,
    sources: Tree,
    ingests: Tree,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| wrapped(path, source);
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open().map_err(failed)?;
        let tree = |name: &str| db.open_tree(name).map_err(|source| wrapped(path, source));
        Ok(Self {
            path: path.to_owned(),
            blobs: tree("blobs")?,
            adoptions: tree("adoptions")?,
            tags: tree("tags")?,
            sources: tree("sources")?,
            ingests: tree("ingests")?,
            db,
        })
    }

    /// Whether the database was made just now: there was none, or it was lost.
    pub(super) fn is_new(&self) -> bool {
        !self.db.was_recovered()
    }

    /// A number that was never given out before, restarts included.
    pub(super) fn next_number(&self) -> Result<u64, StoreError> {
        self.db.generate_id().map_err(|source| wrapped(&self.path, source))
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map(drop).map_err(|source| wrapped(&self.path, source))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let record: Option<BlobRecord> = self.find(&self.blobs, digest.as_str().as_bytes())?;
        Ok(record.map(|record| Blob {
            digest: digest.clone(),
            size: record.size,
            committed_at: record.committed_at.into(),
        }))
    }

    /// Enters a blob whose file is durable, and waits until the entry is too.
    pub(super) fn insert_blob(&self, blob: &Blob) -> Result<(), StoreError> {
        let record = BlobRecord { size: blob.size, committed_at: blob.committed_at.into() };
        self.put(&self.blobs, blob.digest.as_str().as_bytes(), &record)?;
        self.flush()
    }

    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.remove(&self.blobs, digest.as_str().as_bytes())
    }

    /// The digests of all blobs, in order.
    pub(super) fn blobs(&self) -> impl Iterator<Item = Result<Digest, StoreError>> + '_ {
        self.blobs.iter().keys().map(|key| {
            let key = key.map_err(|source| wrapped(&self.path, source))?;
            parsed_digest(&key)
        })
    }

    pub(super) fn adoption(
        &self,
        owner: &str,
        digest: &Digest,
    ) -> Result<Option<AdoptionRecord>, StoreError> {
        self.find(&self.adoptions, &key([owner, digest.as_str()]))
    }

    /// Writes an adoption down; it is durable after the next [flush](Self::flush).
    pub(super) fn put_adoption(
        &self,
        owner: &str,
        digest: &Digest,
        record: &AdoptionRecord,
    ) -> Result<(), StoreError> {
        self.put(&self.adoptions, &key([owner, digest.as_str()]), record)
    }

    /// Answers whether there was one.
    pub(super) fn remove_adoption(&self, owner: &str, digest: &Digest) -> Result<bool, StoreError> {
        let removed = self.adoptions.remove(key([owner, digest.as_str()]));
        removed.map(|old| old.is_some()).map_err(|source| wrapped(&self.path, source))
    }

    /// An owner's adoptions after a digest, in the order of their digests. A walk that stops and goes on by
    /// digest bears deletes in between.
    pub(super) fn adoptions_after(
        &self,
        owner: &str,
        after: Option<&Digest>,
    ) -> impl Iterator<Item = Result<(Digest, AdoptionRecord), StoreError>> + '_ {
        let prefix = key([owner, ""]);
        let start = match after {
            Some(digest) => std::ops::Bound::Excluded(key([owner, digest.as_str()])),
            None => std::ops::Bound::Included(prefix.clone()),
        };
        let prefix_len = prefix.len();
        self.adoptions
            .range((start, std::ops::Bound::Unbounded))
            .map(|entry| entry.map_err(|source| wrapped(&self.path, source)))
            .take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
            .map(move |entry| {
                let (key, value) = entry?;
                let digest = parsed_digest(key.get(prefix_len..).unwrap_or_default())?;
                Ok((digest, decoded(&value, "an adoption")?))
            })
    }

    pub(super) fn tag(&self, repository: &str, tag: &str) -> Result<Option<TagRecord>, StoreError> {
        self.find(&self.tags, &key([repository, tag]))
    }

    pub(super) fn put_tag(&self, repository: &str, tag: &str, record: &TagRecord) -> Result<(), StoreError> {
        self.put(&self.tags, &key([repository, tag]), record)
    }

    pub(super) fn remove_tag(&self, repository: &str, tag: &str) -> Result<(), StoreError> {
        self.remove(&self.tags, &key([repository, tag]))
    }

    pub(super) fn has_source(&self, digest: &Digest, repository: &str) -> Result<bool, StoreError> {
        let found = self.sources.contains_key(key([digest.as_str(), repository]));
        found.map_err(|source| wrapped(&self.path, source))
    }

    pub(super) fn put_source(&self, digest: &Digest, repository: &str) -> Result<(), StoreError> {
        let put = self.sources.insert(key([digest.as_str(), repository]), &[]);
        put.map(drop).map_err(|source| wrapped(&self.path, source))
    }

    pub(super) fn put_ingest(
        &self,
        owner: &str,
        name: &str,
        record: &IngestRecord,
    ) -> Result<(), StoreError> {
        self.put(&self.ingests, &key([owner, name]), record)
    }

    pub(super) fn remove_ingest(&self, owner: &str, name: &str) -> Result<(), StoreError> {
        self.remove(&self.ingests, &key([owner, name]))
    }

    /// Every ingest as owner, ref and record.
    pub(super) fn ingests(&self) -> Result<Vec<(String, String, IngestRecord)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.ingests.iter() {
            let (key, value) = entry.map_err(|source| wrapped(&self.path, source))?;
            let key = String::from_utf8_lossy(&key).into_owned();
            let Some((owner, name)) = key.split_once('\0') else {
                return Err(StoreError::Damaged(format!("an ingest, {key:?}")));
            };
            found.push((owner.to_owned(), name.to_owned(), decoded(&value, "an ingest")?));
        }
        Ok(found)
    }

    fn find<R: Message + Default>(&self, tree: &Tree, key: &[u8]) -> Result<Option<R>, StoreError> {
        let found = tree.get(key).map_err(|source| wrapped(&self.path, source))?;
        found.map(|value| decoded(&value, &String::from_utf8_lossy(key))).transpose()
    }

    fn put(&self, tree: &Tree, key: &[u8], record: &impl Message) -> Result<(), StoreError> {
        tree.insert(key, record.encode_to_vec()).map(drop).map_err(|source| wrapped(&self.path, source))
    }

    fn remove(&self, tree: &Tree, key: &[u8]) -> Result<(), StoreError> {
        tree.remove(key).map(drop).map_err(|source| wrapped(&self.path, source))
    }
}

fn key<const N: usize>(parts: [&str; N]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

fn parsed_digest(text: &[u8]) -> Result<Digest, StoreError> {
    let text = String::from_utf8_lossy(text);
    text.parse().map_err(|_| StoreError::Damaged(format!("a digest, {text:?}")))
}

fn decoded<R: Message + Default>(value: &[u8], what: &str) -> Result<R, StoreError> {
    R::decode(value).map_err(|_| StoreError::Damaged(what.replace('\0', " ")))
}

fn wrapped(path: &Path, source: sled::Error) -> StoreError {
    StoreError::Index { path: path.to_owned(), source: Arc::new(source) }
}
