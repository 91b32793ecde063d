//! The driver of the decision: a few lines that ask, keep, and decide again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::callers::{Caller, Guise};
use super::decide::{
    self, Ask, Gate, Gates, Held, LastSeen, Question, Reply, Standing, Step, Way, Why, decide,
};
use super::{Inner, Refusal, Served};
use crate::access::Admission;
use crate::clock;
use crate::oci::{Digest, Kind, Manifest, Reference, Repository};
use crate::store::{CommitError, StoreError, TagEntry, blocking};
use crate::upstream::{Asker, Credential, Described, Failure, Wait};

/// How long one request to a registry may take, with all that it needs before it is answered.
pub(super) const ASK_DEADLINE: Duration = Duration::from_secs(12);

/// How long somebody waits for an answer, whoever else waits for it too: containerd gives up after 30 s and would then
/// go past us. Better a stale answer before that.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(25);

/// How often a registry is asked again that had trouble for a moment, and how long after the first time; doubled for the
/// next.
pub(super) const RETRIES: u32 = 2;
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);

impl Inner {
    pub(super) async fn manifest(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let mut refused = Refusal::Internal;
        for guise in self.guises(&caller.client, repository)? {
            match self.manifest_as(caller, guise, repository, reference).await {
                Err(refusal) if refusal.may_differ_for_others() => refused = refusal,
                answered => return answered,
            }
        }
        Err(refused)
    }

    async fn manifest_as(
        self: &Arc<Self>,
        caller: &Caller,
        guise: Guise,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let mut question = self.question(&guise, repository, reference).await?;
        let now = clock::now();
        if let Step::Serve(digest, standing) =
            decide(&question, None, self.gates(&question, &guise, repository), now)
        {
            return self.served(digest.clone(), standing, age(&question, &digest, standing, now)).await;
        }
        let key = (repository.clone(), reference.clone(), guise.clone());
        if let Some(refusal) = self.refused.find(&key, clock::instant()) {
            return Err(refusal);
        }
        let flight = || {
            let (inner, caller, key) = (Arc::clone(self), caller.clone(), key.clone());
            async move { inner.drive(&caller, &key.2, &key.0, &key.1).await }
        };
        let landed = tokio::time::timeout(ANSWER_DEADLINE, self.manifests.join(key.clone(), flight)).await;
        if let Ok(answered) = landed {
            return answered.unwrap_or(Err(Refusal::Internal));
        }
        // It goes on; this client does not wait for it.
        let now = clock::now();
        let gates = Gates { all: Gate::Shut, pulls: Gate::Shut };
        question = self.question(&guise, repository, reference).await.unwrap_or(question);
        match decide(&question, Some(&Reply::Failed), gates, now) {
            Step::Serve(digest, standing) => {
                self.served(digest.clone(), standing, age(&question, &digest, standing, now)).await
            }
            Step::Ask(_) | Step::Refuse(_) => {
                let failure = Failure::TimedOut(Wait::Headers);
                Err(Refusal::Unanswered { what: shown(repository, reference), failure })
            }
        }
    }

