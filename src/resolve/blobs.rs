//! Who may have a blob, and where it comes from: the hold, a download under way, or its registry.

use std::sync::Arc;

use futures_util::StreamExt;

use super::asking::again;
use super::callers::{Caller, Client, Guise};
use super::downloads::{BlobBytes, Started};
use super::manifests::shown;
use super::{Inner, Refusal};
use crate::access::Admission;
use crate::clock;
use crate::oci::{Digest, Hasher, Reference, Repository};
use crate::upstream::{Asker, BlobBody, Failure};

/// Somebody who wants a blob of a repository.
#[derive(Clone, Copy)]
struct Visit<'a> {
    caller: &'a Caller,
    guise: &'a Guise,
    repository: &'a Repository,
    digest: &'a Digest,
}

impl Inner {
    pub(super) async fn blob(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<BlobBytes, Refusal> {
        let guises = self.guises(&caller.client, repository)?;
        Self::in_turn(guises, |guise| async move {
            let visit = Visit { caller, guise: &guise, repository, digest };
            self.noted_refusal(&visit, self.blob_as(&visit)).await
        })
        .await
    }

    pub(super) async fn blob_size(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        let guises = self.guises(&caller.client, repository)?;
        Self::in_turn(guises, |guise| async move {
            let visit = Visit { caller, guise: &guise, repository, digest };
            self.noted_refusal(&visit, self.blob_size_as(&visit)).await
        })
        .await
    }

    /// What the registry said a short while ago that it does not have, or does not give, it is not asked for again.
    async fn noted_refusal<T>(
        &self,
        visit: &Visit<'_>,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let reference = Reference::Digest(visit.digest.clone());
        let what = || shown(visit.repository, &reference);
        if let Some(refusal) = self.still_denied(what, visit.repository, visit.guise) {
            return Err(refusal);
        }
        let key = (visit.repository.clone(), reference, visit.guise.clone());
        // As a manifest it may be missing and be a blob.
        if let Some(refusal @ Refusal::MissingBlob(_)) = self.refused.find(&key, clock::instant()) {
            return Err(refusal);
        }
        let answered = answer.await;
        if let Err(refusal @ Refusal::MissingBlob(_)) = &answered {
            self.refused.note(key, refusal.clone(), clock::instant());
        }
        answered
    }

    async fn blob_as(self: &Arc<Self>, visit: &Visit<'_>) -> Result<BlobBytes, Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        let started = match self.at_hand(repository.registry(), digest).await? {
            Some(started) => started,
            None => {
                let start = || {
                    let (inner, caller, guise) = (Arc::clone(self), caller.clone(), guise.clone());
                    let (repository, digest) = (repository.clone(), digest.clone());
                    async move {
                        let visit = Visit {
                            caller: &caller,
                            guise: &guise,
                            repository: &repository,
                            digest: &digest,
                        };
                        inner.start(&visit).await
                    }
                };
                let key = (repository.clone(), digest.clone(), guise.credential.clone());
                let started = self.downloads.starting.join(key, start).await;
                started.unwrap_or(Err(Refusal::Internal))?
            }
        };
        let admission = self.admission(guise, repository, clock::now())?;
        let seen = started.from.as_ref() == Some(repository) || self.hold.seen_in(digest, repository)?;
        self.prove(visit, admission, seen).await?;
        Ok(started.bytes)
    }

    async fn blob_size_as(&self, visit: &Visit<'_>) -> Result<Option<u64>, Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        let admission = self.admission(guise, repository, clock::now())?;
        match self.hold.blob(digest)? {
            Some(blob) => {
                self.prove(visit, admission, self.hold.seen_in(digest, repository)?).await?;
                Ok(Some(blob.size))
            }
            None => {
                let only_registry = self.asks_registry_alone(admission, repository);
                let asker = Self::asker(caller, guise.credential.clone(), only_registry);
                let size = self.head_of_blob(&asker, repository, digest, None).await;
                let size = size.map_err(|failure| self.refused(visit, admission, failure))?;
                self.note_answered(&asker, guise, repository);
                Ok(size)
            }
        }
    }

