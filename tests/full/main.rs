//! `tidehold adopt` on a disk that gets full while it copies: it says so, loses nothing, and goes on once there is room.
//!
//! Each test is this program once more, in a mount namespace of its own, where `/tmp` and `/mnt` are small file
//! systems in memory: the daemon's and the containerd's. Where there are no such namespaces it is ignored, and says why.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[allow(dead_code, reason = "what of it is used is another's choice")]
#[path = "../adopt/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use node::{Node, Ran};
use rustix::fs::statvfs;
use support::parts::namespaces;

/// The hold's file system, and containerd's.
const HOLD: &str = "/tmp";
const STORE: &str = "/mnt";

/// How many blobs there are. Each takes a block in its store, of which its length tells nothing.
const BLOBS: usize = 3000;

/// How many blocks are left for them where they are given back.
const ROOM: u64 = 250;

/// The name by which this program is told to be the inner one.
const INSIDE: &str = "inside";

const TESTS: &[(&str, fn())] = &[
    ("what does not fit is refused before it is begun", what_does_not_fit),
    ("the hold's disk gets full while blobs are copied into it", taking_over),
    ("containerd's disk gets full while blobs are copied back", giving_back),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(INSIDE) {
        let name = words.next().expect("the test's name");
        let (_, test) = TESTS.iter().find(|(known, _)| *known == name).expect("a test of this name");
        test();
        return ExitCode::SUCCESS;
    }
    let available = namespaces();
    let trials = TESTS.iter().map(|(name, _)| match available.clone() {
        Ok(()) => Trial::test(*name, move || privately(name)),
        Err(reason) => {
            eprintln!("skipped: {name}: {reason}");
            Trial::test(*name, move || Err(reason.into())).with_ignored_flag(true)
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Runs a test where nothing that it mounts or starts outlasts it.
fn privately(name: &str) -> Result<(), libtest_mimic::Failed> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount"]);
    let mounts = format!(
        "mount -t tmpfs -o size=256m tidehold-private {HOLD} && mount -t tmpfs -o size=256m tidehold-private {STORE} && \
         exec \"$@\""
    );
    let output = command
        .args(["sh", "-c", &mounts, "sh"])
        .arg(std::env::current_exe()?)
        .args([INSIDE, name])
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{}: {}{}", output.status, said(&output.stdout), said(&output.stderr)).into())
}

/// A file that leaves so many blocks of a file system to others. Dropping it makes room again.
struct Filler(&'static str);

impl Filler {
    fn leave(folder: &'static str, blocks: u64) -> Self {
        let filler = Self(folder);
        let mut file = File::create(filler.path()).unwrap();
        let disk = statvfs(folder).unwrap();
        let block = vec![0; usize::try_from(disk.f_frsize).unwrap()];
        for _ in blocks..disk.f_bavail {
            match file.write_all(&block) {
                // Others took some of it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                written => written.unwrap(),
            }
        }
        filler
    }

    fn path(&self) -> std::path::PathBuf {
        Path::new(self.0).join("filler")
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(self.path()).unwrap();
    }
}

/// A containerd with many small blobs.
fn full_node() -> (Node, Vec<String>) {
    let node = Node::start_in(Path::new(STORE), &[]);
    let digests = (0..BLOBS).map(|number| node.store(format!("blob {number}").as_bytes())).collect();
    (node, digests)
}

/// What containerd has of these, each what its name says.
fn stored(node: &Node, digests: &[String]) -> usize {
    let read = digests.iter().filter_map(|digest| match fs::read(node.file_of(digest)) {
        Ok(bytes) => Some((digest, bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{digest}: {error}"),
    });
    let whole = read.inspect(|(digest, bytes)| assert_eq!(support::hub::digest_of(bytes), **digest));
    whole.count()
}

fn what_does_not_fit() {
    let (node, digests) = full_node();
    let large = node.store(&vec![7; 4 << 20]);
    for left in [512, 8192] {
        let _filler = Filler::leave(HOLD, left);
        let said = ["the copies take 4.0 MiB", "is free, of which the hold itself needs 32.0 MiB: make room"];
        node.adopt(&["--copy"]).failed_with(1, &said);
    }
    assert!(node.relied_on().is_empty() && node.word().is_none());
    node.nothing_is_left();
    node.adopt(&["--copy"]).done();
    assert_eq!(node.relied_on().len(), BLOBS + 1);

    fs::remove_file(node.file_of(&large)).unwrap();
    let filler = Filler::leave(STORE, 512);
    node.adopt(&["--undo", "--copy"]).failed_with(1, &["the copies take 4.0 MiB", "make room"]);
    assert_eq!(stored(&node, &digests), BLOBS);
    drop(filler);
    node.adopt(&["--undo", "--copy"]).done();
    assert_eq!(stored(&node, &[large]), 1);
}

fn taking_over() {
    let (mut node, digests) = full_node();
    let mut child = node.command(&["--copy", "--json"]).spawn().unwrap();
    let mut written = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(written.any(|line| line.contains("\"taken\"")));
    // It has more to write than anybody who does not read leaves room for.
    let filler = Filler::leave(HOLD, 0);
    assert!(written.all(|line| !line.contains("\"summary\"")));
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.failed_with(1, &["No space left on device", "make room", "run this again"]);
    let taken = node.relied_on();
    assert!(!taken.is_empty() && taken.len() < BLOBS, "{}", taken.len());
    assert!(node.word().is_none(), "not all of it was taken over");
    assert_eq!(stored(&node, &digests), BLOBS);
    node.adopt(&["--copy"]).failed_with(1, &["make room"]);
    drop(filler);

    // Where it could not write its index, the daemon ends as soon as it could, to be started anew.
    if node.adopt(&["--copy"]).code != 0 {
        node.daemon.await_log("the index could not be written");
        node.daemon.await_end();
        node.daemon.start_again();
    }
    node.adopt(&["--copy"]).done();
    assert!(taken.is_subset(&node.relied_on()));
    assert_eq!(node.relied_on(), digests.into_iter().collect());
    assert_eq!(node.daemon.held().len(), BLOBS);
    node.nothing_is_left();
}

fn giving_back() {
    let (node, digests) = full_node();
    node.adopt(&["--copy"]).done();
    for digest in &digests {
        fs::remove_file(node.file_of(digest)).unwrap();
    }
    let filler = Filler::leave(STORE, ROOM);
    node.adopt(&["--undo", "--copy"]).failed_with(
        1,
        &["No space left on device", "make room and run this again, it goes on where it was"],
    );
    let returned = stored(&node, &digests);
    assert!(returned > 0 && returned < BLOBS, "{returned}");
    assert!(node.word().is_some(), "it has not got all back");
    assert_eq!(node.daemon.held().len(), BLOBS);
    drop(filler);
    let ran = node.adopt(&["--undo", "--copy", "--json"]).done();
    assert_eq!(ran.event("planned")["there"], returned);
    assert_eq!(stored(&node, &digests), BLOBS);
    assert_eq!(fs::read_dir(node.content()).unwrap().count(), 1, "nothing is left aside");
}