    async fn drive(
        self: &Arc<Self>,
        caller: &Caller,
        guise: &Guise,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let mut question = self.question(guise, repository, reference).await?;
        let mut reply = None;
        let mut failure = None;
        loop {
            let now = clock::now();
            let gates = self.gates(&question, guise, repository);
            match decide(&question, reply.as_ref(), gates, now) {
                Step::Ask(ask) => {
                    let errand =
                        Errand { caller, guise, admission: question.admission(), repository, reference };
                    match self.ask_again(&errand, &ask, &question).await {
                        Ok(answered) => {
                            let shown = match ask {
                                Ask::Head | Ask::List => guise.credential.clone(),
                                Ask::Get | Ask::GetDigest(_) => {
                                    self.fetching(guise, question.admission(), repository)
                                }
                            };
                            self.note_reader(guise, &shown, repository, now);
                            question = question.granted();
                            reply = Some(answered);
                        }
                        Err(Unanswered::Upstream(failed)) => {
                            self.note_denial(guise, repository, &failed, now);
                            reply = Some(reply_of(&failed, &ask));
                            failure = Some(failed);
                        }
                        Err(Unanswered::Store(error)) => return Err(error.into()),
                    }
                }
                Step::Serve(digest, standing) => {
                    self.unnoted.tell(self.note(repository, reference, &digest, standing, now));
                    let age = age(&question, &digest, standing, now);
                    let served = self.served(digest, standing, age).await?;
                    self.unnoted.tell(self.note_children(repository, &served, now));
                    self.settle(standing).await;
                    return Ok(served);
                }
                Step::Refuse(why) => {
                    let no_token = matches!(failure, Some(Failure::NoToken { .. }));
                    let refusal = self.refusal(&question, why, failure, guise, repository, reference);
                    // A token service that is locked out is soon asked again.
                    if let Some(Reply::Missing | Reply::Denied) = reply
                        && !no_token
                    {
                        let key = (repository.clone(), reference.clone(), guise.clone());
                        self.refused.note(key, refusal.clone(), clock::instant());
                    }
                    return Err(refusal);
                }
            }
        }
    }

    fn refusal(
        &self,
        question: &Question,
        why: Why,
        failure: Option<Failure>,
        guise: &Guise,
        repository: &Repository,
        reference: &Reference,
    ) -> Refusal {
        let what = shown(repository, reference);
        match why {
            Why::Missing => {
                // A registry may say so to whoever may not know.
                match question.admission() {
                    Admission::Granted | Admission::WasPublic | Admission::Lapsed => {
                        self.unnoted.tell(self.forget(repository, reference));
                    }
                    Admission::Unknown | Admission::Barred => {}
                }
                Refusal::MissingManifest(what)
            }
            Why::Denied => self.denied(what, repository, failure.as_ref()),
            Why::Failed => {
                let shut = || {
                    let credential = self.fetching(guise, question.admission(), repository);
                    self.upstreams
                        .open(&guise.credential, repository)
                        .all
                        .err()
                        .or_else(|| self.upstreams.open(&credential, repository).pulls.err())
                };
                Refusal::unanswered(what, failure, shut)
            }
        }
    }

    async fn question(
        &self,
        guise: &Guise,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Question, Refusal> {
        let admission = self.admission(guise, repository, clock::now())?;
        Ok(match reference {
            Reference::Digest(digest) => {
                let held = match self.hold.blob(digest)? {
                    None => Held::No,
                    Some(_) if self.hold.seen_in(digest, repository)? => Held::Here,
                    Some(_) => Held::Elsewhere,
                };
                Question::Digest { digest: digest.clone(), held, admission }
            }
            Reference::Tag(tag) => {
                let mut seen = Vec::new();
                for TagEntry { digest, confirmed_at } in self.hold.tag(repository, tag)? {
                    let bytes = self.bytes_of(&digest).await?;
                    let whole = bytes == decide::Bytes::Whole;
                    seen.push(LastSeen { digest, confirmed_at, bytes });
                    if whole {
                        break;
                    }
                }
                let mut seen = seen.into_iter();
                let last = seen.next();
                let before = seen.last().filter(|before| before.bytes == decide::Bytes::Whole);
                let way = match self.without_head.find(repository.registry(), clock::instant()) {
                    Some(()) => Way::Get,
                    None => Way::Head,
                };
                Question::Tag { last, before, ages: self.freshness.of(tag), way, admission }
            }
        })
    }

    /// Which gates are open to whoever asks; pulls are fetched by whoever fetches.
    fn gates(&self, question: &Question, guise: &Guise, repository: &Repository) -> Gates {
        let gate = |open: Result<(), Failure>| if open.is_ok() { Gate::Open } else { Gate::Shut };
        let fetching = self.fetching(guise, question.admission(), repository);
        Gates {
            all: gate(self.upstreams.open(&guise.credential, repository).all),
            pulls: gate(self.upstreams.open(&fetching, repository).pulls),
        }
    }

    /// Asks, and again where that may help and nothing else does: one bad answer is not to fail the pulls of all who
    /// wait for it.
    async fn ask_again(
        self: &Arc<Self>,
        errand: &Errand<'_>,
        ask: &Ask,
        question: &Question,
    ) -> Result<Reply, Unanswered> {
        let stands_in = stands_in(question);
        let mut retries = 0;
        loop {
            match self.ask_in_time(errand, ask).await {
                Err(Unanswered::Upstream(failure))
                    if failure.may_pass() && retries < RETRIES && !stands_in =>
                {
                    tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(retries)).await;
                    retries += 1;
                }
                asked => return asked,
            }
        }
    }

