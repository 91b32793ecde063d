//! Content stores of a containerd that are not one, or not ours.

use crate::bench::{Node, Root, examine};
use crate::support::containerd::{Containerd, Kubernetes, Store, Version};
use crate::support::daemon::Daemon;
use crate::{Scenario, only, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("its own content store is enabled beside ours", builtin_beside),
    scenario("the address is no socket of the daemon", wrong_address),
    scenario("containerd was not started again since it was told", not_restarted),
    scenario("nothing keeps it from starting without a store", not_required),
    only(&[Version::V1_7, Version::V2], "Tidehold is not its differ", no_differ),
    only(&[Version::V2], "two containerds have one content socket", shared),
    only(&[Version::V2], "one of several containerds is meant", by_name),
    only(&[Version::V2], "containerd does not run", down),
];

const REQUIRED: &str = "required_plugins = [\"io.containerd.metadata.v1.bolt\"]";

fn builtin_beside(version: Version) {
    let mut node = Node::start(version, Kubernetes::Without);
    let good = node.config();
    let both = good.replace(", \"io.containerd.content.v1.content\"", "").replace(REQUIRED, "");
    assert_ne!(both.len(), good.len());
    node.containerd.restart_configured(&both);
    let mend = "disabled_plugins = [\"io.containerd.content.v1.content\"]";
    let found = node.examine();
    found.has("bad", "containerd.builtin", &["enabled beside", mend]);
    if version == Version::V2 {
        found.has("bad", "containerd.metadata", &["nothing can be pulled"]);
    }
    node.containerd.restart_configured(&good);
    node.is_well();
}

fn wrong_address(version: Version) {
    let mut node = Node::start(version, Kubernetes::Without);
    let good = node.config();
    let socket = node.daemon.content().display().to_string();
    let other = format!("{}.other", socket);
    node.containerd.restart_configured(&good.replace(&socket, &other));
    let found = node.examine();
    found.has("bad", "containerd.address", &[&other, &format!("address = {socket:?}")]);
    node.containerd.restart_configured(&good);
    node.is_well();
}

fn not_restarted(version: Version) {
    let node = Node::mirror_only(version, Kubernetes::Without);
    let config = node.config();
    let told = format!(
        "{config}\n[proxy_plugins.tidehold]\n  type = \"content\"\n  address = {:?}\n",
        node.daemon.content()
    );
    std::fs::write(node.containerd.config(), told).unwrap();
    node.examine().has("bad", "containerd.restart", &["systemctl restart containerd"]);
}

fn not_required(version: Version) {
    let mut node = Node::start(version, Kubernetes::Without);
    node.replace(REQUIRED, "");
    node.examine().has("warn", "containerd.required", &[REQUIRED]);
}

fn no_differ(version: Version) {
    let mut node = Node::start(version, Kubernetes::Without);
    node.replace("default = [\"tidehold-diff\", \"walking\"]", "default = [\"walking\"]");
    node.examine().has("warn", "containerd.differ", &["default = [\"tidehold-diff\", \"walking\"]"]);
}

fn shared(version: Version) {
    let node = Node::start(version, Kubernetes::Without);
    let content = node.daemon.content();
    let other = Containerd::start(version, Store::Tidehold(&content));
    let sockets = [node.containerd.socket(), other.socket()];
    let sockets = sockets.each_ref().map(|socket| socket.to_str().unwrap());
    let hosts = node.containerd.hosts();
    let options = ["--address", sockets[0], "--address", sockets[1], "--hosts-dir", hosts.to_str().unwrap()];
    let found = examine(&node.root, &node.daemon.config(), &options);
    found.has("bad", "containerd.shared-socket", &[sockets[1], "[[containerd]]"]);
}

fn by_name(version: Version) {
    let daemon = Daemon::start_for(&["one", "two"], "");
    let (one, two) = (daemon.content_of("one"), daemon.content_of("two"));
    let all = [
        Containerd::start(version, Store::Tidehold(&one)),
        Containerd::start(version, Store::Tidehold(&two)),
    ];
    let sockets = all.each_ref().map(|containerd| containerd.socket().display().to_string());
    let root = Root::new();
    let told = |name: &str| {
        let options = ["--offline", "--address", &sockets[0], "--address", &sockets[1], "--containerd", name];
        let found = examine(&root, &daemon.config(), &options);
        let groups = found.report["groups"].as_array().cloned().unwrap_or_default();
        let about = |socket: &&String| {
            groups.iter().any(|group| group["about"].as_str().unwrap().ends_with(&***socket))
        };
        (found.code, sockets.iter().filter(about).cloned().collect::<Vec<_>>())
    };
    assert_eq!(told("one").1, [sockets[0].clone()]);
    assert_eq!(told("two").1, [sockets[1].clone()]);
    assert_eq!(told("three"), (Some(2), vec![]));
}

fn down(version: Version) {
    let node = Node::start(version, Kubernetes::Without);
    let hosts = node.containerd.hosts();
    let missing = node.containerd.folder().join("missing.sock");
    let options = ["--address", missing.to_str().unwrap(), "--hosts-dir", hosts.to_str().unwrap()];
    let config = node.containerd.config();
    let all = [&options[..], &["--containerd-config", config.to_str().unwrap()]].concat();
    let found = examine(&node.root, &node.daemon.config(), &all);
    found.only("containerd.down", &["does not answer", "--address"]);
}
