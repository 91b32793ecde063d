//! From nothing to a cached pull by one command, and back to what was before, with real containerds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::{LATEST, Upstream, assert_free, parts_of, release};
use crate::node::{Ran, tidehold};
use crate::support::containerd::{Containerd, Store, Version};
use crate::support::daemon::Daemon;
use crate::support::ran::plainly;

/// What it is called, and what it does.
pub(crate) type Scenario = (&'static str, fn(Version));

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("it is set up, pulls by way of the hold, and is then as it was", from_nothing_and_back),
    ("one in use is set up after its blobs were taken over, and keeps its images both ways", in_use),
    ("what it pulled between setup and its restart is taken over before that", pulled_before_the_restart),
    ("what it pulled between setup and a start of its own is found, and taken over", restarted_by_itself),
    ("a restart that was none is told from one", not_restarted),
    ("what it pulled since adopt is taken over by the setup that restarts it", pulled_since_adopt),
    ("it is restarted once, and then only when it runs with what it read before", restarted_once),
    ("a restart that it is owed is made where its process cannot be seen, and once", owed_unseen),
    ("it reads its own default configuration as it was meant once that is set up", its_own_defaults),
];

/// A containerd that knows nothing of the daemon beside it.
struct Node {
    containerd: Containerd,
    daemon: Daemon,
    upstream: Upstream,
}

impl Node {
    fn start(version: Version) -> Self {
        let upstream = Upstream::start();
        let daemon = Daemon::start(&upstream.daemon_config());
        let containerd = Containerd::start(version, Store::Builtin);
        Self { containerd, daemon, upstream }
    }

    fn folder(&self) -> PathBuf {
        self.containerd.root().parent().unwrap().to_owned()
    }

    fn config(&self) -> Vec<u8> {
        fs::read(self.folder().join("config.toml")).unwrap()
    }

    fn setup(&self, options: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
        self.run(&mut command, options)
    }

    /// From where its process has no id, as in a pod with a process name space of its own.
    fn setup_unseeing(&self, options: &[&str]) -> Ran {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", env!("CARGO_BIN_EXE_tidehold")]);
        self.run(&mut command, options)
    }

