//! The mirror beside nginx and docker-registry: a large blob, ranges of it, small manifests, and a herd that wants
//! what nobody has.
//!
//! The client runs on the same machine and takes its share of the cores, the same for every side.

use std::sync::Barrier;

use crate::client::Client;
use crate::daemon::Log;
use crate::images::{self, Image, Kind};
use crate::load::{Request, load};
use crate::origin::{Origin, PREFIX};
use crate::report::{Report, quantile};
use crate::rivals::{Rival, Server};
use crate::stopwatch::{Stopwatch, timed};
use crate::tree::Numbers;
use crate::{Options, places};

/// As containerd sends it.
const ACCEPT: &str = "Accept: application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*\r\n";

pub(crate) fn run(options: &Options) -> Report {
    let mut report = Report::new("mirror");
    let image = images::image(Kind::Noise, options.quick);
    let origin = Origin::start(images::registry());
    if options.wants("blob") {
        blobs(options, &mut report, &origin, &image);
    }
    if options.wants("manifest") {
        manifests(options, &mut report, &origin, &image);
    }
    if options.wants("herd") {
        herds(options, &mut report, &origin, &image);
    }
    report.note("of requests, ranges and GB a second more is better");
    report
}

/// Those of these that this machine has.
fn available(rivals: &[Rival], report: &mut Report) -> Vec<Rival> {
    let mut there = Vec::new();
    for rival in rivals {
        match rival.available() {
            Ok(()) => there.push(*rival),
            Err(why) => report.note(format!("{} was not measured: {why}", rival.name())),
        }
    }
    there
}

/// The order of a round: there and back.
fn in_turn<T>(sides: &[T], round: usize) -> Box<dyn Iterator<Item = &T> + '_> {
    if round.is_multiple_of(2) { Box::new(sides.iter()) } else { Box::new(sides.iter().rev()) }
}

fn blobs(options: &Options, report: &mut Report, origin: &Origin, image: &Image) {
    let rivals = [Rival::NginxFiles, Rival::Tidehold, Rival::NginxCache, Rival::DockerRegistry];
    let files = images::registry();
    report.compare_with(Rival::NginxFiles.name());
    let started: Vec<(Rival, Server)> = available(&rivals, report)
        .into_iter()
        .map(|rival| (rival, rival.start(origin.address(), &files, Log::Usual)))
        .collect();
    let blob = format!("/v2/{PREFIX}{}/blobs/{}", image.name, image.largest);
    for (rival, server) in &started {
        eprintln!("  {} takes the blob in", rival.name());
        let answer = Client::connect(&server.address).get(&format!("{blob}{}", server.query), "");
        assert_eq!(answer.status, 200, "{}", rival.name());
    }
    places::settle();
    for round in 0..options.rounds(5) {
        for clients in [1, 8, 64] {
            for (rival, server) in in_turn(&started, round) {
                let rate = whole_blobs(server, &blob, clients);
                report.add(&format!("warm blob, {clients} clients"), "GB/s", rival.name(), rate);
            }
        }
        for clients in [1, 8] {
            for (rival, server) in in_turn(&started, round) {
                let rate = ranges(server, &blob, clients, options.size(400, 50));
                report.add(
                    &format!("1 MiB ranges of a blob, {clients} clients"),
                    "ranges/s",
                    rival.name(),
                    rate,
                );
            }
        }
    }
}

/// Each client gets the blob once, all at the same time: GB a second of all together.
fn whole_blobs(server: &Server, blob: &str, clients: usize) -> f64 {
    let path = format!("{blob}{}", server.query);
    let (seconds, bytes) = together(server, clients, |client, _| client.get(&path, "").body_bytes);
    bytes.iter().sum::<u64>() as f64 / seconds / 1e9
}

/// Each client gets so many pieces from anywhere in the blob: pieces a second of all together.
fn ranges(server: &Server, blob: &str, clients: usize, each: usize) -> f64 {
    const PIECE: u64 = 1 << 20;
    let path = format!("{blob}{}", server.query);
    // A range of one byte says how long the blob is, by how much is left behind it.
    let size = Client::connect(&server.address).get(&path, "Range: bytes=1-\r\n").body_bytes + 1;
    let (seconds, _) = together(server, clients, |client, number| {
        let mut numbers = Numbers(number as u64);
        for _ in 0..each {
            let first = numbers.below(size - PIECE);
            let range = format!("Range: bytes={first}-{}\r\n", first + PIECE - 1);
            let answer = client.get(&path, &range);
            assert_eq!((answer.status, answer.body_bytes), (206, PIECE));
        }
    });
    (clients * each) as f64 / seconds
}

