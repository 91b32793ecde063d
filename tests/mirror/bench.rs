//! What a test of the mirror works with: a stand-in for Docker Hub, a daemon before it, and a client of the daemon.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::support::daemon::Daemon;
use crate::support::hub::client::{ALL_MANIFESTS, Client, Reply};
use crate::support::hub::{
    Counters, Fault, Hub, HubConfig, Image, ImageSpec, Kind, PlatformImage, REPOSITORY, Rootfs, digest_of,
};

/// No tag is fresh: each request for one asks the registry.
pub(crate) const ASKS_ALWAYS: &str = "fresh_for = \"0s\"";

/// Once confirmed, no tag asks again.
pub(crate) const ASKS_ONCE: &str = "fresh_for = \"1h\"";

/// Far more than anything here takes: it turns a wait that never ends into a test that fails.
const NEVER: Duration = Duration::from_secs(300);

/// The parts of one test. Dropped in this order, after a last look at the hold and at the CDN.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) daemon: Daemon,
    pub(crate) hub: Hub,
}

impl Bench {
    /// Docker Hub as it is, and a daemon that asks it each time.
    pub(crate) async fn start() -> Self {
        Self::before(images_only(), ASKS_ALWAYS).await
    }

    /// Some other registry, behind a daemon with these rules for tags, and perhaps others about `[fetch]` behind them.
    pub(crate) async fn before(registry: HubConfig, tags: &str) -> Self {
        let hub = Hub::start(registry).await;
        let upstream = hub.registry_url();
        // What is asked for is counted: nothing is to come before its time.
        let fetch = if tags.contains("[fetch]") { "" } else { "[fetch]\nahead = false\n" };
        let rest = format!("[tags]\n{tags}\n{fetch}[registries.\"docker.io\"]\nupstream = \"{upstream}\"\n");
        Self::with(hub, &rest)
    }

    /// A registry that runs, and a daemon whose configuration says all of this.
    pub(crate) fn with(hub: Hub, rest: &str) -> Self {
        Self { client: Client::new(), daemon: Daemon::start(rest), hub }
    }

    /// Where a manifest of the usual repository is asked for, by tag or digest.
    pub(crate) fn manifest(&self, reference: &str) -> String {
        self.manifest_of(REPOSITORY, reference)
    }

    pub(crate) fn manifest_of(&self, repository: &str, reference: &str) -> String {
        format!("{}/v2/{repository}/manifests/{reference}?ns=docker.io", self.daemon.mirror())
    }

    /// Where a blob of the usual repository is asked for.
    pub(crate) fn blob(&self, digest: &str) -> String {
        self.blob_of(REPOSITORY, digest)
    }

