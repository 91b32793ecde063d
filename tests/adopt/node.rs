//! What a test works with: a daemon, a containerd's root that is laid out by hand, and the command.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, Plan};
use crate::support::hub::digest_of;
pub(crate) use crate::support::ran::Ran;
use crate::support::ran::plainly;

pub(crate) struct Node {
    pub(crate) daemon: Daemon,
    root: TempDir,
}

impl Node {
    /// A containerd that has these blobs.
    pub(crate) fn start(blobs: &[&[u8]]) -> Self {
        Self::start_in(&std::env::temp_dir(), blobs)
    }

    /// One whose root is in this folder.
    pub(crate) fn start_in(folder: &Path, blobs: &[&[u8]]) -> Self {
        Self::of(Daemon::start(""), folder, blobs)
    }

    /// One of several that the daemon knows.
    pub(crate) fn start_for(containerds: &[&str]) -> Self {
        let daemon = Plan { containerds, ..Plan::default() }.start();
        Self::of(daemon, &std::env::temp_dir(), &[b"a blob"])
    }

    fn of(daemon: Daemon, folder: &Path, blobs: &[&[u8]]) -> Self {
        let root = tempfile::Builder::new().prefix("tidehold-root-").tempdir_in(folder).unwrap();
        let node = Self { daemon, root };
        fs::create_dir_all(node.blobs()).unwrap();
        for bytes in blobs {
            node.store(bytes);
        }
        node
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn content(&self) -> PathBuf {
        self.root().join("io.containerd.content.v1.content")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.content().join("blobs/sha256")
    }

    /// Puts a blob into containerd's store as containerd would, and answers with its digest.
    pub(crate) fn store(&self, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.store_as(&digest, bytes);
        digest
    }

    /// The same under a name that may be another's.
    pub(crate) fn store_as(&self, digest: &str, bytes: &[u8]) {
        let file = self.file_of(digest);
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    }

    /// Where containerd has a blob.
    pub(crate) fn file_of(&self, digest: &str) -> PathBuf {
        self.blobs().join(digest.strip_prefix("sha256:").unwrap())
    }

    /// The command, with neither a terminal nor anything of the tester's environment.
    pub(crate) fn command(&self, options: &[&str]) -> Command {
        self.command_from(self.root(), options)
    }

    fn command_from(&self, from: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
        plainly(&mut command).arg("adopt").arg("--config").arg(self.daemon.config());
        command.arg("--from").arg(from).args(options);
        // Nobody listens there: the machine's own containerd is none of a test's business.
        command.arg("--address").arg(self.root().join("containerd.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn adopt(&self, options: &[&str]) -> Ran {
        self.adopt_from(self.root(), options)
    }

    pub(crate) fn adopt_from(&self, from: &Path, options: &[&str]) -> Ran {
        self.command_from(from, options).output().unwrap().into()
    }

    /// What the containerd relies on, by the daemon's marks.
    pub(crate) fn relied_on(&self) -> BTreeSet<String> {
        let marks = fs::read_dir(self.daemon.data().join("adopted/node")).into_iter().flatten();
        let marks = marks.map(|mark| mark.unwrap().file_name().into_string().unwrap());
        marks.map(|mark| mark.rsplit_once('-').unwrap().0.replacen('-', ":", 1)).collect()
    }

    /// The word that all was taken over.
    pub(crate) fn word(&self) -> Option<Value> {
        let text = fs::read(self.daemon.data().join("adopted-from/node")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Both have these blobs as the same files, and nothing else is left of how they came there.
    pub(crate) fn shares<'a>(&self, digests: impl IntoIterator<Item = &'a String>) {
        for digest in digests {
            assert_eq!(inode(&self.file_of(digest)), inode(&self.daemon.file_of(digest)), "{digest}");
        }
        self.nothing_is_left();
    }

    /// What was put before the daemon and not taken over is gone. Of a command that was killed the daemon removes it once
    /// it has noticed, which may be after the end of the next one.
    pub(crate) fn nothing_is_left(&self) {
        const LOOKS: usize = 6000;
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let arriving = self.daemon.data().join("arriving");
        let left = || fs::read_dir(&arriving).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        for _ in 0..LOOKS {
            if left().is_empty() {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("{:?}", left());
    }
}

pub(crate) fn inode(file: &Path) -> u64 {
    fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).ino()
}
