//! What containerds are writing: one ingest for each containerd and ref, kept across closed streams and restarts.
//!
//! Invariant: at most one stream writes to a ref at a time, and a ref is free again the moment that stream lets
//! go of its [`Ingest`], whatever way it ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::draft::{CommitError, Draft};
use super::records::IngestRecord;
use super::{Hold, Kept, Owner, StoreError};
use crate::oci::Digest;

/// How long an asker waits for a ref whose last stream is just ending: a close sends nothing to wait for.
const RELEASE_GRACE: Duration = Duration::from_millis(10);

/// How many drafts stay open while nobody writes to them. The others' hashes are made again from their files.
const OPEN_PARKED: usize = 64;

/// How many ingests a containerd may have. It has one for each blob of the pulls under way, and those that broken
/// pulls left behind until it collects them: thousands mean that a client opens refs and goes away.
const MAX_INGESTS: usize = 10_000;

/// The longest ref, in bytes. containerd's have a namespace, a number and a digest or a name in them.
const MAX_REF_BYTES: usize = 4096;

/// The ingests of one containerd. Cheap to clone.
#[derive(Clone)]
pub struct Ingests {
    shared: Arc<Shared>,
}

struct Shared {
    hold: Hold,
    owner: Owner,
    slots: Mutex<HashMap<String, Slot>>,
    freed: Notify,
}

/// One ingest. Its number names its file, so that an ingest that was aborted under its writer can never be taken
/// for the next one of the same ref.
struct Slot {
    number: u64,
    status: IngestStatus,
    state: SlotState,
}

enum SlotState {
    /// Nobody writes. The draft is kept open where there is room for it; else it is made from the file.
    Parked(Option<Draft>),
    /// A stream writes.
    Busy,
}

/// What can be told of an ingest at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestStatus {
    /// When its first stream began.
    pub started_at: SystemTime,
    /// When it last took in bytes.
    pub updated_at: SystemTime,
    /// How many bytes it has.
    pub offset: u64,
    /// How many it is to have; 0 where nobody said.
    pub total: u64,
}

impl IngestStatus {
    fn record(&self, number: u64) -> IngestRecord {
        IngestRecord {
            started_at: self.started_at.into(),
            updated_at: self.updated_at.into(),
            total: self.total,
            number,
        }
    }
}

