//! Where a run keeps its files: beneath `target`, for every side alike.
//!
//! What is measured stands on a file system of its own, new for each run: how long it takes to make files depends on
//! what was removed shortly before (ext4 without a journal passes over inodes that were just freed, one by one), and
//! others remove files too.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The length of the file system that a run has for itself, in bytes. Its file has holes, and goes with the run.
const DISK_BYTES: u64 = 40 << 30;

/// Says to the program that it was started anew on its disk.
const ON_ITS_DISK: &str = "TIDEHOLD_BENCH_DISK";

/// Starts this program anew with a file system of its own for what is measured, which ends with it. Where there can be
/// none, the answer says why, and the disk has to do.
pub(crate) fn own_disk() -> Result<(), String> {
    if std::env::var_os(ON_ITS_DISK).is_some() {
        return Ok(());
    }
    let file = bench().join(format!("disk-{}", std::process::id()));
    let made = fs::File::create(&file).and_then(|file| file.set_len(DISK_BYTES));
    made.map_err(|error| format!("{}: {error}", file.display()))?;
    let mut format = Command::new("mkfs.ext4");
    // Whole from the start: no thread of the kernel writes to it later. Room for a million files.
    format.args(["-q", "-F", "-N", "1000000", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&file);
    let formatted = format.stdin(Stdio::null()).status();
    let mut anew = Command::new("unshare");
    anew.args(["--mount", "--propagation", "private", "sh", "-c"]);
    anew.arg("mount -o loop \"$1\" \"$2\"; on=$?; rm \"$1\"; shift 2; [ $on = 0 ] || exit $on; exec \"$@\"");
    anew.arg("sh").arg(&file).arg(running());
    anew.arg(std::env::current_exe().map_err(|error| error.to_string())?).args(std::env::args_os().skip(1));
    let error = match formatted {
        Ok(status) if status.success() => anew.env(ON_ITS_DISK, "yes").exec().to_string(),
        Ok(status) => format!("mkfs.ext4: {status}"),
        Err(error) => format!("mkfs.ext4: {error}"),
    };
    let _ = fs::remove_file(&file);
    Err(error)
}

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
