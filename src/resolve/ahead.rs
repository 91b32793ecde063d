//! Fetching ahead: once an image's manifest has been asked for in a pull, its blobs will be too.
//!
//! It begins with a manifest that somebody has got, or with the config of an image that is known, never with the mere
//! question what a tag points at. Each blob is the one download that all who ask for it share, in the order in which
//! containerd applies them. Nothing is fetched that whoever asked could not have right away: the same right is shown, and
//! a client's own token never, since it is kept no longer than the request that brought it. So of what only some may
//! read nothing is fetched ahead for a client; containerd's own socket is the operator's, with the hold's login.
//!
//! Left alone are images of other platforms, registries that a gate is shut for, and pulls that come while as many images
//! as may be are fetched already.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::recent::Recent;
use super::{BlobBytes, Caller, Client, Inner, Refusal};
use crate::clock;
use crate::oci::{Child, Digest, Kind, Registry, Repository};
use crate::upstream::Credential;

/// How many images are fetched ahead at a time, and of how many blobs of one.
const MOST_IMAGES: usize = 16;
const MOST_BLOBS: usize = 128;

/// How long an image is not looked at again, and how many are remembered.
const LOOKED_FOR: Duration = Duration::from_secs(30);
const MOST_LOOKED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How blobs are fetched.
#[derive(Debug, Clone, Copy)]
pub struct Fetch {
    /// Whether an image's blobs are fetched before they are asked for.
    pub ahead: bool,
    /// How many of them at a time, of each registry.
    pub parallel: usize,
    /// Most connections for one large blob.
    pub connections: usize,
}

impl Default for Fetch {
    fn default() -> Self {
        Self { ahead: true, parallel: 3, connections: 4 }
    }
}

/// What is being fetched ahead.
pub(super) struct Ahead {
    images: Arc<Semaphore>,
    /// The places of each registry that something is fetched from.
    places: Mutex<HashMap<Registry, Weak<Semaphore>>>,
    looked: Recent<(Repository, Digest), ()>,
    /// Nothing more is begun.
    pub(super) stop: CancellationToken,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            images: Arc::new(Semaphore::new(MOST_IMAGES)),
            places: Mutex::default(),
            looked: Recent::new(MOST_LOOKED, LOOKED_FOR),
            stop: CancellationToken::new(),
        }
    }
}

impl Ahead {
    fn places(&self, registry: &Registry, most: usize) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = places.get(registry).and_then(Weak::upgrade) {
            return found;
        }
        // There are no more of them than images.
        places.retain(|_, places| places.strong_count() > 0);
        let made = Arc::new(Semaphore::new(most));
        places.insert(registry.clone(), Arc::downgrade(&made));
        made
    }
}

impl Inner {
    /// Somebody has got a manifest, and will want its blobs. Waits for nothing.
    pub(super) fn fetch_ahead(
        self: &Arc<Self>,
        client: &Client,
        repository: &Repository,
        image: &Digest,
        (kind, children): (Kind, &Arc<[Child]>),
    ) {
        let key = || (repository.clone(), image.clone());
        if !self.fetch.ahead || kind != Kind::Image || self.ahead.stop.is_cancelled() {
            return;
        }
        if self.ahead.looked.find(&key(), clock::instant()).is_some() || self.known.is_foreign(image) {
            return;
        }
        self.ahead.looked.note(key(), (), clock::instant());
        let Ok(permit) = Arc::clone(&self.ahead.images).try_acquire_owned() else { return };
        let (inner, client, repository) = (Arc::clone(self), client.clone(), repository.clone());
        let (image, children) = (image.clone(), Arc::clone(children));
        self.tasks.spawn(async move {
            let _permit = permit;
            if let Err(why) = inner.fetch_blobs(client, &repository, &children).await {
                tracing::debug!(%repository, %image, %why, "not fetched ahead");
            }
        });
    }

    /// The config of an image is asked for; its layers will be too. Its manifest may have been got without us.
    pub(super) fn fetch_ahead_of_config(
        self: &Arc<Self>,
        client: &Client,
        repository: &Repository,
        config: &Digest,
    ) {
        if let Some((image, children)) = self.known.image_of(config) {
            self.fetch_ahead(client, repository, &image, (Kind::Image, &children));
        }
    }

    async fn fetch_blobs(
        self: &Arc<Self>,
        client: Client,
        repository: &Repository,
        children: &[Child],
    ) -> Result<(), Refusal> {
        let client = match client {
            Client::Token(_) if self.is_everybodys(repository)? => Client::Anyone,
            Client::Token(_) => return Ok(()),
            client @ (Client::Operator | Client::Anyone) => client,
        };
        let open = self.upstreams.open(&Credential::Anonymous, repository);
        if open.all.is_err() || open.pulls.is_err() {
            return Ok(());
        }
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        for child in children.iter().take(MOST_BLOBS) {
            if !child.is_elsewhere() && seen.insert(&child.digest) && self.hold.blob(&child.digest)?.is_none()
            {
                wanted.push(child);
            }
        }
        let places = self.ahead.places(repository.registry(), self.fetch.parallel);
        let fetching = futures_util::stream::iter(wanted).for_each_concurrent(self.fetch.parallel, |child| {
            let (places, client) = (Arc::clone(&places), client.clone());
            async move {
                let place = tokio::select! {
                    () = self.ahead.stop.cancelled() => return,
                    place = places.acquire_owned() => place,
                };
                // Who has begun it reads it as it comes.
                let place_of = (repository.registry().clone(), child.digest.clone());
                let is_ours = self.downloads.promising(&place_of).is_none();
                let Ok(_place) = place else { return };
                if is_ours {
                    self.record.wants(&child.digest);
                }
                // Its failure is told to whoever asks for it.
                match self.blob(&Caller::new(client, "fetching ahead"), repository, &child.digest).await {
                    Ok(BlobBytes::Coming(follower)) => {
                        follower.ended().await;
                    }
                    Ok(BlobBytes::Held(_)) | Err(_) => self.record.wants_no_more(&child.digest),
                }
            }
        });
        fetching.await;
        Ok(())
    }
}