impl Ingests {
    /// The ingests of one containerd, those of earlier runs included. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn open(hold: &Hold, owner: Owner) -> Result<Self, StoreError> {
        let mut slots = HashMap::new();
        for (of, name, record) in hold.inner.index.ingests()? {
            if of == owner.as_str() {
                let path = hold.inner.files.ingest(&of, record.number);
                let inspected = std::fs::metadata(&path).and_then(|file| Ok((file.len(), file.modified()?)));
                let (offset, written_at) = inspected.map_err(StoreError::io("inspect", &path))?;
                let status = IngestStatus {
                    started_at: record.started_at.into(),
                    // No entry is written for each write: the file knows when the last one was.
                    updated_at: written_at.max(record.updated_at.into()),
                    offset,
                    total: record.total,
                };
                slots.insert(name, Slot { number: record.number, status, state: SlotState::Parked(None) });
            }
        }
        let shared = Shared { hold: hold.clone(), owner, slots: Mutex::new(slots), freed: Notify::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes a ref for writing, new or as it was left.
    ///
    /// # Errors
    /// When another stream has it, there are too many, or the disk refuses.
    pub async fn write(&self, name: &str, now: SystemTime) -> Result<Ingest, OpenIngestError> {
        if name.len() > MAX_REF_BYTES {
            return Err(OpenIngestError::TooLong { length: name.len() });
        }
        // Before its containerd fetches what it would write.
        self.shared.hold.takes_ingests()?;
        let grace = tokio::time::sleep(RELEASE_GRACE);
        tokio::pin!(grace);
        let claimed = loop {
            let freed = self.shared.freed.notified();
            if let Some(claimed) = self.shared.claim(name, now)? {
                break claimed;
            }
            tokio::select! {
                () = freed => {}
                () = &mut grace => return Err(OpenIngestError::Busy(name.to_owned())),
            }
        };
        super::blocking(move || claimed.open()).await.map_err(OpenIngestError::Store)
    }

    /// How far an ingest is.
    pub fn status(&self, name: &str) -> Option<IngestStatus> {
        self.shared.slots().get(name).map(|slot| slot.status.clone())
    }

    /// How far every ingest is, by its ref.
    pub fn statuses(&self) -> Vec<(String, IngestStatus)> {
        self.shared.slots().iter().map(|(name, slot)| (name.clone(), slot.status.clone())).collect()
    }

    /// Drops an ingest and its bytes. Answers whether there was one; one that a stream is writing to goes too,
    /// and the stream finds out at its commit. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn abort(&self, name: &str) -> Result<bool, StoreError> {
        self.shared.forget(name, None)
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a ref, or answers `None` where a stream has it.
    fn claim(self: &Arc<Self>, name: &str, now: SystemTime) -> Result<Option<Claimed>, OpenIngestError> {
        let mut slots = self.slots();
        let full = slots.len() >= MAX_INGESTS;
        let (status, number, kind) = match slots.get_mut(name) {
            Some(slot) => match std::mem::replace(&mut slot.state, SlotState::Busy) {
                SlotState::Busy => return Ok(None),
                SlotState::Parked(draft) => {
                    (slot.status.clone(), slot.number, draft.map_or(ClaimKind::Left, ClaimKind::Open))
                }
            },
            None if full => return Err(OpenIngestError::TooMany),
            None => {
                let status = IngestStatus { started_at: now, updated_at: now, offset: 0, total: 0 };
                let number = self.hold.inner.files.next_number();
                let slot = Slot { number, status: status.clone(), state: SlotState::Busy };
                slots.insert(name.to_owned(), slot);
                (status, number, ClaimKind::New)
            }
        };
        Ok(Some(Claimed { shared: Arc::clone(self), name: name.to_owned(), number, status, kind }))
    }

    /// Lets a ref go, unless it was aborted meanwhile.
    fn park(&self, name: &str, number: u64, status: &IngestStatus, draft: Option<Draft>) {
        let mut slots = self.slots();
        let open = slots.values().filter(|slot| matches!(slot.state, SlotState::Parked(Some(_)))).count();
        if let Some(slot) = slots.get_mut(name).filter(|slot| slot.number == number) {
            slot.status = status.clone();
            slot.state = SlotState::Parked(draft.filter(|_| open < OPEN_PARKED));
        }
        drop(slots);
        self.freed.notify_waiters();
    }

    /// Drops an ingest, only the one of that number where one is given, and answers whether it was there.
    fn forget(&self, name: &str, number: Option<u64>) -> Result<bool, StoreError> {
        let mut slots = self.slots();
        let there = slots.get(name).map(|slot| slot.number);
        let Some(there) = there.filter(|there| number.is_none_or(|number| number == *there)) else {
            return Ok(false);
        };
        slots.remove(name);
        // Before another stream can write an entry of the same name.
        let unlisted = self.hold.inner.index.remove_ingest(self.owner.as_str(), name);
        drop(slots);
        self.freed.notify_waiters();
        unlisted?;
        let files = &self.hold.inner.files;
        files.disk().remove(&files.ingest(self.owner.as_str(), there))?;
        Ok(true)
    }
}

/// A ref that was taken and whose file is not open yet.
struct Claimed {
    shared: Arc<Shared>,
    name: String,
    number: u64,
    status: IngestStatus,
    kind: ClaimKind,
}

enum ClaimKind {
    New,
    /// Its draft was kept open.
    Open(Draft),
    /// There is only its file.
    Left,
}

impl Claimed {
    fn open(self) -> Result<Ingest, StoreError> {
        let Self { shared, name, number, mut status, kind } = self;
        let path = shared.hold.inner.files.ingest(shared.owner.as_str(), number);
        let opened = match kind {
            ClaimKind::Open(mut draft) if draft.is_broken() => {
                status.offset = 0;
                draft.clear().map(|()| draft)
            }
            ClaimKind::Open(draft) => Ok(draft),
            ClaimKind::Left => Draft::resume(shared.hold.inner.files.disk(), path),
            ClaimKind::New => {
                let record = status.record(number);
                let create = || Draft::create(shared.hold.inner.files.disk(), path);
                shared
                    .hold
                    .inner
                    .index
                    .put_ingest(shared.owner.as_str(), &name, &record)
                    .and_then(|()| create())
            }
        };
        match opened {
            Ok(draft) => {
                let ingest = Ingest { shared, name, number, status, draft: Some(draft) };
                ingest.publish_status();
                Ok(ingest)
            }
            Err(error) => {
                shared.park(&name, number, &status, None);
                Err(error)
            }
        }
    }
}

/// An ingest that one stream has to itself. Dropping it frees the ref and keeps the bytes for whoever comes next.
pub struct Ingest {
    shared: Arc<Shared>,
    name: String,
    number: u64,
    status: IngestStatus,
    /// There until the ingest is committed, aborted or dropped.
    draft: Option<Draft>,
}

impl Ingest {
    /// The ref.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far it is.
    pub fn status(&self) -> &IngestStatus {
        &self.status
    }

