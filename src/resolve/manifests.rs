//! The driver of the decision: a few lines that ask, keep, and decide again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::decide::{Ask, Held, LastSeen, Question, Reply, Standing, Step, Why, decide};
use super::{Client, Inner, Refusal, Served};
use crate::clock;
use crate::oci::{Digest, Kind, MAX_MANIFEST_BYTES, Manifest, Reference, Repository};
use crate::store::{CommitError, Listed, Reading, StoreError, TagEntry, blocking};
use crate::upstream::{Asker, Cost, Failure, Wait};

/// How long one request to a registry may take, with all that it needs before it is answered.
const ASK_DEADLINE: Duration = Duration::from_secs(12);

impl Inner {
    pub(super) async fn manifest(
        self: &Arc<Self>,
        client: &Client,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let now = clock::now();
        let question = self.question(repository, reference)?;
        if let Step::Serve(digest, standing) = decide(&question, None, now) {
            return self.served(digest, standing, age(&question, standing, now), Cost::default()).await;
        }
        let (inner, repository, reference) = (Arc::clone(self), repository.clone(), reference.clone());
        let key = (repository.clone(), reference.clone());
        let asker = Asker::new(client.credential());
        let flight =
            self.manifests.join(key, || async move { inner.drive(&asker, &repository, &reference).await });
        flight.await.unwrap_or(Err(Refusal::Internal))
    }

