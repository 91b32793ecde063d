//! What was changed on a node, kept so that it can be taken back byte for byte.
//!
//! A folder holds the record and, for each file that was changed, a copy of what it was and of what was written.
//! All of that is durable before the first file is touched, so that a run which was cut short can be finished or taken
//! back by the next one: each file is then as it was, as it was written, or neither, and the last means that somebody else
//! changed it since. Such a change is never lost: it is carried over where that can be done line by line, and otherwise
//! the file is left alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::{absent, beneath, real};
use super::takeout::without;

/// The record's file in its folder.
const RECORD: &str = "journal.json";

/// The mode of a file that is made.
const NEW_FILE: u32 = 0o644;

/// A file's new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path on the node.
    pub path: PathBuf,
    /// What it has now; none where there is no such file.
    pub before: Option<String>,
    /// What it is to have.
    pub after: String,
}

/// What happens to a file when it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// Its path on the node.
    pub path: PathBuf,
    /// What it has now; none where there is no such file.
    pub now: Option<Vec<u8>>,
    /// What it will have; none where it will be removed.
    pub then: Option<Vec<u8>>,
    /// Whether somebody changed it since, which is carried over.
    pub merged: bool,
}

/// A file that somebody changed since, so that it cannot be taken back without losing that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its path on the node.
    pub path: PathBuf,
    /// What was written.
    pub written: Vec<u8>,
    /// What it has now; none where it was removed.
    pub now: Option<Vec<u8>>,
}

/// A content store that was put in the place of a containerd's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Swap {
    /// The name that it has in Tidehold's configuration.
    pub containerd: String,
    /// Where that containerd keeps things.
    pub root: PathBuf,
    /// The hold.
    pub data_dir: PathBuf,
}

/// Why the journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or folder could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// In a few words.
        doing: &'static str,
        /// The path on the node.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record is not one.
    #[error("{} is damaged ({source}): the originals are beside it, put them back by hand", path.display())]
    Damaged {
        /// The path on the node.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file was changed by others since, and what they changed is what is to be written anew.
    #[error(
        "{} was changed since the last setup, too near to what that wrote: run tidehold setup --undo first",
        .0.display()
    )]
    Changed(PathBuf),
    /// A file is not what it was when the changes were shown.
    #[error("{} has changed this very moment: run this again", .0.display())]
    Moved(PathBuf),
    /// Another run has it.
    #[error("another tidehold setup is running")]
    Busy,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    entries: Vec<Entry>,
    /// The folders that were made, the outer ones first.
    folders: Vec<PathBuf>,
    swaps: BTreeSet<Swap>,
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
}

