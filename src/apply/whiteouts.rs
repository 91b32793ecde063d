//! Entries that say what a layer removes (OCI image specification, "Whiteouts").

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use rustix::io::Errno;

use super::folders::{Folder, children, open_child, remove};
use super::root::Root;

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whiteout<'a> {
    /// All that lower layers have in the folder.
    Opaque,
    /// This in the folder.
    Name(&'a [u8]),
}

impl<'a> Whiteout<'a> {
    /// Nothing where the name is an ordinary one.
    ///
    /// # Errors
    /// When it would remove the folder itself, or what is above it.
    pub(super) fn of(base: &'a [u8]) -> Result<Option<Self>, &'static str> {
        match (base, base.strip_prefix(PREFIX)) {
            (OPAQUE, _) => Ok(Some(Self::Opaque)),
            (_, Some(b"" | b"." | b"..")) => Err("an invalid whiteout"),
            (_, Some(name)) => Ok(Some(Self::Name(name))),
            (_, None) => Ok(None),
        }
    }
}

/// Which paths a layer has brought, so that an opaque folder's marker, which may come after its files, leaves them.
///
/// Kept as hashes of 128 bits under keys of this process's own: 16 bytes for each, however long it is.
#[derive(Default)]
pub(super) struct Unpacked {
    keys: [RandomState; 2],
    paths: HashSet<[u64; 2]>,
    /// Folders whose marker has had its effect.
    opaque: HashSet<[u64; 2]>,
}

impl Unpacked {
    pub(super) fn note(&mut self, path: &[u8]) {
        let hash = self.hash(path);
        self.paths.insert(hash);
    }

    /// Removes what is in a folder, at any depth, and was there before; nothing where the folder was marked before.
    /// However wide or deep it is, few folders are open at a time. Whether anything was removed.
    ///
    /// # Errors
    /// When a folder cannot be read, or the disk refuses.
    pub(super) fn remove_older(&mut self, root: &Root, folder: &Folder) -> Result<bool, Errno> {
        if !self.opaque.insert(self.hash(&folder.path)) {
            // What is in it now came between the two markers.
            return Ok(false);
        }
        let (mut removed, mut todo) = (false, vec![folder.path.clone()]);
        while let Some(path) = todo.pop() {
            let folder = Folder::new(root.open_folder(&path)?, path)?;
            for name in children(&folder.fd)? {
                let path = folder.child(&name);
                if !self.paths.contains(&self.hash(&path)) {
                    remove(&folder.fd, &name)?;
                    removed = true;
                } else if open_child(&folder.fd, &name).is_ok() {
                    todo.push(path);
                }
            }
        }
        Ok(removed)
    }

    fn hash(&self, path: &[u8]) -> [u64; 2] {
        self.keys.each_ref().map(|key| key.hash_one(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whiteout_names_what_it_removes() {
        assert_eq!(Whiteout::of(b"a"), Ok(None));
        assert_eq!(Whiteout::of(b".wh.a"), Ok(Some(Whiteout::Name(b"a"))));
        assert_eq!(Whiteout::of(b".wh..wh..opq"), Ok(Some(Whiteout::Opaque)));
        assert_eq!(Whiteout::of(b".wh..wh.plnk"), Ok(Some(Whiteout::Name(b".wh.plnk"))));
        for name in [".wh.", ".wh..", ".wh..."] {
            assert!(Whiteout::of(name.as_bytes()).is_err(), "{name}");
        }
    }
}
