//! Where a run keeps its files: beneath `target`, on the disk that the sources are on, for every side alike.

use std::fs;
use std::path::{Path, PathBuf};

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
    let parent = made(bench().join("running"));
    tempfile::Builder::new().prefix("data-").tempdir_in(parent).expect("a folder beneath target")
}

/// A folder for sockets and configurations: a socket's path has room for 107 bytes.
pub(crate) fn short() -> TempDir {
    tempfile::Builder::new().prefix("tidehold-b-").tempdir_in("/tmp").expect("a folder in /tmp")
}

/// Brings what was written to the disk, so that one side does not wait for the writes of the one before.
pub(crate) fn settle() {
    rustix::fs::sync();
}

fn bench() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

fn made(folder: PathBuf) -> PathBuf {
    fs::create_dir_all(&folder).expect("a folder beneath target");
    folder
}
