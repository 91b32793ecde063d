//! Taking in a blob: by one connection to its registry, or by several where that is seen to pay.
//!
//! The first connection brings everything, as long as it is fast enough. Where it is slow, the registry gives parts and
//! the blob is large, others take parts behind it; what they bring stands in the file until its turn has come. Each is
//! resumed where it breaks. What one of the others cannot bring, whoever is left brings; so a registry that gives no
//! parts after all costs a request and nothing more.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Inner;
use super::parts::{Gain, LOOK_EVERY, Next, Parts};
use crate::clock;
use crate::oci::{Digest, Repository};
use crate::upstream::{Asker, BlobBody, Failure};

/// How often in a row a broken download is taken up again without a byte having come in between.
const RESUMES_WITHOUT_PROGRESS: u32 = 5;

/// The same for a connection that others can stand in for.
const RESUMES_OF_ANOTHER: u32 = 1;

/// How long to wait before the second resume in a row; doubled for each further one.
const RESUME_PAUSE: Duration = Duration::from_millis(200);

/// How long to wait at most for a registry that is not asked at all for a while.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What goes to the thread that writes.
pub(super) enum Piece {
    /// Bytes, and their offset.
    Bytes(u64, Bytes),
    End,
    Broken(Failure),
}

/// A blob that is coming in, and where from.
pub(super) struct Intake<'a> {
    pub(super) inner: &'a Inner,
    pub(super) asker: &'a Asker,
    pub(super) from: &'a Repository,
    pub(super) digest: &'a Digest,
    total: Option<u64>,
    queue: &'a mpsc::Sender<Piece>,
    parts: Mutex<Parts>,
    /// The offset of the first connection.
    first_at: AtomicU64,
    received: AtomicU64,
}

/// What a connection is for.
enum Job {
    /// To bring all of it, until others take parts: this body begins at the beginning.
    First(BlobBody),
    /// To bring parts, as long as there are any.
    Another,
    /// To bring what nobody else does.
    Needed(Range<u64>),
}

/// How a connection's work ended.
enum Ended {
    /// There is nothing left to do for it.
    Idle,
    /// What it did not bring is back among the parts.
    GaveUp,
    /// Nobody can bring it.
    Broken(Failure),
    /// The disk takes no more, and has told the readers.
    Unwanted,
}

