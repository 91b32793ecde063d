//! What is left for the operator to do once all is written, and no more than that: a restart that is not needed stops
//! somebody's work for nothing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tidehold::node::discover::Client;
use tidehold::node::journal::Change;

use super::super::relied::adoption;
use super::plan::{PODMAN, Plan};
use super::units::Units;

/// When a process began and when a file was written are both known to the second at best.
const SLACK: Duration = Duration::from_secs(2);

const RESTART: &str = "systemctl restart containerd";

/// Whether containerd has to be restarted, which reads its configuration at its start only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Restart {
    /// It runs with what its files say, as far as can be seen, or there is none.
    #[default]
    Needless,
    /// Its files are changed now.
    Changed,
    /// It runs with what they said before.
    Owed,
    /// It does not answer: its next start is all that it takes.
    Stopped,
}

impl Restart {
    /// Pure. The files are those that it reads; the store is the one that it is to have.
    pub(super) fn of(
        changed: bool,
        runs: bool,
        lacks_the_store: bool,
        started: Option<SystemTime>,
        written: Option<SystemTime>,
    ) -> Self {
        let before = started.zip(written).is_some_and(|(started, written)| written > started + SLACK);
        match (changed, runs) {
            (true, _) => Self::Changed,
            (false, false) => Self::Stopped,
            (false, true) if lacks_the_store || before => Self::Owed,
            (false, true) => Self::Needless,
        }
    }

    pub(super) fn is_due(self) -> bool {
        self != Self::Needless
    }

    /// Whether it may go on for a while with what it read before.
    fn leaves_some_behind(self) -> bool {
        matches!(self, Self::Changed | Self::Owed)
    }
}

/// What is to be done by hand, and with what; `restarted` says that Tidehold was started, and containerd where that was due.
pub(super) fn steps(plan: &Plan, restarted: bool) -> Vec<String> {
    let mut steps = Vec::new();
    let mut explained = Vec::new();
    if !restarted {
        if plan.changes.iter().any(|change| Units::is_one(&change.path)) {
            steps.push(Units::starting(Units::replace_some(&plan.changes)));
        } else if !plan.changes.is_empty() {
            steps.push("start tidehold where it does not run".to_owned());
        }
        match plan.restart {
            Restart::Changed => steps.push(RESTART.to_owned()),
            Restart::Owed => {
                steps.push(RESTART.to_owned());
                explained.push("containerd still runs with what its configuration said before".to_owned());
            }
            Restart::Stopped | Restart::Needless => {
                if plan.changes.iter().any(|change| change.path.ends_with("hosts.toml")) {
                    explained
                        .push("containerd needs no restart: it reads its hosts.toml at each pull".to_owned());
                }
            }
        }
        if plan.swap.is_some() && plan.restart.leaves_some_behind() {
            steps.push("tidehold adopt, for what it has pulled until then".to_owned());
        }
    }
    if plan.has_containerd && (restarted || !steps.is_empty()) {
        steps.push("tidehold doctor".to_owned());
    }
    let mut lines = explained;
    if !steps.is_empty() {
        lines.push(format!("next: {}", steps.join("; ")));
    }
    if let Some(swap) = plan.swap.as_ref().filter(|_| !restarted && plan.restart.leaves_some_behind()) {
        lines.push(format!(
            "owed: what containerd pulls until it is started again lies in a store that it does not look into after that. \
             However it comes to be started again, the machine's own start included, this settles it: {}",
            adoption(swap)
        ));
    }
    lines.extend(of_clients(&plan.changes));
    lines
}

/// The other clients that were told, of which none is restarted here: that would end what others run by them.
fn of_clients(changes: &[Change]) -> impl Iterator<Item = String> {
    let changed = |path: &str| changes.iter().any(|change| change.path == Path::new(path));
    let clients = [
        (
            changed(Client::Docker.config()),
            "dockerd goes on as before until it reads its mirrors anew: systemctl reload docker, which stops no container",
        ),
        (
            changed(Client::BuildKit.config()),
            "buildkitd goes on as before until it is restarted, which ends the builds that run: systemctl restart buildkit",
        ),
        (changed(PODMAN), "podman needs no restart: it reads its configuration each time"),
    ];
    clients.into_iter().filter(|(changed, _)| *changed).map(|(_, line)| line.to_owned())
}

/// The same once what they were told is taken back.
pub(super) fn after_undo(changes: &[std::path::PathBuf]) -> impl Iterator<Item = &'static str> {
    let changed = |path: &str| changes.iter().any(|changed| changed == Path::new(path));
    let clients = [
        (
            changed(Client::Docker.config()),
            "dockerd tries Tidehold's address before Docker Hub until it is restarted, when that suits you: systemctl restart \
             docker",
        ),
        (
            changed(Client::BuildKit.config()),
            "buildkitd tries Tidehold's address first until it is restarted, when that suits you: systemctl restart buildkit",
        ),
    ];
    clients.into_iter().filter(|(changed, _)| *changed).map(|(_, line)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_is_restarted_only_where_it_runs_with_what_it_read_before() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(Restart::of(true, true, false, at(9), at(1)), Restart::Changed);
        assert_eq!(Restart::of(false, true, false, at(9), at(1)), Restart::Needless);
        assert_eq!(Restart::of(false, true, false, at(1), at(9)), Restart::Owed);
        assert_eq!(Restart::of(false, true, true, at(9), at(1)), Restart::Owed);
        assert_eq!(Restart::of(false, true, false, None, at(1)), Restart::Needless);
        assert_eq!(Restart::of(false, true, false, at(9), at(10)), Restart::Needless);
        assert_eq!(Restart::of(false, false, false, None, None), Restart::Stopped);
    }
}
