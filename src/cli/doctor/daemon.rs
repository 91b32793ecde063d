//! The daemon: does it run with a sound configuration, and does somebody answer, and is it us, behind each of its
//! sockets?

use std::path::{Path, PathBuf};

use tidehold::config::{Config, Fault, LoadError};
use tidehold::proto::v1::{MissingListener, StatusResponse};

use super::finding::{Finding, RESTART, START, bad, ok, warn};
use super::holder::Holder;
use super::hosts::Mirror;
use super::listeners;
use crate::cli::words;

/// What was seen of the file of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// There is no file.
    Missing,
    /// There is something else.
    NoSocket,
    /// Nobody listens.
    Stale,
    /// It is not for us.
    Denied,
    /// Somebody listens.
    Open {
        /// Its rights, as `chmod` takes them.
        mode: u32,
        /// Whose it is.
        owner: u32,
    },
    /// Something else went wrong.
    Failed(String),
}

/// What answered at the mirror's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answerer {
    /// We ourselves.
    Ours,
    /// Something else.
    Other(String),
    /// Somebody listens there, and says nothing.
    Mute(String),
    /// Nobody.
    Nobody(String),
}

/// What there is to judge by.
#[derive(Debug)]
pub(super) struct Facts {
    /// The configuration's file, where there is one.
    pub(super) file: Option<PathBuf>,
    /// What holds.
    pub(super) config: Config,
    /// The control socket.
    pub(super) control: (PathBuf, Door),
    /// The content sockets, by name.
    pub(super) contents: Vec<(String, PathBuf, Door)>,
    /// What the daemon says of itself, where it was reached.
    pub(super) status: Option<Result<StatusResponse, String>>,
    /// The listeners that it could not have, where its page had to be asked since there is no control socket.
    pub(super) told_by_page: Vec<MissingListener>,
    /// Whether its page says that it opens its hold, which others wait for.
    pub(super) opening: bool,
    /// Who is at the mirror's address.
    pub(super) mirror: Answerer,
    /// Where that is.
    pub(super) at: Mirror,
    /// Who has the mirror's and the page's address, where we have not and it can be seen.
    pub(super) mirror_holder: Option<Holder>,
    pub(super) web_holder: Option<Holder>,
}

impl Facts {
    /// Whether it could be talked to.
    pub(super) fn answers(&self) -> bool {
        matches!(self.status, Some(Ok(_)))
    }

    /// Whether it runs, as far as it can be known.
    pub(super) fn runs(&self) -> bool {
        self.answers() || !self.told_by_page.is_empty()
    }

    /// Whether it runs and answers nobody, as far as it can be known.
    pub(super) fn hangs(&self) -> bool {
        let silent = matches!(self.status, Some(Err(_))) && matches!(self.mirror, Answerer::Mute(_));
        silent && !self.opening && self.mirror_holder.as_ref().is_none_or(Holder::is_ours)
    }

    /// The listener of this name, if the daemon could not have it.
    pub(super) fn missing(&self, name: &str) -> Option<&MissingListener> {
        let told = self.status.as_ref().and_then(|status| status.as_ref().ok());
        let told = told.map_or(&self.told_by_page, |status| &status.missing);
        told.iter().find(|missing| missing.name == name)
    }

    pub(super) fn file(&self) -> String {
        self.file.as_deref().unwrap_or(Path::new("/etc/tidehold/config.toml")).display().to_string()
    }
}

/// All about the daemon itself.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![configuration(facts)];
    findings.extend(facts.config.warnings().into_iter().map(|warning| {
        let (what, mend) = warning.split_once('\n').unwrap_or((&warning, ""));
        warn("daemon.configuration", format!("{}: {what}", facts.file()), mend.trim())
    }));
    findings.extend(control(facts));
    for (name, path, door) in &facts.contents {
        findings.extend(content(facts, name, path, door));
    }
    // Where the whole daemon is away, that has been said.
    let away = matches!(facts.control.1, Door::Missing | Door::Stale) && !facts.runs();
    if !facts.hangs() && (!away || !matches!(facts.mirror, Answerer::Nobody(_))) {
        findings.push(listeners::mirror(facts));
    }
    findings.extend(listeners::web(facts));
    findings
}

fn configuration(facts: &Facts) -> Finding {
    match &facts.file {
        Some(file) => ok("daemon.configuration", format!("{} is valid", file.display())),
        None => ok("daemon.configuration", "there is no configuration, so the defaults hold"),
    }
}

/// All that can be said of a daemon whose configuration has faults: each of them. What it would have where the rest holds,
/// and what defaults would have in its place, is not what the node has.
pub(super) fn faulty(file: &Path, error: &LoadError) -> Vec<Finding> {
    let name = "daemon.configuration";
    // As the node calls it, wherever that is seen from.
    let (quoted, file) = (words::quoted_path(file), file.display());
    let mut findings: Vec<_> = match error {
        LoadError::Unreadable { source, .. } => {
            let mend = format!("see that it is there, and who may read it: ls -l {quoted}");
            vec![bad(name, format!("{file} cannot be read: {source}"), mend)]
        }
        LoadError::Faulty(faults) => {
            let told = faults.iter().map(|fault| {
                let Fault { line, column, key, problem, instead } = fault;
                let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
                let mend = if instead.is_empty() { "mend this line" } else { instead };
                bad(name, format!("{file}:{line}:{column}: {key}{problem}"), mend)
            });
            told.collect()
        }
    };
    findings.push(warn(
        "daemon.not-examined",
        "the daemon's sockets, its mirror, the disk of its hold, registries, logins, and whether containerd and other \
         clients come to it were not examined: what they should be, the configuration says",
        format!(
            "mend it, see that it is valid, have the daemon read it, and examine the rest:\n  \
             tidehold serve --check --config {quoted}\n  systemctl restart tidehold\n  tidehold doctor"
        ),
    ));
    findings
}

