//! A blob on its way in: one writer, any number of readers behind it.
//!
//! Its bytes may come from several places of the blob at once. Those that come before their turn stand in the file
//! until all before them are there; only then are they hashed and shown.
//!
//! Invariant: the last bytes of a blob are shown to nobody before the whole of it has been verified and is in the
//! index. So no reader can ever complete a blob that is not what its digest says.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;

use super::draft::{CommitError, Draft};
use super::read::read_exact_at;
use super::{Blob, Hold};
use crate::oci::Digest;

/// How many bytes at the end of what was written readers wait for until the blob is verified.
const HELD_BACK_BYTES: u64 = 4096;

/// How many bytes come before it is looked again whether the disk has room for more.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

/// What share of the room that there is at its beginning a blob of unknown length may take: one half.
const SHARE_OF_UNKNOWN: u64 = 2;

/// How far a download is.
#[derive(Debug, Clone)]
pub enum DownloadState {
    /// Bytes before this offset can be read.
    Running {
        /// The offset, in bytes.
        readable: u64,
    },
    /// All of it is verified and held.
    Done {
        /// Its length, in bytes.
        size: u64,
    },
    /// It ended without becoming a blob.
    Failed(Arc<str>),
}

/// The writing side. Dropping it unfinished fails the download for its readers and removes the file.
pub struct Download {
    hold: Hold,
    digest: Digest,
    total: Option<u64>,
    draft: Draft,
    state: watch::Sender<DownloadState>,
    /// How many bytes it may have at most.
    most: u64,
    /// How many bytes have come since the disk was looked at.
    unlooked: u64,
    /// What stands behind the end and before its turn: where each stretch begins, and its length in bytes.
    early: BTreeMap<u64, u64>,
    /// To read those back.
    buffer: Vec<u8>,
}

impl Download {
    /// Begins to write a blob of a known digest, and of a known length in bytes where the registry told it.
    /// *Blocking.*
    ///
    /// # Errors
    /// When there is no room for it, or the disk refuses.
    pub fn begin(hold: &Hold, digest: Digest, total: Option<u64>) -> Result<Self, CommitError> {
        let room = hold.room();
        if room == 0 || total.is_some_and(|total| total > room) {
            return Err(CommitError::NoRoom);
        }
        let most = total.unwrap_or(room / SHARE_OF_UNKNOWN);
        let draft = hold.draft()?;
        let state = watch::Sender::new(DownloadState::Running { readable: 0 });
        let (early, buffer) = (BTreeMap::new(), Vec::new());
        Ok(Self { hold: hold.clone(), digest, total, draft, state, most, unlooked: 0, early, buffer })
    }

    /// A reader from the beginning on.
    pub fn follow(&self) -> Follower {
        Follower { file: self.draft.file(), total: self.total, state: self.state.subscribe() }
    }

    /// How many bytes have come in.
    pub fn offset(&self) -> u64 {
        self.draft.offset()
    }

    /// Takes in bytes that belong at this offset: each once, in whatever order, as long as the bytes of each stretch come
    /// one after the other. *Blocking.*
    ///
    /// # Errors
    /// When they end beyond the length announced, when the disk has no room for more, or refuses.
    pub fn write(&mut self, bytes: &[u8], at: u64) -> Result<(), CommitError> {
        let end = at.saturating_add(bytes.len() as u64);
        if let Some(total) = self.total.filter(|total| end > *total) {
            return Err(CommitError::Size { expected: total, actual: end });
        }
        if at < self.draft.offset() {
            // These were hashed already, and may have been shown.
            return Err(CommitError::Size { expected: self.draft.offset(), actual: at });
        }
        self.unlooked += bytes.len() as u64;
        if end > self.most || (self.unlooked >= LOOK_EVERY_BYTES && self.hold.room() == 0) {
            return Err(CommitError::NoRoom);
        }
        self.unlooked %= LOOK_EVERY_BYTES;
        if at > self.draft.offset() {
            self.draft.place(bytes, at)?;
            self.note_early(at, bytes.len() as u64);
            return Ok(());
        }
        self.draft.write(bytes)?;
        while let Some(length) = self.early.remove(&self.draft.offset()) {
            self.draft.absorb(length, &mut self.buffer)?;
        }
        let readable = self.draft.offset().saturating_sub(HELD_BACK_BYTES);
        self.state.send_replace(DownloadState::Running { readable });
        Ok(())
    }

    /// Adds to the stretch that ends there, or begins one.
    fn note_early(&mut self, at: u64, length: u64) {
        match self.early.range_mut(..at).next_back() {
            Some((start, before)) if *start + *before == at => *before += length,
            Some(_) | None => {
                self.early.insert(at, length);
            }
        }
    }

