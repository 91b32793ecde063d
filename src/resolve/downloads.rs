//! Blobs on their way in: each fetched once, however many ask, and resumed where a connection breaks.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::flight::Flights;
use super::receive::{Intake, Piece};
use super::recent::Recent;
use super::{Inner, Refusal};
use crate::clock;
use crate::oci::{Digest, Registry, Repository};
use crate::store::{
    CommitError, Download, DownloadState, Follower, OpenBlob, Reading, StoreError, Unkept, blocking,
};
use crate::upstream::{Asker, Because, BlobBody, Credential, Failure};

/// How many downloads may run at a time, all in all and from one registry: each holds a thread and a connection. And
/// when to come again where there are as many.
const MOST_RUNNING: usize = 512;
const MOST_RUNNING_OF_ONE: usize = 256;
const BUSY_FOR: Duration = Duration::from_secs(5);

/// How long, and of how many downloads, it is remembered that they came to nothing.
const FAILED_FOR: Duration = Duration::from_secs(60);
const MOST_FAILED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How long, and of how many registries, it is remembered how many connections for a blob paid.
const PAYING_FOR: Duration = Duration::from_secs(10 * 60);
const MOST_PAYING: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How many connections there may be, all in all, beside the first one of each download.
const MOST_FURTHER: usize = 32;

/// How many chunks, of 400 KiB at most, may wait for the disk before the registry is read no further.
const QUEUED_CHUNKS: usize = 8;

/// The bytes of a blob.
#[derive(Clone)]
pub enum BlobBytes {
    /// All of them are here.
    Held(OpenBlob),
    /// They are coming in.
    Coming(Follower),
}

/// What is coming in, and from where: what one registry is slow to give, another is asked for.
pub(super) type Place = (Registry, Digest);

/// The downloads under way.
pub(super) struct Downloads {
    /// Requests that were sent and not answered yet.
    pub(super) starting: Flights<(Repository, Digest, Credential), Result<Started, Refusal>>,
    /// Downloads from their first byte on. One that has failed is nobody's any more, although it may stand here for
    /// another moment.
    running: Mutex<HashMap<Place, Started>>,
    /// Of which registries a blob came faster by several connections, and by how many; 1 where it did not.
    pub(super) paying: Recent<Registry, usize>,
    /// Connections beside the first one of a download.
    pub(super) further: Semaphore,
    /// Those that have come to nothing lately.
    failed: Recent<(Repository, Digest), ()>,
}

/// A blob that is here or coming.
#[derive(Clone)]
pub(super) struct Started {
    pub(super) bytes: BlobBytes,
    /// Where it is coming from: that repository has it.
    pub(super) from: Option<Repository>,
}

impl Downloads {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self {
            starting: Flights::new(tasks),
            running: Mutex::default(),
            paying: Recent::new(MOST_PAYING, PAYING_FOR),
            further: Semaphore::new(MOST_FURTHER),
            failed: Recent::new(MOST_FAILED, FAILED_FOR),
        }
    }

    /// Whether the last download of a blob from a repository came to nothing a short while ago.
    pub(super) fn has_failed(&self, repository: &Repository, digest: &Digest) -> bool {
        self.failed.find(&(repository.clone(), digest.clone()), clock::instant()).is_some()
    }

    pub(super) fn forget_failures(&self, repository: &Repository) {
        self.failed.forget(|(of, _)| of == repository);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Place, Started>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A download that still comes to something.
    pub(super) fn promising(&self, place: &Place) -> Option<Started> {
        self.running().get(place).filter(|started| !started.has_failed()).cloned()
    }

    /// Takes a download that has ended off the list. One that was begun in the place of a failed one stays.
    fn remove_ended(&self, place: &Place) {
        let mut running = self.running();
        if running.get(place).is_some_and(|started| !started.is_running()) {
            running.remove(place);
        }
    }

    /// Whether there is room for another one from a registry.
    fn has_room(&self, registry: &Registry) -> bool {
        let running = self.running();
        let from_it = running.keys().filter(|(other, _)| other == registry).count();
        running.len() < MOST_RUNNING && from_it < MOST_RUNNING_OF_ONE
    }
}

impl Started {
    fn is_running(&self) -> bool {
        match &self.bytes {
            BlobBytes::Coming(follower) => matches!(follower.state(), DownloadState::Running { .. }),
            BlobBytes::Held(_) => false,
        }
    }

    fn has_failed(&self) -> bool {
        match &self.bytes {
            BlobBytes::Coming(follower) => matches!(follower.state(), DownloadState::Failed(_)),
            BlobBytes::Held(_) => false,
        }
    }
}

