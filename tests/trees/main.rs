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
mod tree;

use std::process::ExitCode;
use std::sync::Arc;

use applier::Applier;
use applier::peer::Peer;
use applier::tidehold::Tidehold;
use corpus::Case;
use libtest_mimic::{Arguments, Failed, Trial};
use place::{Mode, Place};
use support::go::Unbuilt;

/// Those who are compared.
struct Sides {
    containerd: Peer,
    tidehold: Tidehold,
}

impl Sides {
    fn ours(&self) -> &dyn Applier {
        if std::env::var_os("TREES_SELF").is_some() { &self.containerd } else { &self.tidehold }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sides = if arguments.list { None } else { Some(start().map(Arc::new)) };
    let mut trials = Vec::new();
    for mode in Mode::ALL {
        trials.push(trial(format!("{}: generated stacks", mode.name()), sides.as_ref(), move |sides| {
            Ok(generated::compare(&sides.containerd, sides.ours(), mode)?)
        }));
    }
    trials.extend(corpus::cases().into_iter().flat_map(|case| {
        let case = Arc::new(case);
        Mode::ALL.map(|mode| {
            let case = Arc::clone(&case);
            trial(format!("{}: {}", mode.name(), case.name), sides.as_ref(), move |sides| {
                compare(sides, &case, mode)
            })
        })
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn start() -> Result<Sides, Unbuilt> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Unbuilt::NotHere("it takes root (tests/run.sh asks sudo for it)".to_owned()));
    }
    Ok(Sides { containerd: Peer::start()?, tidehold: Tidehold::start() })
}

fn trial(
    name: String,
    sides: Option<&Result<Arc<Sides>, Unbuilt>>,
    run: impl FnOnce(&Sides) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match sides {
        Some(Ok(sides)) => {
            let sides = Arc::clone(sides);
            Trial::test(name, move || run(&sides))
        }
        Some(Err(Unbuilt::NotHere(reason))) => {
            eprintln!("skipped: {name}: {reason}");
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
    let ours: &dyn Applier =
        if std::env::var_os("TREES_SELF").is_some() { &sides.containerd } else { &sides.tidehold };
    let ours = place.run(ours, &stack, mode);
    let differences = theirs.differences(&ours);
    if differences.is_empty() { Ok(()) } else { Err(differences.into()) }
}
