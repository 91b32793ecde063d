//! A disk that is full: what is new is refused, what containerd relies on is served, and room is all that it takes.

use http::StatusCode;

use crate::Scenario;
use crate::bench::{LATEST, Node, assert_free, parts_of, release};
use crate::support::containerd::Version;
use crate::support::daemon::Plan;
use crate::support::disk;
use crate::support::hub::REPOSITORY;
use crate::support::hub::client::{Client, Reply};
use crate::support::ran::{Ran, plainly};
use crate::support::scenario::only;

const MIB: usize = 1 << 20;

/// All of it is what no download takes.
pub(crate) const RESERVE: &str = "[cache]\nreserve_free = \"8MiB\"\n";

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        needs: |_| disk::available(),
        ..only(&[Version::V1_7, Version::V2], "the last of the disk is taken by no download", the_last_of_it)
    },
    Scenario {
        needs: |_| disk::available(),
        ..only(
            &[Version::V2],
            "on a full disk what is held serves, and it recovers once there is room",
            all_of_it,
        )
    },
];

pub(crate) fn node(version: Version) -> Node {
    let node = Node::start_as(version, Plan { disk: Some("48m"), rest: RESERVE, ..Plan::default() });
    node.containerd.pull("default", LATEST);
    node
}

fn the_last_of_it(version: Version) {
    let node = node(version);
    let more = node.upstream.push("more", MIB);
    node.daemon.disk().fill(4 << 20);

    refused_by_the_mirror(&node, &more.reference);
    let reply = blob(&node, more.large());
    assert_eq!(reply.status, StatusCode::INSUFFICIENT_STORAGE, "{reply:?}");
    let error = &reply.json()["errors"][0];
    assert!(error["message"].as_str().unwrap().contains("room"), "{error}");
    let warmed = tidehold(&node, &["warm", "--json", &more.reference])
        .failed_with(1, &["1 of 1 images could not be had"]);
    assert_eq!(warmed.event("failed")["code"], "RESOURCE_EXHAUSTED", "{warmed:?}");
    held_is_served(&node);

    node.daemon.disk().clear();
    node.containerd.pull("default", &more.reference);
    assert_eq!(node.containerd.run("default", &more.reference), release(&more.image));
}

fn all_of_it(version: Version) {
    let mut node = node(version);
    let more = node.upstream.push("more", MIB);
    node.daemon.disk().fill(0);
    // No pull is spent on what could not be kept.
    assert_free(&node.upstream.cost_of(|| refused_by_the_mirror(&node, &more.reference)));
    let refused = ingest(&node, &vec![7; MIB]).failed_with(1, &["No space left on device"]);
    assert!(node.containerd.log().contains("code = ResourceExhausted"), "{refused:?}");
    // What has moved meanwhile stays where it was.
    node.hub().tag(REPOSITORY, "latest", &more.image.digest);
    held_is_served(&node);
    let explained = tidehold(&node, &["explain", LATEST]).ended_well();
    explained.said(&["was answered as stale: the disk is full"]);

    node.daemon.disk().clear();
    // By itself where its index could not be written meanwhile.
    node.daemon.ask_to_end();
    node.daemon.await_end();
    node.daemon.start_again();
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
    node.containerd.pull("default", LATEST);
    assert_eq!(node.containerd.run("default", LATEST), release(&more.image));
}

pub(crate) fn refused_by_the_mirror(node: &Node, reference: &str) {
    let refused = node.containerd.try_pull("default", reference);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("507"), "{said}");
}

/// To everybody who has asked for it before.
#[track_caller]
pub(crate) fn held_is_served(node: &Node) {
    let image = node.hub().first();
    assert_eq!(node.containerd.run("default", LATEST), release(image));
    assert!(node.containerd.read_back("default").is_superset(&parts_of(image)));
    let layer = image.own().layers.first().unwrap();
    let reply = blob(node, layer);
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    assert!(reply.body == image.bytes_of(layer).unwrap());
    assert_free(&node.upstream.cost_of(|| node.containerd.pull("default", LATEST)));
}

pub(crate) fn blob(node: &Node, digest: &str) -> Reply {
    let url = format!("{}/v2/{REPOSITORY}/blobs/{digest}?ns=docker.io", node.daemon.mirror());
    node.upstream.soon(Client::new().get(&url, &[]))
}

pub(crate) fn tidehold(node: &Node, arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidehold"));
    command.args(arguments).arg("--socket").arg(node.daemon.control());
    plainly(&mut command).output().unwrap().into()
}

/// What nobody pulls: containerd's client writes it.
pub(crate) fn ingest(node: &Node, bytes: &[u8]) -> Ran {
    let file = node.containerd.folder().join("ingested");
    std::fs::write(&file, bytes).unwrap();
    let mut inside = node.containerd.inside();
    let script = "exec ctr --address \"$1\" content ingest some/ref <\"$2\"";
    inside.args(["sh", "-c", script, "sh"]).arg(node.containerd.socket()).arg(file);
    inside.output().unwrap().into()
}
