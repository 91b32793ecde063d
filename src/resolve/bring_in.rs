//! Bringing in a blob that nobody has named a repository for: the hold remembers where it was listed or seen.

use std::sync::Arc;
use std::time::Duration;

use super::{BlobBytes, Caller, Client, Inner, Refusal, Resolver};
use crate::clock;
use crate::oci::{Digest, Reference, Repository};
use crate::store::{DownloadState, FollowError, Follower, Listed};

/// How long somebody waits for the next byte who may ask elsewhere: containerd then asks the mirror.
const STALLED_AFTER: Duration = Duration::from_secs(20);

impl Resolver {
    /// Makes sure that a blob is held, and answers with its length in bytes. Tells how many bytes have come in as
    /// they do.
    ///
    /// # Errors
    /// When the hold does not know where to get it, or cannot.
    pub async fn bring_in(
        &self,
        digest: &Digest,
        asked_by: &str,
        progress: impl Fn(u64) + Send,
    ) -> Result<u64, Refusal> {
        if let Some(blob) = self.inner.hold.blob(digest)? {
            return Ok(blob.size);
        }
        let mut refused = Refusal::MissingBlob(format!("{digest}, of which no repository is known,"));
        for (repository, kind) in self.inner.whereabouts(digest)? {
            if self.inner.is_clients_alone(&repository)? {
                // containerd fetches it through the mirror, with the token of its client.
                continue;
            }
            let brought = match kind {
                Listed::Manifest => self.inner.bring_manifest(&repository, digest, asked_by).await,
                Listed::Blob => self.inner.bring_blob(&repository, digest, asked_by, &progress).await,
            };
            match brought {
                Ok(size) => return Ok(size),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

impl Inner {
    /// Where to ask, the likeliest first.
    fn whereabouts(&self, digest: &Digest) -> Result<Vec<(Repository, Listed)>, Refusal> {
        let mut places: Vec<_> = self.hold.listed(digest)?.into_iter().collect();
        for repository in self.hold.sources(digest)? {
            // What only some may read is not fetched for an image of another repository that happens to list it.
            if !self.is_everybodys(&repository)? {
                continue;
            }
            for kind in [Listed::Blob, Listed::Manifest] {
                if !places.iter().any(|place| *place == (repository.clone(), kind)) {
                    places.push((repository.clone(), kind));
                }
            }
        }
        Ok(places)
    }

    async fn bring_manifest(
        self: &Arc<Self>,
        from: &Repository,
        digest: &Digest,
        asked_by: &str,
    ) -> Result<u64, Refusal> {
        let caller = Caller::new(Client::Operator, asked_by);
        let reference = Reference::Digest(digest.clone());
        let answered = self.manifest(&caller, from, &reference).await;
        self.tell(&caller, from, &reference, &answered, clock::now());
        let served = answered?;
        self.record.given_manifest(from, clock::now());
        self.fetch_ahead(&caller.client, from, digest, (served.kind, &served.children));
        Ok(served.bytes.len() as u64)
    }

    async fn bring_blob(
        self: &Arc<Self>,
        from: &Repository,
        digest: &Digest,
        asked_by: &str,
        progress: &(impl Fn(u64) + Send),
    ) -> Result<u64, Refusal> {
        // containerd is told that all of it is there, and reads it afterwards.
        self.record.wants(digest);
        match self.blob(&Caller::new(Client::Operator, asked_by), from, digest).await {
            Ok(BlobBytes::Held(blob)) => {
                self.record.wants_no_more(digest);
                Ok(blob.size())
            }
            Ok(BlobBytes::Coming(follower)) => {
                self.fetch_ahead_of_config(&Client::Operator, from, digest);
                followed(follower, progress).await.map_err(Refusal::Interrupted)
            }
            Err(refusal) => {
                self.record.wants_no_more(digest);
                Err(refusal)
            }
        }
    }
}

/// Waits for the end of a download.
async fn followed(mut follower: Follower, progress: &(impl Fn(u64) + Send)) -> Result<u64, FollowError> {
    let mut seen = 0;
    loop {
        let past = tokio::time::timeout(STALLED_AFTER, follower.past(seen)).await;
        seen = past.unwrap_or_else(|_| Err(FollowError::Failed("nothing has come in for a while".into())))?;
        progress(seen);
        if let DownloadState::Done { size } = follower.state() {
            return Ok(size);
        }
    }
}
