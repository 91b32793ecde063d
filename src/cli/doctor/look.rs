//! Looks at what lies on the node: files, folders, sockets, processes. Judges nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tidehold::node::containerd::Version;
use tidehold::node::hosts::FILE;
use tidehold::node::{discover, files};

use super::daemon::Door;
use super::disk::Disk;
use super::hosts::{Folder, Text};

/// No folder of registries has more of them than this.
const MOST_REGISTRIES: usize = 1024;

/// The node, as it lies beneath a root. All paths are the node's own.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) root: PathBuf,
}

impl Node {
    /// Where a path of the node is from here.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        if self.root == Path::new("/") { path.to_owned() } else { files::seen(&self.root, path) }
    }

    /// Whether there is anything.
    pub(super) fn has(&self, path: &str) -> bool {
        self.at(Path::new(path)).exists()
    }

    /// Whether a program is where packages put them.
    pub(super) fn has_program(&self, name: &str) -> bool {
        discover::program(&self.root, name).is_some()
    }

    /// The text of a file, where it can be had.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        files::text(&self.root, Path::new(path)).ok().flatten()
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.take(MOST_REGISTRIES).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// A folder of registries, with what is in it.
    pub(super) fn hosts(&self, path: &Path, reader: String, version: Option<Version>) -> Folder {
        let names = self.names(path).into_iter();
        let folders = names.filter(|name| self.at(&path.join(name)).is_dir());
        let read = |name: String| {
            let text = match files::text(&self.root, &path.join(&name).join(FILE)) {
                Ok(Some(text)) => Text::There(text),
                Ok(None) => Text::Missing,
                Err(error) => Text::Unreadable(error.to_string()),
            };
            (name, text)
        };
        Folder {
            path: path.to_owned(),
            readers: vec![reader],
            registries: folders.map(read).collect(),
            version,
        }
    }

    /// What the file system under a folder says of itself.
    pub(super) fn disk(&self, folder: &Path) -> Result<Disk, String> {
        let at = self.at(folder);
        let look = || -> io::Result<Disk> {
            let mode = fs::metadata(&at)?.mode() & 0o7777;
            let room = rustix::fs::statvfs(&at)?;
            let kind = rustix::fs::statfs(&at)?.f_type;
            Ok(Disk {
                total: room.f_blocks.saturating_mul(room.f_frsize),
                free: room.f_bavail.saturating_mul(room.f_frsize),
                inodes: (room.f_files > 0).then_some(room.f_favail),
                #[allow(
                    clippy::useless_conversion,
                    clippy::unnecessary_cast,
                    reason = "its type depends on the machine"
                )]
                kind: kind as i64,
                read_only: room.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
                mode,
            })
        };
        look().map_err(|error| error.to_string())
    }

    /// When that was last written.
    pub(super) fn written(&self, path: &Path) -> Option<SystemTime> {
        fs::metadata(self.at(path)).ok()?.modified().ok()
    }

    /// Whether somebody listens at a socket.
    pub(super) async fn door(&self, path: &Path) -> Door {
        let at = self.at(path);
        let found = match fs::metadata(&at) {
            Ok(found) => found,
            Err(error) if files::absent(&error) => return Door::Missing,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Door::Denied,
            Err(error) => return Door::Failed(error.to_string()),
        };
        if !found.file_type().is_socket() {
            return Door::NoSocket;
        }
        match tokio::net::UnixStream::connect(&at).await {
            Ok(_) => Door::Open { mode: found.mode() & 0o777, owner: found.uid() },
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Door::Stale,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Door::Denied,
            Err(error) => Door::Failed(error.to_string()),
        }
    }
}

/// A process that was seen behind a socket.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The configuration that it was told to read.
    pub(super) config: Option<PathBuf>,
    /// Its environment.
    pub(super) environment: Vec<(String, String)>,
    pub(super) started: Option<SystemTime>,
}

/// What `/proc` tells of a containerd.
pub(super) fn process(pid: i32) -> Option<Running> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let words = |name: &str| -> Vec<String> {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let arguments = words("cmdline");
    // systemd, where the socket is its own.
    if !arguments.first()?.contains("containerd") {
        return None;
    }
    let environment = words("environ").into_iter().filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    Some(Running {
        config: config_of(&arguments),
        environment: environment.collect(),
        started: started(&folder),
    })
}

fn config_of(arguments: &[String]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.split_once('=') {
            Some(("--config" | "-config" | "-c", path)) => return Some(path.into()),
            Some(_) => {}
            None if matches!(argument.as_str(), "--config" | "-config" | "-c") => {
                return arguments.next().map(PathBuf::from);
            }
            None => {}
        }
    }
    None
}

/// proc(5): field 22 of `stat`, in ticks since the machine started.
fn started(folder: &Path) -> Option<SystemTime> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // What comes before it in parentheses may hold spaces.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // The kernel tells it in hundredths of a second on every machine that containerd runs on.
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(boot) + Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_process_is_in_its_arguments() {
        let of = |words: &[&str]| config_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["containerd", "-c", "/a"]), Some("/a".into()));
        assert_eq!(of(&["containerd", "--log-level=x", "--config=/b"]), Some("/b".into()));
        assert_eq!(of(&["containerd"]), None);
        assert_eq!(of(&["containerd", "--config"]), None);
    }

    #[test]
    fn when_this_process_started_is_not_long_ago() {
        let own = started(Path::new("/proc/self")).unwrap();
        let age = tidehold::clock::now().duration_since(own).unwrap_or_default();
        assert!(age < Duration::from_secs(24 * 3600), "{age:?}");
    }
}
