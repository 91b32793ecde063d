//! What was learned a short while ago and is worth knowing for a little longer.
//!
//! Bounded in number and in time: the least recently noted leaves first.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// Values that are good for so long.
pub(super) struct Recent<K, V> {
    noted: Mutex<LruCache<K, (V, Instant)>>,
    good_for: Duration,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Nothing yet; no more than `most` at any time.
    pub(super) fn new(most: NonZeroUsize, good_for: Duration) -> Self {
        Self { noted: Mutex::new(LruCache::new(most)), good_for }
    }

    /// What was noted and is still good.
    pub(super) fn find(&self, key: &K, now: Instant) -> Option<V> {
        let noted = self.noted();
        let (value, at) = noted.peek(key)?;
        (now.duration_since(*at) < self.good_for).then(|| value.clone())
    }

    /// Notes it, in the place of what was.
    pub(super) fn note(&self, key: K, value: V, now: Instant) {
        self.noted().put(key, (value, now));
    }

    /// Forgets what this picks.
    pub(super) fn forget(&self, picks: impl Fn(&K) -> bool)
    where
        K: Clone,
    {
        let mut noted = self.noted();
        let picked: Vec<_> = noted.iter().map(|(key, _)| key).filter(|key| picks(key)).cloned().collect();
        for key in picked {
            noted.pop(&key);
        }
    }

    fn noted(&self) -> MutexGuard<'_, LruCache<K, (V, Instant)>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn it_is_known_for_a_while_and_no_more_than_so_many() {
        let recent = Recent::new(NonZeroUsize::new(2).unwrap(), Duration::from_secs(5));
        let now = clock::instant();
        recent.note("a", 1, now);
        recent.note("b", 2, now);
        assert_eq!(recent.find(&"a", now + Duration::from_secs(4)), Some(1));
        assert_eq!(recent.find(&"a", now + Duration::from_secs(5)), None);
        recent.note("c", 3, now);
        assert_eq!((recent.find(&"a", now), recent.find(&"c", now)), (None, Some(3)));
        recent.forget(|key| *key == "c");
        assert_eq!((recent.find(&"b", now), recent.find(&"c", now)), (Some(2), None));
    }
}