impl<'a> Intake<'a> {
    pub(super) fn new(
        (inner, asker): (&'a Inner, &'a Asker),
        (from, digest): (&'a Repository, &'a Digest),
        total: Option<u64>,
        queue: &'a mpsc::Sender<Piece>,
    ) -> Self {
        let parts = Mutex::new(Parts::new(total.unwrap_or(u64::MAX)));
        let (first_at, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { inner, asker, from, digest, total, queue, parts, first_at, received }
    }

    /// Brings all of it to the queue, after this first answer.
    pub(super) async fn run(&self, body: BlobBody) -> Result<(), Failure> {
        // Where something went wrong, it is done in the plainest way.
        let failed = self.inner.downloads.has_failed(self.from, self.digest);
        let may_gain = body.ranges && self.total.is_some() && !failed;
        let mut gain = may_gain.then(|| Gain::new(self.inner.fetch.connections));
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        let mut seen = 0;
        let mut lines = FuturesUnordered::new();
        lines.push(self.work(Job::First(body)));
        loop {
            tokio::select! {
                ended = lines.next() => {
                    match ended {
                        Some(Ended::Idle) | None => {}
                        Some(Ended::GaveUp) => {
                            if let Some(gain) = &mut gain {
                                gain.gave_up();
                            }
                        }
                        Some(Ended::Broken(failure)) => return Err(failure),
                        Some(Ended::Unwanted) => return Ok(()),
                    }
                    if lines.is_empty() {
                        let Some(part) = self.parts().next() else { return Ok(()) };
                        lines.push(self.work(Job::Needed(part)));
                    }
                }
                _ = looks.tick(), if gain.is_some() => {
                    let received = self.received.load(Ordering::Relaxed);
                    let more = gain.as_mut().map_or(0, |gain| self.look(gain, received - seen, received));
                    lines.extend((0..more).map(|_| self.work(Job::Another)));
                    seen = received;
                }
            }
        }
    }

    /// How many bytes have come.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Looks how fast it comes, and answers how many connections are to be added.
    fn look(&self, gain: &mut Gain, came: u64, received: u64) -> usize {
        if self.queue.capacity() == 0 {
            // It is the disk that is slow.
            return 0;
        }
        let (paying, registry, now) = (&self.inner.downloads.paying, self.from.registry(), clock::instant());
        let known = paying.find(registry, now);
        let missing = self.total.unwrap_or(received).saturating_sub(received);
        let more = match gain.look(came, missing, known) {
            Next::Stay => 0,
            Next::Drop => {
                self.parts().one_less();
                0
            }
            Next::Add(more) => {
                let mut parts = self.parts();
                if parts.is_split() || parts.split(self.first_at.load(Ordering::Relaxed)) {
                    tracing::debug!(repository = %self.from, digest = %self.digest, more, "connections are added");
                    more
                } else {
                    gain.gave_up();
                    return 0;
                }
            }
        };
        if let (None, Some(paid)) = (known, gain.learned()) {
            paying.note(registry.clone(), paid, now);
        }
        more
    }

    async fn work(&self, job: Job) -> Ended {
        match job {
            Job::First(body) => match self.first(body).await {
                Ended::Idle => self.another().await,
                ended => ended,
            },
            Job::Another => match self.inner.downloads.further.try_acquire() {
                Ok(_permit) => self.another().await,
                Err(_) => Ended::GaveUp,
            },
            Job::Needed(part) => self.part(part, RESUMES_WITHOUT_PROGRESS).await,
        }
    }

    async fn first(&self, mut body: BlobBody) -> Ended {
        // What stands between is here already.
        let (mut at, mut wanted_from, mut resumes) = (0, 0, 0);
        let mut rest = Bytes::new();
        loop {
            let end = self.parts().first_end();
            if at >= end && Some(at) != self.total {
                let Some(next) = self.parts().goes_on() else { return Ended::Idle };
                wanted_from = next.start;
                continue;
            }
            if rest.is_empty() {
                let broken = match body.body.next().await {
                    Some(Ok(bytes)) => {
                        resumes = 0;
                        rest = bytes;
                        continue;
                    }
                    None if self.total.is_none_or(|total| at >= total) => return Ended::Idle,
                    None => ended_early(),
                    Some(Err(failure)) => failure,
                };
                match self.resume(at, None, (resumes, RESUMES_WITHOUT_PROGRESS), broken).await {
                    Ok(resumed) => (body, resumes) = resumed,
                    Err(failure) => return Ended::Broken(failure),
                }
                continue;
            }
            if Some(at) == self.total {
                // Only an answer that tells no length can have more.
                return Ended::Broken(Failure::Unusable("it sent more bytes than it had announced".into()));
            }
            // What lies behind the end is kept: the body may be read on from there.
            let length = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            match self.send(at, rest.split_to(length), wanted_from..end).await {
                Some(next) => at = next,
                None => return Ended::Unwanted,
            }
            self.first_at.store(at, Ordering::Relaxed);
        }
    }

    /// Brings one part after the other.
    async fn another(&self) -> Ended {
        loop {
            let Some(part) = self.parts().next_for_another() else { return Ended::Idle };
            match self.part(part, RESUMES_OF_ANOTHER).await {
                Ended::Idle => {}
                ended => return ended,
            }
        }
    }

    /// Brings a part. One that others may bring is given back when it breaks more often in a row than this.
    async fn part(&self, part: Range<u64>, most: u32) -> Ended {
        let (mut at, end) = (part.start, part.end);
        let (mut body, mut resumes) = match self.ask(at, Some(end), most).await {
            Ok(body) => (body, 0),
            Err(broken) => match self.resume(at, Some(end), (0, most), broken).await {
                Ok(resumed) => resumed,
                Err(failure) => return self.given_up(at..end, most, failure),
            },
        };
        while at < end {
            let broken = match body.body.next().await {
                Some(Ok(bytes)) => {
                    resumes = 0;
                    match self.send(at, bytes, at..end).await {
                        Some(next) => at = next,
                        None => return Ended::Unwanted,
                    }
                    continue;
                }
                None => ended_early(),
                Some(Err(failure)) => failure,
            };
            match self.resume(at, Some(end), (resumes, most), broken).await {
                Ok(resumed) => (body, resumes) = resumed,
                Err(failure) => return self.given_up(at..end, most, failure),
            }
        }
        // Its end is read too: only then can the connection serve again.
        if body.ends_at == Some(end) {
            let _ = body.body.next().await;
        }
        Ended::Idle
    }

    fn given_up(&self, rest: Range<u64>, most: u32, failure: Failure) -> Ended {
        if most == RESUMES_WITHOUT_PROGRESS {
            return Ended::Broken(failure);
        }
        tracing::info!(
            repository = %self.from, digest = %self.digest, offset = rest.start, why = %failure,
            "a part of a blob is left to other connections"
        );
        self.parts().give_back(rest);
        Ended::GaveUp
    }

    /// Hands on what of these bytes is wanted, and answers where the next ones belong.
    async fn send(&self, at: u64, mut bytes: Bytes, wanted: Range<u64>) -> Option<u64> {
        let length = |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        bytes.truncate(length(at, wanted.end));
        let next = at + bytes.len() as u64;
        let unwanted = length(at, wanted.start).min(bytes.len());
        bytes::Buf::advance(&mut bytes, unwanted);
        if !bytes.is_empty() {
            self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.queue.send(Piece::Bytes(next - bytes.len() as u64, bytes)).await.ok()?;
        }
        Some(next)
    }

    /// Asks again for what is missing.
    async fn resume(
        &self,
        at: u64,
        end: Option<u64>,
        (mut resumes, most): (u32, u32),
        mut broken: Failure,
    ) -> Result<(BlobBody, u32), Failure> {
        loop {
            if resumes == most {
                return Err(broken);
            }
            if let Failure::Shut { opens_in, .. } = broken {
                tokio::time::sleep(opens_in.min(LONGEST_PAUSE)).await;
            } else if resumes > 0 {
                tokio::time::sleep(RESUME_PAUSE * 2_u32.pow(resumes - 1)).await;
            }
            resumes += 1;
            tracing::info!(
                repository = %self.from, digest = %self.digest, offset = at, why = %broken,
                "a download broke and is resumed"
            );
            match self.ask(at, end, most).await {
                Ok(body) => return Ok((body, resumes)),
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

    /// Asks for the bytes from an offset on, up to an end or to the blob's.
    async fn ask(&self, at: u64, end: Option<u64>, most: u32) -> Result<BlobBody, Failure> {
        let (upstreams, total) = (&self.inner.upstreams, self.total);
        let body = match (end, total) {
            (Some(end), Some(total)) => {
                upstreams.get_part(self.asker, self.from, self.digest, &(at..end), total).await?
            }
            _ => upstreams.get_blob(self.asker, self.from, self.digest, at, total).await?,
        };
        if body.starts_at != at && most == RESUMES_OF_ANOTHER {
            return Err(Failure::Unusable("it gives no parts".into()));
        }
        skipping(body, at).ok_or_else(|| Failure::Unusable("it answered with another range".into()))
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended_early() -> Failure {
    Failure::Unusable("its body ended early".into())
}

/// A body from an offset on, where the registry starts there or before: it may not know ranges.
fn skipping(mut body: BlobBody, offset: u64) -> Option<BlobBody> {
    let mut skip = offset.checked_sub(body.starts_at)?;
    if skip == 0 {
        return Some(body);
    }
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
