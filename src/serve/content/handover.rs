//! Hand-over: giving a writer the whole blob before it has fetched a byte.
//!
//! A pull opens a writer, which is a first STAT, and asks for its status, a second one, before it goes to the
//! network; where that says that all bytes are there, it commits (`core/remotes/docker`, `fetch`). The first STAT
//! comes under containerd's database lock and the second does not, so the second may wait for a download.
//!
//! It rests on that order of calls and on no promise, so any doubt leads back to the ordinary way, in which
//! containerd fetches from the mirror: the switch `handover` is off; the ref names no digest; the hold does not know
//! where to fetch the blob; the length is not the one announced. And containerd must have asked whether we have this
//! blob, and been told no, a short while before: that is what it does under the policy `shared` alone. Under
//! `isolated` each namespace has to bring the bytes itself, to show that it may have them.
//!
//! Bytes that an earlier pull left in the ingest are no hindrance. They may be wrong, where a registry's were, and
//! then the pull could not be taken up with them: the whole blob takes their place.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::clock;
use crate::oci::{Algorithm, Digest};
use crate::record::{Ending, Front, Kind};
use crate::resolve::Resolver;
use crate::store::{Hold, Ingest, Protected, blocking};

/// How many blobs that were asked for in vain are remembered for each containerd.
const MISSES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What hand-over needs to know. Cheap to clone.
#[derive(Clone)]
pub(super) struct HandOver {
    hold: Hold,
    resolver: Resolver,
    /// The containerd, in words.
    asked_by: Arc<str>,
    missed: Arc<Mutex<LruCache<Digest, ()>>>,
}

impl HandOver {
    pub(super) fn new(hold: Hold, resolver: Resolver, asked_by: Arc<str>) -> Self {
        Self { hold, resolver, asked_by, missed: Arc::new(Mutex::new(LruCache::new(MISSES))) }
    }

    /// containerd asked for a blob that is not held.
    pub(super) fn note_miss(&self, digest: &Digest) {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).put(digest.clone(), ());
    }

    fn was_missed(&self, digest: &Digest) -> bool {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).pop(digest).is_some()
    }

    /// Tells the record that its containerd got by without asking a registry.
    pub(super) fn tell_given(&self, digest: &Digest) {
        let kind = if self.resolver.is_manifest(digest) { Kind::Manifest } else { Kind::Blob };
        self.resolver.record().answered(Front::Content, kind, Ending::Immutable, clock::now());
    }

    /// Brings in the blob that an ingest is for, showing its progress as the ingest's own. `None` where it is
    /// better left to containerd.
    pub(super) async fn bring_in(&self, ingest: &Ingest) -> Option<Whole> {
        let digest = digest_in(ingest.name()).filter(|digest| self.was_missed(digest))?;
        // From before it is held until its commit has adopted it.
        let (hold, of) = (self.hold.clone(), digest.clone());
        let protected = Arc::new(blocking(move || hold.protect(&of)).await);
        let progress = |offset| ingest.show_progress(offset);
        let size = match self.resolver.bring_in(&digest, &self.asked_by, progress).await {
            Ok(size) => size,
            Err(why) => {
                tracing::info!(%digest, %why, "not handed over: containerd fetches it itself");
                ingest.show_progress(ingest.status().offset);
                return None;
            }
        };
        let announced = ingest.status().total;
        (announced == 0 || announced == size).then_some(Whole { digest, size, _protected: protected })
    }
}

/// A blob that is held and was handed to a writer.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
    _protected: Arc<Protected>,
}

/// The digest at the end of a ref such as `default/7/layer-sha256:…`.
fn digest_in(name: &str) -> Option<Digest> {
    let start =
        Algorithm::ALL.into_iter().find_map(|algorithm| name.rfind(&format!("{}:", algorithm.name())))?;
    name.get(start..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_of_a_pull_ends_in_its_digest() {
        let digest = Digest::of(b"layer");
        for name in [format!("k8s.io/12/layer-{digest}"), format!("config-{digest}"), digest.to_string()] {
            assert_eq!(digest_in(&name), Some(digest.clone()), "{name}");
        }
        for name in
            [String::new(), "upload-1".into(), "layer-sha256:short".into(), format!("layer-{digest}-more")]
        {
            assert_eq!(digest_in(&name), None, "{name}");
        }
    }
}
