//! The Kubernetes side of a private containerd: its configuration, and `crictl` in front of it, which asks what a
//! kubelet would.
//!
//! Nothing of it is outside the containerd's own folder but the control groups of its pods, which are beneath one that
//! goes with the `Crictl`. Pods are in the machine's network, so that no plugin for networks is needed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::containerd::{Containerd, Login, Version, remove_control_groups, unique_id};
use super::go::text;

/// The image that holds a pod open, as the configuration names it.
pub(crate) const PAUSE: &str = "docker.io/library/pause:3.10";

/// The network of the machine, in the numbers of the CRI.
const NODE: u8 = 2;

/// What CRI is told, in the words of this version.
pub(super) fn config(version: Version, snapshotter: &str, folder: &Path) -> String {
    let folder = folder.display();
    match version {
        Version::V1_6 | Version::V1_7 => format!(
            r#"[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{folder}/cni/bin"
    conf_dir = "{folder}/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
        ),
        Version::V2 => format!(
            r#"[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{folder}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  enable_cdi = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{folder}/cni/bin"]
    conf_dir = "{folder}/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#
        ),
    }
}

/// A kubelet's questions to one containerd.
pub(crate) struct Crictl<'a> {
    program: PathBuf,
    containerd: &'a Containerd,
    group: String,
}

impl<'a> Crictl<'a> {
    /// Returns once it is answered: containerd says that it is ready a little before its CRI is.
    pub(crate) fn new(program: PathBuf, containerd: &'a Containerd) -> Self {
        const TRIES: usize = 300;
        let crictl = Self { program, containerd, group: unique_id() };
        let mut tries = (0..TRIES).map(|_| crictl.try_ask(&["version"]));
        assert!(tries.any(|output| output.status.success()), "the CRI does not answer");
        crictl
    }

    /// What it printed; panics if it fails.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.try_ask(arguments);
        assert!(output.status.success(), "crictl {arguments:?}: {}\n{}", output.status, text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn try_ask(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("nsenter runs")
    }

    /// The same, read as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let (what, of) = arguments.split_first().expect("a question");
        serde_json::from_str(&self.ask(&[&[*what, "-o", "json"], of].concat())).expect("crictl's JSON")
    }

    pub(crate) fn pull(&self, reference: &str) {
        self.ask(&["pull", reference]);
    }

    /// With what a kubelet takes from an imagePullSecret.
    pub(crate) fn try_pull_as(&self, reference: &str, login: Option<Login>) -> Output {
        let login = login.map(|Login { name, password }| format!("{name}:{password}"));
        let with = login.as_ref().map_or_else(Vec::new, |login| vec!["--creds", login.as_str()]);
        self.try_ask(&[&["pull"], &with[..], &[reference]].concat())
    }

    /// The names of its images, by their digests too.
    pub(crate) fn images(&self) -> Vec<String> {
        let listed = self.json(&["images"]);
        let images = listed["images"].as_array().expect("a list of images").iter();
        let names = images.flat_map(|image| [&image["repoTags"], &image["repoDigests"]]);
        names.flat_map(|names| names.as_array().expect("names")).map(text_of).collect()
    }

    /// Runs a pod with one container of this image, which goes on after its own first words.
    pub(crate) fn start_pod(&self, reference: &str) -> Pod<'_> {
        let logs = self.containerd.folder().join("logs");
        fs::create_dir_all(&logs).unwrap();
        let pod = json!({
            "metadata": { "name": "pod", "namespace": "default", "uid": self.group, "attempt": 1 },
            "log_directory": logs,
            "linux": {
                "cgroup_parent": format!("/{}", self.group),
                "security_context": { "namespace_options": { "network": NODE } },
            },
        });
        let container = json!({
            "metadata": { "name": "main" },
            "image": { "image": reference },
            "command": ["/bin/sh", "-c", "cat /etc/tide-release; exec sleep 1000000"],
            "log_path": "main.log",
            "linux": {},
        });
        let (pod, container) = (self.written("pod.json", &pod), self.written("main.json", &container));
        let sandbox = self.ask(&["runp", &pod]);
        let container = self.ask(&["create", &sandbox, &container, &pod]);
        self.ask(&["start", &container]);
        Pod { crictl: self, sandbox, container, log: logs.join("main.log") }
    }

    fn written(&self, name: &str, value: &Value) -> String {
        let file = self.containerd.folder().join(name);
        fs::write(&file, value.to_string()).unwrap();
        file.display().to_string()
    }

    fn command(&self) -> Command {
        let socket = format!("unix://{}", self.containerd.socket().display());
        let mut command = self.containerd.inside();
        let own = ["--config", "/dev/null", "--timeout", "60s", "-r", &socket, "-i", &socket];
        command.arg(&self.program).args(own.map(OsStr::new));
        command
    }
}

impl Drop for Crictl<'_> {
    fn drop(&mut self) {
        remove_control_groups(&self.group);
    }
}

/// A pod that runs. Dropping it stops and removes it.
pub(crate) struct Pod<'a> {
    crictl: &'a Crictl<'a>,
    sandbox: String,
    pub(crate) container: String,
    log: PathBuf,
}

impl Pod<'_> {
    /// The lines that its container has written, once there is one: without the time and the stream before each.
    pub(crate) fn first_line(&self) -> String {
        // Asked through the runtime, which takes longer each time than the container needs to say it.
        const TRIES: usize = 300;
        for _ in 0..TRIES {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(line) = log.lines().next().filter(|_| log.contains('\n')) {
                return line.splitn(4, ' ').nth(3).expect("a line of a CRI log").to_owned() + "\n";
            }
            self.crictl.ask(&["inspect", &self.container]);
        }
        panic!("the container wrote nothing to {}", self.log.display());
    }

    /// Runs a command in its container and answers what that printed, without a stream and with one.
    pub(crate) fn exec(&self, command: &[&str]) -> [String; 2] {
        [&["exec", "--sync"][..], &["exec"][..]]
            .map(|exec| self.crictl.ask(&[exec, &[&self.container], command].concat()))
    }

    /// The state of its container and of its sandbox, as they are listed.
    pub(crate) fn states(&self) -> [String; 2] {
        let containers = self.crictl.json(&["ps", "-a", "--id", &self.container]);
        let pods = self.crictl.json(&["pods", "--id", &self.sandbox]);
        [text_of(&containers["containers"][0]["state"]), text_of(&pods["items"][0]["state"])]
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        for arguments in [
            &["stop", "--timeout", "0", &self.container][..],
            &["rm", &self.container],
            &["stopp", &self.sandbox],
            &["rmp", &self.sandbox],
        ] {
            let output = self.crictl.try_ask(arguments);
            if !output.status.success() && !std::thread::panicking() {
                panic!("crictl {arguments:?}: {}\n{}", output.status, text(&output));
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