    pub(crate) fn blob_of(&self, repository: &str, digest: &str) -> String {
        format!("{}/v2/{repository}/blobs/{digest}?ns=docker.io", self.daemon.mirror())
    }

    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.ask(Method::GET, url, &[]).await
    }

    pub(crate) async fn head(&self, url: &str) -> Reply {
        self.ask(Method::HEAD, url, &[]).await
    }

    /// The bytes of a range, whatever the answer.
    pub(crate) async fn range(&self, url: &str, range: &str) -> Reply {
        self.ask(Method::GET, url, &[("range", range)]).await
    }

    /// A request as containerd makes it, which takes every type of manifest, and these headers beside.
    pub(crate) async fn ask(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Reply {
        let headers: Vec<_> =
            [("accept", ALL_MANIFESTS)].into_iter().chain(headers.iter().copied()).collect();
        soon(self.client.ask(method, url, &headers)).await
    }

    /// Begins to read a body on a connection of its own.
    pub(crate) async fn begin(&self, url: &str) -> Reading {
        self.begin_range(url, None).await
    }

    pub(crate) async fn begin_range(&self, url: &str, range: Option<&str>) -> Reading {
        let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
        let response = soon(Client::new().send(Method::GET, url, &headers)).await;
        Reading { response: response.expect("an answer begins"), read: Vec::new() }
    }

    /// HEAD of a tag, and then all that a node of this platform needs of what it points at, each part by its digest.
    /// Every part has to be what its digest says.
    pub(crate) async fn pull(&self, tag: &str) {
        pull(&self.client, &self.daemon.mirror(), tag).await;
    }

    /// What the registry, its CDN and its token service were asked for this.
    pub(crate) async fn cost_of<T>(&self, work: impl Future<Output = T>) -> (T, Counters) {
        self.assert_no_leak();
        self.hub.reset_counters();
        let done = work.await;
        (done, self.hub.counters())
    }

    /// Adds an image with a layer of this size to the usual repository, untagged.
    pub(crate) fn push_with_layer(&self, bytes: usize) -> Large {
        let spec = ImageSpec { extra_layer_bytes: bytes, ..marker("large") };
        let image = Image::build(&spec).unwrap();
        self.hub.push(REPOSITORY, &image);
        let layer = image.own().layers.last().unwrap().clone();
        let bytes = image.bytes_of(&layer).unwrap();
        Large { layer, bytes }
    }

    pub(crate) fn point_latest_at(&self, image: &Image) {
        self.hub.tag(REPOSITORY, "latest", &image.digest);
    }

    /// Restarts the daemon with another registry in the place of the one it had. Its hold stays.
    pub(crate) async fn replace_registry(&mut self, registry: HubConfig) {
        let next = Hub::start(registry).await;
        assert!(self.daemon.terminate().success());
        let file = self.daemon.data().with_file_name("tidehold.toml");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(&file, config.replace(&self.hub.registry_url(), &next.registry_url())).unwrap();
        self.hub = next;
        self.daemon.start_again();
    }

    /// The registry, its token service and its CDN all fail in this way.
    pub(crate) async fn break_everything(&self, fault: Fault) {
        for kind in Kind::ALL {
            self.hub.fault(kind, fault).await;
        }
    }

    /// Where the daemon keeps a blob.
    pub(crate) fn file_of(&self, digest: &str) -> PathBuf {
        self.daemon.file_of(digest)
    }

    /// Every file of the hold with its name, each checked against it.
    pub(crate) fn held(&self) -> Vec<String> {
        self.daemon.held()
    }

    /// How many files of this length the daemon has, finished or not.
    pub(crate) fn files_of_length(&self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap();
        let files = self.daemon.files().into_iter();
        files.filter(|file| fs::metadata(file).is_ok_and(|found| found.len() == length)).count()
    }

    fn assert_no_leak(&self) {
        assert_eq!(self.hub.counters().cdn_authorizations, 0, "credentials went to the CDN");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_no_leak();
            self.held();
        }
    }
}

/// An untagged image's one layer that is not small.
pub(crate) struct Large {
    pub(crate) layer: String,
    pub(crate) bytes: Bytes,
}

/// A body that is being read.
pub(crate) struct Reading {
    response: Response<Incoming>,
    read: Vec<u8>,
}

impl Reading {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// What `Content-Length` announced.
    pub(crate) fn announced(&self) -> usize {
        let length = self.response.headers().get("content-length").expect("a length is announced");
        length.to_str().unwrap().parse().unwrap()
    }

    /// Reads on until at least so many bytes are there, and gives all that are.
    pub(crate) async fn at_least(&mut self, bytes: usize) -> &[u8] {
        while self.read.len() < bytes {
            let frame =
                soon(self.response.frame()).await.expect("the body goes on").expect("it does not break");
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        &self.read
    }

    /// Reads to the end, and gives what came and whether the body ended as a body should.
    pub(crate) async fn finish(mut self) -> (Vec<u8>, bool) {
        loop {
            match soon(self.response.frame()).await {
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(_)) => return (self.read, false),
                None => return (self.read, true),
            }
        }
    }

