//! What else is on this node, and what of it has to be told of Tidehold.
//!
//! The configurations of containerd and of other clients are read and edited here as text: each edit is a pure function
//! from the old text to the new one, and keeps what it has no business with. This part knows no other part of Tidehold,
//! is used by the commands alone, and never by the daemon.

pub mod containerd;
pub mod discover;
pub mod edits;
pub mod files;
pub mod hosts;
pub mod journal;
mod takeout;
pub mod unit;
