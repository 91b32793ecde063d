//! The containerds of a node: which there are, what each is told and what each answers.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tidehold::node::containerd::{CONFIG, File, SOCKET, Settings, Version};
use tidehold::node::files;

use super::ask;
use super::finding::{Finding, bad, warn};
use super::lines::{Names, Place};
use super::look::Node;
use crate::cli::process::{self, Running};

/// Where distributions put a containerd: its socket, its configuration, and what restarts it.
const KNOWN: &[(&str, &str, &str)] = &[
    (SOCKET, CONFIG, "systemctl restart containerd"),
    (
        "/run/k3s/containerd/containerd.sock",
        "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        "systemctl restart k3s || systemctl restart k3s-agent",
    ),
    (
        "/run/k3s/containerd/containerd.sock",
        "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        "systemctl restart rke2-server || systemctl restart rke2-agent",
    ),
    (
        "/var/snap/microk8s/common/run/containerd.sock",
        "/var/snap/microk8s/current/args/containerd.toml",
        "snap restart microk8s.daemon-containerd",
    ),
];

/// Where drop-in files are expected to be.
const DROP_INS: &str = "/etc/containerd/conf.d";

/// One of them.
#[derive(Debug)]
pub(super) struct Containerd {
    pub(super) socket: PathBuf,
    /// The main file of its configuration, whether it is there or not.
    pub(super) config: PathBuf,
    /// What restarts it.
    pub(super) restart: &'static str,
    /// What it answers.
    pub(super) answer: Result<ask::Containerd, String>,
    pub(super) version: Option<Version>,
    /// Its process, where it can be seen.
    pub(super) running: Running,
    /// All files of its configuration, in order.
    pub(super) files: Vec<File>,
    /// What they come to, or what is wrong with them.
    pub(super) settings: Result<Settings, String>,
    /// Drop-in files that it does not read.
    pub(super) unread: Vec<PathBuf>,
    /// When the last of its files was written.
    pub(super) written: Option<SystemTime>,
}

/// The sockets to look at, each with its configuration where that is known: those that are named, or else all that
/// this node seems to have.
pub(super) fn chosen(node: &Node, named: &[PathBuf], configs: &[PathBuf]) -> Vec<(PathBuf, Option<PathBuf>)> {
    if !named.is_empty() {
        let configs = configs.iter().cloned().map(Some).chain(std::iter::repeat(None));
        return named.iter().cloned().zip(configs).collect();
    }
    let mut found: Vec<(PathBuf, Option<PathBuf>)> = Vec::new();
    for (socket, config, _) in KNOWN {
        let there = node.has(config) || node.has(socket) && !node_has_other(node, socket);
        if there && !found.iter().any(|(known, _)| known == Path::new(socket)) {
            found.push((PathBuf::from(socket), None));
        }
    }
    found
}

/// The one that has this name in the daemon's configuration: it has the content socket of that name as its store, or none
/// of the daemon's where it only pulls through the mirror.
pub(super) fn named<'c>(
    all: &'c [Containerd],
    name: &str,
    sockets: &[(String, PathBuf)],
) -> Vec<&'c Containerd> {
    let name_of = |containerd: &Containerd| {
        let settings = containerd.settings.as_ref().ok()?;
        let mut addresses = settings.stores().map(|(_, proxy)| Path::new(&proxy.address));
        let own = addresses.find_map(|address| sockets.iter().find(|(_, socket)| socket == address));
        own.map(|(name, _)| name.clone())
    };
    let having = |wanted: Option<&str>| -> Vec<_> {
        all.iter().filter(|containerd| name_of(containerd).as_deref() == wanted).collect()
    };
    let own = having(Some(name));
    if own.is_empty() { having(None) } else { own }
}

/// Whether another configuration goes with a socket.
fn node_has_other(node: &Node, socket: &str) -> bool {
    KNOWN.iter().filter(|(known, ..)| *known == socket).count() > 1
        && KNOWN.iter().any(|(known, config, _)| *known == socket && node.has(config))
}

