//! How fast blobs may come, all together.
//!
//! Whoever has read a chunk waits until it was due. So the registries are read no faster, their connections fill up, and
//! they send no faster either.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// How far bytes may be ahead of what is due: enough for timers that are late, and too little to be seen.
const AHEAD: Duration = Duration::from_millis(100);

/// A limit on bytes a second.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_a_second: u64,
    /// When the last byte taken is due.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_a_second: u64) -> Self {
        Self { bytes_a_second: bytes_a_second.max(1), due: Mutex::new(None) }
    }

    /// Returns once so many more bytes are due.
    pub(super) async fn take(&self, bytes: usize) {
        let wait = self.wait(bytes, clock::instant());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long whoever takes so many bytes now has to wait. What was left over in the past is not saved up.
    fn wait(&self, bytes: usize, now: Instant) -> Duration {
        let nanoseconds = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_a_second);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX / 2));
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let at = due.map_or(now, |due| due.max(now)) + takes;
        *due = Some(at);
        at.duration_since(now).saturating_sub(AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_come_as_fast_as_they_may() {
        let (pace, mut now) = (Pace::new(1_000_000), clock::instant());
        let start = now;
        // As many as read by turns, each waits for its own chunk.
        for _ in 0..50 {
            let (one, other) = (pace.wait(100_000, now), pace.wait(100_000, now));
            assert!(one < other);
            now += other;
        }
        assert_eq!(now - start, Duration::from_secs(10) - AHEAD);
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (pace, now) = (Pace::new(1_000_000), clock::instant());
        pace.wait(1, now);
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.wait(1_000_000, later), Duration::from_secs(1) - AHEAD);
        assert_eq!(pace.wait(0, later), Duration::from_secs(1) - AHEAD);
    }
}
