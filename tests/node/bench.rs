//! What a scenario works with: a stand-in for Docker Hub, a daemon before it, and a containerd on that.

use std::collections::BTreeSet;
use std::time::Duration;

use containerd_client::services::v1::ListStatusesRequest;
use containerd_client::services::v1::content_client::ContentClient;
use tokio::runtime::Runtime;

use crate::support::containerd::{Containerd, Store, Version};
use crate::support::daemon::{Daemon, Plan};
use crate::support::hub::{
    Counters, Fault, Hub, HubConfig, Image, ImageSpec, Kind, PlatformImage, REPOSITORY, Script,
};

/// What the stand-in has from the start; `latest` moves in the scenarios, `1.0` stays.
pub(crate) const LATEST: &str = "docker.io/library/tide:latest";
pub(crate) const FIXED: &str = "docker.io/library/tide:1.0";

/// Far more than anything here takes: it turns a wait that never ends into a scenario that fails.
const NEVER: Duration = Duration::from_secs(300);

/// The stand-in for Docker Hub, and the runtime that it lives on.
pub(crate) struct Upstream {
    pub(crate) hub: Hub,
    pub(crate) runtime: Runtime,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        Self::start_as(HubConfig::default())
    }

    pub(crate) fn start_as(config: HubConfig) -> Self {
        let runtime = runtime();
        let hub = runtime.block_on(Hub::start(config));
        Self { hub, runtime }
    }

    /// Every pull of a tag asks: what is fresh without asking is another test's business.
    pub(crate) fn daemon_config(&self) -> String {
        let url = self.hub.registry_url();
        format!("[tags]\nfresh_for = \"0s\"\n[registries.\"docker.io\"]\nupstream = \"{url}\"\n")
    }

    pub(crate) fn cost_of(&self, work: impl FnOnce()) -> Counters {
        self.hub.reset_counters();
        work();
        self.hub.counters()
    }

    /// Adds an image with one more layer of this size, whose tag is its marker.
    pub(crate) fn push(&self, marker: &str, extra_layer_bytes: usize) -> Pushed {
        let spec = ImageSpec { marker: marker.to_owned(), extra_layer_bytes, ..ImageSpec::default() };
        let image = Image::build(&spec).unwrap();
        self.hub.push(REPOSITORY, &image);
        self.hub.tag(REPOSITORY, marker, &image.digest);
        Pushed { reference: format!("docker.io/{REPOSITORY}:{marker}"), image }
    }

    pub(crate) fn fault(&self, kind: Kind, script: impl Into<Script>) {
        self.runtime.block_on(self.hub.fault(kind, script));
    }

    pub(crate) fn clear(&self) {
        self.runtime.block_on(self.hub.clear_all());
    }

    /// Returns once a containerd waits for this blob, which the daemon may have begun to fetch before that.
    pub(crate) fn await_ingest(&self, daemon: &Daemon, digest: &str) {
        self.soon(async {
            let connection = containerd_client::connect(daemon.content()).await.unwrap();
            let mut client = ContentClient::new(connection);
            loop {
                let listed = client.list_statuses(ListStatusesRequest::default()).await.unwrap();
                if listed.into_inner().statuses.iter().any(|status| status.r#ref.ends_with(digest)) {
                    return;
                }
            }
        });
    }

    /// Returns once the stand-in holds a request of this kind.
    pub(crate) fn await_held(&self, kind: Kind) {
        self.soon(self.hub.held(kind, 1));
    }

    /// Waits for this, and ends the scenario where it does not end.
    pub(crate) fn soon<T>(&self, work: impl Future<Output = T>) -> T {
        let within = async { tokio::time::timeout(NEVER, work).await };
        self.runtime.block_on(within).expect("it comes to an end")
    }
}

/// An image that was added to the stand-in.
pub(crate) struct Pushed {
    pub(crate) reference: String,
    pub(crate) image: Image,
}

impl Pushed {
    /// Its largest layer.
    pub(crate) fn large(&self) -> &str {
        self.image.own().layers.last().unwrap()
    }

    /// In bytes.
    pub(crate) fn size_of(&self, digest: &str) -> u64 {
        self.image.bytes_of(digest).unwrap().len() as u64
    }
}

/// A containerd, the daemon that it pulls through, and what that asks. Dropped in this order.
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    pub(crate) daemon: Daemon,
    pub(crate) upstream: Upstream,
}

impl Node {
    pub(crate) fn start(version: Version) -> Self {
        Self::start_as(version, Plan::default())
    }

    /// One whose daemon has its sockets handed over.
    pub(crate) fn start_activated(version: Version) -> Self {
        Self::start_as(version, Plan { activated: true, ..Plan::default() })
    }

    /// One whose daemon is as planned, and knows beside that whom to ask.
    pub(crate) fn start_as(version: Version, plan: Plan<'_>) -> Self {
        Self::planned(version, plan, Upstream::start())
    }

    /// One before this registry.
    pub(crate) fn on(version: Version, upstream: Upstream) -> Self {
        Self::planned(version, Plan::default(), upstream)
    }

    fn planned(version: Version, plan: Plan<'_>, upstream: Upstream) -> Self {
        let rest = format!("{}{}", upstream.daemon_config(), plan.rest);
        let daemon = Plan { rest: &rest, ..plan }.start();
        let containerd = Containerd::start(version, Store::Tidehold(&daemon.content()));
        containerd.route("docker.io", &daemon.mirror());
        Self { containerd, daemon, upstream }
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.upstream.hub
    }

    pub(crate) fn cost_of(&self, work: impl FnOnce()) -> Counters {
        self.upstream.cost_of(work)
    }

    pub(crate) fn move_latest_to(&self, image: &Image) {
        self.hub().tag(REPOSITORY, "latest", &image.digest);
    }

    pub(crate) fn break_everything(&self, fault: Fault) {
        for kind in Kind::ALL {
            self.upstream.fault(kind, fault);
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) fn assert_free(cost: &Counters) {
    assert_eq!((cost.manifest_gets, cost.blob_gets, cost.cdn_gets), (0, 0, 0), "GETs and blobs: {cost:?}");
}

/// The digests that a node keeps of an image: the index and its own platform's parts.
pub(crate) fn parts_of(image: &Image) -> BTreeSet<String> {
    let PlatformImage { manifest, config, layers, .. } = image.own();
    [&image.digest, manifest, config].into_iter().chain(layers).cloned().collect()
}

pub(crate) fn is_blob(image: &Image, digest: &str) -> bool {
    let own = image.own();
    own.config == digest || own.layers.iter().any(|layer| layer == digest)
}

/// What the image's own command prints: its marker and its platform.
pub(crate) fn release(image: &Image) -> String {
    format!("{} {}\n", image.marker, image.own().platform)
}

/// The part of a digest that stands in the paths of the CDN.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}
