//! Entries that say what a layer removes (OCI image specification, "Whiteouts").

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use rustix::io::Errno;

use super::folders::{Folder, children, open_child};

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

/// Names in their folders.
pub(super) type Names = Vec<(Rc<Folder>, Vec<u8>)>;

impl Unpacked {
    pub(super) fn note(&mut self, path: &[u8]) {
        let hash = self.hash(path);
        self.paths.insert(hash);
    }

    /// What is in a folder, at any depth, and was there before; nothing where the folder was marked before.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(super) fn before(&mut self, folder: &Rc<Folder>) -> Result<Names, Errno> {
        let hash = self.hash(&folder.path);
        if !self.opaque.insert(hash) {
            // What is in it now came between the two markers.
            return Ok(Names::new());
        }
        let (mut old, mut todo) = (Vec::new(), vec![Rc::clone(folder)]);
        while let Some(folder) = todo.pop() {
            for name in children(&folder.fd)? {
                let path = folder.child(&name);
                if !self.paths.contains(&self.hash(&path)) {
                    old.push((Rc::clone(&folder), name));
                } else if let Ok(fd) = open_child(&folder.fd, &name) {
                    todo.push(Rc::new(Folder::new(fd, path)?));
                }
            }
        }
        Ok(old)
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
