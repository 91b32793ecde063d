//! What the hold has of a manifest: its bytes with what they say, and how much of an image is there with them.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use super::decide::{Bytes, Standing};
use super::{Inner, Reason, Refusal, Served};
use crate::clock;
use crate::oci::{Child, Digest, Kind, MAX_MANIFEST_BYTES, Manifest, Platform, Repository};
use crate::store::{Readers, Reading, StoreError, blocking};

/// How many manifests' contents are kept in mind, and of how many children each at most.
const MOST_KNOWN: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const MOST_CHILDREN: usize = 128;

/// How many images for other machines are kept in mind.
const MOST_FOREIGN: NonZeroUsize = NonZeroUsize::new(8192).unwrap();

/// The longest manifest whose bytes are kept with that, in bytes: as most are.
const MOST_KEPT_BYTES: usize = 8 << 10;

/// What manifests say, as long as it is short. What a digest stands for never changes.
pub(super) struct KnownManifests(Mutex<Contents>);

struct Contents {
    manifests: LruCache<Digest, Arc<Known>>,
    /// The images of known indexes that this machine does not run.
    foreign: LruCache<Digest, ()>,
    /// The images of configs.
    images: LruCache<Digest, Digest>,
}

#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    media_type: String,
    children: Arc<[Child]>,
    /// All of it, where it is short. They are given out as long as the file is, which is looked at each time.
    bytes: Option<bytes::Bytes>,
}

impl Default for KnownManifests {
    fn default() -> Self {
        Self(Mutex::new(Contents {
            manifests: LruCache::new(MOST_KNOWN),
            foreign: LruCache::new(MOST_FOREIGN),
            images: LruCache::new(MOST_KNOWN),
        }))
    }
}

impl KnownManifests {
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Known>> {
        self.lock().manifests.get(digest).cloned()
    }

    fn learn(&self, digest: &Digest, bytes: &bytes::Bytes) -> Option<Arc<Known>> {
        if let Some(known) = self.find(digest) {
            return Some(known);
        }
        let manifest = Manifest::parse(bytes).ok()?;
        let known = Arc::new(Known {
            kind: manifest.kind(),
            media_type: manifest.media_type().to_owned(),
            children: manifest.children().into(),
            bytes: (bytes.len() <= MOST_KEPT_BYTES).then(|| bytes.clone()),
        });
        if known.children.len() <= MOST_CHILDREN {
            self.lock().learn(digest, &known);
        }
        Some(known)
    }

    /// Whether an image is known to be for other machines than this one.
    pub(super) fn is_foreign(&self, image: &Digest) -> bool {
        self.lock().foreign.contains(image)
    }

    /// The image that a config was seen in last, and all that it lists.
    pub(super) fn image_of(&self, config: &Digest) -> Option<(Digest, Arc<[Child]>)> {
        let mut contents = self.lock();
        let image = contents.images.get(config)?.clone();
        let known = contents.manifests.get(&image)?;
        Some((image, Arc::clone(&known.children)))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn learn(&mut self, digest: &Digest, known: &Arc<Known>) {
        self.manifests.put(digest.clone(), Arc::clone(known));
        match known.kind {
            Kind::Image => {
                // The first child of an image is its config.
                if let Some(config) = known.children.first() {
                    self.images.put(config.digest.clone(), digest.clone());
                }
            }
            Kind::Index => {
                let own = Platform::of_this_machine();
                for child in known.children.iter() {
                    if child.platform.as_ref().is_some_and(|made_for| own.distance_to(made_for).is_none()) {
                        self.foreign.put(child.digest.clone(), ());
                    }
                }
            }
        }
    }
}

impl Inner {
    /// A manifest that is held, to answer with.
    pub(super) async fn served(
        &self,
        digest: Digest,
        standing: Standing,
        reason: Reason,
        age: Duration,
    ) -> Result<Served, Refusal> {
        let bytes = self.manifest_bytes(&digest).await?.ok_or(Refusal::Internal)?;
        let Some(known) = self.known.learn(&digest, &bytes) else {
            return Err(Refusal::NotAManifest(digest));
        };
        let (children, media_type) = (Arc::clone(&known.children), known.media_type.clone());
        let (kind, grounds) = (known.kind, None);
        Ok(Served { kind, children, media_type, digest, bytes, standing, reason, age, grounds })
    }

    /// Whether a registry's word is enough to give out, under one of its repositories, bytes that came from elsewhere:
    /// they came from itself, or are everybody's anyway. Anybody can run a registry that says yes to everything; of such
    /// a one the bytes themselves are wanted.
    pub(super) fn may_vouch(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        for source in self.hold.sources(digest)? {
            if source.registry() == repository.registry()
                || matches!(self.hold.readers(&source)?, Some(Readers::Anyone { .. }))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How much is here, to be given out under a repository, of the image that its registry names there.
    pub(super) async fn bytes_for(&self, repository: &Repository, digest: &Digest) -> Result<Bytes, Refusal> {
        if self.hold.seen_in(digest, repository)? || self.may_vouch(repository, digest)? {
            return self.bytes_of(digest).await;
        }
        Ok(Bytes::Absent)
    }

    /// Tells the record of a manifest that somebody need not ask its registry for.
    pub(super) fn spared(&self, digest: &Digest) {
        if let Ok(sources) = self.hold.sources(digest)
            && let Some(source) = sources.first()
        {
            self.record.given_manifest(source, clock::now());
        }
    }

    /// How much is here of the image that a digest stands for.
    pub(super) async fn bytes_of(&self, digest: &Digest) -> Result<Bytes, Refusal> {
        if self.hold.blob(digest)?.is_none() {
            return Ok(Bytes::Absent);
        }
        let known = match self.known.find(digest) {
            Some(known) => Some(known),
            None => match self.manifest_bytes(digest).await {
                Ok(Some(bytes)) => self.known.learn(digest, &bytes),
                Ok(None) => return Ok(Bytes::Absent),
                Err(Refusal::NotAManifest(_)) => None,
                Err(refusal) => return Err(refusal),
            },
        };
        let Some(known) = known else { return Ok(Bytes::Whole) };
        match known.kind {
            Kind::Image => Ok(Bytes::Whole),
            Kind::Index => Ok(if self.any_held(&known.children)? { Bytes::Whole } else { Bytes::Hollow }),
        }
    }

    fn any_held(&self, children: &[Child]) -> Result<bool, StoreError> {
        for child in children.iter().take(MOST_CHILDREN) {
            if self.hold.blob(&child.digest)?.is_some() {
                return Ok(true);
            }
        }
        // An index of nothing lacks nothing.
        Ok(children.is_empty())
    }

    /// The bytes of a manifest that is held. Nothing where they have been lost.
    async fn manifest_bytes(&self, digest: &Digest) -> Result<Option<bytes::Bytes>, Refusal> {
        let blob = match self.hold.reading(digest).await? {
            Reading::Open(blob) => blob,
            Reading::Lost { .. } | Reading::No => return Ok(None),
        };
        if blob.size() > MAX_MANIFEST_BYTES {
            return Err(Refusal::NotAManifest(digest.clone()));
        }
        if let Some(bytes) = self.known.find(digest).and_then(|known| known.bytes.clone()) {
            return Ok(Some(bytes));
        }
        let read = blocking(move || blob.read_at(0, usize::MAX)).await;
        read.map(Some).map_err(|error| {
            tracing::error!(%digest, %error, "a manifest could not be read");
            Refusal::Internal
        })
    }
}
