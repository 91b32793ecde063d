//! What was changed on a node, kept so that it can be taken back byte for byte.
//!
//! A folder holds the record and, for each file that was changed, a copy of what it was and of what was written.
//! All of that is durable before the first file is touched, so that a run which was cut short can be finished or taken
//! back by the next one: each file is then as it was, as it was written, or neither, and the last means that somebody else
//! changed it since. Such a change is never lost: it is carried over where that can be done line by line, and otherwise
//! the file is left alone.
//!
//! Once the files are restored, the record still names each content store that was swapped until its containerd was
//! seen without it. The folder may be somebody else's: nothing in it is touched but what was put there.

mod folder;
mod links;
mod parts;
mod undo;
mod write;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::{absent, real, seen};
use folder::{Lock, ORIGINAL, RECORD, WRITTEN, copy_name};
pub use parts::{Change, Conflict, Debt, JournalError, Link, Restoration, Swap};
use write::{NEW_FILE, OWN_FILE, sync_folder, write};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    entries: Vec<Entry>,
    /// The folders that were made, the outer ones first.
    folders: Vec<PathBuf>,
    /// The links that were made.
    #[serde(default)]
    links: Vec<Link>,
    swaps: BTreeSet<Swap>,
    /// The swaps of which the files are restored, and whose containerds may still run on the hold.
    #[serde(default)]
    leaving: BTreeSet<Swap>,
    /// Whether units of systemd were among the files that are restored.
    #[serde(default)]
    had_units: bool,
    /// The restart that containerd is owed since its files were written.
    #[serde(default)]
    debt: Option<Debt>,
    /// Whether the folder was made for this.
    #[serde(default)]
    made: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    original: Option<Original>,
    /// The hashes of all that was written to it, the last one last.
    written: Vec<String>,
    /// The names of the copies in the folder.
    copy: u32,
}

/// A file's rights and times.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Original {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Since 1970, in nanoseconds.
    modified: u64,
}

/// The journal of a node.
#[derive(Debug)]
pub struct Journal {
    root: PathBuf,
    folder: PathBuf,
    record: Record,
    /// The record's file as it was read.
    read: Option<Vec<u8>>,
    /// Held from the first change on.
    lock: Option<Lock>,
}

impl Journal {
    /// Opens the one in a folder of the node; there may be none yet. Others may change it until it is locked.
    ///
    /// # Errors
    /// That it cannot be read.
    pub fn open(root: &Path, folder: &Path) -> Result<Self, JournalError> {
        let (root, folder) = (root.to_owned(), folder.to_owned());
        let mut journal = Self { root, folder, record: Record::default(), read: None, lock: None };
        journal.read = journal.read_record()?;
        if let Some(bytes) = &journal.read {
            let path = journal.folder.join(RECORD);
            journal.record =
                serde_json::from_slice(bytes).map_err(|source| JournalError::Damaged { path, source })?;
        }
        Ok(journal)
    }

    /// Keeps every other run out from before it is known whether there is anything to change. Where nothing comes of it, the
    /// folder that this takes goes again.
    ///
    /// # Errors
    /// That another one has it, or has changed it since it was opened; that the folder cannot be made.
    pub fn begin(&mut self) -> Result<(), JournalError> {
        self.record.made |= folder::make(&self.at(&self.folder)).map_err(failed("make", &self.folder))?;
        self.lock()?;
        // Whoever had it has just ended.
        if self.lock.is_some() { Ok(()) } else { Err(JournalError::Stale) }
    }

