//! Blobs on their way in: each fetched once, however many ask, and resumed where a connection breaks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::callers::{Caller, Guise};
use super::flight::Flights;
use super::manifests::{RETRIES, RETRY_PAUSE, shown};
use super::{Inner, Refusal};
use crate::access::Admission;
use crate::clock;
use crate::oci::{Digest, Reference, Repository};
use crate::store::{Download, DownloadState, Follower, OpenBlob, Reading, StoreError, blocking};
use crate::upstream::{Asker, BlobBody, Credential, Failure};

/// How many chunks may wait for the disk before the registry is read no further.
const QUEUED_CHUNKS: usize = 32;

/// How often in a row a broken download is taken up again without a byte having come in between.
const RESUMES_WITHOUT_PROGRESS: u32 = 5;

/// How long to wait before the second resume in a row; doubled for each further one.
const RESUME_PAUSE: Duration = Duration::from_millis(200);

/// How long to wait at most for a registry that is not asked at all for a while.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The bytes of a blob.
#[derive(Clone)]
pub enum BlobBytes {
    /// All of them are here.
    Held(OpenBlob),
    /// They are coming in.
    Coming(Follower),
}

/// The downloads under way.
pub(super) struct Downloads {
    /// Requests that were sent and not answered yet.
    starting: Flights<(Repository, Digest, Credential), Result<Started, Refusal>>,
    /// Downloads from their first byte on. One that has failed is nobody's any more, although it may stand here for
    /// another moment.
    running: Mutex<HashMap<Digest, Started>>,
}

/// Somebody who wants a blob of a repository.
#[derive(Clone, Copy)]
struct Visit<'a> {
    caller: &'a Caller,
    guise: &'a Guise,
    repository: &'a Repository,
    digest: &'a Digest,
}

/// A blob that is here or coming.
#[derive(Clone)]
struct Started {
    bytes: BlobBytes,
    /// Where it is coming from: that repository has it.
    from: Option<Repository>,
}

impl Downloads {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { starting: Flights::new(tasks), running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Digest, Started>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A download that still comes to something.
    fn promising(&self, digest: &Digest) -> Option<Started> {
        self.running().get(digest).filter(|started| !started.has_failed()).cloned()
    }

