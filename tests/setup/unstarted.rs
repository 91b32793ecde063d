//! What becomes of a machine on which Tidehold does not start: nothing. Each has folders of its own in the place of the
//! system's, and a systemctl that notes what it is asked.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::node::Ran;
use crate::support::process::free_port;
use crate::support::ran::plainly;
use crate::support::script::script;

/// What it is called, and what it does. Each takes a mount name space of its own.
pub(crate) const SCENARIOS: &[(&str, fn())] = &[
    ("where systemd cannot start it all is taken back and containerd is left alone", not_started),
    ("where it does not answer all is taken back and containerd is left alone", no_answer),
    ("where another program has the mirror's port nothing is begun", port_taken),
    ("where another program has the page's port it goes on without one", page_taken),
    ("where a folder cannot be written nothing is begun, and the mend is said", read_only),
    ("what is as it was is left alone by an undo, though it cannot be written", undone_read_only),
    (
        "where the service's file is gone an undo disables the sockets too, each by its name",
        undone_without_its_file,
    ),
];

const CONTAINERD: &str = "version = 2 # ours\n\n[grpc]\n  address = \"/run/containerd/containerd.sock\"\n";

/// Sets the machine up, and compares what is there before and after the command.
const INSIDE: &str = r#"
folder=$1; shift
for place in /etc /run /var/lib; do mount -t tmpfs tidehold-private "$place"; done
mkdir -p /etc/containerd/certs.d/docker.io /etc/tidehold /etc/systemd/system /run/systemd/system
cp "$folder/containerd.toml" /etc/containerd/config.toml
cp "$folder/tidehold.toml" /etc/tidehold/config.toml
echo 'server = "https://registry-1.docker.io" # ours' >/etc/containerd/certs.d/docker.io/hosts.toml
seen() {
  find /etc /run /var/lib \( -type f -printf '%M %U %G %T@ %p\n' -o -printf '%M %U %G %p %l\n' \) | sort
  find /etc /run /var/lib -type f -exec sha256sum {} + | sort
}
seen >"$folder/before"
status=0
"$@" || status=$?
seen >"$folder/after"
exit "$status"
"#;

struct Machine {
    folder: TempDir,
    mirror: u16,
    web: u16,
}

impl Machine {
    /// One whose systemctl does this with its arguments, once they are noted.
    fn new(systemctl: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-machine-").tempdir_in("/tmp").unwrap();
        let (mirror, web) = (free_port(), free_port());
        let config =
            format!("[mirror]\nlisten = \"127.0.0.1:{mirror}\"\n[web]\nlisten = \"127.0.0.1:{web}\"\n");
        fs::write(folder.path().join("tidehold.toml"), config).unwrap();
        fs::write(folder.path().join("containerd.toml"), CONTAINERD).unwrap();
        let asked = folder.path().join("asked").display().to_string();
        script(&folder.path().join("systemctl"), &format!("echo \"$*\" >>'{asked}'\n{systemctl}"));
        Self { folder, mirror, web }
    }

    fn setup(&self, options: &[&str]) -> Ran {
        self.within("\"$@\"", options)
    }

    /// The same within a script, which has the command as its arguments, after its name.
    fn within(&self, script: &str, options: &[&str]) -> Ran {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", INSIDE, "sh"]).arg(self.folder.path());
        command.args(["sh", "-ec", script, "sh"]);
        let program = env!("CARGO_BIN_EXE_tidehold");
        command.args([program, "setup", "--yes", "--containerd-version", "1.7", "--program", program]);
        command.args(options);
        let search = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{search}", self.folder.path().display()));
        plainly(&mut command).stdin(Stdio::null()).output().unwrap().into()
    }

    /// What systemd was asked for, in order.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    /// Every file is as it was, byte for byte, with its rights and its time.
    #[track_caller]
    fn is_as_it_was(&self) {
        let seen = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap();
        let (before, after) = (seen("before"), seen("after"));
        assert!(before.contains("/etc/containerd/config.toml"), "{before}");
        assert_eq!(after, before);
    }
}