    fn run(&self, command: &mut Command, options: &[&str]) -> Ran {
        let folder = self.folder();
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (config, hosts, journal) = (at("config.toml"), at("certs.d"), at("journal"));
        let own = self.daemon.config();
        let where_it_is = [
            "setup",
            "--no-units",
            "--containerd-config",
            &config,
            "--hosts-dir",
            &hosts,
            "--journal",
            &journal,
            "--config",
            own.to_str().unwrap(),
        ];
        plainly(command).args(where_it_is).args(options).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    fn doctor(&self) -> Ran {
        let (socket, hosts) = (self.folder().join("grpc.sock"), self.folder().join("certs.d"));
        let (socket, hosts, own) = (socket.to_str().unwrap(), hosts.to_str().unwrap(), self.daemon.config());
        let own = own.to_str().unwrap();
        let journal = self.folder().join("journal");
        let of_setup = ["--config", own, "--journal", journal.to_str().unwrap()];
        tidehold(
            &[&["doctor", "--offline", "--address", socket, "--hosts-dir", hosts], &of_setup[..]].concat(),
        )
    }
}

fn from_nothing_and_back(version: Version) {
    let mut node = Node::start(version);
    let before = node.config();
    node.setup(&["--yes"]).ended_well().said(&["2 files changed"]);
    node.containerd.restart();
    node.doctor().ended_well().said(&["containerd.store"]);
    let cost = node.upstream.cost_of(|| node.containerd.pull("default", LATEST));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_free(&node.upstream.cost_of(|| node.containerd.pull("other", LATEST)));
    assert_eq!(node.containerd.content("default"), parts_of(node.upstream.hub.first()));
    assert_eq!(node.containerd.run("default", LATEST), release(node.upstream.hub.first()));
    // It was the hold that unpacked, or gave the layer's file to who did.
    let unpacked = if version.has_differs() { "applied a layer" } else { "from its file" };
    assert!(node.daemon.log().contains(unpacked), "{}", node.daemon.log());
    node.setup(&["--yes"]).ended_well().said(&["nothing to change"]);

    node.setup(&["--mirror-only", "--yes"]).ended_well().said(&[
        "the content store stays Tidehold, as an earlier setup made it: `tidehold setup --undo` gives containerd its own again\n",
    ]);

    let next = "systemctl restart containerd, and then tidehold setup --undo again";
    node.setup(&["--undo", "--yes"]).ended_well().said(&["giving ", "2 files restored", next]);
    assert_eq!(node.config(), before);
    assert!(!node.folder().join("certs.d").exists());
    // It still runs on the hold, which alone has what it pulls now.
    node.containerd.route("docker.io", &node.upstream.hub.registry_url());
    let late = node.upstream.push("late", 1000);
    node.containerd.pull("late", &late.reference);
    node.setup(&["--may-remove"]).failed_with(1, &["still to be taken back", "still runs with Tidehold"]);
    node.setup(&["--undo", "--yes"]).ended_well().said(&["the files are restored", next]);
    let finish =
        format!("tidehold setup --undo --restart --journal {}", node.folder().join("journal").display());
    node.doctor().failed_with(1, &[]).said(&["setup.undo", &finish]);
    let words = [
        "may rely on blobs that Tidehold alone has",
        "`tidehold setup --undo --yes --restart` first, and then",
    ];
    node.setup(&["--mirror-only", "--yes"]).failed_with(1, &words);
    node.setup(&["--dry-run"]).ended_well().said(&["this one takes its place"]);
    node.containerd.pull("late", &node.upstream.push("later", 1000).reference);
    node.containerd.restart();
    // As after a start of the machine: it has its own store again, and not what it pulled last.
    let told = node.doctor().failed_with(1, &[]).said(&[
        "setup.undo",
        "in Tidehold alone",
        "setup --undo --journal",
    ]);
    assert!(!told.stdout.contains("not-set-up"), "{told:?}");
    node.daemon.kill();
    node.setup(&["--may-remove"]).failed_with(1, &["still to be taken back"]);
    node.setup(&["--undo", "--yes"]).ended_well().said(&["what was held stays in "]);
    assert!(!node.folder().join("journal").exists());
    node.setup(&["--may-remove"]).ended_well();
    assert_eq!(node.containerd.run("late", &late.reference), release(&late.image));
    // What it removes from now on is no loss that the hold has to answer for.
    node.containerd.remove_images("late");
    node.setup(&["--may-remove"]).ended_well();
    assert_eq!(node.containerd.content("default"), parts_of(node.upstream.hub.first()));
    assert_eq!(node.containerd.run("other", LATEST), release(node.upstream.hub.first()));
}

fn in_use(version: Version) {
    let mut node = Node::start(version);
    node.containerd.route("docker.io", &node.upstream.hub.registry_url());
    node.containerd.pull("default", LATEST);
    let before = node.config();
    node.setup(&["--yes"]).failed_with(1, &["in use", "tidehold adopt"]);
    assert_eq!(node.config(), before);

    let (own, root) = (node.daemon.config(), node.containerd.root());
    let adopt = ["adopt", "--config", own.to_str().unwrap(), "--from", root.to_str().unwrap()];
    tidehold(&adopt).ended_well();
    node.setup(&["--yes"]).ended_well();
    node.containerd.restart();
    node.doctor().ended_well().said(&["containerd.store"]);
    assert_eq!(node.containerd.run("default", LATEST), release(node.upstream.hub.first()));

    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.config(), before);
    node.daemon.kill();
    node.containerd.restart();
    assert_eq!(node.containerd.run("default", LATEST), release(node.upstream.hub.first()));
}

fn pulled_before_the_restart(version: Version) {
    let mut node = Node::start(version);
    node.setup(&["--yes"]).ended_well();
    node.containerd.pull("default", LATEST);
    let told = node.doctor();
    assert!(
        told.stdout.contains("are not in Tidehold") && told.stdout.contains("tidehold adopt"),
        "{told:?}"
    );
    node.setup(&["--yes", "--restart-with", "false"]).failed_with(1, &["in use", "tidehold adopt"]);
    let own = node.daemon.config();
    let root = node.containerd.root();
    let adopt = ["adopt", "--config", own.to_str().unwrap(), "--from", root.to_str().unwrap()];
    tidehold(&adopt).ended_well();
    node.setup(&["--yes"]).ended_well().said(&["nothing to change"]);
    node.containerd.restart();
    assert_eq!(node.containerd.run("default", LATEST), release(node.upstream.hub.first()));
}

