//! Lists that a registry makes up: asked for and kept by the rules for tags, and shown only to those whom the registry
//! has shown them.
//!
//! Invariant: a list is proof of nothing but itself. A registry may let somebody list what it does not let them read,
//! or answer with an empty list whoever asks; so that a list was shown is written down with the list, and opens
//! neither a manifest nor another page. What is written down of a repository's readers only narrows it.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::asking::{ASK_DEADLINE, again, reply_of, stands_in};
use super::callers::{Caller, Guise};
use super::decide::{self, Gate, Gates, LastSeen, Question, Reply, Standing, Step, Why, decide};
use super::flight::Flights;
use super::manifests::ANSWER_DEADLINE;
use super::recent::Recent;
use super::{Inner, REFUSED_FOR, Refusal, Resolver};
use crate::access::{Admission, Said};
use crate::clock;
use crate::oci::{Digest, List, ListOf, Repository};
use crate::store::{ListEntry, Readers, StoreError, blocking};
use crate::upstream::{Credential, Failure, Listing, Wait};

/// Of how many lists it is remembered that they are not to be had.
const MOST_REFUSED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A list to answer with.
#[derive(Debug, Clone)]
pub struct ServedList {
    /// All of it.
    pub bytes: Bytes,
    /// The page after it.
    pub next: Option<List>,
    /// Which filters its registry says to have applied.
    pub filters_applied: Option<String>,
    /// In what way it was found to be good.
    pub standing: Standing,
    /// How long ago the registry last confirmed it.
    pub age: Duration,
}

/// What is under way about lists, and what registries lately said no to.
pub(super) struct Lists {
    flights: Flights<Key, Result<ServedList, Refusal>>,
    refused: Recent<Key, Refusal>,
}

type Key = (Repository, List, Guise);

impl Lists {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { flights: Flights::new(tasks), refused: Recent::new(MOST_REFUSED, REFUSED_FOR) }
    }
}

impl Resolver {
    /// A page of a list of a repository.
    ///
    /// # Errors
    /// When there is nothing to answer with.
    pub async fn list(
        &self,
        caller: &Caller,
        repository: &Repository,
        list: &List,
    ) -> Result<ServedList, Refusal> {
        let mut guises = self.inner.guises(&caller.client, repository)?;
        let held = self.inner.held_list(repository, list).await?;
        if held.as_ref().is_some_and(is_proven)
            && guises.iter().any(|guise| matches!(guise.credential, Credential::Client(_)))
        {
            guises.retain(|guise| guise.credential != Credential::Anonymous);
        }
        Inner::in_turn(guises, |guise| {
            let key = (repository.clone(), list.clone(), guise);
            self.inner.list_as(caller, key, held.clone())
        })
        .await
    }
}

impl Inner {
    async fn list_as(
        self: &Arc<Self>,
        caller: &Caller,
        key: Key,
        held: Option<ListEntry>,
    ) -> Result<ServedList, Refusal> {
        let now = clock::now();
        let question = self.question_of_list(&key, held.as_ref(), now)?;
        if let Step::Serve(_, standing) = decide(&question, None, self.gates_to_list(&key), now)
            && let Some(held) = held
        {
            return Ok(served(held, standing, now));
        }
        if let Some(refusal) = self.lists.refused.find(&key, clock::instant()) {
            return Err(refusal);
        }
        let flight = || {
            let (inner, caller, key) = (Arc::clone(self), caller.clone(), key.clone());
            async move { inner.drive_list(&caller, &key).await }
        };
        let landed =
            tokio::time::timeout(ANSWER_DEADLINE, self.lists.flights.join(key.clone(), flight)).await;
        if let Ok(answered) = landed {
            return answered.unwrap_or(Err(Refusal::Internal));
        }
        // It goes on; this client does not wait for it.
        let now = clock::now();
        let held = self.held_list(&key.0, &key.1).await?;
        let question = self.question_of_list(&key, held.as_ref(), now)?;
        let shut = Gates { all: Gate::Shut, pulls: Gate::Shut };
        match (decide(&question, Some(&Reply::Failed), shut, now), held) {
            (Step::Serve(_, standing), Some(held)) => Ok(served(held, standing, now)),
            (Step::Serve(..) | Step::Ask(_) | Step::Refuse(_), _) => {
                Err(Refusal::Unanswered { what: shown(&key), failure: Failure::TimedOut(Wait::Headers) })
            }
        }
    }

