//! Pulls, what they cost, and what of them outlasts a removal, a restart and an outage.

use std::collections::BTreeSet;

use crate::bench::{FIXED, LATEST, Node, Upstream, assert_free, is_blob, parts_of, release, runtime};
use crate::support::containerd::{Containerd, Store, Version};
use crate::support::daemon::Daemon;
use crate::support::hub::{Fault, Image};
use crate::support::registry::DockerRegistry;
use crate::{Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("a fresh pull costs two counted GETs each time without Tidehold", without_tidehold),
    scenario("a cold pull of a multi-platform tag costs two counted GETs", a_cold_pull),
    scenario("a container runs from the image and prints its release", a_container_runs),
    scenario("five more pulls from other namespaces cost no GET and no blob", other_namespaces),
    scenario("a tag moved to a new image costs two, moved back nothing", a_moved_tag),
    scenario("a pull after all images were removed costs no GET and no blob", after_removal),
    scenario("garbage collection takes what no image needs and leaves the rest", garbage_collection),
    scenario("a restart of the daemon between pulls loses nothing", a_restart_of_the_daemon),
    scenario("a restart of containerd between pulls loses nothing", a_restart_of_containerd),
    scenario("two containerds on one daemon share one copy", two_containerds),
    scenario("pulls go on while the registry answers 429", |version| outage(version, Fault::PullLimit)),
    scenario("pulls go on under the limit on abuse", |version| outage(version, Fault::AbuseLimit)),
    scenario("pulls go on while the registry answers 503", |version| outage(version, Fault::Unavailable)),
    scenario("pulls go on while the registry resets connections", |version| outage(version, Fault::Reset)),
    scenario("pulls go on while the registry hangs", |version| outage(version, Fault::Hang)),
    scenario("pulls go on while the registry refuses connections", |version| outage(version, Fault::Refuse)),
    Scenario {
        name: "an image of a docker-registry is pulled once for every namespace",
        run: docker_registry,
        needs: |_| DockerRegistry::available(),
        ..scenario("an image of a docker-registry is pulled once for every namespace", docker_registry)
    },
];

/// What the others are measured against, and what the stand-in counts when nothing helps.
fn without_tidehold(version: Version) {
    let upstream = Upstream::start();
    let containerd = Containerd::start(version, Store::Builtin);
    containerd.route("docker.io", &upstream.hub.registry_url());
    for _ in 0..2 {
        let cost = upstream.cost_of(|| containerd.pull("default", LATEST));
        assert_eq!(cost.manifest_gets, 2, "{cost:?}");
        containerd.remove_images("default");
    }
}

fn a_cold_pull(version: Version) {
    let node = Node::start(version);
    let cost = node.cost_of(|| node.containerd.pull("default", LATEST));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    let blobs = 1 + node.hub().first().own().layers.len();
    assert_eq!(cost.cdn_gets_by_digest.len(), blobs, "the config and each layer: {cost:?}");
    assert_eq!(cost.cdn_gets, blobs as u64, "each of them once: {cost:?}");
    assert_eq!(cost.cdn_authorizations, 0, "no credentials for the CDN: {cost:?}");
}

fn a_container_runs(version: Version) {
    let node = Node::start(version);
    node.containerd.pull("default", LATEST);
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

fn other_namespaces(version: Version) {
    let node = Node::start(version);
    node.containerd.pull("default", LATEST);
    for namespace in ["one", "two", "three", "four", "five"] {
        let cost = node.cost_of(|| node.containerd.pull(namespace, LATEST));
        assert_free(&cost);
        assert_eq!(node.containerd.run(namespace, LATEST), release(node.hub().first()));
    }
}

fn a_moved_tag(version: Version) {
    let node = Node::start(version);
    node.containerd.pull("default", LATEST);
    // Both images share a layer. Were the first one's last name taken away while the second is unpacked, then
    // containerd's garbage collection could remove the layer's snapshot under its own unpacker, whatever its store.
    node.containerd.pull("default", FIXED);

    node.move_latest_to(node.hub().second());
    let cost = node.cost_of(|| node.containerd.pull("default", LATEST));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().second()));

    node.move_latest_to(node.hub().first());
    let cost = node.cost_of(|| node.containerd.pull("default", LATEST));
    assert_free(&cost);
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

