//! What was downloaded: how each blob that is held came here and what that took, and whose first client is still to come.
//!
//! The bytes of a download are *owed* to whoever reads them first, and that client has them from upstream: what clients
//! are given out of the hold is what did not have to be downloaded for them. A blob is often here before anybody reads it,
//! fetched ahead of its client or for a containerd that asks only then: such a one is *wanted*, and what is owed outlasts its
//! download. What was fetched for nobody in particular is the hold's own from its end on.

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
    owed: Mutex<LruCache<Digest, Owed>>,
    /// Whether anything may be owed: most reads find that nothing is.
    any_owed: AtomicBool,
}

/// What is owed of a blob.
#[derive(Debug, Default)]
struct Owed {
    /// What of it nobody has read. Of a length that is not known, all there can be.
    left: u64,
    /// Whether somebody reads it later.
    wanted: bool,
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

    /// Somebody reads a blob later that is about to be downloaded, or is already.
    pub(super) fn want(&self, digest: &Digest) {
        let mut owed = self.owed();
        owed.get_or_insert_mut(digest.clone(), Owed::default).wanted = true;
        self.any_owed.store(true, Ordering::Relaxed);
    }

    /// It was no download that was wanted: the blob is here, or cannot be had.
    pub(super) fn want_no_more(&self, digest: &Digest) {
        let mut owed = self.owed();
        if owed.peek(digest).is_some_and(|owed| owed.left == 0) {
            self.settle(&mut owed, digest);
        }
    }

    /// A download begins, of so many bytes where that is known.
    pub(super) fn begin(&self, digest: &Digest, bytes: Option<u64>) {
        let mut owed = self.owed();
        owed.get_or_insert_mut(digest.clone(), Owed::default).left = bytes.unwrap_or(u64::MAX);
        self.any_owed.store(true, Ordering::Relaxed);
    }

    /// It has ended, with all of the blob's bytes or with nothing.
    pub(super) fn end(&self, digest: &Digest, bytes: Option<u64>) {
        let mut owed = self.owed();
        match (owed.peek_mut(digest), bytes) {
            (Some(owed), Some(bytes)) if owed.wanted => owed.left = owed.left.min(bytes),
            _ => self.settle(&mut owed, digest),
        }
    }

    /// Somebody reads so many bytes of a blob: how many of them were owed.
    pub(super) fn pay(&self, digest: &Digest, bytes: u64) -> u64 {
        if !self.any_owed.load(Ordering::Relaxed) {
            return 0;
        }
        let mut owed = self.owed();
        let Some(Owed { left, .. }) = owed.peek_mut(digest) else { return 0 };
        let paid = bytes.min(*left);
        *left -= paid;
        if paid > 0 && *left == 0 {
            self.settle(&mut owed, digest);
        }
        paid
    }

    fn settle(&self, owed: &mut LruCache<Digest, Owed>, digest: &Digest) {
        owed.pop(digest);
        self.any_owed.store(!owed.is_empty(), Ordering::Relaxed);
    }

    fn owed(&self) -> MutexGuard<'_, LruCache<Digest, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_downloaded_for_somebody_is_given_once_and_the_rest_comes_out_of_the_hold() {
        let (downloads, blob) = (Downloads::default(), Digest::of(b"blob"));
        let wanted = |bytes| {
            downloads.want(&blob);
            downloads.begin(&blob, bytes);
            downloads.end(&blob, Some(10));
        };
        assert_eq!(downloads.pay(&blob, 4), 0);
        wanted(Some(10));
        assert_eq!(downloads.pay(&Digest::of(b"another"), 4), 0);
        assert_eq!([4, 4, 4, 4].map(|bytes| downloads.pay(&blob, bytes)), [4, 4, 2, 0]);
        wanted(None);
        assert_eq!(downloads.pay(&blob, 30), 10, "its length was known in the end");
        // It is here already.
        downloads.want(&blob);
        downloads.want_no_more(&blob);
        assert_eq!(downloads.pay(&blob, 30), 0);
    }

    #[test]
    fn of_several_who_read_a_download_the_first_one_pays_and_nobody_after_its_end() {
        let (downloads, blob) = (Downloads::default(), Digest::of(b"blob"));
        downloads.begin(&blob, Some(10));
        assert_eq!([10, 10, 3].map(|bytes| downloads.pay(&blob, bytes)), [10, 0, 0]);
        downloads.begin(&blob, Some(10));
        assert_eq!(downloads.pay(&blob, 3), 3);
        downloads.end(&blob, Some(10));
        assert_eq!(downloads.pay(&blob, 10), 0, "the hold had it for nobody");
        downloads.want(&blob);
        downloads.begin(&blob, Some(10));
        downloads.end(&blob, None);
        assert_eq!(downloads.pay(&blob, 10), 0, "nothing came of it");
    }
}
