//! Files and indexes that somebody or something has spoilt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock;
use crate::oci::Digest;
use crate::store::{Announced, Hold, Ingests, Kept, Owner, Reading, Recovered, StoreError, Swept};

use super::NOW;

/// Opens it and looks through it, and adds up what was found.
fn open(folder: &Path) -> (Hold, Recovered) {
    let (hold, mut recovered) = Hold::open(folder, NOW).unwrap();
    let Swept { blobs, entered_blobs, removed_files, lost_blobs, lost_adoptions } =
        hold.sweep(NOW, || true).unwrap();
    recovered.swept.blobs += blobs;
    recovered.swept.entered_blobs += entered_blobs;
    recovered.swept.removed_files += removed_files;
    recovered.swept.lost_blobs += lost_blobs;
    recovered.swept.lost_adoptions += lost_adoptions;
    (hold, recovered)
}

fn system() -> Owner {
    Owner::new("system")
}

/// A hold with a blob that a containerd adopted and one that is cached.
struct Holding {
    folder: tempfile::TempDir,
    hold: Hold,
    adopted: Digest,
    cached: Digest,
}

impl Holding {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hold = open(folder.path()).0;
        let adopted = hold.keep(b"adopted", &Digest::of(b"adopted"), NOW).unwrap().blob().digest.clone();
        let cached = hold.keep(b"cached", &Digest::of(b"cached"), NOW).unwrap().blob().digest.clone();
        hold.adopt(&system(), &adopted, NOW).unwrap().unwrap();
        Self { folder, hold, adopted, cached }
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    }

    fn reopened(self) -> (Self, Recovered) {
        let Self { folder, hold, adopted, cached } = self;
        drop(hold);
        let (hold, recovered) = open(folder.path());
        (Self { folder, hold, adopted, cached }, recovered)
    }

    /// The cached blob is forgotten, the adopted one is missed, and fetching it again heals it.
    fn has_lost_both(&self) {
        let Self { hold, adopted, cached, .. } = self;
        assert!(matches!(hold.read(cached).unwrap(), Reading::No));
        assert!(matches!(hold.read(adopted).unwrap(), Reading::Lost { size: 7 }));
        assert!(hold.blob(cached).unwrap().is_none());
        assert!(hold.blob(adopted).unwrap().is_none());
        assert_eq!(hold.adopt(&system(), adopted, NOW).unwrap().unwrap().blob.size, 7);
        assert_eq!(hold.adopted_after(&system(), None, 9).unwrap().len(), 1);
        assert!(
            hold.adopt(&Owner::new("other"), adopted, NOW).unwrap().is_none(),
            "nobody else relies on it"
        );
        assert!(matches!(hold.keep(b"adopted", adopted, NOW).unwrap(), Kept::New(_)));
        assert_eq!(bytes(hold, adopted), b"adopted");
    }
}

fn bytes(hold: &Hold, digest: &Digest) -> Vec<u8> {
    match hold.read(digest).unwrap() {
        Reading::Open(open) => open.read_at(0, usize::MAX).unwrap().to_vec(),
        lost @ (Reading::Lost { .. } | Reading::No) => panic!("{lost:?}"),
    }
}

/// Writes other bytes into a file, at a time that is not the one before, however coarse the file system's clock.
fn overwrite(file: &Path, bytes: &[u8]) {
    fs::write(file, bytes).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(UNIX_EPOCH).unwrap();
}

fn each_file(holding: &Holding, spoil: impl Fn(&Path)) {
    for digest in [&holding.adopted, &holding.cached] {
        spoil(&holding.file(digest));
    }
}

#[test]
fn a_file_that_is_gone_is_noticed_at_the_read() {
    let holding = Holding::new();
    each_file(&holding, |file| fs::remove_file(file).unwrap());
    holding.has_lost_both();
}

#[test]
fn a_file_that_is_gone_is_noticed_at_the_start() {
    let holding = Holding::new();
    each_file(&holding, |file| fs::remove_file(file).unwrap());
    let (holding, recovered) = holding.reopened();
    assert_eq!(
        (recovered.swept.lost_blobs, recovered.swept.lost_adoptions, recovered.swept.blobs),
        (2, 1, 0)
    );
    holding.has_lost_both();
}

#[test]
fn a_file_of_another_length_is_not_held() {
    for length in [0, 5, 100] {
        let holding = Holding::new();
        each_file(&holding, |file| {
            fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap()
        });
        holding.has_lost_both();
        let holding = Holding::new();
        each_file(&holding, |file| {
            fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap()
        });
        let (holding, recovered) = holding.reopened();
        assert_eq!((recovered.swept.lost_blobs, recovered.swept.removed_files), (2, 2));
        holding.has_lost_both();
    }
}

