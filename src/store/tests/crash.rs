//! Every step of the store as its last one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::NOW;
use super::model::Model;
use super::scenario;
use super::trial::{Crash, Image, Lie, Trial};
use crate::oci::Digest;
use crate::store::Hold;
use crate::store::index::Entries;

/// Plays the scenario on an empty disk and answers with all its ends.
fn all_ends(lie: Option<Lie>) -> Vec<Crash> {
    let folder = super::folder();
    let model = Arc::default();
    let image = Image { index: Some(Entries::new()), ..Image::default() };
    let nothing = Crash {
        at: String::new(),
        synced: image.clone(),
        durable: image.clone(),
        image,
        model: Model::default(),
    };
    let disk = Trial::of(&nothing, folder.path(), Arc::clone(&model), lie);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(scenario::play(folder.path(), &disk, &model));
    disk.trial.unwrap().crashes()
}

/// What is wrong after any of these ends.
fn faults(crashes: &[Crash]) -> Vec<String> {
    let check =
        |crash: &Crash| crash.model.check(&crash.image).err().map(|why| format!("{}\n    {why}", crash.at));
    let half = crashes.len() / 2;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| crashes[..half].iter().filter_map(check).collect::<Vec<_>>());
        let second: Vec<_> = crashes[half..].iter().filter_map(check).collect();
        [first.join().unwrap(), second].concat()
    })
}

fn report(crashes: &[Crash]) {
    let faults = faults(crashes);
    assert!(faults.is_empty(), "{} of {} ends:\n{}", faults.len(), crashes.len(), faults.join("\n"));
}

#[test]
fn nothing_that_was_answered_is_lost_at_any_step() {
    let crashes = all_ends(None);
    assert!(crashes.len() > 200, "{} ends", crashes.len());
    report(&crashes);
}

/// A recovery may itself be cut off at any step, the sweep after it included, and is taken up again: of an index that is missing or damaged, and
/// of what every end of the scenario leaves.
#[test]
fn a_recovery_can_be_cut_off_anywhere() {
    let mut ends = all_ends(None);
    for index in [Some(Entries::new()), None] {
        ends.push(without_index(ends.last().unwrap(), index));
    }
    let mut met: HashSet<_> = ends.iter().map(|end| format!("{:?}{:?}", end.image, end.model)).collect();
    let mut cut_off = Vec::new();
    for end in ends {
        let folder = super::folder();
        let disk = Trial::of(&end, folder.path(), Arc::new(Mutex::new(end.model.clone())), None);
        Hold::open_on(disk.clone(), folder.path(), NOW).unwrap().0.sweep(NOW, || true).unwrap();
        let again = disk.trial.unwrap().crashes().into_iter();
        let again = again.filter(|crash| met.insert(format!("{:?}{:?}", crash.image, crash.model)));
        cut_off.extend(again.map(|crash| Crash { at: format!("{}\n  then {}", end.at, crash.at), ..crash }));
    }
    assert!(cut_off.len() > 200, "{} ends", cut_off.len());
    report(&cut_off);
}

/// An end with another index, and with rubbish among the blobs and the downloads.
fn without_index(end: &Crash, index: Option<Entries>) -> Crash {
    let mut image = Image { index, ..end.image.clone() };
    let hex = Digest::of(b"another").hex().to_owned();
    image.put(&format!("blobs/sha256/{}/{hex}", &hex[..2]), b"not what its name says");
    image.put("blobs/sha256/ab/rubbish", b"nothing at all");
    image.put("ingest/download/7", b"begun");
    let model = Model { index_lost: true, ..end.model.clone() };
    Crash { at: "without its index".to_owned(), synced: image.clone(), durable: image.clone(), image, model }
}

/// The checks can fail: where the disk only says that it has waited, something is missed.
#[test]
fn every_wait_for_the_disk_is_needed() {
    for lie in [Lie::FileSync, Lie::BlobFolderSync, Lie::MarkFolderSync, Lie::NoteFolderSync, Lie::FlushIndex]
    {
        let crashes = all_ends(Some(lie));
        let noticed = crashes.iter().any(|crash| crash.model.check(&crash.image).is_err());
        assert!(noticed, "{lie:?} goes unnoticed");
    }
}