    /// Takes a download that has ended off the list. One that was begun in the place of a failed one stays.
    fn remove_ended(&self, digest: &Digest) {
        let mut running = self.running();
        if running.get(digest).is_some_and(|started| !started.is_running()) {
            running.remove(digest);
        }
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
    pub(super) async fn blob(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<BlobBytes, Refusal> {
        let mut refused = Refusal::Internal;
        for guise in self.guises(&caller.client, repository)? {
            let visit = Visit { caller, guise: &guise, repository, digest };
            match self.noted_refusal(&visit, self.blob_as(&visit)).await {
                Err(refusal) if refusal.may_differ_for_others() => refused = refusal,
                answered => return answered,
            }
        }
        Err(refused)
    }

    pub(super) async fn blob_size(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        let mut refused = Refusal::Internal;
        for guise in self.guises(&caller.client, repository)? {
            let visit = Visit { caller, guise: &guise, repository, digest };
            match self.noted_refusal(&visit, self.blob_size_as(&visit)).await {
                Err(refusal) if refusal.may_differ_for_others() => refused = refusal,
                answered => return answered,
            }
        }
        Err(refused)
    }

    /// What the registry said a short while ago that it does not have, or does not give, it is not asked for again.
    async fn noted_refusal<T>(
        &self,
        visit: &Visit<'_>,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let reference = Reference::Digest(visit.digest.clone());
        let key = (visit.repository.clone(), reference, visit.guise.clone());
        // As a manifest it may be missing and be a blob.
        if let Some(refusal @ (Refusal::MissingBlob(_) | Refusal::Denied { .. })) =
            self.refused.find(&key, clock::instant())
        {
            return Err(refusal);
        }
        let answered = answer.await;
        if let Err(refusal @ (Refusal::MissingBlob(_) | Refusal::Denied { .. })) = &answered {
            self.refused.note(key, refusal.clone(), clock::instant());
        }
        answered
    }

    async fn blob_as(self: &Arc<Self>, visit: &Visit<'_>) -> Result<BlobBytes, Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        let started = match self.at_hand(digest).await? {
            Some(started) => started,
            None => {
                let start = || {
                    let (inner, caller, guise) = (Arc::clone(self), caller.clone(), guise.clone());
                    let (repository, digest) = (repository.clone(), digest.clone());
                    async move {
                        let visit = Visit {
                            caller: &caller,
                            guise: &guise,
                            repository: &repository,
                            digest: &digest,
                        };
                        inner.start(&visit).await
                    }
                };
                let key = (repository.clone(), digest.clone(), guise.credential.clone());
                let started = self.downloads.starting.join(key, start).await;
                started.unwrap_or(Err(Refusal::Internal))?
            }
        };
        let admission = self.admission(guise, repository, clock::now())?;
        if admission != Admission::Granted || started.from.as_ref() != Some(repository) {
            self.prove(visit, admission).await?;
        }
        Ok(started.bytes)
    }

    async fn blob_size_as(&self, visit: &Visit<'_>) -> Result<Option<u64>, Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        let admission = self.admission(guise, repository, clock::now())?;
        match self.hold.blob(digest)? {
            Some(blob) => {
                self.prove(visit, admission).await?;
                Ok(Some(blob.size))
            }
            None => {
                let asker = Self::asker(caller, guise.credential.clone());
                let size = self.head_of_blob(&asker, repository, digest).await;
                let size = size.map_err(|failure| self.refused(visit, admission, failure))?;
                self.note_reader(guise, &guise.credential, repository, clock::now());
                Ok(size)
            }
        }
    }

    /// Holds a blob that is here to what its registry says: that it is in this repository, once, and that whoever asks
    /// may read that. Where the registry cannot be asked, what it said before holds for those who could read then.
    async fn prove(&self, visit: &Visit<'_>, admission: Admission) -> Result<(), Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        let seen = self.hold.seen_in(digest, repository)?;
        if seen && admission == Admission::Granted {
            return Ok(());
        }
        let asker = Self::asker(caller, guise.credential.clone());
        match self.head_of_blob(&asker, repository, digest).await {
            Ok(_) => {
                self.note_reader(guise, &guise.credential, repository, clock::now());
                if !seen {
                    self.unnoted.tell(self.hold.note_source(digest, repository));
                }
                Ok(())
            }
            Err(failure) => match (admission, &failure) {
                (_, Failure::Denied { .. } | Failure::NoToken { .. }) => {
                    Err(self.refused(visit, admission, failure))
                }
                (Admission::WasPublic, _) if seen => Ok(()),
                (_, Failure::Missing) => Err(self.refused(visit, admission, failure)),
                (Admission::Lapsed, _) if seen => Ok(()),
                _ => Err(self.refused(visit, admission, failure)),
            },
        }
    }

    /// Asks for the head of a blob; where only a GET can tell, for that, of which no more is read.
    async fn head_of_blob(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Failure> {
        match self.upstreams.head_blob(asker, repository, digest).await {
            Err(Failure::NoHead { .. }) => {
                self.upstreams.get_blob(asker, repository, digest, 0).await.map(|body| body.total)
            }
            said => said,
        }
    }

    /// What a registry's failure comes to, for a blob.
    fn refused(&self, visit: &Visit<'_>, admission: Admission, failure: Failure) -> Refusal {
        let Visit { guise, repository, digest, .. } = *visit;
        let what = shown(repository, &Reference::Digest(digest.clone()));
        self.note_denial(guise, repository, &failure, clock::now());
        match (failure, admission) {
            (Failure::Missing, _) => Refusal::MissingBlob(what),
            (failure @ (Failure::Denied { .. } | Failure::NoToken { .. }), _)
            | (failure, Admission::Barred) => self.denied(what, repository, Some(&failure)),
            (failure, _) => Refusal::Unanswered { what, failure },
        }
    }

    /// What needs no request: a blob that is held, or a download under way.
    async fn at_hand(&self, digest: &Digest) -> Result<Option<Started>, StoreError> {
        // In this order: a download is taken off the list only after its blob is in the hold.
        let running = self.downloads.promising(digest);
        if running.is_some() {
            return Ok(running);
        }
        Ok(match self.hold.reading(digest).await? {
            Reading::Open(blob) => Some(Started { bytes: BlobBytes::Held(blob), from: None }),
            // The ordinary download makes it whole again.
            Reading::Lost { .. } | Reading::No => None,
        })
    }

    async fn start(self: Arc<Self>, visit: &Visit<'_>) -> Result<Started, Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        if let Some(started) = self.at_hand(digest).await? {
            return Ok(started);
        }
        let admission = self.admission(guise, repository, clock::now())?;
        let mut asker = Self::asker(caller, self.fetching(guise, admission, repository));
        let mut answered = self.first_answer(&asker, repository, digest).await;
        if let (Err(Failure::Denied { .. } | Failure::NoToken { .. }), true) =
            (&answered, asker.credential != guise.credential)
        {
            // Our login does not serve, but what it was to fetch is anyone's.
            asker.credential = guise.credential.clone();
            answered = self.first_answer(&asker, repository, digest).await;
        }
        let body = answered.map_err(|failure| self.refused(visit, admission, failure))?;
        self.note_reader(guise, &asker.credential, repository, clock::now());
        // Somebody with another right may have asked at the same time.
        if let Some(started) = self.at_hand(digest).await? {
            return Ok(Started { from: Some(repository.clone()), ..started });
        }
        let (hold, of, total) = (self.hold.clone(), digest.clone(), body.total);
        let download = blocking(move || Download::begin(&hold, of, total)).await?;
        let bytes = BlobBytes::Coming(download.follow());
        let started = Started { bytes, from: Some(repository.clone()) };
        self.downloads.running().insert(digest.clone(), started.clone());
        let (inner, from, digest) = (Arc::clone(&self), repository.clone(), digest.clone());
        self.tasks.spawn(async move {
            inner.run(&asker, &from, &digest, body, download).await;
            inner.downloads.remove_ended(&digest);
        });
        Ok(started)
    }

    /// Asks for a blob, and again where that may help: containerd 1.7 gives up the whole pull at the first 503.
    async fn first_answer(
        &self,
        asker: &Asker,
        from: &Repository,
        digest: &Digest,
    ) -> Result<BlobBody, Failure> {
        let mut retries = 0;
        loop {
            match self.upstreams.get_blob(asker, from, digest, 0).await {
                Err(failure) if failure.may_pass() && retries < RETRIES => {
                    tracing::info!(repository = %from, %digest, why = %failure, "a blob is asked for again");
                    tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(retries)).await;
                    retries += 1;
                }
                answered => return answered,
            }
        }
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
        let last = match self.receive(asker, from, digest, body, &queue).await {
            Ok(()) => {
                // Before the end is written: whoever finds the blob held finds its source too.
                self.unnoted.tell(self.hold.note_source(digest, from));
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
        match written {
            // Nobody waits for this: it keeps where the blob came from through a kill -9.
            Ok(()) => self.flush_notes().await,
            Err(why) => tracing::warn!(repository = %from, %digest, why, "a download failed"),
        }
    }

    async fn receive(
        &self,
        asker: &Asker,
        from: &Repository,
        digest: &Digest,
        mut body: BlobBody,
        queue: &mpsc::Sender<Piece>,
    ) -> Result<(), Failure> {
        let total = body.total;
        let mut offset = 0;
        let mut resumes = 0;
        loop {
            let broken = match body.body.next().await {
                Some(Ok(bytes)) => {
                    resumes = 0;
                    offset += bytes.len() as u64;
                    if queue.send(Piece::Bytes(bytes)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                None if total.is_none_or(|total| offset >= total) => return Ok(()),
                None => Failure::Unusable("its body ended early".into()),
                Some(Err(failure)) => failure,
            };
            (body, resumes) = self.resume(asker, from, digest, (offset, resumes), broken).await?;
        }
    }

    /// Asks again for what is missing.
    async fn resume(
        &self,
        asker: &Asker,
        from: &Repository,
        digest: &Digest,
        (offset, mut resumes): (u64, u32),
        mut broken: Failure,
    ) -> Result<(BlobBody, u32), Failure> {
        loop {
            if resumes == RESUMES_WITHOUT_PROGRESS {
                return Err(broken);
            }
            if let Failure::Shut { opens_in, .. } = broken {
                tokio::time::sleep(opens_in.min(LONGEST_PAUSE)).await;
            } else if resumes > 0 {
                tokio::time::sleep(RESUME_PAUSE * 2_u32.pow(resumes - 1)).await;
            }
            resumes += 1;
            tracing::info!(repository = %from, %digest, offset, why = %broken, "a download broke and is resumed");
            match self.upstreams.get_blob(asker, from, digest, offset).await {
                Ok(body) => match skipping(body, offset) {
                    Some(body) => return Ok((body, resumes)),
                    None => broken = Failure::Unusable("it answered with another range".into()),
                },
                Err(
                    failure @ (Failure::Missing
                    | Failure::Denied { .. }
                    | Failure::NoToken { .. }
                    | Failure::Forbidden(_)),
                ) => return Err(failure),
                Err(failure) => broken = failure,
            }
        }
    }
}

/// A body from an offset on, where the registry starts there or before: it may not know ranges.
fn skipping(mut body: BlobBody, offset: u64) -> Option<BlobBody> {
    let mut skip = offset.checked_sub(body.starts_at)?;
    let rest = body.body.filter_map(move |chunk| {
        let chunk = chunk.map(|mut bytes| {
            let dropped = skip.min(bytes.len() as u64);
            skip -= dropped;
            // `dropped` is at most the length of these bytes.
            bytes::Buf::advance(&mut bytes, usize::try_from(dropped).unwrap_or(0));
            bytes
        });
        std::future::ready(Some(chunk).filter(|chunk| !chunk.as_ref().is_ok_and(Bytes::is_empty)))
    });
    body.body = rest.boxed();
    body.starts_at = offset;
    Some(body)
}

/// What goes to the thread that writes.
enum Piece {
    Bytes(Bytes),
    End,
    Broken(Failure),
}

fn write(mut download: Download, mut pieces: mpsc::Receiver<Piece>) -> Result<(), String> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                if let Err(error) = download.write(&bytes) {
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
