//! `Warm`: bringing in all that references stand for, and telling how far it is.
//!
//! The work is done by the stream that the client reads: a client that leaves ends it, one that is slow slows it down.
//! Downloads are the resolver's, and go on.

use std::collections::HashSet;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::choose::Wanted;
use super::problem::Problem;
use super::resolve::parsed;
use super::steps::{Steps, Tally, done, planned, progress, resolved, started};
use super::{Replies, image_name};
use crate::oci::{Child, Digest, ImageName, Kind, Reference, Repository};
use crate::proto::v1::warm_response::Step;
use crate::proto::{MOST_REFERENCES, v1};
use crate::resolve::{BlobBytes, Caller, Resolver, Served};
use crate::store::{DownloadState, Follower};

/// How many references are at work at a time.
const REFERENCES_AT_ONCE: usize = 4;

/// How many blobs come in at a time, of all references together.
const BLOBS_AT_ONCE: usize = 4;

/// How many manifests and blobs one reference may stand for. The largest images have some hundred.
const MOST_PARTS: usize = 4096;

/// How deep an index may lie within others: more than one is rare, and a chain of them is a trap.
const MOST_NESTED: usize = 3;

/// After how many more bytes of a blob its progress is told again.
const PROGRESS_BYTES: u64 = 256 << 10;

/// How many blobs of one call are known to have come in; beyond them, one may be told of twice.
const MOST_FETCHED: usize = 1 << 16;

/// How many steps may wait for the client.
const QUEUED_STEPS: usize = 64;

/// How many malformed references an error names.
const NAMED: usize = 20;

/// A request that makes sense.
pub(super) struct Asked {
    /// Each as it was written, and what that means.
    references: Vec<(String, ImageName)>,
    wanted: Wanted,
}

impl Asked {
    pub(super) fn parse(request: v1::WarmRequest) -> Result<Self, Problem> {
        if request.references.len() > MOST_REFERENCES {
            return Err(Problem::malformed(format!("more than {MOST_REFERENCES} references in one call")));
        }
        let wanted = Wanted::parse(&request.platforms, request.all_platforms)?;
        let (mut references, mut wrong) = (Vec::new(), Vec::new());
        for written in request.references {
            match image_name(&written) {
                Ok(name) => references.push((written, name)),
                Err(problem) => wrong.push(problem.message()),
            }
        }
        if wrong.is_empty() {
            return Ok(Self { references, wanted });
        }
        let more = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        Err(Problem::malformed(wrong.join("; ")))
    }
}