    /// Verifies the whole, makes it a blob, and lets the readers have the end. *Blocking.*
    ///
    /// # Errors
    /// When it is not the blob it should be, or the disk refuses; the readers then fail too.
    pub fn finish(self, now: SystemTime) -> Result<Blob, CommitError> {
        let size = self.draft.offset();
        let finished = match self.total {
            Some(total) if total != size => Err(CommitError::Size { expected: total, actual: size }),
            Some(_) | None => {
                self.hold.commit(&self.draft, &self.digest, now).map(|kept| kept.blob().clone())
            }
        };
        match &finished {
            Ok(blob) => self.state.send_replace(DownloadState::Done { size: blob.size }),
            Err(error) => self.state.send_replace(DownloadState::Failed(error.to_string().into())),
        };
        finished
    }

    /// Ends the download and tells its readers why.
    pub fn fail(self, why: &str) {
        self.state.send_replace(DownloadState::Failed(why.into()));
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let abandoned = |state: &mut DownloadState| match state {
            DownloadState::Running { .. } => {
                *state = DownloadState::Failed("the download was abandoned".into());
                true
            }
            DownloadState::Done { .. } | DownloadState::Failed(_) => false,
        };
        self.state.send_if_modified(abandoned);
        if matches!(*self.state.borrow(), DownloadState::Failed(_)) {
            self.draft.remove();
        }
    }
}

/// A reader of a download, at any offset, at its own pace.
#[derive(Clone)]
pub struct Follower {
    file: Arc<File>,
    total: Option<u64>,
    state: watch::Receiver<DownloadState>,
}

impl Follower {
    /// The blob's length in bytes: as announced, or else when all of it is there.
    ///
    /// # Errors
    /// When the download fails before that.
    pub async fn total(&mut self) -> Result<u64, FollowError> {
        match self.total {
            Some(total) => Ok(total),
            None => self.available(u64::MAX).await,
        }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// How far the download is now.
    pub fn state(&self) -> DownloadState {
        self.state.borrow().clone()
    }

    /// Waits until it has come to something or to nothing.
    pub async fn ended(mut self) {
        // Either way there is nothing more to wait for.
        let _ = self.available(u64::MAX).await;
    }

    /// Waits for bytes at an offset and reads at most `length` of them; none only at the end of the blob.
    ///
    /// # Errors
    /// When the download or the disk fails.
    pub async fn read_at(&mut self, offset: u64, length: usize) -> Result<Bytes, FollowError> {
        let available = self.available(offset).await?.saturating_sub(offset);
        let length = length.min(usize::try_from(available).unwrap_or(usize::MAX));
        // These bytes were written a moment ago: they come from the page cache.
        read_exact_at(&self.file, offset, length).map_err(|error| FollowError::Disk(Arc::new(error)))
    }

    /// Waits for more than so many bytes, or the end, and answers how many there are.
    ///
    /// # Errors
    /// When the download fails.
    pub async fn past(&mut self, offset: u64) -> Result<u64, FollowError> {
        self.available(offset).await
    }

    /// Waits until bytes at an offset can be read, and answers up to where.
    async fn available(&mut self, offset: u64) -> Result<u64, FollowError> {
        let passed = |state: &DownloadState| match state {
            DownloadState::Running { readable } => *readable > offset,
            DownloadState::Done { .. } | DownloadState::Failed(_) => true,
        };
        // The writer's drop leaves a final state behind, so a closed channel has one.
        let state = self.state.wait_for(passed).await.map_err(|_| FollowError::Failed("abandoned".into()))?;
        match &*state {
            DownloadState::Running { readable } => Ok(*readable),
            DownloadState::Done { size } => Ok(*size),
            DownloadState::Failed(why) => Err(FollowError::Failed(Arc::clone(why))),
        }
    }
}

/// Why a reader of a download gets no further.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FollowError {
    /// The download ended without a blob.
    #[error("the download failed: {0}")]
    Failed(Arc<str>),
    /// The bytes could not be read back.
    #[error("reading what was downloaded: {0}")]
    Disk(#[source] Arc<std::io::Error>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn hold() -> (tempfile::TempDir, Hold) {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        (folder, hold)
    }

    #[tokio::test]
    async fn a_reader_follows_the_writer_and_gets_the_end_only_when_it_is_verified() {
        let (_folder, hold) = hold();
        let bytes = vec![7; 10_000];
        let digest = Digest::of(&bytes);
        let mut download = Download::begin(&hold, digest.clone(), Some(10_000)).unwrap();
        let mut follower = download.follow();
        download.write(&bytes, 0).unwrap();
        let first = follower.read_at(0, usize::MAX).await.unwrap();
        assert_eq!(first.len() as u64, 10_000 - HELD_BACK_BYTES);
        assert!(hold.blob(&digest).unwrap().is_none());
        download.finish(clock::now()).unwrap();
        let rest = follower.read_at(first.len() as u64, usize::MAX).await.unwrap();
        assert_eq!(rest.len() as u64, HELD_BACK_BYTES);
        assert!(follower.read_at(10_000, 1).await.unwrap().is_empty());
        assert_eq!(hold.blob(&digest).unwrap().unwrap().size, 10_000);
    }

