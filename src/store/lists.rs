//! Lists that registries made up, and who was shown them: what serves when a registry cannot be asked again.
//!
//! They stand beside the blobs, each in a file of its own, and are neither found nor listed nor evicted as blobs are.
//! There are only so many, and only so many bytes of them: the one that was written longest ago leaves first. No
//! file's loss matters, so none is waited for: one that a crash has cut is not what its digest says, and is not there.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use lru::LruCache;
use prost::Message;

use super::files::Files;
use super::records::{ListRecord, ShownRecord};
use super::{Hold, StoreError};
use crate::oci::{Digest, List, Repository};

/// How many lists are kept, and how many bytes of them. Whoever asks for one page after the other gets no further.
const MOST_LISTS: usize = 1024;
const MOST_BYTES: u64 = 64 << 20;

/// How many of those who were shown a list are remembered with it, the latest.
const MOST_SHOWN: usize = 32;

/// A list as its registry last made it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Of its bytes.
    pub digest: Digest,
    /// All of it.
    pub bytes: Bytes,
    /// The page after it.
    pub next: Option<List>,
    /// Which filters its registry said to have applied.
    pub filters_applied: Option<String>,
    /// When the registry said so.
    pub confirmed_at: SystemTime,
    /// When the registry last showed it to somebody without credentials.
    pub anyone_at: Option<SystemTime>,
    /// When it last showed it to somebody with credentials.
    pub shown_at: HashMap<Digest, SystemTime>,
}

/// Which lists there are: the lengths of their files, by the names of these.
pub(super) struct Lists {
    most: usize,
    most_bytes: u64,
    known: Mutex<Known>,
}

struct Known {
    lengths: LruCache<String, u64>,
    bytes: u64,
}

impl Lists {
    /// The lists that are on the disk.
    pub(super) fn open(files: &Files) -> Result<Self, StoreError> {
        Self::bounded(files, MOST_LISTS, MOST_BYTES)
    }