    /// Shows another offset to whoever asks for its status: how far bytes have come that it need not be given.
    pub fn show_progress(&self, offset: u64) {
        self.publish(IngestStatus { offset, ..self.status.clone() });
    }

    /// The SHA-256 digest of what was written so far.
    pub fn digest(&self) -> Digest {
        self.draft.as_ref().map_or_else(|| Digest::of(b""), Draft::digest)
    }

    /// Says how many bytes it is to have, after a restart as well.
    ///
    /// # Errors
    /// When the index fails.
    pub fn expect_total(&mut self, total: u64) -> Result<(), StoreError> {
        if self.status.total == total {
            return Ok(());
        }
        self.status.total = total;
        let mut slots = self.shared.slots();
        // One that was aborted has no entry any more, and its ref may be another's.
        let Some(slot) = slots.get_mut(&self.name).filter(|slot| slot.number == self.number) else {
            return Ok(());
        };
        slot.status = self.status.clone();
        let (index, owner) = (&self.shared.hold.inner.index, self.shared.owner.as_str());
        index.put_ingest(owner, &self.name, &self.status.record(self.number))
    }

    /// Adds bytes at the end, and has all of them durable where these are the last that it is to have: the commit
    /// comes under its containerd's lock. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&mut self, bytes: &[u8], now: SystemTime) -> Result<(), StoreError> {
        if let Some(draft) = &mut self.draft {
            draft.write(bytes)?;
            self.status.offset = draft.offset();
            self.status.updated_at = now;
            if self.status.offset == self.status.total {
                draft.sync()?;
            }
        }
        self.publish_status();
        Ok(())
    }

    /// Drops everything written so far. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear(&mut self, now: SystemTime) -> Result<(), StoreError> {
        if let Some(draft) = &mut self.draft {
            draft.clear()?;
            self.status.offset = 0;
            self.status.updated_at = now;
        }
        self.publish_status();
        Ok(())
    }

    /// Makes it a blob that this containerd has adopted. *Blocking.*
    ///
    /// # Errors
    /// When it is not what was announced: then its bytes are kept and its ref is free. Or when the disk refuses.
    pub fn commit(mut self, announced: Announced, now: SystemTime) -> Result<Kept, CommitError> {
        let actual = self.status.offset;
        if let Some(expected) = announced.size.filter(|size| *size != actual) {
            return Err(CommitError::Size { expected, actual });
        }
        let digest = announced.digest.unwrap_or_else(|| self.digest());
        let Some(draft) = &self.draft else {
            return Err(CommitError::Size { expected: actual, actual: 0 });
        };
        let (hold, owner) = (&self.shared.hold, &self.shared.owner);
        // Until it is adopted it is cache like any other.
        let _protected = hold.protect(&digest);
        let kept = hold.commit(draft, &digest, now);
        let adopted = match &kept {
            // What exists already keeps the labels that it has.
            Ok(Kept::New(_)) if !announced.labels.is_empty() => {
                hold.relabel(owner, &digest, now, |labels| *labels = announced.labels).map(drop)
            }
            Ok(Kept::New(_) | Kept::Already(_)) => hold.adopt(owner, &digest, now).map(drop),
            // The file has become the blob's all the same: nobody may go on writing to it.
            Err(CommitError::Store(_)) if !draft.path().exists() => Ok(()),
            Err(_) => return kept,
        };
        self.draft = None;
        self.shared.forget(&self.name, Some(self.number))?;
        adopted?;
        kept
    }

    /// Drops the ingest and its bytes. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn abort(mut self) -> Result<(), StoreError> {
        self.draft = None;
        self.shared.forget(&self.name, Some(self.number)).map(drop)
    }

    fn publish_status(&self) {
        self.publish(self.status.clone());
    }

    fn publish(&self, status: IngestStatus) {
        if let Some(slot) = self.shared.slots().get_mut(&self.name).filter(|slot| slot.number == self.number)
        {
            slot.status = status;
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.shared.park(&self.name, self.number, &self.status, Some(draft));
        }
    }
}

