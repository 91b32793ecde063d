//! What the operator does to what is held: list, pin, unpin, forget, prune. Each call is a turn of the
//! [`Keeper`](crate::evict::Keeper), which waits for the disk where it holds up nobody.

mod forget;
mod list;
mod pin;
mod prune;

pub(super) use forget::forget;
pub(super) use list::list;
pub(super) use pin::{pin, unpin};
pub(super) use prune::prune;
