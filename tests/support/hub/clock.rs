//! The stand-in's one look at the time. A test can move it ahead, which ages windows, tokens and signed addresses
//! alike; it follows the runtime's clock, so that pausing that works as well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Started once; everything else is worked out from it.
pub(super) struct Clock {
    started: Instant,
    started_at: SystemTime,
    ahead_seconds: AtomicU64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the edge that reads the clock, once")]
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), started_at: SystemTime::now(), ahead_seconds: AtomicU64::new(0) }
    }

    /// Moves the time ahead.
    pub(super) fn advance(&self, seconds: u64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The runtime's time.
    pub(super) fn now(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    /// The wall-clock time.
    pub(super) fn wall(&self) -> SystemTime {
        self.started_at + self.started.elapsed() + self.ahead()
    }

    /// Seconds since 1970.
    pub(super) fn unix(&self) -> u64 {
        self.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn ahead(&self) -> Duration {
        Duration::from_secs(self.ahead_seconds.load(Ordering::Relaxed))
    }
}
