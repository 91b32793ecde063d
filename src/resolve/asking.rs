//! What the decision's requests come to: who is asked, as whom, how often, and what is kept of the answer.
//!
//! Invariant: what is fetched as one is given to nobody whose own right the registry has not shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::callers::{Caller, Guise};
use super::decide::{self, Ask, Gate, Gates, Question, Reply, Step, decide};
use super::{Inner, Refusal};
use crate::access::Admission;
use crate::clock;
use crate::oci::{Digest, Kind, MAX_MANIFEST_BYTES, Manifest, ManifestError, Reference, Repository};
use crate::store::{CommitError, Protected, StoreError, blocking};
use crate::upstream::{Asker, Cost, Credential, Described, Failure, Wait};

/// How long one request to a registry may take, with all that it needs before it is answered.
pub(super) const ASK_DEADLINE: Duration = Duration::from_secs(12);

/// How often a registry is asked again that had trouble for a moment, and how long after the first time; doubled for the
/// next.
const RETRIES: u32 = 2;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What is asked for, by whom, and with what right.
pub(super) struct Errand<'a> {
    caller: &'a Caller,
    guise: &'a Guise,
    admission: Admission,
    repository: &'a Repository,
    reference: &'a Reference,
    /// Whether only the registry itself will do, because its answer is to show who may read.
    pub(super) only_registry: bool,
    /// As whom what counts is fetched.
    fetching: Credential,
    /// What was fetched is not evicted for as long as this lives.
    kept: &'a Mutex<Vec<Arc<Protected>>>,
}

impl Errand<'_> {
    /// As whom, and of whom, this is asked for.
    pub(super) fn asker_of(&self, ask: &Ask) -> Asker {
        self.asker(match ask {
            Ask::Head | Ask::List => self.guise.credential.clone(),
            Ask::Get | Ask::GetDigest(_) => self.fetching.clone(),
        })
    }

    fn asker(&self, credential: Credential) -> Asker {
        Asker { credential, account: self.caller.account.clone(), only_registry: self.only_registry }
    }

    fn keep(&self, protected: Arc<Protected>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(protected);
    }
}

/// Why there is no reply to decide on, or only a bad one.
#[derive(Clone)]
pub(super) enum Unanswered {
    Upstream(Failure),
    Store(StoreError),
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl From<StoreError> for Unanswered {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A fetch that has ended, and as whom and of whom it was.
pub(super) type Fetched = (Asker, Result<Arc<Protected>, Unanswered>);

impl Inner {
    /// An errand with such a right, and whom it has to be asked of as long as all are there.
    pub(super) fn errand<'a>(
        &self,
        caller: &'a Caller,
        guise: &'a Guise,
        admission: Admission,
        (repository, reference): (&'a Repository, &'a Reference),
        kept: &'a Mutex<Vec<Arc<Protected>>>,
    ) -> Errand<'a> {
        Errand {
            caller,
            guise,
            admission,
            repository,
            reference,
            only_registry: self.asks_registry_alone(admission, repository),
            fetching: self.fetching(guise, admission, repository),
            kept,
        }
    }

    /// Asks, and again where that may help and nothing else does: one bad answer is not to fail the pulls of all who
    /// wait for it.
    pub(super) async fn ask_again(
        self: &Arc<Self>,
        errand: &Errand<'_>,
        ask: &Ask,
        question: &Question,
    ) -> Result<Reply, Unanswered> {
        let stands_in = stands_in(question);
        let may_pass = |unanswered: &Unanswered| match unanswered {
            Unanswered::Upstream(failure) => failure.may_pass() && !stands_in,
            Unanswered::Store(_) => false,
        };
        again(may_pass, || self.ask_in_time(errand, ask)).await
    }

    /// A cold question may need a token first and meet a slow registry at each turn.
    async fn ask_in_time(self: &Arc<Self>, errand: &Errand<'_>, ask: &Ask) -> Result<Reply, Unanswered> {
        let asked = tokio::time::timeout(ASK_DEADLINE, self.ask(errand, ask)).await;
        asked.unwrap_or_else(|_| Err(Failure::TimedOut(Wait::Headers).into()))
    }