    async fn drive_list(&self, caller: &Caller, key: &Key) -> Result<ServedList, Refusal> {
        let mut held = self.held_list(&key.0, &key.1).await?;
        let mut question = self.question_of_list(key, held.as_ref(), clock::now())?;
        let (mut reply, mut failure) = (None, None);
        loop {
            let now = clock::now();
            match decide(&question, reply.as_ref(), self.gates_to_list(key), now) {
                Step::Ask(ask) => match self.ask_for_list(caller, key, &question).await {
                    Ok(listing) => {
                        let entry = entry(listing, &key.2, held, clock::now());
                        reply = Some(Reply::Got(entry.digest.clone()));
                        question = question.granted();
                        self.unnoted.tell(self.keep_list(key, entry.clone()).await);
                        held = Some(entry);
                    }
                    Err(failed) => {
                        reply = Some(reply_of(&failed, &ask));
                        failure = Some(failed);
                    }
                },
                Step::Serve(_, standing) => {
                    return held.map(|held| served(held, standing, now)).ok_or(Refusal::Internal);
                }
                Step::Refuse(why) => return Err(self.refuse_list(key, held, &question, why, failure).await),
            }
        }
    }

    /// Asks, and again where that may help and nothing else does.
    async fn ask_for_list(
        &self,
        caller: &Caller,
        key: &Key,
        question: &Question,
    ) -> Result<Listing, Failure> {
        let (repository, list, guise) = key;
        let stands_in = stands_in(question);
        let only_registry = self.asks_registry_alone(question.admission(), repository);
        let asker = Self::asker(caller, guise.credential.clone(), only_registry);
        let ask = || async {
            let asking = self.upstreams.get_list(&asker, repository, list);
            let asked = tokio::time::timeout(ASK_DEADLINE, asking).await;
            asked.unwrap_or(Err(Failure::TimedOut(Wait::Headers)))
        };
        again(|failure: &Failure| failure.may_pass() && !stands_in, ask).await
    }

    async fn refuse_list(
        &self,
        key: &Key,
        held: Option<ListEntry>,
        question: &Question,
        why: Why,
        failure: Option<Failure>,
    ) -> Refusal {
        let (repository, list, guise) = key;
        let what = shown(key);
        let refusal = match why {
            Why::Missing => {
                // A registry may say so to whoever may not know.
                if question.admission().outlasts_an_outage() {
                    self.unnoted.tell(self.forget_list(key).await);
                }
                match list.of() {
                    ListOf::Tags => Refusal::MissingTags(what),
                    ListOf::Referrers { .. } => Refusal::MissingReferrers(what),
                }
            }
            Why::Denied => {
                if let (Some(Failure::Denied { .. }), Some(held)) = (&failure, held) {
                    self.unnoted.tell(self.keep_list(key, hidden(held, guise)).await);
                }
                if let Some(failure) = &failure {
                    self.unnoted.tell(self.note_closed(guise, repository, failure));
                }
                self.denied(what, repository, failure.as_ref())
            }
            Why::Failed => {
                let shut = || self.upstreams.open(&guise.credential, repository).all.err();
                return Refusal::unanswered(what, failure, shut);
            }
        };
        // A token service that is locked out is soon asked again, and a gate that is shut says so itself.
        if failure.is_some_and(|failure| !matches!(failure, Failure::NoToken { .. })) {
            self.lists.refused.note(key.clone(), refusal.clone(), clock::instant());
        }
        refusal
    }

    fn question_of_list(
        &self,
        key: &Key,
        held: Option<&ListEntry>,
        now: SystemTime,
    ) -> Result<Question, StoreError> {
        let last = held.map(|held| LastSeen {
            digest: held.digest.clone(),
            confirmed_at: held.confirmed_at,
            bytes: decide::Bytes::Whole,
        });
        let admission = self.admission_to_list(key, held, now)?;
        Ok(Question::List { last, ages: self.freshness.default, admission })
    }

