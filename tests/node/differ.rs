//! The differ: containerd has the daemon apply the layers that it holds, and moves none of their bytes itself.

use crate::bench::{LATEST, Node, Upstream, release};
use crate::support::containerd::{Containerd, Store, Version};
use crate::support::daemon::Daemon;
use crate::{Scenario, scenario};

/// 1.6 has no differs but its own.
const VERSIONS: &[Version] = &[Version::V1_7, Version::V2];

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { versions: VERSIONS, ..scenario("the daemon applies each layer of a pull", a_pull) },
    Scenario {
        versions: VERSIONS,
        ..scenario("the daemon applies each layer that a client unpacks", a_pull_by_a_client)
    },
    Scenario {
        versions: VERSIONS,
        ..scenario("a layer that the daemon does not have is applied by containerd", not_held)
    },
];

fn a_pull(version: Version) {
    let node = Node::start(version);
    node.containerd.pull("default", LATEST);
    assert_applied_and_runs(&node);
}

fn a_pull_by_a_client(version: Version) {
    let node = Node::start(version);
    node.containerd.pull_by_client("default", LATEST);
    assert_applied_and_runs(&node);
}

fn not_held(version: Version) {
    let upstream = Upstream::start();
    let daemon = Daemon::start(&upstream.daemon_config());
    let containerd = Containerd::start(version, Store::BuiltinWithDiffer(&daemon.content()));
    containerd.route("docker.io", &upstream.hub.registry_url());
    // The transfer service asks one differ only.
    containerd.pull_by_client("default", LATEST);
    assert_eq!(applied(&daemon), 0);
    assert_eq!(containerd.run("default", LATEST), release(upstream.hub.first()));
}

fn assert_applied_and_runs(node: &Node) {
    assert_eq!(applied(&node.daemon), node.hub().first().own().layers.len(), "{}", node.daemon.log());
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

/// How many layers the daemon says to have applied.
fn applied(daemon: &Daemon) -> usize {
    daemon.log().matches("applied a layer").count()
}
