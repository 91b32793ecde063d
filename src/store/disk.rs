//! The seam to the disk: every change that the hold makes to its folder goes through here, one step at a time.
//!
//! In the daemon this is the file system and nothing else. In the tests of the store a trial stands behind it: it
//! counts the steps, stops the hold at any of them, and remembers what a loss of power would have left.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use super::flush::Running;
#[cfg(test)]
use super::tests::Trial;
use super::writable::Refused;

/// Where steps are taken. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Disk {
    /// What it has refused.
    pub(super) refused: Refused,
    #[cfg(test)]
    pub(super) trial: Option<Arc<Trial>>,
}

/// A change that is made whole or not at all, and that may be the last one before the end.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "a trial reads what a step changes; the daemon just takes it")
)]
pub(super) enum Step<'a> {
    MakeFolder(&'a Path),
    /// A new file, or an old one made empty.
    Create(&'a Path),
    Write(&'a Path),
    Truncate(&'a Path),
    /// The bytes of a file become durable.
    Sync(&'a Path),
    /// The names in a folder become durable.
    SyncFolder(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    /// An entry of the index, put or (without a value) removed.
    Index {
        tree: &'a str,
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// All entries of the index become durable.
    FlushIndex,
}

impl Disk {
    /// Takes a step.
    pub(super) fn take<T, E: From<io::Error>>(
        &self,
        step: Step<'_>,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        #[cfg(test)]
        if let Some(trial) = &self.trial {
            return trial.take(step, act);
        }
        let _ = step;
        act()
    }

    /// Takes a step in files, and notes where the disk refuses it.
    fn change<T>(
        &self,
        step: Step<'_>,
        (action, path): (&'static str, &Path),
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        self.take(step, act).map_err(|error| self.refused.note(action, path, error))
    }

    /// Blobs may be private images: nobody but the daemon's user looks in.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(parent)?;
        }
        let make = || match fs::DirBuilder::new().mode(0o700).create(folder) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        self.change(Step::MakeFolder(folder), ("create the folder", folder), make)
    }

    /// An empty file, readable and writable.
    pub(super) fn create(&self, path: &Path) -> Result<File, StoreError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        self.change(Step::Create(path), ("create", path), || options.open(path))
    }

    /// Writes to a file that stands at a path.
    pub(super) fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.change(Step::Write(path), ("write", path), || file.write_all_at(bytes, at))
    }

    pub(super) fn truncate(&self, path: &Path, file: &File, length: u64) -> Result<(), StoreError> {
        self.change(Step::Truncate(path), ("truncate", path), || file.set_len(length))
    }

    pub(super) fn sync(&self, path: &Path, file: &File) -> Result<(), StoreError> {
        self.change(Step::Sync(path), ("sync", path), || file.sync_all())
    }

    /// Begins to make the bytes durable that a file has now; `None` where that is done already. A trial takes it as
    /// one step.
    pub(super) fn sync_behind(&self, path: &Path, file: &Arc<File>) -> Result<Option<Running>, StoreError> {
        #[cfg(test)]
        if self.trial.is_some() {
            return self.sync(path, file).map(|()| None);
        }
        let (refused, of, file) = (self.refused.clone(), path.to_owned(), Arc::clone(file));
        let sync = move || file.sync_data().map_err(|error| refused.note("sync", &of, error));
        let running = std::thread::Builder::new().name("flush".to_owned()).spawn(sync);
        running.map(Some).map_err(StoreError::io("start a thread to sync", path))
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let sync = || File::open(folder).and_then(|folder| folder.sync_all());
        self.change(Step::SyncFolder(folder), ("sync the folder", folder), sync)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.change(Step::Rename(from, to), ("rename to", to), || fs::rename(from, to))
    }

    /// Removes a file, where it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let remove = || match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        self.change(Step::Remove(path), ("remove", path), remove)
    }
}
