//! What others bring, however strange.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::NOW;
use crate::oci::Digest;
use crate::store::{ArrivalError, Arrivals, Hold, Kept, Owner, Reading};

fn hold() -> (tempfile::TempDir, Hold) {
    let folder = super::folder();
    let hold = Hold::open(folder.path(), NOW).unwrap().0;
    (folder, hold)
}

fn place(arrivals: &Arrivals, digest: &Digest) -> PathBuf {
    arrivals.folder().join(format!("{}sha256-{}", arrivals.prefix(), digest.hex()))
}

fn take(arrivals: &Arrivals, digests: &[Digest]) -> Vec<Result<Kept, ArrivalError>> {
    arrivals.take_over(&Owner::new("system"), digests, NOW, |_| true).unwrap()
}

#[test]
fn nothing_but_a_file_with_these_bytes_is_taken_over() {
    let (folder, hold) = hold();
    let arrivals = hold.arrivals();
    let digests: Vec<_> =
        [&b"link"[..], b"folder", b"socket", b"pipe", b"other", b"empty"].map(Digest::of).into();
    let places: Vec<_> = digests.iter().map(|digest| place(&arrivals, digest)).collect();
    // Even a link to the right bytes: what it leads to could be another one the next time.
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, b"link").unwrap();
    symlink(&elsewhere, &places[0]).unwrap();
    fs::create_dir(&places[1]).unwrap();
    let _socket = UnixListener::bind(&places[2]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &places[3], 0o600.into()).unwrap();
    fs::write(&places[4], b"another").unwrap();
    fs::write(&places[5], b"").unwrap();
    let taken = take(&arrivals, &digests);
    assert!(taken[..4].iter().all(|taken| matches!(taken, Err(ArrivalError::NotAFile))), "{taken:?}");
    assert!(taken[4..].iter().all(|taken| matches!(taken, Err(ArrivalError::Digest { .. }))), "{taken:?}");
    assert!(hold.adopted_after(&Owner::new("system"), None, 9).unwrap().is_empty());
    drop(arrivals);
    let left: Vec<_> = fs::read_dir(folder.path().join("arriving")).unwrap().collect();
    assert_eq!(left.len(), 1, "the folder alone is nobody's to remove: {left:?}");
    drop(hold);
    Hold::open(folder.path(), NOW).unwrap();
}

#[test]
fn a_link_of_a_file_is_that_file_and_two_of_them_are_one() {
    let (folder, hold) = hold();
    let theirs = folder.path().join("theirs");
    fs::write(&theirs, b"shared").unwrap();
    let digest = Digest::of(b"shared");
    for owner in ["system", "other"] {
        let arrivals = hold.arrivals();
        fs::hard_link(&theirs, place(&arrivals, &digest)).unwrap();
        let taken = arrivals.take_over(&Owner::new(owner), std::slice::from_ref(&digest), NOW, |_| true);
        let kept = taken.unwrap().remove(0).unwrap();
        assert_eq!(matches!(kept, Kept::New(_)), owner == "system");
        assert!(hold.adopted(&Owner::new(owner), &digest).unwrap().is_some());
    }
    let (ours, theirs) = (fs::metadata(hold.path_of(&digest)).unwrap(), fs::metadata(&theirs).unwrap());
    assert_eq!((ours.ino(), ours.nlink()), (theirs.ino(), 2));
}

/// A name that was put in the hold's own folder by the last try, before the index had it.
#[test]
fn a_link_that_stands_among_the_blobs_already_is_entered() {
    let (folder, hold) = hold();
    let digest = Digest::of(b"shared");
    let theirs = folder.path().join("theirs");
    fs::write(&theirs, b"shared").unwrap();
    let path = hold.path_of(&digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::hard_link(&theirs, &path).unwrap();
    let arrivals = hold.arrivals();
    fs::hard_link(&theirs, place(&arrivals, &digest)).unwrap();
    assert!(matches!(take(&arrivals, std::slice::from_ref(&digest))[..], [Ok(Kept::New(_))]));
    drop(arrivals);
    assert_eq!(fs::metadata(&theirs).unwrap().nlink(), 2, "no third name is left");
    assert!(matches!(hold.read(&digest).unwrap(), Reading::Open(_)));
}

#[test]
fn what_changes_while_it_is_read_is_not_taken_over() {
    let (_folder, hold) = hold();
    let arrivals = hold.arrivals();
    let bytes = vec![7; 3 << 20];
    let digest = Digest::of(&bytes);
    let path = place(&arrivals, &digest);
    fs::write(&path, &bytes).unwrap();
    let mut seen = 0;
    let change = |read| {
        seen += read;
        if seen == bytes.len() as u64 {
            let file = File::options().append(true).open(&path).unwrap();
            file.set_len(seen + 1).unwrap();
        }
        true
    };
    let taken = arrivals.take_over(&Owner::new("system"), std::slice::from_ref(&digest), NOW, change);
    assert!(matches!(taken.unwrap()[..], [Err(ArrivalError::Changed)]));
    fs::write(&path, &bytes).unwrap();
    let broken_off = |_| false;
    let taken = arrivals.take_over(&Owner::new("system"), std::slice::from_ref(&digest), NOW, broken_off);
    assert!(matches!(taken.unwrap()[..], [Err(ArrivalError::BrokenOff)]));
    assert!(matches!(take(&arrivals, std::slice::from_ref(&digest))[..], [Ok(Kept::New(_))]));
}

#[test]
fn a_lost_blob_is_made_whole_by_an_arrival() {
    let (_folder, hold) = hold();
    let digest = Digest::of(b"lost");
    hold.keep(b"lost", &digest, NOW).unwrap();
    hold.adopt(&Owner::new("system"), &digest, NOW).unwrap().unwrap();
    fs::remove_file(hold.path_of(&digest)).unwrap();
    assert!(matches!(hold.read(&digest).unwrap(), Reading::Lost { .. }));
    let arrivals = hold.arrivals();
    fs::write(place(&arrivals, &digest), b"lost").unwrap();
    assert!(matches!(take(&arrivals, std::slice::from_ref(&digest))[..], [Ok(Kept::New(_))]));
    assert!(matches!(hold.read(&digest).unwrap(), Reading::Open(_)));
}
