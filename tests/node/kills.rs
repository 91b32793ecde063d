//! The daemon is killed in the middle of pulls, at moments that the stand-in for Docker Hub makes stand still.

use std::thread;

use crate::bench::{LATEST, Node, Pushed, hex_of, parts_of, release};
use crate::support::containerd::Version;
use crate::support::hub::{Fault, Kind};
use crate::{Scenario, scenario};

const KIB: u64 = 1024;
const LAYER_BYTES: usize = 3 * 1024 * 1024;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    versions: &[Version::V1_7, Version::V2],
    ..scenario("twelve kills in the middle of pulls lose nothing", twelve_kills)
}];

/// When the daemon is killed: when the stand-in holds this request.
struct Moment {
    kind: Kind,
    fault: Fault,
    /// What stands in the path of the request.
    of: fn(&Pushed) -> &str,
}

const MOMENTS: [Moment; 12] = [
    at(Kind::Cdn, Fault::HoldAt(300 * KIB), large),
    at(Kind::ManifestHead, Fault::Hang, tag),
    at(Kind::ManifestGet, Fault::Hang, index),
    at(Kind::ManifestGet, Fault::Hang, manifest),
    at(Kind::Blob, Fault::Hang, large),
    at(Kind::Cdn, Fault::Hang, config),
    at(Kind::Cdn, Fault::HoldAt(100), config),
    at(Kind::Cdn, Fault::HoldAt(0), large),
    at(Kind::Cdn, Fault::HoldAt(1), large),
    at(Kind::Cdn, Fault::HoldAt(64 * KIB), large),
    at(Kind::Cdn, Fault::HoldAt(2000 * KIB + 1), large),
    // The daemon gives out the end of a blob only when it has all of it.
    at(Kind::Cdn, Fault::HoldAt(LAYER_BYTES as u64), large),
];

fn twelve_kills(version: Version) {
    let Node { containerd, mut daemon, upstream } = Node::start_activated(version);
    containerd.pull("bystander", LATEST);
    let bystander = parts_of(upstream.hub.first());
    let namespaces = (1..=MOMENTS.len()).map(|number| format!("after-{number}"));
    let mut whole = Vec::new();
    for (namespace, moment) in namespaces.zip(&MOMENTS) {
        let pushed = upstream.push(&namespace, LAYER_BYTES);
        let part = (moment.of)(&pushed);
        upstream.fault(moment.kind, moment.fault.only(part));
        thread::scope(|scope| {
            let pulling = scope.spawn(|| containerd.try_pull(&namespace, &pushed.reference));
            upstream.await_held(moment.kind);
            daemon.kill();
            upstream.clear();
            daemon.start_again();
            // Its connection was cut; whether it tries again on another one is containerd's to decide.
            let _ = pulling.join().unwrap();
        });
        containerd.await_store("bystander", &upstream.hub.first().own().config);
        assert_eq!(containerd.read_back("bystander"), bystander);
        containerd.read_back(&namespace);
        daemon.held();

        containerd.pull(&namespace, &pushed.reference);
        let parts = parts_of(&pushed.image);
        assert_eq!(containerd.read_back(&namespace), parts, "{part}");
        whole.push((namespace, pushed, parts));
    }
    for (namespace, pushed, parts) in &whole {
        assert_eq!(containerd.read_back(namespace), *parts);
        assert_eq!(containerd.run(namespace, &pushed.reference), release(&pushed.image));
    }
    let held = daemon.held();
    assert!(whole.iter().flat_map(|(_, _, parts)| parts).all(|part| held.contains(part)));
}

const fn at(kind: Kind, fault: Fault, of: fn(&Pushed) -> &str) -> Moment {
    Moment { kind, fault, of }
}

fn tag(pushed: &Pushed) -> &str {
    &pushed.image.marker
}

fn index(pushed: &Pushed) -> &str {
    &pushed.image.digest
}

fn manifest(pushed: &Pushed) -> &str {
    &pushed.image.own().manifest
}

fn config(pushed: &Pushed) -> &str {
    hex_of(&pushed.image.own().config)
}

fn large(pushed: &Pushed) -> &str {
    hex_of(pushed.large())
}