/// Everything about one of them.
pub(super) async fn look_at(node: &Node, socket: PathBuf, config: Option<PathBuf>) -> Containerd {
    let answer = ask::containerd(&node.at(&socket)).await;
    let pid = answer.as_ref().ok().and_then(|answer| answer.pid);
    let running = pid.and_then(process::containerd).unwrap_or_default();
    let known = || {
        let such = || KNOWN.iter().filter(|(known, ..)| Path::new(known) == socket);
        such().find(|(_, config, _)| node.has(config)).or_else(|| such().next())
    };
    let config = config
        .or_else(|| running.config.clone())
        .or_else(|| known().map(|(_, config, _)| PathBuf::from(config)))
        .unwrap_or_else(|| PathBuf::from(CONFIG));
    let restart = KNOWN.iter().find(|(_, known, _)| Path::new(known) == config).or_else(known);
    let restart = restart.map_or("systemctl restart containerd", |(_, _, restart)| *restart);
    let version = answer.as_ref().ok().and_then(|answer| Version::parse(&answer.version));
    let (files, settings) = match files::configuration(&node.root, &config) {
        Ok(files) => {
            let settings = Settings::read(&files, version).map_err(|faulty| faulty.to_string());
            (files, settings)
        }
        Err(error) => (Vec::new(), Err(format!("{}: {error}", config.display()))),
    };
    let written = files.iter().filter_map(|file| node.written(&file.path)).max();
    let unread = unread(node, &config, &files, version);
    Containerd { socket, config, restart, answer, version, running, files, settings, unread, written }
}

/// From 2.2 on they are read where nothing else is said.
fn unread(node: &Node, config: &Path, files: &[File], version: Option<Version>) -> Vec<PathBuf> {
    let reads = version.is_none_or(|version| version >= Version { major: 2, minor: 2 });
    if config != Path::new(CONFIG) || reads {
        return Vec::new();
    }
    let names = node.names(Path::new(DROP_INS)).into_iter().filter(|name| name.ends_with(".toml"));
    let paths = names.map(|name| Path::new(DROP_INS).join(name));
    paths.filter(|path| !files.iter().any(|file| file.path == *path)).collect()
}

impl Containerd {
    /// What it is called in front of what is found.
    pub(super) fn title(&self) -> String {
        match &self.answer {
            Ok(answer) => format!("containerd {} at {}", answer.version, self.socket.display()),
            Err(_) => format!("containerd at {}", self.socket.display()),
        }
    }

    /// The file that is to be edited: those of k3s and of RKE2 are made anew from a template at each start.
    pub(super) fn editable(&self) -> PathBuf {
        if !self.config.starts_with("/var/lib/rancher") {
            return self.config.clone();
        }
        let is_2 = self.version.is_some_and(Version::is_2);
        self.config.with_file_name(if is_2 { "config-v3.toml.tmpl" } else { "config.toml.tmpl" })
    }

    /// The same, for whoever writes of lines to be put there.
    pub(super) fn place<'a>(&self, config: &'a Path) -> Place<'a> {
        let version = self.settings.as_ref().map_or(2, |settings| settings.file_version);
        let names = Names::of(&self.files, version);
        Place { config, restart: self.restart, names }
    }

    /// Whether it is the distribution's, and nobody has configured it yet.
    pub(super) fn is_bare(&self) -> bool {
        self.files.is_empty() && self.settings.is_ok() && self.config == Path::new(CONFIG)
    }

    /// The plugins, where it answers.
    pub(super) fn plugins(&self) -> &[containerd_client::services::v1::Plugin] {
        self.answer.as_ref().map(|answer| answer.plugins.as_slice()).unwrap_or_default()
    }

    /// Whether it is there at all, and whether it runs with what its files say.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(why) = &self.answer {
            let told = if why.contains("ermission denied") {
                bad(
                    "containerd.denied",
                    format!("its socket is not for this user: {why}"),
                    "run this as root: sudo tidehold doctor",
                )
            } else {
                bad(
                    "containerd.down",
                    format!("containerd does not answer: {why}"),
                    format!(
                        "{}, and look at: journalctl -u containerd -n 50\nor name its socket with --address",
                        self.restart
                    ),
                )
            };
            findings.push(told);
        }
        if let Err(why) = &self.settings {
            findings.push(bad(
                "containerd.configuration",
                format!("its configuration cannot be read: {why}"),
                format!("mend {}, and restart it ({})", self.editable().display(), self.restart),
            ));
        }
        if self.version.is_some_and(|version| version < Version { major: 1, minor: 6 }) {
            findings.push(warn(
                "containerd.version",
                "it is older than 1.6, which nobody has tried with Tidehold",
                "upgrade containerd",
            ));
        }
        let since = self.running.started.zip(self.written);
        // Both are known to the second at best.
        let slack = Duration::from_secs(2);
        if let Some((started, written)) = since
            && written > started + slack
        {
            findings.push(warn(
                "containerd.restart",
                format!("{} was changed after it was started, which it has not read", self.config.display()),
                self.restart,
            ));
        }
        findings
    }
}
