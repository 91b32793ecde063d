//! Hand-over: containerd is given whole blobs for what it writes, and fetches none of them itself.

use std::process::Command;
use std::thread;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;

use crate::bench::{LATEST, Node, Pushed, Upstream, hex_of, parts_of, release};
use crate::support::containerd::{Containerd, Store, Version};
use crate::support::daemon::{Daemon, Plan};
use crate::support::hub::{Fault, Kind};
use crate::{Scenario, scenario};

const MIB: usize = 1024 * 1024;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("a cold pull fetches no blob from the mirror", no_blob_over_http),
    scenario(
        "what a cold pull unpacks was downloaded for it, and the next one has it out of the hold",
        bytes_told,
    ),
    scenario("a layer that is handed over shows how far it is, and holds nobody up", true_progress),
    scenario("a containerd without hand-over fetches each blob from the mirror", switched_off),
    scenario("an isolated containerd fetches each blob for each namespace", isolated),
    scenario("a download that goes wrong under a hand-over can be pulled later", gone_wrong),
];

fn no_blob_over_http(version: Version) {
    let node = Node::start(version);
    let pushed = node.upstream.push("layered", MIB);
    node.containerd.pull("default", &pushed.reference);
    assert_eq!(blobs_over_http(&node.daemon), 0);
    assert_each_blob_once(&node.upstream, &pushed);
    assert_eq!(node.containerd.read_back("default"), parts_of(&pushed.image));
    assert_eq!(node.containerd.run("default", &pushed.reference), release(&pushed.image));
}

fn bytes_told(version: Version) {
    let node = Node::start(version);
    let pushed = node.upstream.push("layered", MIB);
    let large = pushed.size_of(pushed.large());
    node.containerd.pull("default", &pushed.reference);
    let [downloaded, upstream, hold] = bytes_of(&node.daemon);
    assert!((large..=downloaded).contains(&upstream), "{upstream} of {downloaded}, {large} at least");
    assert!(hold < large, "{hold}: configs and manifests alone are read again");
    node.containerd.pull("other", &pushed.reference);
    let [again, upstream_again, hold] = bytes_of(&node.daemon);
    assert!(again - downloaded < large && hold >= large, "{hold} out of the hold, {again} downloaded");
    assert_eq!(upstream_again, upstream);
}

/// What the daemon says it has downloaded, and of what clients have read: what for that, and what was held.
fn bytes_of(daemon: &Daemon) -> [u64; 3] {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
    let told = command.args(["status", "--json", "--socket"]).arg(daemon.control()).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    ["bytes_downloaded", "bytes_from_upstream", "bytes_from_hold"].map(|of| status[of].as_u64().unwrap())
}

fn true_progress(version: Version) {
    let Node { containerd, daemon, upstream } = Node::start(version);
    let pushed = upstream.push("large", 24 * MIB);
    let layer = pushed.large();
    let let_through = 16 * MIB as u64;
    upstream.fault(Kind::Cdn, Fault::HoldAt(let_through).only(hex_of(layer)));
    thread::scope(|scope| {
        let pulling = scope.spawn(|| containerd.pull("default", &pushed.reference));
        upstream.await_held(Kind::Cdn);
        upstream.await_ingest(&daemon, layer);
        let total = await_offset(&upstream, &daemon, layer, let_through);
        assert_eq!(total, pushed.size_of(layer));
        assert!(containerd.ctr(&["-n", "default", "content", "active"]).contains(hex_of(layer)));

        containerd.ctr(&["-n", "default", "leases", "create"]);
        containerd.pull("other", LATEST);
        assert_eq!(containerd.run("other", LATEST), release(upstream.hub.first()));
        assert!(!pulling.is_finished());
        upstream.clear();
        pulling.join().unwrap();
    });
    assert_eq!(blobs_over_http(&daemon), 0);
    assert_each_blob_once(&upstream, &pushed);
    assert_eq!(
        containerd.ctr(&["-n", "default", "content", "active"]).lines().count(),
        1,
        "only the heading"
    );
    assert_eq!(containerd.run("default", &pushed.reference), release(&pushed.image));
}