    async fn ask(self: &Arc<Self>, errand: &Errand<'_>, ask: &Ask) -> Result<Reply, Unanswered> {
        match (ask, errand.reference) {
            (Ask::Head, _) => self.head(errand).await,
            (Ask::GetDigest(digest), _) | (Ask::Get, Reference::Digest(digest)) => {
                self.fetched(errand, digest).await
            }
            (Ask::Get, Reference::Tag(_)) => {
                let asker = errand.asker(errand.fetching.clone());
                let before = asker.account.cost();
                let bytes = self.get(&asker, errand.guise, errand.repository, errand.reference).await?;
                let digest = Digest::of(&bytes);
                parsed(&bytes)?;
                let came = Came { from: errand.repository, asker: &asker, before };
                errand.keep(self.keep(bytes, digest.clone(), &came).await?);
                Ok(Reply::Got(digest))
            }
            // No manifest is asked for in this way.
            (Ask::List, _) => Err(Failure::Missing.into()),
        }
    }

    async fn head(&self, errand: &Errand<'_>) -> Result<Reply, Unanswered> {
        let Errand { guise, repository, reference, .. } = errand;
        let asker = errand.asker(guise.credential.clone());
        let described = self.upstreams.head_manifest(&asker, repository, reference).await;
        if let (Ok(Described { digest: None, .. }) | Err(Failure::NoHead { .. }), Reference::Tag(_)) =
            (&described, reference)
        {
            self.without_head.note(repository.registry().clone(), (), clock::instant());
        }
        let Described { digest, media_type, left, size } = described?;
        let digest = match reference {
            // A registry that has it under its digest need not repeat the digest.
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(_) => digest,
        };
        let Some(to) = digest else { return Ok(Reply::NoDigest) };
        let bytes = match self.bytes_for(repository, &to).await {
            Ok(bytes) => bytes,
            Err(Refusal::Store(error)) => return Err(error.into()),
            Err(_) => decide::Bytes::Absent,
        };
        let media_type = media_type.unwrap_or_default();
        if bytes == decide::Bytes::Absent {
            // What cannot be served is not worth a pull.
            if size.is_some_and(|size| size > MAX_MANIFEST_BYTES) {
                return Err(Failure::TooLarge { most: MAX_MANIFEST_BYTES }.into());
            }
            if ManifestError::is_schema_1(&media_type) {
                return Err(Failure::Unusable(ManifestError::Schema1.to_string().into()).into());
            }
        }
        // An index is of no use without one of the images it lists, which is another pull.
        let needed = if Kind::is_index(&media_type) { 2 } else { 1 };
        let short = left.is_some_and(|left| left.remaining < needed);
        Ok(Reply::Points { to, bytes, short })
    }

    /// Fetches a manifest by its digest, once for all who want it from this repository. Whoever was not first in line
    /// and finds that this one's right did not suffice tries with their own.
    async fn fetched(self: &Arc<Self>, errand: &Errand<'_>, digest: &Digest) -> Result<Reply, Unanswered> {
        let repository = errand.repository;
        // What was found to be of no use is known to those alone who may read.
        let known = self.unusable.find(&(repository.clone(), digest.clone()), clock::instant());
        if let Some(failure) = known.filter(|_| errand.admission == Admission::Granted) {
            return Err(failure.into());
        }
        let asker = errand.asker(errand.fetching.clone());
        let fetch = || {
            let (inner, asker, guise) = (Arc::clone(self), asker.clone(), errand.guise.clone());
            let (repository, digest) = (repository.clone(), digest.clone());
            async move {
                let fetched = inner.fetch(&asker, &guise, &repository, &digest).await;
                (asker, fetched)
            }
        };
        let key = (repository.clone(), digest.clone());
        let Some((by, fetched)) = self.fetches.join(key, fetch).await else {
            return Err(Failure::TimedOut(Wait::Body).into());
        };
        let other = by.credential != asker.credential || by.only_registry != asker.only_registry;
        match fetched {
            Ok(protected) if other && errand.admission != Admission::Granted => {
                errand.keep(protected);
                // Somebody else's right has brought it in, which says nothing of this one's.
                let reference = Reference::Digest(digest.clone());
                let own = errand.asker(errand.guise.credential.clone());
                self.upstreams.head_manifest(&own, repository, &reference).await?;
            }
            Err(Unanswered::Upstream(failure)) if other && failure.may_differ_for_others() => {
                errand.keep(self.fetch(&asker, errand.guise, repository, digest).await?);
            }
            fetched => errand.keep(fetched?),
        }
        Ok(Reply::Got(digest.clone()))
    }

