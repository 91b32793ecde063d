//! The folders that a layer's entries are in: found, made where they are missing, and kept open.
//!
//! Most entries come folder by folder, so that nearly every one finds its folder open. Invariant: an open folder is the
//! one that its name leads to; whoever removes a folder or a link forgets them all.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::go_path::split;
use super::root::{Root, without_links};
use super::xattrs;

/// How many folders stay open.
const MOST_OPEN: usize = 64;

/// Given to folders that nobody has an entry for.
const IMPLIED: u32 = 0o755;

/// Where set-group-id stands in a mode.
const SET_GROUP_ID: u32 = 0o2000;

/// A folder, open.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    /// From `/` on, without links.
    pub(super) path: Vec<u8>,
    /// Whether what is made in it is of its group.
    pub(super) gives_group: bool,
}

impl Folder {
    pub(super) fn new(fd: OwnedFd, path: Vec<u8>) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, path, gives_group: stat.st_mode & SET_GROUP_ID != 0 })
    }

    pub(super) fn of_mode(fd: OwnedFd, path: Vec<u8>, mode: u32) -> Self {
        Self { fd, path, gives_group: mode & SET_GROUP_ID != 0 }
    }

    /// The path of something in it.
    pub(super) fn child(&self, name: &[u8]) -> Vec<u8> {
        match self.path.as_slice() {
            b"/" => [b"/", name].concat(),
            path => [path, b"/", name].concat(),
        }
    }
}

/// The folders of one tree.
pub(super) struct Folders {
    root: Root,
    /// Folders beneath this one, the uppermost first.
    lower: Vec<Root>,
    /// By the part of a name before its last slash.
    open: HashMap<Vec<u8>, Rc<Folder>>,
}

impl Folders {
    pub(super) fn new(root: Root, lower: Vec<Root>) -> Self {
        Self { root, lower, open: HashMap::new() }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// The folder that a clean name's first part leads to, made if need be with everything above it.
    ///
    /// # Errors
    /// When something on the way is no folder, or the disk refuses.
    pub(super) fn open(&mut self, part: &[u8]) -> Result<Rc<Folder>, Errno> {
        if let Some(known) = self.open.get(part) {
            return Ok(Rc::clone(known));
        }
        let direct = without_links(part);
        let (fd, path) = match self.root.open_folder(&direct) {
            Ok(fd) => (fd, direct),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                let path = self.root.resolve(part)?;
                (self.made(&path)?, path)
            }
            Err(error) => return Err(error),
        };
        let folder = Rc::new(Folder::new(fd, path)?);
        self.keep(part, &folder);
        Ok(folder)
    }

    /// The folder that the first part of a link's target leads to, which has to be there.
    ///
    /// # Errors
    /// When it is not, or is no folder.
    pub(super) fn find(&self, part: &[u8]) -> Result<Rc<Folder>, Errno> {
        if let Some(known) = self.open.get(part) {
            return Ok(Rc::clone(known));
        }
        let path = self.root.resolve(part)?;
        Ok(Rc::new(Folder::new(self.root.open_folder(&path)?, path)?))
    }

    /// Keeps a folder open that was just made.
    pub(super) fn keep(&mut self, part: &[u8], folder: &Rc<Folder>) {
        if self.open.len() >= MOST_OPEN {
            self.open.clear();
        }
        self.open.insert(part.to_vec(), Rc::clone(folder));
    }

    /// A folder or a link was removed, or a folder has become another's.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// The folder at a path without links, with what is missing of it made as it is in the folders beneath.
    fn made(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        // No recursion: how deep it would go, a layer would say.
        let (mut missing, mut end) = (Vec::new(), path.len());
        let mut folder = loop {
            match self.root.open_folder(path.get(..end).unwrap_or_default()) {
                Err(Errno::NOENT) if end > 0 => missing.push(end),
                // A link here has come since the path was resolved.
                Err(Errno::LOOP) => return Err(Errno::NOTDIR),
                opened => break opened?,
            }
            end = path.iter().take(end).rposition(|byte| *byte == b'/').unwrap_or(0);
        };
        for end in missing.into_iter().rev() {
            folder = self.make(&folder, path.get(..end).unwrap_or_default())?;
        }
        Ok(folder)
    }

    /// Makes the folder at a path, in the one above it.
    fn make(&self, above: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(above, split(path).1, Mode::from_raw_mode(IMPLIED))?;
        let made = self.root.open_folder(path)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(IMPLIED))?;
        for lower in &self.lower {
            let there = lower.resolve(path)?;
            let Some(stat) = lower.look(&there)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                copy_up(lower, &there, &stat, &made)?;
            }
            break;
        }
        Ok(made)
    }
}

/// Makes a folder what the one beneath it is.
fn copy_up(lower: &Root, path: &[u8], stat: &Stat, made: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(
        made,
        &Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
        },
    )?;
    let from = lower.open_folder(path)?;
    for name in xattrs::names(&from)? {
        if name.starts_with(b"trusted.") {
            continue;
        }
        let Some(value) = xattrs::value(&from, &name)? else { continue };
        match rustix::fs::fsetxattr(made, name.as_slice(), &value, XattrFlags::CREATE) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NODATA | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn nanos<N: TryInto<i64>>(nanos: N) -> i64 {
    nanos.try_into().unwrap_or(0)
}

/// Removes whatever has a name in a folder, with all that is in it. Nothing there is as good.
///
/// # Errors
/// When the disk refuses.
pub(super) fn remove(folder: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    // No recursion: how deep it would go, a layer would say.
    let mut emptied: Vec<Emptied> = Emptied::unless_removed(folder, name)?.into_iter().collect();
    while let Some(inner) = emptied.last_mut() {
        if let Some(child) = inner.children.pop() {
            let below = Emptied::unless_removed(&inner.fd, &child)?;
            emptied.extend(below);
        } else if let Some(Emptied { name, .. }) = emptied.pop() {
            let above = emptied.last().map_or(folder, |above| &above.fd);
            match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A folder that is to be removed once it is empty.
struct Emptied {
    fd: OwnedFd,
    name: Vec<u8>,
    children: Vec<Vec<u8>>,
}

impl Emptied {
    /// Removes what has a name in a folder. Where it is a folder itself, that is for later.
    fn unless_removed(folder: &OwnedFd, name: &[u8]) -> Result<Option<Self>, Errno> {
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        let fd = open_child(folder, name)?;
        let children = children(&fd)?;
        Ok(Some(Self { fd, name: name.to_vec(), children }))
    }
}

/// A folder in a folder.
///
/// # Errors
/// When it is not one.
pub(super) fn open_child(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// The names in a folder.
///
/// # Errors
/// When it cannot be read.
pub(super) fn children(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}
