//! A containerd as it is measured: private, on the disk, logging as usual, with one of several content stores.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::daemon::{PROGRAM, Tidehold};
use crate::support::containerd::Version;
use crate::support::parts::{part, programs};
use crate::support::process::Process;
use crate::{cpu, places};

const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-containerd");

/// What a stream processor takes in.
const LAYERS: [&str; 3] = [
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];

/// Where containerd keeps its content, and who applies its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// containerd as it comes.
    Builtin,
    /// Tidehold keeps the content, containerd applies the layers.
    Proxied,
    /// Tidehold keeps the content and applies the layers; for 1.6 it only decompresses them.
    Tidehold,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Builtin, Self::Tidehold, Self::Proxied];
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin => "builtin",
            Self::Proxied => "Tidehold without its differ",
            Self::Tidehold => "Tidehold",
        })
    }
}

/// The CPU time that was used so far, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// By containerd and by `ctr`, which in 1.6 and 1.7 does a part of a pull itself.
    pub(crate) containerd: f64,
    pub(crate) tidehold: f64,
}

/// A running containerd and what it stands on. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct Node {
    version: Version,
    containerd: Containerd,
    data: TempDir,
    tidehold: Option<Tidehold>,
}

/// Its process, with the folder of its sockets. Dropping it ends it.
#[derive(Debug)]
struct Containerd {
    process: Process,
    folder: TempDir,
}

impl Node {
    /// Starts one whose `docker.io` is the registry at this URL.
    pub(crate) fn start(version: Version, side: Side, tidehold: Option<Tidehold>, registry: &str) -> Self {
        let (folder, data) = (places::short(), places::private());
        let config = config(version, side, tidehold.as_ref(), folder.path(), data.path());
        fs::write(folder.path().join("config.toml"), config).expect("a configuration");
        let upstream = tidehold
            .as_ref()
            .map_or_else(|| registry.to_owned(), |tidehold| format!("http://{}", tidehold.mirror()));
        let hosts = folder.path().join("certs.d/docker.io");
        fs::create_dir_all(&hosts).expect("a folder");
        fs::write(hosts.join("hosts.toml"), format!("server = \"{upstream}\"\n[host]\n")).expect("a file");
        let mut command = clean(version, LAUNCHER);
        command.arg(folder.path().join("config.toml"));
        let process = Process::start_notifying("containerd", &mut command, folder.path());
        Self { version, containerd: Containerd { process, folder }, data, tidehold }
    }

    /// The socket that clients connect to.
    pub(crate) fn socket(&self) -> PathBuf {
        self.containerd.folder.path().join("grpc.sock")
    }

    /// Pulls and unpacks.
    pub(crate) fn pull(&self, namespace: &str, reference: &str) {
        let hosts = self.containerd.folder.path().join("certs.d");
        let mut args = vec!["images", "pull", "--snapshotter", "overlayfs", "--platform", platform()];
        args.extend(["--hosts-dir", hosts.to_str().expect("a plain path")]);
        if self.version >= Version::V2 {
            args.push("--skip-metadata");
        }
        args.push(reference);
        self.ctr(namespace, &args);
    }

    /// Has the content of an image in this namespace too, without unpacking it.
    pub(crate) fn fetch(&self, namespace: &str, reference: &str) {
        let hosts = self.containerd.folder.path().join("certs.d");
        let hosts = hosts.to_str().expect("a plain path");
        self.ctr(namespace, &["content", "fetch", "--platform", platform(), "--hosts-dir", hosts, reference]);
    }

    /// Applies the layers of an image whose content is there.
    pub(crate) fn unpack(&self, namespace: &str, digest: &str) {
        self.ctr(namespace, &["snapshots", "--snapshotter", "overlayfs", "unpack", digest]);
    }

    /// Removes an image and collects the garbage before it returns.
    pub(crate) fn remove_image(&self, namespace: &str, reference: &str) {
        self.ctr(namespace, &["images", "rm", "--sync", reference]);
    }

    /// Reads a blob to nowhere.
    pub(crate) fn read(&self, namespace: &str, digest: &str) {
        let mut command = self.ctr_command(namespace, &["content", "get", digest]);
        let output = command.stdout(Stdio::null()).output().expect("nsenter runs");
        succeeded("content get", &output);
    }

    /// Brings a file into the content store.
    pub(crate) fn ingest(&self, namespace: &str, file: &Path, digest: &str) {
        let mut command =
            self.ctr_command(namespace, &["content", "ingest", "--expected-digest", digest, digest]);
        let output = command.stdin(File::open(file).expect("a file")).output().expect("nsenter runs");
        succeeded("content ingest", &output);
    }

