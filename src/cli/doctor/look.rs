//! Looks at what lies on the node: files, folders, sockets. Judges nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tidehold::config::Config;
use tidehold::node::containerd::Version;
use tidehold::node::hosts::FILE;
use tidehold::node::{discover, files, unit};

use super::daemon::Door;
use super::disk::Disk;
use super::hosts::{Folder, Text};
use super::units;
use crate::cli::DEFAULT_CONFIG;

/// The folders of the hold that a commit writes to.
const PARTS: [&str; 5] = ["ingest", "blobs", "entering", "adopted", "index"];

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

    /// What the file system under the hold's folder says of itself.
    pub(super) fn disk(&self, folder: &Path) -> Result<Disk, String> {
        let at = self.at(folder);
        let look = || -> io::Result<Disk> {
            let mode = fs::metadata(&at)?.mode() & 0o7777;
            let room = rustix::fs::statvfs(&at)?;
            let can_only_be_read = |folder: &PathBuf| {
                let there = rustix::fs::statvfs(self.at(folder));
                there.is_ok_and(|there| there.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
            };
            let parts = PARTS.iter().map(|part| folder.join(part));
            let read_only = std::iter::once(folder.to_owned()).chain(parts).find(can_only_be_read);
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
                read_only,
                mode,
            })
        };
        look().map_err(|error| error.to_string())
    }

    /// Where our socket units listen, and where they should by the configuration of this file. None where no systemd runs,
    /// or the service that it starts reads another one.
    pub(super) fn socket_units(&self, config: &Config, file: &str) -> units::Facts {
        let mut facts = units::Facts { units: Vec::new(), file: file.to_owned() };
        let own = unit::own(&self.root).ok().flatten();
        let read = own.map(|flags| flags.config.unwrap_or_else(|| DEFAULT_CONFIG.into()));
        if !self.has("/run/systemd/system") || read.is_none_or(|read| read != Path::new(file)) {
            return facts;
        }
        let sockets = config.containerds.iter().map(|containerd| &containerd.socket);
        let sockets = sockets.chain([&config.control.socket]).map(|socket| socket.display().to_string());
        for (name, wanted) in [
            ("tidehold.socket", sockets.collect()),
            ("tidehold-mirror.socket", vec![config.mirror.listen.to_string()]),
            ("tidehold-web.socket", vec![config.web.listen.to_string()]),
        ] {
            let listens = unit::listens(&self.root, name).ok().flatten().unwrap_or_default();
            let [listens, wanted] =
                [listens, wanted].map(|all| all.iter().map(|address| self.address(address)).collect());
            facts.units.push(units::Unit { name, listens, wanted });
        }
        facts
    }

    /// An address as systemd.socket(5) has it, in the one way to write it.
    fn address(&self, text: &str) -> String {
        if text.parse::<u16>().is_ok() {
            return format!("[::]:{text}");
        }
        let text = text.replacen("%t", "/run", 1);
        let path = Path::new(&text);
        let (Some(folder), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
            return text.parse::<std::net::SocketAddr>().map_or(text, |address| address.to_string());
        };
        // By another way to the same folder, as `/var/run` is one to `/run`, it is the same.
        let folder = files::seen(&self.root, folder);
        let folder = folder.strip_prefix(&self.root).unwrap_or(&folder);
        Path::new("/").join(folder).join(name).display().to_string()
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
        let open = Door::Open { mode: found.mode() & 0o777, owner: found.uid() };
        match tokio::net::UnixStream::connect(&at).await {
            Ok(_) => open,
            // Somebody listens, and takes nobody in any more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => open,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Door::Stale,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Door::Denied,
            Err(error) => Door::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_units_are_read_as_systemd_reads_them() {
        let root = tempfile::tempdir().unwrap();
        let node = Node { root: root.path().to_owned() };
        let write = |path: &str, text: &str| {
            let at = node.at(Path::new(path));
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        };
        let units = |file: &str| node.socket_units(&Config::default(), file).units;
        write("/etc/systemd/system/tidehold.service", "[Service]\nExecStart=tidehold serve\n");
        assert!(units(DEFAULT_CONFIG).is_empty(), "no systemd runs");
        fs::create_dir_all(node.at(Path::new("/run/systemd/system"))).unwrap();
        assert!(units("/elsewhere.toml").is_empty(), "the service reads another file");
        fs::create_dir_all(node.at(Path::new("/var"))).unwrap();
        std::os::unix::fs::symlink("/run", root.path().join("var/run")).unwrap();
        let sockets =
            "[Socket]\nListenStream=/var/run/tidehold/content.sock\nListenStream=%t/tidehold/control.sock\n";
        write("/usr/lib/systemd/system/tidehold.socket", sockets);
        write("/usr/lib/systemd/system/tidehold-web.socket", "[Socket]\nListenStream=7890\n");
        let [own, mirror, web] = &units(DEFAULT_CONFIG)[..] else { panic!("three units") };
        assert_eq!(own.listens, own.wanted);
        assert_eq!(own.listens, ["/run/tidehold/content.sock", "/run/tidehold/control.sock"]);
        assert_eq!((mirror.listens.len(), &mirror.wanted[..]), (0, &["127.0.0.1:789".to_owned()][..]));
        assert_eq!(
            (&web.listens[..], &web.wanted[..]),
            (&["[::]:7890".to_owned()][..], &["127.0.0.1:7890".to_owned()][..])
        );
    }
}
