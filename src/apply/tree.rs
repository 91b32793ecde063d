//! The entries of a layer, written into a folder one by one as containerd's own applier writes them (`pkg/archive`,
//! `applyNaive`).
//!
//! What containerd does in several calls by path is done here in as few as will do, on open folders and files. What is
//! there afterwards has to be the same, down to the times, and so has what is refused.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::folders::{Folder, Folders, open_child, remove};
use super::go_path::{clean, join, split};
use super::metadata::{self, Made};
use super::mounts::{Target, TargetKind};
use super::root::Root;
use super::tar::{Entries, Entry, Kind, TarError, Time};
use super::whiteouts::{Unpacked, Whiteout};
use super::xattrs;

/// What makes an overlay show nothing from beneath a folder, where it is `y`.
const OPAQUE: &str = "trusted.overlay.opaque";

/// What the system takes in one call, in bytes. Folder by folder, each in an open one, a tree could be made deeper than
/// that: nobody could use it, and what removes it would keep a folder open for each level.
const LONGEST_NAME: usize = 4096;

/// A tree that is being written.
pub(super) struct Tree {
    folders: Folders,
    /// Where a lower folder is to be hidden, how it is said; else what this layer has brought.
    removal: Removal,
    made: Made,
    /// The entries of folders, whose times are set at the end: each file that is made in one changes them.
    times: Vec<(Vec<u8>, Time, Time)>,
    /// Whether anything has taken the place of something else.
    replaced: bool,
}

enum Removal {
    Marked,
    Done { unpacked: Unpacked },
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// The archive is at fault.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// What it says cannot be done by anybody.
    #[error("{}: {what}", String::from_utf8_lossy(.name))]
    Refused { name: Vec<u8>, what: &'static str },
    /// The system refuses.
    #[error("{}: {source}", String::from_utf8_lossy(.name))]
    System {
        name: Vec<u8>,
        #[source]
        source: Errno,
    },
}

/// An entry on the way to its place.
struct Place<'a> {
    entry: &'a Entry,
    /// Cleaned.
    name: &'a [u8],
    folder: Rc<Folder>,
    base: &'a [u8],
}

impl Tree {
    /// # Errors
    /// When one of the folders cannot be opened.
    pub(super) fn open(target: &Target) -> Result<Self, (std::path::PathBuf, Errno)> {
        let open = |path: &std::path::PathBuf| Root::open(path).map_err(|error| (path.clone(), error));
        let root = open(&target.root)?;
        let failed = |error| (target.root.clone(), error);
        // What an earlier layer left may have rules for what is made in it.
        let has_rules = xattrs::value(root.folder(), b"system.posix_acl_default").map_err(failed)?.is_some()
            || !super::folders::children(root.folder()).map_err(failed)?.is_empty();
        let (lower, removal) = match &target.kind {
            TargetKind::Whole => (Vec::new(), Removal::Done { unpacked: Unpacked::default() }),
            TargetKind::Upper { lower } => {
                (lower.iter().map(open).collect::<Result<_, _>>()?, Removal::Marked)
            }
        };
        let made = Made::new(has_rules);
        let folders = Folders::new(root, lower);
        Ok(Self { folders, removal, made, times: Vec::new(), replaced: false })
    }

    /// Writes everything that an archive has.
    ///
    /// # Errors
    /// At the first entry that cannot be written; those before it stay.
    pub(super) fn write(&mut self, entries: &mut Entries<'_>) -> Result<(), TreeError> {
        while let Some(entry) = entries.next()? {
            self.add(&entry, entries)?;
        }
        let times = std::mem::take(&mut self.times);
        for (name, read_at, modified_at) in times {
            self.set_times(&name, read_at, modified_at)
                .map_err(|source| TreeError::System { name, source })?;
        }
        Ok(())
    }

