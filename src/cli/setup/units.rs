//! systemd's units of Tidehold: written where systemd runs and nobody has done so yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use tidehold::config::Config;
use tidehold::node::files::{matching, seen, text};
use tidehold::node::journal::{Change, Journal};

use super::super::Failed;
use super::{Setup, shown};

const SERVICE: &str = include_str!("../../../deploy/systemd/tidehold.service");
const SOCKET: &str = include_str!("../../../deploy/systemd/tidehold.socket");

const MIRROR_SOCKET: &str = include_str!("../../../deploy/systemd/tidehold-mirror.socket");

const WEB_SOCKET: &str = include_str!("../../../deploy/systemd/tidehold-web.socket");

/// Where administrators put units.
const FOLDER: &str = "/etc/systemd/system";

/// Where packages put them too.
const OTHER_FOLDERS: [&str; 3] = [FOLDER, "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What the service runs: systemd finds it where programs are installed.
const RUN: &str = "ExecStart=tidehold serve";

/// Where systemd finds it.
const FOUND: [&str; 2] = ["/usr/local/bin/tidehold", "/usr/bin/tidehold"];

/// Folders that the service has its own of, or that are empty after the machine has started.
const HIDDEN: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// All of them, the sockets first, so that nobody starts the service again while it stops.
const ALL: [&str; 4] = [SOCKETS[0], SOCKETS[1], SOCKETS[2], SERVICE_NAME];
const SOCKETS: [&str; 3] = ["tidehold.socket", "tidehold-mirror.socket", "tidehold-web.socket"];
const SERVICE_NAME: &str = "tidehold.service";

/// What is enabled; the service brings the others along.
const ENABLED: [&str; 2] = [SOCKETS[0], SERVICE_NAME];

/// How systemctl ends where a unit is not loaded, as systemctl(1) says.
const NOT_LOADED: i32 = 5;

/// Whose a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Missing,
    /// As setup wrote it.
    Ours,
    /// A package's, an administrator's, or one of ours that somebody has changed.
    Others,
}

impl Standing {
    /// Whether setup writes it; the set that it belongs to may be ours.
    fn is_written(self, set_is_ours: bool) -> bool {
        match self {
            Self::Ours => true,
            Self::Missing => set_is_ours,
            Self::Others => false,
        }
    }
}

/// Whether the set is, by its service and its first socket: an earlier version of it had fewer units. Pure.
fn is_ours(service: Standing, socket: Standing, says_what_runs: bool) -> bool {
    match (service, socket) {
        (Standing::Missing, _) | (_, Standing::Ours) | (Standing::Ours, Standing::Missing) => true,
        // That socket may be an earlier version's, changed since, and goes with the service of that version.
        (Standing::Ours, Standing::Others) => says_what_runs,
        (Standing::Others, Standing::Missing | Standing::Others) => false,
    }
}

/// What it takes that Tidehold runs with its units as they are, now and whenever the node starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It does.
    Needless,
    Needed,
    /// What runs with other units has to end first: sockets are made anew only while their service does not run.
    Anew,
}

/// By which of its units were changed just now, since when the daemon runs that answers, when those of ours were last
/// written, and whether they start with the node. Pure.
fn start_of(
    changes: &[Change],
    since: Option<SystemTime>,
    written: Option<SystemTime>,
    is_enabled: bool,
) -> Start {
    match since {
        _ if Units::replace_some(changes) => Start::Anew,
        Some(since) if changes.is_empty() && written.is_some_and(|written| written > since) => Start::Anew,
        Some(_) if changes.is_empty() && is_enabled => Start::Needless,
        Some(_) | None => Start::Needed,
    }
}

/// The units on a node.
pub(super) struct Units {
    root: PathBuf,
    left_alone: bool,
}

impl Units {
    pub(super) fn of(setup: &Setup) -> Self {
        Self { root: setup.root.clone(), left_alone: setup.no_units }
    }

