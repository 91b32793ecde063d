//! The control socket, and the commands that use it: what `tidehold resolve` and `tidehold warm` say and cost, and what
//! a client of `tidehold.v1.Resolver` gets. Each test has a daemon and a stand-in for Docker Hub of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "in the helpers of tests a panic is how a test fails"
)]

#[path = "../mirror/bench.rs"]
#[allow(dead_code, reason = "the mirror's tests use the rest of it")]
mod bench;
#[path = "../support/mod.rs"]
mod support;

mod command;
mod fetch;
mod keeping;
mod resolve;
mod socket;
mod told;
mod warm;
