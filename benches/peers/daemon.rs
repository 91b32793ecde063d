//! The daemon as it is measured: the release build with its own defaults, in a folder of its own on the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::places;
use crate::support::process::{Process, free_port};

/// The program, as it was built for this run.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tidehold");

/// An index of a million blobs is made from the files alone within this.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// As it is without a word on it: a line for each request.
    Usual,
    Off,
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Tidehold {
    process: Process,
    mirror_port: u16,
    log: Log,
    sockets: TempDir,
    data: TempDir,
}

impl Tidehold {
    /// One whose `docker.io` is the registry at this URL. `rest` is the configuration beyond that.
    pub(crate) fn start(upstream: &str, rest: &str, log: Log) -> Self {
        Self::start_on(places::private(), upstream, rest, log)
    }

    /// One on a folder that may hold something.
    pub(crate) fn start_on(data: TempDir, upstream: &str, rest: &str, log: Log) -> Self {
        let sockets = places::short();
        let mirror_port = free_port();
        let at = sockets.path().display();
        let config = format!(
            "data_dir = \"{data}\"\n\
             [[containerd]]\nname = \"node\"\nsocket = \"{at}/content.sock\"\n\
             [mirror]\nlisten = \"127.0.0.1:{mirror_port}\"\n\
             [web]\nlisten = \"127.0.0.1:{web}\"\n\
             [control]\nsocket = \"{at}/control.sock\"\n\
             [registries.\"docker.io\"]\nupstream = \"{upstream}\"\n{rest}\n",
            data = data.path().display(),
            web = free_port(),
        );
        fs::write(sockets.path().join("tidehold.toml"), config).expect("a configuration");
        Self { process: launch(sockets.path(), log), mirror_port, log, sockets, data }
    }

    /// The content listener.
    pub(crate) fn content(&self) -> PathBuf {
        self.sockets.path().join("content.sock")
    }

    /// The address of the mirror listener.
    pub(crate) fn mirror(&self) -> String {
        format!("127.0.0.1:{}", self.mirror_port)
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid().as_raw()
    }

    /// Ends it in good order.
    pub(crate) fn stop(&mut self) {
        let pid = self.process.pid();
        self.process.terminate(pid);
    }

    /// Ends it and answers with the folder of what it holds.
    pub(crate) fn end(self) -> TempDir {
        let Self { process, data, .. } = self;
        drop(process);
        data
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on what it holds, and returns when it says that it is ready.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(self.sockets.path(), self.log);
    }
}

fn launch(folder: &Path, log: Log) -> Process {
    let mut command = places::bound(PROGRAM);
    command.arg("serve").arg("--config").arg(folder.join("tidehold.toml")).env_remove("RUST_LOG");
    if log == Log::Off {
        command.env("RUST_LOG", "off");
    }
    Process::start_notifying_within(READY_WITHIN, "tidehold", &mut command, folder)
}
