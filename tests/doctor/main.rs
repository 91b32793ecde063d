//! `tidehold doctor` on nodes that are as they should be, where it must find nothing, and on nodes that are
//! misconfigured, where it must name what is wrong, and where following its words must leave nothing to mend.
//!
//! The ten misconfigurations that people report most of containerd, nerdctl and those who set up mirrors for them are in
//! `reported`:
//!
//! 1. `config_path` is not set, so no `hosts.toml` is ever read.
//! 2. `config_path` names two folders with a colon between them, and the transfer service takes that for one folder.
//! 3. `config_path` stands in a section that this version of containerd, or of the file, does not read.
//! 4. `registry.mirrors` stands beside `config_path`, so that the CRI plugin does not load.
//! 5. The CRI plugin is disabled, as some packages ship it, and the kubelet gets no answer.
//! 6. `hosts.toml` has a `server` and no `[host]`, which 1.6 and 1.7 do not take.
//! 7. `hosts.toml` is no TOML; containerd goes on without it.
//! 8. The registry's folder has the name of the server (`registry-1.docker.io`) in place of the image's.
//! 9. The mirror is written with `https` and speaks plain http, or beneath a path of its own.
//! 10. A drop-in file that is imported replaces the whole table of a plugin, and `config_path` with it.
//!
//! `nodes` has the good nodes, `daemon` what goes wrong with Tidehold itself, `store` the content store.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a scenario fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod daemon;
mod nodes;
mod reported;
mod store;

use std::process::ExitCode;

use support::scenario::{Scenario, only, play, scenario};

const CHAPTERS: &[&[Scenario]] =
    &[nodes::SCENARIOS, reported::SCENARIOS, store::SCENARIOS, daemon::SCENARIOS];

fn main() -> ExitCode {
    play(CHAPTERS)
}
