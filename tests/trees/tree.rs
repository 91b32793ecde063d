//! What is in a folder, down to what `ls -la` does not show, and in what two such folders differ.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fmt::{self, Display, Write as _};
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

/// Everything beneath a folder, by its path from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: Kind,
    /// The permissions with setuid, setgid and the sticky bit.
    mode: u32,
    owner: (u32, u32),
    modified: Time,
    accessed: Time,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of the paths that share its inode, and how many there are in all, outside the tree too.
    shared: Option<(PathBuf, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File { size: u64, sha256: String },
    Folder,
    Symlink(PathBuf),
    Device { letter: char, major: u32, minor: u32 },
    Fifo,
    Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// Seconds and nanoseconds.
    At(i64, i64),
    /// Whenever the thing was last written to or looked at in this test.
    Lately,
}

impl Tree {
    /// Reads what is there without changing it. What is younger than `began` counts as of now: no two runs agree on it.
    pub(crate) fn read(root: &Path, began: Began) -> Self {
        let mut found = BTreeMap::new();
        walk(root, Path::new(""), began, &mut found);
        let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        let nodes = found.into_iter().map(|(path, (mut node, inode, names))| {
            if names > 1 && node.kind != Kind::Folder {
                node.shared = Some((first.entry(inode).or_insert_with(|| path.clone()).clone(), names));
            }
            (path, node)
        });
        Self(nodes.collect())
    }

    /// A line for each path that is not the same in both, empty if there is none.
    pub(crate) fn differences(&self, ours: &Tree) -> String {
        let mut said = String::new();
        let only = |said: &mut String, whose: &str, path: &Path, node: &Node| {
            writeln!(said, "  {}\n    only in {whose}: {node}", path.display()).unwrap();
        };
        for (path, theirs) in &self.0 {
            match ours.0.get(path) {
                None => only(&mut said, "containerd's", path, theirs),
                Some(ours) if ours.is_as(theirs) => {}
                Some(ours) => {
                    writeln!(said, "  {}\n    containerd: {theirs}\n    tidehold:   {ours}", path.display())
                        .unwrap();
                }
            }
        }
        for (path, node) in ours.0.iter().filter(|(path, _)| !self.0.contains_key(*path)) {
            only(&mut said, "tidehold's", path, node);
        }
        said
    }
}

impl Node {
    fn is_as(&self, other: &Self) -> bool {
        // Looking into a folder or along a link sets its time of access, and how often that is done is nobody's affair.
        let looked_at = |node: &Self| {
            matches!(node.kind, Kind::Folder | Kind::Symlink(_)) && node.accessed == Time::Lately
        };
        let accessed = if looked_at(self) || looked_at(other) { self.accessed } else { other.accessed };
        *self == Self { accessed, ..other.clone() }
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mode, owner: (user, group), modified, accessed, xattrs, shared } = self;
        match kind {
            Kind::File { size, sha256 } => write!(f, "file of {size} bytes {}", &sha256[..8])?,
            Kind::Folder => write!(f, "folder")?,
            Kind::Symlink(target) => write!(f, "symlink to {}", target.display())?,
            Kind::Device { letter, major, minor } => write!(f, "device {letter} {major}:{minor}")?,
            Kind::Fifo => write!(f, "fifo")?,
            Kind::Socket => write!(f, "socket")?,
        }
        write!(f, ", {mode:04o} {user}:{group}, modified {modified}, accessed {accessed}")?;
        if let Some((first, names)) = shared {
            write!(f, ", one of {names} names of {}", first.display())?;
        }
        for (name, value) in xattrs {
            write!(f, ", {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        Ok(())
    }
}

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(seconds, nanoseconds) => write!(f, "{seconds}.{nanoseconds:09}"),
            Self::Lately => write!(f, "now"),
        }
    }
}

/// When a test began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(i64);

impl Began {
    pub(crate) fn now() -> Self {
        // A file system's clock may be a tick behind.
        let since =
            tidehold::clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - Duration::from_secs(2);
        Self(i64::try_from(since.as_secs()).unwrap())
    }

    fn time(self, seconds: i64, nanoseconds: i64) -> Time {
        // An archive may well tell of the far future.
        let lately = self.0..self.0 + 3600;
        if lately.contains(&seconds) { Time::Lately } else { Time::At(seconds, nanoseconds) }
    }
}

type Found = BTreeMap<PathBuf, (Node, (u64, u64), u64)>;

fn walk(root: &Path, below: &Path, began: Began, found: &mut Found) {
    let path = root.join(below);
    // Before anything is read: reading sets times.
    let metadata = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let node = Node {
        kind: kind_of(&path, &metadata),
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        modified: began.time(metadata.mtime(), metadata.mtime_nsec()),
        accessed: began.time(metadata.atime(), metadata.atime_nsec()),
        xattrs: xattrs_of(&path),
        shared: None,
    };
    found.insert(below.to_owned(), (node, (metadata.dev(), metadata.ino()), metadata.nlink()));
    if metadata.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            walk(root, &below.join(entry.unwrap().file_name()), began, found);
        }
    }
}

fn kind_of(path: &Path, metadata: &Metadata) -> Kind {
    let device = |letter| {
        let number = metadata.rdev();
        Kind::Device { letter, major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
    };
    let kind = metadata.file_type();
    if kind.is_file() {
        Kind::File { size: metadata.len(), sha256: sha256_of(path) }
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path).unwrap())
    } else if kind.is_char_device() {
        device('c')
    } else if kind.is_block_device() {
        device('b')
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    }
}

fn sha256_of(path: &Path) -> String {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap());
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = file.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn xattrs_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = Vec::with_capacity(64 << 10);
    match rustix::fs::llistxattr(path, spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOTSUP) => return BTreeMap::new(),
        Err(error) => panic!("the xattrs of {}: {error}", path.display()),
    }
    let names = names.split_inclusive(|byte| *byte == 0).map(|name| CStr::from_bytes_with_nul(name).unwrap());
    let value_of = |name: &CStr| {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::lgetxattr(path, OsStr::from_bytes(name.to_bytes()), spare_capacity(&mut value)).unwrap();
        value
    };
    names.map(|name| (name.to_bytes().to_vec(), value_of(name))).collect()
}
