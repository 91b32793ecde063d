//! The daemon's own eviction: looks once a second whether the bounds are kept, which costs next to nothing, and evicts
//! where they are not.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Keeper;
use super::keeper::{Excess, Pruned};
use crate::clock;
use crate::store::{StoreError, blocking};

/// How often it is looked whether the bounds are kept.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long before it is tried again after a plan that removed nothing: all that is left is pinned or in use.
const IN_VAIN_FOR: Duration = Duration::from_secs(5);

/// How often uses get their time.
const NOTE_USES_EVERY: Duration = Duration::from_secs(60);

/// How often it is said that the bounds cannot be kept.
const TELL_EVERY: Duration = Duration::from_secs(10 * 60);

impl Keeper {
    /// Keeps to the bounds until it is told to stop.
    pub async fn watch(self, stop: CancellationToken) {
        let count = {
            let (hold, stop) = (self.hold().clone(), stop.clone());
            blocking(move || hold.count(|| !stop.is_cancelled()))
        };
        if let Err(error) = count.await {
            tracing::error!(%error, "what is held could not be counted: nothing is evicted");
            return;
        }
        let mut watch = Watch { keeper: self, again_at: None, noted_at: clock::instant(), told_at: None };
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            if let Err(error) = watch.look().await {
                tracing::warn!(%error, "the bounds of the cache could not be looked after");
                watch.again_at = Some(clock::instant() + IN_VAIN_FOR);
            }
        }
        let hold = watch.keeper.hold().clone();
        if let Err(error) = blocking(move || hold.note_uses(clock::now())).await {
            tracing::warn!(%error, "when blobs were last used could not be noted");
        }
    }
}

struct Watch {
    keeper: Keeper,
    /// When the next plan is made at the earliest.
    again_at: Option<Instant>,
    noted_at: Instant,
    told_at: Option<Instant>,
}

impl Watch {
    async fn look(&mut self) -> Result<(), StoreError> {
        let now = clock::instant();
        if now.duration_since(self.noted_at) >= NOTE_USES_EVERY {
            self.noted_at = now;
            let hold = self.keeper.hold().clone();
            blocking(move || hold.note_uses(clock::now())).await?;
        }
        if self.again_at.is_some_and(|again_at| now < again_at) {
            return Ok(());
        }
        self.again_at = None;
        let excess = self.keeper.excess()?;
        if excess.calls_for_eviction() {
            let keeper = self.keeper.clone();
            let evicted = blocking(move || keeper.evict(excess, clock::now())).await?;
            self.tell(excess, &evicted, now);
            if evicted.removed.is_empty() {
                self.again_at = Some(now + IN_VAIN_FOR);
            }
        } else if excess.missing_bytes > 0 {
            self.tell(excess, &Pruned::default(), now);
        }
        Ok(())
    }

    fn tell(&mut self, excess: Excess, evicted: &Pruned, now: Instant) {
        let Excess { over_bytes, missing_bytes, .. } = excess;
        if !evicted.removed.is_empty() {
            tracing::info!(
                blobs = evicted.removed.len(),
                bytes = evicted.removed_bytes,
                cached_bytes = evicted.cached_bytes,
                over_bytes,
                missing_bytes,
                "evicted what was used least recently"
            );
            return;
        }
        // What was just used is evicted a few seconds later, which is no news.
        let shared_bytes = evicted.shared_bytes;
        let lasting = missing_bytes > 0 && (excess.cached_bytes == 0 || shared_bytes > 0);
        if lasting && self.told_at.is_none_or(|told_at| now.duration_since(told_at) >= TELL_EVERY) {
            self.told_at = Some(now);
            if shared_bytes > 0 {
                tracing::warn!(
                    missing_bytes,
                    shared_bytes,
                    "less of the disk is free than [cache] reserve_free wants, and what is cached shares its files with the \
                     store that it was taken over from, so that evicting it frees nothing: `tidehold adopt --clear` \
                     removes what that store does not need any more"
                );
                return;
            }
            tracing::warn!(
                missing_bytes,
                "less of the disk is free than [cache] reserve_free wants, and nothing is cached that could leave: what \
                 comes in leaves again at once"
            );
        }
    }
}
