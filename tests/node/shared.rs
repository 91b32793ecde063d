//! Two containerds of different lines on one hold: every byte once, and neither can hurt the other.

use std::fs;

use crate::bench::{LATEST, Upstream, assert_free, parts_of, release};
use crate::support::containerd::{Containerd, Store, Version};
use crate::support::daemon::Daemon;
use crate::support::hub::digest_of;
use crate::{Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    needs: |version| version.other().available().map(drop),
    ..scenario("it shares one copy with a containerd of another line", two_lines)
}];

fn two_lines(version: Version) {
    let upstream = Upstream::start();
    let daemon = Daemon::start_for(&["one", "two"], &upstream.daemon_config());
    let [one, two] = [("one", version), ("two", version.other())].map(|(name, version)| {
        let containerd = Containerd::start(version, Store::Tidehold(&daemon.content_of(name)));
        containerd.route("docker.io", &daemon.mirror());
        containerd
    });
    let parts = parts_of(upstream.hub.first());

    one.pull("default", LATEST);
    assert_free(&upstream.cost_of(|| two.pull("default", LATEST)));
    assert_eq!(daemon.held().len(), parts.len());
    for part in &parts {
        assert_eq!(copies_of(&daemon, part), 1, "{part}");
    }

    // What one of them gives up is still the other's, whichever it is.
    for (gone, left) in [(&one, &two), (&two, &one)] {
        gone.remove_images("default");
        assert!(gone.content("default").is_empty());
        assert_eq!(left.read_back("default"), parts);
        assert_eq!(left.run("default", LATEST), release(upstream.hub.first()));
        assert_free(&upstream.cost_of(|| gone.pull("default", LATEST)));
        assert_eq!(gone.read_back("default"), parts);
        assert_eq!(gone.run("default", LATEST), release(upstream.hub.first()));
    }
}

/// How often the daemon keeps these bytes, under whatever name.
fn copies_of(daemon: &Daemon, digest: &str) -> usize {
    let files = daemon.files().into_iter().filter_map(|file| fs::read(file).ok());
    files.filter(|bytes| digest_of(bytes) == digest).count()
}