    /// Whether a file that setup wrote is one of them.
    pub(super) fn is_one(path: &Path) -> bool {
        path.parent() == Some(Path::new(FOLDER))
    }

    /// Whether these changes leave units that may run already without what they would be started with.
    pub(super) fn replace_some(changes: &[Change]) -> bool {
        let units = changes.iter().filter(|change| Self::is_one(&change.path));
        let (new, replaced): (Vec<_>, Vec<_>) = units.partition(|change| change.before.is_none());
        !replaced.is_empty() || !new.is_empty() && new.len() < ALL.len()
    }

    /// What is to be written: their paths and texts. Units of others stay; ours go with the configuration.
    pub(super) fn wanted(
        &self,
        config: &Config,
        setup: &Setup,
        program: &Path,
    ) -> Result<Vec<(PathBuf, String)>, Failed> {
        if self.left_alone || !self.runs() {
            return Ok(Vec::new());
        }
        let journal = Journal::open(&self.root, &setup.journal).context("read what was changed before")?;
        let standing = |unit: &str| {
            let there = |folder: &str| seen(&self.root, &Path::new(folder).join(unit)).exists();
            match journal.wrote(&Path::new(FOLDER).join(unit)) {
                true => Standing::Ours,
                false if OTHER_FOLDERS.iter().any(|folder| there(folder)) => Standing::Others,
                false => Standing::Missing,
            }
        };
        let sockets = [
            (SOCKETS[0], socket_unit(config)),
            (SOCKETS[1], listening(MIRROR_SOCKET, &[config.mirror.listen.to_string()])),
            (SOCKETS[2], listening(WEB_SOCKET, &[config.web.listen.to_string()])),
        ];
        let of_service = standing(SERVICE_NAME);
        if of_service == Standing::Others && !self.text_of(SERVICE_NAME)?.contains(SOCKETS[1]) {
            // It would not bring the mirror's socket along: it goes on with those that it has.
            return Ok(Vec::new());
        }
        let says_what_runs = setup.program.is_some() || setup.config.is_some();
        let is_ours = is_ours(of_service, standing(SOCKETS[0]), says_what_runs);
        let wanted = sockets.into_iter().filter(|(unit, _)| standing(unit).is_written(is_ours));
        let mut wanted: Vec<_> = wanted.map(|(unit, text)| (Path::new(FOLDER).join(unit), text)).collect();
        let service = Path::new(FOLDER).join(SERVICE_NAME);
        match of_service {
            Standing::Others => return Ok(wanted),
            Standing::Ours if !is_ours => return Ok(wanted),
            Standing::Ours if !says_what_runs => {
                wanted.insert(0, (service, refreshed(&self.text_of(SERVICE_NAME)?)));
                return Ok(wanted);
            }
            Standing::Ours | Standing::Missing => {}
        }
        let config = setup.config.as_deref().map(|config| self.on_node(config)).transpose()?;
        let program = self.on_node(program)?;
        for path in std::iter::once(&program).chain(&config) {
            if let Some(folder) = HIDDEN.iter().find(|folder| path.starts_with(folder)) {
                return Err(anyhow!(
                    "{} is below {folder}, where a service does not see it, or not after the next start of the machine: put it \
                     elsewhere (a program by `install -m 0755 {} /usr/local/bin/tidehold`) and run this again from there, or \
                     leave systemd alone with --no-units; nothing was changed",
                    path.display(),
                    path.display()
                )
                .into());
            }
        }
        wanted.insert(0, (service, service_unit(&program, config.as_deref())));
        Ok(wanted)
    }

