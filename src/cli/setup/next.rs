//! What is left for the operator to do once all is written, and no more than that: a restart that is not needed stops
//! somebody's work for nothing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tidehold::node::discover::Client;
use tidehold::node::journal::{Change, Debt};

use super::super::relied::adoption;
use super::plan::{PODMAN, Plan};
use super::shown;
use super::units::Units;

/// When a process began and when a file was written are both known to the second at best.
const SLACK: Duration = Duration::from_secs(2);

const RESTART: &str = "systemctl restart containerd";

const NOT_STARTED_SINCE: &str = "containerd was not started since its configuration was changed, as far as can be seen: it is owed a restart";

/// Whether containerd has to be restarted, which reads its configuration at its start only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Restart {
    /// It runs with what its files say, as far as can be seen, or there is none.
    #[default]
    Needless,
    /// Its files are changed now.
    Changed,
    /// It runs with what they said before, or nobody has seen that it does not.
    Owed,
    /// It does not answer: its next start is all that it takes.
    Stopped,
}

/// What is known of a containerd that may have to be restarted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// The files that it reads at its start are changed now.
    pub(super) changed: bool,
    pub(super) runs: bool,
    /// It has no content store of its own.
    pub(super) on_hold: bool,
    /// It is to be given the hold.
    pub(super) gets_the_hold: bool,
    /// When it was started, where its process can be seen.
    pub(super) started: Option<SystemTime>,
    /// When its files were last written.
    pub(super) written: Option<SystemTime>,
    /// What an earlier run has left it owed.
    pub(super) debt: Option<Debt>,
}

impl Known {
    /// Whether it was started since its files were written; none where that cannot be told.
    fn started_since(&self) -> Option<bool> {
        let (started, written) = self.started.zip(self.written)?;
        match () {
            () if written > started + SLACK => Some(false),
            () if started > written + SLACK => Some(true),
            () => None,
        }
    }

    /// Whether the debt is still open, where the times do not tell.
    fn is_owed(&self) -> bool {
        match self.debt {
            None => false,
            Some(Debt::Files) => true,
            Some(Debt::Store) => !self.on_hold,
        }
    }
}

impl Restart {
    /// Pure.
    pub(super) fn of(known: &Known) -> Self {
        let started_since = known.started_since().unwrap_or(!known.is_owed());
        match (known.changed, known.runs) {
            (true, _) => Self::Changed,
            (false, false) => Self::Stopped,
            (false, true) if known.gets_the_hold || !started_since => Self::Owed,
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

/// What is asked before it is done, where anything is.
pub(super) fn asked(plan: &Plan, wants_restart: bool) -> Option<String> {
    let change = (plan.count() > 0).then(|| format!("change {}", shown::files(plan.count())));
    let take_over = plan.left.as_ref().map(|_| "have them taken over".to_owned());
    let restart = (wants_restart && plan.restart.is_due()).then(|| "restart containerd".to_owned());
    let asked: Vec<String> = [change, take_over, restart].into_iter().flatten().collect();
    (!asked.is_empty()).then(|| asked.join(" and "))
}

/// What a run that only looks says of a restart that an earlier one has left.
pub(super) fn owed(restart: Restart) -> Option<&'static str> {
    (restart == Restart::Owed).then_some(NOT_STARTED_SINCE)
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
                explained.push(NOT_STARTED_SINCE.to_owned());
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
        let is = |known: Known, restart: Restart| assert_eq!(Restart::of(&known), restart, "{known:?}");
        let runs = Known { runs: true, started: at(9), written: at(1), ..Known::default() };
        is(Known { changed: true, ..runs }, Restart::Changed);
        is(runs, Restart::Needless);
        is(Known { started: at(1), written: at(9), ..runs }, Restart::Owed);
        is(Known { gets_the_hold: true, ..runs }, Restart::Owed);
        is(Known { started: None, ..runs }, Restart::Needless);
        is(Known { written: at(10), ..runs }, Restart::Needless);
        is(Known::default(), Restart::Stopped);
    }

    #[test]
    fn a_restart_is_owed_until_containerd_was_seen_started_since() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (debt, on_hold, unseen) in [
            (None, false, Restart::Needless),
            (Some(Debt::Files), false, Restart::Owed),
            (Some(Debt::Files), true, Restart::Owed),
            (Some(Debt::Store), false, Restart::Owed),
            (Some(Debt::Store), true, Restart::Needless),
        ] {
            let known = Known { runs: true, written: at(9), debt, on_hold, ..Known::default() };
            let with = |started| Restart::of(&Known { started, ..known });
            assert_eq!(with(None), unseen, "{known:?}");
            assert_eq!(with(at(8)), unseen, "{known:?}");
            assert_eq!(with(at(10)), unseen, "{known:?}");
            assert_eq!(with(at(20)), Restart::Needless, "{known:?}");
            assert_eq!(with(at(1)), Restart::Owed, "{known:?}");
        }
    }
}