/// What is said of a blob at its commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// How many bytes it has to have; any number where nobody said.
    pub size: Option<u64>,
    /// What it has to be; where nobody said, it becomes what its bytes are.
    pub digest: Option<Digest>,
    /// The labels that its containerd gives it.
    pub labels: HashMap<String, String>,
}

/// Why a ref cannot be written to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenIngestError {
    /// Another stream has it; it may be tried again.
    #[error("the ref {0:?} is being written by another stream")]
    Busy(String),
    /// It is longer than any that containerd makes.
    #[error("a ref of {length} bytes is too long: at most {MAX_REF_BYTES} are taken")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// This containerd has begun too many that it neither committed nor aborted.
    #[error("there are {MAX_INGESTS} ingests already: abort those that nobody needs")]
    TooMany,
    /// The disk or the index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn ingests() -> (tempfile::TempDir, Hold, Ingests) {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let ingests = Ingests::open(&hold, Owner::new("system")).unwrap();
        (folder, hold, ingests)
    }

    fn as_digest(bytes: &[u8]) -> Announced {
        Announced { digest: Some(Digest::of(bytes)), ..Announced::default() }
    }

    #[tokio::test]
    async fn a_ref_has_one_writer_and_is_free_when_it_lets_go() {
        let (_folder, _hold, ingests) = ingests();
        let first = ingests.write("layer", clock::now()).await.unwrap();
        assert!(matches!(ingests.write("layer", clock::now()).await, Err(OpenIngestError::Busy(_))));
        drop(first);
        assert!(ingests.write("layer", clock::now()).await.is_ok());
    }

    #[tokio::test]
    async fn an_asker_waits_for_a_ref_that_is_just_being_let_go() {
        let (_folder, _hold, ingests) = ingests();
        let first = ingests.write("layer", clock::now()).await.unwrap();
        let (second, ()) = tokio::join! {
            biased;
            ingests.write("layer", clock::now()),
            async { drop(first) },
        };
        assert!(second.is_ok());
    }

    #[tokio::test]
    async fn a_flood_of_refs_is_refused_and_those_that_are_there_go_on() {
        let (folder, _hold, ingests) = ingests();
        let long = "r".repeat(MAX_REF_BYTES + 1);
        assert!(matches!(ingests.write(&long, clock::now()).await, Err(OpenIngestError::TooLong { .. })));
        let status = IngestStatus { started_at: clock::now(), updated_at: clock::now(), offset: 0, total: 0 };
        for number in 0..MAX_INGESTS {
            let slot = Slot { number: 0, status: status.clone(), state: SlotState::Parked(None) };
            ingests.shared.slots().insert(number.to_string(), slot);
        }
        assert!(matches!(ingests.write("one more", clock::now()).await, Err(OpenIngestError::TooMany)));
        assert!(ingests.status("one more").is_none());
        assert!(!folder.path().join("ingest/containerd-system").exists());
        drop(ingests.write("7", clock::now()).await.unwrap());
        assert!(ingests.abort("7").unwrap());
        assert!(ingests.write("one more", clock::now()).await.is_ok());
    }

    #[tokio::test]
    async fn what_was_written_is_there_for_the_next_stream_and_after_a_restart() {
        let (folder, hold, ingests) = ingests();
        let mut first = ingests.write("layer", clock::now()).await.unwrap();
        first.expect_total(8).unwrap();
        first.write(b"tide", clock::now()).unwrap();
        drop(first);
        assert_eq!(ingests.write("layer", clock::now()).await.unwrap().status().offset, 4);
        drop((ingests, hold));

        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let ingests = Ingests::open(&hold, Owner::new("system")).unwrap();
        assert_eq!(ingests.status("layer").unwrap().total, 8);
        let mut second = ingests.write("layer", clock::now()).await.unwrap();
        assert_eq!(second.digest(), Digest::of(b"tide"));
        second.write(b"hold", clock::now()).unwrap();
        let kept = second.commit(as_digest(b"tidehold"), clock::now()).unwrap();
        let blob = kept.blob();
        assert_eq!(blob.size, 8);
        assert!(ingests.statuses().is_empty());
        assert!(hold.adopted(&Owner::new("system"), &blob.digest).unwrap().is_some());
        assert!(hold.adopted(&Owner::new("other"), &blob.digest).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_commit_that_does_not_match_keeps_the_bytes() {
        let (_folder, hold, ingests) = ingests();
        let mut ingest = ingests.write("layer", clock::now()).await.unwrap();
        ingest.write(b"tide", clock::now()).unwrap();
        let refused = ingest.commit(as_digest(b"ebb"), clock::now());
        assert!(matches!(refused, Err(CommitError::Digest { .. })));
        assert_eq!(ingests.status("layer").unwrap().offset, 4);
        assert!(hold.blob(&Digest::of(b"ebb")).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_the_disk_did_not_keep_becomes_no_blob_and_is_written_anew() {
        let (_folder, hold, ingests) = ingests();
        let mut first = ingests.write("layer", clock::now()).await.unwrap();
        first.write(b"tide", clock::now()).unwrap();
        first.draft.as_ref().unwrap().break_down();
        assert!(first.write(b"hold", clock::now()).is_err());
        assert!(matches!(first.commit(as_digest(b"tide"), clock::now()), Err(CommitError::Store(_))));
        assert!(hold.blob(&Digest::of(b"tide")).unwrap().is_none());
        let mut second = ingests.write("layer", clock::now()).await.unwrap();
        assert_eq!((second.status().offset, ingests.status("layer").unwrap().offset), (0, 0));
        second.write(b"tide", clock::now()).unwrap();
        second.commit(as_digest(b"tide"), clock::now()).unwrap();
    }

    #[tokio::test]
    async fn an_abort_under_a_writer_leaves_the_next_ingest_of_that_ref_alone() {
        let (_folder, hold, ingests) = ingests();
        let mut old = ingests.write("layer", clock::now()).await.unwrap();
        old.write(b"old", clock::now()).unwrap();
        assert!(ingests.abort("layer").unwrap());
        let mut new = ingests.write("layer", clock::now()).await.unwrap();
        new.write(b"new", clock::now()).unwrap();
        assert!(old.commit(Announced::default(), clock::now()).is_err());
        assert_eq!(ingests.status("layer").unwrap().offset, 3);
        new.commit(as_digest(b"new"), clock::now()).unwrap();
        assert!(hold.blob(&Digest::of(b"old")).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_blob_that_is_held_already_is_adopted_and_its_second_copy_dropped() {
        let (folder, hold, ingests) = ingests();
        hold.keep(b"tide", &Digest::of(b"tide"), clock::now()).unwrap();
        let mut ingest = ingests.write("layer", clock::now()).await.unwrap();
        ingest.write(b"tide", clock::now()).unwrap();
        ingest.commit(as_digest(b"tide"), clock::now()).unwrap();
        assert!(hold.adopted(&Owner::new("system"), &Digest::of(b"tide")).unwrap().is_some());
        let left = std::fs::read_dir(folder.path().join("ingest/containerd-system")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_new_blob_has_the_labels_of_its_commit_for_its_own_containerd_alone() {
        let (_folder, hold, ingests) = ingests();
        let labels = HashMap::from([("kind".to_owned(), "layer".to_owned())]);
        let mut ingest = ingests.write("layer", clock::now()).await.unwrap();
        ingest.write(b"tide", clock::now()).unwrap();
        let announced = Announced { labels: labels.clone(), ..as_digest(b"tide") };
        ingest.commit(announced, clock::now()).unwrap();
        let adopted = hold.adopted(&Owner::new("system"), &Digest::of(b"tide")).unwrap().unwrap();
        assert_eq!(adopted.labels, labels);
        let other = hold.adopt(&Owner::new("other"), &Digest::of(b"tide"), clock::now()).unwrap().unwrap();
        assert!(other.labels.is_empty());
    }

    #[tokio::test]
    async fn a_size_that_was_refused_binds_no_later_commit() {
        let (_folder, _hold, ingests) = ingests();
        let mut ingest = ingests.write("layer", clock::now()).await.unwrap();
        ingest.write(b"tide", clock::now()).unwrap();
        let refused = ingest.commit(Announced { size: Some(5), ..Announced::default() }, clock::now());
        assert!(matches!(refused, Err(CommitError::Size { expected: 5, actual: 4 })));
        assert_eq!(ingests.status("layer").unwrap().total, 0);
        let again = ingests.write("layer", clock::now()).await.unwrap();
        assert!(again.commit(Announced::default(), clock::now()).is_ok());
    }
}
