//! What should have been remembered and could not be: told once in a while, since a full disk meets every request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::store::StoreError;

/// How long nothing more is said.
const QUIET: Duration = Duration::from_secs(60);

/// When that was last said.
#[derive(Default)]
pub(super) struct Unnoted {
    told_at: Mutex<Option<Instant>>,
}

impl Unnoted {
    /// Logs a failure to write something down that the answer does not depend on.
    pub(super) fn tell(&self, noted: Result<(), StoreError>) {
        if let Err(error) = noted
            && self.is_due(clock::instant())
        {
            tracing::error!(%error, "what a registry said could not be noted: it will be asked again");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told_at.is_none_or(|told_at| now.duration_since(told_at) >= QUIET);
        if due {
            *told_at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_once_a_minute() {
        let unnoted = Unnoted::default();
        let start = clock::instant();
        let due =
            [0, 1, 59, 60, 61, 119, 120].map(|after| unnoted.is_due(start + Duration::from_secs(after)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
