//! While one layer downloads, nothing else on the node waits for it.

use std::thread;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use tokio_stream::StreamExt as _;

use crate::bench::{LATEST, Node, Upstream, hex_of, parts_of, release};
use crate::support::containerd::Version;
use crate::support::daemon::Daemon;
use crate::support::hub::{Fault, Kind};
use crate::{Scenario, scenario};

const MIB: usize = 1024 * 1024;

pub(crate) const SCENARIOS: &[Scenario] =
    &[scenario("nothing waits for a layer that downloads but who needs it", nothing_waits)];

/// Each step here would hang, until the scenario fails, if it waited for the held download.
fn nothing_waits(version: Version) {
    let Node { containerd, daemon, upstream } = Node::start(version);
    let pushed = upstream.push("large", 24 * MIB);
    let layer = pushed.large();
    upstream.fault(Kind::Cdn, Fault::HoldAt(16 * MIB as u64).only(hex_of(layer)));
    thread::scope(|scope| {
        let first = scope.spawn(|| containerd.pull("first", &pushed.reference));
        upstream.await_held(Kind::Cdn);
        upstream.await_ingest(&daemon, layer);

        ask_for(&upstream, &daemon, layer);
        containerd.ctr(&["leases", "create"]);
        assert!(!containerd.content("first").contains(layer));
        containerd.ctr(&["-n", "first", "images", "ls"]);
        assert!(containerd.ctr(&["-n", "first", "content", "active"]).contains(hex_of(layer)));
        let manifest = &pushed.image.own().manifest;
        containerd.ctr(&["-n", "first", "content", "get", manifest]);

        // Another one who needs it waits as well, and holds nobody up either.
        let second = scope.spawn(|| containerd.pull("second", &pushed.reference));
        containerd.pull("third", LATEST);
        assert_eq!(containerd.run("third", LATEST), release(upstream.hub.first()));
        containerd.remove_images("third");
        containerd.ctr(&["-n", "second", "leases", "create"]);
        assert!(!first.is_finished() && !second.is_finished());

        upstream.clear();
        first.join().unwrap();
        second.join().unwrap();
    });
    let counters = upstream.hub.counters();
    assert_eq!(counters.cdn_wholes_by_digest.get(layer), Some(&1), "{counters:?}");
    for namespace in ["first", "second"] {
        assert_eq!(containerd.read_back(namespace), parts_of(&pushed.image));
    }
}

/// What containerd asks while it holds its database: whether a blob is there, and a writer for it.
fn ask_for(upstream: &Upstream, daemon: &Daemon, digest: &str) {
    upstream.soon(async {
        let connection = containerd_client::connect(daemon.content()).await.unwrap();
        let mut client = ContentClient::new(connection);
        let info = client.info(api::InfoRequest { digest: digest.to_owned() }).await;
        assert_eq!(info.unwrap_err().code(), tonic::Code::NotFound);

        let stat = api::WriteContentRequest {
            action: api::WriteAction::Stat.into(),
            r#ref: format!("probe/1/layer-{digest}"),
            ..Default::default()
        };
        let requests = tokio_stream::once(stat).chain(tokio_stream::pending());
        let mut answers = client.write(requests).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().expect("an answer to the first STAT");
        assert_eq!(answer.offset, 0);
    });
}
