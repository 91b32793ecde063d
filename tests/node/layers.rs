//! Where a layer's bytes come from while containerd unpacks it.

use crate::bench::{Node, release};
use crate::support::containerd::Version;
use crate::{Scenario, scenario};

/// Far more than is on its way to the program that decompresses before that has asked, in bytes.
const LARGE: usize = 8 << 20;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    versions: &[Version::V1_6],
    ..scenario("a layer is decompressed from its file in the hold", from_its_file)
}];

fn from_its_file(version: Version) {
    let mut node = Node::start(version);
    let pushed = node.upstream.push("large", LARGE);
    node.containerd.pull("default", &pushed.reference);
    node.daemon.await_log("read from its file");
    assert_eq!(node.containerd.run("default", &pushed.reference), release(&pushed.image));
}
