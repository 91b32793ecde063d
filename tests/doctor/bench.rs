//! A node to be examined: a stand-in for Docker Hub, a daemon, a containerd, and a root of its own with nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::containerd::{Containerd, Kubernetes, Store, Version};
use crate::support::daemon::Daemon;
use crate::support::hub::{Hub, HubConfig};
use crate::support::ran::plainly;

/// What the stand-in has from the start.
const IMAGE: &str = "docker.io/library/tide:latest";

/// The node. Dropped in this order.
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    pub(crate) daemon: Daemon,
    pub(crate) root: Root,
    pub(crate) hub: Hub,
    _runtime: Runtime,
}

impl Node {
    /// One with Tidehold as store, and as the mirror of all registries.
    pub(crate) fn start(version: Version, kubernetes: Kubernetes) -> Self {
        Self::with(kubernetes, version, |daemon| Store::Tidehold(daemon))
    }

    /// One that only pulls through the mirror.
    pub(crate) fn mirror_only(version: Version, kubernetes: Kubernetes) -> Self {
        Self::with(kubernetes, version, |_| Store::Builtin)
    }

    fn with(kubernetes: Kubernetes, version: Version, store: fn(&Path) -> Store<'_>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hub = runtime.block_on(Hub::start(HubConfig::default()));
        let daemon =
            Daemon::start(&format!("[registries.\"docker.io\"]\nupstream = \"{}\"\n", hub.registry_url()));
        let content = daemon.content();
        let containerd = Containerd::start_as(version, store(&content), kubernetes);
        let node = Self { containerd, daemon, root: Root::new(), hub, _runtime: runtime };
        node.write_hosts("_default", &node.hosts_toml());
        node
    }

    /// What a `hosts.toml` has to say.
    pub(crate) fn hosts_toml(&self) -> String {
        format!("[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", self.daemon.mirror())
    }

    /// Writes a registry's `hosts.toml`, and answers where.
    pub(crate) fn write_hosts(&self, registry: &str, text: &str) -> PathBuf {
        let folder = self.containerd.hosts().join(registry);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("hosts.toml"), text).unwrap();
        folder
    }

    pub(crate) fn remove_hosts(&self, registry: &str) {
        fs::remove_dir_all(self.containerd.hosts().join(registry)).unwrap();
    }

    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.containerd.config()).unwrap()
    }

    /// Starts containerd again with a configuration in which this was replaced.
    pub(crate) fn replace(&mut self, old: &str, new: &str) {
        let config = self.config();
        assert!(config.contains(old), "{old:?} is not in {config}");
        self.containerd.restart_configured(&config.replacen(old, new, 1));
    }

    /// What the doctor finds.
    pub(crate) fn examine(&self) -> Found {
        self.examine_with(&[])
    }

    /// The same with more options.
    pub(crate) fn examine_with(&self, more: &[&str]) -> Found {
        let socket = self.containerd.socket();
        let hosts = self.containerd.hosts();
        let options = ["--address", socket.to_str().unwrap(), "--hosts-dir", hosts.to_str().unwrap()];
        examine(&self.root, &self.daemon.config(), &[&options[..], more].concat())
    }

    /// Something is to be mended, and it is this.
    #[track_caller]
    pub(crate) fn ails(&self, name: &str, words: &[&str]) -> Finding {
        self.examine().only(name, words)
    }

    /// There is nothing to mend, and no warning but that the mirror's port is not one of root's.
    #[track_caller]
    pub(crate) fn is_well(&self) {
        self.examine().well();
    }
}

/// A file system of a node without anything but `/tmp`, where the tests have theirs: whoever examines it has it mounted there.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-root-").tempdir_in("/tmp").unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self(folder)
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file of the node.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }
}

/// Runs the doctor on a root with a daemon's configuration.
pub(crate) fn examine(root: &Root, config: &Path, options: &[&str]) -> Found {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", "mount --rbind /tmp \"$0/tmp\"; exec \"$@\""]).arg(root.0.path());
    command.arg(env!("CARGO_BIN_EXE_tidehold"));
    plainly(&mut command).args(["doctor", "--json", "--reference", IMAGE, "--root"]);
    let output = command.arg(root.0.path()).arg("--config").arg(config).args(options).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("{error}: {stdout}{}", String::from_utf8_lossy(&output.stderr)));
    Found { code: output.status.code(), report }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
}

/// One of it.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) level: String,
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) mend: String,
}

impl Found {
    pub(crate) fn all(&self) -> Vec<Finding> {
        let groups = self.report["groups"].as_array().unwrap().iter();
        let findings = groups.flat_map(|group| group["findings"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        findings
            .map(|finding| Finding {
                level: text(&finding["level"]),
                name: text(&finding["name"]),
                what: text(&finding["what"]),
                mend: text(&finding["mend"]),
            })
            .collect()
    }

    fn of(&self, level: &str) -> Vec<Finding> {
        self.all().into_iter().filter(|finding| finding.level == level).collect()
    }

    /// This alone is to be mended, and these words are in what is said of it.
    #[track_caller]
    pub(crate) fn only(&self, name: &str, words: &[&str]) -> Finding {
        assert_eq!(self.code, Some(1), "{self:#?}");
        let bad = self.of("bad");
        assert_eq!(bad.iter().map(|finding| finding.name.as_str()).collect::<Vec<_>>(), [name], "{self:#?}");
        said(&bad[0], words);
        bad[0].clone()
    }

    /// This is among what is to be mended.
    #[track_caller]
    pub(crate) fn has(&self, level: &str, name: &str, words: &[&str]) -> Finding {
        let such = self.of(level);
        let found = such.iter().find(|finding| finding.name == name);
        let found = found.unwrap_or_else(|| panic!("no {level} {name:?} in {self:#?}"));
        said(found, words);
        found.clone()
    }

    #[track_caller]
    pub(crate) fn well(&self) {
        assert_eq!((self.code, self.of("bad").len()), (Some(0), 0), "{self:#?}");
        let warned: Vec<_> = self.of("warn");
        assert!(warned.iter().all(|finding| finding.what.contains("a port below 1024")), "{warned:#?}");
    }
}

#[track_caller]
fn said(finding: &Finding, words: &[&str]) {
    let told = format!("{}\n{}", finding.what, finding.mend);
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
    assert!(!finding.mend.is_empty(), "{finding:?} has no mend");
}
