//! Taking over.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use crate::node::{Node, inode};
use crate::support::hub::digest_of;

const BLOBS: [&[u8]; 3] = [b"one", b"two", b"three is longer"];

#[test]
fn every_blob_is_linked_relied_on_and_told_of() {
    let node = Node::start(&BLOBS);
    let begun = tidehold::clock::now();
    let ran = node.adopt(&["--json"]).done();
    let planned = ran.event("planned");
    assert_eq!((&planned["blobs"], &planned["new"], &planned["way"]), (&3.into(), &3.into(), &"link".into()));
    assert_eq!(planned["bytes"], 21);
    let taken = ran.events("taken");
    assert!(taken.iter().all(|taken| taken["how"] == "link"), "{taken:?}");
    let digests: Vec<String> = BLOBS.iter().map(|bytes| digest_of(bytes)).collect();
    assert!(digests.iter().all(|digest| taken.iter().any(|taken| taken["digest"] == digest.as_str())));
    let summary = ran.event("summary");
    assert_eq!((&summary["linked"], &summary["whole"]), (&3.into(), &true.into()));
    node.shares(&digests);
    assert_eq!(node.relied_on(), digests.iter().cloned().collect());

    let word = node.word().unwrap();
    assert_eq!(word["root"], fs::canonicalize(node.root()).unwrap().to_str().unwrap());
    assert_eq!(word["blobs"], 3);
    let at = humantime::parse_rfc3339(word["at"].as_str().unwrap()).unwrap();
    assert!(at < tidehold::clock::now() && at > begun - Duration::from_secs(60));
}

#[test]
fn a_second_run_takes_what_is_new_and_nothing_else() {
    let node = Node::start(&BLOBS);
    node.adopt(&[]).done();
    let first = node.word().unwrap();
    let new = node.store(b"came later");
    let ran = node.adopt(&["--json"]).done();
    let planned = ran.event("planned");
    assert_eq!((&planned["adopted"], &planned["new"]), (&3.into(), &1.into()));
    assert_eq!(ran.events("taken").len(), 1);
    node.shares([&new]);
    assert_eq!(node.word().unwrap()["blobs"], 4);
    assert_ne!(node.word().unwrap()["at"], first["at"]);
    let ran = node.adopt(&[]).done();
    assert!(ran.stdout.contains("4 taken over before, 0 held already, 0 new"), "{ran:?}");
}

#[test]
fn what_the_hold_has_already_is_relied_on_and_not_taken_twice() {
    let node = Node::start_for(&["one", "two"]);
    let held = digest_of(b"a blob");
    node.adopt(&["--containerd", "one"]).done();
    let before = inode(&node.daemon.file_of(&held));
    // Another containerd has a copy of its own.
    let copy = fs::read(node.file_of(&held)).unwrap();
    fs::remove_file(node.file_of(&held)).unwrap();
    node.store(&copy);
    let ran = node.adopt(&["--containerd", "two", "--json"]).done();
    assert_eq!(ran.event("planned")["held"], 1);
    assert_eq!(ran.event("taken")["how"], "held");
    assert_eq!(inode(&node.daemon.file_of(&held)), before);
    node.nothing_is_left();
    assert_eq!(fs::read_dir(node.daemon.data().join("adopted/two")).unwrap().count(), 1);
}

#[test]
fn a_dry_run_says_how_and_changes_nothing() {
    let node = Node::start(&BLOBS);
    let ran = node.adopt(&["--dry-run"]).done();
    assert!(ran.stdout.contains("3 new (21 B), which would be taken over as hard links"), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 1);
    node.nothing_is_left();
    assert!(node.daemon.held().is_empty() && node.relied_on().is_empty() && node.word().is_none());
    for digest in BLOBS.iter().map(|bytes| digest_of(bytes)) {
        assert!(node.file_of(&digest).exists());
    }
}

#[test]
fn what_is_not_what_its_name_says_is_named_and_left_out() {
    let node = Node::start(&BLOBS);
    let (bad, empty) = (digest_of(b"something else"), digest_of(b"not nothing"));
    node.store_as(&bad, b"damaged");
    node.store_as(&empty, b"");
    let ran = node.adopt(&[]);
    ran.failed_with(
        1,
        &[
            &bad,
            &digest_of(b"damaged"),
            &empty,
            "2 blobs were left out",
            "ctr -n NAMESPACE content ls",
            "What no namespace has is nobody's: remove its file",
            "containerd \"node\" is not ready",
        ],
    );
    assert!(node.word().is_none(), "not all of it was taken over");
    assert_eq!(node.relied_on(), BLOBS.iter().map(|bytes| digest_of(bytes)).collect());
    assert!(node.file_of(&bad).exists(), "containerd's own is left alone");
    node.nothing_is_left();
    let ran = node.adopt(&["--json"]).failed_with(1, &["left out"]);
    assert_eq!((ran.events("bad").len(), ran.event("summary")["whole"].clone()), (2, false.into()));

    for damaged in [bad, empty] {
        fs::remove_file(node.file_of(&damaged)).unwrap();
    }
    node.adopt(&[]).done();
    assert_eq!(node.word().unwrap()["blobs"], 3);
}