#[test]
fn a_file_whose_bytes_changed_is_not_held() {
    let holding = Holding::new();
    each_file(&holding, |file| {
        let length = fs::read(file).unwrap().len();
        overwrite(file, &vec![b'x'; length]);
    });
    holding.has_lost_both();
}

#[test]
fn a_commit_does_not_trust_a_file_that_changed_unnoticed() {
    let holding = Holding::new();
    each_file(&holding, |file| overwrite(file, b"xxxxxxx"));
    assert!(matches!(holding.hold.keep(b"adopted", &holding.adopted, NOW).unwrap(), Kept::New(_)));
    assert_eq!(bytes(&holding.hold, &holding.adopted), b"adopted");
}

#[test]
fn a_file_that_was_only_copied_is_hashed_once_and_held_on() {
    let holding = Holding::new();
    let later = UNIX_EPOCH + Duration::new(7, 7);
    let touch =
        |file: &Path| fs::File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
    each_file(&holding, touch);
    assert_eq!(bytes(&holding.hold, &holding.adopted), b"adopted");
    // What is remembered now is the new time: the same bytes at yet another time are not looked at again before.
    assert!(matches!(holding.hold.keep(b"adopted", &holding.adopted, NOW).unwrap(), Kept::Already(_)));
}

#[test]
fn a_file_that_fails_while_it_is_read_can_be_given_up() {
    let holding = Holding::new();
    let Reading::Open(open) = holding.hold.read(&holding.adopted).unwrap() else { panic!() };
    each_file(&holding, |file| fs::File::options().write(true).open(file).unwrap().set_len(1).unwrap());
    open.read_at(0, usize::MAX).unwrap_err();
    assert!(matches!(holding.hold.read_again(&holding.adopted).unwrap(), Reading::Lost { .. }));
    assert!(matches!(holding.hold.read_again(&holding.cached).unwrap(), Reading::No));
    holding.has_lost_both();
}

#[test]
fn a_released_blob_that_is_lost_is_forgotten() {
    let holding = Holding::new();
    each_file(&holding, |file| fs::remove_file(file).unwrap());
    assert!(holding.hold.release(&system(), &holding.adopted).unwrap());
    assert!(matches!(holding.hold.read(&holding.adopted).unwrap(), Reading::No));
    assert!(holding.hold.adopt(&system(), &holding.adopted, NOW).unwrap().is_none());
    let (_, recovered) = holding.reopened();
    assert_eq!((recovered.swept.blobs, recovered.adoptions), (0, 0));
}

#[test]
fn a_missing_index_is_made_anew_from_the_files() {
    let holding = Holding::new();
    fs::write(holding.file(&Digest::of(b"adopted")).with_file_name("rubbish"), b"rubbish").unwrap();
    let Holding { folder, hold, adopted, cached } = holding;
    drop(hold);
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (hold, recovered) = open(folder.path());
    let told = Recovered {
        swept: Swept { blobs: 2, entered_blobs: 2, removed_files: 1, ..Swept::default() },
        adoptions: 1,
        entered_adoptions: 1,
        ..Recovered::default()
    };
    assert_eq!(recovered, told);
    assert_eq!(bytes(&hold, &cached), b"cached");
    assert!(hold.adopted(&system(), &adopted).unwrap().is_some());
    assert!(hold.adopted(&system(), &cached).unwrap().is_none());
}

#[test]
fn an_index_and_a_blob_that_are_both_lost_leave_the_adoption_and_its_size() {
    let holding = Holding::new();
    each_file(&holding, |file| fs::remove_file(file).unwrap());
    let Holding { folder, hold, adopted, cached } = holding;
    drop(hold);
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (hold, recovered) = open(folder.path());
    assert_eq!((recovered.adoptions, recovered.swept.lost_adoptions), (1, 1));
    Holding { folder, hold, adopted, cached }.has_lost_both();
}

/// Whatever is done to the database's files: it opens, or it is moved aside, and nothing else is lost.
#[test]
fn a_damaged_index_costs_neither_blobs_nor_adoptions() {
    type Spoiling = fn(Vec<u8>) -> Vec<u8>;
    let spoilings: [(&str, Spoiling); 6] = [
        ("emptied", |_| Vec::new()),
        ("halved", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("zeroed", |bytes| vec![0; bytes.len()]),
        ("noise", |bytes| (0..bytes.len()).map(|at| (at * 31 + at / 7) as u8).collect()),
        ("one byte in a hundred flipped", |mut bytes| {
            bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x55);
            bytes
        }),
        ("the head overwritten", |mut bytes| {
            bytes.iter_mut().take(64).for_each(|byte| *byte = 0xff);
            bytes
        }),
    ];
    let mut moved_aside = 0;
    for file in ["db", "conf"] {
        for (how, spoil) in spoilings {
            let Holding { folder, hold, adopted, cached } = Holding::new();
            drop(hold);
            let path = folder.path().join("index").join(file);
            fs::write(&path, spoil(fs::read(&path).unwrap())).unwrap();
            let (hold, recovered) = open(folder.path());
            let case = format!("{file} {how}: {recovered:?}");
            assert_eq!((recovered.swept.blobs, recovered.adoptions), (2, 1), "{case}");
            assert_eq!(bytes(&hold, &adopted), b"adopted", "{case}");
            assert_eq!(bytes(&hold, &cached), b"cached", "{case}");
            assert!(hold.adopted(&system(), &adopted).unwrap().is_some(), "{case}");
            if let Some(aside) = recovered.damaged_index {
                assert!(aside.starts_with(folder.path()) && aside.is_dir(), "{case}");
                moved_aside += 1;
            }
            drop(hold);
            assert!(!open(folder.path()).1.put_right(), "{case}");
        }
    }
    assert!(moved_aside > 0);
}

