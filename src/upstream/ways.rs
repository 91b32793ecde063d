//! How upstreams wanted to be asked when they last said so, so that most requests cost no challenge.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use url::Origin;

use super::challenge::Way;
use crate::oci::Registry;

/// How many are remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What is remembered. Clones share it.
#[derive(Clone)]
pub(super) struct Ways(Arc<Mutex<LruCache<Home, Way>>>);

/// Where a registry is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Home {
    /// Which one.
    pub(super) registry: Registry,
    /// Where.
    pub(super) origin: Origin,
}

impl Ways {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MOST))))
    }

    /// How it wanted to be asked when it last said so.
    pub(super) fn known(&self, home: &Home) -> Option<Way> {
        self.lock().get(home).cloned()
    }

    /// Remembers it.
    pub(super) fn learn(&self, home: &Home, way: Way) {
        self.lock().put(home.clone(), way);
    }

    /// Forgets it, because it no longer worked: the next request is challenged anew.
    pub(super) fn unlearn(&self, home: &Home) {
        self.lock().pop(home);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Home, Way>> {
        // Nothing that is done under this lock can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
