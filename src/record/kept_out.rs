//! The registries that nobody was let through to, since they are at no public address and nobody has listed them.
//!
//! Anybody can make up names that lead to such addresses: there is a bound, and the one that was asked for longest ago
//! leaves first.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use lru::LruCache;

use super::SPENT_WITHIN;
use crate::proto::v1;

/// How many are remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();

pub(super) struct KeptOut(Mutex<LruCache<String, Kept>>);

/// One of them.
struct Kept {
    address: String,
    standing: String,
    last_at: SystemTime,
    times: u64,
}

impl Default for KeptOut {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl KeptOut {
    /// A request was not sent to one, which is at such an address.
    pub(super) fn note(&self, registry: &str, address: String, standing: String, now: SystemTime) {
        let mut all = self.lock();
        let before = all.get(registry).filter(|kept| kept.is_told_at(now)).map_or(0, |kept| kept.times);
        all.put(registry.to_owned(), Kept { address, standing, last_at: now, times: before + 1 });
    }

    /// Those of late, the latest first.
    pub(super) fn told(&self, now: SystemTime) -> Vec<v1::KeptOutRegistry> {
        let all = self.lock();
        let told =
            all.iter().filter(|(_, kept)| kept.is_told_at(now)).map(|(registry, kept)| v1::KeptOutRegistry {
                registry: registry.clone(),
                address: kept.address.clone(),
                standing: kept.standing.clone(),
                last_at: Some(kept.last_at.into()),
                times: kept.times,
            });
        told.collect()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_told_at(&self, now: SystemTime) -> bool {
        now.duration_since(self.last_at).unwrap_or_default() < SPENT_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn those_of_late_are_told_and_there_are_only_so_many() {
        let kept_out = KeptOut::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let note = |registry: &str, now| {
            kept_out.note(registry, "10.1.2.3".to_owned(), "a private address".to_owned(), at(now));
        };
        let told = |now| {
            let told = kept_out.told(at(now)).into_iter();
            told.map(|told| (told.registry, told.times)).collect::<Vec<_>>()
        };
        note("a.test", 0);
        note("a.test", 1);
        note("b.test", 2);
        assert_eq!(told(3), [("b.test".to_owned(), 1), ("a.test".to_owned(), 2)]);
        let late = SPENT_WITHIN.as_secs() + 1;
        assert_eq!(told(late), [("b.test".to_owned(), 1)]);
        note("a.test", late);
        assert_eq!(told(late)[0], ("a.test".to_owned(), 1), "counted anew");
        (0..1000).for_each(|number| note(&format!("{number}.test"), late));
        assert_eq!(told(late).len(), MOST.get());
    }
}
