//! The daemon under test: the built `tidehold`, in a folder and on ports of its own.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::activation::{Activation, Door};
use super::disk::Disk;
use super::hub::digest_of;
use super::process::{Process, free_port};

/// The part of its folder that is in front of its search path.
const PROGRAMS: &str = "programs";

/// What it says where something did not end in the time that it has at a stop.
const CUT_OFF: &str = "did not end in time and are cut off";

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidehold");

/// A running daemon. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    activation: Option<Activation>,
    disk: Option<Disk>,
    mirror_port: u16,
    web_port: u16,
    folder: TempDir,
}

impl Daemon {
    /// Runs `tidehold serve` for one containerd. `rest` is the configuration beyond the data folder and the
    /// listeners, which are private to this daemon.
    pub(crate) fn start(rest: &str) -> Self {
        Self::start_for(&["node"], rest)
    }

    /// As `start`, with a content listener for each of the named containerds.
    pub(crate) fn start_for(containerds: &[&str], rest: &str) -> Self {
        Plan { containerds, rest, ..Plan::default() }.start()
    }

    /// The content listener of the one containerd.
    pub(crate) fn content(&self) -> PathBuf {
        self.content_of("node")
    }

    pub(crate) fn content_of(&self, containerd: &str) -> PathBuf {
        self.folder.path().join(format!("{containerd}.sock"))
    }

    /// The URL of the mirror listener.
    pub(crate) fn mirror(&self) -> String {
        format!("http://127.0.0.1:{}", self.mirror_port)
    }

    /// The URL of the web listener.
    pub(crate) fn web(&self) -> String {
        format!("http://127.0.0.1:{}", self.web_port)
    }

    /// The control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("tidehold.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it looks for programs before it looks elsewhere.
    pub(crate) fn programs(&self) -> PathBuf {
        self.folder.path().join(PROGRAMS)
    }

    /// Where it keeps a blob.
    pub(crate) fn file_of(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest of sha256");
        self.data().join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// Every blob that it keeps, each file checked against its name. One that it removes meanwhile does not count.
    pub(crate) fn held(&self) -> Vec<String> {
        let mut held = Vec::new();
        for file in files_under(&self.data().join("blobs")) {
            let name = format!("sha256:{}", file.file_name().unwrap().to_str().unwrap());
            match fs::read(&file) {
                Ok(bytes) => assert_eq!(digest_of(&bytes), name, "{}", file.display()),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => panic!("{}: {error}", file.display()),
            }
            held.push(name);
        }
        held
    }

    /// Every file in its folder, finished or not.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files_under(&self.data())
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Returns once its log says this, since it was first started.
    pub(crate) fn await_log(&mut self, said: &str) {
        self.process.await_log(said);
    }

    /// Returns once its log says this so often.
    pub(crate) fn await_log_times(&mut self, said: &str, times: usize) {
        self.process.await_log_times(said, times);
    }

    /// SIGTERM, and waits until it has drained.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.await_end()
    }

    /// SIGTERM alone.
    pub(crate) fn ask_to_end(&mut self) {
        let pid = self.process.pid();
        self.process.ask_to_end(pid);
    }

    /// Waits until it has ended. Nothing may have held it up.
    #[track_caller]
    pub(crate) fn await_end(&mut self) -> ExitStatus {
        let status = self.process.await_end();
        assert!(!self.log().contains(CUT_OFF), "it waited in vain for something to end");
        status
    }

    /// Stops it in its tracks, so that it answers nobody, for as long as the answer lives.
    pub(crate) fn stand_still(&self) -> Still {
        let pid = self.process.pid();
        kill(pid, Signal::SIGSTOP).unwrap();
        Still(pid)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same folder and ports; it must have ended.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(self.folder.path(), self.activation.as_ref(), self.disk.as_ref(), &[]);
    }

