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
mod handover;
mod kills;
mod layers;
mod nerdctl;
mod private;
mod programs;
mod pulls;
mod restart;
mod shared;
mod waits;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::containerd::Version;
use support::parts::Available;

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
    restart::SCENARIOS,
    kills::SCENARIOS,
    adopt::SCENARIOS,
    crictl::SCENARIOS,
    nerdctl::SCENARIOS,
];

struct Scenario {
    name: &'static str,
    run: fn(Version),
    versions: &'static [Version],
    /// What it needs beside a containerd of the version.
    needs: fn(Version) -> Available<()>,
}

const fn scenario(name: &'static str, run: fn(Version)) -> Scenario {
    Scenario { name, run, versions: &Version::ALL, needs: |_| Ok(()) }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each scenario is several servers; more of them at once than this only wait for each other.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores.min(4));

    let scenarios = CHAPTERS.iter().copied().flatten();
    let trials = scenarios
        .flat_map(|scenario| scenario.versions.iter().map(|version| trial(*version, scenario, &arguments)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(version: Version, scenario: &'static Scenario, arguments: &Arguments) -> Trial {
    let name = format!("containerd {version}: {}", scenario.name);
    // What a scenario needs may have to be built, and is so only where it is asked for.
    let wanted = !arguments.list && arguments.filter.as_ref().is_none_or(|filter| name.contains(filter));
    let needs = |_| if wanted { (scenario.needs)(version) } else { Ok(()) };
    match version.available().and_then(needs) {
        Ok(()) => Trial::test(name, move || {
            (scenario.run)(version);
            Ok(())
        }),
        Err(reason) => {
            if wanted {
                eprintln!("skipped: {name}: {reason}");
            }
            Trial::test(name, move || Err(reason.into())).with_ignored_flag(true)
        }
    }
}
