//! What the daemon makes of layers, beside what containerd's own applier makes of them: the same tree, down to
//! modes, owners, times, xattrs and hard links, or no tree at all.
//!
//! `corpus` has the awkward layers, each in both modes that snapshotters have: an upper folder of overlay's, and a
//! bind mount. `generated` has stacks that nobody would think of. What a layer may never do, whoever applies it, is
//! to touch what is outside of its root: each run looks for that. `safety` has what containerd's applier is not
//! asked. containerd's applier is a Go program in `peer/`; without Go, or root, all of this is ignored and says why.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod applier;
mod archive;
mod corpus;
mod generated;
mod place;
mod safety;
mod seen;
mod tree;

use std::process::ExitCode;
use std::sync::Arc;

use applier::peer::Peer;
use applier::tidehold::Tidehold;
use corpus::{Case, Fate};
use libtest_mimic::{Arguments, Failed, Trial};
use place::{Mode, Place};
use support::go::Unbuilt;

/// Those who are compared.
struct Sides {
    containerd: Peer,
    tidehold: Tidehold,
}

/// What a test does.
type Run = Box<dyn FnOnce(&Sides) -> Result<(), Failed> + Send>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests = tests();
    let wanted = |name: &str| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter));
    // Nothing is fetched, built or started for a list, or for tests that are not asked for.
    let runs = !arguments.list && tests.iter().any(|(name, _)| wanted(name));
    let sides = runs.then(|| start().map(Arc::new));
    if let Some(Err(Unbuilt::NotHere(reason))) = &sides {
        eprintln!("skipped: {} tests of what is made of layers: {reason}", tests.len());
    }
    let trials = tests.into_iter().map(|(name, run)| trial(name, sides.as_ref(), run)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn tests() -> Vec<(String, Run)> {
    let mut tests: Vec<(String, Run)> = Vec::new();
    for (name, test) in safety::TESTS {
        tests.push(((*name).to_owned(), Box::new(move |sides| test(&sides.tidehold))));
    }
    for change in seen::CHANGES {
        tests.push((format!("the comparison sees {}", change.0), Box::new(|_| seen::is_seen(change))));
    }
    for mode in Mode::ALL {
        let run = move |sides: &Sides| Ok(generated::compare(&sides.containerd, &sides.tidehold, mode)?);
        tests.push((format!("{}: generated stacks", mode.name()), Box::new(run)));
    }
    for case in corpus::cases().into_iter().map(Arc::new) {
        for mode in Mode::ALL {
            let case = Arc::clone(&case);
            let name = format!("{}: {}", mode.name(), case.name);
            tests.push((name, Box::new(move |sides| compare(sides, &case, mode))));
        }
    }
    tests
}

fn start() -> Result<Sides, Unbuilt> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Unbuilt::NotHere("it takes root (tests/run.sh asks sudo for it)".to_owned()));
    }
    Ok(Sides { containerd: Peer::start()?, tidehold: Tidehold::start() })
}

fn trial(name: String, sides: Option<&Result<Arc<Sides>, Unbuilt>>, run: Run) -> Trial {
    match sides {
        Some(Ok(sides)) => {
            let sides = Arc::clone(sides);
            Trial::test(name, move || run(&sides))
        }
        Some(Err(Unbuilt::NotHere(reason))) => {
            let reason = reason.clone();
            Trial::test(name, move || Err(reason.into())).with_ignored_flag(true)
        }
        Some(Err(Unbuilt::Broken(output))) => {
            let output = output.clone();
            Trial::test(name, move || Err(output.into()))
        }
        None => Trial::test(name, || Ok(())),
    }
}

fn compare(sides: &Sides, case: &Case, mode: Mode) -> Result<(), Failed> {
    let place = Place::new();
    let stack = (case.layers)(&place.outside());
    let theirs = place.run(&sides.containerd, &stack, mode);
    if theirs.applied() != case.fate.is_applied(mode) {
        return Err(format!("the case is not what it says: containerd: {:#?}", theirs.outcomes()).into());
    }
    let ours = place.run(&sides.tidehold, &stack, mode);
    if case.fate == Fate::RefusedByUs {
        return if ours.applied() { Err("the daemon applies it".into()) } else { Ok(()) };
    }
    let differences = theirs.differences(&ours);
    if differences.is_empty() { Ok(()) } else { Err(differences.into()) }
}
