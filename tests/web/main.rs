//! The web listener as a program sees it: the data behind the status page, its guards, the live stream, health, and the
//! metrics with the dashboard and the alerts over them. Each test has a daemon and a stand-in for Docker Hub of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in the helpers of tests a panic is how a test fails"
)]

#[path = "../mirror/bench.rs"]
#[allow(dead_code, reason = "the mirror's tests use the rest of it")]
mod bench;
#[path = "../control/command.rs"]
#[allow(dead_code, reason = "the tests of the commands use the rest of it")]
mod command;
#[path = "../support/mod.rs"]
mod support;

mod answers;
mod exposition;
mod guard;
mod live;
mod metrics;
mod queries;
