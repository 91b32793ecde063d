//! That a comparison of two trees sees what it is there to see: each is a change to one of two equal trees.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use libtest_mimic::Failed;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

use crate::tree::{Began, Tree};

/// What is changed, and how the other tree's line then differs.
pub(crate) type Change = (&'static str, fn(&Path), &'static str);

pub(crate) const CHANGES: &[Change] = &[
    (
        "a mode",
        |root| fs::set_permissions(root.join("file"), Permissions::from_mode(0o4755)).unwrap(),
        "4755",
    ),
    ("an owner", |root| chown(root.join("file"), Some(7), None).unwrap(), "7:0"),
    (
        "a time, by a nanosecond",
        |root| set_time(&root.join("file"), Duration::new(1, 1)),
        "modified 1.000000001",
    ),
    ("a folder's time", |root| set_time(&root.join("folder"), Duration::new(2, 0)), "modified 2.0"),
    (
        "a content of the same length",
        |root| rewritten(&root.join("file"), "DATA"),
        "file of 4 bytes c97c29c7",
    ),
    ("an xattr", |root| put_xattr(&root.join("file"), "user.x"), "user.x=value"),
    (
        "an xattr of overlay's",
        |root| put_xattr(&root.join("folder"), "trusted.overlay.opaque"),
        "opaque=value",
    ),
    (
        "a hard link",
        |root| fs::hard_link(root.join("file"), root.join("folder/twin")).unwrap(),
        "one of 2 names of",
    ),
    ("a hard link to what is not in the tree", hard_link_out, "one of 2 names of"),
    ("a symlink's target", |root| relinked(root, "elsewhere"), "symlink to elsewhere"),
    ("a file instead of a folder", |root| replaced(&root.join("folder")), "file of 0 bytes"),
    ("something that is gone", |root| fs::remove_file(root.join("file")).unwrap(), "only in containerd's"),
    ("something more", |root| fs::write(root.join("more"), "").unwrap(), "only in tidehold's"),
    ("a device's number", |root| device(root, 4), "device c 1:4"),
];

/// Makes the change and looks for it.
pub(crate) fn is_seen((_, change, expected): &Change) -> Result<(), Failed> {
    let began = Began::now();
    let read = |change: Option<&fn(&Path)>| {
        let folder = tempfile::Builder::new().prefix("tidehold-trees-").tempdir().unwrap();
        let root = folder.path().join("root");
        furnish(&root);
        if let Some(change) = change {
            change(&root);
        }
        Tree::read(&root, began)
    };
    let same = read(None).differences(&read(None));
    if !same.is_empty() {
        return Err(format!("equal trees differ:\n{same}").into());
    }
    let seen = read(None).differences(&read(Some(change)));
    if seen.contains(expected) { Ok(()) } else { Err(format!("{expected:?} is not in:\n{seen}").into()) }
}

fn furnish(root: &Path) {
    fs::create_dir_all(root.join("folder")).unwrap();
    fs::write(root.join("file"), "data").unwrap();
    symlink("target", root.join("link")).unwrap();
    mknod(root, 3);
    set_time(&root.join("file"), Duration::new(1, 0));
    set_time(&root.join("folder"), Duration::new(1, 0));
}

fn set_time(path: &Path, since: Duration) {
    let then = SystemTime::UNIX_EPOCH + since;
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
}

fn rewritten(path: &Path, data: &str) {
    fs::write(path, data).unwrap();
    set_time(path, Duration::new(1, 0));
}

fn put_xattr(path: &Path, name: &str) {
    setxattr(path, name, b"value", XattrFlags::empty()).unwrap();
}

fn hard_link_out(root: &Path) {
    fs::hard_link(root.join("file"), root.with_file_name("outside")).unwrap();
}

fn relinked(root: &Path, target: &str) {
    fs::remove_file(root.join("link")).unwrap();
    symlink(target, root.join("link")).unwrap();
}

fn replaced(folder: &Path) {
    fs::remove_dir(folder).unwrap();
    fs::write(folder, "").unwrap();
}

fn device(root: &Path, minor: u32) {
    fs::remove_file(root.join("device")).unwrap();
    mknod(root, minor);
}

fn mknod(root: &Path, minor: u32) {
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, root.join("device"), FileType::CharacterDevice, mode, makedev(1, minor)).unwrap();
}
