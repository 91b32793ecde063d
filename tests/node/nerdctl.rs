//! nerdctl: it pulls by itself, with the hosts that it is told of, and runs what it pulled.

use std::fs;
use std::process::Output;

use crate::bench::{FIXED, LATEST, Node, Upstream, assert_free, parts_of, release};
use crate::programs;
use crate::support::containerd::{Containerd, Store, Version, remove_control_groups, unique_id};
use crate::support::daemon::Daemon;
use crate::support::go::text;
use crate::support::hub::{Fault, REPOSITORY};
use crate::{Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    with_nerdctl("nerdctl pulls, runs and removes, and pulls again for nothing", pulls_and_runs),
    with_nerdctl("nerdctl pulls what is held while the registry answers 429", |version| {
        outage(version, Fault::PullLimit);
    }),
    with_nerdctl("nerdctl pulls what is held while the registry is gone", |version| {
        outage(version, Fault::Refuse);
    }),
    with_nerdctl("nerdctl goes to the registry itself where the mirror is down", without_the_mirror),
];

const fn with_nerdctl(name: &'static str, run: fn(Version)) -> Scenario {
    Scenario { needs: programs::available, ..scenario(name, run) }
}

const NAMESPACE: &str = "default";

fn pulls_and_runs(version: Version) {
    let node = Node::start(version);
    let nerdctl = Nerdctl::new(&node.containerd);
    let cost = node.cost_of(|| drop(nerdctl.ask(&["pull", LATEST])));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_eq!(nerdctl.run(LATEST), release(node.hub().first()));

    let by_digest = format!("docker.io/{REPOSITORY}@{}", node.hub().first().digest);
    for reference in [LATEST, FIXED, &by_digest] {
        assert_free(&node.cost_of(|| drop(nerdctl.ask(&["pull", reference]))));
    }
    nerdctl.ask(&["rmi", "--force", LATEST, FIXED, &by_digest]);
    assert_eq!(nerdctl.ask(&["images", "--quiet"]), "");
    assert_free(&node.cost_of(|| drop(nerdctl.ask(&["pull", LATEST]))));
    assert_eq!(nerdctl.run(LATEST), release(node.hub().first()));
    assert_eq!(node.containerd.read_back(NAMESPACE), parts_of(node.hub().first()));
}

fn outage(version: Version, fault: Fault) {
    let node = Node::start(version);
    let nerdctl = Nerdctl::new(&node.containerd);
    nerdctl.ask(&["pull", LATEST]);
    nerdctl.ask(&["rmi", LATEST]);
    node.break_everything(fault);
    nerdctl.ask(&["pull", LATEST]);
    assert_eq!(nerdctl.run(LATEST), release(node.hub().first()));
}

/// With containerd's own store: without Tidehold as its store nothing but the mirror is gone.
fn without_the_mirror(version: Version) {
    let upstream = Upstream::start();
    let mut daemon = Daemon::start(&upstream.daemon_config());
    let containerd = Containerd::start(version, Store::Builtin);
    containerd.route_over("docker.io", &daemon.mirror(), &upstream.hub.registry_url());
    let nerdctl = Nerdctl::new(&containerd);
    nerdctl.ask(&["pull", FIXED]);
    assert_eq!(daemon.held().len(), parts_of(upstream.hub.first()).len(), "it came through the mirror");

    assert!(daemon.terminate().success());
    let cost = upstream.cost_of(|| drop(nerdctl.ask(&["pull", LATEST])));
    assert!(cost.manifest_heads + cost.manifest_gets > 0, "{cost:?}");
    assert_eq!(nerdctl.run(LATEST), release(upstream.hub.first()));
}

/// nerdctl with folders of its own, told of them as its users tell it.
struct Nerdctl<'a> {
    containerd: &'a Containerd,
    group: String,
}

impl<'a> Nerdctl<'a> {
    fn new(containerd: &'a Containerd) -> Self {
        let folder = containerd.folder().display();
        let settings = format!(
            "address = \"unix://{}\"\nnamespace = \"{NAMESPACE}\"\nsnapshotter = \"{}\"\n\
             hosts_dir = [\"{}\"]\ncgroup_manager = \"cgroupfs\"\ndata_root = \"{folder}/nerdctl\"\n\
             cni_path = \"{folder}/cni/bin\"\ncni_netconfpath = \"{folder}/cni/net.d\"\n",
            containerd.socket().display(),
            containerd.snapshotter(),
            containerd.hosts().display(),
        );
        fs::write(containerd.folder().join("nerdctl.toml"), settings).unwrap();
        Self { containerd, group: unique_id() }
    }

    /// Runs the image's own command in a container that goes with it.
    fn run(&self, reference: &str) -> String {
        let group = format!("/{}", self.group);
        self.ask(&["run", "--rm", "--network", "none", "--cgroup-parent", &group, reference])
    }

    /// What it printed; panics if it fails.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.try_ask(arguments);
        assert!(output.status.success(), "nerdctl {arguments:?}: {}\n{}", output.status, text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn try_ask(&self, arguments: &[&str]) -> Output {
        let folder = self.containerd.folder().display();
        let mut command = self.containerd.inside();
        command.arg("env").arg(format!("HOME={folder}")).arg(format!("DOCKER_CONFIG={folder}/docker"));
        command.arg(format!("NERDCTL_TOML={folder}/nerdctl.toml"));
        command.arg(programs::program("nerdctl")).args(arguments).output().expect("nsenter runs")
    }
}

impl Drop for Nerdctl<'_> {
    fn drop(&mut self) {
        remove_control_groups(&self.group);
    }
}
