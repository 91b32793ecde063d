//! The journal's folder: made for its owner's eyes alone, and gone again with all that was put into it.
//!
//! One that others have made stays, with what is theirs in it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use super::write::{NEW, remove};
use crate::node::files::absent;

/// The record's file.
pub(super) const RECORD: &str = "journal.json";

/// The kinds of copies.
pub(super) const ORIGINAL: &str = "original";
pub(super) const WRITTEN: &str = "written";

const MODE: u32 = 0o700;

/// The lock on it. Dropping it sets it free at once: a program that another thread starts has a copy of the file until it has
/// come to itself, and closing ours alone would leave it locked until then.
#[derive(Debug)]
pub(super) struct Lock(pub(super) File);

impl Drop for Lock {
    fn drop(&mut self) {
        // It goes with its last copy then.
        let _ = self.0.unlock();
    }
}

/// Makes it, and answers whether it is of this journal's making; one that is there stays as it is.
pub(super) fn make(folder: &Path) -> io::Result<bool> {
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(MODE).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_left(folder),
        Err(error) => Err(error),
    }
}

/// Whether a run that was cut short before its record has left it: it is as they are made, and nothing of others is in it.
pub(super) fn is_left(folder: &Path) -> io::Result<bool> {
    let about = fs::metadata(folder)?;
    let as_made =
        about.is_dir() && about.mode() & 0o7777 == MODE && about.uid() == rustix::process::geteuid().as_raw();
    Ok(as_made && names(folder)?.iter().all(|name| is_own(name) && name != RECORD))
}

/// Removes what was put into it, and the folder as well where it is of this journal's making and nothing else is in it.
pub(super) fn clear(folder: &Path, made: bool) -> io::Result<()> {
    // The record is the last, so that a run which is cut short here is gone on with.
    let (record, others): (Vec<_>, Vec<_>) =
        names(folder)?.into_iter().filter(|name| is_own(name)).partition(|name| name == RECORD);
    for name in others.into_iter().chain(record) {
        remove(&folder.join(name))?;
    }
    if !made {
        return Ok(());
    }
    match fs::remove_dir(folder) {
        Err(error) if !absent(&error) && error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn copy_name(kind: &str, copy: u32) -> String {
    format!("{copy}.{kind}")
}

/// Names that are no text are others'.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Whether a name in the folder is one that is given here.
fn is_own(name: &str) -> bool {
    let name = name.strip_suffix(NEW).unwrap_or(name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let copy = name.split_once('.').filter(|(number, _)| is_number(number));
    name == RECORD || copy.is_some_and(|(_, kind)| kind == ORIGINAL || kind == WRITTEN)
}
