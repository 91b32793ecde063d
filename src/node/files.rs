//! The configuration files of a node, as they lie beneath a root: the node's own, or where an image or a host is mounted.
//!
//! A path inside a file, and each path that is given out, is one of the node itself; the root is put in front of it only
//! where the disk is asked.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::containerd::{File, import_patterns};

/// No configuration imports more files than this.
const MOST_FILES: usize = 256;

/// No configuration is longer than this, in bytes.
const LONGEST: u64 = 4 << 20;

/// Where a path of the node is, seen from here.
pub fn beneath(root: &Path, path: &Path) -> PathBuf {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
    parts.fold(root.to_owned(), |at, part| at.join(part))
}

/// Where a file of the node is, seen from here: at the end of the links that its name and its folders may be, each of
/// which leads to a place of the node.
///
/// # Errors
/// That a link cannot be read, or that there are too many.
pub fn real(root: &Path, path: &Path) -> io::Result<PathBuf> {
    const MOST_LINKS: usize = 16;
    let mut at = root.to_owned();
    let mut parts: VecDeque<OsString> = parts_of(path);
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        if part == ".." {
            if at != root {
                at.pop();
            }
            continue;
        }
        let next = at.join(&part);
        match fs::read_link(&next) {
            Ok(to) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many links"));
                }
                if to.is_absolute() {
                    root.clone_into(&mut at);
                }
                let mut before = parts_of(&to);
                before.append(&mut parts);
                parts = before;
            }
            // Not a link, or not there.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || absent(&error) => at = next,
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// The same; where a link leads nowhere, the place where that is found out.
pub fn seen(root: &Path, path: &Path) -> PathBuf {
    real(root, path).unwrap_or_else(|_| beneath(root, path))
}

/// The names on a path, and its steps upwards.
fn parts_of(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

/// The text of a file, or none where there is no such file.
///
/// # Errors
/// That it cannot be read, or is no text.
pub fn text(root: &Path, path: &Path) -> io::Result<Option<String>> {
    // What leads in a circle is only read, never written: the system says what is wrong with it, if it sees it so too.
    let at = seen(root, path);
    match fs::metadata(&at) {
        Ok(found) if found.len() > LONGEST => {
            let problem = format!("{} has more than {LONGEST} bytes", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        Ok(_) => {}
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    match fs::read_to_string(at) {
        Ok(text) => Ok(Some(text)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A containerd's configuration with all that it imports, in the order in which containerd reads them. Empty where
/// there is no such file.
///
/// # Errors
/// That one of them cannot be read.
pub fn configuration(root: &Path, path: &Path) -> io::Result<Vec<File>> {
    let mut files: Vec<File> = Vec::new();
    let mut seen = HashSet::new();
    let mut pending = VecDeque::from([path.to_owned()]);
    while let Some(path) = pending.pop_front() {
        if files.len() >= MOST_FILES || !seen.insert(path.clone()) {
            continue;
        }
        let Some(text) = text(root, &path)? else { continue };
        for pattern in import_patterns(&path, &text) {
            pending.extend(matching(root, &pattern));
        }
        files.push(File { path, text });
    }
    Ok(files)
}

/// The node's paths that a pattern stands for, in the order of their names.
pub fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    if !pattern.contains('*') {
        return vec![PathBuf::from(pattern)];
    }
    // The root itself is no pattern.
    let own = glob::Pattern::escape(&root.to_string_lossy());
    let whole = format!("{}/{}", own.trim_end_matches('/'), pattern.trim_start_matches('/'));
    let Ok(found) = glob::glob(&whole) else { return Vec::new() };
    let named = found.flatten().filter_map(|path| Some(Path::new("/").join(path.strip_prefix(root).ok()?)));
    named.take(MOST_FILES).collect()
}

/// Whether that means that there is no such file.
pub fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_beneath_the_root() {
        assert_eq!(beneath(Path::new("/host"), Path::new("/etc/x")), Path::new("/host/etc/x"));
        assert_eq!(beneath(Path::new("/"), Path::new("/etc/x")), Path::new("/etc/x"));
        assert_eq!(beneath(Path::new("/host"), Path::new("/../etc/x")), Path::new("/host/etc/x"));
    }

    #[test]
    fn links_lead_to_places_beneath_the_root() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("srv/conf")).unwrap();
        fs::create_dir_all(at("etc")).unwrap();
        symlink("/srv/conf", at("etc/containerd")).unwrap();
        symlink("../../../../srv/conf/x", at("srv/conf/up")).unwrap();
        symlink("loop", at("srv/loop")).unwrap();
        let real = |path: &str| real(root.path(), Path::new(path));
        assert_eq!(real("/etc/containerd/config.toml").unwrap(), at("srv/conf/config.toml"));
        assert_eq!(real("/etc/containerd/new/folder/x").unwrap(), at("srv/conf/new/folder/x"));
        assert_eq!(real("/etc/containerd/up").unwrap(), at("srv/conf/x"));
        assert_eq!(real("/../etc/y").unwrap(), at("etc/y"));
        assert!(real("/srv/loop").is_err());
    }

    #[test]
    fn what_is_imported_is_read_in_order_and_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/containerd/conf.d");
        fs::create_dir_all(&folder).unwrap();
        let main = "imports = [\"conf.d/*.toml\", \"/etc/containerd/config.toml\", \"/missing.toml\"]\n";
        fs::write(root.path().join("etc/containerd/config.toml"), main).unwrap();
        fs::write(folder.join("b.toml"), "version = 2\n").unwrap();
        fs::write(folder.join("a.toml"), "imports = [\"../conf.d/b.toml\"]\n").unwrap();
        let files = configuration(root.path(), Path::new("/etc/containerd/config.toml")).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        let expected =
            ["/etc/containerd/config.toml", "/etc/containerd/conf.d/a.toml", "/etc/containerd/conf.d/b.toml"];
        assert_eq!(names, expected);
        assert!(configuration(root.path(), Path::new("/nowhere.toml")).unwrap().is_empty());
    }
}
