//! The driver of the decision: a few lines that ask, keep, and decide again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::asking::{Unanswered, reply_of};
use super::callers::{Caller, Guise};
use super::decide::{
    self, Ask, Gate, Gates, Held, LastSeen, Question, Reply, Standing, Step, Way, Why, decide,
};
use super::{Inner, Reason, Refusal, Served};
use crate::clock;
use crate::oci::{Digest, Reference, Repository};
use crate::store::{TagEntry, Unkept};
use crate::upstream::{Failure, Open, Wait};

/// How long somebody waits for an answer, whoever else waits for it too: containerd gives up after 30 s and would then
/// go past us. Better a stale answer before that.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(25);

impl Inner {
    pub(super) async fn manifest(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let guises = self.guises(&caller.client, repository)?;
        let until = tokio::time::Instant::now() + ANSWER_DEADLINE;
        Self::in_turn(guises, |guise| async move {
            match self.manifest_as(caller, guise.clone(), repository, reference, until).await {
                // What it was to be answered with may have been evicted since it was looked up.
                Err(Refusal::Internal) => self.manifest_as(caller, guise, repository, reference, until).await,
                answered => answered,
            }
        })
        .await
    }

    async fn manifest_as(
        self: &Arc<Self>,
        caller: &Caller,
        guise: Guise,
        repository: &Repository,
        reference: &Reference,
        until: tokio::time::Instant,
    ) -> Result<Served, Refusal> {
        let changes = self.hold.changes();
        let mut question = self.question(&guise, repository, reference).await?;
        let now = clock::now();
        let step = whatever_the_gates(&question, now)
            .unwrap_or_else(|| decide(&question, None, self.gates(&question, &guise, repository), now));
        if let Step::Serve(digest, standing) = step {
            let failure = match standing {
                Standing::Stale => self.upstreams.gate_of(repository.registry()),
                Standing::Immutable | Standing::Fresh | Standing::Unchanged | Standing::Changed => None,
            };
            let reason = Reason::of(&question, standing, None, None, failure.as_ref());
            let age = age(&question, &digest, standing, now);
            let mut served = self.served(digest.clone(), standing, reason, age).await?;
            let (answer, when) = ((&digest, standing), (changes, now));
            served.grounds = self.grounds(caller, &guise, repository, question, answer, when)?;
            return Ok(served);
        }
        if let Some(refusal) = self.still_denied(|| shown(repository, reference), repository, &guise) {
            return Err(refusal);
        }
        let key = (repository.clone(), reference.clone(), guise.clone());
        if let Some(refusal) = self.refused.find(&key, clock::instant()) {
            return Err(refusal);
        }
        let flight = || {
            let (inner, caller, key) = (Arc::clone(self), caller.clone(), key.clone());
            async move { inner.drive(&caller, &key.2, &key.0, &key.1).await }
        };
        let landed = tokio::time::timeout_at(until, self.manifests.join(key.clone(), flight)).await;
        if let Ok(answered) = landed {
            return answered.unwrap_or(Err(Refusal::Internal));
        }
        // It goes on; this client does not wait for it.
        let now = clock::now();
        let gates = Gates { all: Gate::Shut, pulls: Gate::Shut };
        question = self.question(&guise, repository, reference).await.unwrap_or(question);
        match decide(&question, Some(&Reply::Failed), gates, now) {
            Step::Serve(digest, standing) => {
                let age = age(&question, &digest, standing, now);
                self.served(digest, standing, Reason::Late, age).await
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
        let (mut asked, mut reply, mut failure) = (None, None, None);
        let (mut registry_is_away, mut unkept) = (false, None);
        let kept = Mutex::default();
        loop {
            let now = clock::now();
            let gates = self.gates(&question, guise, repository);
            match decide(&question, reply.as_ref(), gates, now) {
                Step::Ask(ask) => {
                    if matches!(ask, Ask::Get | Ask::GetDigest(_))
                        && let Err(why) = self.hold.can_keep()
                    {
                        // A pull would be spent on what cannot be kept.
                        unkept = Some(why);
                        (asked, reply) = (Some(ask), Some(Reply::Failed));
                        continue;
                    }
                    let admission = question.admission();
                    let mut errand = self.errand(caller, guise, admission, (repository, reference), &kept);
                    errand.only_registry &= !registry_is_away;
                    match self.ask_again(&errand, &ask, &question).await {
                        Ok(answered) => {
                            self.note_answered(&errand.asker_of(&ask), guise, repository);
                            if !registry_is_away {
                                question = question.granted();
                            }
                            reply = Some(answered);
                        }
                        Err(Unanswered::Upstream(failed)) => {
                            if errand.only_registry && admission.outlasts_an_outage() && !failed.is_verdict()
                            {
                                // Its mirrors may know, and what it said before still holds.
                                registry_is_away = true;
                                continue;
                            }
                            self.note_denial(guise, repository, &failed, now);
                            reply = Some(reply_of(&failed, &ask));
                            failure = Some(failed);
                        }
                        Err(Unanswered::Store(error)) if error.is_of_writing() => {
                            unkept = Some(Unkept::Unwritable(error));
                            reply = Some(Reply::Failed);
                        }
                        Err(Unanswered::Store(error)) => return Err(error.into()),
                    }
                    asked = Some(ask);
                }
                Step::Serve(digest, standing) => {
                    self.unnoted.tell(self.note(repository, reference, &digest, standing, now));
                    let age = age(&question, &digest, standing, now);
                    let reason = match (standing, &unkept) {
                        (Standing::Stale, Some(why)) => Reason::unkept(why),
                        _ => {
                            Reason::of(&question, standing, asked.as_ref(), reply.as_ref(), failure.as_ref())
                        }
                    };
                    let served = self.served(digest, standing, reason, age).await?;
                    self.unnoted.tell(self.note_children(repository, &served, now));
                    self.settle(standing).await;
                    return Ok(served);
                }
                Step::Refuse(why) => {
                    if let (Why::Failed, Some(why)) = (why, unkept.take()) {
                        return Err(Refusal::unkept(shown(repository, reference), why));
                    }
                    let refusal = self.refusal(&question, why, failure, guise, repository, reference);
                    if let Some(Reply::Missing) = reply {
                        let key = (repository.clone(), reference.clone(), guise.clone());
                        self.refused.note(key, refusal.clone(), clock::instant());
                    }
                    return Err(refusal);
                }
            }
        }
    }

    pub(super) fn refusal(
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
                if question.admission().outlasts_an_outage() && !guise.trusted {
                    self.unnoted.tell(self.forget(repository, reference));
                }
                Refusal::MissingManifest(what)
            }
            Why::Denied => {
                if let Some(Failure::Denied { status, .. }) = &failure
                    && *status != 401
                {
                    // Of this one alone, so that it is no longer to be served either.
                    self.unnoted.tell(self.forget(repository, reference));
                }
                self.denied(what, repository, failure.as_ref())
            }
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

    pub(super) async fn question(
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
                    Some(_) if self.may_vouch(repository, digest)? => Held::Elsewhere,
                    Some(_) => Held::No,
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
    pub(super) fn gates(&self, question: &Question, guise: &Guise, repository: &Repository) -> Gates {
        let gate = |open: Result<(), Failure>| if open.is_ok() { Gate::Open } else { Gate::Shut };
        let fetching = self.fetching(guise, question.admission(), repository);
        let Open { all, mut pulls } = self.upstreams.open(&guise.credential, repository);
        if fetching != guise.credential {
            pulls = self.upstreams.open(&fetching, repository).pulls;
        }
        Gates { all: gate(all), pulls: gate(pulls) }
    }
}

/// The first step where it is the same whichever gates are open: most answers come from the hold, and need no look at
/// them.
pub(super) fn whatever_the_gates(question: &Question, now: SystemTime) -> Option<Step> {
    let both = [Gate::Open, Gate::Shut];
    let combined = both.into_iter().flat_map(|all| both.map(|pulls| Gates { all, pulls }));
    let mut steps = combined.map(|gates| decide(question, None, gates, now));
    let first = steps.next()?;
    steps.all(|step| step == first).then_some(first)
}

/// How long ago the registry confirmed what is served.
pub(super) fn age(question: &Question, served: &Digest, standing: Standing, now: SystemTime) -> Duration {
    let seen = match (question, standing) {
        (Question::Tag { last, before, .. }, Standing::Fresh | Standing::Stale) => {
            [last, before].into_iter().flatten().find(|seen| seen.digest == *served)
        }
        _ => None,
    };
    seen.map_or(Duration::ZERO, |seen| now.duration_since(seen.confirmed_at).unwrap_or_default())
}

/// A reference the way that people write it.
pub fn shown(repository: &Repository, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{repository}:{tag}"),
        Reference::Digest(digest) => format!("{repository}@{digest}"),
    }
}