impl Journal {
    /// Opens the one in a folder of the node; there may be none yet.
    ///
    /// # Errors
    /// That it cannot be read.
    pub fn open(root: &Path, folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join(RECORD);
        let record = match fs::read(beneath(root, &path)) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| JournalError::Damaged { path, source })?
            }
            Err(error) if absent(&error) => Record::default(),
            Err(source) => return Err(JournalError::Io { doing: "read", path, source }),
        };
        Ok(Self { root: root.to_owned(), folder: folder.to_owned(), record })
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.record.entries.is_empty()
    }

    /// The content stores that were swapped.
    pub fn swaps(&self) -> impl Iterator<Item = &Swap> {
        self.record.swaps.iter()
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
        let folder = self.at(&self.folder);
        fs::create_dir_all(&folder).map_err(failed("make", &self.folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(failed("make", &self.folder))?;
        let lock = File::open(&folder).map_err(failed("open", &self.folder))?;
        lock.try_lock().map_err(|_| JournalError::Busy)?;
        for change in changes {
            self.note(change)?;
        }
        self.record.swaps.extend(swap);
        self.save()?;
        for folder in &self.record.folders {
            fs::create_dir_all(self.at(folder)).map_err(failed("make", folder))?;
        }
        for change in changes {
            let entry = self.record.entries.iter().find(|entry| entry.path == change.path);
            let rights = entry.and_then(|entry| entry.original.as_ref());
            let at = real(&self.root, &change.path).map_err(failed("read", &change.path))?;
            write(&at, change.after.as_bytes(), rights, false).map_err(failed("write", &change.path))?;
        }
        Ok(())
    }

    /// What taking everything back would do, and which files stand against it. With `force` these are taken back too, and
    /// what they had is kept beside them.
    ///
    /// # Errors
    /// That a file cannot be read.
    pub fn undo_plan(&self, force: bool) -> Result<(Vec<Restoration>, Vec<Conflict>), JournalError> {
        let (mut restorations, mut conflicts) = (Vec::new(), Vec::new());
        for entry in &self.record.entries {
            let now = self.now(&entry.path)?;
            let original = self.original(entry)?;
            if now == original {
                continue;
            }
            let path = entry.path.clone();
            let ours = now.as_ref().is_some_and(|now| entry.written.contains(&hash(now)));
            let merged =
                if ours { None } else { self.without_ours(entry, now.as_deref(), original.as_deref())? };
            match merged {
                Some(then) if then == now => {}
                Some(then) => restorations.push(Restoration { path, now, then, merged: true }),
                None if ours || force => {
                    restorations.push(Restoration { path, now, then: original, merged: false });
                }
                None => conflicts.push(Conflict { path, written: self.written(entry)?, now }),
            }
        }
        Ok((restorations, conflicts))
    }

    /// Takes everything back, and then the record itself.
    ///
    /// # Errors
    /// That a file could not be written. What was done till then is found done by the next run.
    pub fn undo(self, restorations: &[Restoration], force: bool) -> Result<(), JournalError> {
        for restoration in restorations {
            let path = &restoration.path;
            if self.now(path)? != restoration.now {
                return Err(JournalError::Moved(path.clone()));
            }
            let entry = self.record.entries.iter().find(|entry| entry.path == *path);
            let at = real(&self.root, path).map_err(failed("read", path))?;
            let ours = |now: &Vec<u8>| entry.is_some_and(|entry| entry.written.contains(&hash(now)));
            if let Some(now) =
                restoration.now.as_ref().filter(|now| force && !restoration.merged && !ours(now))
            {
                write(&beside(&at, ".changed"), now, None, false).map_err(failed("write", path))?;
            }
            let rights = entry.and_then(|entry| entry.original.as_ref());
            match &restoration.then {
                Some(then) => {
                    write(&at, then, rights, !restoration.merged).map_err(failed("write", path))?;
                }
                None => remove(&at).map_err(failed("remove", path))?,
            }
        }
        for entry in &self.record.entries {
            let at = real(&self.root, &entry.path).map_err(failed("read", &entry.path))?;
            // Of a run that was cut short.
            remove(&beside(&at, NEW)).map_err(failed("remove", &entry.path))?;
        }
        for folder in self.record.folders.iter().rev() {
            match fs::remove_dir(self.at(folder)) {
                Ok(()) => {}
                // Somebody uses it by now.
                Err(error) if absent(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(source) => {
                    return Err(JournalError::Io { doing: "remove", path: folder.clone(), source });
                }
            }
        }
        let record = self.folder.join(RECORD);
        remove(&self.at(&record)).map_err(failed("remove", &record))?;
        fs::remove_dir_all(self.at(&self.folder)).map_err(failed("remove", &self.folder))
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
                self.keep(&copy_name("original", entry.copy), now)?;
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
                    self.keep(&copy_name("original", entry.copy), &merged)?;
                }
            }
        }
        self.keep(&copy_name("written", entry.copy), change.after.as_bytes())?;
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

    /// What a file is once what was written to it is taken out and what others changed since stays; none where the two are
    /// too near to each other. The inner none is a file that was removed and is to stay so.
    fn without_ours(
        &self,
        entry: &Entry,
        now: Option<&[u8]>,
        original: Option<&[u8]>,
    ) -> Result<Option<Option<Vec<u8>>>, JournalError> {
        let Some(now) = now else {
            // Removed by others: where it was not there before, that is as it was.
            return Ok(original.is_none().then_some(None));
        };
        let written = self.written(entry)?;
        let texts = [&written, now, original.unwrap_or_default()].map(|bytes| str::from_utf8(bytes).ok());
        let [Some(written), Some(now), Some(original)] = texts else { return Ok(None) };
        let Some(merged) = without(written, now, original) else { return Ok(None) };
        let is_toml = |text: &str| text.parse::<toml::Table>().is_ok();
        if entry.path.extension().is_some_and(|kind| kind == "toml") && is_toml(now) && !is_toml(&merged) {
            return Ok(None);
        }
        Ok(Some((!merged.trim().is_empty() || entry.original.is_some()).then(|| merged.into_bytes())))
    }

    fn save(&self) -> Result<(), JournalError> {
        let path = self.folder.join(RECORD);
        let bytes = serde_json::to_vec_pretty(&self.record)
            .map_err(|source| JournalError::Damaged { path: path.clone(), source })?;
        self.keep(RECORD, &bytes)?;
        // The folder's own name is durable too.
        let above = self.at(&self.folder).parent().map(Path::to_owned);
        above.map_or(Ok(()), |above| sync_folder(&above)).map_err(failed("sync", &path))
    }

    /// Writes a file of the journal's own.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let path = self.folder.join(name);
        write(&self.at(&path), bytes, None, false).map_err(failed("write", &path))
    }

    fn original(&self, entry: &Entry) -> Result<Option<Vec<u8>>, JournalError> {
        if entry.original.is_none() {
            return Ok(None);
        }
        self.kept(&copy_name("original", entry.copy)).map(Some)
    }

    fn written(&self, entry: &Entry) -> Result<Vec<u8>, JournalError> {
        self.kept(&copy_name("written", entry.copy))
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
        beneath(&self.root, path)
    }
}

/// What a file is called while it is written.
const NEW: &str = ".tidehold-new";

/// Writes a file whole or not at all, durably, with the rights it had. A new one is readable by all.
fn write(at: &Path, bytes: &[u8], rights: Option<&Original>, dated: bool) -> io::Result<()> {
    let new = beside(at, NEW);
    remove(&new)?;
    let mut file = File::options().write(true).create_new(true).open(&new)?;
    file.write_all(bytes)?;
    if let Some(rights) = rights {
        chown(&new, Some(rights.uid), Some(rights.gid))?;
    }
    file.set_permissions(Permissions::from_mode(rights.map_or(NEW_FILE, |rights| rights.mode)))?;
    if let Some(rights) = rights.filter(|_| dated) {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(rights.modified))?;
    }
    file.sync_all()?;
    fs::rename(&new, at)?;
    at.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The path with something added to its name.
fn beside(at: &Path, ending: &str) -> PathBuf {
    let mut name = at.file_name().map(OsString::from).unwrap_or_default();
    name.push(ending);
    at.with_file_name(name)
}

fn remove(at: &Path) -> io::Result<()> {
    match fs::remove_file(at) {
        Ok(()) => at.parent().map_or(Ok(()), sync_folder),
        Err(error) if absent(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn copy_name(kind: &str, copy: u32) -> String {
    format!("{copy}.{kind}")
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