    /// Stops it all and answers with the folders of its data, which are removed when they are dropped.
    pub(crate) fn end(self) -> Vec<TempDir> {
        let Self { containerd, data, tidehold, .. } = self;
        drop(containerd);
        [Some(data), tidehold.map(Tidehold::end)].into_iter().flatten().collect()
    }

    pub(crate) fn cpu(&self) -> Cpu {
        Cpu {
            containerd: cpu::of(self.pid().as_raw()) + cpu::of_own_children(),
            tidehold: self.tidehold.as_ref().map_or(0.0, |tidehold| cpu::of(tidehold.pid())),
        }
    }

    fn ctr(&self, namespace: &str, args: &[&str]) -> String {
        let output = self.ctr_command(namespace, args).output().expect("nsenter runs");
        succeeded(&args.join(" "), &output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ctr_command(&self, namespace: &str, args: &[&str]) -> Command {
        let mut command = clean(self.version, "nsenter");
        command.args(["--mount", "--pid", "--root", "--target", &self.pid().to_string()]);
        command.args(["timeout", "--kill-after=5", "300", "ctr", "--address"]).arg(self.socket());
        command.args(["-n", namespace]).args(args);
        command
    }

    /// Containerd's own process stands behind the one that was started.
    fn pid(&self) -> Pid {
        self.containerd.pid()
    }
}

impl Containerd {
    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.folder.path().join("pid")).expect("the launcher's file");
        Pid::from_raw(text.trim().parse().expect("a process id"))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGKILL);
        self.process.wait();
    }
}

fn config(version: Version, side: Side, tidehold: Option<&Tidehold>, folder: &Path, data: &Path) -> String {
    let mut disabled = vec!["io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri"];
    if version == Version::V2 {
        disabled.extend([
            "io.containerd.cri.v1.images",
            "io.containerd.cri.v1.runtime",
            "io.containerd.podsandbox.controller.v1.podsandbox",
            "io.containerd.grpc.v1.sandbox-controllers",
            "io.containerd.nri.v1.nri",
        ]);
    }
    let mut more = String::new();
    let mut unpack = format!("  platform = \"{}\"\n  snapshotter = \"overlayfs\"\n", platform());
    if let Some(tidehold) = tidehold {
        disabled.push("io.containerd.content.v1.content");
        let address = tidehold.content().display().to_string();
        more += &format!("[proxy_plugins.tidehold]\n  type = \"content\"\n  address = \"{address}\"\n");
        if side == Side::Tidehold && version == Version::V1_6 {
            more += &format!(
                "[stream_processors.tidehold]\n  accepts = {LAYERS:?}\n  \
                 returns = \"application/vnd.oci.image.layer.v1.tar\"\n  path = \"{PROGRAM}\"\n  \
                 args = [\"decompress\", \"--socket\", \"{address}\"]\n"
            );
        } else if side == Side::Tidehold {
            more += &format!("[proxy_plugins.tidehold-diff]\n  type = \"diff\"\n  address = \"{address}\"\n");
            more += "[plugins.\"io.containerd.service.v1.diff-service\"]\n  default = [\"tidehold-diff\", \"walking\"]\n";
            unpack += "  differ = \"tidehold-diff\"\n";
        }
    }
    if version > Version::V1_6 {
        more += &format!("[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n{unpack}");
    }
    let (folder, data) = (folder.display(), data.display());
    format!(
        "version = 2\nroot = \"{data}/root\"\nstate = \"{folder}/state\"\ndisabled_plugins = {disabled:?}\n\
         required_plugins = [\"io.containerd.metadata.v1.bolt\"]\n\
         [grpc]\n  address = \"{folder}/grpc.sock\"\n[ttrpc]\n  address = \"{folder}/ttrpc.sock\"\n{more}"
    )
}

/// A command with no more environment than its own path: no proxy, no credentials.
fn clean(version: Version, program: impl AsRef<OsStr>) -> Command {
    let name = match version {
        Version::V1_6 => "containerd-1.6",
        Version::V1_7 => "containerd-1.7",
        Version::V2 => "containerd-2",
    };
    let own =
        [programs(&part(name).expect("a version that is there")), programs(&part("runc").expect("runc"))];
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let path = own.into_iter().chain(system.map(PathBuf::from));
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::join_paths(path).expect("plain paths")).env("HOME", "/root");
    command
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

fn succeeded(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ctr {what}: {}\n{said}", output.status);
}
