//! What is on a node: which clients of registries, where their configurations are, and whether a containerd's content
//! store is in use.
//!
//! It looks and changes nothing, and asks no server: only files tell it something.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::containerd::{CONFIG, DOCKERS_HOSTS, HOSTS, SOCKET};
use super::files::{absent, seen, text};
use crate::oci::Digest;

/// Where programs are looked for.
const PROGRAM_FOLDERS: [&str; 8] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/opt/bin",
    "/opt/containerd/bin",
];

/// A client of registries that does not pull by way of containerd's CRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Reads containerd's hosts by itself.
    Nerdctl,
    /// dockerd.
    Docker,
    /// podman, buildah, skopeo, CRI-O.
    Podman,
    /// buildkitd.
    BuildKit,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nerdctl, Self::Docker, Self::Podman, Self::BuildKit];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nerdctl => "nerdctl",
            Self::Docker => "dockerd",
            Self::Podman => "podman",
            Self::BuildKit => "BuildKit",
        }
    }

    /// Its configuration.
    pub fn config(self) -> &'static str {
        match self {
            Self::Nerdctl => "/etc/nerdctl/nerdctl.toml",
            Self::Docker => "/etc/docker/daemon.json",
            Self::Podman => "/etc/containers/registries.conf",
            Self::BuildKit => "/etc/buildkit/buildkitd.toml",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nerdctl => &["nerdctl"],
            Self::Docker => &["dockerd"],
            Self::Podman => &["podman", "buildah", "crio"],
            Self::BuildKit => &["buildkitd"],
        }
    }

    /// Whether it is on the node.
    pub fn is_there(self, root: &Path) -> bool {
        seen(root, Path::new(self.config())).exists()
            || self.programs().iter().any(|name| program(root, name).is_some())
    }
}

/// A program of the node, by its name: its path on the node.
pub fn program(root: &Path, name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").filter(|_| root == Path::new("/")).unwrap_or_default();
    let folders = std::env::split_paths(OsStr::new(&search)).filter(|folder| folder.is_absolute());
    let folders: Vec<PathBuf> = folders.chain(PROGRAM_FOLDERS.iter().map(PathBuf::from)).collect();
    folders.into_iter().map(|folder| folder.join(name)).find(|path| seen(root, path).is_file())
}

/// Whether there is a containerd of the usual kind.
pub fn has_containerd(root: &Path, config: &Path) -> bool {
    let there = |path: &Path| seen(root, path).exists();
    there(config)
        || there(Path::new(CONFIG))
        || there(Path::new(SOCKET))
        || program(root, "containerd").is_some()
}

/// The distributions that bring a containerd of their own and write its configuration at each start, with the file in
/// which they want to be told of mirrors.
pub fn distributions(root: &Path) -> Vec<(&'static str, &'static str)> {
    let known = [
        ("k3s", "/var/lib/rancher/k3s/agent/etc/containerd", "/etc/rancher/k3s/registries.yaml"),
        ("rke2", "/var/lib/rancher/rke2/agent/etc/containerd", "/etc/rancher/rke2/registries.yaml"),
    ];
    let there = known.into_iter().filter(|(_, folder, _)| seen(root, Path::new(folder)).is_dir());
    there.map(|(name, _, registries)| (name, registries)).collect()
}

/// Where nerdctl looks for hosts, in this order: where its configuration says, or by itself
/// (`pkg/defaults/defaults_linux.go`).
///
/// # Errors
/// That the configuration cannot be read.
pub fn nerdctl_hosts(root: &Path) -> io::Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        hosts_dir: Vec<PathBuf>,
    }
    let text = text(root, Path::new(Client::Nerdctl.config()))?.unwrap_or_default();
    // nerdctl itself says what is wrong with it.
    let named = toml::from_str::<Config>(&text).map(|config| config.hosts_dir).unwrap_or_default();
    Ok(if named.is_empty() { [HOSTS, DOCKERS_HOSTS].map(PathBuf::from).to_vec() } else { named })
}

/// What lies in a content store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blobs {
    /// All of it.
    pub count: u64,
    /// What the hold has not taken over for that containerd.
    pub not_taken: u64,
}