    fn bounded(files: &Files, most: usize, most_bytes: u64) -> Result<Self, StoreError> {
        let mut known = Known { lengths: LruCache::unbounded(), bytes: 0 };
        for (name, length) in files.lists()? {
            known.put(name, length);
        }
        Ok(Self { most, most_bytes, known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, files: &Files, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if self.known().lengths.peek(name).is_none() {
            return Ok(None);
        }
        let path = files.list(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    fn write(&self, files: &Files, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let written = files.new_download();
        let file = files.disk().create(&written)?;
        let put = files.disk().write(&written, &file, bytes, 0).and_then(|()| {
            files.make_folder_of_lists()?;
            // Nobody else's file leaves between its name and what is known of it.
            let mut known = self.known();
            files.disk().rename(&written, &files.list(name))?;
            known.put(name.to_owned(), bytes.len() as u64);
            while known.lengths.len() > self.most || known.bytes > self.most_bytes {
                let Some(oldest) = known.pop_oldest() else { break };
                files.disk().remove(&files.list(&oldest))?;
            }
            Ok(())
        });
        if put.is_err() {
            files.disk().remove(&written)?;
        }
        put
    }

    fn remove(&self, files: &Files, name: &str) -> Result<(), StoreError> {
        let mut known = self.known();
        match known.remove(name) {
            true => files.disk().remove(&files.list(name)),
            false => Ok(()),
        }
    }
}

impl Known {
    fn put(&mut self, name: String, length: u64) {
        self.bytes += length;
        self.bytes -= self.lengths.put(name, length).unwrap_or_default();
    }

    fn remove(&mut self, name: &str) -> bool {
        let length = self.lengths.pop(name);
        self.bytes -= length.unwrap_or_default();
        length.is_some()
    }

    fn pop_oldest(&mut self) -> Option<String> {
        let (name, length) = self.lengths.pop_lru()?;
        self.bytes -= length;
        Some(name)
    }
}

impl Hold {
    /// A list of a repository, if its registry was ever asked for it and it is still here. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn list(&self, repository: &Repository, list: &List) -> Result<Option<ListEntry>, StoreError> {
        let (files, lists) = (&self.inner.files, &self.inner.lists);
        let name = name(repository, list);
        let Some(bytes) = lists.read(files, &name)? else { return Ok(None) };
        let entry = ListRecord::decode(bytes.as_slice()).ok().and_then(|record| parsed(record, list));
        if entry.is_none() {
            tracing::warn!(%repository, %list, "a list that is damaged is dropped");
            lists.remove(files, &name)?;
        }
        Ok(entry)
    }

    /// Keeps a list in the place of what it was before. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_list(
        &self,
        repository: &Repository,
        list: &List,
        entry: &ListEntry,
    ) -> Result<(), StoreError> {
        let (files, lists) = (&self.inner.files, &self.inner.lists);
        lists.write(files, &name(repository, list), &record(repository, list, entry).encode_to_vec())
    }

    /// Forgets a list that its registry no longer has. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_list(&self, repository: &Repository, list: &List) -> Result<(), StoreError> {
        let (files, lists) = (&self.inner.files, &self.inner.lists);
        lists.remove(files, &name(repository, list))
    }
}

/// Names can be long, and hold what a file's name cannot.
fn name(repository: &Repository, list: &List) -> String {
    Digest::of(format!("{repository}/{list}").as_bytes()).hex().to_owned()
}

fn record(repository: &Repository, list: &List, entry: &ListEntry) -> ListRecord {
    let shown = |(who, at): (&Digest, &SystemTime)| ShownRecord { who: who.to_string(), at: (*at).into() };
    let mut shown: Vec<ShownRecord> = entry.shown_at.iter().map(shown).collect();
    shown.sort_by_key(|shown| std::cmp::Reverse(shown.at));
    shown.truncate(MOST_SHOWN);
    ListRecord {
        list: format!("{repository}/{list}"),
        digest: entry.digest.to_string(),
        bytes: entry.bytes.to_vec(),
        next: entry.next.as_ref().map(query_of).unwrap_or_default(),
        filters_applied: entry.filters_applied.clone().unwrap_or_default(),
        confirmed_at: entry.confirmed_at.into(),
        anyone_at: entry.anyone_at.map(Into::into),
        shown,
    }
}

fn query_of(list: &List) -> String {
    let text = list.to_string();
    text.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default()
}

fn parsed(record: ListRecord, list: &List) -> Option<ListEntry> {
    let digest: Digest = record.digest.parse().ok()?;
    if Digest::of(&record.bytes) != digest {
        return None;
    }
    let next = match record.next.as_str() {
        "" => None,
        query => Some(list.next(query).ok()?),
    };
    let shown = |shown: ShownRecord| Some((shown.who.parse().ok()?, shown.at.into()));
    Some(ListEntry {
        digest,
        bytes: record.bytes.into(),
        next,
        filters_applied: Some(record.filters_applied).filter(|filters| !filters.is_empty()),
        confirmed_at: record.confirmed_at.into(),
        anyone_at: record.anyone_at.map(Into::into),
        shown_at: record.shown.into_iter().map(shown).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::oci::Registry;

    fn repository() -> Repository {
        Repository::new(Registry::docker_hub(), "nginx").unwrap()
    }

    fn page(last: usize) -> List {
        List::tags(&format!("n=1&last={last}")).unwrap()
    }

    fn entry(text: &str) -> ListEntry {
        ListEntry {
            digest: Digest::of(text.as_bytes()),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            next: Some(List::tags("n=1&last=z").unwrap()),
            filters_applied: Some("artifactType".to_owned()),
            confirmed_at: clock::now(),
            anyone_at: Some(clock::now()),
            shown_at: HashMap::from([(Digest::of(b"ada"), clock::now() - Duration::from_secs(1))]),
        }
    }

    fn open(folder: &Path) -> Hold {
        Hold::open(folder, clock::now()).unwrap().0
    }

    fn files_in(folder: &Path) -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder.join("lists")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_list_outlives_the_daemon_and_is_no_blob() {
        let folder = tempfile::tempdir().unwrap();
        let kept = entry("{}");
        {
            let hold = open(folder.path());
            assert_eq!(hold.list(&repository(), &page(1)).unwrap(), None);
            hold.keep_list(&repository(), &page(1), &entry("before")).unwrap();
            hold.keep_list(&repository(), &page(1), &kept).unwrap();
        }
        let hold = open(folder.path());
        assert_eq!(hold.list(&repository(), &page(1)).unwrap(), Some(kept.clone()));
        assert_eq!(hold.list(&repository(), &page(2)).unwrap(), None);
        assert!(hold.blob(&kept.digest).unwrap().is_none());
        hold.forget_list(&repository(), &page(1)).unwrap();
        assert_eq!(hold.list(&repository(), &page(1)).unwrap(), None);
        assert_eq!(files_in(folder.path()).len(), 0);
    }

    #[test]
    fn a_list_that_was_cut_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let hold = open(folder.path());
        for length in [0, 1, 60, 150] {
            hold.keep_list(&repository(), &page(1), &entry("{\"name\":\"library/nginx\"}")).unwrap();
            let [file] = &files_in(folder.path())[..] else { panic!("one list, one file") };
            let file = std::fs::File::options().write(true).open(file).unwrap();
            assert!(file.metadata().unwrap().len() > length);
            file.set_len(length).unwrap();
            assert_eq!(hold.list(&repository(), &page(1)).unwrap(), None, "cut at {length}");
        }
    }

    #[test]
    fn the_oldest_lists_leave_for_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let size = record(&repository(), &page(1), &entry("{}")).encoded_len() as u64;
        for (most, most_bytes) in [(3, u64::MAX), (usize::MAX, 3 * size + size / 2)] {
            let mut hold = open(folder.path());
            let inner = Arc::get_mut(&mut hold.inner).unwrap();
            inner.lists = Lists::bounded(&inner.files, most, most_bytes).unwrap();
            for number in [1, 2, 3, 1, 4, 5] {
                hold.keep_list(&repository(), &page(number), &entry("{}")).unwrap();
            }
            let held = |number| hold.list(&repository(), &page(number)).unwrap().is_some();
            assert_eq!([1, 2, 3, 4, 5].map(held), [true, false, false, true, true]);
            assert_eq!(files_in(folder.path()).len(), 3);
        }
        // Those that were there at the start count as well.
        assert_eq!(open(folder.path()).inner.lists.known().lengths.len(), 3);
    }

    #[test]
    fn only_so_many_who_were_shown_it_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let hold = open(folder.path());
        let who = |number: u64| Digest::of(&number.to_be_bytes());
        let at = |number| clock::now() + Duration::from_secs(number);
        let shown_at = (0..100).map(|number| (who(number), at(number))).collect();
        hold.keep_list(&repository(), &page(1), &ListEntry { shown_at, ..entry("{}") }).unwrap();
        let shown = hold.list(&repository(), &page(1)).unwrap().unwrap().shown_at;
        assert_eq!(shown.len(), MOST_SHOWN);
        assert!(shown.contains_key(&who(99)) && !shown.contains_key(&who(0)));
    }
}