    /// A cold question may need a token first and meet a slow registry at each turn.
    async fn ask_in_time(self: &Arc<Self>, errand: &Errand<'_>, ask: &Ask) -> Result<Reply, Unanswered> {
        let asked = tokio::time::timeout(ASK_DEADLINE, self.ask(errand, ask)).await;
        asked.unwrap_or_else(|_| Err(Failure::TimedOut(Wait::Headers).into()))
    }

    async fn ask(self: &Arc<Self>, errand: &Errand<'_>, ask: &Ask) -> Result<Reply, Unanswered> {
        match ask {
            Ask::Head => self.head(errand).await,
            Ask::Get => match errand.reference {
                Reference::Digest(digest) => self.fetched(errand, digest).await,
                Reference::Tag(_) => {
                    let bytes = self.get(errand, errand.reference).await?;
                    let digest = Digest::of(&bytes);
                    self.keep(bytes, digest).await
                }
            },
            Ask::GetDigest(digest) => self.fetched(errand, digest).await,
            // No manifest is asked for in this way.
            Ask::List => Err(Failure::Missing.into()),
        }
    }

    async fn head(&self, errand: &Errand<'_>) -> Result<Reply, Unanswered> {
        let Errand { caller, guise, repository, reference, .. } = errand;
        let asker = Self::asker(caller, guise.credential.clone());
        let described = self.upstreams.head_manifest(&asker, repository, reference).await;
        if let (Ok(Described { digest: None, .. }) | Err(Failure::NoHead { .. }), Reference::Tag(_)) =
            (&described, reference)
        {
            self.without_head.note(repository.registry().clone(), (), clock::instant());
        }
        let Described { digest, media_type, left, .. } = described?;
        let digest = match reference {
            // A registry that has it under its digest need not repeat the digest.
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(_) => digest,
        };
        let Some(to) = digest else { return Ok(Reply::NoDigest) };
        let bytes = match self.bytes_of(&to).await {
            Ok(bytes) => bytes,
            Err(Refusal::Store(error)) => return Err(error.into()),
            Err(_) => decide::Bytes::Absent,
        };
        // An index is of no use without one of the images it lists, which is another pull.
        let index = media_type.is_some_and(|media_type| Kind::is_index(&media_type));
        let needed = if index { 2 } else { 1 };
        let short = left.is_some_and(|left| left.remaining < needed);
        Ok(Reply::Points { to, bytes, short })
    }

