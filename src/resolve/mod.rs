//! From a name to bytes: what a tag points at now, where a blob comes from, and what a registry lists.
//!
//! [`decide`] says what to do; the [`Resolver`] does it and keeps what comes in. Owns no protocol of its own: the
//! fronts hand it names and hand on its answers.
//!
//! Invariant: whatever it answers with is in the hold, verified, or is on its way there in a
//! [`Download`](crate::store::Download) that shows nobody the end of a blob before it is.

mod ahead;
mod asking;
mod blobs;
mod bring_in;
mod callers;
mod decide;
mod downloads;
mod flight;
mod grounds;
mod held;
mod lists;
mod look;
mod manifests;
mod notes;
mod parts;
mod reason;
mod receive;
mod recent;
mod unnoted;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use tokio_util::task::TaskTracker;

pub use ahead::Fetch;
pub use callers::{Access, Caller, Client};
pub use decide::{
    Ages, Ask, Bytes, Gate, Gates, Held, LastSeen, Question, Reply, Standing, Step, Way, Why, decide,
};
pub use downloads::BlobBytes;
pub use grounds::Grounds;
pub use lists::ServedList;
pub use look::Looked;
pub use manifests::shown;
pub use reason::Reason;

use crate::clock;
use crate::oci::{Child, Digest, Kind, Reference, Registry, Repository, Tag};
use crate::record::{Latency, Record};
use crate::store::{FollowError, Hold, StoreError, Unkept};
pub use crate::upstream::{
    BearerChallenge, Because, ClientToken, Cost, Failure, Outcome, RefusedLogin, Tried, whole_seconds,
};
use crate::upstream::{Upstreams, Wait};
use ahead::Ahead;
use asking::Fetched;
use callers::{CLOSED_FOR, Guise, MOST_CLOSED, PRUNE_EVERY};
use downloads::Downloads;
use flight::Flights;
use held::KnownManifests;
use lists::Lists;
use recent::Recent;
use unnoted::Unnoted;

/// How long it is remembered that a registry does not answer HEAD with a digest, and of how many registries.
const WITHOUT_HEAD_FOR: Duration = Duration::from_secs(60 * 60);
const MOST_REGISTRIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How long it is remembered that a registry does not have something, or does not give it: whoever pushes it next is not to wait for it.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How long it is remembered that a manifest is of no use, whatever else its registry gets right.
const UNUSABLE_FOR: Duration = Duration::from_secs(60);
const MOST_REFUSED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Answers for manifests, blobs and lists. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    hold: Hold,
    upstreams: Upstreams,
    freshness: Freshness,
    access: Access,
    unnoted: Unnoted,
    /// The registries that are asked by GET about a tag.
    without_head: Recent<Registry, ()>,
    /// What registries do not have.
    refused: Recent<(Repository, Reference, Guise), Refusal>,
    /// Whom they do not let read a repository, and how one proves oneself there.
    turned_away: Recent<(Repository, Guise), Option<BearerChallenge>>,
    /// The challenges of repositories of which nothing is held.
    closed: Recent<Repository, String>,
    /// Whether proofs have been looked through lately.
    pruned: Recent<(), ()>,
    known: KnownManifests,
    lists: Lists,
    tasks: TaskTracker,
    manifests: Flights<(Repository, Reference, Guise), Result<Served, Refusal>>,
    /// Manifests that were fetched and are of no use.
    unusable: Recent<(Repository, Digest), Failure>,
    fetches: Flights<(Repository, Digest), Fetched>,
    downloads: Downloads,
    fetch: Fetch,
    ahead: Ahead,
    record: Record,
}

