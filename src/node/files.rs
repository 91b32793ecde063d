//! The configuration files of a node, as they lie beneath a root: the node's own, or where an image or a host is mounted.
//!
//! A path inside a file, and each path that is given out, is one of the node itself; the root is put in front of it only
//! where the disk is asked. A link leads to a place of the node too, wherever the system that we run on would see it: nothing
//! outside the root is ever read.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::containerd::{File, import_patterns};

/// No configuration imports more files than this.
const MOST_FILES: usize = 256;

/// No configuration is longer than this, in bytes.
const LONGEST: u64 = 4 << 20;

/// As many links as the system follows on the way to one file.
const MOST_LINKS: usize = 40;

/// No folder is looked at beyond so many names.
const MOST_FOLDERS: usize = 4096;

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
    resolve(root, path).map_err(|stuck| stuck.why)
}

/// The same; where a link leads nowhere or cannot be read, a place where that is found out.
pub fn seen(root: &Path, path: &Path) -> PathBuf {
    resolve(root, path).unwrap_or_else(|stuck| stuck.at)
}

/// That a path cannot be followed to its end.
struct Stuck {
    why: io::Error,
    /// Where the system fails too. Never outside the root: it may see a link there as one of its own.
    at: PathBuf,
}

fn resolve(root: &Path, path: &Path) -> Result<PathBuf, Stuck> {
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
                    // Nothing is below that, and who looks is told that there is nothing.
                    let nowhere = beneath(Path::new("/dev/null"), path);
                    return Err(Stuck { why: Errno::LOOP.into(), at: nowhere });
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
            Err(why) => return Err(Stuck { why, at: next }),
        }
    }
    Ok(at)
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
    match contents(root, path)? {
        Contents::Bytes(bytes) => {
            let text = String::from_utf8(bytes).map_err(|error| {
                let problem = format!("{} is no text: {}", path.display(), error.utf8_error());
                io::Error::new(io::ErrorKind::InvalidData, problem)
            })?;
            Ok(Some(text))
        }
        Contents::Absent => Ok(None),
        Contents::Other => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file", path.display())))
        }
    }
}