    /// The whole body.
    pub(crate) async fn whole(self) -> Vec<u8> {
        let announced = self.announced();
        let (read, ended) = self.finish().await;
        assert!(ended, "it broke off after {} of {announced} bytes", read.len());
        assert_eq!(read.len(), announced);
        read
    }
}

/// As [`Bench::pull`], for a client of its own.
pub(crate) async fn pull(client: &Client, mirror: &str, tag: &str) {
    let part = async |kind: &str, digest: &str| {
        let url = format!("{mirror}/v2/{REPOSITORY}/{kind}/{digest}?ns=docker.io");
        let reply = soon(client.get(&url, &[("accept", ALL_MANIFESTS)])).await;
        assert_eq!(reply.status, StatusCode::OK, "{url}: {reply:?}");
        assert_eq!(digest_of(&reply.body), digest, "{url}");
        reply
    };
    let url = format!("{mirror}/v2/{REPOSITORY}/manifests/{tag}?ns=docker.io");
    let head = soon(client.head(&url, &[("accept", ALL_MANIFESTS)])).await;
    assert_eq!(head.status, StatusCode::OK, "{url}: {head:?}");
    let index = part("manifests", head.header("docker-content-digest").unwrap()).await.json();
    let own = own_manifest(&index);
    let manifest = part("manifests", &own).await.json();
    let layers = manifest["layers"].as_array().unwrap();
    for blob in std::iter::once(&manifest["config"]).chain(layers) {
        part("blobs", blob["digest"].as_str().unwrap()).await;
    }
}

fn own_manifest(index: &serde_json::Value) -> String {
    let own = crate::support::hub::Platform::own();
    let entries = index["manifests"].as_array().unwrap();
    let found = entries.iter().find(|entry| {
        let platform = &entry["platform"];
        platform["os"] == own.os && platform["architecture"] == own.architecture
    });
    found.unwrap()["digest"].as_str().unwrap().to_owned()
}

/// Docker Hub as it is, with images that need nothing of the machine.
pub(crate) fn images_only() -> HubConfig {
    HubConfig { rootfs: Rootfs::Marker, ..HubConfig::default() }
}

/// An image that needs nothing of the machine.
pub(crate) fn marker(marker: &str) -> ImageSpec {
    ImageSpec { marker: marker.to_owned(), rootfs: Rootfs::Marker, ..ImageSpec::default() }
}

/// The digests of a platform's blobs.
pub(crate) fn blobs_of(image: &PlatformImage) -> Vec<&str> {
    std::iter::once(&image.config).chain(&image.layers).map(String::as_str).collect()
}

/// The part of a digest that stands in the paths of the CDN and of the hold.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// What a reply says about how it was found to be good.
pub(crate) fn standing(reply: &Reply) -> &str {
    reply.header("tidehold-standing").unwrap_or("none")
}

/// The seconds after which a refused client is asked to come back.
pub(crate) fn retry_after(reply: &Reply) -> u64 {
    let seconds = reply.header("retry-after").expect("a refusal says when to come back");
    seconds.parse().unwrap()
}

/// The reply gives this image, with this standing.
#[track_caller]
pub(crate) fn assert_gives(reply: &Reply, image: &Image, expected: &str) {
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let digest = reply.header("docker-content-digest");
    assert_eq!((digest, standing(reply)), (Some(image.digest.as_str()), expected));
}

/// The reply is an error with this status and code, and has nothing of a manifest about it.
#[track_caller]
pub(crate) fn assert_refused(reply: &Reply, status: StatusCode, code: &str) {
    assert_eq!((reply.status, reply.error_code().as_str()), (status, code), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!((reply.header("docker-content-digest"), standing(reply)), (None, "none"));
}

/// Ends the test where this does not end.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(NEVER, work).await.expect("it comes to an end")
}

/// Asks again and again, until this is so. What it waits for must come by itself, and soon.
pub(crate) async fn until(mut so: impl AsyncFnMut() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let looks = async {
        while !so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    soon(looks).await;
}