#[test]
fn what_is_no_blob_is_left_alone() {
    let node = Node::start(&BLOBS);
    fs::write(node.blobs().join("rubbish"), b"rubbish").unwrap();
    fs::create_dir(node.file_of(&digest_of(b"a folder"))).unwrap();
    symlink("/etc/hostname", node.file_of(&digest_of(b"a link"))).unwrap();
    let _socket = UnixListener::bind(node.blobs().join("socket")).unwrap();
    fs::create_dir_all(node.content().join("ingest/under-way")).unwrap();
    fs::write(node.content().join("ingest/under-way/data"), b"half").unwrap();
    let ran = node.adopt(&[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("4 things are there that containerd has no use for as blobs"), "{ran:?}");
    assert!(ran.stdout.contains("Left alone there: 1 unfinished write\n"), "{ran:?}");
    assert_eq!(node.relied_on().len(), 3);
    assert_eq!(fs::read(node.content().join("ingest/under-way/data")).unwrap(), b"half");
    node.nothing_is_left();
}

/// As containerd 1.x has them while two namespaces pull one image.
#[test]
fn two_writes_of_one_blob_are_not_told_as_two_blobs() {
    let node = Node::start(&BLOBS);
    let digest = digest_of(b"a layer");
    for namespace in ["first", "second"] {
        let ingest = node.content().join("ingest").join(namespace);
        fs::create_dir_all(&ingest).unwrap();
        fs::write(ingest.join("ref"), format!("{namespace}/1/layer-{digest}")).unwrap();
        fs::write(ingest.join("data"), b"a la").unwrap();
    }
    let ran =
        node.adopt(&["--dry-run"]).done().said(&["has 3 blobs", "Left alone there: 2 unfinished writes\n"]);
    assert!(!ran.stdout.contains("2 blobs"), "{ran:?}");
    assert_eq!(node.adopt(&["--dry-run", "--json"]).done().event("planned")["ingests"], 2);
}

#[test]
fn one_of_several_containerds_has_to_be_named() {
    let node = Node::start_for(&["one", "two"]);
    node.adopt(&[]).failed_with(2, &["there are several containerds", "one, two", "--containerd"]);
    node.adopt(&["--containerd", "three"]).failed_with(2, &["no containerd \"three\"", "one, two"]);
    node.adopt(&["--containerd", "two"]).done();
    assert!(node.daemon.data().join("adopted-from/two").exists());
}

#[test]
fn a_folder_that_is_no_containerds_is_refused() {
    let node = Node::start(&BLOBS);
    let folder = tempfile::tempdir().unwrap();
    for other in [folder.path(), &node.daemon.data()] {
        let ran = node.adopt_from(other, &[]);
        ran.failed_with(2, &["neither containerd's root nor its content store", "--from"]);
    }
    node.adopt_from(&folder.path().join("missing"), &[]).failed_with(1, &["is it containerd's root"]);
    node.adopt_from(&node.content(), &[]).done();
}

/// A store on another file system is copied only where that is asked for, and once.
#[test]
fn a_store_on_another_file_system_is_copied_only_where_that_is_wanted() {
    let other = Path::new("/dev/shm");
    let device = |folder: &Path| fs::metadata(folder).unwrap().dev();
    assert_ne!(device(other), device(&std::env::temp_dir()), "this test needs two file systems");
    let node = Node::start_in(other, &BLOBS);
    let ran = node.adopt(&["--dry-run"]).done();
    assert!(ran.stdout.contains("which would be taken over as copies"), "{ran:?}");
    node.adopt(&[]).failed_with(1, &["3 blobs can only be copied", "21 B", "--copy", "is free"]);
    assert!(node.relied_on().is_empty());
    let ran = node.adopt(&["--copy", "--json"]).done();
    assert_eq!(ran.event("summary")["copied"], 3);
    let ran = node.adopt(&["--copy", "--json"]).done();
    assert_eq!((ran.event("planned")["adopted"].clone(), ran.events("taken").len()), (3.into(), 0));
    assert_eq!(node.daemon.held().len(), 3);
    node.nothing_is_left();
    // And back: what containerd has still, and what has been brought back, is not copied again.
    let ran = node.adopt(&["--undo"]).done();
    assert!(ran.stdout.contains("0 blobs given back, 3 there already"), "{ran:?}");
    fs::remove_dir_all(node.blobs()).unwrap();
    node.adopt(&["--undo"]).failed_with(1, &["3 blobs can only be copied", "--copy"]);
    node.adopt(&["--undo", "--copy"]).done();
    assert_eq!(fs::read(node.file_of(&digest_of(BLOBS[2]))).unwrap(), BLOBS[2]);
    let ran = node.adopt(&["--undo"]).done();
    assert!(ran.stdout.contains("0 blobs given back, 3 there already"), "{ran:?}");
}

#[test]
fn without_a_daemon_it_says_so_and_offline_it_opens_the_hold_itself() {
    let mut node = Node::start(&BLOBS);
    node.adopt(&["--offline"]).failed_with(1, &["another tidehold has"]);
    assert!(node.daemon.terminate().success());
    node.adopt(&[]).failed_with(1, &["nobody answers", "is `tidehold serve` running"]);
    node.adopt(&["--offline"]).done();
    let digests: Vec<String> = BLOBS.iter().map(|bytes| digest_of(bytes)).collect();
    node.shares(&digests);
    fs::remove_dir_all(node.blobs()).unwrap();
    node.adopt(&["--offline", "--undo"]).done();
    node.shares(&digests);
    node.daemon.start_again();
    let ran = node.adopt(&[]).done();
    assert!(ran.stdout.contains("3 taken over before"), "{ran:?}");
    assert!(!node.daemon.log().contains("has been put right"), "{}", node.daemon.log());
}
