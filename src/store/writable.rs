//! Whether what comes in can be kept: there is room for it, and the disk takes it.
//!
//! Judged before anything is asked for, since a pull that cannot be kept is a pull lost. Most of what keeps a disk from
//! taking writes the kernel tells without a try: a file system that is read-only, rights, a folder that is gone. What it
//! does not tell, a bad block for one, the first write finds out; that is remembered until a try has worked.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::sync::watch;

use super::{Hold, StoreError};

/// Why what comes in could not be kept.
#[derive(Debug, Clone)]
pub enum Unkept {
    /// There is no room for it.
    NoRoom,
    /// The disk takes no writes.
    Unwritable(StoreError),
}

/// What the disk has refused since it last took a try. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Refused(Arc<watch::Sender<Refusals>>);

#[derive(Default)]
struct Refusals {
    /// How often it has refused something.
    times: u64,
    /// What it said last; none once it has taken a try.
    last: Option<StoreError>,
}

impl Refused {
    /// Takes a refused change down, where it is the disk's doing.
    pub(super) fn note(&self, action: &'static str, path: &Path, error: io::Error) -> StoreError {
        // All else is of one path alone, or of this process: it has no descriptor left, for one.
        let of_the_disk = matches!(
            error.kind(),
            ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::PermissionDenied
                | ErrorKind::StaleNetworkFileHandle
                | ErrorKind::WriteZero
        ) || Errno::from_io_error(&error) == Some(Errno::IO);
        let error = StoreError::unwritten(action, path, error);
        if of_the_disk {
            self.0.send_modify(|refusals| {
                refusals.times += 1;
                refusals.last = Some(error.clone());
            });
        }
        error
    }

    fn last(&self) -> Option<StoreError> {
        self.0.borrow().last.clone()
    }
}

impl Hold {
    /// Whether the disk takes writes, as far as is known without trying. Answers at once.
    ///
    /// # Errors
    /// When it does not, or the index takes nothing any more.
    pub fn can_write(&self) -> Result<(), StoreError> {
        self.takes_files()?;
        match self.inner.index.lost().is_cancelled() {
            true => Err(StoreError::IndexLost(self.inner.files.index())),
            false => Ok(()),
        }
    }

    /// Whether it takes files.
    fn takes_files(&self) -> Result<(), StoreError> {
        self.inner.files.can_write()?;
        self.inner.files.disk().refused.last().map_or(Ok(()), Err)
    }

