//! A containerd's own content store, as the files that it is: `blobs/<algorithm>/<hex>` below its folder (containerd,
//! `plugins/content/local/store.go`). Knows nothing of the hold.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tidehold::oci::{Algorithm, Digest};

use super::super::Failed;

/// The folder of the store below containerd's root: it has the plugin's name.
const CONTENT: &str = tidehold::node::containerd::BUILTIN_STORE;

/// What the folders below containerd's root begin with.
const PLUGINS: &str = "io.containerd.";

/// How containerd makes its folders.
const FOLDER_MODE: u32 = 0o755;

pub(super) struct ContentStore {
    /// containerd's root, or the store itself where it does not stand in one.
    pub(super) root: PathBuf,
    folder: PathBuf,
}

/// A blob's file.
#[derive(Debug, Clone)]
pub(super) struct StoredBlob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) path: PathBuf,
}

/// All that was found in a store.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their digests.
    pub(super) blobs: Vec<StoredBlob>,
    /// What is no blob, by its name or for not being a file.
    pub(super) others: Vec<PathBuf>,
    /// How many writes are not finished. containerd 1.x has one of a blob for each namespace that pulls it, so they are
    /// not so many blobs.
    pub(super) ingests: usize,
}

impl ContentStore {
    /// The store in a folder that is containerd's root or the store's own.
    pub(super) fn find(given: &Path) -> Result<Self, Failed> {
        let entries = names(given).with_context(|| {
            format!("look into {}: is it containerd's root, and is this run as root?", given.display())
        })?;
        let given = fs::canonicalize(given).with_context(|| format!("look at {}", given.display()))?;
        let is_content = given.file_name().is_some_and(|name| name == CONTENT);
        if is_content {
            let root = given.parent().unwrap_or(&given).to_owned();
            return Ok(Self { root, folder: given });
        }
        if entries.iter().any(|name| name.starts_with(PLUGINS)) {
            let folder = given.join(CONTENT);
            return Ok(Self { root: given, folder });
        }
        let has = |name: &str| entries.iter().any(|entry| entry == name);
        // A hold has blobs too.
        if has("blobs") && !has("adopted") {
            return Ok(Self { root: given.clone(), folder: given });
        }
        Err(Failed::Usage(format!(
            "tidehold: {} is neither containerd's root nor its content store: there is no {CONTENT} in it. `containerd \
             config dump` says where the root is; name it with --from (k3s has it in \
             /var/lib/rancher/k3s/agent/containerd)",
            given.display()
        )))
    }

    /// The folder of its blobs, with one for each algorithm.
    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    /// Where a blob is, or would be.
    pub(super) fn place_of(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().name()).join(digest.hex())
    }

    /// Where something may be put on the way into the store: containerd looks at nothing there.
    pub(super) fn aside(&self) -> PathBuf {
        self.folder.join("tidehold-returning")
    }

    /// Makes the folders that a first blob would make.
    pub(super) fn make_folders(&self) -> Result<(), Failed> {
        let make = |folder: PathBuf| {
            let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder);
            made.with_context(|| format!("make the folder {}", folder.display()))
        };
        make(self.blobs().join(Algorithm::Sha256.name()))?;
        make(self.aside())?;
        Ok(())
    }

    /// Makes the folder of an algorithm.
    pub(super) fn make_folder_for(&self, digest: &Digest) -> io::Result<()> {
        let folder = self.blobs().join(digest.algorithm().name());
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
    }

    /// Brings the names of all that was put into it to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let sync = |folder: &Path| fs::File::open(folder).and_then(|folder| folder.sync_all());
        // Nothing was ever put into it.
        if !self.blobs().is_dir() {
            return Ok(());
        }
        for algorithm in Algorithm::ALL.map(|algorithm| self.blobs().join(algorithm.name())) {
            if algorithm.is_dir() {
                sync(&algorithm)?;
            }
        }
        sync(&self.blobs())?;
        sync(&self.folder)?;
        self.folder.parent().map_or(Ok(()), sync)
    }

    pub(super) fn list(&self) -> Result<Listing, Failed> {
        let mut listing = Listing::default();
        let blobs = self.blobs();
        for folder in entries(&blobs)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
            match algorithm {
                Some(algorithm) if is_folder(&folder) => {
                    for path in entries(&folder)? {
                        match stored(algorithm, &path)? {
                            Stored::Blob(blob) => listing.blobs.push(blob),
                            Stored::Other => listing.others.push(path),
                            Stored::Gone => {}
                        }
                    }
                }
                Some(_) | None => listing.others.push(folder),
            }
        }
        listing.blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
        listing.others.sort();
        listing.ingests = entries(&self.folder.join("ingest"))?.len();
        Ok(listing)
    }
}

