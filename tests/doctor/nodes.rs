//! Nodes that are as they should be: nothing is found.

use crate::bench::{Node, Root, examine};
use crate::support::containerd::{Kubernetes, Version};
use crate::support::daemon::Daemon;
use crate::support::ran::plainly;
use crate::{Scenario, only, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("nothing is found on a node without Kubernetes", |version| good(version, Kubernetes::Without)),
    scenario("nothing is found on a node with Kubernetes", |version| good(version, Kubernetes::With)),
    scenario("nothing is found on a node that only pulls through the mirror", |version| {
        let node = Node::mirror_only(version, Kubernetes::With);
        node.is_well();
        node.examine().has_ok("containerd.mirror-only");
    }),
    scenario("nothing is found on a node with dockerd's packages, whose containerd has no CRI", for_dockerd),
    only(&[Version::V2], "asking for an image costs nothing and leaves nothing behind", at_no_cost),
    only(&[Version::V2], "nothing is asked of a registry where that is not wanted", offline),
    only(&[Version::V2], "a person reads it in groups, with the mend beneath what is wrong", as_text),
    only(&[Version::V1_7], "a node that was not set up is told so", not_set_up),
    only(&[Version::V1_7], "a node without a containerd is told so", no_containerd),
    only(&[Version::V1_7], "dockerd alone may be the one that pulls through the mirror", dockerd_alone),
];

fn good(version: Version, kubernetes: Kubernetes) {
    let node = Node::start(version, kubernetes);
    if kubernetes == Kubernetes::With {
        node.root.write("/var/lib/kubelet/config.yaml", "");
    }
    node.root.write("/etc/nerdctl/nerdctl.toml", &format!("hosts_dir = [{:?}]\n", node.containerd.hosts()));
    node.is_well();
    let found = node.examine();
    let expected = [
        "daemon.answers",
        "mirror.answers",
        "mirror.head",
        "upstream.reachable",
        "clock",
        "disk.room",
        "containerd.store",
        "containerd.metadata",
        "hosts",
        "clients.nerdctl",
    ];
    expected.into_iter().for_each(|name| found.has_ok(name));
    if kubernetes == Kubernetes::With {
        found.has_ok("containerd.cri");
        found.has_ok("registries.folder");
    }
    if version.has_differs() {
        found.has_ok("containerd.differ");
    }
    // Its own server and another name for the same address are as good.
    let url = node.daemon.mirror();
    node.write_hosts(
        "docker.io",
        &format!("server = \"https://registry-1.docker.io\"\n{}", node.hosts_toml()),
    );
    node.write_hosts("reg.test_5000_", &format!("server = \"{url}\"\n[host]\n"));
    node.write_hosts("ghcr.io", &node.hosts_toml().replace("127.0.0.1", "localhost"));
    node.is_well();
}

impl crate::bench::Found {
    #[track_caller]
    pub(crate) fn has_ok(&self, name: &str) {
        assert!(
            self.all().iter().any(|finding| finding.level == "ok" && finding.name == name),
            "{name}: {self:#?}"
        );
    }
}

fn for_dockerd(version: Version) {
    let mut node = Node::mirror_only(version, Kubernetes::Without);
    let config = node.config();
    // As it is packaged, but for the folders; of version 1, since it says nothing.
    let own = |name: &str| config.lines().find(|line| line.trim().starts_with(name)).unwrap();
    let (root, state, address) = (own("root ="), own("state ="), own("address ="));
    let packaged = format!(
        "disabled_plugins = [\"cri\", \"opt\", \"nri\", \"io.containerd.nri.v1.nri\"]\n{root}\n{state}\n[grpc]\n{address}\n"
    );
    node.containerd.restart_configured(&packaged);
    node.is_well();
    // As setup makes it, beside other things.
    let mut node = Node::start(version, Kubernetes::With);
    let folder = format!("config_path = \"{}\"\n", node.containerd.hosts().display());
    let config = node.config().replacen(&folder, "\n", 1);
    let disabled = "disabled_plugins = [\"io.containerd.grpc.v1.cri\", ";
    node.containerd.restart_configured(&config.replacen("disabled_plugins = [", disabled, 1));
    node.is_well();
}

