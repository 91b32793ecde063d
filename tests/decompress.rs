//! `tidehold decompress` as containerd 1.6 runs it: a layer comes through its standard input, its tar goes to its
//! standard output, and beside it a daemon holds the layer, from which containerd has begun to read it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use flate2::Compression;
use flate2::write::GzEncoder;
use support::daemon::Daemon;
use support::hub::digest_of;
use tokio::runtime::Runtime;

/// More than pipes hold, compressed or not, in bytes.
const LARGE: usize = 4 << 20;

/// More than is compared first, and no more than a pipe holds while nobody reads it, in bytes.
const BEGINNING: usize = 60_000;

#[test]
fn a_layer_that_containerd_reads_is_read_from_its_file_though_the_pipe_never_ends() {
    let node = Node::start();
    let tar = noise(1, LARGE);
    let layer = gzipped(&tar);
    node.holds(&layer);
    node.begins_to_read(&layer);
    let (program, input) = node.handed(&layer[..BEGINNING]);
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(digest_of(&output.stdout), digest_of(&tar));
    drop(input);
}

#[test]
fn zstd_and_plain_layers_are_read_from_their_files_too() {
    let node = Node::start();
    let tar = noise(2, LARGE);
    for layer in [zstd::encode_all(&tar[..], 1).unwrap(), tar.clone()] {
        node.holds(&layer);
        node.begins_to_read(&layer);
        let (program, _input) = node.handed(&layer[..BEGINNING]);
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(digest_of(&output.stdout), digest_of(&tar));
    }
}

#[test]
fn the_pipe_is_read_where_the_layer_s_file_is_not_known() {
    let node = Node::start();
    let tar = noise(3, LARGE);
    let (layer, other) = (gzipped(&tar), gzipped(&noise(4, LARGE)));
    // Held, but containerd is not reading it here: it may have it from elsewhere.
    node.holds(&layer);
    node.holds(&other);
    node.begins_to_read(&other);
    assert_eq!(digest_of(&node.gives(&layer)), digest_of(&tar));
}

#[test]
fn two_layers_that_begin_alike_are_told_apart_or_left_to_the_pipe() {
    let node = Node::start();
    let (one, mut other) = (noise(5, LARGE), noise(5, LARGE));
    other[LARGE / 2] ^= 1;
    let other_layer = gzipped(&other);
    for layer in [&gzipped(&one), &other_layer] {
        node.holds(layer);
        node.begins_to_read(layer);
    }
    assert_eq!(digest_of(&node.gives(&other_layer)), digest_of(&other));

    // One that goes on where the other ends: only the end of the pipe tells which it is.
    let longer = [&other_layer[..], &gzipped(b"more")].concat();
    node.holds(&longer);
    node.begins_to_read(&longer);
    assert_eq!(digest_of(&node.gives(&other_layer)), digest_of(&other));
    assert_eq!(digest_of(&node.gives(&longer)), digest_of(&[&other[..], b"more"].concat()));
}

#[test]
fn the_pipe_is_read_where_there_is_no_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let tar = noise(6, LARGE);
    let output = run(&folder.path().join("none.sock"), gzipped(&tar));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(digest_of(&output.stdout), digest_of(&tar));
}

#[test]
fn what_is_not_compressed_and_what_is_nothing_comes_out_as_it_went_in() {
    let node = Node::start();
    for bytes in [&b""[..], b"\x1f", b"a tar that is none"] {
        assert_eq!(node.gives(bytes), bytes);
    }
}

#[test]
fn a_layer_that_is_cut_short_or_damaged_fails_and_says_so() {
    let node = Node::start();
    let layer = gzipped(&noise(7, LARGE));
    let mut damaged = layer.clone();
    damaged[LARGE / 2..LARGE / 2 + 100].fill(0);
    for faulty in [&layer[..LARGE / 2], &damaged] {
        let output = run(&node.daemon.content(), faulty.to_vec());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("decompress the layer"), "{said}");
    }
}

/// A daemon, and the runtime of its clients.
struct Node {
    daemon: Daemon,
    runtime: Runtime,
}

impl Node {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { daemon: Daemon::start(""), runtime }
    }

    /// Has the daemon keep a layer.
    fn holds(&self, layer: &[u8]) {
        let digest = digest_of(layer);
        let message = |action: api::WriteAction| api::WriteContentRequest {
            action: action.into(),
            r#ref: digest.clone(),
            ..Default::default()
        };
        let mut messages: Vec<_> = layer
            .chunks(1 << 20)
            .enumerate()
            .map(|(number, data)| api::WriteContentRequest {
                offset: i64::try_from(number << 20).unwrap(),
                data: data.to_vec(),
                ..message(api::WriteAction::Write)
            })
            .collect();
        messages.push(api::WriteContentRequest {
            offset: i64::try_from(layer.len()).unwrap(),
            total: i64::try_from(layer.len()).unwrap(),
            expected: digest.clone(),
            ..message(api::WriteAction::Commit)
        });
        self.runtime.block_on(async {
            let mut replies =
                self.client().await.write(tokio_stream::iter(messages)).await.unwrap().into_inner();
            while replies.message().await.unwrap().is_some() {}
        });
    }

    /// Reads as much of it as containerd reads at once.
    fn begins_to_read(&self, layer: &[u8]) {
        let request = api::ReadContentRequest { digest: digest_of(layer), offset: 0, size: 32 << 10 };
        self.runtime.block_on(async {
            let mut replies = self.client().await.read(request).await.unwrap().into_inner();
            while replies.message().await.unwrap().is_some() {}
        });
    }

    async fn client(&self) -> ContentClient<tonic::transport::Channel> {
        ContentClient::new(containerd_client::connect(self.daemon.content()).await.unwrap())
    }

    /// The program, which was handed these bytes and waits for more as long as its input is there.
    fn handed(&self, bytes: &[u8]) -> (Child, ChildStdin) {
        let mut program = start(&self.daemon.content());
        let mut input = program.stdin.take().unwrap();
        input.write_all(bytes).unwrap();
        (program, input)
    }

    /// What comes out for a whole layer.
    fn gives(&self, layer: &[u8]) -> Vec<u8> {
        let output = run(&self.daemon.content(), layer.to_vec());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

fn start(socket: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tidehold"))
        .args(["decompress", "--socket"])
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(socket: &Path, input: Vec<u8>) -> Output {
    let mut program = start(socket);
    let mut pipe = program.stdin.take().unwrap();
    let fed = thread::spawn(move || {
        let _ = pipe.write_all(&input);
    });
    let output = program.wait_with_output().unwrap();
    fed.join().unwrap();
    output
}

/// Bytes that compress to about half.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 60) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
