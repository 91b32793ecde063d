//! A small disk of its own for a daemon: a tmpfs in a mount name space that nobody else sees, and that is gone with it. It
//! outlives the daemon, as a disk does.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::parts::Available;

/// Mounts, says so, and holds the name space until its input ends.
const HOLD: &str = "mount -t tmpfs -o \"size=$1,mode=0700\" tidehold-private \"$0\"; echo mounted; exec cat";

/// What is written at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// The disk. Dropping it ends it, once nobody runs on it any more.
#[derive(Debug)]
pub(crate) struct Disk {
    holder: Child,
    at: PathBuf,
}

/// Whether this machine lets a test have one.
pub(crate) fn available() -> Available<()> {
    let tried = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tidehold-private", "/mnt"])
        .output()
        .map_err(|error| format!("unshare does not run: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    Err(format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&tried.stderr).trim()))
}

impl Disk {
    /// One of this size, as mount(8) takes it, at a folder that is made for it.
    pub(crate) fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir(at).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-ec", HOLD])
            .args([at.as_os_str(), size.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n", "a tmpfs can be mounted");
        Self { holder, at: at.to_owned() }
    }

    /// A command that runs this program where the disk is seen.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(program);
        command
    }

    /// Where the disk is seen from here.
    fn path(&self) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(self.at.strip_prefix("/").unwrap())
    }

    fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(self.path()).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Fills it until no more than this is free, or nothing.
    pub(crate) fn fill(&self, leave_bytes: u64) {
        let mut file = File::create(self.path().join("filler")).unwrap();
        while self.free_bytes() > leave_bytes {
            let wanted = (self.free_bytes() - leave_bytes).min(CHUNK as u64);
            let wanted = usize::try_from(wanted).unwrap();
            if file.write_all(&[0x5a; CHUNK][..wanted]).is_err() {
                break;
            }
        }
    }

    /// Makes files of nothing until no more can be made.
    pub(crate) fn use_up_files(&self) {
        let folder = self.path().join("fillers");
        fs::create_dir(&folder).unwrap();
        let made = |number: &usize| File::create(folder.join(number.to_string())).is_ok();
        assert!((0..100_000).any(|number| !made(&number)), "it has no bound");
    }

    /// Removes those.
    pub(crate) fn free_files(&self) {
        fs::remove_dir_all(self.path().join("fillers")).unwrap();
    }

    /// Lets nobody write into a folder of it, until that is [ended](Self::let_write).
    pub(crate) fn forbid_writing(&self, folder: &str) {
        let folder = self.at.join(folder);
        self.run(&["mount", "--bind"], &[&folder, &folder]);
        self.run(&["mount", "-o", "remount,bind,ro"], &[&folder]);
    }

    pub(crate) fn let_write(&self, folder: &str) {
        self.run(&["umount"], &[&self.at.join(folder)]);
    }

    fn run(&self, words: &[&str], paths: &[&Path]) {
        let (program, words) = words.split_first().unwrap();
        let status = self.command(program).args(words).args(paths).status().unwrap();
        assert!(status.success(), "{program} {words:?} {paths:?}");
    }

    /// Makes the room again.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
