//! The calls that come in at the content sockets: whether any runs, and whether there are more to come.
//!
//! A pull is one call after the other: what was written is looked at, read or applied next. Nobody says that it is done, so
//! that it is told by nothing coming any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The calls of all content sockets. Cheap to clone: every clone is of the same ones.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    running: TaskTracker,
    begun: Arc<AtomicU64>,
}

impl Calls {
    /// One has come, and runs until this is dropped.
    pub(super) fn begin(&self) -> TaskTrackerToken {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.token()
    }

    /// Whether any runs.
    pub fn are_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Returns once none runs and none has come for so long.
    pub async fn quiet_for(&self, time: Duration) {
        loop {
            self.running.close();
            self.running.wait().await;
            let begun = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            if self.running.is_empty() && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn it_is_quiet_once_no_call_runs_and_none_has_come_since() {
        let calls = Calls::default();
        let running = calls.begin();
        let mut quiet = pin!(calls.quiet_for(Duration::ZERO));
        assert!(poll!(quiet.as_mut()).is_pending());
        let next = calls.begin();
        drop(running);
        assert!(poll!(quiet.as_mut()).is_pending());
        drop(next);
        quiet.await;
    }
}