fn after_removal(version: Version) {
    let node = Node::start(version);
    node.containerd.pull("default", LATEST);
    node.containerd.pull("other", LATEST);
    for namespace in ["default", "other"] {
        node.containerd.remove_images(namespace);
        assert_eq!(node.containerd.content(namespace), BTreeSet::new());
    }
    let cost = node.cost_of(|| node.containerd.pull("default", LATEST));
    assert_free(&cost);
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

fn garbage_collection(version: Version) {
    let node = Node::start(version);
    node.containerd.pull("default", FIXED);
    node.move_latest_to(node.hub().second());
    node.containerd.pull("default", LATEST);
    let (first, second) = (parts_of(node.hub().first()), parts_of(node.hub().second()));
    assert_eq!(node.containerd.content("default"), &first | &second);

    // The two share a layer, which must stay.
    assert!(!first.is_disjoint(&second));
    node.containerd.ctr(&["-n", "default", "images", "rm", "--sync", FIXED]);
    assert_eq!(node.containerd.content("default"), second);
    for digest in &second {
        node.containerd.ctr(&["-n", "default", "content", "get", digest]);
    }
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().second()));
}

fn a_restart_of_the_daemon(version: Version) {
    let mut node = Node::start(version);
    node.containerd.pull("default", LATEST);

    assert!(node.daemon.terminate().success());
    node.daemon.start_again();
    assert_free(&node.cost_of(|| node.containerd.pull("after-a-stop", LATEST)));

    node.daemon.kill();
    node.daemon.start_again();
    assert_free(&node.cost_of(|| node.containerd.pull("after-a-crash", LATEST)));
    assert_eq!(node.containerd.content("default"), parts_of(node.hub().first()));
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

fn a_restart_of_containerd(version: Version) {
    let mut node = Node::start(version);
    node.containerd.pull("default", LATEST);
    node.containerd.restart();
    assert_eq!(node.containerd.content("default"), parts_of(node.hub().first()));
    assert_free(&node.cost_of(|| node.containerd.pull("other", LATEST)));
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

fn two_containerds(version: Version) {
    let upstream = Upstream::start();
    let daemon = Daemon::start_for(&["one", "two"], &upstream.daemon_config());
    let [one, two] = ["one", "two"].map(|name| {
        let containerd = Containerd::start(version, Store::Tidehold(&daemon.content_of(name)));
        containerd.route("docker.io", &daemon.mirror());
        containerd
    });
    one.pull("default", LATEST);
    assert_free(&upstream.cost_of(|| two.pull("default", LATEST)));

    // What one of them gives up is still the other's.
    one.remove_images("default");
    assert_eq!(two.content("default"), parts_of(upstream.hub.first()));
    assert_eq!(two.run("default", LATEST), release(upstream.hub.first()));
    assert_free(&upstream.cost_of(|| one.pull("default", LATEST)));
    assert_eq!(one.run("default", LATEST), release(upstream.hub.first()));
}

/// Whatever the registry does, what is held is pulled: into a namespace that never had it, and again after the
/// images were removed.
fn outage(version: Version, fault: Fault) {
    let node = Node::start(version);
    node.containerd.pull("default", LATEST);
    node.break_everything(fault);

    let cost = node.cost_of(|| node.containerd.pull("other", LATEST));
    assert_eq!((cost.blob_gets, cost.cdn_gets), (0, 0), "{cost:?}");
    for namespace in ["default", "other"] {
        node.containerd.remove_images(namespace);
    }
    node.containerd.pull("default", LATEST);
    assert_eq!(node.containerd.run("default", LATEST), release(node.hub().first()));
}

fn docker_registry(version: Version) {
    let runtime = runtime();
    let registry = DockerRegistry::start();
    let image = Image::build(&Default::default()).unwrap();
    runtime.block_on(registry.push("team/tide", "latest", &image));

    let rules = format!(
        "[tags]\nfresh_for = \"0s\"\n[registries.\"registry.test\"]\nupstream = \"{}\"\n",
        registry.url()
    );
    let daemon = Daemon::start(&rules);
    let containerd = Containerd::start(version, Store::Tidehold(&daemon.content()));
    containerd.route("registry.test", &daemon.mirror());

    let reference = "registry.test/team/tide:latest";
    for namespace in ["one", "two"] {
        containerd.pull(namespace, reference);
        assert_eq!(containerd.run(namespace, reference), release(&image));
    }
    for digest in parts_of(&image) {
        let asked = format!(
            "\"GET /v2/team/tide/{}/{digest}",
            if is_blob(&image, &digest) { "blobs" } else { "manifests" }
        );
        assert_eq!(registry.log().matches(&asked).count(), 1, "{asked}");
    }
}
