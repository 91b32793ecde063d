//! How long a large blob takes into the content store, and how much of that is the commit, under which containerd
//! holds its one lock.

use sha2::{Digest as _, Sha256};

use crate::content::Content;
use crate::daemon::{Log, Tidehold};
use crate::node::{Node, Side};
use crate::report::Report;
use crate::stopwatch::Stopwatch;
use crate::support::containerd::Version;
use crate::tree::Numbers;
use crate::{Options, places};

/// What `content.Copy` sends at a time.
const PIECE: usize = 1 << 20;

const BUILTIN: &str = "containerd's builtin store";

pub(crate) fn run(options: &Options) -> Report {
    let mut report = Report::new("commit");
    let pieces = options.size(1024, 64);
    let blob = Blob::make(pieces);
    let newest = Version::ALL.into_iter().rev().find(|version| version.available().is_ok());
    report.compare_with(BUILTIN);
    if newest.is_none() {
        report.note("there is no containerd here to compare with");
    }
    for round in 0..options.rounds(5) {
        let builtin = |report: &mut Report| {
            if let Some(version) = newest {
                let node = Node::start(version, Side::Builtin, None, "http://127.0.0.1:1");
                blob.ingest(&mut Content::connect(&node.socket()), report, BUILTIN);
            }
        };
        if round % 2 == 0 {
            builtin(&mut report);
        }
        let tidehold = Tidehold::start("http://127.0.0.1:1", "", Log::Usual);
        blob.ingest(&mut Content::connect(&tidehold.content()), &mut report, "Tidehold");
        drop(tidehold);
        if round % 2 == 1 {
            builtin(&mut report);
        }
    }
    report.note(format!(
        "{pieces} MiB in messages of 1 MiB, each answered before the next is sent, over each one's own socket"
    ));
    report
}

/// Noise: a piece that comes again with a number in front.
struct Blob {
    piece: Vec<u8>,
    pieces: u64,
    digest: String,
}

impl Blob {
    fn make(pieces: u64) -> Self {
        let mut blob = Self { piece: Numbers(3).noise(PIECE), pieces, digest: String::new() };
        let mut hash = Sha256::new();
        for number in 0..pieces {
            hash.update(blob.piece(number));
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        blob.digest = format!("sha256:{hex}");
        blob
    }

    fn piece(&self, number: u64) -> Vec<u8> {
        let mut piece = self.piece.clone();
        piece[..8].copy_from_slice(&number.to_le_bytes());
        piece
    }

    fn ingest(&self, content: &mut Content, report: &mut Report, side: &str) {
        places::settle();
        let watch = Stopwatch::start();
        let mut writer = content.write("bench", self.pieces * PIECE as u64);
        for number in 0..self.pieces {
            writer.piece(self.piece(number));
        }
        let commit = Stopwatch::start();
        writer.commit(&self.digest);
        report.add("COMMIT alone", "s", side, commit.seconds());
        report.add("the whole ingest", "s", side, watch.seconds());
    }
}
