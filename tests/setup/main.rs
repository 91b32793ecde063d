//! `tidehold setup`: real containerds of three lines are set up, pull by way of the daemon, and are as they were once that
//! is taken back; and what the command says and does on nodes of all kinds, laid out in a folder.
//!
//! A scenario whose programs this machine has not got is ignored, and says why.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a scenario fails"
)]

#[path = "../node/bench.rs"]
#[allow(dead_code, reason = "the node's tests use the rest of it")]
mod bench;
#[path = "../support/mod.rs"]
mod support;

mod files;
mod hanging;
mod node;
mod registries;
mod units;
mod unstarted;
mod whole;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::containerd::Version;
use support::parts::{Available, namespaces};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores.min(4));
    let mut trials: Vec<Trial> = [files::TESTS, hanging::TESTS, registries::TESTS, units::TESTS]
        .concat()
        .into_iter()
        .map(|(name, run)| {
            Trial::test(name, move || {
                run();
                Ok(())
            })
        })
        .collect();
    for (name, run) in unstarted::SCENARIOS {
        trials.push(trial((*name).to_owned(), namespaces(), run, &arguments));
    }
    for (name, run) in whole::SCENARIOS {
        trials.extend(Version::ALL.map(|version| {
            let name = format!("containerd {version}: {name}");
            trial(name, version.available().map(drop), move || run(version), &arguments)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(
    name: String,
    needs: Available<()>,
    run: impl FnOnce() + Send + 'static,
    arguments: &Arguments,
) -> Trial {
    match needs {
        Ok(()) => Trial::test(name, move || {
            run();
            Ok(())
        }),
        Err(reason) => {
            if !arguments.list && arguments.filter.as_ref().is_none_or(|filter| name.contains(filter)) {
                eprintln!("skipped: {name}: {reason}");
            }
            Trial::test(name, move || Err(reason.into())).with_ignored_flag(true)
        }
    }
}
