//! What a kubelet does, by `crictl` through containerd's CRI: it pulls, looks, runs a pod and cleans up, and the
//! registry is asked no more than by any other client.

use crate::bench::{FIXED, LATEST, Node, Upstream, assert_free, parts_of, release};
use crate::programs;
use crate::support::containerd::{Containerd, Kubernetes, Login, Store, Version};
use crate::support::cri::{Crictl, PAUSE};
use crate::support::daemon::Daemon;
use crate::support::hub::{Account, Fault, HubConfig, Image, ImageSpec, Private, REPOSITORY};
use crate::{Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    with_crictl("crictl pulls by tag and by digest, and once more for nothing", pulls),
    with_crictl("crictl runs a pod, reads its log, enters it and removes it", a_pod),
    with_crictl("a pod and its log outlast a restart of the daemon", a_restart),
    with_crictl("crictl removes an image, and what another needs stays", removal),
    with_crictl("a pod starts from what is held while the registry answers 429", |version| {
        outage(version, Fault::PullLimit);
    }),
    with_crictl("a pod starts from what is held while the registry is gone", |version| {
        outage(version, Fault::Refuse);
    }),
    with_crictl("a pull secret opens a private image to its pod and to no other", a_pull_secret),
];

const fn with_crictl(name: &'static str, run: fn(Version)) -> Scenario {
    Scenario { needs: programs::available, ..scenario(name, run) }
}

/// The namespace that the CRI keeps everything in.
const NAMESPACE: &str = "k8s.io";

const ADA: Login = Login { name: "ada", password: "s3cret" };
const BOB: Login = Login { name: "bob", password: "hunter2" };

fn pulls(version: Version) {
    let (node, _) = start(version, Upstream::start());
    let crictl = crictl(&node);
    let cost = node.cost_of(|| crictl.pull(LATEST));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    let blobs = 1 + node.hub().first().own().layers.len();
    assert_eq!(cost.cdn_gets, blobs as u64, "the config and each layer once: {cost:?}");

    let by_digest = format!("docker.io/{REPOSITORY}@{}", node.hub().first().digest);
    for reference in [LATEST, FIXED, &by_digest] {
        assert_free(&node.cost_of(|| crictl.pull(reference)));
    }
    let images = crictl.images();
    for name in [LATEST, FIXED, &by_digest] {
        assert!(images.iter().any(|image| image == name), "{name}: {images:?}");
    }
    let image = crictl.json(&["inspecti", LATEST]);
    assert_eq!(image["status"]["id"], node.hub().first().own().config.as_str());
    assert_eq!(node.containerd.read_back(NAMESPACE), parts_of(node.hub().first()));
}

fn a_pod(version: Version) {
    let (node, pause) = start(version, Upstream::start());
    let crictl = crictl(&node);
    crictl.pull(LATEST);
    let pod = crictl.start_pod(LATEST);
    assert_eq!(pod.states(), ["CONTAINER_RUNNING", "SANDBOX_READY"]);
    assert_eq!(pod.first_line(), release(node.hub().first()));
    assert_eq!(crictl.ask(&["logs", &pod.container]) + "\n", release(node.hub().first()));
    for said in pod.exec(&["cat", "/etc/tide-release"]) {
        assert_eq!(said + "\n", release(node.hub().first()));
    }
    // What held the pod open came the same way.
    assert!(parts_of(&pause).is_subset(&node.containerd.read_back(NAMESPACE)));
    drop(pod);
    assert_eq!(crictl.ask(&["ps", "-a", "-q"]), "");
    assert_eq!(crictl.ask(&["pods", "-q"]), "");
}

fn a_restart(version: Version) {
    let (mut node, _) = start(version, Upstream::start());
    let Node { containerd, daemon, upstream } = &mut node;
    let crictl = Crictl::new(programs::program("crictl"), containerd);
    crictl.pull(LATEST);
    let pod = crictl.start_pod(LATEST);
    assert_eq!(pod.first_line(), release(upstream.hub.first()));

    daemon.kill();
    assert_eq!(pod.states(), ["CONTAINER_RUNNING", "SANDBOX_READY"], "without its store");
    daemon.start_again();
    containerd.await_store(NAMESPACE, &upstream.hub.first().own().config);
    assert_eq!(pod.states(), ["CONTAINER_RUNNING", "SANDBOX_READY"]);
    for said in pod.exec(&["cat", "/etc/tide-release"]) {
        assert_eq!(said + "\n", release(upstream.hub.first()));
    }
    drop(pod);
    let again = crictl.start_pod(LATEST);
    assert_eq!(again.states(), ["CONTAINER_RUNNING", "SANDBOX_READY"]);
}

