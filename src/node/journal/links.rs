//! Symbolic links that were made. Each is taken back as long as it leads where it was made to lead: another one is
//! somebody else's.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::super::files::real;
use super::write::{remove, sync_folder};
use super::{Journal, JournalError, Link, failed, folder};

impl Journal {
    /// Makes links: first the record, then one after the other.
    ///
    /// # Errors
    /// That one could not be made; the record knows of all.
    pub fn link(&mut self, links: &[Link]) -> Result<(), JournalError> {
        if links.is_empty() {
            return Ok(());
        }
        self.record.made |= folder::make(&self.at(&self.folder)).map_err(failed("make", &self.folder))?;
        self.lock()?;
        if self.read.is_none() {
            self.save()?;
        }
        for link in links {
            self.note_folders(&link.path);
            if !self.record.links.contains(link) {
                self.record.links.push(link.clone());
            }
        }
        self.save()?;
        self.make_folders()?;
        for link in links {
            let at = self.link_at(&link.path).map_err(failed("read", &link.path))?;
            if fs::read_link(&at).is_ok_and(|to| to == link.to) {
                continue;
            }
            symlink(&link.to, &at)
                .and_then(|()| at.parent().map_or(Ok(()), sync_folder))
                .map_err(failed("make the link", &link.path))?;
        }
        Ok(())
    }

    /// The links that are there still, as they were made.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.record.links.iter().filter(|link| self.is_there(link))
    }

    /// Takes them back.
    pub(super) fn unlink(&mut self) -> Result<(), JournalError> {
        for link in self.record.links.iter().filter(|link| self.is_there(link)) {
            let at = self.link_at(&link.path).map_err(failed("read", &link.path))?;
            remove(&at).map_err(failed("remove the link", &link.path))?;
        }
        self.record.links.clear();
        Ok(())
    }

    fn is_there(&self, link: &Link) -> bool {
        self.link_at(&link.path).and_then(fs::read_link).is_ok_and(|to| to == link.to)
    }

    /// Where a link itself is, not what it leads to.
    fn link_at(&self, path: &Path) -> io::Result<PathBuf> {
        let folder = real(&self.root, path.parent().unwrap_or(Path::new("/")))?;
        Ok(path.file_name().map_or(folder.clone(), |name| folder.join(name)))
    }
}
