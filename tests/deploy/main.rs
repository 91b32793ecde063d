//! What is in `deploy/`, tried as far as a machine can: the units by systemd's own reader, the package in a small Debian
//! of its own, the image by podman, the manifests by Kubernetes' own types, the action by its steps.
//!
//! A scenario is a function; what it touches is its own. One whose program this machine has not got is ignored, and says
//! why.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a scenario fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod action;
mod checks;
mod image;
mod kubernetes;
mod package;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use support::go::{Unbuilt, text};

const TIDEHOLD: &str = env!("CARGO_BIN_EXE_tidehold");

struct Scenario {
    name: &'static str,
    /// Whether it can be run here.
    needs: fn() -> Result<(), Unbuilt>,
    run: fn(),
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // What is built or tried for a scenario is so only where it is asked for.
    let wanted = |name: &str| {
        !arguments.list && arguments.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    };
    let all =
        [action::SCENARIOS, image::SCENARIOS, kubernetes::SCENARIOS, package::SCENARIOS, units::SCENARIOS];
    let trials = all.into_iter().flatten().map(|scenario| {
        let needs = if wanted(scenario.name) { (scenario.needs)() } else { Ok(()) };
        trial(scenario, needs)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trial(scenario: &'static Scenario, needs: Result<(), Unbuilt>) -> Trial {
    match needs {
        Ok(()) => Trial::test(scenario.name, || {
            (scenario.run)();
            Ok(())
        }),
        Err(Unbuilt::NotHere(reason)) => {
            eprintln!("skipped: {}: {reason}", scenario.name);
            Trial::test(scenario.name, || Err(reason.into())).with_ignored_flag(true)
        }
        Err(Unbuilt::Broken(output)) => Trial::test(scenario.name, || Err(output.into())),
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(path: &str) -> PathBuf {
    top().join("deploy").join(path)
}

fn nothing() -> Result<(), Unbuilt> {
    Ok(())
}

/// That this machine has a program.
fn program(name: &str) -> Result<(), Unbuilt> {
    match Command::new(name).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Unbuilt::NotHere(format!("no {name} here (tests/run.sh installs it where it can be had)"))),
    }
}

fn root() -> Result<(), Unbuilt> {
    support::parts::namespaces().map_err(Unbuilt::NotHere)
}

/// That the program under test can set a node up.
fn sets_up() -> Result<(), Unbuilt> {
    let asked = Command::new(TIDEHOLD).args(["setup", "--help"]).output().expect("tidehold runs");
    match asked.status.success() {
        true => Ok(()),
        false => Err(Unbuilt::NotHere("this tidehold has no setup".to_owned())),
    }
}

/// Everything below a folder: its kind and mode, and what is in a file or what a link says.
fn everything(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let there = fs::symlink_metadata(&path).unwrap();
            let bytes = match there.file_type() {
                kind if kind.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                }
                kind if kind.is_file() => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            if there.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, (there.permissions().mode(), bytes));
        }
    }
    found
}

/// Runs it and answers what it said on both channels; panics where it fails.
fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    text(&output)
}

/// Runs it and answers what it said where it fails; panics where it does not.
fn failed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(!output.status.success(), "{command:?} succeeds: {}", text(&output));
    text(&output)
}