    /// Holds a blob that is here to what its registry says: that it is in this repository, once, and that whoever asks
    /// may read that. Where the registry cannot be asked, what it said before holds for those who could read then.
    async fn prove(&self, visit: &Visit<'_>, admission: Admission, seen: bool) -> Result<(), Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        if seen && admission == Admission::Granted {
            return Ok(());
        }
        let only_registry = self.asks_registry_alone(admission, repository);
        let asker = Self::asker(caller, guise.credential.clone(), only_registry);
        let size = self.hold.blob(digest)?.map(|blob| blob.size);
        let said = if seen || self.may_vouch(repository, digest)? {
            self.head_of_blob(&asker, repository, digest, size).await.map(drop)
        } else {
            self.witness(&asker, repository, digest, size).await
        };
        match said {
            Ok(()) => {
                self.note_answered(&asker, guise, repository);
                if !seen {
                    self.unnoted.tell(self.hold.note_source(digest, repository));
                }
                Ok(())
            }
            Err(failure) => match (admission, &failure) {
                (_, Failure::Denied { .. } | Failure::NoToken { .. }) => {
                    Err(self.refused(visit, admission, failure))
                }
                (Admission::WasPublic, _) if seen => Ok(()),
                (_, Failure::Missing) => Err(self.refused(visit, admission, failure)),
                (Admission::Lapsed, _) if seen => Ok(()),
                _ => Err(self.refused(visit, admission, failure)),
            },
        }
    }

    /// Asks for the head of a blob; where only a GET can tell, for that, of which no more is read.
    async fn head_of_blob(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        match self.upstreams.head_blob(asker, repository, digest, size).await {
            Err(Failure::NoHead { .. }) => {
                self.upstreams.get_blob(asker, repository, digest, 0, size).await.map(|body| body.total)
            }
            said => said,
        }
    }

    /// Has a registry show the bytes of a blob that is held, where its word alone counts for nothing. Nothing of them is
    /// kept.
    async fn witness(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<(), Failure> {
        let mut body = self.upstreams.get_blob(asker, repository, digest, 0, size).await?.body;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            length += chunk.len() as u64;
            if size.is_some_and(|size| length > size) {
                break;
            }
            hasher.update(&chunk);
        }
        if hasher.digest() == *digest {
            return Ok(());
        }
        Err(Failure::Unusable(format!("other bytes than those of {digest}").into()))
    }

    /// What a registry's failure comes to, for a blob.
    fn refused(&self, visit: &Visit<'_>, admission: Admission, failure: Failure) -> Refusal {
        let Visit { guise, repository, digest, .. } = *visit;
        let what = shown(repository, &Reference::Digest(digest.clone()));
        self.note_denial(guise, repository, &failure, clock::now());
        match (failure, admission) {
            (Failure::Missing, _) => Refusal::MissingBlob(what),
            (failure @ (Failure::Denied { .. } | Failure::NoToken { .. }), _)
            | (failure, Admission::Barred) => self.denied(what, repository, Some(&failure)),
            (failure, _) => Refusal::Unanswered { what, failure },
        }
    }

    async fn start(self: Arc<Self>, visit: &Visit<'_>) -> Result<Started, Refusal> {
        let Visit { caller, guise, repository, digest } = *visit;
        if let Some(started) = self.at_hand(repository.registry(), digest).await? {
            return Ok(started);
        }
        let admission = self.admission(guise, repository, clock::now())?;
        let only_registry = self.asks_registry_alone(admission, repository);
        // No registry counts a blob, so there is nothing to gain by a login that whoever asks does not have.
        let mut asker = Self::asker(caller, guise.credential.clone(), only_registry);
        // A mirror that gave other bytes is not asked for them again at once.
        asker.only_registry |= self.downloads.has_failed(repository, digest);
        let size = self.hold.listed_size(digest, repository)?;
        if let Err(why) = self.hold.can_download(size.unwrap_or(0)) {
            return Err(Refusal::unkept(shown(repository, &Reference::Digest(digest.clone())), why));
        }
        let mut answered = self.first_answer(&asker, repository, digest, size).await;
        if let Err(failure) = &answered
            && only_registry
            && admission.outlasts_an_outage()
            && !failure.is_verdict()
        {
            // Its mirrors may have it, and what it said before still holds.
            asker.only_registry = false;
            answered = self.first_answer(&asker, repository, digest, size).await;
        }
        let body = answered.map_err(|failure| self.refused(visit, admission, failure))?;
        // Somebody with another right may have asked at the same time.
        if let Some(started) = self.at_hand(repository.registry(), digest).await? {
            return Ok(Started { from: Some(repository.clone()), ..started });
        }
        // A client of the mirror reads it, be it that a short one has come in before its answer begins.
        let is_read = caller.client != Client::Operator;
        if is_read {
            self.record.wants(digest);
        }
        let begun = self.begin(asker, repository, digest, body, size).await;
        if is_read && begun.is_err() {
            self.record.wants_no_more(digest);
        }
        begun
    }

    /// Asks for a blob, and again where that may help: containerd 1.7 gives up the whole pull at the first 503.
    async fn first_answer(
        &self,
        asker: &Asker,
        from: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<BlobBody, Failure> {
        let may_pass = |failure: &Failure| {
            let may_pass = failure.may_pass();
            if may_pass {
                tracing::info!(repository = %from, %digest, why = %failure, "a blob is asked for again");
            }
            may_pass
        };
        again(may_pass, || self.upstreams.get_blob(asker, from, digest, 0, size)).await
    }
}
