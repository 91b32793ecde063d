//! Which registries left somebody waiting a moment ago: a pull is not to wait as long for each of its tags.
//!
//! Only a time-out shuts a gate: whatever else goes wrong is known at once and costs nobody anything. It opens by
//! itself after some seconds, and at the first answer. Bounded: the registry that has been shut longest is forgotten.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::decide::Gate;
use crate::oci::Registry;
use crate::upstream::Failure;

/// How long a gate stays shut.
const SHUT_FOR: Duration = Duration::from_secs(5);

/// How many registries are remembered.
const MOST_REGISTRIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The gates that are not open, by their registries.
pub(super) struct Gates {
    shut_until: Mutex<LruCache<Registry, Instant>>,
}

impl Default for Gates {
    fn default() -> Self {
        Self { shut_until: Mutex::new(LruCache::new(MOST_REGISTRIES)) }
    }
}

impl Gates {
    /// Whether a registry is worth waiting for.
    pub(super) fn of(&self, registry: &Registry, now: Instant) -> Gate {
        match self.shut_until().peek(registry) {
            Some(until) if now < *until => Gate::Shut,
            Some(_) | None => Gate::Open,
        }
    }

    /// Learns from what came of asking; `now` is when that was known.
    pub(super) fn learn(&self, registry: &Registry, failure: Option<&Failure>, now: Instant) {
        match failure {
            Some(Failure::TimedOut(_)) => {
                tracing::info!(%registry, seconds = SHUT_FOR.as_secs(), "no answer in time: what is held serves");
                self.shut_until().put(registry.clone(), now + SHUT_FOR);
            }
            Some(_) => {}
            None => {
                self.shut_until().pop(registry);
            }
        }
    }

    fn shut_until(&self) -> MutexGuard<'_, LruCache<Registry, Instant>> {
        self.shut_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::upstream::Wait;

    #[test]
    fn a_time_out_shuts_the_gate_of_one_registry_for_a_moment() {
        let (gates, start) = (Gates::default(), clock::instant());
        let (hub, other) = (Registry::docker_hub(), "quay.io".parse().unwrap());
        gates.learn(&hub, Some(&Failure::Missing), start);
        gates.learn(&hub, Some(&Failure::Unavailable { status: 503, retry_after: None }), start);
        assert_eq!(gates.of(&hub, start), Gate::Open);
        let timed_out = Failure::TimedOut(Wait::Headers);
        gates.learn(&hub, Some(&timed_out), start);
        assert_eq!((gates.of(&hub, start), gates.of(&other, start)), (Gate::Shut, Gate::Open));
        assert_eq!(gates.of(&hub, start + SHUT_FOR), Gate::Open);
        gates.learn(&hub, None, start);
        assert_eq!(gates.of(&hub, start), Gate::Open);
    }
}
