//! The command or the daemon is killed in the middle, at many points: the next run goes on, and nothing is lost or doubled.

use std::fs;
use std::io::{BufRead as _, BufReader};

use crate::node::Node;
use crate::support::hub::digest_of;

/// More than go together, so that there are several waits for the disk.
const BLOBS: usize = 700;

/// After so many lines: the plan is the first one.
const LINES: [usize; 6] = [0, 1, 2, 130, 300, 600];

fn full_node() -> (Node, Vec<String>) {
    let node = Node::start(&[]);
    let digests = (0..BLOBS).map(|number| node.store(format!("blob {number}").as_bytes())).collect();
    (node, digests)
}

/// Runs the command until it has written so many lines, and ends something then.
fn until(
    node: &mut Node,
    lines: usize,
    options: &[&str],
    end: impl FnOnce(&mut Node, &mut std::process::Child),
) {
    let mut child = node.command(&[options, &["--json"]].concat()).spawn().unwrap();
    let mut written = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..lines {
        written.next();
    }
    end(node, &mut child);
    // What it still has to say is taken, so that it comes to its end.
    let _ = written.count();
    child.wait().unwrap();
}

fn is_whole(node: &Node, digests: &[String]) {
    node.adopt(&[]).done();
    node.shares(digests);
    assert_eq!(node.relied_on(), digests.iter().cloned().collect());
    assert_eq!(node.daemon.held().len(), digests.len());
    for digest in digests {
        // containerd's name, the hold's, and no other.
        let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(node.file_of(digest)).unwrap());
        assert_eq!(links, 2, "{digest}");
    }
}

#[test]
fn a_command_that_is_killed_is_taken_up() {
    for lines in LINES {
        let (mut node, digests) = full_node();
        until(&mut node, lines, &[], |_, child| child.kill().unwrap());
        until(&mut node, lines / 2, &[], |_, child| child.kill().unwrap());
        is_whole(&node, &digests);
    }
}

#[test]
fn a_daemon_that_is_killed_is_taken_up() {
    let (mut node, digests) = full_node();
    for lines in LINES {
        until(&mut node, lines, &[], |node, _| {
            node.daemon.kill();
            node.daemon.start_again();
        });
    }
    is_whole(&node, &digests);
}

#[test]
fn a_daemon_that_stops_meanwhile_is_taken_up() {
    let (mut node, digests) = full_node();
    until(&mut node, 1, &[], |node, _| assert!(node.daemon.terminate().success()));
    node.daemon.start_again();
    is_whole(&node, &digests);
}

#[test]
fn giving_back_is_taken_up() {
    let (mut node, digests) = full_node();
    node.adopt(&[]).done();
    for lines in LINES {
        fs::remove_dir_all(node.blobs()).unwrap();
        until(&mut node, lines, &["--undo"], |_, child| child.kill().unwrap());
        node.adopt(&["--undo"]).done();
        node.shares(&digests);
        assert_eq!(fs::read_dir(node.blobs()).unwrap().count(), digests.len());
        assert_eq!(fs::read_dir(node.content()).unwrap().count(), 1, "nothing is left aside");
    }
    node.adopt(&[]).done();
}

#[test]
fn a_daemon_that_answers_nobody_is_told() {
    let node = Node::start(&[b"one"]);
    let still = node.daemon.stand_still();
    node.adopt(&[]).failed_with(1, &["the daemon does not answer within", "tidehold doctor"]);
    drop(still);
    node.adopt(&[]).done();
}

/// A blob that is written to while it is read is no blob of the hold; as soon as it holds still it is.
#[test]
fn a_blob_that_changes_meanwhile_is_never_held_with_other_bytes() {
    let node = Node::start(&[]);
    let bytes = vec![7; 32 << 20];
    let digest = node.store(&bytes);
    for length in [bytes.len() as u64 - 1, bytes.len() as u64] {
        let mut child = node.command(&["--json"]).spawn().unwrap();
        let mut written = BufReader::new(child.stdout.take().unwrap()).lines();
        written.next();
        // Somewhere in the middle of it.
        let file = fs::File::options().write(true).open(node.file_of(&digest)).unwrap();
        file.set_len(length).unwrap();
        fs::write(node.file_of(&digest), &bytes).unwrap();
        let _ = written.count();
        child.wait().unwrap();
        for held in node.daemon.held() {
            assert_eq!(held, digest);
        }
    }
    fs::write(node.file_of(&digest), &bytes).unwrap();
    node.adopt(&[]).done();
    assert_eq!(digest_of(&fs::read(node.daemon.file_of(&digest)).unwrap()), digest);
}
