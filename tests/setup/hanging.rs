//! A daemon that runs and answers nobody: nobody waits for it, and nothing is left half done.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::node::{Ran, everything, tidehold};
use crate::support::daemon::Daemon;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a daemon that answers nobody is told with its mend before anything is changed", told),
    ("a daemon that answers nobody is not waited for where blobs are to be given back", told_by_an_undo),
];

/// A containerd that does not run, and a daemon that does.
struct Machine {
    folder: TempDir,
    daemon: Daemon,
}

impl Machine {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-hanging-").tempdir_in("/tmp").unwrap();
        let machine = Self { folder, daemon: Daemon::start("") };
        let (socket, root) = (machine.at("containerd.sock"), machine.at("root"));
        let config = format!("version = 2\nroot = {root:?}\n[grpc]\n  address = {socket:?}\n");
        fs::write(machine.at("config.toml"), config).unwrap();
        fs::create_dir(root).unwrap();
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn setup(&self, options: &[&str]) -> Ran {
        let at = |name| self.at(name).display().to_string();
        let (config, root, own) = (at("config.toml"), at("root"), self.daemon.config().display().to_string());
        let containerd = ["--containerd-config", &config, "--containerd-root", &root, "--config", &own];
        let (hosts, journal) = (at("certs.d"), at("journal"));
        let rest = ["--hosts-dir", &hosts, "--journal", &journal, "--containerd-version", "1.7"];
        tidehold(&[&["setup", "--no-units", "--yes"], &containerd[..], &rest, options].concat())
    }

    /// What is told of the daemon that stands still.
    fn told(&self, pid: nix::unistd::Pid) -> [String; 4] {
        let control = self.daemon.control();
        [
            format!(
                "process {pid}) does not answer at {}, nor at {}",
                control.display(),
                self.daemon.mirror()
            ),
            "Mend that, and run this again".to_owned(),
            format!("kill {pid} "),
            "start it again".to_owned(),
        ]
    }
}

fn told() {
    let machine = Machine::start();
    let restarted = machine.at("restarted");
    let restart = ["--restart-with", &format!("touch {}", restarted.display())];
    let before = everything(machine.folder.path());
    let still = machine.daemon.stand_still();
    let told = machine.told(still.pid());
    let ran = machine.setup(&restart).failed_with(1, &told.each_ref().map(String::as_str));
    ran.failed_with(1, &["nothing was changed"]);
    assert_eq!(everything(machine.folder.path()), before);

    // Who does not want to have anything started now does without it.
    machine.setup(&[]).ended_well();
    drop(still);
    machine.setup(&restart).ended_well();
    assert!(restarted.exists());
}

fn told_by_an_undo() {
    let machine = Machine::start();
    machine.setup(&[]).ended_well();
    let adopted = machine.daemon.data().join("adopted/node");
    fs::create_dir_all(&adopted).unwrap();
    fs::write(adopted.join(format!("sha256-{}-1", "ab".repeat(32))), "").unwrap();
    let set_up = everything(machine.folder.path());
    let still = machine.daemon.stand_still();
    let told = machine.told(still.pid());
    let ran = machine.setup(&["--undo"]).failed_with(1, &told.each_ref().map(String::as_str));
    ran.failed_with(1, &["nothing was restored"]);
    assert_eq!(everything(machine.folder.path()), set_up);
}
