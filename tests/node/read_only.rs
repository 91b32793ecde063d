//! A hold that cannot be written, though its disk has room: no pull is spent on what could not be kept, it is said what
//! to do, and that is all that it takes.

use http::StatusCode;

use crate::Scenario;
use crate::bench::{FIXED, LATEST, Node, assert_free, release};
use crate::full::{RESERVE, blob, held_is_served, ingest, node, refused_by_the_mirror, tidehold};
use crate::support::containerd::Version;
use crate::support::daemon::Plan;
use crate::support::disk;
use crate::support::hub::REPOSITORY;
use crate::support::hub::client::{ALL_MANIFESTS, Client, Reply};
use crate::support::scenario::{only, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        needs: |_| disk::available(),
        ..scenario(
            "no pull is spent on a hold that cannot be written, and it recovers by itself",
            cannot_be_written,
        )
    },
    Scenario {
        needs: |_| disk::available(),
        ..only(&[Version::V2], "what the disk has refused once costs no second pull", refuses)
    },
];

fn cannot_be_written(version: Version) {
    let node = node(version);
    node.containerd.pull("default", FIXED);
    let more = node.upstream.push("more", 1 << 10);
    for folder in ["entering", "ingest", "blobs", ""] {
        let well = |path: &str| health(&node, path).status == StatusCode::OK;
        assert!(well("/readyz"), "{folder:?}");
        node.daemon.disk().forbid_writing(folder);
        // What has moved stays where it was, and what is new is left to its registry.
        node.hub().tag(REPOSITORY, "latest", &more.image.digest);
        assert_free(&node.cost_of(|| {
            refused_by_the_mirror(&node, &more.reference);
            held_is_served(&node);
        }));
        let explained = tidehold(&node, &["explain", LATEST]).ended_well();
        explained.said(&["was answered as stale: the hold cannot be written", "Read-only file system"]);
        node.hub().tag(REPOSITORY, "latest", &node.hub().first().digest);

        let refused = blob(&node, more.large());
        assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{refused:?}");
        let mend = "mount -o remount,rw";
        let error = refused.json()["errors"][0].clone();
        assert_eq!(error["code"], "UNAVAILABLE");
        assert!(error["message"].as_str().unwrap().contains(mend), "{error}");
        // Before its containerd has asked a registry for what it could not write.
        ingest(&node, b"tide").failed_with(1, &["the hold cannot be written", mend]);
        assert!(node.containerd.log().contains("code = FailedPrecondition"));
        let warmed = tidehold(&node, &["warm", "--json", &more.reference]).failed_with(1, &[]);
        assert_eq!(warmed.event("failed")["code"], "FAILED_PRECONDITION", "{warmed:?}");
        tidehold(&node, &["status"]).ended_well().said(&["nothing new can be kept", mend]);
        let ready = health(&node, "/readyz");
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(String::from_utf8_lossy(&ready.body).contains(mend), "{ready:?}");
        assert!(well("/healthz"), "a new start would not help");

        node.daemon.disk().let_write(folder);
        // What it tried to write meanwhile it tries once more before it goes on.
        node.upstream.soon(async {
            let ready = format!("{}/readyz", node.daemon.web());
            while Client::new().get(&ready, &[]).await.status != StatusCode::OK {}
        });
        let again = node.upstream.push(&format!("again-{}", folder.len()), 1 << 10);
        node.containerd.pull("default", &again.reference);
        assert_eq!(node.containerd.run("default", &again.reference), release(&again.image));
    }
}

fn refuses(version: Version) {
    // Nothing but a try tells that it takes no more files.
    let plan = Plan { disk: Some("48m,nr_inodes=1k"), rest: RESERVE, ..Plan::default() };
    let mut node = Node::start_as(version, plan);
    node.containerd.pull("default", LATEST);
    let more = node.upstream.push("more", 1 << 10);
    // Nothing that it has made is left to be removed.
    assert!(node.daemon.terminate().success());
    node.daemon.start_again();
    node.daemon.disk().use_up_files();
    let manifest = |node: &Node| {
        let url = format!("{}/v2/{REPOSITORY}/manifests/more?ns=docker.io", node.daemon.mirror());
        node.upstream.soon(Client::new().get(&url, &[("accept", ALL_MANIFESTS)]))
    };
    let refused = |node: &Node| {
        let reply = manifest(node);
        assert_eq!(reply.status, StatusCode::INSUFFICIENT_STORAGE, "{reply:?}");
        let error = &reply.json()["errors"][0];
        assert!(error["message"].as_str().unwrap().contains("make room, for bytes and for files"), "{error}");
    };
    let first = node.cost_of(|| refused(&node));
    assert_eq!(first.manifest_gets, 1, "{first:?}");
    assert_free(&node.cost_of(|| {
        refused(&node);
        refused(&node);
    }));
    assert_eq!(health(&node, "/readyz").status, StatusCode::SERVICE_UNAVAILABLE);

    node.daemon.disk().free_files();
    node.daemon.await_log("the disk can be written again");
    assert_eq!(manifest(&node).status, StatusCode::OK);
    node.containerd.pull("default", &more.reference);
    assert_eq!(node.containerd.run("default", &more.reference), release(&more.image));
    assert_eq!(health(&node, "/readyz").status, StatusCode::OK);
}

fn health(node: &Node, path: &str) -> Reply {
    node.upstream.soon(Client::new().get(&format!("{}{path}", node.daemon.web()), &[]))
}