/// Looks through a content store's `blobs`, or those that came since some time, and for each at the mark by which the
/// hold says that this containerd relies on it there. What is no blob, by its name or for not being a file, is nobody's
/// loss; nor does it count how long the file is by now, since the hold has what the digest says.
///
/// # Errors
/// That one of the two cannot be read.
pub fn blobs(
    root: &Path,
    folder: &Path,
    data_dir: &Path,
    containerd: &str,
    since: Option<SystemTime>,
) -> io::Result<Blobs> {
    let (count, not_taken) = look(root, folder, data_dir, containerd, since)?;
    Ok(Blobs { count, not_taken: not_taken.len() as u64 })
}

/// The digests of those that the hold has not taken over.
///
/// # Errors
/// That one of the two cannot be read.
pub fn not_taken(root: &Path, folder: &Path, data_dir: &Path, containerd: &str) -> io::Result<Vec<String>> {
    Ok(look(root, folder, data_dir, containerd, None)?.1)
}

fn look(
    root: &Path,
    folder: &Path,
    data_dir: &Path,
    containerd: &str,
    since: Option<SystemTime>,
) -> io::Result<(u64, Vec<String>)> {
    let marks = marks(root, data_dir, containerd)?;
    let held: HashSet<_> = marks.iter().map(|(algorithm, hex, _)| format!("{algorithm}:{hex}")).collect();
    let (mut count, mut not_taken) = (0, Vec::new());
    for algorithm in entries(&seen(root, folder))? {
        let algorithm = algorithm?;
        if !algorithm.file_type()?.is_dir() {
            continue;
        }
        for blob in entries(&algorithm.path())? {
            let blob = blob?;
            // One may be collected while this looks.
            let Ok(about) = blob.metadata() else { continue };
            let name =
                [algorithm.file_name(), blob.file_name()].map(|name| name.to_string_lossy().into_owned());
            let Ok(digest) = name.join(":").parse::<Digest>() else { continue };
            if !about.is_file() {
                continue;
            }
            if since.is_some_and(|since| about.modified().is_ok_and(|modified| modified < since)) {
                continue;
            }
            count += 1;
            if !held.contains(digest.as_str()) {
                not_taken.push(digest.to_string());
            }
        }
    }
    Ok((count, not_taken))
}