    /// Keeps every other run out until this one has ended.
    ///
    /// # Errors
    /// That another one has it, or has changed it since it was opened.
    pub fn lock(&mut self) -> Result<(), JournalError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let at = self.at(&self.folder);
        let lock = match File::open(&at) {
            Ok(lock) => lock,
            Err(error) if absent(&error) && self.read.is_none() => return Ok(()),
            Err(error) if absent(&error) => return Err(JournalError::Stale),
            Err(error) => return Err(failed("open", &self.folder)(error)),
        };
        lock.try_lock().map_err(|_| JournalError::Busy)?;
        // The one that was locked may have been removed just before.
        let same = |there: fs::Metadata| lock.metadata().is_ok_and(|own| own.ino() == there.ino());
        if !fs::metadata(&at).is_ok_and(same) || self.read_record()? != self.read {
            return Err(JournalError::Stale);
        }
        self.lock = Some(Lock(lock));
        Ok(())
    }

    /// Whether nothing is left to be taken back.
    pub fn is_empty(&self) -> bool {
        let record = &self.record;
        record.entries.is_empty() && record.links.is_empty() && record.leaving.is_empty() && !record.had_units
    }

    /// Whether the files are restored, and only what runs is left: containerds on the hold, and units.
    pub fn is_restored(&self) -> bool {
        self.record.entries.is_empty() && self.record.links.is_empty() && !self.is_empty()
    }

    /// When something was last changed.
    pub fn changed(&self) -> Option<SystemTime> {
        fs::metadata(self.at(&self.folder.join(RECORD))).ok()?.modified().ok()
    }

    /// The content stores that were swapped.
    pub fn swaps(&self) -> impl Iterator<Item = &Swap> {
        self.record.swaps.union(&self.record.leaving)
    }

    /// Whether units of systemd were among the files that are restored.
    pub fn had_units(&self) -> bool {
        self.record.had_units
    }

    /// The restart that containerd is owed, as far as is known here.
    pub fn debt(&self) -> Option<Debt> {
        self.record.debt
    }

    /// Has the next change leave containerd with such a restart owed: it is recorded before the first file is touched.
    pub fn owe(&mut self, debt: Debt) {
        self.record.debt = Some(debt);
    }

    /// Forgets it, once containerd was started since.
    ///
    /// # Errors
    /// That the record could not be written.
    pub fn settle(&mut self) -> Result<(), JournalError> {
        match self.record.debt.take() {
            None => Ok(()),
            Some(_) => self.lock().and_then(|()| self.save()),
        }
    }

    /// The files that were changed.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.record.entries.iter().map(|entry| entry.path.as_path())
    }

    /// Changes files: first the record, then one file after the other, each at once or not at all.
    ///
    /// # Errors
    /// That a file could not be written; those before it are, and the record knows of all.
    pub fn apply(&mut self, changes: &[Change], swap: Option<Swap>) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.record.made |= folder::make(&self.at(&self.folder)).map_err(failed("make", &self.folder))?;
        self.lock()?;
        if self.read.is_none() {
            // So that whoever takes this back knows whose the folder is.
            self.save()?;
        }
        for change in changes {
            self.note(change)?;
        }
        if let Some(swap) = swap {
            let other = |known: &Swap| known.containerd != swap.containerd;
            self.record.leaving.retain(other);
            self.record.swaps.retain(other);
            self.record.swaps.insert(swap);
        }
        self.save()?;
        self.make_folders()?;
        for change in changes {
            let entry = self.record.entries.iter().find(|entry| entry.path == change.path);
            let rights = entry.and_then(|entry| entry.original.as_ref());
            let at = real(&self.root, &change.path).map_err(failed("read", &change.path))?;
            write(&at, change.after.as_bytes(), rights, change.mode.unwrap_or(NEW_FILE), false)
                .map_err(failed("write", &change.path))?;
        }
        Ok(())
    }

    /// Removes the record, and all else that was put into its folder, once nothing is left to be taken back.
    ///
    /// # Errors
    /// That it could not be removed.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.lock()?;
        if self.lock.is_none() {
            return Ok(());
        }
        let folder = self.at(&self.folder);
        let made = self.record.made || folder::is_left(&folder).map_err(failed("read", &self.folder))?;
        folder::clear(&folder, made).map_err(failed("clear", &self.folder))
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, JournalError> {
        let path = self.folder.join(RECORD);
        match fs::read(self.at(&path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if absent(&error) => Ok(None),
            Err(source) => Err(JournalError::Io { doing: "read", path, source }),
        }
    }

    /// Enters a change into the record, with copies of what the file was and will be.
    fn note(&mut self, change: &Change) -> Result<(), JournalError> {
        let now = self.now(&change.path)?;
        if now.as_deref() != change.before.as_deref().map(str::as_bytes) {
            return Err(JournalError::Moved(change.path.clone()));
        }
        let known = self.record.entries.iter().position(|entry| entry.path == change.path);
        let mut entry = match known {
            Some(index) => self.record.entries.swap_remove(index),
            None => Entry {
                path: change.path.clone(),
                original: self.rights(&change.path)?,
                written: Vec::new(),
                copy: self.record.entries.iter().map(|entry| entry.copy + 1).max().unwrap_or(0),
            },
        };
        if known.is_none() {
            if let Some(now) = &now {
                self.keep(&copy_name(ORIGINAL, entry.copy), now)?;
            }
            self.note_folders(&change.path);
        } else {
            let original = self.original(&entry)?;
            let ours = now.as_ref().is_some_and(|now| entry.written.contains(&hash(now)));
            if now != original && !ours {
                // What others changed since is theirs, and belongs to what will be restored.
                let merged = self.without_ours(&entry, now.as_deref(), original.as_deref())?;
                let Some(merged) = merged else { return Err(JournalError::Changed(change.path.clone())) };
                if let Some(merged) = merged {
                    entry.original = match entry.original {
                        Some(rights) => Some(rights),
                        None => self.rights(&change.path)?,
                    };
                    self.keep(&copy_name(ORIGINAL, entry.copy), &merged)?;
                }
            }
        }
        self.keep(&copy_name(WRITTEN, entry.copy), change.after.as_bytes())?;
        entry.written.push(hash(change.after.as_bytes()));
        self.record.entries.push(entry);
        Ok(())
    }

    /// The folders that have to be made for a file.
    fn note_folders(&mut self, path: &Path) {
        let missing = path.ancestors().skip(1).take_while(|folder| !self.at(folder).exists());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        missing.retain(|folder| !self.record.folders.contains(folder));
        self.record.folders.extend(missing.into_iter().rev());
    }

    fn make_folders(&self) -> Result<(), JournalError> {
        let make = |folder: &PathBuf| fs::create_dir_all(self.at(folder)).map_err(failed("make", folder));
        self.record.folders.iter().try_for_each(make)
    }

    fn save(&mut self) -> Result<(), JournalError> {
        let path = self.folder.join(RECORD);
        let bytes = serde_json::to_vec_pretty(&self.record)
            .map_err(|source| JournalError::Damaged { path: path.clone(), source })?;
        self.keep(RECORD, &bytes)?;
        self.read = Some(bytes);
        // The folder's own name is durable too.
        let above = self.at(&self.folder).parent().map(Path::to_owned);
        above.map_or(Ok(()), |above| sync_folder(&above)).map_err(failed("sync", &path))
    }

    /// Writes a file of the journal's own.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let path = self.folder.join(name);
        write(&self.at(&path), bytes, None, OWN_FILE, false).map_err(failed("write", &path))
    }

    fn original(&self, entry: &Entry) -> Result<Option<Vec<u8>>, JournalError> {
        if entry.original.is_none() {
            return Ok(None);
        }
        self.kept(&copy_name(ORIGINAL, entry.copy)).map(Some)
    }

    fn written(&self, entry: &Entry) -> Result<Vec<u8>, JournalError> {
        self.kept(&copy_name(WRITTEN, entry.copy))
    }

    fn kept(&self, name: &str) -> Result<Vec<u8>, JournalError> {
        let path = self.folder.join(name);
        fs::read(self.at(&path)).map_err(failed("read", &path))
    }

    fn now(&self, path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
        let at = real(&self.root, path).map_err(failed("read", path))?;
        match fs::read(at) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if absent(&error) => Ok(None),
            Err(source) => Err(JournalError::Io { doing: "read", path: path.to_owned(), source }),
        }
    }

    fn rights(&self, path: &Path) -> Result<Option<Original>, JournalError> {
        let at = real(&self.root, path).map_err(failed("read", path))?;
        match fs::metadata(at) {
            Ok(found) => Ok(Some(Original {
                mode: found.mode() & 0o7777,
                uid: found.uid(),
                gid: found.gid(),
                modified: u64::try_from(found.mtime()).unwrap_or(0) * 1_000_000_000
                    + u64::try_from(found.mtime_nsec()).unwrap_or(0),
            })),
            Err(error) if absent(&error) => Ok(None),
            Err(source) => Err(JournalError::Io { doing: "read", path: path.to_owned(), source }),
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        seen(&self.root, path)
    }

    /// What was last written to a file, where that is text.
    ///
    /// # Errors
    /// That the copy cannot be read.
    pub fn last_written(&self, path: &Path) -> Result<Option<String>, JournalError> {
        let entry = self.record.entries.iter().find(|entry| entry.path == path);
        let written = entry.map(|entry| self.written(entry)).transpose()?;
        Ok(written.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Whether a file is just as it was written here.
    pub fn wrote(&self, path: &Path) -> bool {
        let entry = self.record.entries.iter().find(|entry| entry.path == path);
        let now = self.now(path).ok().flatten();
        entry.zip(now).is_some_and(|(entry, now)| entry.written.contains(&hash(&now)))
    }
}

/// Takes the folder along that was made for a run of which nothing was recorded.
impl Drop for Journal {
    fn drop(&mut self) {
        if self.lock.is_some() && self.read.is_none() && self.record.made {
            // One that holds something is left, and is found as the rest of a run that was cut short.
            let _ = fs::remove_dir(self.at(&self.folder));
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { doing, path: path.clone(), source }
}

#[cfg(test)]
mod tests;
