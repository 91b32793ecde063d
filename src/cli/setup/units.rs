//! systemd's units of Tidehold: written where systemd runs and nobody has done so yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, anyhow};
use tidehold::config::Config;
use tidehold::node::files::{matching, seen};
use tidehold::node::journal::Journal;

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
const ALL: [&str; 4] =
    ["tidehold.socket", "tidehold-mirror.socket", "tidehold-web.socket", "tidehold.service"];

/// What is enabled; the service brings the others along.
const ENABLED: [&str; 2] = ["tidehold.socket", "tidehold.service"];

/// How systemctl ends where a unit is not loaded, as systemctl(1) says.
const NOT_LOADED: i32 = 5;

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

    /// What is to be written: their paths and texts. Units of others stay; ours go with the configuration.
    pub(super) fn wanted(
        &self,
        config: &Config,
        setup: &Setup,
        program: &Path,
    ) -> Result<Vec<(PathBuf, String)>, Failed> {
        let there = |folder: &str| seen(&self.root, &Path::new(folder).join("tidehold.service")).exists();
        if self.left_alone || !self.runs() {
            return Ok(Vec::new());
        }
        let [service, socket, mirror, web] =
            ["tidehold.service", "tidehold.socket", "tidehold-mirror.socket", "tidehold-web.socket"]
                .map(|name| Path::new(FOLDER).join(name));
        let mut wanted = vec![
            (socket, socket_unit(config)),
            (mirror, listening(MIRROR_SOCKET, &[config.mirror.listen.to_string()])),
            (web, listening(WEB_SOCKET, &[config.web.listen.to_string()])),
        ];
        if OTHER_FOLDERS.iter().any(|folder| there(folder)) {
            let journal =
                Journal::open(&self.root, &setup.journal).context("read what was changed before")?;
            wanted.retain(|(path, _)| journal.wrote(path));
            if !journal.wrote(&service) || setup.program.is_none() && setup.config.is_none() {
                return Ok(wanted);
            }
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

    /// A path as the node's systemd takes it.
    fn on_node(&self, path: &Path) -> Result<PathBuf, Failed> {
        let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
        let seen = path.strip_prefix(&self.root).map(|path| Path::new("/").join(path));
        Ok(seen.unwrap_or(path))
    }

    /// Whether systemd here starts and stops it.
    pub(super) fn are_here(&self) -> bool {
        !self.elsewhere()
    }

    /// Starts Tidehold, now and whenever the node starts; its service brings the sockets of the mirror and the status page,
    /// where these can be had.
    pub(super) fn start(&self, rewritten: bool) -> Result<(), Failed> {
        if self.elsewhere() {
            return Ok(());
        }
        self.systemctl(&["daemon-reload"])?;
        if rewritten {
            // Sockets are made anew only while their service does not run.
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
        ALL.into_iter().filter(|unit| !there(unit)).try_for_each(unlink)?;
        let there: Vec<&str> = ENABLED.into_iter().filter(there).collect();
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
    pub(super) fn stopping() -> &'static str {
        "systemctl stop tidehold.socket tidehold-mirror.socket tidehold-web.socket tidehold.service && systemctl daemon-reload"
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

/// Removes what enabled a unit whose file is gone.
fn unlink(unit: &str) -> Result<(), Failed> {
    for folder in matching(Path::new("/"), &format!("{FOLDER}/*.wants")) {
        let link = folder.join(unit);
        if link.is_symlink() && !link.exists() {
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
    fn the_unit_runs_the_program_where_it_is() {
        assert!(SERVICE.contains(RUN));
        assert_eq!(service_unit(Path::new("/usr/bin/tidehold"), None), SERVICE);
        let unit = service_unit(Path::new("/opt/tidehold"), Some(Path::new("/srv/t.toml")));
        assert!(unit.contains("ExecStart=/opt/tidehold serve --config /srv/t.toml\n"), "{unit}");
        let unit = service_unit(Path::new("/opt/my tools/\"t\""), Some(Path::new("/srv/100%")));
        assert!(unit.contains("ExecStart=\"/opt/my tools/\\\"t\\\"\" serve --config /srv/100%%\n"), "{unit}");
    }
}