    /// The disk of its own, where it was planned with one.
    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a disk of its own")
    }

    /// Returns once somebody has connected who is not taken in yet. Only for one whose sockets are handed over.
    pub(crate) fn await_connection(&self, door: Door<'_>) {
        self.activation.as_ref().expect("sockets that are handed over").await_connection(door);
    }
}

/// How a daemon is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) containerds: &'a [&'a str],
    /// What stands in the table of each containerd beside its name and its socket.
    pub(crate) of_each: &'a str,
    /// What stands in the configuration beside the listeners.
    pub(crate) rest: &'a str,
    /// Whether its sockets are held for it, as systemd does, and outlive it.
    pub(crate) activated: bool,
    /// A port and a socket that are handed over too, of which the configuration says nothing.
    pub(crate) beside: Option<(u16, &'a str)>,
    /// The size of the disk that it keeps everything on, where that is one of its own. Its sockets are not handed over then.
    pub(crate) disk: Option<&'a str>,
    /// What its environment has beside ours, at its first start.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self {
            containerds: &["node"],
            of_each: "",
            rest: "",
            activated: false,
            beside: None,
            disk: None,
            environment: &[],
        }
    }
}

impl Plan<'_> {
    pub(crate) fn start(self) -> Daemon {
        // Directly in /tmp: a socket's path has room for 107 bytes.
        let folder = tempfile::Builder::new().prefix("tidehold-").tempdir_in("/tmp").unwrap();
        let (mirror_port, web_port) = (free_port(), free_port());
        fs::write(folder.path().join("tidehold.toml"), self.config(folder.path(), mirror_port, web_port))
            .unwrap();
        let activation = self.activated.then(|| {
            let socket = |name: &&str| ((*name).to_owned(), folder.path().join(format!("{name}.sock")));
            let ports: Vec<_> = [mirror_port].into_iter().chain(self.beside.map(|(port, _)| port)).collect();
            let more = self.beside.map(|(_, name)| name);
            let names = self.containerds.iter().chain(&["control"]).chain(more.iter());
            Activation::listen(&ports, names.map(socket))
        });
        let disk = self.disk.map(|size| Disk::mount(&folder.path().join("data"), size));
        Daemon {
            process: launch(folder.path(), activation.as_ref(), disk.as_ref(), self.environment),
            activation,
            disk,
            mirror_port,
            web_port,
            folder,
        }
    }

    fn config(self, folder: &Path, mirror_port: u16, web_port: u16) -> String {
        let Self { containerds, of_each, rest, .. } = self;
        let at = folder.display();
        let table =
            |name| format!("[[containerd]]\nname = \"{name}\"\nsocket = \"{at}/{name}.sock\"\n{of_each}\n");
        let tables: String = containerds.iter().map(table).collect();
        format!(
            "data_dir = \"{at}/data\"\n{tables}\
             [mirror]\nlisten = \"127.0.0.1:{mirror_port}\"\n\
             [web]\nlisten = \"127.0.0.1:{web_port}\"\n\
             [control]\nsocket = \"{at}/control.sock\"\n{rest}\n"
        )
    }
}

fn launch(
    folder: &Path,
    activation: Option<&Activation>,
    disk: Option<&Disk>,
    environment: &[(&str, &str)],
) -> Process {
    let mut command = match (activation, disk) {
        (None, None) => Command::new(PROGRAM),
        (Some(activation), None) => activation.command(PROGRAM),
        (None, Some(disk)) => disk.command(PROGRAM),
        (Some(_), Some(_)) => panic!("sockets are not handed over into another name space"),
    };
    command.arg("serve").arg("--config").arg(folder.join("tidehold.toml"));
    command.env("RUST_LOG", "info,tidehold=debug").envs(environment.iter().copied());
    let search = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{search}", folder.join(PROGRAMS).display()));
    Process::start_notifying("tidehold", &mut command, folder)
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

/// A process that stands still until this is dropped.
pub(crate) struct Still(Pid);

impl Still {
    pub(crate) fn pid(&self) -> Pid {
        self.0
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
