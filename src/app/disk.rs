//! What the daemon does about a disk that takes no writes, and about an index that is lost by that.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{Hold, blocking};

/// How often it is asked whether the index is on the disk.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// How often a disk that failed is tried.
const TRY_DISK_EVERY: Duration = Duration::from_millis(500);

/// Says when the disk has refused something, and tries it until it takes writes again: what it refused once nobody is
/// let to try with a pull.
pub(super) async fn mind_the_disk(hold: Hold, stop: CancellationToken) {
    let mind = async {
        loop {
            let error = hold.refused().await;
            let mend = error.mend().unwrap_or_default();
            tracing::error!(%error, mend, "the disk takes no writes: what is held is served, and nothing new is fetched");
            well(&hold).await;
            tracing::warn!("the disk can be written again: what is new is fetched and kept");
        }
    };
    stop.run_until_cancelled(mind).await;
}

/// Waits until the disk takes a try.
async fn well(hold: &Hold) {
    let mut tries = tokio::time::interval(TRY_DISK_EVERY);
    loop {
        tries.tick().await;
        let hold = hold.clone();
        match blocking(move || hold.try_disk()).await {
            Ok(()) => break,
            Err(error) => tracing::debug!(%error, "the disk still cannot be written"),
        }
    }
}

/// Waits until the index could not be written. What nobody waits for goes to the disk by itself; that this failed is told
/// to whoever has something written next alone.
async fn index_lost(hold: &Hold) {
    let mut flushes = tokio::time::interval(FLUSH_EVERY);
    loop {
        tokio::select! {
            () = hold.index_lost() => break,
            _ = flushes.tick() => {}
        }
        let hold = hold.clone();
        if let Err(error) = blocking(move || hold.flush()).await {
            tracing::debug!(%error, "the index is not on the disk");
        }
    }
}

/// Waits for the index to fail and then for the disk to take writes again. Ending before that would bring nothing:
/// the next daemon could not open the index either, while this one still serves what it holds.
pub(super) async fn lost_until_the_disk_is_well(hold: &Hold) {
    index_lost(hold).await;
    tracing::error!(
        "the index could not be written, is the disk full? What is held is served, and nothing new is kept, until \
         the disk can be written; then this daemon ends, to be started anew"
    );
    well(hold).await;
    tracing::warn!(
        "the disk can be written again: ending, so that the service manager starts this daemon anew"
    );
}
