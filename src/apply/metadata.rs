//! Owner, attributes, mode and times of what was just made, in the order in which they undo nothing of each other.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::tar::{Entry, Time};

/// What something that this process makes is like before anything is said of it. Saying it again would cost a call a
/// file, and most files of a layer are just so.
#[derive(Debug)]
pub(super) struct Made {
    uid: u32,
    gid: u32,
    /// Which bits of a mode are taken away; nothing where there may be other rules as well.
    umask: Option<u32>,
}

impl Made {
    /// `has_rules`: whether folders may say what modes their files get.
    pub(super) fn new(has_rules: bool) -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { uid, gid, umask: if has_rules { None } else { umask() } }
    }

    /// Of a file or a folder that is open, but for its times. `plain`: whether it was made by this process, in a folder
    /// that gives it no group.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn settle(&mut self, file: &OwnedFd, entry: &Entry, plain: bool) -> Result<(), Errno> {
        let (uid, gid) = owner(entry);
        if !plain || (uid, gid) != (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))) {
            rustix::fs::fchown(file, uid, gid)?;
        }
        for (name, value) in &entry.xattrs {
            self.note(name);
            let set = || rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
            tolerated(name, true, set)?;
        }
        let mode = permissions(entry);
        if !plain || self.umask.is_none_or(|umask| mode & (umask | 0o7000) != 0) {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    /// Of anything, by its name in a folder, and its times too. A link is not followed.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn settle_at(&mut self, folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        set_owner_at(folder, name, entry)?;
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !entry.xattrs.is_empty() {
            // There is no such call by folder and name, but the folder has a path of its own.
            let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
            let ordinary = matches!(kind, FileType::RegularFile | FileType::Directory);
            for (key, value) in &entry.xattrs {
                self.note(key);
                let set = || rustix::fs::lsetxattr(&path, key.as_slice(), value, XattrFlags::empty());
                tolerated(key, ordinary, set)?;
            }
        }
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(permissions(entry));
            rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
        }
        let times = times(entry.read_at, entry.modified_at);
        rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// An attribute that is a rule for modes ends what is known of them.
    fn note(&mut self, xattr: &[u8]) {
        if xattr.starts_with(b"system.") {
            self.umask = None;
        }
    }
}

/// The bits of a mode that a file keeps.
pub(super) fn permissions(entry: &Entry) -> u32 {
    u32::try_from(entry.mode & 0o7777).unwrap_or_default()
}

/// # Errors
/// When the system refuses.
pub(super) fn set_owner_at(folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// # Errors
/// When the system refuses.
pub(super) fn set_times(file: &OwnedFd, read_at: Time, modified_at: Time) -> Result<(), Errno> {
    rustix::fs::futimens(file, &times(read_at, modified_at))
}

/// As they are set.
pub(super) fn times(read_at: Time, modified_at: Time) -> Timestamps {
    let spec = |time: Time| {
        let (tv_sec, tv_nsec) = time.bounded();
        Timespec { tv_sec, tv_nsec }
    };
    Timestamps { last_access: spec(read_at), last_modification: spec(modified_at) }
}

/// The system takes 32 bits of each, and all of them set for *as it is*.
fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    let bits = |id: i64| Some(id as u32).filter(|id| *id != u32::MAX);
    (bits(entry.uid).map(Uid::from_raw), bits(entry.gid).map(Gid::from_raw))
}

/// Sets an attribute, or leaves it out where containerd's own applier would.
fn tolerated(name: &[u8], ordinary: bool, set: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    if name.starts_with(b"trusted.") {
        // An overlay's own; nobody's to bring.
        return Ok(());
    }
    match set() {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") && !ordinary => Ok(()),
        done => done,
    }
}

/// Which bits are taken from the modes of what this process makes.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
