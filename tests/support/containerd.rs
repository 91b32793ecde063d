//! A private containerd of a given version, with its own root, state, sockets and namespaces.
//!
//! The machine's own containerd is never touched: `private-containerd` beside this file gives each one a
//! mount and a process namespace, with which all that it started and mounted goes away.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::cri;
use super::parts::{Available, namespaces, part, programs};
use super::process::{Process, pid_of};

const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-containerd");

/// No single `ctr` takes longer than this, in seconds, however the upstream behaves.
const CTR_WITHIN: &str = "90";

/// The lines of containerd that differ in what they ask of a content store and of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1_6,
    V1_7,
    V2,
}

impl Version {
    pub(crate) const ALL: [Self; 3] = [Self::V1_6, Self::V1_7, Self::V2];

    /// The programs of this version and runc, or why they cannot be run here.
    pub(crate) fn available(self) -> Available<Programs> {
        namespaces()?;
        Ok(Programs { containerd: programs(&part(self.part())?), runc: programs(&part("runc")?) })
    }

    fn part(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd-1.6",
            Self::V1_7 => "containerd-1.7",
            Self::V2 => "containerd-2",
        }
    }

    /// The program itself.
    pub(crate) fn program(self) -> PathBuf {
        self.available().expect("a version that was found to be available").containerd.join("containerd")
    }

    /// Whether it takes a differ from elsewhere.
    pub(crate) fn has_differs(self) -> bool {
        self >= Self::V1_7
    }

    /// Another line than this one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::V1_6 | Self::V1_7 => Self::V2,
            Self::V2 => Self::V1_7,
        }
    }

    /// What hardly a test uses: the Kubernetes side, which is slow to start.
    fn kubernetes_plugins(self) -> &'static [&'static str] {
        match self {
            Self::V1_6 | Self::V1_7 => &["io.containerd.grpc.v1.cri"],
            Self::V2 => &[
                "io.containerd.grpc.v1.cri",
                "io.containerd.cri.v1.images",
                "io.containerd.cri.v1.runtime",
                "io.containerd.podsandbox.controller.v1.podsandbox",
                "io.containerd.grpc.v1.sandbox-controllers",
            ],
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2 => "2.x",
        })
    }
}

/// The folders of the programs that a private containerd runs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    containerd: PathBuf,
    runc: PathBuf,
}

