//! Clients that know nothing of Tidehold pull through its mirror, each as its users would have it do so, from a
//! stand-in for Docker Hub that counts what it costs them: crane and oras are built from the Go module beside this,
//! skopeo and podman are the distribution's.
//!
//! A scenario is a function of the client. Everything that it touches is its own, so that they run in any order and
//! side by side. One whose client this machine has not got is ignored, and says why.

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
mod client;
mod images;
mod private;
mod pulls;

use std::process::ExitCode;

use client::{Client, Programs};
use libtest_mimic::{Arguments, Trial};
use support::go::Unbuilt;

struct Scenario {
    name: &'static str,
    run: fn(&Programs, Client),
    clients: &'static [Client],
}

const fn scenario(name: &'static str, run: fn(&Programs, Client)) -> Scenario {
    Scenario { name, run, clients: Client::ALL }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // What is built or tried for a client is so only where it is asked for.
    let wanted = |name: &str| {
        !arguments.list && arguments.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    };
    let all = pulls::SCENARIOS.iter().chain(private::SCENARIOS);
    let all = all.flat_map(|scenario| scenario.clients.iter().map(move |client| (*client, scenario)));
    let trials = all.map(|(client, scenario)| {
        let name = format!("{client}: {}", scenario.name);
        let programs = if wanted(&name) { client.programs() } else { Ok(Programs::default()) };
        trial(name, client, scenario, programs)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trial(
    name: String,
    client: Client,
    scenario: &'static Scenario,
    programs: Result<Programs, Unbuilt>,
) -> Trial {
    match programs {
        Ok(programs) => Trial::test(name, move || {
            (scenario.run)(&programs, client);
            Ok(())
        }),
        Err(Unbuilt::NotHere(reason)) => {
            eprintln!("skipped: {name}: {reason}");
            Trial::test(name, move || Err(reason.into())).with_ignored_flag(true)
        }
        Err(Unbuilt::Broken(output)) => Trial::test(name, move || Err(output.into())),
    }
}