    /// The same for what a containerd writes, which finds out about room by itself, as on any disk.
    pub(super) fn takes_ingests(&self) -> Result<(), StoreError> {
        match self.takes_files() {
            Err(error) if !error.is_for_want_of_room() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether a manifest could be kept. Answers at once.
    ///
    /// # Errors
    /// When not: it would be fetched again.
    pub fn can_keep(&self) -> Result<(), Unkept> {
        if self.is_full() {
            return Err(Unkept::NoRoom);
        }
        self.can_write().map_err(Unkept::Unwritable)
    }

    /// Whether a download of so many bytes, at least, could be kept. Answers at once.
    ///
    /// # Errors
    /// When not.
    pub fn can_download(&self, bytes: u64) -> Result<(), Unkept> {
        if self.room() <= bytes {
            return Err(Unkept::NoRoom);
        }
        self.can_write().map_err(Unkept::Unwritable)
    }

    /// Returns, with what it said, once the disk has refused something that it was not known to refuse.
    pub async fn refused(&self) -> StoreError {
        let mut refusals = self.inner.files.disk().refused.0.subscribe();
        loop {
            if let Some(error) = refusals.borrow_and_update().last.clone() {
                return error;
            }
            if refusals.changed().await.is_err() {
                // The hold, which tells, is there for as long as we are.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tries whether the disk can be written, and takes its word where it can. *Blocking.*
    ///
    /// # Errors
    /// When it cannot.
    pub fn try_disk(&self) -> Result<(), StoreError> {
        let refused = &self.inner.files.disk().refused.0;
        let times = refused.borrow().times;
        self.inner.files.try_disk()?;
        refused.send_if_modified(|refusals| {
            // What it refused meanwhile counts.
            let well = refusals.times == times;
            if well {
                refusals.last = None;
            }
            well
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{CommitError, Ingests, OpenIngestError, Owner};
    use super::*;
    use crate::clock;
    use crate::oci::Digest;

    fn hold() -> (tempfile::TempDir, Hold) {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(&folder.path().join("data"), clock::now()).unwrap().0;
        (folder, hold)
    }

    fn refuse(hold: &Hold, errno: rustix::io::Errno) -> StoreError {
        hold.inner.files.disk().refused.note("write", Path::new("/data/blob"), errno.into())
    }

    #[tokio::test]
    async fn what_the_disk_refused_is_remembered_until_a_try_has_worked() {
        let (folder, hold) = hold();
        hold.can_keep().unwrap();
        refuse(&hold, rustix::io::Errno::IO);
        assert!(hold.refused().await.to_string().starts_with("write /data/blob: Input/output error"));
        assert!(matches!(hold.can_keep(), Err(Unkept::Unwritable(_))));
        assert!(matches!(hold.can_download(1), Err(Unkept::Unwritable(_))));
        // A try that fails leaves it at that.
        let (downloads, aside) = (folder.path().join("data/ingest"), folder.path().join("aside"));
        fs::rename(&downloads, &aside).unwrap();
        hold.try_disk().unwrap_err();
        fs::rename(&aside, &downloads).unwrap();
        assert!(hold.can_write().is_err());
        hold.try_disk().unwrap();
        hold.can_keep().unwrap();
    }

    #[tokio::test]
    async fn a_containerd_is_refused_before_it_has_fetched_what_could_not_be_written_and_never_for_want_of_room()
     {
        let (_folder, hold) = hold();
        let ingests = Ingests::open(&hold, Owner::new("system")).unwrap();
        let first = refuse(&hold, rustix::io::Errno::NOSPC);
        assert!(first.is_for_want_of_room() && hold.can_keep().is_err());
        drop(ingests.write("fits", clock::now()).await.unwrap());
        refuse(&hold, rustix::io::Errno::IO);
        for name in ["fits", "new"] {
            let refused = ingests.write(name, clock::now()).await;
            assert!(matches!(refused, Err(OpenIngestError::Store(StoreError::Unwritten { .. }))), "{name}");
        }
        assert!(ingests.status("new").is_none(), "nothing is left behind");
        hold.try_disk().unwrap();
        for name in ["fits", "new"] {
            drop(ingests.write(name, clock::now()).await.unwrap());
        }
    }

    #[test]
    fn what_is_wrong_with_one_path_alone_is_not_the_disks_doing() {
        let (_folder, hold) = hold();
        for errno in [rustix::io::Errno::NOENT, rustix::io::Errno::EXIST, rustix::io::Errno::XDEV] {
            refuse(&hold, errno);
        }
        hold.can_keep().unwrap();
    }

    #[test]
    fn a_folder_that_was_moved_away_is_not_made_anew_and_is_found_again() {
        let (folder, hold) = hold();
        let (data, aside) = (folder.path().join("data"), folder.path().join("aside"));
        let keep = || hold.keep(b"tide", &Digest::of(b"tide"), clock::now());
        fs::rename(&data, &aside).unwrap();
        for _ in 0..2 {
            assert!(matches!(hold.can_write(), Err(StoreError::Replaced(folder)) if folder == data));
            assert!(matches!(keep(), Err(CommitError::Store(StoreError::Replaced(_)))));
            assert!(hold.disk_space().is_ok(), "its file system is still there");
        }
        assert!(!data.exists());
        // Another one in its place is none of ours.
        let other = Hold::open(&data, clock::now()).unwrap().0;
        assert!(matches!(hold.can_write(), Err(StoreError::Replaced(_))));
        other.can_write().unwrap();
        drop(other);
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&aside, &data).unwrap();
        keep().unwrap();
        fs::rename(data.join("entering"), &aside).unwrap();
        assert!(
            matches!(hold.can_write(), Err(StoreError::Replaced(folder)) if folder.ends_with("entering"))
        );
    }

    #[test]
    fn an_error_says_what_to_do() {
        let (folder, _hold) = hold();
        let data = folder.path().join("data");
        let mend = |errno: rustix::io::Errno, path: &Path| {
            StoreError::unwritten("create", path, errno.into()).mend()
        };
        let read_only = format!("mount -o remount,rw $(findmnt -n -o TARGET -T '{}')", data.display());
        for path in [data.clone(), data.join("1")] {
            assert!(mend(rustix::io::Errno::ROFS, &path).unwrap().ends_with(&read_only));
        }
        assert!(mend(rustix::io::Errno::ACCESS, &data).unwrap().contains("lsattr -d"));
        assert!(mend(rustix::io::Errno::NOSPC, &data).unwrap().contains("df -i"));
        assert!(mend(rustix::io::Errno::IO, &data).unwrap().contains("dmesg"));
        assert!(StoreError::Replaced(data).mend().unwrap().contains("systemctl restart tidehold"));
        assert!(StoreError::Damaged(String::new()).mend().is_none());
    }
}