impl Resolver {
    /// A resolver over a hold and the registries.
    pub fn new(
        hold: Hold,
        upstreams: Upstreams,
        freshness: Freshness,
        access: Access,
        fetch: Fetch,
        record: Record,
    ) -> Self {
        let tasks = TaskTracker::new();
        let inner = Inner {
            hold,
            upstreams,
            freshness,
            access,
            unnoted: Unnoted::default(),
            without_head: Recent::new(MOST_REGISTRIES, WITHOUT_HEAD_FOR),
            refused: Recent::new(MOST_REFUSED, REFUSED_FOR),
            turned_away: Recent::new(MOST_REFUSED, REFUSED_FOR),
            unusable: Recent::new(MOST_REFUSED, UNUSABLE_FOR),
            closed: Recent::new(MOST_CLOSED, CLOSED_FOR),
            pruned: Recent::new(NonZeroUsize::MIN, PRUNE_EVERY),
            known: KnownManifests::default(),
            lists: Lists::new(tasks.clone()),
            manifests: Flights::new(tasks.clone()),
            fetches: Flights::new(tasks.clone()),
            downloads: Downloads::new(tasks.clone()),
            fetch,
            ahead: Ahead::default(),
            record,
            tasks,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The manifest that a reference stands for now.
    ///
    /// # Errors
    /// When there is nothing to answer with.
    pub async fn manifest(
        &self,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let asked_at = clock::instant();
        let answered = self.inner.manifest(caller, repository, reference).await;
        let told = self.inner.tell(caller, repository, reference, &answered, clock::now());
        if let Ok(Served { grounds: Some(grounds), .. }) = &answered {
            grounds.tell_again_by(told);
        }
        self.inner.record.took(Latency::Resolve, clock::instant().duration_since(asked_at));
        answered
    }

    /// Whether something that was answered with lately is a manifest.
    pub fn is_manifest(&self, digest: &Digest) -> bool {
        self.inner.known.find(digest).is_some()
    }

    /// A containerd was told that this manifest is held, and so does not ask its registry for it.
    pub fn spared(&self, digest: &Digest) {
        self.inner.spared(digest);
    }

    /// The record that everything here is told in.
    pub fn record(&self) -> &Record {
        &self.inner.record
    }

    /// For how long a tag is good.
    pub fn ages_of(&self, tag: &Tag) -> Ages {
        self.inner.freshness.of(tag)
    }

    /// Why pulls of a registry are not let through to it, where they are not.
    pub fn gate_of(&self, registry: &Registry) -> Option<Failure> {
        self.inner.upstreams.gate_of(registry)
    }

    /// Tries the hold's own logins: what came of each, by registry.
    pub async fn try_logins(&self) -> Vec<(Registry, Vec<Tried>)> {
        self.inner.upstreams.try_logins().await
    }

    /// The hold's own logins that were refused when they were shown last.
    pub fn refused_logins(&self) -> Vec<RefusedLogin> {
        self.inner.upstreams.refused_logins()
    }

    /// A blob's bytes, held or on their way.
    ///
    /// # Errors
    /// When there is nothing to answer with.
    pub async fn blob(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<BlobBytes, Refusal> {
        let bytes = self.inner.blob(caller, repository, digest).await?;
        if let BlobBytes::Coming(_) = bytes {
            self.inner.fetch_ahead_of_config(&caller.client, repository, digest);
        }
        Ok(bytes)
    }

    /// A blob's length in bytes, without fetching it. `None` where its registry does not say.
    ///
    /// # Errors
    /// When there is nothing to answer with.
    pub async fn blob_size(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        self.inner.blob_size(caller, repository, digest).await
    }

    /// Somebody was given this manifest, in a pull: what comes next is fetched before it is asked for. Waits for nothing.
    pub fn fetch_ahead(&self, caller: &Caller, repository: &Repository, served: &Served) {
        let said = (served.kind, &served.children);
        self.inner.fetch_ahead(&caller.client, repository, &served.digest, said);
    }

    /// Waits until everything under way has ended; nothing new is to be asked meanwhile.
    pub async fn drain(&self) {
        self.inner.ahead.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// A manifest to answer with.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its address.
    pub digest: Digest,
    /// Its media type, as its own bytes say.
    pub media_type: String,
    /// An index or an image's manifest.
    pub kind: Kind,
    /// What it points at.
    pub children: Arc<[Child]>,
    /// All of it.
    pub bytes: bytes::Bytes,
    /// In what way it was found to be good.
    pub standing: Standing,
    /// Why it was answered so.
    pub reason: Reason,
    /// How long ago the registry last confirmed it.
    pub age: Duration,
    /// On what it may be answered again.
    pub grounds: Option<Arc<Grounds>>,
}

/// For how long tags are good: a default, and rules by pattern, of which the first match wins.
#[derive(Debug, Clone)]
pub struct Freshness {
    /// Where no rule matches.
    pub default: Ages,
    /// Each with the pattern that the tag has to match.
    pub rules: Vec<(Regex, Ages)>,
}

impl Freshness {
    fn of(&self, tag: &Tag) -> Ages {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.is_match(tag.as_str()));
        rule.map_or(self.default, |(_, ages)| *ages)
    }
}

/// Why there is nothing to answer with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The registry does not have this manifest.
    #[error("{0} is not known to its registry")]
    MissingManifest(String),
    /// The registry does not have this blob.
    #[error("{0} is not known to its registry")]
    MissingBlob(String),
    /// The registry does not have this list of tags.
    #[error("{0} is not known to its registry")]
    MissingTags(String),
    /// The registry does not have this list of referrers, or knows no such lists.
    #[error("{0} is not known to its registry")]
    MissingReferrers(String),
    /// The registry does not let whoever asked have it.
    #[error(
        "{what} is not to be had without credentials that its registry accepts for it: it is private, or not there"
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// How a client gets a token of its own, where its registry says so.
        challenge: Option<BearerChallenge>,
    },
    /// The registry could not be asked, and nothing is held that could stand in.
    #[error("{what} is not held here, and {failure}")]
    Unanswered {
        /// What was asked for.
        what: String,
        /// What came of asking.
        failure: Failure,
    },
    /// The disk has no room for it beside what it keeps free.
    #[error(
        "{0} is not held here, and there is no room for it: the disk is nearly full. Make room on it, or let the cache \
         keep less of it free ([cache] reserve_free)"
    )]
    NoRoom(String),
    /// The disk takes no writes.
    #[error("{what} is not held here, and could not be kept: {error}{}", mend(error))]
    Unwritable {
        /// What was asked for.
        what: String,
        /// What is wrong.
        error: StoreError,
    },
    /// A blob was asked for as if it were a manifest.
    #[error("{0} is not a manifest")]
    NotAManifest(Digest),
    /// The disk or the index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A download ended early.
    #[error(transparent)]
    Interrupted(FollowError),
    /// A fault of our own.
    #[error("the request failed here; the log says more")]
    Internal,
}

