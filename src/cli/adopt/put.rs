//! A file at another path without a second copy of its bytes, or with one where that is wanted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{OFlags, ioctl_ficlone};
use rustix::io::Errno;

/// How it came there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Link,
    Reflink,
    Copy,
}

impl Way {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Link => "hard links",
            Self::Reflink => "reflinks",
            Self::Copy => "copies",
        }
    }
}

/// Why it did not come there.
#[derive(Debug)]
pub(super) enum PutError {
    /// The file is not there any more.
    Gone,
    /// Only a copy would do, and that is not wanted.
    NeedsCopy,
    /// There is no room.
    Full(io::Error),
    Other(io::Error),
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Full(error)
            }
            _ => Self::Other(error),
        }
    }
}

/// Puts a file at a path, in the best way that there is; what stands there from an earlier try is replaced. Whatever has
/// bytes of its own then is on the disk only once it is synced.
pub(super) fn put(from: &Path, to: &Path, may_copy: bool) -> Result<Way, PutError> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(PutError::Other(error)),
        Ok(()) | Err(_) => {}
    }
    match fs::hard_link(from, to) {
        Ok(()) => return Ok(Way::Link),
        Err(error) if !is_no_way(&error) => return Err(error.into()),
        Err(_) => {}
    }
    let source = opened(from)?;
    let changed_at = source.metadata()?.modified()?;
    let target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let filled = match ioctl_ficlone(&target, &source) {
        Ok(()) => Ok(Way::Reflink),
        Err(error) if !is_no_way(&error.into()) => Err(io::Error::from(error).into()),
        Err(_) if !may_copy => Err(PutError::NeedsCopy),
        Err(_) => io::copy(&mut &source, &mut &target).map(|_| Way::Copy).map_err(PutError::from),
    };
    // By which it is known later to be that file's copy.
    let filled = filled.and_then(|way| Ok(target.set_modified(changed_at).map(|()| way)?));
    if filled.is_err() {
        // What was begun is worth nothing; whoever owns the folder clears it otherwise.
        let _ = fs::remove_file(to);
    }
    filled
}

/// Whether a file is another one, or was put there from it by [`put`]: whoever wrote to either since has changed its time.
pub(super) fn is_put(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    let inode = |file: &fs::Metadata| (file.dev(), file.ino());
    let times = |file: &fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec());
    inode(one) == inode(other) || times(one) == times(other)
}

fn opened(path: &Path) -> Result<File, PutError> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(careful.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(PutError::Other(io::Error::other("it is not a file")))
    }
}

/// Whether the system says that it does not work in this way here, whatever the file.
fn is_no_way(error: &io::Error) -> bool {
    const NO_WAY: [Errno; 8] = [
        Errno::XDEV,
        Errno::PERM,
        Errno::MLINK,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::NOTTY,
        Errno::TXTBSY,
    ];
    Errno::from_io_error(error).is_some_and(|errno| NO_WAY.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_made_where_it_can_be_and_replaces_what_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, b"bytes").unwrap();
        fs::write(&to, b"left by an earlier try").unwrap();
        assert_eq!(put(&from, &to, false).unwrap(), Way::Link);
        assert_eq!(fs::metadata(&from).unwrap().ino(), fs::metadata(&to).unwrap().ino());
        assert!(matches!(put(&folder.path().join("missing"), &to, true), Err(PutError::Gone)));
    }

    #[test]
    fn between_file_systems_only_a_copy_does_and_only_where_it_is_wanted() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let device = |folder: &Path| fs::metadata(folder).unwrap().dev();
        assert_ne!(device(here.path()), device(there.path()), "this test needs two file systems");
        let (from, to) = (here.path().join("from"), there.path().join("to"));
        fs::write(&from, b"bytes").unwrap();
        assert!(matches!(put(&from, &to, false), Err(PutError::NeedsCopy)));
        assert!(!to.exists());
        assert_eq!(put(&from, &to, true).unwrap(), Way::Copy);
        assert_eq!(fs::read(&to).unwrap(), b"bytes");
        let look = |path: &Path| fs::metadata(path).unwrap();
        assert!(is_put(&look(&from), &look(&to)));
        File::options().write(true).open(&to).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!is_put(&look(&from), &look(&to)));
    }
}