impl Inner {
    /// What needs no request: a blob that is held, or a download under way.
    pub(super) async fn at_hand(
        &self,
        registry: &Registry,
        digest: &Digest,
    ) -> Result<Option<Started>, StoreError> {
        // In this order: a download is taken off the list only after its blob is in the hold.
        let running = self.downloads.promising(&(registry.clone(), digest.clone()));
        if running.is_some() {
            return Ok(running);
        }
        Ok(match self.hold.reading(digest).await? {
            Reading::Open(blob) => Some(Started { bytes: BlobBytes::Held(blob), from: None }),
            // The ordinary download makes it whole again.
            Reading::Lost { .. } | Reading::No => None,
        })
    }

    /// Begins to take in a body, of this length at most where it does not tell its own.
    pub(super) async fn begin(
        self: &Arc<Self>,
        asker: Asker,
        from: &Repository,
        digest: &Digest,
        body: BlobBody,
        listed: Option<u64>,
    ) -> Result<Started, Refusal> {
        if !self.downloads.has_room(from.registry()) {
            let failure = Failure::Shut { because: Because::Busy, opens_in: BUSY_FOR };
            return Err(Refusal::Unanswered { what: format!("{from}@{digest}"), failure });
        }
        let (hold, of, total) = (self.hold.clone(), digest.clone(), body.total.or(listed));
        let download = match blocking(move || Download::begin(&hold, of, total)).await {
            Ok(download) => download,
            Err(CommitError::Store(error)) if error.is_of_writing() => {
                return Err(Refusal::unkept(format!("{from}@{digest}"), Unkept::Unwritable(error)));
            }
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(CommitError::NoRoom | CommitError::Size { .. } | CommitError::Digest { .. }) => {
                return Err(Refusal::NoRoom(format!("{from}@{digest}")));
            }
        };
        self.record.begins(digest, total);
        let bytes = BlobBytes::Coming(download.follow());
        let started = Started { bytes, from: Some(from.clone()) };
        let place = (from.registry().clone(), digest.clone());
        self.downloads.running().insert(place.clone(), started.clone());
        let (inner, from, digest) = (Arc::clone(self), from.clone(), digest.clone());
        self.tasks.spawn(async move {
            inner.run(&asker, &from, &digest, body, download).await;
            inner.downloads.remove_ended(&place);
        });
        Ok(started)
    }

    /// Reads the registry into the disk's queue until the blob is whole or nothing helps any more.
    async fn run(
        &self,
        asker: &Asker,
        from: &Repository,
        digest: &Digest,
        body: BlobBody,
        download: Download,
    ) {
        let (queue, pieces) = mpsc::channel(QUEUED_CHUNKS);
        let writer = tokio::task::spawn_blocking(move || write(download, pieces));
        let intake = Intake::new((self, asker), (from, digest), body.total, &queue);
        let last = match intake.run(body).await {
            Ok(()) => {
                // Before the end is written, and on the disk: whoever finds the blob held finds its source too, also
                // after a kill -9 at the moment when its last byte has left.
                self.unnoted.tell(self.hold.note_source(digest, from));
                self.flush_notes().await;
                // Whoever explains what is held finds how it came.
                self.record.arrived(digest, from, intake.received(), 0, clock::now());
                self.record.ends(digest, Some(intake.received()));
                Piece::End
            }
            Err(failure) => Piece::Broken(failure),
        };
        // The writer hangs up only when it has failed, and has said so to the readers.
        let _ = queue.send(last).await;
        drop(queue);
        let written = match writer.await {
            Ok(written) => written,
            Err(panicked) => Err(panicked.to_string()),
        };
        if let Err(why) = written {
            self.record.ends(digest, None);
            self.downloads.failed.note((from.clone(), digest.clone()), (), clock::instant());
            tracing::warn!(repository = %from, %digest, why, "a download failed");
        }
    }
}

fn write(mut download: Download, mut pieces: mpsc::Receiver<Piece>) -> Result<(), String> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(at, bytes) => {
                if let Err(error) = download.write(&bytes, at) {
                    let why = error.to_string();
                    download.fail(&why);
                    return Err(why);
                }
            }
            Piece::End => return download.finish(clock::now()).map(drop).map_err(|error| error.to_string()),
            Piece::Broken(failure) => {
                let why = failure.to_string();
                download.fail(&why);
                return Err(why);
            }
        }
    }
    Err("the daemon stopped".to_owned())
}