/// Where a containerd keeps its content.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Store<'a> {
    Builtin,
    /// The content listener of a daemon, as the only store.
    Tidehold(&'a Path),
    /// The same, where a namespace may not use what another one brought.
    Isolated(&'a Path),
    /// Its own, with that daemon as its first differ all the same.
    BuiltinWithDiffer(&'a Path),
}

/// Whether a containerd serves Kubernetes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kubernetes {
    Without,
    With,
}

/// A running private containerd. Dropping it ends it with everything that it started.
#[derive(Debug)]
pub(crate) struct Containerd {
    version: Version,
    programs: Programs,
    kubernetes: Kubernetes,
    snapshotter: &'static str,
    // Before the folder, so that it ends before the folder is removed.
    process: Process,
    folder: TempDir,
}

impl Containerd {
    pub(crate) fn start(version: Version, store: Store<'_>) -> Self {
        Self::start_as(version, store, Kubernetes::Without)
    }

    pub(crate) fn start_as(version: Version, store: Store<'_>, kubernetes: Kubernetes) -> Self {
        let programs = version.available().expect("a version that was found to be available");
        // Directly in /tmp: a socket's path has room for 107 bytes.
        let folder = tempfile::Builder::new().prefix("tidehold-ctd-").tempdir_in("/tmp").unwrap();
        let snapshotter = snapshotter();
        let config = config(version, store, kubernetes, snapshotter, folder.path());
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let process = launch(&programs, folder.path());
        Self { version, programs, kubernetes, snapshotter, process, folder }
    }

    /// Ends it in good order and starts it again on the same state.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.process = launch(&self.programs, self.folder.path());
    }

    /// Ends it in good order and starts it again on the same state with another content store.
    pub(crate) fn restart_with(&mut self, store: Store<'_>) {
        self.stop();
        let config = config(self.version, store, self.kubernetes, self.snapshotter, self.folder.path());
        fs::write(self.folder.path().join("config.toml"), config).unwrap();
        self.process = launch(&self.programs, self.folder.path());
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Ends it in good order and starts it again with this configuration.
    pub(crate) fn restart_configured(&mut self, config: &str) {
        self.stop();
        fs::write(self.config(), config).unwrap();
        self.process = launch(&self.programs, self.folder.path());
    }

    /// Where it keeps all that it has.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Makes a container of the image's own command, and answers with its name. Its control group has the namespace's
    /// name, which is no other test's therefore.
    pub(crate) fn create(&self, namespace: &str, reference: &str) -> String {
        let id = unique_id();
        let args = ["-n", namespace, "containers", "create", "--snapshotter", self.snapshotter];
        self.ctr(&[&args[..], &[reference, &id]].concat());
        id
    }

    /// Runs a container that was made, and answers what it printed.
    pub(crate) fn run_created(&self, namespace: &str, id: &str) -> String {
        let output = self.folder.path().join(id);
        let log = format!("file://{}", output.display());
        self.ctr(&["-n", namespace, "tasks", "start", "--log-uri", &log, id]);
        remove_control_groups(&format!("{namespace}/{id}"));
        remove_control_groups(namespace);
        let printed = fs::read_to_string(&output).expect("the container's output");
        fs::remove_file(&output).unwrap();
        printed
    }

    /// Ends it in good order, if it has not ended so before.
    pub(crate) fn stop(&mut self) {
        if self.is_stopped() {
            return;
        }
        let pid = self.pid();
        self.process.terminate(pid);
        // Its process id may be another one's now.
        fs::remove_file(self.pid_file()).unwrap();
    }

    fn is_stopped(&self) -> bool {
        !self.pid_file().exists()
    }

    /// Where it keeps all that is its own, and what a client of it may keep.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn snapshotter(&self) -> &'static str {
        self.snapshotter
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Sends what is asked of `registry` (the host part of a reference) to `url`, and nowhere else.
    pub(crate) fn route(&self, registry: &str, url: &str) {
        let folder = self.hosts().join(registry);
        fs::create_dir_all(&folder).unwrap();
        // 1.6 and 1.7 take a file without a host table for damaged, and go to the registry itself.
        fs::write(folder.join("hosts.toml"), format!("server = \"{url}\"\n[host]\n")).unwrap();
    }

    /// Sends it there first, and to `server` where that does not answer.
    pub(crate) fn route_over(&self, registry: &str, mirror: &str, server: &str) {
        let folder = self.hosts().join(registry);
        fs::create_dir_all(&folder).unwrap();
        let hosts =
            format!("server = \"{server}\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        fs::write(folder.join("hosts.toml"), hosts).unwrap();
    }

    /// Pulls and unpacks for this machine's platform only, as a node would.
    pub(crate) fn pull(&self, namespace: &str, reference: &str) {
        succeeded("pull", &self.try_pull(namespace, reference));
    }

    pub(crate) fn try_pull(&self, namespace: &str, reference: &str) -> Output {
        self.try_pull_as(namespace, reference, None)
    }

    /// As `pull`, by the client's own hand: what it cannot do itself it asks of containerd's older services.
    pub(crate) fn pull_by_client(&self, namespace: &str, reference: &str) {
        succeeded("pull --local", &self.pulled(namespace, reference, None, &["--local"]));
    }

    pub(crate) fn try_pull_as(&self, namespace: &str, reference: &str, login: Option<Login>) -> Output {
        self.pulled(namespace, reference, login, &[])
    }

    fn pulled(&self, namespace: &str, reference: &str, login: Option<Login>, more: &[&str]) -> Output {
        let hosts = self.hosts();
        let mut args: Vec<OsString> = ["-n", namespace, "images", "pull"].map(OsString::from).into();
        args.extend(["--snapshotter", self.snapshotter, "--platform", platform()].map(OsString::from));
        args.extend(["--hosts-dir".into(), hosts.into_os_string()]);
        args.extend(more.iter().map(OsString::from));
        if self.version >= Version::V2 {
            // Else it asks for the manifests and configs of every platform.
            args.push("--skip-metadata".into());
        }
        if let Some(Login { name, password }) = login {
            args.extend(["--user".into(), format!("{name}:{password}").into()]);
        }
        args.push(reference.into());
        self.ctr_output(&args)
    }

    /// Runs the image's own command in a new container and answers what it printed.
    pub(crate) fn run(&self, namespace: &str, reference: &str) -> String {
        let id = unique_id();
        let group = format!("/{id}");
        // Into a file: on a busy machine `ctr` can open the container's output too late to get any of it.
        let output = self.folder.path().join(&id);
        let log = format!("file://{}", output.display());
        let args = ["-n", namespace, "run", "--rm", "--snapshotter", self.snapshotter];
        self.ctr(&[&args[..], &["--cgroup", &group, "--log-uri", &log, reference, &id]].concat());
        remove_control_groups(&id);
        fs::read_to_string(output).expect("the container's output")
    }

    /// Starts a container that runs this command until it is dropped.
    pub(crate) fn keep_running(&self, namespace: &str, reference: &str, command: &[&str]) -> Running<'_> {
        let id = unique_id();
        let group = format!("/{id}");
        let args = ["-n", namespace, "run", "--detach", "--null-io", "--snapshotter", self.snapshotter];
        self.ctr(&[&args[..], &["--cgroup", &group, reference, &id], command].concat());
        Running { containerd: self, namespace: namespace.to_owned(), id }
    }

    /// Returns once it has found its content store again, which it looks for ever more rarely while that is away.
    /// What it lists it knows by itself: that it can read this blob is the sign.
    pub(crate) fn await_store(&self, namespace: &str, digest: &str) {
        const TRIES: usize = 300;
        let read = ["-n", namespace, "content", "get", digest].map(OsString::from);
        let mut tries = (0..TRIES).map(|_| self.ctr_output(&read));
        assert!(tries.any(|output| output.status.success()), "it does not find its content store again");
    }

    /// Removes the images of a namespace and collects the garbage before it returns.
    pub(crate) fn remove_images(&self, namespace: &str) {
        let names = self.ctr(&["-n", namespace, "images", "ls", "-q"]);
        let names: Vec<&str> = names.lines().collect();
        if !names.is_empty() {
            self.ctr(&[&["-n", namespace, "images", "rm", "--sync"], &names[..]].concat());
        }
    }

    /// The digests in a namespace.
    pub(crate) fn content(&self, namespace: &str) -> BTreeSet<String> {
        self.ctr(&["-n", namespace, "content", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// Runs this version's `ctr` against this containerd and answers what it printed; panics if it fails.
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        let output = self.ctr_output(&args.iter().map(OsString::from).collect::<Vec<_>>());
        succeeded(&args.join(" "), &output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn ctr_output(&self, args: &[OsString]) -> Output {
        let mut inside = self.inside();
        inside.args(["ctr".as_ref(), "--address".as_ref(), self.socket().as_os_str()]).args(args);
        inside.output().expect("nsenter runs")
    }

    /// Reads each blob of a namespace back, checks it against its digest, and answers which there are. One that
    /// is collected as garbage meanwhile does not count.
    pub(crate) fn read_back(&self, namespace: &str) -> BTreeSet<String> {
        const READ: &str = "address=$1 namespace=$2; shift 2
            for digest do
              printf '%s ' \"$digest\"
              ctr --address \"$address\" -n \"$namespace\" content get \"$digest\" | sha256sum
            done";
        let listed = self.content(namespace);
        let mut inside = self.inside();
        inside.args(["sh".as_ref(), "-c".as_ref(), READ.as_ref(), "sh".as_ref(), self.socket().as_os_str()]);
        let output = inside.arg(namespace).args(&listed).output().expect("nsenter runs");
        succeeded("content get", &output);
        let read = String::from_utf8_lossy(&output.stdout).into_owned();
        let right = |line: &str| {
            let (digest, sum) = line.split_once(' ')?;
            (digest.strip_prefix("sha256:") == sum.split_whitespace().next()).then(|| digest.to_owned())
        };
        let right: BTreeSet<String> = read.lines().filter_map(right).collect();
        let wrong: BTreeSet<String> = &(&listed - &right) & &self.content(namespace);
        assert!(
            wrong.is_empty(),
            "{namespace}: {wrong:?}: {read}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        right
    }

    /// A command that runs where containerd does, and not for ever.
    pub(crate) fn inside(&self) -> Command {
        let mut command = clean("nsenter", &self.programs);
        command.args(["--mount", "--pid", "--root", "--target", &self.pid().to_string()]);
        command.args(["timeout", "--kill-after=5", CTR_WITHIN]);
        command
    }

    /// Its own socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("grpc.sock")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.folder.path().join("certs.d")
    }

    /// Containerd's own process, which is not the one that was started (that one holds its namespaces).
    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.pid_file()).expect("the launcher's pid file");
        pid_of(text.trim().parse().expect("a process id"))
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("pid")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.is_stopped() {
            return;
        }
        // The kernel ends everything in the process namespace before its first process is gone.
        let _ = kill(self.pid(), Signal::SIGKILL);
        self.process.wait();
    }
}

/// Somebody at a registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
}

/// A container that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    containerd: &'a Containerd,
    namespace: String,
    id: String,
}

impl Running<'_> {
    /// Runs a command in it, which must succeed.
    pub(crate) fn exec(&self, command: &[&str]) {
        let exec = unique_id();
        let args = ["-n", &self.namespace, "tasks", "exec", "--exec-id", &exec, &self.id];
        self.containerd.ctr(&[&args[..], command].concat());
    }

    /// Its process and its state, as containerd lists them.
    pub(crate) fn state(&self) -> String {
        let tasks = self.containerd.ctr(&["-n", &self.namespace, "tasks", "ls"]);
        let own = tasks.lines().find(|line| line.starts_with(&self.id));
        own.unwrap_or_else(|| panic!("{} is not listed: {tasks}", self.id)).to_owned()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let args = ["-n", &self.namespace, "tasks", "rm", "--force", &self.id].map(OsString::from);
        self.containerd.ctr_output(&args);
        remove_control_groups(&self.id);
    }
}

