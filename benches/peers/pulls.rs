//! What a pull takes, and its parts: containerd with its builtin store, with Tidehold, and with Tidehold as a plain
//! proxied store, where containerd itself applies the layers.
//!
//! Every side starts with empty folders in every round. The page cache is left as it is, and what was written is
//! brought to the disk before each step, so that no side waits for what another wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::diff_client::DiffClient;

use crate::daemon::{self, Log, Tidehold};
use crate::images::{self, Image, Kind};
use crate::node::{Node, Side};
use crate::origin::Origin;
use crate::report::Report;
use crate::stopwatch::timed;
use crate::support::containerd::Version;
use crate::support::hub::digest_of;
use crate::{Options, places, tree};

pub(crate) fn run(options: &Options) -> Report {
    let mut report = Report::new("pulls");
    let origin = Origin::start(images::registry());
    let ingested = Ingested::make(options);
    for version in Version::ALL {
        if let Err(why) = version.available() {
            report.note(format!("containerd {version} was not measured: {why}"));
            continue;
        }
        let sides = sides(version, &mut report);
        report.compare_with("builtin");
        for kind in Kind::ALL {
            if !options.wants(&format!("{version} {kind}")) {
                continue;
            }
            let image = images::image(kind, options.quick);
            // Not removed before the last round is over: making files is slow where many were just deleted.
            let mut over = Vec::new();
            for round in 0..options.rounds(5) {
                eprintln!("containerd {version}, {kind}, round {}", round + 1);
                let mut sides = sides.clone();
                if round % 2 == 1 {
                    sides.reverse();
                }
                sides.retain(|side| options.has_side(&side.to_string()));
                for side in sides {
                    let tidehold =
                        (side != Side::Builtin).then(|| Tidehold::start(&origin.url(), "", Log::Usual));
                    let node = Node::start(version, side, tidehold, &origin.url());
                    let mut steps =
                        Steps { node, side, named: format!("{version} {kind}"), report: &mut report };
                    steps.all(&image, &ingested);
                    over.push(steps.node.end());
                }
            }
        }
    }
    if ["unpigz", "igzip"].iter().any(|name| Path::new("/usr/bin").join(name).exists()) {
        report.note("unpigz or igzip is installed here: containerd decompresses by it");
    }
    report
}

/// The sides that this version has.
fn sides(version: Version, report: &mut Report) -> Vec<Side> {
    let differs = if version == Version::V1_6 { has_processor() } else { has_differ() };
    if !differs {
        report.note(format!(
            "containerd {version}: this build applies no layers for it, so only the plain proxied store"
        ));
    }
    Side::ALL.into_iter().filter(|side| differs || *side != Side::Tidehold).collect()
}

/// Whether this build has the program that decompresses layers for 1.6.
fn has_processor() -> bool {
    let mut command = Command::new(daemon::PROGRAM);
    command.args(["decompress", "--help"]).output().is_ok_and(|output| output.status.success())
}

/// Whether this build serves the differ: a service that is not there is *unimplemented* without a word.
fn has_differ() -> bool {
    let tidehold = Tidehold::start("http://127.0.0.1:1", "", Log::Off);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asked = runtime.block_on(async {
        let channel = containerd_client::connect(tidehold.content()).await.expect("a socket that listens");
        DiffClient::new(channel).apply(api::ApplyRequest::default()).await
    });
    !asked.is_err_and(|status| status.code() == tonic::Code::Unimplemented && status.message().is_empty())
}

/// A file that no registry has, for `ctr content ingest`.
struct Ingested {
    file: PathBuf,
    digest: String,
}

impl Ingested {
    fn make(options: &Options) -> Self {
        let folder = places::kept("ingest");
        let length = options.size(300_000_000, 30 << 20);
        let (file, digest) = (folder.join(length.to_string()), folder.join(format!("{length}.digest")));
        if !digest.exists() {
            let bytes = tree::Numbers(11).noise(length);
            fs::write(&file, &bytes).expect("a file");
            fs::write(&digest, digest_of(&bytes)).expect("a file");
        }
        Self { file, digest: fs::read_to_string(digest).expect("a file") }
    }
}

struct Steps<'a> {
    node: Node,
    side: Side,
    /// What is measured, without the step.
    named: String,
    report: &'a mut Report,
}

impl Steps<'_> {
    fn all(&mut self, image: &Image, ingested: &Ingested) {
        let reference = image.reference();
        self.step("cold pull", |node| node.pull("one", &reference));
        self.step("warm pull", |node| node.pull("two", &reference));
        self.node.fetch("three", &reference);
        self.step("unpack", |node| node.unpack("three", &image.digest));
        self.step("content read", |node| node.read("two", &image.largest));
        self.node.remove_image("one", &reference);
        self.node.remove_image("two", &reference);
        self.node.remove_image("three", &reference);
        self.step("pull after prune", |node| node.pull("one", &reference));
        self.step("ingest", |node| node.ingest("one", &ingested.file, &ingested.digest));
    }

    fn step(&mut self, what: &str, work: impl FnOnce(&Node)) {
        places::settle();
        let before = self.node.cpu();
        let (seconds, ()) = timed(|| work(&self.node));
        let after = self.node.cpu();
        let (row, side) = (format!("{} {what}", self.named), self.side.to_string());
        self.report.add(&row, "s", &side, seconds);
        let containerd = after.containerd - before.containerd;
        self.report.add_quietly(&format!("{row}, CPU of containerd and ctr"), "s", &side, containerd);
        let tidehold = after.tidehold - before.tidehold;
        self.report.add_quietly(&format!("{row}, CPU of Tidehold"), "s", &side, tidehold);
    }
}
