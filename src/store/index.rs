//! The index: the one file that knows which database keeps it.
//!
//! Keys join their parts with a zero byte, which no name or digest can hold, so that the parts of one thing stand
//! together and a prefix finds them.

mod kept;

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use prost::Message;
use sled::{Db, Tree};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::disk::{Disk, Step};
use super::records::{
    AdoptionRecord, BlobRecord, ClosedRecord, IngestRecord, ListedRecord, ProofRecord, ReadersRecord,
    TagRecord,
};
use super::usage::Counters;
use crate::oci::Digest;

/// How long to wait for an earlier use of the database in this process to end, which its threads do in their own
/// time: often enough, and this long before each time. No other process can be in it, since the data folder is ours.
const LOCKED_TRIES: u32 = 10_000;
const LOCKED_PAUSE: Duration = Duration::from_micros(500);

/// How much of the index the database keeps in memory, in bytes; what it has read lately and where all of it stands
/// comes on top. What is not there is read from the page cache within some ten microseconds.
const CACHE_BYTES: u64 = 8 << 20;

/// The entries of the hold as a whole.
const COMPLETE: &[u8] = b"complete";
const CLOSED: &[u8] = b"closed";

/// How long an entry that nobody waits for may be in memory alone, in milliseconds: a kill -9 loses it.
const FLUSH_EVERY_MS: u64 = 100;

/// Without a [flush](Self::flush) a change is durable within a tenth of a second.
pub(super) struct Index {
    disk: Disk,
    path: PathBuf,
    /// Cancelled by the first write that fails.
    lost: CancellationToken,
    changes: AtomicU64,
    db: Db,
    blobs: Table,
    adoptions: Table,
    tags: Table,
    sources: Table,
    listed: Table,
    readers: Table,
    proofs: Table,
    ingests: Table,
    uses: Table,
    pins: Table,
    state: Table,
    counters: Counters,
    /// Held for reading by each change that is counted. Whether the counters are written down as they are.
    counting: RwLock<AtomicBool>,
}

struct Table {
    name: &'static str,
    tree: Tree,
}

impl Index {
    pub(super) fn open(path: &Path, disk: Disk) -> Result<Self, StoreError> {
        // The database would make it for all to read, and it tells what this node pulls.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        let closed = made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)));
        closed.map_err(StoreError::io("make the folder", path))?;
        let db = opened(path).map_err(|source| wrapped(path, source))?;
        let table = |name| {
            db.open_tree(name).map(|tree| Table { name, tree }).map_err(|source| wrapped(path, source))
        };
        Ok(Self {
            disk,
            path: path.to_owned(),
            lost: CancellationToken::new(),
            changes: AtomicU64::new(0),
            blobs: table("blobs")?,
            adoptions: table("adoptions")?,
            tags: table("tags")?,
            sources: table("sources")?,
            listed: table("listed")?,
            readers: table("readers")?,
            proofs: table("proofs")?,
            ingests: table("ingests")?,
            uses: table("uses")?,
            pins: table("pins")?,
            state: table("state")?,
            counters: Counters::default(),
            counting: RwLock::default(),
            db,
        })
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.change(Step::FlushIndex, || self.db.flush().map(drop))
    }

