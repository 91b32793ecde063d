//! What was downloaded: how each blob that is held came here and what that took, and whose first client is still to come.
//!
//! A blob is often here before anybody reads it: fetched ahead of its client, or for a containerd that asks only then. Its
//! first reader is given what was downloaded for just that. So the bytes are *owed*, and whoever reads them first has them
//! from upstream: what clients are given out of the hold is what did not have to be downloaded for them.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::journal::ArrivedLine;
use crate::oci::Digest;

/// Of how many blobs it is remembered how they came, and of how many that nobody has read them.
const MOST_ARRIVALS: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
const MOST_OWED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

pub(super) struct Downloads {
    arrived: Mutex<LruCache<String, ArrivedLine>>,
    owed: Mutex<LruCache<Digest, u64>>,
    /// Whether anything may be owed: most reads find that nothing is.
    any_owed: AtomicBool,
}

impl Default for Downloads {
    fn default() -> Self {
        let (arrived, owed) = (LruCache::new(MOST_ARRIVALS), LruCache::new(MOST_OWED));
        Self { arrived: Mutex::new(arrived), owed: Mutex::new(owed), any_owed: AtomicBool::new(false) }
    }
}

impl Downloads {
    /// A blob has come in; one that came before came anew.
    pub(super) fn arrived(&self, line: ArrivedLine) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.put(line.digest.clone(), line);
    }

    pub(super) fn arrival(&self, digest: &Digest) -> Option<ArrivedLine> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).peek(digest.as_str()).cloned()
    }

    /// So many bytes of a blob are downloaded for somebody who has not read any of them.
    pub(super) fn owe(&self, digest: &Digest, bytes: u64) {
        let mut owed = self.owed();
        owed.put(digest.clone(), bytes);
        self.any_owed.store(true, Ordering::Relaxed);
    }

    /// Somebody reads so many bytes of a blob: how many of them were owed.
    pub(super) fn pay(&self, digest: &Digest, bytes: u64) -> u64 {
        if !self.any_owed.load(Ordering::Relaxed) {
            return 0;
        }
        let mut owed = self.owed();
        let Some(left) = owed.peek_mut(digest) else { return 0 };
        let paid = bytes.min(*left);
        *left -= paid;
        if *left == 0 {
            owed.pop(digest);
            self.any_owed.store(!owed.is_empty(), Ordering::Relaxed);
        }
        paid
    }

    fn owed(&self) -> MutexGuard<'_, LruCache<Digest, u64>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_downloaded_for_somebody_is_given_once_and_the_rest_comes_out_of_the_hold() {
        let (downloads, blob) = (Downloads::default(), Digest::of(b"blob"));
        assert_eq!(downloads.pay(&blob, 4), 0);
        downloads.owe(&blob, 10);
        assert_eq!(downloads.pay(&Digest::of(b"another"), 4), 0);
        assert_eq!([4, 4, 4, 4].map(|bytes| downloads.pay(&blob, bytes)), [4, 4, 2, 0]);
        // It was fetched again, and two wanted it at once.
        downloads.owe(&blob, 10);
        downloads.owe(&blob, 10);
        assert_eq!(downloads.pay(&blob, 30), 10);
    }
}
