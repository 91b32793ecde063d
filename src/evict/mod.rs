//! Keeping and evicting: what of the cache is kept, what leaves and why, by one plan for everybody.
//!
//! [`plan`](plan::plan) is a pure function from what is held, the bounds and the time to what is to be removed. The daemon
//! itself, `tidehold prune` and its dry run all go by it. Knows the hold, and no registry.
//!
//! Invariants:
//! - Nothing is removed that a containerd relies on, that is pinned, or that is being read or written: the plan leaves it
//!   out, and the hold looks again, under its locks, before each removal.
//! - Least recently used first, and an image as a whole: what another image that stays needs is left with that one.
//! - It stops with the first image, or blob of no image, after which the bounds are kept.

mod forget;
mod images;
mod keeper;
mod parts;
mod plan;
mod tags;
mod watch;

pub use forget::{ForgetError, Forgotten};
pub use keeper::{Keeper, Limits, Prune, Pruned};
pub use plan::Removal;
pub use tags::{KeptTag, Unknown};
