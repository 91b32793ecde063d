//! How much memory many streams at once take, half of them with readers that are far too slow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::daemon::Log;
use crate::images::{self, Image, Kind};
use crate::origin::{Origin, PREFIX};
use crate::report::Report;
use crate::rivals::{Rival, Server};
use crate::stopwatch::Stopwatch;
use crate::{Options, cpu};

/// Of a slow reader's socket, and what it takes a second.
const SLOW_BUFFER: usize = 16 * 1024;
const SLOW_BYTES: usize = 64 * 1024;

pub(crate) fn run(options: &Options) -> Report {
    let mut report = Report::new("memory");
    report.compare_with(Rival::DockerRegistry.name());
    let image = images::image(Kind::Noise, options.quick);
    let origin = Origin::start(images::registry());
    for round in 0..options.rounds(3) {
        eprintln!("memory, round {}", round + 1);
        for streams in [64, 256] {
            for rival in [Rival::DockerRegistry, Rival::Tidehold] {
                if let Err(why) = rival.available() {
                    report.note(format!("{} was not measured: {why}", rival.name()));
                    continue;
                }
                for warm in [true, false] {
                    one(options, &mut report, &origin, &image, rival, streams, warm);
                }
            }
        }
    }
    report.note("half of the streams are read at 64 KiB/s through a receive buffer of 16 KiB; cold ones are read while the download runs");
    report
}

fn one(
    options: &Options,
    report: &mut Report,
    origin: &Origin,
    image: &Image,
    rival: Rival,
    streams: usize,
    warm: bool,
) {
    let server = rival.start(origin.address(), &images::registry(), Log::Usual);
    let path = format!("/v2/{PREFIX}{}/blobs/{}{}", image.name, image.largest, server.query);
    let seconds = options.size(5.0, 1.0);
    origin.pace(0);
    if warm {
        assert_eq!(Client::connect(&server.address).get(&path, "").status, 200);
        // The peak so far is forgotten (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").expect("root");
    } else {
        let size = std::fs::metadata(image.file_of(&image.largest)).expect("the blob").len();
        origin.pace((size as f64 / seconds) as u64);
    }
    let own = watch_streams(&server, &path, streams, seconds);
    let row = format!("{streams} streams, {}", if warm { "warm" } else { "cold" });
    report.add(&format!("{row}, peak resident"), "MiB", rival.name(), cpu::memory(server.pid(), "VmHWM"));
    report.add(&format!("{row}, most of its own (anonymous)"), "MiB", rival.name(), own);
    drop(server);
    origin.pace(0);
}

/// Has the streams run for so many seconds: the most anonymous memory that was seen meanwhile, in MiB.
fn watch_streams(server: &Server, path: &str, streams: usize, seconds: f64) -> f64 {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..streams {
            let (stop, address) = (&stop, &server.address);
            scope.spawn(move || {
                if number % 2 == 0 {
                    Client::connect_with_buffer(address, SLOW_BUFFER).get_slowly(path, SLOW_BYTES, stop);
                } else {
                    while !stop.load(Ordering::Relaxed) {
                        Client::connect(address).get_until(path, stop);
                    }
                }
            });
        }
        let watch = Stopwatch::start();
        let mut most: f64 = 0.0;
        while watch.seconds() < seconds {
            most = most.max(cpu::memory(server.pid(), "RssAnon"));
            std::thread::sleep(LOOK_EVERY);
        }
        stop.store(true, Ordering::Relaxed);
        most
    })
}
