//! The configuration files of a node, as they lie beneath a root: the node's own, or where an image or a host is mounted.
//!
//! A path inside a file, and each path that is given out, is one of the node itself; the root is put in front of it only
//! where the disk is asked.

use std::collections::HashSet;
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

/// Where a file of the node is, seen from here: at the end of the links that its name may be.
///
/// # Errors
/// That a link cannot be read, or that there are too many.
pub fn real(root: &Path, path: &Path) -> io::Result<PathBuf> {
    const MOST_LINKS: usize = 16;
    let mut at = beneath(root, path);
    for _ in 0..MOST_LINKS {
        match fs::read_link(&at) {
            Ok(to) if to.is_absolute() => at = beneath(root, &to),
            Ok(to) => at = at.parent().map_or(to.clone(), |folder| folder.join(&to)),
            // Not a link, or not there.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || absent(&error) => return Ok(at),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many links"))
}

/// The text of a file, or none where there is no such file.
///
/// # Errors
/// That it cannot be read, or is no text.
pub fn text(root: &Path, path: &Path) -> io::Result<Option<String>> {
    let at = real(root, path)?;
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
    let mut pending = std::collections::VecDeque::from([path.to_owned()]);
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
