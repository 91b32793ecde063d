//! Taking back: each file is as it was before, but for what others have changed in it since, which stays.

use std::fs;
use std::io;

use super::super::files::{absent, real};
use super::super::takeout::without;
use super::write::{NEW, NEW_FILE, beside, remove, write};
use super::{Conflict, Entry, Journal, JournalError, Restoration, failed, hash};

impl Journal {
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

    /// Takes all files back. The record stays, for the containerds that may still run on the hold, until it is closed.
    ///
    /// # Errors
    /// That a file could not be written. What was done till then is found done by the next run.
    pub fn restore(
        &mut self,
        restorations: &[Restoration],
        force: bool,
        had_units: bool,
    ) -> Result<(), JournalError> {
        self.lock()?;
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
                // As secret as it was.
                let rights = self.rights(path)?;
                write(&beside(&at, ".changed"), now, rights.as_ref(), NEW_FILE, false)
                    .map_err(failed("write", path))?;
            }
            let rights = entry.and_then(|entry| entry.original.as_ref());
            match &restoration.then {
                // What somebody has added may be more secret than it was.
                Some(then) if restoration.merged => {
                    let rights = self.rights(path)?;
                    write(&at, then, rights.as_ref(), NEW_FILE, false).map_err(failed("write", path))?;
                }
                Some(then) => {
                    write(&at, then, rights, NEW_FILE, true).map_err(failed("write", path))?;
                }
                None => remove(&at).map_err(failed("remove", path))?,
            }
        }
        for entry in &self.record.entries {
            let at = real(&self.root, &entry.path).map_err(failed("read", &entry.path))?;
            // Of a run that was cut short.
            let new = beside(&entry.path, NEW);
            remove(&beside(&at, NEW)).map_err(failed("remove", &new))?;
        }
        self.unlink()?;
        for folder in self.record.folders.iter().rev() {
            let at = self.at(folder);
            // Of one that was never made a disk that cannot be written to says that, and not that it is not there.
            match fs::symlink_metadata(&at).and_then(|_| fs::remove_dir(&at)) {
                Ok(()) => {}
                // Somebody uses it by now.
                Err(error) if absent(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(source) => {
                    return Err(JournalError::Io { doing: "remove", path: folder.clone(), source });
                }
            }
        }
        let swaps = std::mem::take(&mut self.record.swaps);
        self.record.leaving.extend(swaps);
        self.record.had_units |= had_units;
        self.record.debt = None;
        self.record.folders.clear();
        self.record.entries.clear();
        self.save()
    }

    /// What a file is once what was written to it is taken out and what others changed since stays; none where the two are
    /// too near to each other. The inner none is a file that was removed and is to stay so.
    pub(super) fn without_ours(
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
}