    /// Fetches a manifest by its digest, once for all who want it from this repository. Whoever was not first in line
    /// and finds that this one's right did not suffice tries with their own.
    async fn fetched(self: &Arc<Self>, errand: &Errand<'_>, digest: &Digest) -> Result<Reply, Unanswered> {
        let asker =
            Self::asker(errand.caller, self.fetching(errand.guise, errand.admission, errand.repository));
        let fetch = || {
            let (inner, asker) = (Arc::clone(self), asker.clone());
            let (repository, digest) = (errand.repository.clone(), digest.clone());
            async move {
                let fetched = inner.fetch(&asker, &repository, &digest).await;
                (asker.credential, fetched)
            }
        };
        let key = (errand.repository.clone(), digest.clone());
        let (by, fetched) = match self.fetches.join(key, fetch).await {
            Some(landed) => landed,
            None => return Err(Failure::TimedOut(Wait::Body).into()),
        };
        let admitted = matches!(errand.admission, Admission::Granted);
        if fetched.is_ok() && by != asker.credential && !admitted {
            // Somebody else's right has brought it in, which says nothing of this one's.
            let reference = Reference::Digest(digest.clone());
            self.upstreams.head_manifest(&asker, errand.repository, &reference).await?;
        }
        match fetched {
            Err(Unanswered::Upstream(failure))
                if by != asker.credential && failure.may_differ_for_others() =>
            {
                self.fetch(&asker, errand.repository, digest).await?;
            }
            fetched => fetched?,
        }
        Ok(Reply::Got(digest.clone()))
    }

    async fn fetch(&self, asker: &Asker, repository: &Repository, digest: &Digest) -> Result<(), Unanswered> {
        let reference = Reference::Digest(digest.clone());
        let mut fetched = self.upstreams.get_manifest(asker, repository, &reference).await;
        if let (Err(Failure::Denied { .. } | Failure::NoToken { .. }), Credential::Own) =
            (&fetched, &asker.credential)
        {
            // Our login does not serve, but what it was to fetch may be anyone's.
            let nobody = Asker { credential: Credential::Anonymous, ..asker.clone() };
            fetched = self.upstreams.get_manifest(&nobody, repository, &reference).await;
        }
        self.keep(fetched?, digest.clone()).await.map(drop)
    }

    /// The manifest that a reference stands for at the registry.
    async fn get(&self, errand: &Errand<'_>, reference: &Reference) -> Result<Bytes, Failure> {
        let credential = self.fetching(errand.guise, errand.admission, errand.repository);
        self.upstreams
            .get_manifest(&Self::asker(errand.caller, credential), errand.repository, reference)
            .await
    }

    async fn keep(&self, bytes: Bytes, digest: Digest) -> Result<Reply, Unanswered> {
        Manifest::parse(&bytes).map_err(|error| Failure::Unusable(error.to_string().into()))?;
        let (hold, expected) = (self.hold.clone(), digest.clone());
        let kept = blocking(move || hold.keep(&bytes, &expected, clock::now())).await;
        match kept {
            Ok(_) => Ok(Reply::Got(digest)),
            Err(CommitError::Store(error)) => Err(error.into()),
            Err(error @ (CommitError::Digest { .. } | CommitError::Size { .. })) => {
                Err(Failure::Unusable(error.to_string().into()).into())
            }
        }
    }
}

/// What is asked for, by whom, and with what right.
struct Errand<'a> {
    caller: &'a Caller,
    guise: &'a Guise,
    admission: Admission,
    repository: &'a Repository,
    reference: &'a Reference,
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

/// Whether there is something to serve in the place of an answer.
pub(super) fn stands_in(question: &Question) -> bool {
    let gates = Gates { all: Gate::Open, pulls: Gate::Open };
    matches!(decide(question, Some(&Reply::Failed), gates, clock::now()), Step::Serve(..))
}

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
            | Failure::Unusable(_),
            _,
        ) => Reply::Failed,
    }
}

/// How long ago the registry confirmed what is served.
fn age(question: &Question, served: &Digest, standing: Standing, now: SystemTime) -> Duration {
    let seen = match (question, standing) {
        (Question::Tag { last, before, .. }, Standing::Fresh | Standing::Stale) => {
            [last, before].into_iter().flatten().find(|seen| seen.digest == *served)
        }
        _ => None,
    };
    seen.map_or(Duration::ZERO, |seen| now.duration_since(seen.confirmed_at).unwrap_or_default())
}

/// A reference the way that people write it.
pub(super) fn shown(repository: &Repository, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{repository}:{tag}"),
        Reference::Digest(digest) => format!("{repository}@{digest}"),
    }
}
