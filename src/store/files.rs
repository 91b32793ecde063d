//! The folders and files of the hold, and the order in which they become durable.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Draft, StoreError};
use crate::oci::{Algorithm, Digest};

/// The paths below the data folder:
///
/// - `blobs/<algorithm>/<first two digits>/<hex>`: whole blobs
/// - `ingest/download/<number>`: downloads under way, worthless after a restart
/// - `ingest/containerd-<name>/<number>`: what containerds are writing, kept across restarts
pub(super) struct Files {
    blobs: PathBuf,
    ingest: PathBuf,
    next_download: AtomicU64,
}

impl Files {
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let files = Self {
            blobs: data_dir.join("blobs"),
            ingest: data_dir.join("ingest"),
            next_download: AtomicU64::new(0),
        };
        for folder in [&files.blobs, &files.downloads()] {
            make_private_folder(folder)?;
        }
        Ok(files)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        // A digest's hex part is ASCII and at least 64 digits long.
        self.blobs.join(digest.algorithm().name()).join(hex.get(..2).unwrap_or(hex)).join(hex)
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.ingest.join("download")
    }

    /// The files of downloads that the last stop cut off.
    pub(super) fn left_downloads(&self) -> Result<Vec<PathBuf>, StoreError> {
        entries(&self.downloads())
    }

    pub(super) fn new_download(&self) -> PathBuf {
        self.downloads().join(self.next_download.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(super) fn ingest(&self, owner: &str, number: u64) -> PathBuf {
        self.ingest.join(format!("containerd-{owner}")).join(number.to_string())
    }

    /// Every ingest's file on the disk.
    pub(super) fn ingests(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = Vec::new();
        for folder in entries(&self.ingest)? {
            if folder != self.downloads() {
                found.extend(entries(&folder)?);
            }
        }
        Ok(found)
    }

    /// Every blob's file on the disk, by the digest that its name claims.
    pub(super) fn blobs(&self) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            for shard in entries(&self.blobs.join(algorithm.name()))? {
                for path in entries(&shard)? {
                    let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    let digest = format!("{}:{hex}", algorithm.name()).parse().ok();
                    found.push((path, digest));
                }
            }
        }
        Ok(found)
    }

    /// Moves a verified draft to where its digest says, so that it is there after a loss of power. The order is
    /// what makes it so: the bytes, the new name, the folder that holds the name.
    pub(super) fn publish(&self, draft: &Draft, digest: &Digest) -> Result<(), StoreError> {
        let target = self.blob(digest);
        let folder = target.parent().unwrap_or(&self.blobs);
        draft.sync()?;
        make_durable_folder(folder)?;
        fs::rename(draft.path(), &target).map_err(StoreError::io("rename to", &target))?;
        sync_folder(folder)
    }
}

pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The paths in a folder; none where the folder is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io("list", folder))).collect()
}

/// Blobs may be private images: nobody but the daemon's user looks in.
pub(super) fn make_private_folder(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(StoreError::io("create the folder", folder))
}

/// Makes a folder below `blobs`, each new level's name synced into the level above.
fn make_durable_folder(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_durable_folder(parent)?;
        make_private_folder(folder)?;
        sync_folder(parent)?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync the folder", folder))
}
