//! Whether every place can be written, before the first of them is: a run that finds that out half-way leaves a node that is
//! neither set up nor as it was.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use tidehold::node::files::real;

use super::super::Failed;
use super::Setup;

/// That files at these paths, and files in those that are folders, can be made, replaced and removed; `so` says what is so
/// where one cannot.
pub(super) fn all<'p>(
    setup: &Setup,
    paths: impl IntoIterator<Item = &'p Path>,
    so: &str,
) -> Result<(), Failed> {
    match paths.into_iter().find_map(|path| denied(&setup.root, path)) {
        None => Ok(()),
        Some((at, errno)) => Err(anyhow!("{}; {so}", told(&at, errno)).into()),
    }
}

/// The files that a journal writes for itself.
pub(super) fn journal(setup: &Setup) -> PathBuf {
    setup.journal.join("journal.json")
}

/// What stands against it. A file is replaced by another one beside it, and a folder may have to be made first.
fn denied(root: &Path, path: &Path) -> Option<(PathBuf, Errno)> {
    // One that leads nowhere is told of by whoever reads it.
    let at = real(root, path).ok()?;
    let is_file = at.exists() && !at.is_dir();
    let folder = at.ancestors().skip(usize::from(is_file)).find(|folder| folder.is_dir())?.to_owned();
    let places = std::iter::once(folder).chain(is_file.then_some(at));
    places.into_iter().find_map(|place| {
        let errno = access(&place, Access::WRITE_OK).err()?;
        Some((place, errno))
    })
}

/// What is wrong with a place, and the mend.
fn told(at: &Path, errno: Errno) -> String {
    let at = at.display();
    match errno {
        Errno::ROFS => format!(
            "{at} is on a file system that is mounted read-only: mount it writable for as long as this takes (findmnt -T {at} \
             names it, and mount -o remount,rw does it), or run this where that system is made"
        ),
        Errno::PERM => {
            format!(
                "{at} must not be changed, as lsattr -d shows: chattr -i {at} ends that, and run this again"
            )
        }
        Errno::ACCESS => format!("{at} is not yours to write: run this as root"),
        other => format!("{at} cannot be written: {other}"),
    }
}