fn restarted_by_itself(version: Version) {
    let mut node = Node::start(version);
    let from = node.containerd.root();
    let adopt = format!("tidehold adopt --containerd node --from {}", from.display());
    node.setup(&["--yes"]).ended_well().said(&["owed: ", &adopt]);
    // Past Tidehold, as from a registry that it does not know.
    node.containerd.route("docker.io", &node.upstream.hub.registry_url());
    node.containerd.pull("default", LATEST);
    fs::remove_dir_all(node.folder().join("certs.d/docker.io")).unwrap();
    node.containerd.restart();
    node.doctor().failed_with(1, &[]).said(&["containerd.left-behind", &adopt]);
    let count = format!("relies on {} blobs", parts_of(node.upstream.hub.first()).len());
    node.setup(&["--dry-run"]).ended_well().said(&[&count]);
    node.doctor().failed_with(1, &[]);
    node.setup(&["--yes"]).ended_well().said(&[&count, "taking over"]);
    assert_eq!(node.containerd.run("default", LATEST), release(node.upstream.hub.first()));
    // What it does not know any more is no loss, whatever lies in its former store.
    for _ in 0..2 {
        node.doctor().ended_well();
        node.setup(&["--yes"]).ended_well().said(&["nothing to change"]);
        node.containerd.remove_images("default");
    }
}

fn not_restarted(version: Version) {
    let node = Node::start(version);
    let words = ["still has its own content store", "Owed: ", "tidehold adopt --containerd node"];
    node.setup(&["--yes", "--restart-with", "true"]).failed_with(1, &words);
}

fn pulled_since_adopt(version: Version) {
    let mut node = Node::start(version);
    node.containerd.route("docker.io", &node.upstream.hub.registry_url());
    node.containerd.pull("default", LATEST);
    let (own, root) = (node.daemon.config(), node.containerd.root());
    let adopt = ["adopt", "--config", own.to_str().unwrap(), "--from", root.to_str().unwrap()];
    let at = node.folder().join("grpc.sock");
    let adopt = [&adopt[..], &["--address", at.to_str().unwrap()]].concat();
    tidehold(&adopt).ended_well().said(&["containerd \"node\" can be given Tidehold"]);
    let late = node.upstream.push("late", 1000);
    node.containerd.pull("default", &late.reference);
    let before = node.config();
    node.setup(&["--yes"]).failed_with(1, &["in use", "tidehold adopt"]);

    // What cannot be taken over keeps the store from being swapped.
    let bad = root.join("io.containerd.content.v1.content/blobs/sha256").join("ab".repeat(32));
    fs::write(&bad, "not that").unwrap();
    let restart = ["--yes", "--restart-with", "true"];
    let ran = node.setup(&restart).failed_with(1, &["left out", "not all that containerd has pulled"]);
    let so = "Tidehold runs, and containerd was not touched: once `tidehold adopt --containerd node --from ";
    assert!(ran.stderr.contains(so) && ran.stderr.contains("run this again"), "{ran:?}");
    ran.said(&["blobs came since they were taken over", "taking over "]);
    assert_eq!(node.config(), before);
    fs::remove_file(&bad).unwrap();
    let later = node.upstream.push("later", 1000);
    node.containerd.pull("default", &later.reference);
    let ran = node.setup(&restart).said(&["taking over ", "taken over as", "3 files changed"]);
    assert!(!ran.stdout.contains("can be given Tidehold"), "{ran:?}");
    assert_ne!(node.config(), before);
    node.containerd.restart();
    assert_eq!(node.containerd.run("default", LATEST), release(node.upstream.hub.first()));
    for pushed in [&late, &later] {
        assert_eq!(node.containerd.run("default", &pushed.reference), release(&pushed.image));
    }
    tidehold(&adopt).ended_well().said(&["containerd \"node\" has Tidehold as its content store"]);
}