    async fn drive(
        &self,
        asker: &Asker,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Served, Refusal> {
        let question = self.question(repository, reference)?;
        let mut reply = None;
        let mut failure = None;
        loop {
            let now = clock::now();
            match decide(&question, reply.as_ref(), now) {
                Step::Ask(ask) => match self.ask_in_time(asker, repository, reference, &ask).await {
                    Ok(answered) => reply = Some(answered),
                    Err(Unanswered::Upstream(failed)) => {
                        reply = Some(reply_of(&failed, &ask));
                        failure = Some(failed);
                    }
                    Err(Unanswered::Store(error)) => return Err(error.into()),
                },
                Step::Serve(digest, standing) => {
                    self.unnoted.tell(self.note(repository, reference, &digest, standing, now));
                    let age = age(&question, standing, now);
                    let served = self.served(digest, standing, age, asker.cost()).await?;
                    self.unnoted.tell(self.note_children(repository, &served, now));
                    self.settle(standing).await;
                    return Ok(served);
                }
                Step::Refuse(why) => {
                    let what = shown(repository, reference);
                    let failure = failure.unwrap_or(Failure::Missing);
                    if is_gone(&failure, why) {
                        self.unnoted.tell(self.forget(repository, reference));
                    }
                    return Err(match why {
                        Why::Missing => Refusal::MissingManifest(what),
                        Why::Denied => Refusal::Denied(what),
                        Why::Failed => Refusal::Unanswered { what, failure },
                    });
                }
            }
        }
    }

    fn question(&self, repository: &Repository, reference: &Reference) -> Result<Question, StoreError> {
        Ok(match reference {
            Reference::Digest(digest) => {
                let held = match self.hold.blob(digest)? {
                    None => Held::No,
                    Some(_) if self.hold.seen_in(digest, repository)? => Held::Here,
                    Some(_) => Held::Elsewhere,
                };
                Question::Digest { digest: digest.clone(), held }
            }
            Reference::Tag(tag) => {
                let last = match self.hold.tag(repository, tag)? {
                    None => None,
                    Some(TagEntry { digest, confirmed_at }) => {
                        let held = self.hold.blob(&digest)?.is_some();
                        Some(LastSeen { digest, confirmed_at, held })
                    }
                };
                let gate = self.gates.of(repository.registry(), clock::instant());
                Question::Tag { last, ages: self.freshness.of(tag), gate }
            }
        })
    }

    /// A cold question may need a token first and meet a slow registry at each turn. containerd gives up after
    /// 30 s and would then go past us: better a stale answer before that.
    async fn ask_in_time(
        &self,
        asker: &Asker,
        repository: &Repository,
        reference: &Reference,
        ask: &Ask,
    ) -> Result<Reply, Unanswered> {
        let asked = tokio::time::timeout(ASK_DEADLINE, self.ask(asker, repository, reference, ask)).await;
        let asked = asked.unwrap_or_else(|_| Err(Failure::TimedOut(Wait::Headers).into()));
        let failure = match &asked {
            Ok(_) => None,
            Err(Unanswered::Upstream(failure)) => Some(failure),
            Err(Unanswered::Store(_)) => return asked,
        };
        self.gates.learn(repository.registry(), failure, clock::instant());
        asked
    }

    async fn ask(
        &self,
        asker: &Asker,
        repository: &Repository,
        reference: &Reference,
        ask: &Ask,
    ) -> Result<Reply, Unanswered> {
        match ask {
            Ask::Head => {
                let described = self.upstreams.head_manifest(asker, repository, reference).await?;
                let digest = match reference {
                    // A registry that has it under its digest need not repeat the digest.
                    Reference::Digest(digest) => Some(described.digest.unwrap_or_else(|| digest.clone())),
                    Reference::Tag(_) => described.digest,
                };
                let Some(to) = digest else { return Ok(Reply::NoDigest) };
                let held = self.hold.blob(&to)?.is_some();
                Ok(Reply::Points { to, held })
            }
            Ask::Get => {
                let bytes = self.upstreams.get_manifest(asker, repository, reference).await?;
                let digest = match reference {
                    Reference::Digest(digest) => digest.clone(),
                    Reference::Tag(_) => Digest::of(&bytes),
                };
                self.keep(bytes, digest).await
            }
            Ask::GetDigest(digest) => {
                let reference = Reference::Digest(digest.clone());
                let bytes = self.upstreams.get_manifest(asker, repository, &reference).await?;
                self.keep(bytes, digest.clone()).await
            }
        }
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

    /// Writes down what the registry just said: this repository has that manifest, and the tag points at it. What
    /// cannot be written down is asked again the next time, and is no reason not to answer.
    fn note(
        &self,
        repository: &Repository,
        reference: &Reference,
        digest: &Digest,
        standing: Standing,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        match standing {
            Standing::Fresh | Standing::Stale => return Ok(()),
            Standing::Immutable | Standing::Unchanged | Standing::Changed => {}
        }
        if !self.hold.seen_in(digest, repository)? {
            self.hold.note_source(digest, repository)?;
        }
        match reference {
            Reference::Tag(tag) => {
                let entry = TagEntry { digest: digest.clone(), confirmed_at: now };
                self.hold.point_tag(repository, tag, &entry)
            }
            Reference::Digest(_) => Ok(()),
        }
    }

    /// What is new is on the disk before it is answered: a daemon killed a moment later, and started while the registry
    /// is down, still knows it. That a tag has not moved may be forgotten.
    async fn settle(&self, standing: Standing) {
        match standing {
            Standing::Immutable | Standing::Changed => self.flush_notes().await,
            Standing::Fresh | Standing::Unchanged | Standing::Stale => {}
        }
    }

    /// Brings to the disk what registries said.
    pub(super) async fn flush_notes(&self) {
        let hold = self.hold.clone();
        self.unnoted.tell(blocking(move || hold.flush()).await);
    }

    /// Remembers where to fetch what a manifest lists. An unchanged one was noted when it was new.
    fn note_children(
        &self,
        repository: &Repository,
        served: &Served,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        match served.standing {
            Standing::Immutable | Standing::Changed => {}
            Standing::Fresh | Standing::Unchanged | Standing::Stale => return Ok(()),
        }
        let kind = match served.kind {
            Kind::Index => Listed::Manifest,
            Kind::Image => Listed::Blob,
        };
        for child in served.children.iter() {
            self.hold.note_listed(child, repository, kind, now)?;
        }
        Ok(())
    }

    /// A tag that its registry no longer has, or no longer shows us, is not served in the next outage either.
    fn forget(&self, repository: &Repository, reference: &Reference) -> Result<(), StoreError> {
        match reference {
            Reference::Tag(tag) => self.hold.forget_tag(repository, tag),
            Reference::Digest(_) => Ok(()),
        }
    }

    async fn served(
        &self,
        digest: Digest,
        standing: Standing,
        age: Duration,
        cost: Cost,
    ) -> Result<Served, Refusal> {
        let blob = match self.hold.reading(&digest).await? {
            Reading::Open(blob) => blob,
            Reading::Lost { .. } | Reading::No => return Err(Refusal::Internal),
        };
        if blob.size() > MAX_MANIFEST_BYTES {
            return Err(Refusal::NotAManifest(digest));
        }
        let read = blocking(move || blob.read_at(0, usize::MAX)).await;
        let bytes = read.map_err(|error| {
            tracing::error!(%digest, %error, "a manifest could not be read");
            Refusal::Internal
        })?;
        let Ok(manifest) = Manifest::parse(&bytes) else { return Err(Refusal::NotAManifest(digest)) };
        let children = manifest.children().iter().map(|child| child.digest.clone()).collect();
        let media_type = manifest.media_type().to_owned();
        Ok(Served { kind: manifest.kind(), children, media_type, digest, bytes, standing, age, cost })
    }
}

/// Why there is no reply to decide on, or only a bad one.
enum Unanswered {
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

fn reply_of(failure: &Failure, ask: &Ask) -> Reply {
    match (failure, ask) {
        // It was announced a moment ago: the registry is not at one with itself, and the tag not gone.
        (Failure::Missing, Ask::GetDigest(_)) => Reply::Failed,
        (Failure::Missing, Ask::Head | Ask::Get) => Reply::Missing,
        (Failure::Denied { .. } | Failure::NoToken { .. }, _) => Reply::Denied,
        (Failure::NoHead { .. }, _) => Reply::NoDigest,
        (
            Failure::Limited { .. }
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

/// Whether the registry itself said that it is no longer to be had. A token service that gives no token may say so
/// of everything for an hour.
fn is_gone(failure: &Failure, why: Why) -> bool {
    match why {
        Why::Missing => true,
        Why::Denied => !matches!(failure, Failure::NoToken { .. }),
        Why::Failed => false,
    }
}

/// How long ago the registry confirmed what is served.
fn age(question: &Question, standing: Standing, now: SystemTime) -> Duration {
    match (question, standing) {
        (Question::Tag { last: Some(last), .. }, Standing::Fresh | Standing::Stale) => {
            now.duration_since(last.confirmed_at).unwrap_or_default()
        }
        _ => Duration::ZERO,
    }
}

/// A reference the way that people write it.
pub(super) fn shown(repository: &Repository, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{repository}:{tag}"),
        Reference::Digest(digest) => format!("{repository}@{digest}"),
    }
}