fn launch(programs: &Programs, folder: &Path) -> Process {
    let mut command = clean(LAUNCHER, programs);
    command.arg(folder.join("config.toml"));
    Process::start_notifying("containerd", &mut command, folder)
}

/// A command with no more environment than the programs' own path: no proxy, no credentials.
fn clean(program: &str, programs: &Programs) -> Command {
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let own = [programs.containerd.as_path(), programs.runc.as_path()];
    let path = std::env::join_paths(own.into_iter().chain(system.iter().map(Path::new))).unwrap();
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path).env("HOME", "/root");
    command
}

fn config(
    version: Version,
    store: Store<'_>,
    kubernetes: Kubernetes,
    snapshotter: &str,
    folder: &Path,
) -> String {
    // A folder in the machine's /opt, and a socket in its /var/run.
    let mut disabled = vec!["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"];
    let cri = match kubernetes {
        Kubernetes::Without => {
            disabled.extend(version.kubernetes_plugins());
            String::new()
        }
        Kubernetes::With => cri::config(version, snapshotter, folder),
    };
    let folder = folder.display();
    let mut proxy = String::new();
    if let Store::Tidehold(socket) | Store::Isolated(socket) = store {
        disabled.push("io.containerd.content.v1.content");
        let address = socket.display();
        proxy = format!("[proxy_plugins.tidehold]\n  type = \"content\"\n  address = \"{address}\"\n");
        if version == Version::V1_6 {
            proxy += &stream_processor(socket);
        }
    }
    let mut differ = "";
    if let Store::Tidehold(socket) | Store::Isolated(socket) | Store::BuiltinWithDiffer(socket) = store
        && version.has_differs()
    {
        proxy += &differ_entry(socket);
        differ = "  differ = \"tidehold-diff\"\n";
    }
    if let Store::Isolated(_) = store {
        proxy += "[plugins.\"io.containerd.metadata.v1.bolt\"]\n  content_sharing_policy = \"isolated\"\n";
    }
    // 1.6 has no transfer service; later ones unpack there with what this says.
    let unpack = if version == Version::V1_6 {
        String::new()
    } else {
        format!(
            "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  \
             platform = \"{}\"\n  snapshotter = \"{snapshotter}\"\n{differ}",
            platform()
        )
    };
    // As people write it for theirs.
    let format = if version == Version::V2 { 3 } else { 2 };
    format!(
        r#"version = {format}
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = {disabled:?}
required_plugins = ["io.containerd.metadata.v1.bolt"]
[grpc]
  address = "{folder}/grpc.sock"
[ttrpc]
  address = "{folder}/ttrpc.sock"
[debug]
  level = "debug"
{proxy}{unpack}{cri}"#
    )
}