enum Stored {
    Blob(StoredBlob),
    Other,
    Gone,
}

fn stored(algorithm: Algorithm, path: &Path) -> Result<Stored, Failed> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Ok(digest) = format!("{}:{name}", algorithm.name()).parse() else { return Ok(Stored::Other) };
    Ok(match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            Stored::Blob(StoredBlob { digest, size: metadata.len(), path: path.to_owned() })
        }
        Ok(_) => Stored::Other,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::Gone,
        Err(error) => return Err(anyhow!("look at {}: {error}", path.display()).into()),
    })
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The paths in a folder; none where it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    match names(folder) {
        Ok(names) => Ok(names.into_iter().map(|name| folder.join(name)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(anyhow!("list {}: {error}", folder.display()).into()),
    }
}

/// The names in a folder. One that is not text is no blob's, and is shown as well as can be.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn hex(of: &[u8]) -> String {
        Digest::of(of).hex().to_owned()
    }

    fn usage(folder: &Path) -> bool {
        matches!(ContentStore::find(folder), Err(Failed::Usage(_)))
    }

    #[test]
    fn it_is_found_by_containerds_root_and_by_its_own_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        assert!(usage(&root), "an empty folder is no containerd's");
        fs::create_dir(root.join("io.containerd.metadata.v1.bolt")).unwrap();
        let fresh = ContentStore::find(&root).ok().unwrap();
        assert!(
            fresh.list().ok().unwrap().blobs.is_empty(),
            "a containerd that never stored anything has a store"
        );
        fresh.make_folders().ok().unwrap();
        for given in [root.clone(), root.join(CONTENT)] {
            let found = ContentStore::find(&given).ok().unwrap();
            assert_eq!((found.root.as_path(), found.folder), (root.as_path(), root.join(CONTENT)));
        }
        let moved = tempfile::tempdir().unwrap();
        fs::create_dir(moved.path().join("blobs")).unwrap();
        assert!(ContentStore::find(moved.path()).is_ok(), "a store of another name");
        fs::create_dir(moved.path().join("adopted")).unwrap();
        assert!(usage(moved.path()), "a hold is no containerd's store");
        assert!(matches!(ContentStore::find(&root.join("missing")), Err(Failed::Error(_))));
    }

    #[test]
    fn only_files_named_by_digests_are_blobs() {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore { root: folder.path().to_owned(), folder: folder.path().to_owned() };
        let blobs = folder.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(folder.path().join("blobs/md5")).unwrap();
        fs::create_dir_all(folder.path().join("ingest/one")).unwrap();
        fs::write(blobs.join(hex(b"a blob")), b"a blob").unwrap();
        fs::write(blobs.join("rubbish"), b"rubbish").unwrap();
        fs::write(blobs.join(hex(b"upper").to_uppercase()), b"upper").unwrap();
        fs::create_dir(blobs.join(hex(b"a folder"))).unwrap();
        symlink(blobs.join(hex(b"a blob")), blobs.join(hex(b"a link"))).unwrap();
        symlink(&blobs, folder.path().join("blobs/sha512")).unwrap();
        let listing = store.list().ok().unwrap();
        let [blob] = &listing.blobs[..] else { panic!("{:?}", listing.blobs) };
        assert_eq!((blob.digest.clone(), blob.size), (Digest::of(b"a blob"), 6));
        assert_eq!((listing.others.len(), listing.ingests), (6, 1), "{:?}", listing.others);
    }
}
