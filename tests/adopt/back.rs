//! Giving back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::node::{Node, inode};
use crate::support::hub::digest_of;

const BLOBS: [&[u8]; 2] = [b"one", b"two is longer"];

fn digests() -> Vec<String> {
    BLOBS.iter().map(|bytes| digest_of(bytes)).collect()
}

#[test]
fn all_that_is_relied_on_comes_back_as_containerd_would_have_it() {
    let node = Node::start(&BLOBS);
    node.adopt(&[]).done();
    // One is gone from its store, one is a copy by now.
    let [one, two] = [&digests()[0], &digests()[1]];
    fs::remove_file(node.file_of(one)).unwrap();
    fs::remove_file(node.file_of(two)).unwrap();
    node.store(BLOBS[1]);
    assert_ne!(inode(&node.file_of(two)), inode(&node.daemon.file_of(two)));

    let ran = node.adopt(&["--undo", "--dry-run"]).done();
    assert!(ran.stdout.contains("relies on 2 blobs: 0 in"), "{ran:?}");
    assert!(!node.file_of(one).exists() && node.word().is_some());
    let ran = node.adopt(&["--undo", "--json"]).done();
    assert_eq!((ran.event("summary")["linked"].clone(), ran.events("returned").len()), (2.into(), 2));
    node.shares(&digests());
    for (digest, bytes) in digests().iter().zip(BLOBS) {
        let file = node.file_of(digest);
        assert_eq!(fs::read(&file).unwrap(), bytes);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o444);
    }
    assert!(node.word().is_none());
    assert_eq!(node.relied_on().len(), 2, "it relies on them until it is told otherwise");
    let inside = |folder| fs::read_dir(folder).unwrap().count();
    assert_eq!((inside(node.blobs()), inside(node.content())), (2, 1), "nothing else is left there");
    let ran = node.adopt(&["--undo", "--json"]).done();
    assert_eq!((ran.event("planned")["there"].clone(), ran.events("returned").len()), (2.into(), 0));
}

#[test]
fn a_store_that_is_not_there_is_made() {
    let node = Node::start(&BLOBS);
    node.adopt(&[]).done();
    fs::remove_dir_all(node.content()).unwrap();
    fs::create_dir(node.root().join("io.containerd.metadata.v1.bolt")).unwrap();
    node.adopt(&["--undo"]).done();
    node.shares(&digests());
    // As whoever runs this lets folders be made.
    let mode = |folder| fs::metadata(folder).unwrap().mode() & 0o777;
    let made = node.root().join("made");
    fs::create_dir(&made).unwrap();
    let expected = mode(made) & 0o755;
    for folder in [node.content(), node.blobs()] {
        assert_eq!(mode(folder), expected);
    }
}

#[test]
fn it_is_released_only_where_that_is_asked_for() {
    let node = Node::start(&BLOBS);
    node.adopt(&[]).done();
    node.adopt(&["--release"]).failed_with(2, &["--undo"]);
    let ran = node.adopt(&["--undo", "--release"]).done();
    assert!(ran.stdout.contains("2 blobs let go"), "{ran:?}");
    assert!(node.relied_on().is_empty());
    node.shares(&digests());
    assert_eq!(node.daemon.held().len(), 2, "it is cache now");
}

#[test]
fn what_is_lost_is_named() {
    let node = Node::start(&BLOBS);
    node.adopt(&[]).done();
    let [one, two] = [&digests()[0], &digests()[1]];
    // Of these containerd has the second one still.
    for digest in digests() {
        fs::remove_file(node.daemon.file_of(&digest)).unwrap();
    }
    fs::remove_file(node.file_of(one)).unwrap();
    let ran = node.adopt(&["--undo"]).failed_with(1, &[one, "1 blob", "pull their images again"]);
    assert!(!ran.stderr.contains(two.as_str()), "{ran:?}");
    assert!(node.word().is_some(), "it has not got all back");
    assert!(node.file_of(two).exists());
    node.store(BLOBS[0]);
    node.adopt(&["--undo"]).done();
    // Taking over again heals the hold.
    node.adopt(&[]).done();
    node.shares(&digests());
}