/// The steps, which do the work as they are read. The place is given back at the end.
pub(super) fn answer(
    resolver: Resolver,
    asked: Asked,
    place: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> Replies<v1::WarmResponse> {
    let (queue, steps) = mpsc::channel(QUEUED_STEPS);
    let warming = Warming {
        resolver,
        wanted: asked.wanted,
        queue,
        places: Semaphore::new(BLOBS_AT_ONCE),
        fetched: Mutex::default(),
    };
    let work = async move {
        Arc::new(warming).all(asked.references).await;
        drop(place);
    };
    let steps = ReceiverStream::new(steps).map(Ok);
    let both = stream::select(steps, stream::once(work).filter_map(|()| ready(None)));
    let stopped = stream::once(ready(stop.clone()))
        .filter_map(|stop| ready(stop.is_cancelled().then(|| Err(Status::from(Problem::stopping())))));
    both.take_until(stop.cancelled_owned()).chain(stopped).boxed()
}

/// One call at work.
struct Warming {
    resolver: Resolver,
    wanted: Wanted,
    queue: mpsc::Sender<v1::WarmResponse>,
    /// One for each blob that may come in now.
    places: Semaphore,
    /// The blobs that came in, or are about to, so that none is told of by two references.
    fetched: Mutex<HashSet<Digest>>,
}

impl Warming {
    async fn all(self: Arc<Self>, references: Vec<(String, ImageName)>) {
        let begin = |(written, name)| Arc::clone(&self).one(written, name);
        let mut ends = stream::iter(references).map(begin).buffer_unordered(REFERENCES_AT_ONCE);
        let (mut all, mut finished, mut failed) = (Tally::default(), 0, 0);
        while let Some((tally, whole)) = ends.next().await {
            all.add(tally);
            *(if whole { &mut finished } else { &mut failed }) += 1;
        }
        let steps = Steps { reference: String::new(), queue: self.queue.clone() };
        steps.send(all.summary(finished, failed)).await;
    }

    /// One reference: what it took, and whether all of it is here.
    async fn one(self: Arc<Self>, written: String, name: ImageName) -> (Tally, bool) {
        let steps = Steps { reference: written, queue: self.queue.clone() };
        let mut tally = Tally::default();
        let ended = self.bring(&steps, &name, &mut tally).await;
        let (requests, counted) = (tally.cost.requests, tally.cost.counted);
        match ended {
            Ok(()) => {
                let bytes = tally.fetched_bytes;
                tracing::info!(target: "tidehold::control", reference = %name, requests, counted, bytes, "warmed");
                steps.send(tally.finished()).await;
                (tally, true)
            }
            Err(problem) => {
                let why = problem.message();
                tracing::warn!(target: "tidehold::control", reference = %name, requests, counted, why, "not warmed");
                steps.send(Step::Failed(problem.after(tally.cost))).await;
                (tally, false)
            }
        }
    }

    async fn bring(&self, steps: &Steps, name: &ImageName, tally: &mut Tally) -> Result<(), Problem> {
        let served = self.manifest(&name.repository, &name.reference, tally).await?;
        steps.send(resolved(&served)).await;
        let blobs = self.manifests(&name.repository, served, tally).await?;
        steps.send(planned(&blobs)).await;
        let begin = |blob| self.blob(steps, &name.repository, blob);
        let mut coming = stream::iter(blobs).map(begin).buffer_unordered(BLOBS_AT_ONCE);
        while let Some((size, fetched)) = coming.try_next().await? {
            tally.blob(size, fetched);
        }
        Ok(())
    }

    /// Brings in the manifests that are wanted below one, and answers with the blobs of all of them, each once.
    async fn manifests(
        &self,
        repository: &Repository,
        served: Served,
        tally: &mut Tally,
    ) -> Result<Vec<Child>, Problem> {
        let mut parts = Parts { seen: HashSet::from([served.digest.clone()]) };
        let mut blobs = Vec::new();
        let mut below = self.children(&mut parts, &mut blobs, &served, 0)?;
        // One manifest is in memory at a time.
        drop(served);
        while let Some((digest, depth)) = below.pop() {
            let served = self.manifest(repository, &Reference::Digest(digest), tally).await?;
            below.extend(self.children(&mut parts, &mut blobs, &served, depth)?);
        }
        Ok(blobs)
    }

    /// Sorts what a manifest points at: its blobs are added, its manifests are answered with, each with its depth.
    fn children(
        &self,
        parts: &mut Parts,
        blobs: &mut Vec<Child>,
        served: &Served,
        depth: usize,
    ) -> Result<Vec<(Digest, usize)>, Problem> {
        let manifest = parsed(served)?;
        let mut manifests = Vec::new();
        match manifest.kind() {
            Kind::Image => {
                for child in manifest.children() {
                    if !child.is_elsewhere() && parts.is_new(&child.digest)? {
                        blobs.push(child.clone());
                    }
                }
            }
            Kind::Index if depth > MOST_NESTED => {
                return Err(Problem::excessive(format!("{} lies in too many other indexes", served.digest)));
            }
            Kind::Index => {
                for child in self.wanted.of(manifest.children())? {
                    if parts.is_new(&child.digest)? {
                        manifests.push((child.digest.clone(), depth + 1));
                    }
                }
            }
        }
        Ok(manifests)
    }

    async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        tally: &mut Tally,
    ) -> Result<Served, Problem> {
        let caller = Caller::operator("warm");
        let served = self.resolver.manifest(&caller, repository, reference).await;
        // What came to nothing was asked all the same.
        tally.spend(caller.cost());
        Ok(served?)
    }

    /// Brings in a blob: its length, and whether it had to be fetched.
    async fn blob(
        &self,
        steps: &Steps,
        repository: &Repository,
        blob: Child,
    ) -> Result<(u64, bool), Problem> {
        // Nobody closes it.
        let _place = self.places.acquire().await;
        let caller = Caller::operator("warm");
        let (size, fetched) = match self.resolver.blob(&caller, repository, &blob.digest).await? {
            BlobBytes::Held(held) => (held.size(), false),
            BlobBytes::Coming(follower) => {
                let own = self.is_first(&blob.digest);
                match follow(steps, &blob, follower, own).await {
                    Ok(size) => (size, own),
                    Err(problem) => {
                        self.fetched().remove(&blob.digest);
                        return Err(problem);
                    }
                }
            }
        };
        steps.send(done(&blob, size, fetched)).await;
        Ok((size, fetched))
    }

    /// Whether no other reference of this call tells of this blob that is coming in.
    fn is_first(&self, digest: &Digest) -> bool {
        let mut fetched = self.fetched();
        if fetched.len() < MOST_FETCHED { fetched.insert(digest.clone()) } else { !fetched.contains(digest) }
    }

    fn fetched(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a download, and tells of it on the way.
async fn follow(steps: &Steps, blob: &Child, mut follower: Follower, tell: bool) -> Result<u64, Problem> {
    if tell {
        steps.send(started(blob)).await;
    }
    let mut seen = 0_u64;
    loop {
        seen = follower.past(seen.saturating_add(PROGRESS_BYTES)).await?;
        if let DownloadState::Done { size } = follower.state() {
            return Ok(size);
        }
        if tell {
            steps.send(progress(blob, seen)).await;
        }
    }
}

/// What one reference was found to stand for so far.
struct Parts {
    seen: HashSet<Digest>,
}

impl Parts {
    /// Whether a part is met for the first time.
    fn is_new(&mut self, digest: &Digest) -> Result<bool, Problem> {
        let new = self.seen.insert(digest.clone());
        if self.seen.len() > MOST_PARTS {
            return Err(Problem::excessive(format!("it has more than {MOST_PARTS} parts")));
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests;
