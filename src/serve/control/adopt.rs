//! The control socket: taking over what a containerd's own store holds, and giving it back, as the gRPC service
//! `tidehold.v1.Adoption`. Which files these are, and where they come from, the client knows; what is said to be a blob
//! is believed of none of them.
//!
//! Invariant: a blob is answered as taken over once it is durable and relied on. A call whose client has left does
//! nothing more, and leaves no file behind.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{MAX_REQUEST_BYTES, Replies};
use crate::clock;
use crate::oci::{Digest, DigestError, Registry, Repository};
use crate::proto::v1;
use crate::proto::v1::adoption_server::{Adoption as Service, AdoptionServer};
use crate::proto::v1::take_over_response::Answer;
use crate::store::{AdoptedFrom, ArrivalError, Arrivals, Hold, Kept, Owner, StoreError, blocking};

/// How many digests one `Look`, `NoteSource` or `Release` may have, and how many one request of `TakeOver`.
const MOST_DIGESTS: usize = 4096;
const MOST_AT_ONCE: usize = 256;

/// How many requests of one `TakeOver` are worked on at a time: hashing takes a processor each.
const AT_ONCE: usize = 4;

/// How many `TakeOver` calls may run at a time.
const CALLS_AT_ONCE: usize = 4;

/// How often the bytes that were read are told, in bytes.
const TELL_EVERY: u64 = 16 << 20;

/// How many of a containerd's blobs stand in one answer.
const PAGE: usize = 256;

/// The hold, for whoever brings another store's blobs. Cheap to clone.
#[derive(Clone)]
pub struct AdoptionService {
    hold: Hold,
    containerds: Arc<[String]>,
    calls: Arc<Semaphore>,
    stop: CancellationToken,
}

impl AdoptionService {
    /// The service for these containerds, by their names. At `stop`, `TakeOver` calls end, however much is left to do.
    pub fn new(hold: Hold, containerds: impl IntoIterator<Item = String>, stop: CancellationToken) -> Self {
        let (containerds, calls) =
            (containerds.into_iter().collect(), Arc::new(Semaphore::new(CALLS_AT_ONCE)));
        Self { hold, containerds, calls, stop }
    }

    /// The service, ready to be served.
    pub fn into_server(self) -> AdoptionServer<impl Service> {
        AdoptionServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn containerd(&self, name: &str) -> Result<&str, Status> {
        match (&*self.containerds, name) {
            ([only], "") => Ok(only),
            (several, "") => {
                let names = several.join(", ");
                Err(Status::invalid_argument(format!(
                    "there are several containerds, name one of them: {names}"
                )))
            }
            (all, name) => all.iter().find(|known| *known == name).map(String::as_str).ok_or_else(|| {
                let names = all.join(", ");
                Status::invalid_argument(format!(
                    "the configuration has no containerd {name:?}, only: {names}"
                ))
            }),
        }
    }

    fn owner(&self, name: &str) -> Result<Owner, Status> {
        self.containerd(name).map(Owner::new)
    }
}

#[tonic::async_trait]
impl Service for AdoptionService {
    async fn look(&self, request: Request<v1::LookRequest>) -> Result<Response<v1::LookResponse>, Status> {
        let v1::LookRequest { containerd, digests } = request.into_inner();
        let name = self.containerd(&containerd)?.to_owned();
        let (digests, hold) = (parsed(&digests, MOST_DIGESTS)?, self.hold.clone());
        let looked = blocking(move || look(&hold, name, &digests)).await;
        looked.map(Response::new).map_err(failed)
    }

    type TakeOverStream = Replies<v1::TakeOverResponse>;

