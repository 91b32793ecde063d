//! Blobs that somebody has found to be held and is about to rely on: none of them is removed meanwhile.
//!
//! Invariant: once [`Hold::protect`] has answered, a blob that is found to be held stays so until the answer is dropped.
//! Taking it and removing a blob both go through the digest's lock of adoptions, so neither falls between the other's
//! look and its act.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Hold, Inner};
use crate::oci::Digest;

/// How often each is protected.
#[derive(Default)]
pub(super) struct Protections(Mutex<HashMap<Digest, usize>>);

impl Protections {
    pub(super) fn contain(&self, digest: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }
}

/// Keeps a blob from being removed for as long as it lives.
#[must_use]
pub struct Protected {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Hold {
    /// Keeps a blob from being removed. Waits for a removal that has begun, or for an adoption that is being written.
    pub fn protect(&self, digest: &Digest) -> Protected {
        let _alone = self.inner.adopting.lock(digest);
        let mut counts = self.inner.protections.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(digest.clone()).or_default() += 1;
        Protected { inner: Arc::clone(&self.inner), digest: digest.clone() }
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        let mut counts = self.inner.protections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.digest);
            }
        }
    }
}

impl fmt::Debug for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Protected").field(&self.digest.as_str()).finish()
    }
}
