//! The folders and files of the hold, and the order in which they become durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::disk::Disk;
use super::{Blob, Draft, StoreError};
use crate::oci::{Algorithm, Digest};

/// How much has to fit on the disk before it is said to have room, in bytes: some segments of the index.
const ROOM_BYTES: usize = 4 << 20;

/// What is ours in the data folder, and what a file system of its own has there.
const OURS: [&str; 11] = [
    "adopted",
    "adopted-from",
    "arriving",
    "blobs",
    "entering",
    "index",
    "ingest",
    "lists",
    "lock",
    "lost+found",
    "record",
];

/// The paths below the data folder:
///
/// - `blobs/<algorithm>/<first two digits>/<hex>`: whole blobs
/// - `adopted/<containerd>/<algorithm>-<hex>-<size>`: empty files, each the word that a containerd relies on a blob
/// - `entering/<algorithm>-<hex>-<number>`: empty files, each a commit that the index may not have yet
/// - `arriving/<number>-<algorithm>-<hex>`: what others bring to be taken over, worthless after a restart
/// - `adopted-from/<containerd>`: the word that all of that containerd's former store was taken over
/// - `ingest/download/<number>`: downloads under way, worthless after a restart
/// - `ingest/containerd-<name>/<number>`: what containerds are writing, kept across restarts
/// - `lists/<hex>`: lists that registries made up, by the hash of what was asked for
/// - `index/`: the index; `index.damaged-<number>/`: one that could not be used any more
/// - `lock`: held by the daemon that runs
pub(super) struct Files {
    disk: Disk,
    data_dir: PathBuf,
    blobs: PathBuf,
    adopted: PathBuf,
    entering: PathBuf,
    ingest: PathBuf,
    next_number: AtomicU64,
    /// The folders whose names are known to outlast a loss of power. That one is there does not say so: another
    /// thread, or one that was killed, may have made it and not come to the sync.
    durable: Mutex<HashSet<PathBuf>>,
    /// The data folder itself, whatever stands at its path by now.
    opened: File,
    /// Closing it frees the lock.
    lock: File,
}

impl Files {
    pub(super) fn open(data_dir: &Path, disk: Disk) -> Result<Self, StoreError> {
        disk.make_folder(data_dir)?;
        make_private(data_dir);
        let files = Self {
            data_dir: data_dir.to_owned(),
            blobs: data_dir.join("blobs"),
            adopted: data_dir.join("adopted"),
            entering: data_dir.join("entering"),
            ingest: data_dir.join("ingest"),
            next_number: AtomicU64::new(0),
            durable: Mutex::default(),
            opened: File::open(data_dir).map_err(StoreError::io("open", data_dir))?,
            lock: lock(data_dir)?,
            disk,
        };
        for folder in [&files.blobs, &files.adopted, &files.entering, &files.downloads(), &files.arriving()] {
            files.disk.make_folder(folder)?;
        }
        if let Some(parent) = data_dir.parent().filter(|parent| parent.is_dir()) {
            files.disk.sync_folder(parent)?;
        }
        files.sync_folders_in(data_dir)?;
        files.sync_folders_in(&files.adopted)?;
        files.sync_folders_in(&files.blobs)?;
        for algorithm in Algorithm::ALL {
            files.sync_folders_in(&files.blobs.join(algorithm.name()))?;
        }
        Ok(files)
    }

    /// Makes the names of the folders in a folder durable, whoever made them.
    fn sync_folders_in(&self, folder: &Path) -> Result<(), StoreError> {
        if folder.is_dir() {
            let inside = entries(folder)?;
            self.disk.sync_folder(folder)?;
            self.durable().extend(inside);
        }
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a folder below the data folder whose name, and those of the new folders above it, outlast a loss of
    /// power.
    fn make_durable_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if folder == self.data_dir || self.durable().contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_durable_folder(parent)?;
            self.disk.make_folder(folder)?;
            self.disk.sync_folder(parent)?;
            self.durable().insert(folder.to_owned());
        }
        Ok(())
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn index(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        // A digest's hex part is ASCII and at least 64 digits long.
        self.blobs.join(digest.algorithm().name()).join(hex.get(..2).unwrap_or(hex)).join(hex)
    }

    fn downloads(&self) -> PathBuf {
        self.ingest.join("download")
    }

    /// The files of downloads that the last stop cut off.
    pub(super) fn left_downloads(&self) -> Result<Vec<PathBuf>, StoreError> {
        entries(&self.downloads())
    }

