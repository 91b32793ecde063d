//! A node laid out in a folder, and the command that is run on it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub(crate) use crate::support::ran::Ran;
use crate::support::ran::plainly;

/// Runs `tidehold` with neither a terminal nor anything of the tester's environment.
pub(crate) fn tidehold(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
    plainly(&mut command).args(arguments).stdin(Stdio::null());
    command.output().unwrap().into()
}

/// A node's file system, as far as setup looks at it.
pub(crate) struct Node {
    root: TempDir,
}

/// A file or folder: its path, mode, owner, time of change and content.
pub(crate) type Entry = (PathBuf, u32, u32, (i64, i64), Vec<u8>);

impl Node {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let node =
            Self { root: tempfile::Builder::new().prefix("tidehold-host-").tempdir_in("/tmp").unwrap() };
        fs::create_dir_all(node.at("/var/lib")).unwrap();
        for (path, text) in files {
            node.write(path, text);
        }
        node
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    /// A file that may be run.
    pub(crate) fn program(&self, path: &str) {
        self.write(path, "");
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn setup(&self, options: &[&str]) -> Ran {
        let root = self.root.path().to_str().unwrap();
        tidehold(&[&["setup", "--root", root], options].concat())
    }

    /// All that is there.
    pub(crate) fn all(&self) -> Vec<Entry> {
        everything(self.root.path())
    }
}

/// All that is below a folder.
pub(crate) fn everything(folder: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let about = entry.metadata().unwrap();
        let (bytes, changed) = if about.is_dir() {
            found.extend(everything(&entry.path()));
            (Vec::new(), (0, 0))
        } else {
            (fs::read(entry.path()).unwrap(), (about.mtime(), about.mtime_nsec()))
        };
        found.push((entry.path(), about.mode(), about.uid(), changed, bytes));
    }
    found.sort();
    found
}