    /// The bytes that a reference stands for; where the hold's own login does not serve, whoever it was to serve asks.
    async fn get(
        &self,
        asker: &Asker,
        guise: &Guise,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Bytes, Failure> {
        match self.upstreams.get_manifest(asker, repository, reference).await {
            Err(failure) if asker.credential != guise.credential => {
                tracing::debug!(%repository, why = %failure, "fetched without the hold's own login");
                let asker = Asker { credential: guise.credential.clone(), ..asker.clone() };
                self.upstreams.get_manifest(&asker, repository, reference).await
            }
            fetched => fetched,
        }
    }

    async fn fetch(
        &self,
        asker: &Asker,
        guise: &Guise,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Arc<Protected>, Unanswered> {
        let key = (repository.clone(), digest.clone());
        let came = Came { from: repository, asker, before: asker.account.cost() };
        let fetched = self.get(asker, guise, repository, &Reference::Digest(digest.clone())).await;
        // These are the bytes of that digest: no second pull will make more of them.
        let fit = match fetched {
            Ok(bytes) => parsed(&bytes).map(|()| bytes),
            Err(failure @ Failure::TooLarge { .. }) => Err(failure),
            Err(failure) => return Err(failure.into()),
        };
        match fit {
            Ok(bytes) => self.keep(bytes, digest.clone(), &came).await,
            Err(failure) => {
                self.unusable.note(key, failure.clone(), clock::instant());
                Err(failure.into())
            }
        }
    }

    async fn keep(
        &self,
        bytes: Bytes,
        digest: Digest,
        came: &Came<'_>,
    ) -> Result<Arc<Protected>, Unanswered> {
        let counted = came.asker.account.cost().counted.saturating_sub(came.before.counted);
        self.record.arrived(&digest, came.from, bytes.len() as u64, counted, clock::now());
        let hold = self.hold.clone();
        let kept = blocking(move || {
            let protected = hold.protect(&digest);
            hold.keep(&bytes, &digest, clock::now()).map(|_| Arc::new(protected))
        });
        kept.await.map_err(|error| match error {
            CommitError::Store(error) => error.into(),
            error @ (CommitError::Digest { .. } | CommitError::Size { .. } | CommitError::NoRoom) => {
                Failure::Unusable(error.to_string().into()).into()
            }
        })
    }
}

/// Where a manifest has come from, for whom, and what that one had spent before.
struct Came<'a> {
    from: &'a Repository,
    asker: &'a Asker,
    before: Cost,
}

fn parsed(bytes: &[u8]) -> Result<(), Failure> {
    Manifest::parse(bytes).map(drop).map_err(|error| Failure::Unusable(error.to_string().into()))
}

/// Tries something, and again where what came of it may have passed in a moment.
pub(super) async fn again<T, E, F>(may_pass: impl Fn(&E) -> bool, attempt: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut retries = 0;
    loop {
        match attempt().await {
            Err(error) if retries < RETRIES && may_pass(&error) => {
                tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(retries)).await;
                retries += 1;
            }
            tried => return tried,
        }
    }
}

/// Whether there is something to serve in the place of an answer.
pub(super) fn stands_in(question: &Question) -> bool {
    let gates = Gates { all: Gate::Open, pulls: Gate::Open };
    matches!(decide(question, Some(&Reply::Failed), gates, clock::now()), Step::Serve(..))
}

/// What a failure means for the decision.
pub(super) fn reply_of(failure: &Failure, ask: &Ask) -> Reply {
    match (failure, ask) {
        // It was announced a moment ago: the registry is not at one with itself, and the tag not gone.
        (Failure::Missing, Ask::GetDigest(_)) => Reply::Failed,
        (Failure::Missing, Ask::Head | Ask::Get | Ask::List) => Reply::Missing,
        (Failure::Denied { .. } | Failure::NoToken { .. }, _) => Reply::Denied,
        (Failure::NoHead { .. }, _) => Reply::NoDigest,
        (
            Failure::Limited { .. }
            | Failure::Shut { .. }
            | Failure::Unavailable { .. }
            | Failure::Unreachable(_)
            | Failure::Broken(_)
            | Failure::TimedOut(_)
            | Failure::Forbidden(_)
            | Failure::TooLarge { .. }
            | Failure::Unusable(_),
            _,
        ) => Reply::Failed,
    }
}