/// Has so many connected clients begin at the same moment: the time until the last is done, and what each answers.
fn together<T: Send>(
    server: &Server,
    clients: usize,
    work: impl Fn(&mut Client, usize) -> T + Sync,
) -> (f64, Vec<T>) {
    let begin = Barrier::new(clients + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                let (begin, work) = (&begin, &work);
                scope.spawn(move || {
                    let mut client = Client::connect(&server.address);
                    begin.wait();
                    work(&mut client, number)
                })
            })
            .collect();
        begin.wait();
        timed(|| threads.into_iter().map(|thread| thread.join().expect("a client that ends well")).collect())
    })
}

fn manifests(options: &Options, report: &mut Report, origin: &Origin, image: &Image) {
    const CONNECTIONS: u64 = 32;
    let seconds = options.size(3.0, 0.5);
    report.compare_with(Rival::NginxCache.name());
    let files = images::registry();
    for (log, logging) in [(Log::Usual, "usual logs"), (Log::Off, "no logs")] {
        let rivals = available(&[Rival::NginxCache, Rival::Tidehold, Rival::DockerRegistry], report);
        let rivals = rivals.into_iter().filter(|rival| log == Log::Usual || *rival != Rival::DockerRegistry);
        let started: Vec<(Rival, Server)> =
            rivals.map(|rival| (rival, rival.start(origin.address(), &files, log))).collect();
        for round in 0..options.rounds(5) {
            for (method, head) in [("HEAD", true), ("GET", false)] {
                for (by, reference) in [("tag", "latest"), ("digest", image.digest.as_str())] {
                    for (rival, server) in in_turn(&started, round) {
                        let path =
                            format!("/v2/{PREFIX}{}/manifests/{reference}{}", image.name, server.query);
                        // The first answer fills the cache.
                        assert_eq!(Client::connect(&server.address).get(&path, ACCEPT).status, 200);
                        let request = Request { head, path: &path, headers: ACCEPT };
                        let load = load(&server.address, request, CONNECTIONS, seconds);
                        let row = format!("manifest {method} by {by}, {logging}");
                        report.add(&row, "requests/s", rival.name(), load.per_second);
                        report.add_quietly(&format!("{row}, p99"), "ms", rival.name(), load.p99_ms);
                    }
                }
            }
        }
    }
}

fn herds(options: &Options, report: &mut Report, origin: &Origin, image: &Image) {
    const CLIENTS: usize = 64;
    /// About a gigabit, on each connection.
    const PACE: u64 = 100_000_000;
    report.compare_with(Rival::NginxCache.name());
    let rivals = available(&[Rival::NginxCache, Rival::Tidehold, Rival::DockerRegistry], report);
    let blob = format!("/v2/{PREFIX}{}/blobs/{}", image.name, image.largest);
    let files = images::registry();
    for round in 0..options.rounds(3) {
        for rival in in_turn(&rivals, round) {
            let server = rival.start(origin.address(), &files, Log::Usual);
            origin.pace(PACE);
            origin.take_blob_bytes();
            let watch = Stopwatch::start();
            let path = format!("{blob}{}", server.query);
            let (_, answers) = together(&server, CLIENTS, |client, _| client.get(&path, ""));
            let seconds = watch.seconds();
            let blob_bytes = answers[0].body_bytes as f64;
            let whole = answers.iter().filter(|answer| answer.status == 200).count();
            if whole < CLIENTS {
                report.note(format!("cold herd: {}: only {whole} of {CLIENTS} had the blob", rival.name()));
            }
            let first: Vec<f64> = answers.iter().map(|answer| answer.first_byte).collect();
            let asked = origin.take_blob_bytes() as f64;
            let row = format!("cold herd of {CLIENTS}");
            report.add(&format!("{row}, upstream bytes"), "× the blob", rival.name(), asked / blob_bytes);
            report.add(&format!("{row}, first byte p50"), "s", rival.name(), quantile(&first, 0.5));
            report.add(&format!("{row}, first byte p99"), "s", rival.name(), quantile(&first, 0.99));
            report.add(&format!("{row}, all done"), "s", rival.name(), seconds);
            drop(server);
            origin.pace(0);
        }
    }
}
