//! From a name to bytes: what a tag points at now, and where a blob comes from.
//!
//! [`decide`] says what to do; the [`Resolver`] does it and keeps what comes in. Owns no protocol of its own: the
//! fronts hand it names and hand on its answers.
//!
//! Invariant: whatever it answers with is in the hold, verified, or is on its way there in a
//! [`Download`](crate::store::Download) that shows nobody the end of a blob before it is.

mod blobs;
mod bring_in;
mod decide;
mod flight;
mod gates;
mod manifests;
mod unnoted;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regex::Regex;
use tokio_util::task::TaskTracker;

pub use blobs::BlobBytes;
pub use decide::{Ages, Ask, Gate, Held, LastSeen, Question, Reply, Standing, Step, Why, decide};

use crate::oci::{Digest, Kind, Reference, Repository, Tag};
use crate::store::{FollowError, Hold, StoreError};
pub use crate::upstream::{ClientToken, Cost, Failure};
use crate::upstream::{Credential, Upstreams};
use blobs::Downloads;
use flight::Flights;
use gates::Gates;
use unnoted::Unnoted;

/// Answers for manifests and blobs. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    hold: Hold,
    upstreams: Upstreams,
    freshness: Freshness,
    unnoted: Unnoted,
    gates: Gates,
    tasks: TaskTracker,
    manifests: Flights<(Repository, Reference), Result<Served, Refusal>>,
    downloads: Downloads,
}

impl Resolver {
    /// A resolver over a hold and the registries.
    pub fn new(hold: Hold, upstreams: Upstreams, freshness: Freshness) -> Self {
        let tasks = TaskTracker::new();
        let inner = Inner {
            hold,
            upstreams,
            freshness,
            unnoted: Unnoted::default(),
            gates: Gates::default(),
            manifests: Flights::new(tasks.clone()),
            downloads: Downloads::new(tasks.clone()),
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
        client: &Client,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        self.inner.manifest(client, repository, reference).await
    }

    /// A blob's bytes, held or on their way.
    ///
    /// # Errors
    /// When there is nothing to answer with.
    pub async fn blob(
        &self,
        client: &Client,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<BlobBytes, Refusal> {
        self.inner.blob(client, repository, digest).await
    }

    /// A blob's length in bytes, without fetching it. `None` where its registry does not say.
    ///
    /// # Errors
    /// When there is nothing to answer with.
    pub async fn blob_size(
        &self,
        client: &Client,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        self.inner.blob_size(client, repository, digest).await
    }

    /// Waits until everything under way has ended; nothing new is to be asked meanwhile.
    pub async fn drain(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Who wants an answer, which decides as whom a registry is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// Whoever runs this node: over the control socket, or containerd by its own.
    Operator,
    /// Somebody without credentials.
    Anyone,
    /// Somebody with a token of the registry.
    Token(ClientToken),
}

impl Client {
    fn credential(&self) -> Credential {
        Credential::Anonymous
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
    pub children: Arc<[Digest]>,
    /// All of it.
    pub bytes: Bytes,
    /// In what way it was found to be good.
    pub standing: Standing,
    /// How long ago the registry last confirmed it.
    pub age: Duration,
    /// What this answer took of the registry; nothing where somebody else's request was waited for.
    pub cost: Cost,
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
    /// The registry does not let us have it.
    #[error("{0} is not to be had without credentials: its registry denies it")]
    Denied(String),
    /// The registry could not be asked, and nothing is held that could stand in.
    #[error("{what} is not held here, and {failure}")]
    Unanswered {
        /// What was asked for.
        what: String,
        /// What came of asking.
        failure: Failure,
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

impl Refusal {
    /// What a registry's failure comes to, for a blob that is not held.
    fn of_blob(failure: Failure, repository: &Repository, digest: &Digest) -> Self {
        let what = format!("{repository}@{digest}");
        match failure {
            Failure::Missing => Self::MissingBlob(what),
            Failure::Denied { .. } | Failure::NoToken { .. } => Self::Denied(what),
            failure => Self::Unanswered { what, failure },
        }
    }
}
