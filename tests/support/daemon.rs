//! The daemon under test: the built `tidehold`, in a folder and on ports of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use super::process::{Process, free_port};

/// A running daemon. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
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
        // Directly in /tmp: a socket's path has room for 107 bytes.
        let folder = tempfile::Builder::new().prefix("tidehold-").tempdir_in("/tmp").unwrap();
        let (mirror_port, web_port) = (free_port(), free_port());
        let at = folder.path().display();
        let tables: String = containerds
            .iter()
            .map(|name| format!("[[containerd]]\nname = \"{name}\"\nsocket = \"{at}/{name}.sock\"\n"))
            .collect();
        let config = format!(
            "data_dir = \"{at}/data\"\n{tables}\
             [mirror]\nlisten = \"127.0.0.1:{mirror_port}\"\n\
             [web]\nlisten = \"127.0.0.1:{web_port}\"\n\
             [control]\nsocket = \"{at}/control.sock\"\n{rest}\n"
        );
        fs::write(folder.path().join("tidehold.toml"), config).unwrap();
        Self { process: launch(folder.path()), mirror_port, web_port, folder }
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

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// SIGTERM, and waits until it has drained.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = self.process.pid();
        self.process.terminate(pid)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same folder and ports; it must have ended.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(self.folder.path());
    }
}

fn launch(folder: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
    command.arg("serve").arg("--config").arg(folder.join("tidehold.toml"));
    command.env("RUST_LOG", "info,tidehold=debug");
    Process::start_notifying("tidehold", &mut command, folder)
}