fn removal(version: Version) {
    let (node, _) = start(version, Upstream::start());
    let crictl = crictl(&node);
    crictl.pull(FIXED);
    node.move_latest_to(node.hub().second());
    crictl.pull(LATEST);
    let (first, second) = (parts_of(node.hub().first()), parts_of(node.hub().second()));
    assert_eq!(node.containerd.content(NAMESPACE), &first | &second);

    // Both share a layer. It is removed and collected before it answers.
    crictl.ask(&["rmi", FIXED]);
    assert_eq!(node.containerd.read_back(NAMESPACE), second);
    assert_eq!(crictl.images().iter().filter(|name| *name == FIXED).count(), 0);
    assert_free(&node.cost_of(|| crictl.pull(FIXED)));
    assert_eq!(node.containerd.read_back(NAMESPACE), &first | &second);
    let pod = crictl.start_pod(FIXED);
    assert_eq!(pod.first_line(), release(node.hub().first()));
}

fn outage(version: Version, fault: Fault) {
    let (node, _) = start(version, Upstream::start());
    let crictl = crictl(&node);
    for reference in [LATEST, PAUSE] {
        crictl.pull(reference);
        crictl.ask(&["rmi", reference]);
    }
    node.break_everything(fault);
    let cost = node.cost_of(|| {
        crictl.pull(LATEST);
        let pod = crictl.start_pod(LATEST);
        assert_eq!(pod.first_line(), release(node.hub().first()));
    });
    assert_eq!((cost.blob_gets, cost.cdn_gets), (0, 0), "{cost:?}");
}

fn a_pull_secret(version: Version) {
    const SECRET: &str = "docker.io/team/secret:latest";
    let upstream = Upstream::start_as(HubConfig {
        accounts: [ADA, BOB].map(|login| Account::free(login.name, login.password)).into(),
        private: vec![Private { repository: "team/secret".to_owned(), account: ADA.name.to_owned() }],
        ..HubConfig::default()
    });
    let image = push(&upstream, "team/secret", "latest", ImageSpec::default());
    let (node, _) = start(version, upstream);
    let crictl = crictl(&node);
    let pulled = |login| crictl.try_pull_as(SECRET, login).status.success();

    assert!(!pulled(None), "before anyone has it");
    let cost = node.cost_of(|| assert!(pulled(Some(ADA)), "with the secret"));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    let pod = crictl.start_pod(SECRET);
    assert_eq!(pod.first_line(), release(&image));
    drop(pod);

    let cost = node.cost_of(|| {
        assert!(!pulled(None), "without one");
        assert!(!pulled(Some(BOB)), "with somebody else's");
        assert!(pulled(Some(ADA)), "with it again");
    });
    assert_free(&cost);
}

fn start(version: Version, upstream: Upstream) -> (Node, Image) {
    let pause = ImageSpec { command: &["/bin/sleep", "1000000"], ..ImageSpec::default() };
    let pause = push(&upstream, "library/pause", "3.10", pause);
    let daemon = Daemon::start(&upstream.daemon_config());
    let content = daemon.content();
    let containerd = Containerd::start_as(version, Store::Tidehold(&content), Kubernetes::With);
    containerd.route("docker.io", &daemon.mirror());
    (Node { containerd, daemon, upstream }, pause)
}

fn crictl(node: &Node) -> Crictl<'_> {
    Crictl::new(programs::program("crictl"), &node.containerd)
}

/// The marker of such an image is its repository.
fn push(upstream: &Upstream, repository: &str, tag: &str, spec: ImageSpec) -> Image {
    let image = Image::build(&ImageSpec { marker: repository.to_owned(), ..spec }).unwrap();
    upstream.hub.push(repository, &image);
    upstream.hub.tag(repository, tag, &image.digest);
    image
}