    /// Where others put what is to be taken over.
    pub(super) fn arriving(&self) -> PathBuf {
        self.data_dir.join("arriving")
    }

    /// Removes what has arrived and was not taken over, of that whose names begin like this; answers how many there
    /// were. What is no file is nothing that arrived.
    pub(super) fn clear_arrivals(&self, prefix: &str) -> Result<usize, StoreError> {
        let mut left = entries(&self.arriving())?;
        let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        left.retain(|path| name(path).starts_with(prefix) && !is_folder(path));
        left.iter().try_for_each(|path| self.disk.remove(path))?;
        Ok(left.len())
    }

    pub(super) fn adopted_from(&self, owner: &str) -> PathBuf {
        self.data_dir.join("adopted-from").join(owner)
    }

    /// Whether files can be made in all the folders that a commit needs, as far as the kernel knows without trying; it
    /// answers from memory.
    pub(super) fn can_write(&self) -> Result<(), StoreError> {
        let ours = |there: &fs::Metadata| {
            self.opened.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        };
        let absent = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        match fs::metadata(&self.data_dir) {
            Ok(there) if ours(&there) => {}
            Err(error) if !absent(&error) => {
                return Err(StoreError::unwritten("look at", &self.data_dir, error));
            }
            Ok(_) | Err(_) => return Err(StoreError::Replaced(self.data_dir.clone())),
        }
        let is_there = |folder: &Path| match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK) {
            Ok(()) => Ok(true),
            Err(error) => match io::Error::from(error) {
                error if absent(&error) => Ok(false),
                error => Err(StoreError::unwritten("write into", folder, error)),
            },
        };
        let (downloads, index) = (self.downloads(), self.index());
        for folder in
            [&self.data_dir, &self.ingest, &downloads, &self.blobs, &self.entering, &self.adopted, &index]
        {
            if !is_there(folder)? {
                return Err(StoreError::Replaced(folder.clone()));
            }
        }
        for algorithm in Algorithm::ALL {
            // Until the first blob there is none.
            is_there(&self.blobs.join(algorithm.name()))?;
        }
        Ok(())
    }

    /// The file system that the hold was opened on, whatever stands at its path now.
    pub(super) fn file_system(&self) -> io::Result<rustix::fs::StatVfs> {
        rustix::fs::fstatvfs(&self.lock).map_err(io::Error::from)
    }

    /// Whether the disk takes as much as the index writes at a time. A file that a crash leaves of this is swept like
    /// a download.
    pub(super) fn try_disk(&self) -> Result<(), StoreError> {
        self.can_write()?;
        let path = self.new_download();
        let file = self.disk.create(&path)?;
        let written = self.disk.write(&path, &file, &vec![1; ROOM_BYTES], 0);
        let synced = written.and_then(|()| self.disk.sync(&path, &file));
        self.disk.remove(&path)?;
        synced
    }

    pub(super) fn new_download(&self) -> PathBuf {
        self.downloads().join(self.next_number().to_string())
    }

    /// A number for a file that none has had since the hold was opened, nor has one that was there then.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Leaves out the numbers up to one that is taken.
    pub(super) fn skip_number(&self, taken: u64) {
        self.next_number.fetch_max(taken.saturating_add(1), Ordering::Relaxed);
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

    /// The folders that blobs stand in, as `<algorithm>/<first two digits>`, and whatever else is found beside them.
    pub(super) fn shards(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut found = BTreeSet::new();
        for algorithm in Algorithm::ALL {
            let there = entries(&self.blobs.join(algorithm.name()))?;
            found.extend(there.iter().map(|path| format!("{}/{}", algorithm.name(), name(path))));
        }
        Ok(found)
    }

    /// When a file was last added to a folder of blobs or taken away; `None` where there is no such folder.
    pub(super) fn shard_changed_at(&self, shard: &str) -> Option<SystemTime> {
        self.blobs.join(shard).metadata().ok()?.modified().ok()
    }

    /// Every file in a folder of blobs, by the digest that its name claims.
    pub(super) fn blobs_in(&self, shard: &str) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
        let digest = |path: &Path| {
            let (algorithm, first) = shard.split_once('/')?;
            // A file in another's folder would never be found again.
            let hex = Some(name(path)).filter(|hex| hex.get(..2) == Some(first))?;
            format!("{algorithm}:{hex}").parse().ok()
        };
        let found = entries(&self.blobs.join(shard))?.into_iter();
        Ok(found.map(|path| (path.clone(), digest(&path))).collect())
    }

    /// Moves a verified draft to where its digest says, so that it is there after a loss of power. The order is
    /// what makes it so: the bytes, the new name, the folder that holds the name. Answers with the note of it, which
    /// is as durable: it can go once the index has the blob for good.
    pub(super) fn publish(&self, draft: &Draft, digest: &Digest) -> Result<PathBuf, StoreError> {
        let target = self.blob(digest);
        let folder = target.parent().unwrap_or(&self.blobs);
        draft.sync()?;
        self.make_durable_folder(folder)?;
        // Never two commits' note: the one of the first may go while the second is under way.
        let note = self.entering.join(marker(digest, self.next_number()));
        self.disk.create(&note)?;
        self.disk.rename(draft.path(), &target)?;
        self.disk.sync_folder(folder)?;
        // Most file systems have written this with the other one.
        self.disk.sync_folder(&self.entering)?;
        Ok(note)
    }

    /// Moves verified and synced files to where their digests say, so that they are there after a loss of power. No note
    /// tells of it.
    pub(super) fn publish_all(&self, files: &[(PathBuf, &Digest)]) -> Result<(), StoreError> {
        let mut folders = BTreeSet::new();
        for (file, digest) in files {
            let target = self.blob(digest);
            if let Some(folder) = target.parent() {
                self.make_durable_folder(folder)?;
                folders.insert(folder.to_owned());
            }
            self.disk.rename(file, &target)?;
            // Two names of one file are left as they are by a rename.
            self.disk.remove(file)?;
        }
        folders.iter().try_for_each(|folder| self.disk.sync_folder(folder))
    }

    /// Writes a small file below the data folder in the place of another, so that after a loss of power the one or the
    /// other is there.
    pub(super) fn replace_small(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.data_dir);
        self.make_durable_folder(folder)?;
        let draft = self.new_download();
        let file = self.disk.create(&draft)?;
        self.disk.write(&draft, &file, bytes, 0)?;
        self.disk.sync(&draft, &file)?;
        self.disk.rename(&draft, path)?;
        self.disk.sync_folder(folder)
    }

    /// Removes a file, where it is there, so that it is gone after a loss of power.
    pub(super) fn remove_durably(&self, path: &Path) -> Result<(), StoreError> {
        match path.parent().filter(|folder| folder.is_dir()) {
            Some(folder) => self.disk.remove(path).and_then(|()| self.disk.sync_folder(folder)),
            None => Ok(()),
        }
    }

    /// The notes of commits that the index may not have.
    pub(super) fn notes(&self) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
        let digest = |path: &Path| parsed_marker(name(path)).map(|(digest, _)| digest);
        Ok(entries(&self.entering)?.into_iter().map(|path| (path.clone(), digest(&path))).collect())
    }

    /// Makes the names of files found under those of blobs as durable as published ones. Their bytes are: nothing
    /// is renamed to a blob before.
    pub(super) fn sync_folders_of<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<(), StoreError> {
        let folders: BTreeSet<_> = paths.into_iter().filter_map(|path| path.parent()).collect();
        folders.into_iter().try_for_each(|folder| self.disk.sync_folder(folder))
    }

    /// Notes on the disk that a containerd relies on a blob, and waits until that is durable.
    pub(super) fn mark(&self, owner: &str, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let folder = self.adopted.join(owner);
        self.make_durable_folder(&folder)?;
        // An empty file has nothing to sync but its name.
        self.disk.create(&folder.join(marker(digest, size)))?;
        self.disk.sync_folder(&folder)
    }

    /// As [`mark`](Self::mark), for many with one wait.
    pub(super) fn mark_all(&self, owner: &str, blobs: &[&Blob]) -> Result<(), StoreError> {
        let folder = self.adopted.join(owner);
        self.make_durable_folder(&folder)?;
        for blob in blobs {
            self.disk.create(&folder.join(marker(&blob.digest, blob.size)))?;
        }
        self.disk.sync_folder(&folder)
    }

    pub(super) fn unmark(&self, owner: &str, digest: &Digest, size: u64) -> Result<(), StoreError> {
        self.disk.remove(&self.adopted.join(owner).join(marker(digest, size)))
    }

    /// What every containerd relies on, and the sizes of it in bytes.
    pub(super) fn marks(&self) -> Result<BTreeMap<String, HashMap<Digest, u64>>, StoreError> {
        let mut found = BTreeMap::new();
        for folder in entries(&self.adopted)? {
            let marked = entries(&folder)?.iter().filter_map(|path| parsed_marker(name(path))).collect();
            found.insert(name(&folder).to_owned(), marked);
        }
        Ok(found)
    }

    /// Where a list stands, by the hash of what was asked for.
    pub(super) fn list(&self, name: &str) -> PathBuf {
        self.data_dir.join("lists").join(name)
    }

    pub(super) fn make_folder_of_lists(&self) -> Result<(), StoreError> {
        self.disk.make_folder(&self.data_dir.join("lists"))
    }

    /// Every list's name and its length in bytes, the one that was written longest ago first.
    pub(super) fn lists(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found = Vec::new();
        for path in entries(&self.data_dir.join("lists"))? {
            let metadata = path.metadata();
            let metadata = metadata.map_err(StoreError::io("inspect", &path))?;
            if metadata.is_file() {
                let modified = metadata.modified().map_err(StoreError::io("inspect", &path))?;
                found.push((modified, name(&path).to_owned(), metadata.len()));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, name, length)| (name, length)).collect())
    }

    /// Moves an index that cannot be used out of the way, and says where to.
    pub(super) fn set_index_aside(&self) -> Result<PathBuf, StoreError> {
        let free = |number: &u32| !self.data_dir.join(format!("index.damaged-{number}")).exists();
        let number = (1..u32::MAX).find(free).unwrap_or(u32::MAX);
        let aside = self.data_dir.join(format!("index.damaged-{number}"));
        self.disk.rename(&self.index(), &aside)?;
        self.disk.sync_folder(&self.data_dir)?;
        Ok(aside)
    }
}

