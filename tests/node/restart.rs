//! The daemon restarts under a node that goes on: its sockets are held for it, and who comes meanwhile waits.

use std::fs::{self, File};
use std::thread;

use crate::bench::{LATEST, Node, assert_free, hex_of, parts_of, release};
use crate::support::activation::Door;
use crate::support::containerd::Version;
use crate::support::daemon::Daemon;
use crate::support::hub::{Fault, Kind};
use crate::{Scenario, scenario};

const MIB: usize = 1024 * 1024;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("what comes while the daemon restarts waits and succeeds", |version| {
        restart(version, |daemon| assert!(daemon.terminate().success()));
    }),
    scenario("what comes after the daemon crashed waits and succeeds", |version| {
        restart(version, Daemon::kill)
    }),
    scenario("what comes while the daemon takes long to start waits and succeeds", |version| {
        restart(version, |daemon| {
            daemon.kill();
            leave_much_to_look_through(daemon);
        });
    }),
    scenario("a daemon that is to stop serves on until the pull that runs is done", drain),
];

/// A container runs; another starts, an image is pulled and a blob is read while there is no daemon.
fn restart(version: Version, end: fn(&mut Daemon)) {
    let Node { containerd, mut daemon, upstream } = Node::start_activated(version);
    containerd.pull("default", LATEST);
    let running = containerd.keep_running("default", LATEST, &["sleep", "1000"]);
    let before = running.state();
    let image = upstream.hub.first();
    let config = image.own().config.as_str();
    upstream.hub.reset_counters();

    end(&mut daemon);
    running.exec(&["test", "-s", "/etc/tide-release"]);
    thread::scope(|scope| {
        let pulling = scope.spawn(|| containerd.pull("other", LATEST));
        let starting = scope.spawn(|| containerd.run("default", LATEST));
        let reading = scope.spawn(|| containerd.ctr(&["-n", "default", "content", "get", config]));
        daemon.await_connection(Door::Mirror);
        daemon.await_connection(Door::Content("node"));
        let ended = [pulling.is_finished(), starting.is_finished(), reading.is_finished()];
        assert_eq!(ended, [false; 3], "the pull, the start and the read wait");

        daemon.start_again();
        pulling.join().unwrap();
        assert_eq!(starting.join().unwrap(), release(image));
        assert_eq!(reading.join().unwrap().as_bytes(), image.bytes_of(config).unwrap());
    });
    assert_free(&upstream.hub.counters());
    assert_eq!(containerd.read_back("other"), parts_of(image));
    assert_eq!(running.state(), before);
    running.exec(&["test", "-s", "/etc/tide-release"]);
}

/// A file that no index knows and whose commit was under way is hashed at the start, and this one takes longer than
/// containerd gives a connection to its store to come to life.
fn leave_much_to_look_through(daemon: &Daemon) {
    let (folder, hex) = (daemon.data().join("blobs/sha256/00"), "0".repeat(64));
    fs::create_dir_all(&folder).unwrap();
    File::create(folder.join(&hex)).unwrap().set_len(4096 * MIB as u64).unwrap();
    File::create(daemon.data().join(format!("entering/sha256-{hex}-1"))).unwrap();
}

/// The pull has not asked for all of its layers yet, and others come while it goes on.
fn drain(version: Version) {
    let Node { containerd, mut daemon, upstream } = Node::start_activated(version);
    containerd.pull("default", LATEST);
    let pushed = upstream.push("large", 4 * MIB);
    let layer = pushed.large();
    upstream.fault(Kind::Cdn, Fault::HoldAt(2 * MIB as u64).only(hex_of(layer)));
    thread::scope(|scope| {
        let pulling = scope.spawn(|| containerd.pull("large", &pushed.reference));
        upstream.await_held(Kind::Cdn);
        upstream.await_ingest(&daemon, layer);
        daemon.ask_to_end();
        daemon.await_log("stopping: what runs may end");
        containerd.pull("other", LATEST);
        assert_eq!(containerd.run("other", LATEST), release(upstream.hub.first()));

        upstream.clear();
        assert!(daemon.await_end().success());
        // At once: what containerd asks while there is none fails after a second.
        daemon.start_again();
        assert!(daemon.held().iter().any(|held| held == layer), "the blob is whole");
        pulling.join().unwrap();
    });
    let counters = upstream.hub.counters();
    assert_eq!(counters.cdn_wholes_by_digest.get(layer), Some(&1), "{counters:?}");
    assert_eq!(containerd.read_back("large"), parts_of(&pushed.image));
    assert_eq!(containerd.run("large", &pushed.reference), release(&pushed.image));
}