    /// Cancelled once something could not be written. The database keeps to its first such error until it is opened
    /// anew: from then on every write fails, whatever has become of the disk.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// How often it was changed since it was opened. What was read after this was asked holds for as long as the number
    /// stays: a change counts before whoever makes it goes on.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, StoreError> {
        self.find(&self.blobs, digest.as_str().as_bytes())
    }

    /// Enters a blob whose file is durable.
    pub(super) fn put_blob(&self, digest: &Digest, record: &BlobRecord) -> Result<(), StoreError> {
        self.counted(digest, || self.put(&self.blobs, digest.as_str().as_bytes(), record))
    }

    /// Changes or removes a blob's entry, unless somebody else did meanwhile: then it is left alone.
    pub(super) fn replace_blob(
        &self,
        digest: &Digest,
        old: &BlobRecord,
        new: Option<&BlobRecord>,
    ) -> Result<bool, StoreError> {
        let key = digest.as_str().as_bytes();
        let new = new.map(Message::encode_to_vec);
        let step = Step::Index { tree: self.blobs.name, key, value: new.as_deref() };
        let swap = || self.blobs.tree.compare_and_swap(key, Some(old.encode_to_vec()), new.clone());
        self.counted(digest, || self.change(step, swap).map(|swapped| swapped.is_ok()))
    }

    /// The folders that its blobs would stand in, as [`Files::shards`](super::files::Files::shards) names them.
    pub(super) fn shards(&self) -> Result<Vec<String>, StoreError> {
        let mut shards = Vec::new();
        let mut next = self.blobs.tree.first();
        while let Some((key, _)) = next.map_err(|source| wrapped(&self.path, source))? {
            let digest = parsed_digest(&key)?;
            let (algorithm, first) = (digest.algorithm().name(), digest.hex().get(..2).unwrap_or_default());
            shards.push(format!("{algorithm}/{first}"));
            // No digit of a digest comes after this one.
            next = self.blobs.tree.get_gt(format!("{algorithm}:{first}g"));
        }
        Ok(shards)
    }

    /// The blobs whose digests, as text, begin like this, in order.
    pub(super) fn blobs_like(
        &self,
        begin: &str,
    ) -> impl Iterator<Item = Result<(Digest, BlobRecord), StoreError>> + '_ {
        self.blobs.tree.scan_prefix(begin).map(|entry| {
            let (key, value) = entry.map_err(|source| wrapped(&self.path, source))?;
            Ok((parsed_digest(&key)?, decoded(&value, "a blob")?))
        })
    }

    pub(super) fn adoption(
        &self,
        owner: &str,
        digest: &Digest,
    ) -> Result<Option<AdoptionRecord>, StoreError> {
        self.find(&self.adoptions, &key([owner, digest.as_str()]))
    }

    pub(super) fn put_adoption(
        &self,
        owner: &str,
        digest: &Digest,
        record: &AdoptionRecord,
    ) -> Result<(), StoreError> {
        self.counted(digest, || self.put(&self.adoptions, &key([owner, digest.as_str()]), record))
    }

    pub(super) fn remove_adoption(&self, owner: &str, digest: &Digest) -> Result<(), StoreError> {
        self.counted(digest, || self.remove(&self.adoptions, &key([owner, digest.as_str()])))
    }

    /// Every containerd that has adopted something, in order.
    pub(super) fn owners(&self) -> Result<Vec<String>, StoreError> {
        let mut owners = Vec::new();
        let mut next = self.adoptions.tree.first();
        while let Some((key, _)) = next.map_err(|source| wrapped(&self.path, source))? {
            let owner = key.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            // The next owner's keys are the first ones after all that begin with this one and a zero.
            next = self.adoptions.tree.get_gt([owner.as_slice(), &[1]].concat());
            owners.push(String::from_utf8_lossy(&owner).into_owned());
        }
        Ok(owners)
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
            .tree
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

    pub(super) fn count_tags(&self) -> u64 {
        self.tags.tree.len() as u64
    }

    pub(super) fn put_tag(&self, repository: &str, tag: &str, record: &TagRecord) -> Result<(), StoreError> {
        self.put(&self.tags, &key([repository, tag]), record)
    }

    pub(super) fn remove_tag(&self, repository: &str, tag: &str) -> Result<(), StoreError> {
        self.remove(&self.tags, &key([repository, tag]))
    }

    pub(super) fn has_source(&self, digest: &Digest, repository: &str) -> Result<bool, StoreError> {
        let found = self.sources.tree.contains_key(key([digest.as_str(), repository]));
        found.map_err(|source| wrapped(&self.path, source))
    }

    pub(super) fn put_source(&self, digest: &Digest, repository: &str) -> Result<(), StoreError> {
        self.put_bytes(&self.sources, &key([digest.as_str(), repository]), Vec::new())
    }

    /// The repositories that a digest was seen in.
    pub(super) fn sources(&self, digest: &Digest) -> Result<Vec<String>, StoreError> {
        let prefix = key([digest.as_str(), ""]);
        let keys = self.sources.tree.scan_prefix(&prefix).keys();
        keys.map(|key| {
            let key = key.map_err(|source| wrapped(&self.path, source))?;
            Ok(String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned())
        })
        .collect()
    }

    /// How many digests were seen in a repository, as far as so many that were seen anywhere tell, and whether these were all.
    pub(super) fn count_seen_in(&self, repository: &str, most: usize) -> Result<(usize, bool), StoreError> {
        let end = key(["", repository]);
        let mut keys = self.sources.tree.iter().keys();
        let mut count = 0;
        for key in keys.by_ref().take(most) {
            count += usize::from(key.map_err(|source| wrapped(&self.path, source))?.ends_with(&end));
        }
        Ok((count, keys.next().is_none()))
    }

    pub(super) fn listed(&self, child: &Digest) -> Result<Option<ListedRecord>, StoreError> {
        self.find(&self.listed, child.as_str().as_bytes())
    }

    pub(super) fn put_listed(&self, child: &Digest, record: &ListedRecord) -> Result<(), StoreError> {
        self.put(&self.listed, child.as_str().as_bytes(), record)
    }

    pub(super) fn readers(&self, repository: &str) -> Result<Option<ReadersRecord>, StoreError> {
        self.find(&self.readers, repository.as_bytes())
    }

    pub(super) fn put_readers(&self, repository: &str, record: &ReadersRecord) -> Result<(), StoreError> {
        self.put(&self.readers, repository.as_bytes(), record)
    }

    pub(super) fn proof(&self, repository: &str, who: &str) -> Result<Option<ProofRecord>, StoreError> {
        self.find(&self.proofs, &key([repository, who]))
    }

    pub(super) fn put_proof(
        &self,
        repository: &str,
        who: &str,
        record: &ProofRecord,
    ) -> Result<(), StoreError> {
        self.put(&self.proofs, &key([repository, who]), record)
    }

    pub(super) fn remove_proof(&self, repository: &str, who: &str) -> Result<(), StoreError> {
        self.remove(&self.proofs, &key([repository, who]))
    }

    /// Removes the proofs that this picks, but for one reader's.
    pub(super) fn prune_proofs(
        &self,
        except: &str,
        picks: impl Fn(&ProofRecord) -> bool,
    ) -> Result<(), StoreError> {
        for entry in self.proofs.tree.iter() {
            let (key, value) = entry.map_err(|source| wrapped(&self.path, source))?;
            if !key.ends_with(except.as_bytes()) && picks(&decoded(&value, "a proof")?) {
                self.remove(&self.proofs, &key)?;
            }
        }
        Ok(())
    }

    /// Whether every blob that was there when this index was made has been entered.
    pub(super) fn is_complete(&self) -> Result<bool, StoreError> {
        self.state.tree.contains_key(COMPLETE).map_err(|source| wrapped(&self.path, source))
    }

    pub(super) fn set_complete(&self) -> Result<(), StoreError> {
        self.put_bytes(&self.state, COMPLETE, Vec::new())
    }

    /// How the hold was closed, if it was, and nothing of it was changed since.
    pub(super) fn closed(&self) -> Result<Option<ClosedRecord>, StoreError> {
        self.find(&self.state, CLOSED)
    }

    pub(super) fn put_closed(&self, record: &ClosedRecord) -> Result<(), StoreError> {
        self.put(&self.state, CLOSED, record)
    }

    pub(super) fn remove_closed(&self) -> Result<(), StoreError> {
        self.remove(&self.state, CLOSED)
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
        for entry in self.ingests.tree.iter() {
            let (key, value) = entry.map_err(|source| wrapped(&self.path, source))?;
            let key = String::from_utf8_lossy(&key).into_owned();
            let Some((owner, name)) = key.split_once('\0') else {
                return Err(StoreError::Damaged(format!("the record of an ingest, {key:?}")));
            };
            found.push((owner.to_owned(), name.to_owned(), decoded(&value, "an ingest")?));
        }
        Ok(found)
    }

    fn find<R: Message + Default>(&self, table: &Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        let found = table.tree.get(key).map_err(|source| wrapped(&self.path, source))?;
        found.map(|value| decoded(&value, &String::from_utf8_lossy(key))).transpose()
    }

    fn put(&self, table: &Table, key: &[u8], record: &impl Message) -> Result<(), StoreError> {
        self.put_bytes(table, key, record.encode_to_vec())
    }

    fn put_bytes(&self, table: &Table, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        let step = Step::Index { tree: table.name, key, value: Some(&value) };
        self.change(step, || table.tree.insert(key, value.as_slice()).map(drop))
    }

    fn remove(&self, table: &Table, key: &[u8]) -> Result<(), StoreError> {
        let step = Step::Index { tree: table.name, key, value: None };
        self.change(step, || table.tree.remove(key).map(drop))
    }

    fn change<T>(
        &self,
        step: Step<'_>,
        act: impl FnOnce() -> Result<T, sled::Error>,
    ) -> Result<T, StoreError> {
        let changed = self.disk.take(step, act);
        self.changes.fetch_add(1, Ordering::Release);
        changed.map_err(|source| {
            self.lost.cancel();
            wrapped(&self.path, source)
        })
    }
}

