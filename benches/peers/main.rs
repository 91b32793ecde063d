//! Tidehold beside its peers: containerd's builtin store, nginx, Debian's docker-registry.
//!
//! Each section alternates the sides in one run, prints medians, spreads and ratios, and writes the samples as
//! JSON. What cannot be had is reported, never left out in silence. `benches/run.sh` fetches the peers and runs this.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a measurement fails"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod client;
mod commit;
mod content;
mod cpu;
mod daemon;
mod images;
mod index;
mod load;
mod memory;
mod mirror;
mod node;
mod origin;
mod places;
mod pulls;
mod report;
mod rivals;
mod stopwatch;
mod tree;

use clap::{Parser, ValueEnum};

use report::Report;

/// Compares Tidehold with its peers on this machine.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What to measure; all of it where none is named
    sections: Vec<Section>,
    /// A smoke run: fewer rounds, smaller images
    #[arg(long)]
    quick: bool,
    /// How often each side is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Only what has each of these words in its name, and a result file of its own
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only these sides of `pulls`, by their names in its tables
    #[arg(long, value_name = "NAME")]
    side: Vec<String>,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// How often each side is measured, where a section takes `usual` rounds.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { usual })
    }

    /// Whether something of this name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.iter().all(|word| name.contains(word.as_str()))
    }

    /// Whether a side is to be measured.
    pub(crate) fn has_side(&self, side: &str) -> bool {
        self.side.is_empty() || self.side.iter().any(|wanted| wanted == side)
    }

    /// One of two sizes.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// containerd with its builtin store against containerd with Tidehold
    Pulls,
    /// The mirror against nginx and docker-registry
    Mirror,
    /// Memory while many read at once, some of them slowly
    Memory,
    /// Start, memory and look-ups of large holds
    Index,
    /// How long a large blob takes in
    Commit,
}

impl Section {
    fn run(self, options: &Options) -> Report {
        match self {
            Self::Pulls => pulls::run(options),
            Self::Mirror => mirror::run(options),
            Self::Memory => memory::run(options),
            Self::Index => index::run(options),
            Self::Commit => commit::run(options),
        }
    }
}

fn main() {
    let options = Options::parse();
    places::sweep();
    if let Err(why) = places::own_disk() {
        eprintln!("no file system for this run alone ({why}): files are made where others remove theirs");
    }
    let all = Section::value_variants();
    let chosen = if options.sections.is_empty() { all } else { &options.sections };
    for section in chosen {
        let report = section.run(&options);
        println!("{}", report.tables());
        println!("samples: {}\n", report.write(&options).display());
    }
}
