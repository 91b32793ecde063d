//! Pulls while the cache is evicted down to nothing, again and again: what containerd relies on stays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tidehold::proto::v1;
use tidehold::proto::v1::hold_client::HoldClient;

use crate::bench::{Node, parts_of, release, runtime};
use crate::support::containerd::Version;
use crate::support::daemon::{Daemon, Plan};
use crate::{Scenario, scenario};

const MIB: usize = 1 << 20;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("pulls go on while all that is cached is evicted all the time", pulls_under_eviction),
    scenario(
        "what was evicted is fetched again, and what another image needs is not evicted",
        after_eviction,
    ),
];

fn pulls_under_eviction(version: Version) {
    let node = Node::start_as(version, Plan { rest: "[cache]\nmax_size = \"1KiB\"\n", ..Plan::default() });
    let images: Vec<_> =
        (0..3).map(|number| node.upstream.push(&format!("evicted-{number}"), 3 * MIB)).collect();
    let pruner = Pruner::start(&node.daemon);
    for _ in 0..2 {
        for pushed in &images {
            node.containerd.pull("default", &pushed.reference);
            assert_eq!(node.containerd.run("default", &pushed.reference), release(&pushed.image));
        }
        let all: BTreeSet<_> = images.iter().flat_map(|pushed| parts_of(&pushed.image)).collect();
        assert_eq!(node.containerd.read_back("default"), all);
        node.containerd.pull("other", &images[0].reference);
        node.containerd.remove_images("default");
        assert_eq!(node.containerd.read_back("other"), parts_of(&images[0].image));
    }
    assert!(pruner.end() > 0, "nothing was evicted meanwhile");
    let held: BTreeSet<_> = node.daemon.held().into_iter().collect();
    assert_eq!(held, node.containerd.content("other"));
}

fn after_eviction(version: Version) {
    let node = Node::start(version);
    let (one, two) = (node.upstream.push("one", MIB), node.upstream.push("two", MIB));
    for pushed in [&one, &two] {
        node.containerd.pull("default", &pushed.reference);
    }
    node.containerd.ctr(&["-n", "default", "images", "rm", "--sync", &one.reference]);
    prune(&node.daemon);
    let held: BTreeSet<_> = node.daemon.held().into_iter().collect();
    assert_eq!(held, parts_of(&two.image));
    let cost = node.cost_of(|| node.containerd.pull("default", &one.reference));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_eq!(node.containerd.run("default", &one.reference), release(&one.image));
    assert_eq!(node.containerd.run("default", &two.reference), release(&two.image));
}

fn prune(daemon: &Daemon) -> u64 {
    let socket = daemon.control();
    runtime().block_on(async {
        prune_once(&mut HoldClient::new(containerd_client::connect(socket).await.unwrap())).await
    })
}

async fn prune_once(client: &mut HoldClient<tonic::transport::Channel>) -> u64 {
    let everything = v1::PruneRequest { to_bytes: Some(0), ..Default::default() };
    client.prune(everything).await.unwrap().into_inner().removed_blobs
}

/// Evicts everything that may be, until it is told to end.
struct Pruner {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Pruner {
    fn start(daemon: &Daemon) -> Self {
        let (stop, socket) = (Arc::new(AtomicBool::new(false)), daemon.control());
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                runtime().block_on(async {
                    let mut client = HoldClient::new(containerd_client::connect(socket).await.unwrap());
                    let mut removed = 0;
                    while !stop.load(Ordering::Relaxed) {
                        removed += prune_once(&mut client).await;
                    }
                    // What was let go last.
                    removed + prune_once(&mut client).await
                })
            }
        });
        Self { stop, thread }
    }

    /// How many blobs it evicted.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
