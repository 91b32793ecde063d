//! The stand-in's one look at the time: wall-clock seconds that follow the runtime's clock, so that a test that
//! advances a paused runtime also ages tokens, signed addresses and windows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Started once; everything else is worked out from it.
pub(super) struct Clock {
    started: Instant,
    started_at: SystemTime,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the edge that reads the clock, once")]
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), started_at: SystemTime::now() }
    }

    /// The runtime's time.
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }

    /// The wall-clock time.
    pub(super) fn wall(&self) -> SystemTime {
        self.started_at + self.started.elapsed()
    }

    /// Seconds since 1970.
    pub(super) fn unix(&self) -> u64 {
        self.wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}
