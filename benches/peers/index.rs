//! What a large hold costs: start-up, memory, looking up, adopting and listing.
//!
//! The blobs are files of a few bytes, made once; the index is made from them by the daemon itself, so that it is
//! always the one of the build that is measured. They move into the daemon's folder and back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::content::Content;
use crate::daemon::{Log, Tidehold};
use crate::report::Report;
use crate::stopwatch::{Stopwatch, timed};
use crate::support::hub::digest_of;
use crate::tree::Numbers;
use crate::{Options, cpu, places};

const SIDE: &str = "Tidehold";

pub(crate) fn run(options: &Options) -> Report {
    let mut report = Report::new("index");
    report.compare_with(SIDE);
    let counts: &[(u64, &str)] =
        &[(10_000, "10 thousand"), (100_000, "100 thousand"), (1_000_000, "1 million")];
    for (count, name) in options.size(counts, &counts[..1]) {
        if options.wants(name) {
            measure(options, &mut report, *count, name);
        }
    }
    report
        .note("blobs are files of a few bytes; starts are from exec to the notice that the daemon is ready");
    report
}

fn measure(options: &Options, report: &mut Report, count: u64, name: &str) {
    let kept = Kept::make(count);
    let data = places::private();
    let lent = kept.lend(data.path());
    let row = |what: &str| format!("{name} blobs, {what}");
    let (seconds, mut tidehold) = timed(|| Tidehold::start_on(data, "http://127.0.0.1:1", "", Log::Usual));
    report.add(&row("index made from the files alone"), "s", SIDE, seconds);
    let mut numbers = Numbers(count);
    for _ in 0..options.rounds(5) {
        tidehold.stop();
        places::settle();
        let watch = Stopwatch::start();
        tidehold.start_again();
        report.add(&row("start after a clean stop"), "s", SIDE, watch.seconds());
        let mut content = Content::connect(&tidehold.content());
        content.has(&digest(numbers.below(count)));
        report.add(&row("the same, to the first answer"), "s", SIDE, watch.seconds());
        report.add(&row("resident after the start"), "MiB", SIDE, cpu::memory(tidehold.pid(), "VmRSS"));
        look_up(report, &row, &mut content, count, &mut numbers);
        report.add(&row("resident after looking up"), "MiB", SIDE, cpu::memory(tidehold.pid(), "VmRSS"));
        tidehold.kill();
        places::settle();
        let (seconds, ()) = timed(|| tidehold.start_again());
        report.add(&row("start after a crash"), "s", SIDE, seconds);
    }
    report.add(&row("peak resident since the last start"), "MiB", SIDE, cpu::memory(tidehold.pid(), "VmHWM"));
    tidehold.stop();
    lent.back(tidehold.data());
}

/// A hundred blobs are adopted, and more is asked about.
fn look_up(
    report: &mut Report,
    row: &impl Fn(&str) -> String,
    content: &mut Content,
    count: u64,
    numbers: &mut Numbers,
) {
    const ADOPTED: u64 = 100;
    const LOOKS: u64 = 5_000;
    let chosen: Vec<String> = (0..ADOPTED).map(|_| digest(numbers.below(count))).collect();
    let each = |looks: u64, seconds: f64| seconds / looks as f64 * 1e6;
    let (seconds, ()) = timed(|| assert!(chosen.iter().all(|digest| content.has(digest))));
    report.add(&row("Info of a blob that it adopts"), "µs", SIDE, each(ADOPTED, seconds));
    let again = chosen.iter().cycle().take(usize::try_from(LOOKS).expect("a few"));
    let (seconds, ()) = timed(|| again.for_each(|digest| assert!(content.has(digest))));
    report.add(&row("Info of an adopted blob"), "µs", SIDE, each(LOOKS, seconds));
    let absent: Vec<String> = (0..LOOKS).map(|_| digest(count + numbers.below(count))).collect();
    let (seconds, ()) = timed(|| absent.iter().for_each(|digest| assert!(!content.has(digest))));
    report.add(&row("Info of a blob that is not held"), "µs", SIDE, each(LOOKS, seconds));
    let (seconds, listed) = timed(|| content.count());
    report.add(&row("List of what is adopted"), "ms", SIDE, seconds * 1e3);
    report.note(format!("{}: the last list had {listed} blobs", row("adopted")));
}

/// The files of so many blobs, beneath `blobs/` as a hold has them.
struct Kept(PathBuf);

impl Kept {
    fn make(count: u64) -> Self {
        let folder = places::kept("holds").join(count.to_string());
        if !folder.is_dir() {
            eprintln!("making {count} blobs, once");
            let partial = folder.with_extension("partial");
            let _ = fs::remove_dir_all(&partial);
            for prefix in 0..=255 {
                fs::create_dir_all(partial.join(format!("sha256/{prefix:02x}"))).expect("a folder");
            }
            for number in 0..count {
                let digest = digest(number);
                let hex = digest.strip_prefix("sha256:").expect("a digest of sha256");
                fs::write(partial.join("sha256").join(&hex[..2]).join(hex), text(number)).expect("a file");
            }
            places::settle();
            fs::rename(&partial, &folder).expect("the same file system");
        }
        Self(folder)
    }

    /// Moves the files to where a daemon with this folder looks for them.
    fn lend(self, data: &Path) -> Lent {
        fs::rename(&self.0, data.join("blobs")).expect("the same file system");
        Lent(self.0)
    }
}

/// Files that are somewhere else for now. What ends in between makes the next run make them anew.
struct Lent(PathBuf);

impl Lent {
    fn back(self, data: &Path) {
        fs::rename(data.join("blobs"), self.0).expect("the same file system");
    }
}

fn text(number: u64) -> String {
    format!("blob {number}")
}

fn digest(number: u64) -> String {
    digest_of(text(number).as_bytes())
}