fn mend(error: &StoreError) -> String {
    error.mend().map_or_else(String::new, |mend| format!(": {mend}"))
}

impl Refusal {
    /// That what was asked for is not fetched, since it could not be kept.
    fn unkept(what: String, why: Unkept) -> Self {
        match why {
            Unkept::NoRoom => Self::NoRoom(what),
            Unkept::Unwritable(error) => Self::Unwritable { what, error },
        }
    }

    /// Nothing came of asking, or nobody was asked; `shut` looks whether a gate is.
    fn unanswered(what: String, failure: Option<Failure>, shut: impl FnOnce() -> Option<Failure>) -> Self {
        // A gate that shut meanwhile knows best when it is worth trying again.
        let failure = match failure {
            Some(failure @ Failure::Limited { retry_after: Some(_) }) => failure,
            Some(failure @ Failure::Limited { retry_after: None }) => shut().unwrap_or(failure),
            Some(failure) => failure,
            None => shut().unwrap_or(Failure::TimedOut(Wait::Headers)),
        };
        Self::Unanswered { what, failure }
    }

    /// Whether somebody else might have been answered.
    fn may_differ_for_others(&self) -> bool {
        match self {
            Self::MissingManifest(_)
            | Self::MissingBlob(_)
            | Self::MissingTags(_)
            | Self::MissingReferrers(_)
            | Self::Denied { .. } => true,
            Self::Unanswered { failure, .. } => failure.may_differ_for_others(),
            Self::NoRoom(_)
            | Self::Unwritable { .. }
            | Self::NotAManifest(_)
            | Self::Store(_)
            | Self::Interrupted(_)
            | Self::Internal => false,
        }
    }
}