/// The same of what may be no text, for who only looks for something in it: what is no UTF-8 is replaced, and what is no
/// file, such as a folder, a pipe or links in a circle, has nothing.
///
/// # Errors
/// That it cannot be read.
pub fn any_text(root: &Path, path: &Path) -> io::Result<Option<String>> {
    match contents(root, path) {
        Ok(Contents::Bytes(bytes)) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Ok(Contents::Absent | Contents::Other) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is found under a name.
enum Contents {
    Absent,
    /// Something that is no file.
    Other,
    Bytes(Vec<u8>),
}

fn contents(root: &Path, path: &Path) -> io::Result<Contents> {
    let file = match open(root, path) {
        Ok(file) => file,
        Err(error) if absent(&error) => return Ok(Contents::Absent),
        // A socket, or the device of something that is not there.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return Ok(Contents::Other),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if found.file_type().is_char_device() {
        // A unit of systemd may be a link to /dev/null.
        return Ok(Contents::Bytes(Vec::new()));
    }
    if !found.is_file() {
        return Ok(Contents::Other);
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        let problem = format!("{} has more than {LONGEST} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(Contents::Bytes(bytes))
}

/// Opens a file beneath the root, whatever becomes of the links meanwhile. Waits for nobody, whatever it is.
fn open(root: &Path, path: &Path) -> io::Result<fs::File> {
    let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if root == Path::new("/") {
        return Ok(rustix::fs::open(path, how, Mode::empty())?.into());
    }
    let folder = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::openat2(folder, path, how, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => Ok(file.into()),
        // Before Linux 5.6, or where it is forbidden, or somebody moves things about.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            Ok(rustix::fs::open(real(root, path)?, how | OFlags::NOFOLLOW, Mode::empty())?.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// A containerd's configuration with all that it imports, in the order in which containerd reads them. Empty where
/// there is no such file.
///
/// # Errors
/// That one of them cannot be read.
pub fn configuration(root: &Path, path: &Path) -> io::Result<Vec<File>> {
    configuration_by(root, path, text)
}

/// The same of files that may be no text.
///
/// # Errors
/// That one of them cannot be read.
pub fn any_configuration(root: &Path, path: &Path) -> io::Result<Vec<File>> {
    configuration_by(root, path, any_text)
}

fn configuration_by(
    root: &Path,
    path: &Path,
    read: fn(&Path, &Path) -> io::Result<Option<String>>,
) -> io::Result<Vec<File>> {
    let mut files: Vec<File> = Vec::new();
    let mut seen = HashSet::new();
    let mut pending = VecDeque::from([path.to_owned()]);
    while let Some(path) = pending.pop_front() {
        if files.len() >= MOST_FILES || !seen.insert(path.clone()) {
            continue;
        }
        let Some(text) = read(root, &path)? else { continue };
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
    let mut found = vec![PathBuf::from("/")];
    for part in parts_of(Path::new(pattern)) {
        let wanted = part.to_str().filter(|part| part.contains(['*', '?', '['])).map(Pattern::new);
        match wanted {
            None => found.iter_mut().for_each(|path| path.push(&part)),
            Some(Ok(wanted)) => {
                let within = |folder: &PathBuf| names_like(root, folder, &wanted);
                found = found.iter().flat_map(within).take(MOST_FOLDERS).collect();
            }
            Some(Err(_)) => return Vec::new(),
        }
    }
    found.retain(|path| seen(root, path).exists());
    found.truncate(MOST_FILES);
    found
}

/// What is in a folder under such a name.
fn names_like(root: &Path, folder: &Path, wanted: &Pattern) -> Vec<PathBuf> {
    let entries = fs::read_dir(seen(root, folder)).into_iter().flatten().flatten().take(MOST_FOLDERS);
    let names = entries.map(|entry| entry.file_name());
    let mut found: Vec<PathBuf> = names
        .filter(|name| name.to_str().is_some_and(|name| wanted.matches(name)))
        .map(|name| folder.join(name))
        .collect();
    found.sort();
    found
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

    /// Names that are links in a circle beneath a root may lead to a file of the system outside of it.
    #[test]
    fn a_circle_beneath_the_root_does_not_lead_out_of_it() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("x.toml"), "not of the node").unwrap();
        // Each is a link to itself for the node, and to what is outside for the system.
        let within = beneath(&root, &outside);
        fs::create_dir_all(within.parent().unwrap()).unwrap();
        symlink(&outside, &within).unwrap();
        let path = outside.join("x.toml");
        assert_eq!(fs::read_to_string(within.join("x.toml")).unwrap(), "not of the node");

        assert_eq!(text(&root, &path).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(real(&root, &path).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert!(!seen(&root, &path).exists() && !seen(&root, &outside).exists());
        assert!(matching(&root, &format!("{}/*.toml", outside.display())).is_empty());
        // A way up ends at the root.
        symlink("../../../../../../../../../../../../etc/hostname", root.join("up")).unwrap();
        assert_eq!(text(&root, Path::new("/up")).unwrap(), None);
        // As many links as the system follows, and one more.
        fs::write(root.join("0"), "the end").unwrap();
        for link in 1..=41 {
            symlink(format!("/{}", link - 1), root.join(link.to_string())).unwrap();
        }
        assert_eq!(text(&root, Path::new("/40")).unwrap().as_deref(), Some("the end"));
        assert_eq!(real(&root, Path::new("/40")).unwrap(), root.join("0"));
        assert!(text(&root, Path::new("/41")).is_err() && real(&root, Path::new("/41")).is_err());
    }

    #[test]
    fn patterns_are_matched_beneath_the_root_by_what_its_links_lead_to() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["srv/conf/b", "srv/conf/a", "srv/conf/empty", "etc"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["srv/conf/b/hosts.toml", "srv/conf/a/hosts.toml", "srv/conf/one.toml"] {
            fs::write(at(file), "").unwrap();
        }
        symlink("/srv/conf", at("etc/conf")).unwrap();
        let found = |pattern: &str| matching(root.path(), pattern);
        assert_eq!(
            found("/etc/conf/*/hosts.toml"),
            ["/etc/conf/a/hosts.toml", "/etc/conf/b/hosts.toml"].map(PathBuf::from)
        );
        assert_eq!(found("/etc/conf/*.toml"), [PathBuf::from("/etc/conf/one.toml")]);
        assert_eq!(found("/etc/*/*.toml"), [PathBuf::from("/etc/conf/one.toml")]);
        assert_eq!(found("/etc/conf/plain"), [PathBuf::from("/etc/conf/plain")]);
        assert!(found("/nowhere/*").is_empty() && found("/etc/conf/***").is_empty());
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("pipe"), Mode::RUSR).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("masked")).unwrap();
        for path in ["/folder", "/pipe"] {
            assert!(
                text(root.path(), Path::new(path)).unwrap_err().to_string().contains("is no file"),
                "{path}"
            );
        }
        assert_eq!(text(root.path(), Path::new("/masked")).unwrap(), None);
        assert_eq!(text(Path::new("/"), &root.path().join("masked")).unwrap().as_deref(), Some(""));
    }

    #[test]
    fn whoever_looks_for_something_waits_for_nobody_and_reads_so_much_at_most() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        fs::write(folder.path().join("outside"), "not of the node").unwrap();
        symlink("../outside", root.join("up")).unwrap();
        symlink(folder.path().join("outside"), root.join("away")).unwrap();
        fs::write(root.join("latin"), b"caf\xe9\n").unwrap();
        let long = |name: &str, bytes| fs::File::create(root.join(name)).unwrap().set_len(bytes).unwrap();
        long("longest", LONGEST);
        long("huge", 1 << 40);

        let any = |path: &str| any_text(&root, Path::new(path));
        for path in ["/folder", "/pipe", "/socket", "/circle", "/up", "/away", "/nowhere", "/latin/x"] {
            assert_eq!(any(path).unwrap(), None, "{path}");
        }
        assert_eq!(any("/latin").unwrap().as_deref(), Some("caf\u{fffd}\n"));
        assert_eq!(any("/longest").unwrap().unwrap().len() as u64, LONGEST);
        assert_eq!(any("/huge").unwrap_err().kind(), io::ErrorKind::FileTooLarge);

        let strict = |path: &str| text(&root, Path::new(path)).unwrap_err();
        assert_eq!(strict("/latin").kind(), io::ErrorKind::InvalidData);
        assert!(strict("/socket").to_string().contains("is no file"));
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