/// Also where one stands that an earlier version made.
#[test]
fn nobody_else_looks_into_the_hold() {
    let Holding { folder, hold, .. } = Holding::new();
    drop(hold);
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path().join("index"), everybody).unwrap();
    let _hold = open(folder.path());
    for name in ["blobs", "index", "adopted", "ingest"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn a_second_daemon_is_turned_away_and_does_no_harm() {
    let holding = Holding::new();
    assert!(matches!(Hold::open(holding.folder.path(), NOW), Err(StoreError::InUse(_))));
    assert_eq!(bytes(&holding.hold, &holding.adopted), b"adopted");
}

#[tokio::test]
async fn an_ingest_whose_adoption_failed_no_longer_writes_to_the_blob() {
    let folder = tempfile::tempdir().unwrap();
    let hold = open(folder.path()).0;
    let ingests = Ingests::open(&hold, system()).unwrap();
    // Where the marks go stands something else.
    fs::write(folder.path().join("adopted/system"), b"").unwrap();
    let mut ingest = ingests.write("layer", NOW).await.unwrap();
    ingest.write(b"tide", NOW).unwrap();
    assert!(ingest.commit(Announced::default(), NOW).is_err());
    assert!(ingests.status("layer").is_none());
    let mut again = ingests.write("layer", NOW).await.unwrap();
    again.write(b"hold", NOW).unwrap();
    assert_eq!(bytes(&hold, &Digest::of(b"tide")), b"tide");
}

/// Changed since, or by anybody, it is looked through; as it was left, it is not.
#[test]
fn after_a_close_only_what_has_changed_is_looked_through() {
    let Holding { folder, hold, adopted, cached } = Holding::new();
    let file =
        |digest: &Digest| folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let long_after = clock::now() + Duration::from_secs(60);
    hold.close(long_after).unwrap();
    drop(hold);
    // No folder's names change by this.
    for digest in [&adopted, &cached] {
        fs::File::options().write(true).open(file(digest)).unwrap().set_len(1).unwrap();
    }
    let (hold, recovered) = open(folder.path());
    assert_eq!((recovered.swept.blobs, recovered.swept.lost_blobs), (0, 0));
    hold.close(long_after).unwrap();
    drop(hold);
    fs::remove_file(file(&cached)).unwrap();
    let of_cached = fs::File::open(file(&cached).parent().unwrap()).unwrap();
    of_cached.set_modified(UNIX_EPOCH).unwrap();
    let (hold, recovered) = open(folder.path());
    assert_eq!((recovered.swept.blobs, recovered.swept.lost_blobs), (0, 1));
    assert!(hold.blob(&cached).unwrap().is_none());
    drop(hold);
    // This time it was not closed.
    let (_, recovered) = open(folder.path());
    assert_eq!((recovered.swept.lost_blobs, recovered.swept.removed_files), (1, 1));
}

#[test]
fn a_sweep_that_was_cut_off_leaves_all_to_the_next_start() {
    let Holding { folder, hold, adopted, cached } = Holding::new();
    drop(hold);
    let hold = Hold::open(folder.path(), NOW).unwrap().0;
    hold.sweep(NOW, || false).unwrap();
    hold.close(clock::now() + Duration::from_secs(60)).unwrap();
    let holding = Holding { folder, hold, adopted, cached };
    each_file(&holding, |file| fs::File::options().write(true).open(file).unwrap().set_len(1).unwrap());
    let (_, recovered) = holding.reopened();
    assert_eq!(recovered.swept.lost_blobs, 2);
}

#[test]
fn notes_of_commits_do_not_pile_up() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let hold = open(folder.path()).0;
    let notes = || fs::read_dir(folder.path().join("entering")).unwrap().count();
    let mut most = 0;
    for number in 0..600_u32 {
        let bytes = number.to_be_bytes();
        hold.keep(&bytes, &Digest::of(&bytes), NOW).unwrap();
        most = most.max(notes());
    }
    assert!((1..=256).contains(&most), "{most}");
    hold.flush().unwrap();
    assert_eq!(notes(), 0);
}