fn control(facts: &Facts) -> Vec<Finding> {
    let (path, door) = &facts.control;
    let shown = path.display();
    let mut findings = Vec::new();
    match door {
        Door::Open { .. } => {}
        Door::Missing | Door::Stale if facts.runs() => {
            let why = facts.missing("control").map_or("nobody listens there", |missing| &missing.why);
            findings.push(bad(
                "daemon.control",
                format!("the daemon runs, and no command can ask it at {shown}: {why}"),
                "see to that, and the daemon listens there within seconds; or: systemctl restart tidehold",
            ));
        }
        Door::Missing => {
            findings.push(bad("daemon.down", format!("the daemon does not run: there is no {shown}"), START));
        }
        Door::Stale => findings.push(bad(
            "daemon.stale-socket",
            format!("the daemon does not run: nobody listens at {shown}, which an earlier one has left"),
            START,
        )),
        other => findings.push(odd_door("the control socket", path, other)),
    }
    findings.extend(rights("the control socket", path, door));
    match &facts.status {
        None => {}
        Some(Err(why)) => findings.push(silent(facts, why)),
        Some(Ok(status)) => findings.extend(answered(facts, status)),
    }
    findings
}

/// It listens at its control socket, and nobody is answered there.
pub(super) fn silent(facts: &Facts, why: &str) -> Finding {
    let shown = facts.control.0.display();
    if facts.opening {
        return warn(
            "daemon.silent",
            format!("the daemon opens its hold, and answers at {shown} once that is done"),
            "wait for that: journalctl -u tidehold -n 50 tells how far it is",
        );
    }
    let holder = facts.mirror_holder.as_ref().filter(|holder| facts.hangs() && holder.pid != 1);
    let (who, mend) = match holder {
        Some(holder) => (listeners::who(Some(holder)), holder.restarted()),
        None => ("the daemon".to_owned(), RESTART.to_owned()),
    };
    let mirror = match facts.hangs() {
        true => format!(", nor at {}", facts.at.url()),
        false => String::new(),
    };
    bad("daemon.silent", format!("{who} does not answer at {shown}{mirror}: {why}"), mend)
}

fn answered(facts: &Facts, status: &StatusResponse) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let mut findings = Vec::new();
    if status.version == own {
        let since = words::since(status.started_at);
        findings
            .push(ok("daemon.answers", format!("tidehold {own} answers, and has been running for {since}")));
    } else {
        findings.push(warn(
            "daemon.version",
            format!("the daemon is of version {}, and this command of {own}", status.version),
            "systemctl restart tidehold",
        ));
    }
    let told: Vec<_> =
        status.containerds.iter().map(|told| (told.name.as_str(), told.socket.as_str())).collect();
    let written = |(name, path): &(&str, &str)| {
        facts.contents.iter().any(|(own, socket, _)| own == name && socket == Path::new(path))
    };
    let differs = told.len() != facts.contents.len() || !told.iter().all(written);
    if differs || Path::new(&status.data_dir) != facts.config.data_dir {
        findings.push(warn(
            "daemon.other-configuration",
            format!("the daemon runs with something else than {} says now", facts.file()),
            "systemctl restart tidehold, or name the daemon's own with --config",
        ));
    }
    findings
}

fn content(facts: &Facts, name: &str, path: &Path, door: &Door) -> Vec<Finding> {
    let shown = path.display();
    let mut findings = Vec::new();
    match door {
        Door::Open { .. } => {}
        // The same is said of the whole daemon already.
        Door::Missing | Door::Stale if !facts.runs() => {}
        Door::Missing | Door::Stale => findings.push(bad(
            "daemon.content-socket",
            format!("nobody listens at {shown}, the content socket of {name:?}, though the daemon runs"),
            "systemctl restart tidehold.socket tidehold.service",
        )),
        other => findings.push(odd_door(&format!("the content socket of {name:?}"), path, other)),
    }
    findings.extend(rights(&format!("the content socket of {name:?}"), path, door));
    findings
}

fn odd_door(what: &str, path: &Path, door: &Door) -> Finding {
    let shown = path.display();
    match door {
        Door::NoSocket => bad(
            "daemon.no-socket",
            format!("{shown} should be {what}, and is something else"),
            format!(
                "mv {} {}; systemctl restart tidehold.socket tidehold.service",
                words::quoted_path(path),
                words::quoted(&format!("{shown}.old"))
            ),
        ),
        Door::Denied => bad(
            "daemon.denied",
            format!("{what} ({shown}) is only for the daemon's own user"),
            "run this as that user, or as root: sudo tidehold doctor",
        ),
        Door::Failed(why) => bad("daemon.socket", format!("{what} ({shown}) cannot be opened: {why}"), START),
        Door::Missing | Door::Stale | Door::Open { .. } => {
            ok("daemon.socket", format!("{what} is at {shown}"))
        }
    }
}

/// Whoever can open these can do what the node's operator can.
fn rights(what: &str, path: &Path, door: &Door) -> Option<Finding> {
    let Door::Open { mode, .. } = door else { return None };
    (mode & 0o022 != 0).then(|| {
        bad(
            "daemon.rights",
            format!("{what} is open to others than the daemon's user (mode {mode:03o})"),
            format!("chmod 600 {}, and SocketMode=0600 in tidehold.socket", words::quoted_path(path)),
        )
    })
}
