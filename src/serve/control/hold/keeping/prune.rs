//! `Prune`: removes what is only cache.

use std::time::Duration;

use super::super::super::problem::Problem;
use super::super::asked;
use crate::clock;
use crate::evict::{Prune, Removal};
use crate::proto::v1;
use crate::serve::overview::Overview;

/// How many removals one answer tells of.
const MOST_TOLD: usize = 10_000;

pub(in super::super) async fn prune(
    overview: &Overview,
    request: v1::PruneRequest,
) -> Result<v1::PruneResponse, Problem> {
    let v1::PruneRequest { dry_run, to_bytes, unused_for } = request;
    let malformed =
        |_| Problem::malformed("unused_for has to be a length of time, not below none".to_owned());
    let unused_for = unused_for.map(Duration::try_from).transpose().map_err(malformed)?;
    let prune = Prune { dry_run, to_bytes, unused_for };
    let pruned = asked(overview, move |overview| overview.keeper().prune(&prune, clock::now())).await?;
    if !dry_run {
        tracing::info!(
            target: "tidehold::control",
            blobs = pruned.removed.len(),
            removed_bytes = pruned.removed_bytes,
            cached_bytes = pruned.cached_bytes,
            "pruned"
        );
    }
    Ok(v1::PruneResponse {
        removed_blobs: pruned.removed.len() as u64,
        removed: pruned.removed.into_iter().take(MOST_TOLD).map(message).collect(),
        removed_bytes: pruned.removed_bytes,
        cached_bytes: pruned.cached_bytes,
        kept_bytes: pruned.kept_bytes,
    })
}

fn message(removal: Removal) -> v1::Pruned {
    v1::Pruned {
        digest: removal.digest.to_string(),
        size: removal.size,
        used_at: Some(removal.used_at.into()),
        reference: removal.reference.to_string(),
    }
}