fn not_started() {
    let machine = Machine::new("[ \"$1\" != enable ]");
    machine.setup(&["--restart"]).failed_with(
        1,
        &["Tidehold was not started, and all is as it was", "systemctl enable", "journalctl"],
    );
    machine.is_as_it_was();
    assert_eq!(machine.asked(), ["daemon-reload", "enable", "disable", "stop", "daemon-reload"]);
}

fn no_answer() {
    let machine = Machine::new("exit 0");
    let restarted = machine.folder.path().join("restarted");
    let restart = format!("touch {}", restarted.display());
    machine
        .setup(&["--restart-with", &restart])
        .failed_with(1, &["Tidehold was not started, and all is as it was", "does not answer at"]);
    machine.is_as_it_was();
    assert!(!restarted.exists(), "containerd was restarted");
    assert_eq!(machine.asked(), ["daemon-reload", "enable", "disable", "stop", "daemon-reload"]);
}

fn port_taken() {
    let machine = Machine::new("exit 0");
    let _somebody = TcpListener::bind(("127.0.0.1", machine.mirror)).unwrap();
    let taken = format!("127.0.0.1:{} is taken by another program", machine.mirror);
    let mend = format!("ss -ltnp 'sport = :{}'", machine.mirror);
    for options in [&["--restart"][..], &[]] {
        machine.setup(options).failed_with(1, &[&taken, &mend, "[mirror]", "nothing was changed"]);
        machine.is_as_it_was();
    }
    assert!(machine.asked().is_empty());
}

fn page_taken() {
    let machine = Machine::new("exit 0");
    let _somebody = TcpListener::bind(("127.0.0.1", machine.web)).unwrap();
    let taken = format!("127.0.0.1:{} is taken by another program", machine.web);
    machine.setup(&[]).ended_well().said(&[&taken, "until then there is no status page", " files changed"]);
}

/// Runs what follows while containerd's folder cannot be written to.
const READ_ONLY: &str = "
mount --bind /etc/containerd /etc/containerd
mount -o remount,bind,ro /etc/containerd
status=0
";

fn read_only() {
    let machine = Machine::new("exit 0");
    let script = format!("{READ_ONLY} \"$@\" || status=$?\numount /etc/containerd\nexit $status");
    let mend = [
        "/etc/containerd is on a file system that is mounted read-only",
        "remount,rw",
        "nothing was changed",
    ];
    machine.within(&script, &["--restart"]).failed_with(1, &mend);
    machine.is_as_it_was();
    assert!(machine.asked().is_empty());
}

fn undone_read_only() {
    let machine = Machine::new("exit 0");
    // As it is left by a setup that was cut short after the units.
    let half_way = "
cp -a /etc/containerd /run/kept
\"$@\"
rm -r /etc/containerd/certs.d /etc/containerd/config.toml
cp -a /run/kept/. /etc/containerd/
rm -r /run/kept
";
    let undo = "\"$1\" setup --undo --yes || status=$?\numount /etc/containerd\nexit $status";
    let ran = machine.within(&format!("{half_way}{READ_ONLY}{undo}"), &[]).ended_well();
    ran.said(&[" files restored"]);
    machine.is_as_it_was();

    // What was changed can only be restored where that can be written, and is told before the units are disabled.
    let machine = Machine::new("exit 0");
    let ran = machine.within(&format!("\"$@\"\n{READ_ONLY}{undo}"), &[]);
    ran.failed_with(1, &["is on a file system that is mounted read-only", "nothing was restored"]);
    assert!(machine.asked().is_empty());
}

fn undone_without_its_file() {
    let machine = Machine::new("exit 0");
    let script = r#"
"$@"
rm /etc/systemd/system/tidehold.service
mkdir /etc/systemd/system/multi-user.target.wants
ln -s ../tidehold.service /etc/systemd/system/multi-user.target.wants/
"$1" setup --undo --yes
! [ -L /etc/systemd/system/multi-user.target.wants/tidehold.service ]
"#;
    machine.within(script, &[]).ended_well();
    let text = fs::read_to_string(machine.folder.path().join("asked")).unwrap();
    assert_eq!(text, "disable tidehold.socket tidehold-mirror.socket tidehold-web.socket\n");
}
