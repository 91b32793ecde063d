//! A node: real containerds of three lines, each with Tidehold as its only content store and as its resolver,
//! pull from a stand-in for Docker Hub that counts what it costs them.
//!
//! A scenario is a function of the version. Everything that it touches is its own, so that they run in any order
//! and side by side. One whose programs this machine has not got is ignored, and says why.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a scenario fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod adopt;
mod bench;
mod crictl;
mod damage;
mod differ;
mod evicting;
mod full;
mod handover;
mod kills;
mod layers;
mod nerdctl;
mod private;
mod programs;
mod pulls;
mod read_only;
mod restart;
mod shared;
mod waits;

use std::process::ExitCode;

use support::scenario::{Scenario, play, scenario};

const CHAPTERS: &[&[Scenario]] = &[
    pulls::SCENARIOS,
    private::SCENARIOS,
    handover::SCENARIOS,
    differ::SCENARIOS,
    layers::SCENARIOS,
    waits::SCENARIOS,
    shared::SCENARIOS,
    damage::SCENARIOS,
    evicting::SCENARIOS,
    full::SCENARIOS,
    read_only::SCENARIOS,
    restart::SCENARIOS,
    kills::SCENARIOS,
    adopt::SCENARIOS,
    crictl::SCENARIOS,
    nerdctl::SCENARIOS,
];

fn main() -> ExitCode {
    play(CHAPTERS)
}