    async fn take_over(
        &self,
        request: Request<Streaming<v1::TakeOverRequest>>,
    ) -> Result<Response<Self::TakeOverStream>, Status> {
        let Ok(place) = Arc::clone(&self.calls).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("{CALLS_AT_ONCE} calls are taking over already")));
        };
        let mut requests = request.into_inner();
        let begin = requests.message().await?.unwrap_or_default();
        let owner = self.owner(&begin.containerd)?;
        let (answers, answered) = mpsc::channel(MOST_AT_ONCE);
        let call = Call { arrivals: Arc::new(self.hold.arrivals()), owner, answers };
        let stop = self.stop.clone();
        // It ends with its client, at a stop, or with its requests, whichever comes first.
        tokio::spawn(async move {
            call.run(requests, stop).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }

    async fn note_source(
        &self,
        request: Request<v1::NoteSourceRequest>,
    ) -> Result<Response<v1::NoteSourceResponse>, Status> {
        let v1::NoteSourceRequest { containerd, repository, digests } = request.into_inner();
        let (owner, digests) = (self.owner(&containerd)?, parsed(&digests, MOST_DIGESTS)?);
        let (repository, hold) = (named(&repository)?, self.hold.clone());
        let noted = blocking(move || {
            let mut noted = 0;
            for digest in &digests {
                noted += u64::from(hold.note_told_source(&owner, digest, &repository)?);
            }
            Ok(noted)
        });
        Ok(Response::new(v1::NoteSourceResponse { noted: noted.await.map_err(failed)? }))
    }

    type ReliedOnStream = Replies<v1::ReliedOnResponse>;

    async fn relied_on(
        &self,
        request: Request<v1::ReliedOnRequest>,
    ) -> Result<Response<Self::ReliedOnStream>, Status> {
        let (owner, hold) = (self.owner(&request.into_inner().containerd)?, self.hold.clone());
        let pages = stream::try_unfold(Some(None), move |cursor: Option<Option<Digest>>| {
            let (owner, hold) = (owner.clone(), hold.clone());
            async move {
                let Some(after) = cursor else { return Ok(None) };
                let page =
                    blocking(move || relied_on(&hold, &owner, after.as_ref())).await.map_err(failed)?;
                let (blobs, last) = page;
                Ok((!blobs.is_empty()).then(|| (v1::ReliedOnResponse { blobs }, last.map(Some))))
            }
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let v1::ReleaseRequest { containerd, digests } = request.into_inner();
        let (owner, digests) = (self.owner(&containerd)?, parsed(&digests, MOST_DIGESTS)?);
        let hold = self.hold.clone();
        let released = blocking(move || {
            let mut released = 0;
            for digest in &digests {
                released += u64::from(hold.release(&owner, digest)?);
            }
            Ok(released)
        });
        Ok(Response::new(v1::ReleaseResponse { released: released.await.map_err(failed)? }))
    }

    async fn note(&self, request: Request<v1::NoteRequest>) -> Result<Response<v1::NoteResponse>, Status> {
        let v1::NoteRequest { containerd, adopted_from } = request.into_inner();
        let (owner, hold) = (self.owner(&containerd)?, self.hold.clone());
        let from = adopted_from.map(noted).transpose()?;
        let kept = blocking(move || match from {
            Some(from) => hold.note_adopted_from(&owner, &from),
            None => hold.forget_adopted_from(&owner),
        });
        kept.await.map_err(failed)?;
        Ok(Response::new(v1::NoteResponse {}))
    }
}

fn look(hold: &Hold, name: String, digests: &[Digest]) -> Result<v1::LookResponse, StoreError> {
    let owner = Owner::new(&name);
    let mut known = Vec::new();
    for digest in digests {
        let held = hold.held(digest)?.is_some();
        let adopted = held && hold.adopted(&owner, digest)?.is_some();
        known.push(match (held, adopted) {
            (_, true) => v1::Known::Adopted.into(),
            (true, false) => v1::Known::Held.into(),
            (false, false) => v1::Known::Unspecified.into(),
        });
    }
    // Of a folder that cannot be looked at nobody else sees the same.
    let folder = std::fs::metadata(hold.data_dir()).map_or((0, 0), |folder| (folder.dev(), folder.ino()));
    let data_dir = hold.data_dir().display().to_string();
    Ok(v1::LookResponse { containerd: name, data_dir, device: folder.0, inode: folder.1, known })
}

/// A page of what a containerd relies on, and where to go on.
fn relied_on(
    hold: &Hold,
    owner: &Owner,
    after: Option<&Digest>,
) -> Result<(Vec<v1::ReliedOnBlob>, Option<Digest>), StoreError> {
    let adopted = hold.adopted_after(owner, after, PAGE)?;
    let last = adopted.last().filter(|_| adopted.len() == PAGE).map(|last| last.blob.digest.clone());
    let mut blobs = Vec::new();
    for blob in adopted.into_iter().map(|adopted| adopted.blob) {
        let held = match hold.held(&blob.digest)? {
            Some(_) => true,
            // A file that looks like another one is read before that is said of it.
            None => matches!(hold.read(&blob.digest)?, crate::store::Reading::Open(_)),
        };
        let path = hold.path_of(&blob.digest);
        let file = path.strip_prefix(hold.data_dir()).ok().filter(|_| held);
        let file = file.map(|file| file.display().to_string()).unwrap_or_default();
        blobs.push(v1::ReliedOnBlob { digest: blob.digest.to_string(), size: blob.size, file });
    }
    Ok((blobs, last))
}

/// One `TakeOver`.
struct Call {
    arrivals: Arc<Arrivals>,
    owner: Owner,
    answers: mpsc::Sender<Result<v1::TakeOverResponse, Status>>,
}

impl Call {
    async fn run(self, mut requests: Streaming<v1::TakeOverRequest>, stop: CancellationToken) {
        let folder = self.arrivals.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = v1::Place { folder, prefix: self.arrivals.prefix() };
        let _ = self.answers.send(Ok(answer(Answer::Place(place)))).await;
        let mut working: JoinSet<Result<(), Status>> = JoinSet::new();
        // Told to those that work: the answer to their next question is to break off.
        let go_on = stop.child_token();
        let (mut ended, mut more) = (Ok(()), true);
        while ended.is_ok() && (more || !working.is_empty()) {
            tokio::select! {
                () = stop.cancelled() => {
                    ended = Err(Status::unavailable("the daemon is stopping: run this again once it is back"));
                }
                () = self.answers.closed() => break,
                Some(done) = working.join_next() => {
                    ended = done.unwrap_or_else(|panic| Err(Status::internal(panic.to_string())));
                }
                request = requests.message(), if more && working.len() < AT_ONCE => match request {
                    Ok(Some(request)) => match parsed(&request.digests, MOST_AT_ONCE) {
                        Ok(digests) => drop(working.spawn(self.worker(digests, go_on.clone()))),
                        Err(status) => ended = Err(status),
                    },
                    Ok(None) => more = false,
                    Err(status) => ended = Err(status),
                },
            }
        }
        go_on.cancel();
        // Nobody else may be reading what is removed now.
        while working.join_next().await.is_some() {}
        if let Err(status) = ended {
            let _ = self.answers.send(Err(status)).await;
        }
        let arrivals = self.arrivals;
        blocking(move || drop(arrivals)).await;
    }

    /// The work on one request.
    fn worker(
        &self,
        digests: Vec<Digest>,
        go_on: CancellationToken,
    ) -> impl Future<Output = Result<(), Status>> + Send + use<> {
        let (arrivals, owner, answers) =
            (Arc::clone(&self.arrivals), self.owner.clone(), self.answers.clone());
        async move {
            let telling = answers.clone();
            let untold = AtomicU64::new(0);
            let asked = digests.clone();
            let worked = blocking(move || {
                let tell = |bytes| {
                    let so_far = untold.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    if so_far >= TELL_EVERY {
                        untold.store(0, Ordering::Relaxed);
                        // Where the client is slow, it learns of these bytes with the blob.
                        let _ =
                            telling.try_send(Ok(answer(Answer::Verified(v1::Verified { bytes: so_far }))));
                    }
                    !go_on.is_cancelled() && !telling.is_closed()
                };
                arrivals.take_over(&owner, &asked, clock::now(), tell)
            });
            for (digest, taken) in digests.iter().zip(worked.await.map_err(failed)?) {
                let _ = answers.send(Ok(answer(told(digest, taken)))).await;
            }
            Ok(())
        }
    }
}

fn answer(answer: Answer) -> v1::TakeOverResponse {
    v1::TakeOverResponse { answer: Some(answer) }
}

fn told(digest: &Digest, taken: Result<Kept, ArrivalError>) -> Answer {
    let digest = digest.to_string();
    match taken {
        Ok(Kept::New(blob)) => Answer::Taken(v1::Taken { digest, size: blob.size, held: false }),
        Ok(Kept::Already(blob)) => Answer::Taken(v1::Taken { digest, size: blob.size, held: true }),
        Err(error) => {
            let bad = match &error {
                ArrivalError::NotAFile | ArrivalError::Digest { .. } | ArrivalError::Unreadable(_) => true,
                ArrivalError::Missing | ArrivalError::Changed | ArrivalError::BrokenOff => false,
            };
            Answer::Refused(v1::Refused { digest, bad, reason: error.to_string() })
        }
    }
}

/// At most so many digests, each once.
fn parsed(digests: &[String], most: usize) -> Result<Vec<Digest>, Status> {
    if digests.len() > most {
        return Err(Status::invalid_argument(format!("more than {most} digests")));
    }
    let malformed = |error: DigestError| Status::invalid_argument(error.to_string());
    let mut met = HashSet::new();
    let parsed = digests.iter().map(|digest| digest.parse::<Digest>().map_err(malformed));
    let parsed: Vec<Digest> = parsed.collect::<Result<_, _>>()?;
    match parsed.iter().find(|digest| !met.insert(*digest)) {
        Some(twice) => Err(Status::invalid_argument(format!("{twice} is named twice"))),
        None => Ok(parsed),
    }
}

fn named(repository: &str) -> Result<Repository, Status> {
    let (registry, name) = repository.split_once('/').unwrap_or_default();
    let registry = registry.parse::<Registry>();
    let repository = registry.and_then(|registry| Repository::new(registry, name));
    repository.map_err(|error| Status::invalid_argument(error.to_string()))
}

fn noted(from: v1::AdoptedFrom) -> Result<AdoptedFrom, Status> {
    let at = from.at.and_then(|at| std::time::SystemTime::try_from(at).ok());
    let at = at.ok_or_else(|| Status::invalid_argument("when it was taken over is missing"))?;
    Ok(AdoptedFrom { root: from.root.into(), at, blobs: from.blobs })
}

fn failed(error: StoreError) -> Status {
    Status::internal(match &error {
        // It is sled's first failure that counts, and only a new start helps.
        StoreError::Index { .. } => format!(
            "{error}: where its disk is full, make room. Once that can be written again the daemon ends, to be started anew"
        ),
        error if error.is_for_want_of_room() => format!("{error}: make room"),
        error => match error.mend() {
            Some(mend) => format!("{error}: {mend}"),
            None => error.to_string(),
        },
    })
}
