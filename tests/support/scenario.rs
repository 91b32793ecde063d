//! Scenarios that are played with each containerd there is; with one that cannot be had they are skipped, with the reason.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use super::containerd::Version;
use super::parts::Available;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Version),
    pub(crate) versions: &'static [Version],
    /// What it needs beside a containerd of the version.
    pub(crate) needs: fn(Version) -> Available<()>,
}

pub(crate) const fn scenario(name: &'static str, run: fn(Version)) -> Scenario {
    only(&Version::ALL, name, run)
}

/// For some versions alone.
pub(crate) const fn only(versions: &'static [Version], name: &'static str, run: fn(Version)) -> Scenario {
    Scenario { name, run, versions, needs: |_| Ok(()) }
}

/// Plays those that the command line asks for.
pub(crate) fn play(chapters: &'static [&'static [Scenario]]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each scenario is several servers; more of them at once than this only wait for each other.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores.min(4));

    let scenarios = chapters.iter().copied().flatten();
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