fn switched_off(version: Version) {
    // What the daemon fetches ahead containerd need not fetch at all.
    let rest = "[fetch]\nahead = false\n";
    let node = Node::start_as(version, Plan { of_each: "handover = false", rest, ..Plan::default() });
    let pushed = node.upstream.push("layered", MIB);
    node.containerd.pull("default", &pushed.reference);
    assert_eq!(blobs_over_http(&node.daemon), blobs(&pushed));
    assert_each_blob_once(&node.upstream, &pushed);
    assert_eq!(node.containerd.run("default", &pushed.reference), release(&pushed.image));
}

fn isolated(version: Version) {
    let upstream = Upstream::start();
    let daemon = Daemon::start(&upstream.daemon_config());
    let containerd = Containerd::start(version, Store::Isolated(&daemon.content()));
    containerd.route("docker.io", &daemon.mirror());
    let pushed = upstream.push("layered", MIB);
    for (namespace, times) in [("one", 1), ("two", 2)] {
        containerd.pull(namespace, &pushed.reference);
        assert_eq!(blobs_over_http(&daemon), times * blobs(&pushed));
        assert_eq!(containerd.read_back(namespace), parts_of(&pushed.image));
        assert_eq!(containerd.run(namespace, &pushed.reference), release(&pushed.image));
    }
    assert_each_blob_once(&upstream, &pushed);
}

fn gone_wrong(version: Version) {
    let Node { containerd, daemon, upstream } = Node::start(version);
    let faults = [Fault::WrongBytes, Fault::CutAfter(300_000), Fault::Unavailable, Fault::Refuse];
    for (number, fault) in (1..).zip(faults) {
        let (namespace, marker) = (format!("after-{number}"), format!("wrong-{number}"));
        let pushed = upstream.push(&marker, MIB);
        upstream.fault(Kind::Cdn, fault.only(hex_of(pushed.large())));
        let pulled = containerd.try_pull(&namespace, &pushed.reference).status.success();
        // What is cut is taken up where it broke off; the others never bring the layer.
        assert!(!pulled || matches!(fault, Fault::CutAfter(_)), "{fault:?}");
        assert_eq!(daemon.held().iter().any(|held| held == pushed.large()), pulled, "{fault:?}");

        upstream.clear();
        containerd.pull(&namespace, &pushed.reference);
        assert_eq!(containerd.read_back(&namespace), parts_of(&pushed.image), "{fault:?}");
        assert_eq!(containerd.run(&namespace, &pushed.reference), release(&pushed.image), "{fault:?}");
    }
}

/// How many blobs were fetched from the mirror.
fn blobs_over_http(daemon: &Daemon) -> usize {
    let log = daemon.log();
    let asked = |line: &&str| {
        line.contains("tidehold::mirror") && line.contains("method=GET") && line.contains("/blobs/")
    };
    log.lines().filter(asked).count()
}

fn blobs(pushed: &Pushed) -> usize {
    1 + pushed.image.own().layers.len()
}

#[track_caller]
fn assert_each_blob_once(upstream: &Upstream, pushed: &Pushed) {
    let counters = upstream.hub.counters();
    let own = pushed.image.own();
    for blob in std::iter::once(&own.config).chain(&own.layers) {
        assert_eq!(counters.cdn_wholes_by_digest.get(blob), Some(&1), "{blob}: {counters:?}");
    }
}

/// Asks for the ingest of a blob until it is so far, and answers its total. The last 4 KiB that came are not shown
/// before the whole is verified.
fn await_offset(upstream: &Upstream, daemon: &Daemon, digest: &str, let_through: u64) -> u64 {
    let let_through = i64::try_from(let_through).unwrap();
    upstream.soon(async {
        let connection = containerd_client::connect(daemon.content()).await.unwrap();
        let mut client = ContentClient::new(connection);
        let mut last = 0;
        loop {
            let listed =
                client.list_statuses(api::ListStatusesRequest::default()).await.unwrap().into_inner();
            let ours = listed.statuses.iter().find(|status| status.r#ref.ends_with(digest));
            let status = ours.expect("the ingest is listed");
            assert!((last..=let_through).contains(&status.offset), "{status:?} after {last}");
            if status.offset >= let_through - 4096 {
                return u64::try_from(status.total).unwrap();
            }
            last = status.offset;
        }
    })
}
