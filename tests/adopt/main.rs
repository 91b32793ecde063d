//! `tidehold adopt` as a person or a script runs it, on stores that are laid out by hand: what it takes over and gives
//! back, what it says of what it cannot, and that it goes on wherever it or the daemon was ended. What containerds make of
//! it, `tests/node/adopt.rs` sees. Each test has a daemon and a store of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests a panic is how a test fails")]

#[path = "../support/mod.rs"]
mod support;

mod back;
mod ends;
mod node;
mod sources;
mod take;
