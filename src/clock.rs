//! The one reader of the system's clocks. Everything that decides is handed the time by its caller.

use std::time::{Instant, SystemTime};

/// The time of day, for what is kept across restarts.
#[expect(clippy::disallowed_methods, reason = "this is the edge that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// A clock that never goes back, for how long something took.
#[expect(clippy::disallowed_methods, reason = "this is the edge that reads the clock")]
pub fn instant() -> Instant {
    Instant::now()
}