fn restarted_once(version: Version) {
    let mut node = Node::start(version);
    node.setup(&["--yes"]).ended_well().said(&["systemctl restart containerd; tidehold adopt"]);
    node.setup(&["--yes"]).ended_well().said(&["nothing to change", "next: systemctl restart containerd"]);
    node.containerd.restart();
    let restarted = node.folder().join("restarted");
    let restart = format!("touch {}", restarted.display());
    let again =
        || node.setup(&["--yes", "--restart-with", &restart]).ended_well().said(&["nothing to change"]);
    again();
    assert!(!restarted.exists());
    let ran = node.setup(&["--yes"]).ended_well();
    assert!(!ran.stdout.contains("restart"), "{ran:?}");
    // Somebody has changed it since.
    let config = fs::File::options().append(true).open(node.folder().join("config.toml")).unwrap();
    let written = config.metadata().unwrap().modified().unwrap();
    config.set_modified(written + std::time::Duration::from_secs(3600)).unwrap();
    again();
    assert!(restarted.exists());
}

fn owed_unseen(version: Version) {
    let node = Node::start(version);
    // With a CRI, so that it is to be told of the folder with its hosts.
    let config = String::from_utf8(node.config()).unwrap();
    let with_cri = config.lines().filter(|line| !line.starts_with("disabled_plugins"));
    let with_cri: Vec<&str> = with_cri.collect();
    fs::write(node.folder().join("config.toml"), with_cri.join("\n") + "\n").unwrap();
    let mirror_only = ["--yes", "--mirror-only"];
    let restarted = node.folder().join("restarted");
    let restart = format!("touch {}", restarted.display());
    let with_restart = [&mirror_only[..], &["--restart-with", &restart]].concat();
    node.setup_unseeing(&mirror_only)
        .ended_well()
        .said(&["2 files changed", "; systemctl restart containerd;"]);
    let owed = ["nothing to change", "not started since", "owed a restart"];
    for _ in 0..2 {
        node.setup_unseeing(&mirror_only).ended_well().said(&owed).said(&["next: systemctl restart"]);
        node.setup_unseeing(&["--dry-run", "--mirror-only"]).ended_well().said(&owed);
    }
    let failing = [&mirror_only[..], &["--restart-with", "false"]].concat();
    node.setup_unseeing(&failing).failed_with(1, &["was not restarted"]);
    node.setup_unseeing(&with_restart).ended_well().said(&["nothing to change", "running sh -c touch"]);
    assert!(restarted.exists());
    fs::remove_file(&restarted).unwrap();
    node.setup_unseeing(&with_restart).ended_well();
    assert!(!restarted.exists(), "restarted twice");
    let ran = node.setup_unseeing(&mirror_only).ended_well();
    assert!(!ran.stdout.contains("restart"), "{ran:?}");
}

fn its_own_defaults(version: Version) {
    let host =
        crate::node::Node::new(&[("/etc/containerd/config.toml", &printed(version, &["config", "default"]))]);
    let before = host.all();
    let number = if version == Version::V2 { "2.1".to_owned() } else { version.to_string() };
    host.setup(&["--yes", "--containerd-version", &number]).ended_well();
    let config = host.at("/etc/containerd/config.toml");
    let dump = printed(version, &["--config", config.to_str().unwrap(), "config", "dump"]);
    let read: toml::Table = dump.parse().unwrap();
    let plugin =
        if version == Version::V2 { "io.containerd.cri.v1.images" } else { "io.containerd.grpc.v1.cri" };
    assert_eq!(
        read["plugins"][plugin]["registry"]["config_path"].as_str(),
        Some("/etc/containerd/certs.d"),
        "{dump}"
    );
    assert_eq!(read["disabled_plugins"][0].as_str(), Some("io.containerd.content.v1.content"));
    assert_eq!(read["proxy_plugins"]["tidehold"]["address"].as_str(), Some("/run/tidehold/content.sock"));
    if version.has_differs() {
        let differs = &read["plugins"]["io.containerd.service.v1.diff-service"]["default"];
        assert_eq!(differs[0].as_str(), Some("tidehold-diff"), "{dump}");
        let unpack = &read["plugins"]["io.containerd.transfer.v1.local"]["unpack_config"];
        assert_eq!(unpack[0]["differ"].as_str(), Some("tidehold-diff"), "{dump}");
    } else {
        assert!(read["stream_processors"]["tidehold"]["path"].is_str(), "{dump}");
    }
    host.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(host.all(), before);
}

/// What this version's containerd prints.
fn printed(version: Version, arguments: &[&str]) -> String {
    let program = version.program();
    let output = std::process::Command::new(&program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", Path::new(&program).display());
    String::from_utf8(output.stdout).unwrap()
}
