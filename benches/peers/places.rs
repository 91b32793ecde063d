//! Where a run keeps its files: beneath `target`, on the disk that the sources are on, for every side alike.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What is made once and used by every run, images for one.
pub(crate) fn kept(name: &str) -> PathBuf {
    made(bench().join("kept").join(name))
}

/// Where the results go.
pub(crate) fn results() -> PathBuf {
    made(bench())
}

/// A folder for data that goes with its owner.
pub(crate) fn private() -> TempDir {
    let prefix = format!("{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(running()).expect("a folder beneath target")
}

/// Removes what runs that were cut off have left, which may be gigabytes.
pub(crate) fn sweep() {
    for entry in fs::read_dir(running()).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder for sockets and configurations: a socket's path has room for 107 bytes.
pub(crate) fn short() -> TempDir {
    tempfile::Builder::new().prefix("tidehold-b-").tempdir_in("/tmp").expect("a folder in /tmp")
}

/// A command that is told to end where this program ends without a word, so that no server outlives a run.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// Brings what was written to the disk, so that one side does not wait for the writes of the one before.
pub(crate) fn settle() {
    rustix::fs::sync();
}

fn running() -> PathBuf {
    made(bench().join("running"))
}

fn bench() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

fn made(folder: PathBuf) -> PathBuf {
    fs::create_dir_all(&folder).expect("a folder beneath target");
    folder
}