fn marker(digest: &Digest, number: u64) -> String {
    format!("{}-{}-{number}", digest.algorithm().name(), digest.hex())
}

fn parsed_marker(name: &str) -> Option<(Digest, u64)> {
    let (digest, size) = name.rsplit_once('-')?;
    Some((digest.replacen('-', ":", 1).parse().ok()?, size.parse().ok()?))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The paths in a folder; none where the folder is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io("list", folder))).collect()
}

/// Shuts others out of a data folder that was there before us: blobs may be private images. One with files of others in it
/// is theirs too and stays as it is.
fn make_private(data_dir: &Path) {
    let Ok(mode) = fs::metadata(data_dir).map(|folder| folder.permissions().mode()) else { return };
    if mode & 0o077 == 0 {
        return;
    }
    let shown = data_dir.display();
    let foreign = |path: &PathBuf| {
        let name = name(path);
        let ours = OURS.contains(&name) || name.starts_with("index.damaged-") || name.starts_with('.');
        !ours
    };
    match entries(data_dir).map(|entries| entries.into_iter().find(foreign)) {
        Ok(Some(other)) => tracing::warn!(
            other = %other.display(),
            "others can look into the data folder {shown}, where private images may be, and something else is in it: give the \
             hold a folder of its own (data_dir)"
        ),
        Ok(None) => {
            if let Err(error) = fs::set_permissions(data_dir, Permissions::from_mode(mode & 0o700)) {
                tracing::warn!(%error, "others can look into {shown}, where private images may be: chmod 0700 {shown}");
            }
        }
        Err(_) => {}
    }
}

/// One daemon at a time: two would take each other's files for rubbish.
fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("lock");
    let mut options = File::options();
    // Whoever can open it can hold the lock, and keep the daemon from starting.
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(StoreError::io("open", &path))?;
    if let Err(error) = file.set_permissions(Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "the lock cannot be made the daemon's user's alone");
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_else_can_look_into_the_hold_or_hold_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("lock"), "").unwrap();
        // As an earlier version, or an administrator, may have left it.
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(data.join("lock"), Permissions::from_mode(0o644)).unwrap();
        for _ in 0..2 {
            drop(Files::open(&data, Disk::default()).unwrap());
            assert_eq!((mode(&data), mode(&data.join("lock"))), (0o700, 0o600));
        }
        // Whatever a hold has is known to be ours.
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        drop(Files::open(&data, Disk::default()).unwrap());
        assert_eq!(mode(&data), 0o700);
    }

    #[test]
    fn a_folder_that_others_use_too_stays_open_to_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("somebody's"), "").unwrap();
        drop(Files::open(folder.path(), Disk::default()).unwrap());
        assert_eq!((mode(folder.path()), mode(&folder.path().join("lock"))), (0o755, 0o600));
    }
}
