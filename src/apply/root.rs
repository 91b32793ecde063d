//! A folder that nothing gets out of, and paths within it.
//!
//! Names are followed as containerd follows them (`continuity/fs`, `RootPath`): link by link, each link's target taken
//! from the root where it is absolute, `..` taken back by its letters, and the root above itself. That decides what a
//! path comes to; what comes of it has no links, and is then opened so that the kernel lets none pass.
//!
//! Invariant: every look and every opening goes through `openat2` on the root, with `RESOLVE_IN_ROOT` for what may be a
//! link and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` for what must not.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::go_path::{clean, join};

/// How many links one path may go through.
const MOST_LINKS: u32 = 255;

/// A folder, open.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
}

impl Root {
    /// # Errors
    /// When it is no folder that can be opened.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// What a path comes to, from `/` on and without links; what is not there is no link. That includes the last
    /// element.
    ///
    /// # Errors
    /// When there are too many links, or something on the way is no folder.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        if path.is_empty() {
            return Ok(b"/".to_vec());
        }
        let (mut path, mut links) = (path.to_vec(), 0);
        loop {
            let before = links;
            let next = self.walk(&path, &mut links)?;
            if links > before {
                path = next;
                continue;
            }
            let next = join(b"/", &next);
            if next == path {
                return Ok(next);
            }
            path = next;
        }
    }

    /// Opens the folder at a path without links, from `/` on.
    ///
    /// # Errors
    /// When it is not there (`NOENT`), no folder (`NOTDIR`), or a link (`LOOP`).
    pub(super) fn open_folder(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        self.open_at(path, flags, resolve)
    }

    /// What is at a path without links, if anything.
    ///
    /// # Errors
    /// When something on the way is no folder.
    pub(super) fn look(&self, path: &[u8]) -> Result<Option<Stat>, Errno> {
        Ok(self.find(path)?.map(|(_, stat)| stat))
    }

    /// One pass over the elements of a path. A link becomes its target where it is met; what the target says is looked
    /// at in the next pass.
    fn walk(&self, path: &[u8], links: &mut u32) -> Result<Vec<u8>, Errno> {
        let mut at: Option<Vec<u8>> = path.starts_with(b"/").then(|| b"/".to_vec());
        for element in path.split(|byte| *byte == b'/').filter(|element| !element.is_empty()) {
            let next = at.as_ref().map_or_else(|| element.to_vec(), |at| join(at, element));
            at = Some(match (self.step(&next, links)?, at) {
                (Step::Path(path), _) => path,
                (Step::Link(target), Some(at)) if !target.starts_with(b"/") => join(&at, &target),
                (Step::Link(target), _) => target,
            });
        }
        Ok(at.unwrap_or_default())
    }

    fn step(&self, path: &[u8], links: &mut u32) -> Result<Step, Errno> {
        if *links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        let path = join(b"/", path);
        if path == b"/" {
            return Ok(Step::Path(path));
        }
        let Some((file, stat)) = self.find(&path)? else { return Ok(Step::Path(path)) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok(Step::Path(path));
        }
        *links += 1;
        Ok(Step::Link(rustix::fs::readlinkat(file, c"", Vec::new())?.into_bytes()))
    }

    fn find(&self, path: &[u8]) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_at(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(file) => {
                let stat = rustix::fs::statat(&file, c"", AtFlags::EMPTY_PATH)?;
                Ok(Some((file, stat)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_at(&self, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = match path.strip_prefix(b"/").unwrap_or(path) {
            b"" => b".",
            path => path,
        };
        loop {
            match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                // Something was renamed elsewhere in the system meanwhile.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    }
}

enum Step {
    Path(Vec<u8>),
    Link(Vec<u8>),
}

/// A clean path as it is where none of its elements is a link: from `/` on, with nothing above that.
pub(super) fn without_links(path: &[u8]) -> Vec<u8> {
    clean(&[b"/", path].concat())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_stays_beneath_its_root_whatever_links_say() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("x/y")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for (link, target) in [
            ("out", "../../etc"),
            ("absolute", "/x/y"),
            ("nested", "absolute/../z"),
            ("x/nested", "../absolute/../z"),
            ("dangling", "x/missing"),
            ("one", "two"),
            ("two", "one"),
            ("x/up", "../x/y"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let root = Root::open(&root).unwrap();
        let cases: &[(&str, &str)] = &[
            ("", "/"),
            ("/", "/"),
            ("../../a/", "/a"),
            ("out/passwd", "/etc/passwd"),
            ("absolute/", "/x/y"),
            ("nested/", "/x/z"),
            // Below a folder `..` goes by its letters, so that the link before it is not followed.
            ("x/nested/", "/z"),
            ("dangling/a", "/x/missing/a"),
            ("x/up/a", "/x/y/a"),
            ("missing/a/b", "/missing/a/b"),
        ];
        for (path, resolved) in cases {
            let resolved_to = root.resolve(path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&resolved_to), *resolved, "{path}");
        }
        assert_eq!(root.resolve(b"one/"), Err(Errno::LOOP));
        assert_eq!(root.resolve(b"file/a"), Err(Errno::NOTDIR));
        assert_eq!(root.open_folder(b"/out").unwrap_err(), Errno::NOTDIR);
        assert_eq!(root.open_folder(b"/absolute/x").unwrap_err(), Errno::LOOP);
        assert!(root.open_folder(b"/x/y").is_ok());
    }
}