    #[tokio::test]
    async fn bytes_of_another_digest_are_completed_to_nobody_and_kept_nowhere() {
        let (folder, hold) = hold();
        let digest = Digest::of(b"what was asked for");
        let mut download = Download::begin(&hold, digest.clone(), Some(18)).unwrap();
        let mut follower = download.follow();
        download.write(b"what somebody sent", 0).unwrap();
        assert!(matches!(download.finish(clock::now()), Err(CommitError::Digest { .. })));
        assert!(follower.read_at(0, 1).await.is_err());
        assert!(hold.blob(&digest).unwrap().is_none());
        assert_eq!(std::fs::read_dir(folder.path().join("ingest/download")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn more_or_fewer_bytes_than_announced_are_refused() {
        let (_folder, hold) = hold();
        let mut long = Download::begin(&hold, Digest::of(b"tide"), Some(4)).unwrap();
        assert!(matches!(long.write(b"tides", 0), Err(CommitError::Size { expected: 4, actual: 5 })));
        let mut short = Download::begin(&hold, Digest::of(b"tide"), Some(4)).unwrap();
        short.write(b"tid", 0).unwrap();
        assert!(matches!(short.finish(clock::now()), Err(CommitError::Size { expected: 4, actual: 3 })));
    }

    #[tokio::test]
    async fn bytes_may_come_in_any_order_and_are_read_in_theirs() {
        let (_folder, hold) = hold();
        let bytes: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
        let digest = Digest::of(&bytes);
        let mut download = Download::begin(&hold, digest.clone(), Some(bytes.len() as u64)).unwrap();
        let mut follower = download.follow();
        let mut write = |range: std::ops::Range<usize>| {
            download.write(&bytes[range.clone()], range.start as u64).unwrap();
            match download.follow().state() {
                DownloadState::Running { readable } => readable,
                other => panic!("{other:?}"),
            }
        };
        let held_back = HELD_BACK_BYTES;
        assert_eq!(write(100_000..120_000), 0);
        assert_eq!(write(0..10_000), 10_000 - held_back);
        assert_eq!(write(50_000..60_000), 10_000 - held_back);
        assert_eq!(write(120_000..160_000), 10_000 - held_back);
        assert_eq!(write(60_000..100_000), 10_000 - held_back);
        assert_eq!(write(10_000..50_000), 160_000 - held_back);
        assert_eq!(follower.read_at(0, usize::MAX).await.unwrap(), bytes[..160_000 - held_back as usize]);
        download.finish(clock::now()).unwrap();
        assert_eq!(follower.read_at(0, usize::MAX).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_full_disk_is_seen_before_it_is_full() {
        let (_folder, hold) = hold();
        let free = hold.disk_space().unwrap().free_bytes;
        let digest = Digest::of(b"tide");
        // More than there is, or none left at all.
        assert!(matches!(Download::begin(&hold, digest.clone(), Some(free * 2)), Err(CommitError::NoRoom)));
        let mut unknown = Download::begin(&hold, digest.clone(), None).unwrap();
        assert!(matches!(unknown.write(b"tide", free), Err(CommitError::NoRoom)));
        let bytes = vec![0; LOOK_EVERY_BYTES as usize / 2];
        let mut known = Download::begin(&hold, digest.clone(), Some(LOOK_EVERY_BYTES)).unwrap();
        hold.keep_free(u64::MAX);
        known.write(&bytes, 0).unwrap();
        assert!(matches!(known.write(&bytes, bytes.len() as u64), Err(CommitError::NoRoom)));
        assert!(matches!(Download::begin(&hold, digest, None), Err(CommitError::NoRoom)));
    }

    #[tokio::test]
    async fn a_gap_is_no_blob_whatever_came_behind_it() {
        let (_folder, hold) = hold();
        let digest = Digest::of(b"ti\0\0deep");
        let mut download = Download::begin(&hold, digest, Some(8)).unwrap();
        download.write(b"ti", 0).unwrap();
        download.write(b"deep", 4).unwrap();
        assert!(matches!(download.finish(clock::now()), Err(CommitError::Size { expected: 8, actual: 2 })));
    }

    #[tokio::test]
    async fn a_writer_that_goes_away_fails_its_readers() {
        let (_folder, hold) = hold();
        let download = Download::begin(&hold, Digest::of(b"tide"), None).unwrap();
        let mut follower = download.follow();
        drop(download);
        assert!(matches!(follower.total().await, Err(FollowError::Failed(_))));
    }
}
