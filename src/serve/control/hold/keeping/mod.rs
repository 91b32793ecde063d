//! What the operator does to what is held: list, pin, unpin, forget, prune. Each call is a turn of the
//! [`Keeper`](crate::evict::Keeper), which waits for the disk where it holds up nobody.

mod forget;
mod list;
mod pin;
mod prune;

use std::time::SystemTime;

pub(super) use forget::forget;
pub(super) use list::list;
pub(super) use pin::{pin, unpin};
pub(super) use prune::prune;

use super::super::problem::Problem;
use crate::evict::Keeper;
use crate::store::{StoreError, blocking};

/// Work that waits for the disk, and what the store says where it fails.
async fn with<T: Send + 'static>(
    keeper: &Keeper,
    work: impl FnOnce(&Keeper) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let keeper = keeper.clone();
    Ok(blocking(move || work(&keeper)).await?)
}

fn time(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}