    /// A unit as it is there; empty where it is not.
    fn text_of(&self, unit: &str) -> Result<String, Failed> {
        for folder in OTHER_FOLDERS {
            let path = Path::new(folder).join(unit);
            let found = text(&self.root, &path).with_context(|| format!("read {}", path.display()))?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(String::new())
    }

    /// A path as the node's systemd takes it.
    pub(super) fn on_node(&self, path: &Path) -> Result<PathBuf, Failed> {
        let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
        let seen = path.strip_prefix(&self.root).map(|path| Path::new("/").join(path));
        Ok(seen.unwrap_or(path))
    }

    /// Whether systemd here starts and stops it.
    pub(super) fn are_here(&self) -> bool {
        !self.elsewhere()
    }

    /// What it takes to have Tidehold run once these changes are written.
    pub(super) fn start_needed(
        &self,
        journal: &Journal,
        changes: &[Change],
        since: Option<SystemTime>,
    ) -> Start {
        if self.elsewhere() {
            return Start::Needless;
        }
        let own = ALL.map(|unit| Path::new(FOLDER).join(unit)).into_iter().filter(|path| journal.wrote(path));
        let written = own.filter_map(|path| fs::metadata(path).ok()?.modified().ok()).max();
        let is_enabled = |unit: &&str| wanting(unit).any(|link| link.exists());
        start_of(changes, since, written, ENABLED.iter().all(is_enabled))
    }

    /// Starts Tidehold, now and whenever the node starts; its service brings the sockets of the mirror and the status page,
    /// where these can be had.
    pub(super) fn start(&self, start: Start) -> Result<(), Failed> {
        if start == Start::Needless {
            return Ok(());
        }
        self.systemctl(&["daemon-reload"])?;
        if start == Start::Anew {
            self.stop_all()?;
        }
        self.systemctl(&[&["enable", "--now"][..], &ENABLED].concat())
    }

    /// Has it start no more. A unit whose file is gone does not either, and systemctl knows none of that name.
    pub(super) fn disable(&self) -> Result<(), Failed> {
        if self.elsewhere() {
            return Ok(());
        }
        let there = |unit: &&str| OTHER_FOLDERS.iter().any(|folder| Path::new(folder).join(unit).exists());
        // Each by its name: those that the service enables it disables only while its own file is there.
        let (there, gone): (Vec<&str>, Vec<&str>) = ALL.into_iter().partition(there);
        gone.into_iter().try_for_each(unlink)?;
        if there.is_empty() {
            return Ok(());
        }
        self.systemctl(&[&["disable"][..], &there].concat())
    }

    /// Stops it, once nobody needs it any more.
    pub(super) fn stop(&self) -> Result<(), Failed> {
        if self.elsewhere() {
            return Ok(());
        }
        self.stop_all()?;
        self.systemctl(&["daemon-reload"])
    }

    /// What is not loaded is stopped: its files may be gone, and the machine started again since.
    fn stop_all(&self) -> Result<(), Failed> {
        let words = [&["stop"][..], &ALL].concat();
        let ended = self.run(&words)?;
        let stopped = ended.success() || ended.code() == Some(NOT_LOADED) && !any_is_active()?;
        if stopped { Ok(()) } else { Err(not_done(&words, ended)) }
    }

    /// What does the same by hand.
    pub(super) fn stopping() -> String {
        format!("systemctl stop {} && systemctl daemon-reload", ALL.join(" "))
    }

    /// What starts it by hand, as `start` does.
    pub(super) fn starting(replaced: bool) -> String {
        let stop = if replaced { format!("systemctl stop {} && ", ALL.join(" ")) } else { String::new() };
        format!("systemctl daemon-reload && {stop}systemctl enable --now {}", ENABLED.join(" "))
    }

    /// That systemd is there to restart anything.
    pub(super) fn must_run(&self) -> Result<(), Failed> {
        if self.root != Path::new("/") {
            return Err(anyhow!(
                "what runs on the node at {} cannot be restarted from here: say how with --restart-with",
                self.root.display()
            )
            .into());
        }
        if !self.runs() {
            return Err(anyhow!(
                "no systemd runs here, so nothing can be restarted by --restart: leave it out, then start `tidehold serve` and \
                 restart containerd by what starts services here; or say how with --restart-with COMMAND; nothing was changed"
            )
            .into());
        }
        Ok(())
    }

    /// As sd_booted(3) tells.
    fn runs(&self) -> bool {
        seen(&self.root, Path::new("/run/systemd/system")).is_dir()
    }

    /// Whether there is nothing here to be told of the units.
    fn elsewhere(&self) -> bool {
        self.left_alone || self.root != Path::new("/") || !self.runs()
    }

    fn systemctl(&self, words: &[&str]) -> Result<(), Failed> {
        let ended = self.run(words)?;
        if ended.success() { Ok(()) } else { Err(not_done(words, ended)) }
    }

    fn run(&self, words: &[&str]) -> Result<ExitStatus, Failed> {
        let mut command = Command::new("systemctl");
        command.args(words);
        shown::running(&command)?;
        Ok(command.status().context("run systemctl")?)
    }
}

/// The links by which a unit is enabled.
fn wanting(unit: &str) -> impl Iterator<Item = PathBuf> {
    let folders = matching(Path::new("/"), &format!("{FOLDER}/*.wants"));
    folders.into_iter().map(move |folder| folder.join(unit)).filter(|link| link.is_symlink())
}

/// Removes what enabled a unit whose file is gone.
fn unlink(unit: &str) -> Result<(), Failed> {
    for link in wanting(unit) {
        if !link.exists() {
            fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
        }
    }
    Ok(())
}

fn not_done(words: &[&str], ended: ExitStatus) -> Failed {
    anyhow!("systemctl {} failed ({ended}): journalctl -u tidehold says more", words.join(" ")).into()
}

/// Whether one of them runs, or listens.
fn any_is_active() -> Result<bool, Failed> {
    let asked = Command::new("systemctl").args(["--quiet", "is-active"]).args(ALL).status();
    Ok(asked.context("run systemctl")?.success())
}

/// The service for a program that may be elsewhere, and with a configuration of its own.
fn service_unit(program: &Path, config: Option<&Path>) -> String {
    let program =
        if FOUND.iter().any(|found| Path::new(found) == program) { Path::new("tidehold") } else { program };
    let config = config.map(|config| format!(" --config {}", quoted(config))).unwrap_or_default();
    SERVICE.replace(RUN, &format!("ExecStart={} serve{config}", quoted(program)))
}

/// The service as it is now, for what an earlier one runs.
fn refreshed(before: &str) -> String {
    let runs = before.lines().find(|line| line.starts_with("ExecStart="));
    SERVICE.replace(RUN, runs.unwrap_or(RUN))
}

/// A word of a command line, as systemd.service(5) and systemd.unit(5) have it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    if text.chars().all(|char| !char.is_whitespace() && !matches!(char, '"' | '\'' | '\\' | ';')) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The sockets that the configuration names by a path.
fn socket_unit(config: &Config) -> String {
    let sockets = config.containerds.iter().map(|containerd| &containerd.socket);
    let sockets = sockets.chain([&config.control.socket]).map(|socket| socket.display().to_string());
    listening(SOCKET, &sockets.collect::<Vec<_>>())
}

/// A unit that listens at these addresses, in the place of its own.
fn listening(template: &str, addresses: &[String]) -> String {
    let listen: String = addresses.iter().map(|address| format!("ListenStream={address}\n")).collect();
    let (mut unit, mut told) = (String::new(), false);
    for line in template.lines() {
        if !line.starts_with("ListenStream=") {
            unit += line;
            unit.push('\n');
        } else if !told {
            unit += &listen;
            told = true;
        }
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_has_the_sockets_of_the_configuration() {
        assert_eq!(socket_unit(&Config::default()), SOCKET);
        let (mirror, web) = (Config::default().mirror.listen, Config::default().web.listen);
        assert_eq!(listening(WEB_SOCKET, &[web.to_string()]), WEB_SOCKET);
        assert_eq!(listening(MIRROR_SOCKET, &[mirror.to_string()]), MIRROR_SOCKET);
        let other = Config::parse("[control]\nsocket = \"/s/control\"\n", "x").unwrap();
        let unit = socket_unit(&other);
        assert!(unit.contains("ListenStream=/s/control\n"), "{unit}");
        assert!(!unit.contains("/run/tidehold/control.sock\n"), "{unit}");
    }

    #[test]
    fn what_setup_wrote_is_a_set_and_what_others_wrote_stays() {
        use Standing::{Missing, Others, Ours};
        for (service, socket, ours) in [
            (Missing, Missing, true),
            (Ours, Ours, true),
            (Ours, Missing, true),
            (Ours, Others, false),
            (Others, Ours, true),
            (Others, Missing, false),
            (Others, Others, false),
        ] {
            assert_eq!(is_ours(service, socket, false), ours, "{service:?} {socket:?}");
        }
        assert!(is_ours(Ours, Others, true) && !is_ours(Others, Others, true));
        assert!(Ours.is_written(false) && Missing.is_written(true));
        assert!(!Missing.is_written(false) && !Others.is_written(true));
    }

    #[test]
    fn a_service_that_is_refreshed_runs_what_it_ran() {
        assert_eq!(refreshed("[Service]\nExecStart=tidehold serve\n"), SERVICE);
        let unit = refreshed("[Service]\nExecStart=/opt/tidehold serve --config /srv/t.toml\nRestart=no\n");
        assert_eq!(unit, SERVICE.replace(RUN, "ExecStart=/opt/tidehold serve --config /srv/t.toml"));
        assert_eq!(refreshed(""), SERVICE);
    }

    #[test]
    fn units_that_may_run_are_stopped_before_others_take_their_place() {
        let change = |unit: &str, before: Option<&str>| Change {
            path: Path::new(FOLDER).join(unit),
            before: before.map(str::to_owned),
            after: "new".to_owned(),
            mode: None,
        };
        assert!(!Units::replace_some(&[]));
        assert!(!Units::replace_some(&ALL.map(|unit| change(unit, None))));
        assert!(Units::replace_some(&[change(SOCKETS[0], Some("old"))]));
        assert!(Units::replace_some(&[change(SOCKETS[1], None)]));
    }

    #[test]
    fn what_runs_with_its_units_as_they_are_is_not_started_again() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        for (since, written, is_enabled, start) in [
            (at(2), at(1), true, Start::Needless),
            (at(2), None, true, Start::Needless),
            (at(2), at(1), false, Start::Needed),
            (None, at(1), true, Start::Needed),
            (at(1), at(2), true, Start::Anew),
        ] {
            assert_eq!(
                start_of(&[], since, written, is_enabled),
                start,
                "{since:?} {written:?} {is_enabled}"
            );
        }
        let change = |unit: &str, before: Option<&str>| Change {
            path: Path::new(FOLDER).join(unit),
            before: before.map(str::to_owned),
            after: "new".to_owned(),
            mode: None,
        };
        let new = ALL.map(|unit| change(unit, None));
        assert_eq!(start_of(&new, at(2), at(1), true), Start::Needed);
        assert_eq!(start_of(&[change(SOCKETS[0], Some("old"))], None, None, false), Start::Anew);
    }

    #[test]
    fn the_unit_runs_the_program_where_it_is() {
        assert!(SERVICE.contains(RUN));
        assert_eq!(service_unit(Path::new("/usr/bin/tidehold"), None), SERVICE);
        let unit = service_unit(Path::new("/opt/tidehold"), Some(Path::new("/srv/t.toml")));
        assert!(unit.contains("ExecStart=/opt/tidehold serve --config /srv/t.toml\n"), "{unit}");
        let unit = service_unit(Path::new("/opt/my tools/\"t\""), Some(Path::new("/srv/100%")));
        assert!(unit.contains("ExecStart=\"/opt/my tools/\\\"t\\\"\" serve --config /srv/100%%\n"), "{unit}");
    }
}