    /// Brings what was written, and all else on its file system, to the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(self.folders.root().folder())
    }

    fn add(&mut self, entry: &Entry, entries: &mut Entries<'_>) -> Result<(), TreeError> {
        let name = clean(&entry.name);
        let (part, base) = split(&name);
        if matches!(base, b"" | b"." | b"..") {
            // The root itself stays as it is.
            return Ok(());
        }
        let system = |source| TreeError::System { name: name.clone(), source };
        let refused = |what| TreeError::Refused { name: name.clone(), what };
        if name.len() >= LONGEST_NAME {
            return Err(system(Errno::NAMETOOLONG));
        }
        let folder = self.folders.open(part).map_err(system)?;
        match Whiteout::of(base) {
            Ok(None) => {}
            Ok(Some(whiteout)) => return self.remove_below(whiteout, &folder, entry).map_err(system),
            Err(what) => return Err(refused(what)),
        }
        let place = Place { entry, name: &name, folder, base };
        match &entry.kind {
            Kind::Directory => self.directory(&place).map_err(system)?,
            Kind::File => self.file(&place, entries)?,
            Kind::Symlink => {
                self.in_place(&place, |folder| {
                    rustix::fs::symlinkat(entry.link.as_slice(), &folder.fd, place.base)
                })
                .and_then(|()| self.finish(&place))
                .map_err(system)?;
            }
            Kind::HardLink => self.hard_link(&place).map_err(system)?,
            Kind::Character | Kind::Block | Kind::Fifo => {
                let (Ok(major), Ok(minor)) = (u32::try_from(entry.major), u32::try_from(entry.minor)) else {
                    return Err(refused("a device number is out of range"));
                };
                self.node(&place, rustix::fs::makedev(major, minor)).map_err(system)?;
            }
            Kind::Global => self.clear(&place).map_err(system)?,
            Kind::Unknown(_) => return Err(refused("an entry of a type that is not known")),
        }
        if let Removal::Done { unpacked } = &mut self.removal {
            unpacked.note(&place.folder.child(place.base));
        }
        Ok(())
    }

    fn directory(&mut self, place: &Place<'_>) -> Result<(), Errno> {
        let Place { entry, name, folder, base } = place;
        let mode = Mode::from_raw_mode(metadata::permissions(entry) & 0o777);
        let make = || rustix::fs::mkdirat(&folder.fd, *base, mode);
        let fresh = match make() {
            Ok(()) => true,
            Err(Errno::EXIST) if self.is_folder(place)? => false,
            Err(Errno::EXIST) => {
                self.clear(place)?;
                make()?;
                true
            }
            Err(error) => return Err(error),
        };
        let fd = open_child(&folder.fd, base)?;
        self.made.settle(&fd, entry, fresh && !folder.gives_group)?;
        self.times.push((name.to_vec(), entry.read_at, entry.modified_at));
        let path = folder.child(base);
        if !fresh {
            // Whose group its files get may have changed.
            self.folders.forget();
        } else if path.strip_prefix(b"/") == Some(name.strip_prefix(b"/").unwrap_or(name)) {
            let made = Folder::of_mode(fd, path, metadata::permissions(entry));
            self.folders.keep(&[name, b"/".as_slice()].concat(), &Rc::new(made));
        }
        Ok(())
    }

    fn file(&mut self, place: &Place<'_>, entries: &mut Entries<'_>) -> Result<(), TreeError> {
        let Place { entry, name, folder, base } = place;
        let system = |source| TreeError::System { name: name.to_vec(), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(metadata::permissions(entry) & 0o777);
        let make = |folder: &Folder| rustix::fs::openat(&folder.fd, *base, flags, mode);
        let mut file = File::from(self.in_place(place, make).map_err(system)?);
        let io = |error: std::io::Error| system(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        match &entry.extents {
            None => loop {
                let bytes = entries.data(usize::MAX)?;
                if bytes.is_empty() {
                    break;
                }
                file.write_all(bytes).map_err(io)?;
            },
            Some(extents) => {
                for extent in extents {
                    let (mut at, end) = (extent.offset, extent.offset + extent.length);
                    while at < end {
                        let bytes = entries.data(usize::try_from(end - at).unwrap_or(usize::MAX))?;
                        if bytes.is_empty() {
                            return Err(TarError::CutOff.into());
                        }
                        file.write_all_at(bytes, at).map_err(io)?;
                        at += bytes.len() as u64;
                    }
                }
                // A hole at the end.
                file.set_len(entry.size).map_err(io)?;
            }
        }
        let fd = file.into();
        self.made.settle(&fd, entry, !folder.gives_group).map_err(system)?;
        metadata::set_times(&fd, entry.read_at, entry.modified_at).map_err(system)
    }

    /// What is linked to is found as it is written, with links followed on the way to it and not at its end.
    fn hard_link(&mut self, place: &Place<'_>) -> Result<(), Errno> {
        let (part, base) = split(&place.entry.link);
        let (from, base) = match base {
            b"" | b"." | b".." => {
                let path = join(&self.folders.root().resolve(part)?, base);
                let (above, last) = split(&path);
                // Nothing can be linked to the root.
                let last = Some(last).filter(|last| !last.is_empty()).ok_or(Errno::PERM)?;
                (
                    Rc::new(Folder::new(self.folders.root().open_folder(above)?, above.to_vec())?),
                    last.to_vec(),
                )
            }
            base => (self.folders.find(part)?, base.to_vec()),
        };
        let link = |folder: &Folder| {
            rustix::fs::linkat(&from.fd, base.as_slice(), &folder.fd, place.base, AtFlags::empty())
        };
        self.in_place(place, link)?;
        self.finish(place)
    }

    fn node(&mut self, place: &Place<'_>, device: rustix::fs::Dev) -> Result<(), Errno> {
        let kind = match place.entry.kind {
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let mode = Mode::from_raw_mode(metadata::permissions(place.entry));
        self.in_place(place, |folder| rustix::fs::mknodat(&folder.fd, place.base, kind, mode, device))?;
        self.finish(place)
    }

    /// Makes something, in the place of whatever is there.
    fn in_place<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn(&Folder) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make(&place.folder) {
            Err(Errno::EXIST) => {
                self.clear(place)?;
                make(&place.folder)
            }
            made => made,
        }
    }

    /// Owner, attributes, mode and times of something that cannot be open.
    fn finish(&mut self, place: &Place<'_>) -> Result<(), Errno> {
        self.made.settle_at(&place.folder.fd, place.base, place.entry)
    }

    fn clear(&mut self, place: &Place<'_>) -> Result<(), Errno> {
        self.remove(&place.folder, place.base)
    }

    fn remove(&mut self, folder: &Folder, name: &[u8]) -> Result<(), Errno> {
        self.replaced = true;
        self.folders.forget();
        remove(&folder.fd, name)
    }

    fn is_folder(&self, place: &Place<'_>) -> Result<bool, Errno> {
        let stat = rustix::fs::statat(&place.folder.fd, place.base, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn remove_below(
        &mut self,
        whiteout: Whiteout<'_>,
        folder: &Rc<Folder>,
        entry: &Entry,
    ) -> Result<(), Errno> {
        match (whiteout, &mut self.removal) {
            (Whiteout::Opaque, Removal::Marked) => {
                rustix::fs::fsetxattr(&folder.fd, OPAQUE, b"y", XattrFlags::empty())
            }
            (Whiteout::Name(name), Removal::Marked) => {
                let none = Mode::empty();
                rustix::fs::mknodat(&folder.fd, name, FileType::CharacterDevice, none, 0)?;
                metadata::set_owner_at(&folder.fd, name, entry)
            }
            (Whiteout::Opaque, Removal::Done { unpacked }) => {
                if unpacked.remove_older(self.folders.root(), folder)? {
                    self.replaced = true;
                    self.folders.forget();
                }
                Ok(())
            }
            (Whiteout::Name(name), Removal::Done { .. }) => self.remove(folder, name),
        }
    }

    /// A folder's own entry may since have been replaced, by something that now gets its times.
    fn set_times(&mut self, name: &[u8], read_at: Time, modified_at: Time) -> Result<(), Errno> {
        let times = metadata::times(read_at, modified_at);
        if !self.replaced {
            let (part, base) = split(name);
            let folder = self.folders.open(part)?;
            return rustix::fs::utimensat(&folder.fd, base, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        let path = self.folders.root().resolve(name)?;
        let (above, base) = split(&path);
        let folder = self.folders.root().open_folder(above)?;
        match base {
            b"" => rustix::fs::futimens(&folder, &times),
            base => rustix::fs::utimensat(&folder, base, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

/// Whether this process is root in a user namespace, where containerd's own applier goes another way.
pub(super) fn in_user_namespace() -> bool {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = text.split_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}