/// The program that takes the place of the decompression where no differ can.
fn stream_processor(socket: &Path) -> String {
    let (program, socket) = (env!("CARGO_BIN_EXE_tidehold"), socket.display());
    let layers = [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ];
    format!(
        "[stream_processors.tidehold]\n  accepts = {layers:?}\n  \
         returns = \"application/vnd.oci.image.layer.v1.tar\"\n  \
         path = \"{program}\"\n  args = [\"decompress\", \"--socket\", \"{socket}\"]\n"
    )
}

/// The daemon as the first differ, and containerd's own for what that leaves to it.
fn differ_entry(socket: &Path) -> String {
    format!(
        "[proxy_plugins.tidehold-diff]\n  type = \"diff\"\n  address = \"{}\"\n\
         [plugins.\"io.containerd.service.v1.diff-service\"]\n  default = [\"tidehold-diff\", \"walking\"]\n",
        socket.display()
    )
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => panic!("no containerd was fetched for {other}"),
    }
}

/// overlayfs, as on a real node, where the file system under /tmp bears it.
fn snapshotter() -> &'static str {
    static TRIED: OnceLock<&str> = OnceLock::new();
    TRIED.get_or_init(|| {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mounted = Command::new("unshare")
            .args(["--mount", "mount", "-t", "overlay", "overlay"])
            .args(["-o", "lowerdir=lower,upperdir=upper,workdir=work", "merged"])
            .current_dir(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if mounted { "overlayfs" } else { "native" }
    })
}

/// The name of a container. Two tests must not meet in one control group.
pub(crate) fn unique_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("tidehold-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The control groups that runc leaves, with those right beneath them: one per hierarchy, or a single one.
pub(crate) fn remove_control_groups(name: &str) {
    let within =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let root = Path::new("/sys/fs/cgroup");
    for folder in within(root).chain([root.to_owned()]) {
        let group = folder.join(name);
        within(&group).for_each(|inner| drop(fs::remove_dir(inner)));
        let _ = fs::remove_dir(group);
    }
}

fn succeeded(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "ctr {what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