fn at_no_cost(version: Version) {
    let node = Node::mirror_only(version, Kubernetes::Without);
    let held = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidehold"));
        let output = command.args(["ls", "--json", "--config"]).arg(node.daemon.config()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let other = "docker.io/library/tide:missing";
    let found = node.examine_with(&["--reference", other]);
    found.has("warn", "mirror.unknown", &[other]);
    let head = found.all().into_iter().find(|finding| finding.name == "mirror.head").unwrap();
    assert!(head.what.contains("docker.io/library/tide:latest") && head.what.contains("nothing is held"));
    let counters = node.hub.counters();
    // Who is told that something is missing is told why.
    assert_eq!((counters.manifest_gets, counters.manifest_heads), (0, 3), "{counters:?}");
    assert_eq!((counters.blob_gets, held()), (0, String::new()), "{counters:?}");

    node.containerd.route("docker.io", &node.daemon.mirror());
    node.containerd.pull("default", "docker.io/library/tide:latest");
    let (before, pulled) = (held(), node.hub.counters().manifest_gets);
    assert!(before.contains("docker.io/library/tide:latest"), "{before}");
    let found = node.examine();
    let head = found.all().into_iter().find(|finding| finding.name == "mirror.head").unwrap();
    assert!(head.what.ends_with("unchanged") || head.what.ends_with("fresh"), "{head:?}");
    assert_eq!((node.hub.counters().manifest_gets, held().lines().count()), (pulled, 1));
}

fn offline(version: Version) {
    let node = Node::start(version, Kubernetes::Without);
    node.hub.reset_counters();
    node.examine_with(&["--offline"]).well();
    let counters = node.hub.counters();
    assert_eq!((counters.manifest_gets, counters.manifest_heads), (0, 0), "{counters:?}");
}

fn as_text(version: Version) {
    let node = Node::start(version, Kubernetes::Without);
    node.remove_hosts("_default");
    let socket = node.containerd.socket();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidehold"));
    let output = plainly(&mut command)
        .args(["doctor", "--offline", "--address"])
        .arg(&socket)
        .arg("--config")
        .arg(node.daemon.config())
        .arg("--hosts-dir")
        .arg(node.containerd.hosts())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains('\u{1b}'), "colours are for terminals: {text}");
    assert!(text.starts_with("tidehold\n"), "{text}");
    let hosts = node.containerd.hosts();
    assert!(
        text.contains(&format!("{}/_default/hosts.toml (it needs no restart):\n", hosts.display())),
        "{text}"
    );
    assert!(text.contains("hosts.none\n"), "{text}");
}

fn not_set_up(version: Version) {
    let node = Node::mirror_only(version, Kubernetes::Without);
    node.remove_hosts("_default");
    let found = node.examine();
    found.has("bad", "containerd.not-set-up", &["tidehold setup"]);
    found.has("bad", "hosts.none", &["_default/hosts.toml"]);
}

fn no_containerd(_: Version) {
    let daemon = Daemon::start("");
    let root = Root::new();
    let found = examine(&root, &daemon.config(), &["--offline"]);
    found.has("warn", "containerd.none", &["--address"]);
}

fn dockerd_alone(version: Version) {
    let node = Node::mirror_only(version, Kubernetes::Without);
    node.root
        .write("/etc/docker/daemon.json", &format!("{{\"registry-mirrors\": [{:?}]}}", node.daemon.mirror()));
    let socket = node.containerd.socket();
    let options = ["--address", socket.to_str().unwrap()];
    let found = examine(&node.root, &node.daemon.config(), &options);
    found.well();
    found.has_ok("clients.docker");
}
