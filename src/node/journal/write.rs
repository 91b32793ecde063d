//! Files that are written whole or not at all, and durably.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Original;
use crate::node::files::absent;

/// The mode of a file that is made.
pub(super) const NEW_FILE: u32 = 0o644;

/// That of a copy: what it is a copy of may hold passwords.
pub(super) const OWN_FILE: u32 = 0o600;

/// What a file is called while it is written.
pub(super) const NEW: &str = ".tidehold-new";

/// Writes a file whole or not at all, durably, with the rights it had; a new one with this mode.
pub(super) fn write(
    at: &Path,
    bytes: &[u8],
    rights: Option<&Original>,
    mode: u32,
    dated: bool,
) -> io::Result<()> {
    let new = beside(at, NEW);
    remove(&new)?;
    let mut file = make(&new)?;
    file.write_all(bytes)?;
    if let Some(rights) = rights {
        chown(&new, Some(rights.uid), Some(rights.gid))?;
    }
    file.set_permissions(Permissions::from_mode(rights.map_or(mode, |rights| rights.mode)))?;
    if let Some(rights) = rights.filter(|_| dated) {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(rights.modified))?;
    }
    file.sync_all()?;
    fs::rename(&new, at)?;
    at.parent().map_or(Ok(()), sync_folder)
}

/// Makes a file that nobody else may look into while it is written.
fn make(at: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(OWN_FILE).open(at)
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The path with something added to its name.
pub(super) fn beside(at: &Path, ending: &str) -> PathBuf {
    let mut name = at.file_name().map(OsString::from).unwrap_or_default();
    name.push(ending);
    at.with_file_name(name)
}

/// A disk that cannot be written to says so even of a file that is not there: that is looked at first.
pub(super) fn remove(at: &Path) -> io::Result<()> {
    match fs::symlink_metadata(at).and_then(|_| fs::remove_file(at)) {
        Ok(()) => at.parent().map_or(Ok(()), sync_folder),
        Err(error) if absent(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_written_is_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (new, at) = (folder.path().join("new"), folder.path().join("at"));
        let mode = |at: &Path| fs::metadata(at).unwrap().permissions().mode() & 0o7777;
        let made = make(&new).unwrap();
        assert_eq!(mode(&new), 0o600);
        drop(made);
        write(&at, b"x", None, NEW_FILE, false).unwrap();
        assert_eq!(mode(&at), NEW_FILE, "and has its own mode once it is");
    }
}