    /// Whether somebody in this guise may have what is held of a list.
    fn admission_to_list(
        &self,
        (repository, _, guise): &Key,
        held: Option<&ListEntry>,
        now: SystemTime,
    ) -> Result<Admission, StoreError> {
        if guise.trusted {
            return Ok(Admission::Granted);
        }
        let anyone_at = held.and_then(|held| held.anyone_at);
        let proven = |readers| matches!(readers, Some(Readers::Proven { .. }));
        let said = match anyone_at {
            _ if proven(self.hold.readers(repository)?) => Said::Proven,
            Some(at) => Said::Anyone { at },
            None if held.is_some_and(is_proven) || proven(self.readers(repository)?) => Said::Proven,
            None => Said::Nothing,
        };
        let shown_at = guise.who().and_then(|who| held?.shown_at.get(&who).copied());
        Ok(self.admit(guise, repository, said, shown_at, now))
    }

    /// Remembers how somebody may prove themselves, where nothing else is known of a repository: that a list is denied
    /// takes back nothing that was said of the rest.
    fn note_closed(
        &self,
        guise: &Guise,
        repository: &Repository,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        if let (Failure::Denied { challenge, .. } | Failure::NoToken { challenge, .. }, None) =
            (failure, guise.who())
            && self.hold.readers(repository)?.is_none()
        {
            let challenge = challenge.as_ref().map(ToString::to_string).unwrap_or_default();
            self.closed.note(repository.clone(), challenge, clock::instant());
        }
        Ok(())
    }

    fn gates_to_list(&self, (repository, _, guise): &Key) -> Gates {
        let open = self.upstreams.open(&guise.credential, repository).all.is_ok();
        let all = if open { Gate::Open } else { Gate::Shut };
        Gates { all, pulls: all }
    }

    async fn held_list(&self, repository: &Repository, list: &List) -> Result<Option<ListEntry>, StoreError> {
        let (hold, repository, list) = (self.hold.clone(), repository.clone(), list.clone());
        blocking(move || hold.list(&repository, &list)).await
    }

    async fn keep_list(&self, (repository, list, _): &Key, entry: ListEntry) -> Result<(), StoreError> {
        let (hold, repository, list) = (self.hold.clone(), repository.clone(), list.clone());
        blocking(move || hold.keep_list(&repository, &list, &entry)).await
    }

    async fn forget_list(&self, (repository, list, _): &Key) -> Result<(), StoreError> {
        let (hold, repository, list) = (self.hold.clone(), repository.clone(), list.clone());
        blocking(move || hold.forget_list(&repository, &list)).await
    }
}

/// Whether its registry has shown it to those alone who proved themselves.
fn is_proven(held: &ListEntry) -> bool {
    held.anyone_at.is_none() && !held.shown_at.is_empty()
}

/// What came in, with those who were shown what it was before: that somebody may have it does not end with a new tag.
fn entry(listing: Listing, guise: &Guise, held: Option<ListEntry>, now: SystemTime) -> ListEntry {
    let (mut anyone_at, mut shown_at) =
        held.map_or((None, HashMap::new()), |held| (held.anyone_at, held.shown_at));
    match guise.who() {
        None => anyone_at = Some(now),
        Some(who) => {
            shown_at.insert(who, now);
        }
    }
    let Listing { bytes, next, filters_applied } = listing;
    let digest = Digest::of(&bytes);
    ListEntry { digest, bytes, next, filters_applied, confirmed_at: now, anyone_at, shown_at }
}

/// What is held, once the registry has said that somebody may not have it.
fn hidden(mut held: ListEntry, guise: &Guise) -> ListEntry {
    match guise.who() {
        None => held.anyone_at = None,
        Some(who) => {
            held.shown_at.remove(&who);
        }
    }
    held
}

fn served(held: ListEntry, standing: Standing, now: SystemTime) -> ServedList {
    let age = now.duration_since(held.confirmed_at).unwrap_or_default();
    let ListEntry { bytes, next, filters_applied, .. } = held;
    ServedList { bytes, next, filters_applied, standing, age }
}

fn shown((repository, list, _): &Key) -> String {
    format!("{repository}/{list}")
}