/// The blobs that a containerd relies on in the hold: algorithm, hash and size.
fn marks(root: &Path, data_dir: &Path, containerd: &str) -> io::Result<HashSet<(String, String, u64)>> {
    let mut marks = HashSet::new();
    for mark in entries(&seen(root, &data_dir.join("adopted").join(containerd)))? {
        let name = mark?.file_name();
        // <algorithm>-<hex>-<size>
        let mut parts = name.to_str().unwrap_or_default().splitn(3, '-');
        let (Some(algorithm), Some(hex), Some(size)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let Ok(size) = size.parse::<u64>() else { continue };
        marks.insert((algorithm.to_owned(), hex.to_owned(), size));
    }
    Ok(marks)
}

/// How many blobs a containerd relies on in the hold that are not in its own store.
///
/// # Errors
/// That one of the two cannot be read.
pub fn owed(root: &Path, data_dir: &Path, containerd: &str, blobs: &Path) -> io::Result<u64> {
    Ok(lacking(root, data_dir, containerd, blobs)?.len() as u64)
}

/// The digests of these.
///
/// # Errors
/// That one of the two cannot be read.
pub fn lacking(root: &Path, data_dir: &Path, containerd: &str, blobs: &Path) -> io::Result<Vec<String>> {
    let lacks = |(algorithm, hex, size): &(String, String, u64)| {
        let there = fs::metadata(seen(root, &blobs.join(algorithm).join(hex)));
        !there.is_ok_and(|there| there.len() == *size)
    };
    let lacking = marks(root, data_dir, containerd)?.into_iter().filter(lacks);
    Ok(lacking.map(|(algorithm, hex, _)| format!("{algorithm}:{hex}")).collect())
}

/// How many bytes of blobs are in the hold, as far as it can be read.
pub fn held(root: &Path, data_dir: &Path) -> u64 {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let algorithms = below(seen(root, &data_dir.join("blobs")));
    // Then come the first two digits of their hashes.
    let blobs = algorithms.flat_map(|folder| below(folder.path())).flat_map(|folder| below(folder.path()));
    blobs.filter_map(|blob| Some(blob.metadata().ok()?.len())).fold(0, u64::saturating_add)
}

/// The containerds that rely, or have relied, on the hold: their names in Tidehold's configuration.
///
/// # Errors
/// That the hold cannot be read.
pub fn relied_on_by(root: &Path, data_dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries(&seen(root, &data_dir.join("adopted")))? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The entries of a folder; none where it is not there.
fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if absent(&error) => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let at = seen(root.path(), Path::new(path));
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        }
        root
    }

    #[test]
    fn clients_are_found_by_their_programs_or_their_files() {
        let root = node(&[
            ("/usr/bin/containerd", ""),
            ("/etc/docker/daemon.json", "{}"),
            ("/usr/local/bin/nerdctl", ""),
        ]);
        let there: Vec<_> = Client::ALL.into_iter().filter(|client| client.is_there(root.path())).collect();
        assert_eq!(there, [Client::Nerdctl, Client::Docker]);
        assert!(has_containerd(root.path(), Path::new("/etc/none.toml")));
        assert_eq!(program(root.path(), "containerd").as_deref(), Some(Path::new("/usr/bin/containerd")));
        let empty = node(&[]);
        assert!(!has_containerd(empty.path(), Path::new(CONFIG)));
        assert!(distributions(empty.path()).is_empty());
    }

    #[test]
    fn nerdctl_says_where_it_looks() {
        let root = node(&[("/etc/nerdctl/nerdctl.toml", "debug = true\nhosts_dir = [\"/a\", \"/b\"]\n")]);
        assert_eq!(nerdctl_hosts(root.path()).unwrap(), [Path::new("/a"), Path::new("/b")]);
        let by_itself =
            nerdctl_hosts(node(&[("/etc/nerdctl/nerdctl.toml", "debug = true\n")]).path()).unwrap();
        assert_eq!(by_itself, [Path::new("/etc/containerd/certs.d"), Path::new("/etc/docker/certs.d")]);
    }

    #[test]
    fn a_store_with_blobs_is_in_use_until_all_were_taken_over_and_given_back() {
        let [aa, cc] = ["aa", "cc"].map(|two| two.repeat(32));
        let root = node(&[
            (&format!("/c/blobs/sha256/{aa}"), "x"),
            (&format!("/c/blobs/sha256/{cc}"), "x"),
            (&format!("/hold/adopted/system/sha256-{aa}-1"), ""),
            // No blobs.
            ("/c/blobs/sha256/notadigest", "x"),
            (&format!("/c/blobs/md5/{cc}"), "x"),
            (&format!("/c/blobs/sha256/{}/x", "dd".repeat(32)), "x"),
        ]);
        let at = Path::new("/c/blobs");
        let look = || blobs(root.path(), at, Path::new("/hold"), "system", None).unwrap();
        assert_eq!(look(), Blobs { count: 2, not_taken: 1 });
        let not_taken = || not_taken(root.path(), at, Path::new("/hold"), "system").unwrap();
        assert_eq!(not_taken(), [format!("sha256:{cc}")]);
        // The hold has it whole.
        fs::write(root.path().join(format!("hold/adopted/system/sha256-{cc}-100")), "").unwrap();
        assert_eq!(look(), Blobs { count: 2, not_taken: 0 });
        let old = SystemTime::UNIX_EPOCH;
        let cc = root.path().join("c/blobs/sha256").join(cc);
        fs::File::options().write(true).open(&cc).unwrap().set_modified(old).unwrap();
        let since = Some(old + Duration::from_secs(1));
        let later = blobs(root.path(), at, Path::new("/hold"), "other", since).unwrap();
        assert_eq!(later, Blobs { count: 1, not_taken: 1 });
        assert_eq!(
            blobs(root.path(), Path::new("/none"), Path::new("/hold"), "system", None).unwrap(),
            Blobs::default()
        );

        fs::write(&cc, "x".repeat(100)).unwrap();
        let owed = || owed(root.path(), Path::new("/hold"), "system", at).unwrap();
        fs::write(root.path().join("hold/adopted/system/sha256-bb-2"), "").unwrap();
        assert_eq!(owed(), 1);
        fs::write(root.path().join("c/blobs/sha256/bb"), "xx").unwrap();
        assert_eq!(owed(), 0);
    }
}