fn key<const N: usize>(parts: [&str; N]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

fn parsed_digest(text: &[u8]) -> Result<Digest, StoreError> {
    let text = String::from_utf8_lossy(text);
    text.parse().map_err(|_| StoreError::Damaged(format!("the record of a digest, {text:?}")))
}

fn decoded<R: Message + Default>(value: &[u8], what: &str) -> Result<R, StoreError> {
    R::decode(value).map_err(|_| StoreError::Damaged(format!("the record of {}", what.replace('\0', " "))))
}

fn opened(path: &Path) -> sled::Result<Db> {
    let config = || {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
        config.flush_every_ms(Some(FLUSH_EVERY_MS))
    };
    let locked = |error: &sled::Error| match error {
        sled::Error::Io(error) => error.to_string().contains("could not acquire lock"),
        sled::Error::Corruption { .. }
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_) => false,
    };
    for _ in 0..LOCKED_TRIES {
        match config().open() {
            Err(error) if locked(&error) => std::thread::sleep(LOCKED_PAUSE),
            outcome => return outcome,
        }
    }
    config().open()
}

/// Tells a database that is damaged from one that cannot be reached just now, by lack of space for instance.
fn wrapped(path: &Path, source: sled::Error) -> StoreError {
    use std::io::ErrorKind;
    let damaged = match &source {
        sled::Error::Io(error) => {
            matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
            )
        }
        sled::Error::Corruption { .. }
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_) => true,
    };
    if damaged {
        StoreError::Damaged(format!("the index in {}: {source}", path.display()))
    } else {
        StoreError::Index { path: path.to_owned(), source: Arc::new(source) }
    }
}

/// All entries, by the name of their tree and their key.
#[cfg(test)]
pub(super) type Entries = std::collections::BTreeMap<(String, Vec<u8>), Vec<u8>>;

#[cfg(test)]
impl Index {
    pub(super) fn dump(&self) -> Entries {
        let tables = [
            &self.blobs,
            &self.adoptions,
            &self.tags,
            &self.sources,
            &self.listed,
            &self.readers,
            &self.proofs,
            &self.ingests,
            &self.uses,
            &self.pins,
            &self.state,
        ];
        let of = |table: &Table| {
            let name = table.name.to_owned();
            table
                .tree
                .iter()
                .map(Result::unwrap)
                .map(move |(key, value)| ((name.clone(), key.to_vec()), value.to_vec()))
                .collect::<Vec<_>>()
        };
        tables.into_iter().flat_map(of).collect()
    }

    pub(super) fn fill(&self, entries: &Entries) {
        for ((tree, key), value) in entries {
            self.db.open_tree(tree).unwrap().insert(key, value.as_slice()).unwrap();
        }
    }
}
