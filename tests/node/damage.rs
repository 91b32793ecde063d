//! The file of a blob that containerd relies on is damaged behind the daemon's back: it is fetched again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::bench::{Node, parts_of};
use crate::support::containerd::Version;
use crate::{Scenario, scenario};

const MIB: usize = 1024 * 1024;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("a layer whose file was damaged while the daemon was away is read right", |version| {
        damaged(version, |node, intact, damage| {
            assert!(node.daemon.terminate().success());
            damage();
            node.daemon.start_again();
            node.containerd.await_store("default", intact);
        });
    }),
    scenario("a layer whose file is damaged under the daemon is read right", |version| {
        damaged(version, |_, _, damage| damage());
    }),
];

fn damaged(version: Version, in_its_way: fn(&mut Node, &str, &dyn Fn())) {
    let mut node = Node::start(version);
    let pushed = node.upstream.push("layered", MIB);
    node.containerd.pull("default", &pushed.reference);
    let layer = pushed.large();
    let file = node.daemon.file_of(layer);
    for damage in [flip_a_byte, cut_short, remove] {
        // It has been read before, so that a file which is held open would be noticed.
        node.containerd.ctr(&["-n", "default", "content", "get", layer]);
        node.upstream.hub.reset_counters();
        in_its_way(&mut node, &pushed.image.own().config, &|| damage(&file));
        assert_eq!(node.containerd.read_back("default"), parts_of(&pushed.image));
        let counters = node.upstream.hub.counters();
        assert_eq!((counters.cdn_gets, counters.manifest_gets), (1, 0), "the layer alone: {counters:?}");
        assert!(node.daemon.held().iter().any(|held| held == layer), "it is held again");
    }
}

fn flip_a_byte(file: &Path) {
    let opened = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    opened.read_exact_at(&mut byte, 500_000).unwrap();
    opened.write_all_at(&[!byte[0]], 500_000).unwrap();
}

fn cut_short(file: &Path) {
    File::options().write(true).open(file).unwrap().set_len(400_000).unwrap();
}

fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}
