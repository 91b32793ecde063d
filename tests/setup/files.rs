//! What setup says of a node and writes there, and that all of it goes again.

use std::fs;

use crate::node::{Node, tidehold};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("nothing is written without a yes", nothing_without_a_yes),
    ("a dry run shows the whole difference and writes nothing", a_dry_run),
    ("a second run finds nothing to change", a_second_run),
    ("a node is taken back byte for byte", taken_back),
    ("hosts that are there stay behind the mirror", foreign_hosts),
    ("one registry alone is asked for at the mirror where it is named", one_registry),
    ("podman, dockerd and BuildKit are told only where that is asked for", other_clients),
    ("the mirror's address comes from Tidehold's configuration", another_port),
    ("an imported file that has the last word is edited in the place of the main one", imports),
    ("what stands against a setup is said with its mend, and nothing is written", refusals),
    ("a containerd in use keeps its content store until that was taken over", in_use),
    ("what others changed since stays when all is taken back", changed_since),
    ("a restart is asked for before it is made", no_restart_without_a_yes),
    ("a node without a containerd is told so", no_containerd),
    ("a proxy that containerd goes out by is said not to be Tidehold's", by_proxy),
    ("a containerd that does not run is looked for where its unit says", unit_of_containerd),
    ("a file of version 1 gets hosts on 2.x, and none where CRI is disabled", version_1),
    ("what leads out of the node stays in it", links),
    ("the hold may be removed only where nobody would miss it", may_remove),
    ("what proves a login is not shown, and stays in the file", secrets),
    ("a folder that a run left which was cut short goes with the next", left_over),
    ("a restart is asked for only where something is read at a start alone", restarts),
    ("a differ that was put back by hand after a setup stays", differ_put_back),
    ("what makes no sense is not taken", nonsense),
    ("two runs at once do not meet", one_at_a_time),
    ("an undo whose restart fails says how it is gone on with", undo_without_a_restart),
];

pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";
const HOSTS: &str = "/etc/containerd/certs.d/_default/hosts.toml";
pub(crate) const V1_7: &[&str] = &["--yes", "--containerd-version", "1.7"];
pub(crate) const DEBIAN: &str = "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.internal.v1.opt\"]\n    \
                      path = \"/var/lib/containerd/opt\" # ours\n";

/// As `containerd config default` writes it from 1.7.28 on.
const TRANSFER: &str = "[plugins.\"io.containerd.transfer.v1.local\"]\n  config_path = \"\"\n  \
                        max_concurrent_downloads = 3\n  max_concurrent_uploaded_layers = 3\n  \
                        [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n    differ = \"walking\"\n    \
                        platform = \"linux/amd64\"\n    snapshotter = \"overlayfs\"\n";

pub(crate) fn plain() -> Node {
    Node::new(&[(CONFIG, DEBIAN)])
}

/// A blob in containerd's own store, whose digest is this over and over.
fn blob(two: &str) -> String {
    format!("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/{}", two.repeat(32))
}

/// The hold's mark that containerd relies on it, a byte.
fn mark(two: &str) -> String {
    format!("/var/lib/tidehold/adopted/system/sha256-{}-1", two.repeat(32))
}

fn by_proxy() {
    let node = plain();
    node.write("/usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n");
    let dry = ["--dry-run", "--containerd-version", "1.7"];
    assert!(!node.setup(&dry).done().stdout.contains("told of a proxy"));
    let part =
        "[Service]\nEnvironment=\"https_proxy=http://me:s3cret@proxy.corp:3128\" \"NO_PROXY=10.0.0.0/8\"\n";
    node.write("/etc/systemd/system/containerd.service.d/proxy.conf", part);
    let said = node.setup(&dry).done().stdout;
    let words =
        ["(https_proxy=http://proxy.corp:3128)", "asks registries directly", "nothing is cached", "upstream"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

fn nothing_without_a_yes() {
    let node = plain();
    let before = node.all();
    node.setup(&["--containerd-version", "1.7"])
        .failed_with(2, &["--yes", "--dry-run", "nothing was changed"]);
    assert_eq!(node.all(), before);
}

fn a_dry_run() {
    let node = plain();
    let before = node.all();
    let ran = node.setup(&["--dry-run", "--containerd-version", "2.1"]).ended_well();
    ran.said(&[
        "--- /etc/containerd/config.toml\n+++ /etc/containerd/config.toml\n",
        "+disabled_plugins = [\"io.containerd.content.v1.content\"]\n",
        "--- /dev/null\n+++ /etc/containerd/certs.d/_default/hosts.toml\n",
        "2 files would be changed",
    ]);
    assert_eq!(node.all(), before);
}

fn a_second_run() {
    let node = plain();
    node.setup(V1_7).ended_well().said(&["2 files changed", "next: ", "tidehold doctor"]);
    let before = node.all();
    for options in [V1_7, &["--containerd-version", "1.7"]] {
        node.setup(options).ended_well().said(&["nothing to change"]);
    }
    assert_eq!(node.all(), before);
}

fn taken_back() {
    for text in [DEBIAN, "", "# nothing\r\n", "disabled_plugins = [\"cri\"]\n#root = \"/x\"", "version = 3\n"]
    {
        let node = Node::new(&[(CONFIG, text)]);
        let before = node.all();
        node.setup(&["--yes", "--containerd-version", "2.1", "--podman", "--docker", "--buildkit"])
            .ended_well();
        assert_ne!(node.all(), before);
        node.setup(&["--undo"]).failed_with(2, &["--yes"]);
        node.setup(&["--undo", "--dry-run"]).ended_well().said(&["5 files would be restored"]);
        node.setup(&["--undo", "--yes"]).ended_well().said(&["5 files restored"]);
        assert_eq!(node.all(), before, "{text}");
        node.setup(&["--undo", "--yes"]).ended_well().said(&["nothing to take back"]);
    }
}

fn foreign_hosts() {
    let hub = "/etc/containerd/certs.d/docker.io/hosts.toml";
    let theirs = "server = \"https://registry-1.docker.io\"\n\n[host.\"https://m.test\"] # theirs\n";
    let own = "/etc/containerd/certs.d/r.test/hosts.toml";
    let node = Node::new(&[(CONFIG, DEBIAN), (hub, theirs), (own, "server = \"https://r.test\"\n")]);
    let ran = node.setup(V1_7).ended_well();
    ran.said(&[
        "docker.io/hosts.toml has hosts of its own",
        "r.test has a folder of its own",
        "--registry r.test",
    ]);
    let text = node.text(hub);
    assert!(text.find("127.0.0.1:789").unwrap() < text.find("m.test").unwrap(), "{text}");
    assert!(text.contains("# theirs"), "{text}");
    assert_eq!(node.text(own), "server = \"https://r.test\"\n");
}

fn one_registry() {
    let node = plain();
    node.setup(&[V1_7, &["--registry", "index.docker.io", "--registry", "r.test:5000"]].concat())
        .ended_well();
    for registry in ["docker.io", "r.test:5000"] {
        assert!(
            node.text(&format!("/etc/containerd/certs.d/{registry}/hosts.toml")).contains("127.0.0.1:789")
        );
    }
    assert!(!node.at(HOSTS).exists());
    node.setup(&["--yes", "--registry", "no such"]).failed_with(2, &["--registry"]);
}

fn other_clients() {
    let daemon = "{\n  \"debug\": true\n}\n";
    let node = Node::new(&[("/etc/docker/daemon.json", daemon), ("/usr/bin/podman", "")]);
    node.setup(&["--dry-run"]).failed_with(1, &["no containerd"]);
    let ran = node.setup(&["--yes", "--docker", "--buildkit"]).ended_well();
    ran.said(&["found podman, which stays as it is: --podman", "2 files changed"]);
    let json: serde_json::Value = serde_json::from_str(&node.text("/etc/docker/daemon.json")).unwrap();
    assert_eq!(json["debug"], true);
    assert_eq!(json["registry-mirrors"][0], "http://127.0.0.1:789");
    node.setup(&["--yes", "--podman"]).ended_well().said(&["1 file changed"]);
    let text = node.text("/etc/containers/registries.conf.d/tidehold.conf");
    assert!(text.contains("location = \"127.0.0.1:789/docker.io\""), "{text}");

    let theirs = [("/etc/containers/registries.conf", "[[registry]]\nlocation = \"docker.io\"\n")];
    Node::new(&theirs).setup(&["--yes", "--podman"]).failed_with(1, &["an entry for docker.io already"]);
}

fn another_port() {
    let node = plain();
    node.write(
        "/etc/tidehold/config.toml",
        "[mirror]\nlisten = \"0.0.0.0:1789\"\n[[containerd]]\nname = \"a\"\nsocket = \"/s/a\"\n",
    );
    node.setup(V1_7).ended_well();
    assert!(node.text(HOSTS).contains("[host.\"http://127.0.0.1:1789\"]"));
    assert!(node.text(CONFIG).contains("address = \"/s/a\""));
    // And moves with it.
    node.write(
        "/etc/tidehold/config.toml",
        "[[containerd]]\nname = \"a\"\nsocket = \"/s/a\"\n[[containerd]]\nname = \"b\"\nsocket = \"/s/b\"\n",
    );
    node.setup(V1_7).failed_with(2, &["--containerd", "a, b"]);
    node.write("/etc/tidehold/config.toml", "[mirror]\nlisten = \"nowhere\"\n");
    node.setup(V1_7).failed_with(78, &["config.toml:2"]);
}

fn imports() {
    let main = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    let more = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/a:/b\"\n";
    let node = Node::new(&[(CONFIG, main), ("/etc/containerd/conf.d/more.toml", more)]);
    let before = node.all();
    node.setup(V1_7).ended_well();
    assert_eq!(node.text("/etc/containerd/conf.d/more.toml"), more.replace("/a:/b", "/a"));
    assert!(node.text("/a/_default/hosts.toml").contains("127.0.0.1:789"));
    node.setup(V1_7).ended_well().said(&["nothing to change"]);
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.all(), before);
}

fn refusals() {
    let mirrors = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = []\n";
    let other = "version = 2\n[proxy_plugins.other]\ntype = \"content\"\naddress = \"/o\"\n";
    for (text, word) in [(mirrors, "registry.mirrors"), (other, "[proxy_plugins.other]"), ("a = ", "TOML")] {
        let node = Node::new(&[(CONFIG, text)]);
        let before = node.all();
        node.setup(V1_7).failed_with(1, &[word]);
        assert_eq!(node.all(), before, "{text}");
    }
    let node = plain();
    node.setup(&["--yes"]).failed_with(1, &["--containerd-version"]);
    node.setup(&["--yes", "--containerd-version", "new"]).failed_with(2, &["1.7"]);
    node.setup(&["--yes", "--containerd-version", "1.7", "--restart"]).failed_with(1, &["--restart-with"]);
    assert!(!node.at(HOSTS).exists());
    // Without the content store nothing depends on the version.
    node.setup(&["--yes", "--mirror-only"]).ended_well();
    assert!(!node.text(CONFIG).contains("proxy_plugins"));
}

fn in_use() {
    let node = plain();
    let blob = blob("aa");
    node.write(&blob, "x");
    node.write(&blob.replace(&"aa".repeat(32), "notadigest"), "x");
    let refused = ["in use: 1 of its 1 blobs", "tidehold adopt", "--mirror-only", "nothing was changed"];
    node.setup(V1_7).failed_with(1, &refused);
    node.setup(&["--yes", "--mirror-only"]).ended_well();
    node.write(&mark("aa"), "");
    node.setup(V1_7).ended_well();
    assert!(node.text(CONFIG).contains("[proxy_plugins.tidehold]"));

    // Now containerd relies on one more, which only the hold has.
    node.write(&mark("bb"), "");
    let before = node.text(CONFIG);
    node.setup(&["--undo", "--yes"]).failed_with(1, &["adopt --undo", "nothing was restored"]);
    assert_eq!(node.text(CONFIG), before);
    node.write(&blob.replace("aa", "bb"), "x");
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.text(CONFIG), DEBIAN);
}

fn changed_since() {
    let node = plain();
    node.setup(V1_7).ended_well();
    let theirs = node.text(CONFIG).replace("# ours", "# theirs");
    node.write(CONFIG, &theirs);
    node.setup(&["--undo", "--yes"]).ended_well().said(&["changed by others since: that stays"]);
    assert_eq!(node.text(CONFIG), DEBIAN.replace("# ours", "# theirs"));

    node.setup(V1_7).ended_well();
    let address = "address = \"/run/tidehold/content.sock\"";
    let theirs = node.text(CONFIG).replacen(address, "address = \"/elsewhere\"", 1);
    node.write(CONFIG, &theirs);
    let ran = node.setup(&["--undo", "--yes"]).failed_with(1, &[CONFIG, "--force", "nothing was changed"]);
    ran.said(&["+address = \"/elsewhere\""]);
    assert_eq!(node.text(CONFIG), theirs);
    node.setup(&["--undo", "--yes", "--force"]).ended_well();
    assert_eq!(node.text(CONFIG), DEBIAN.replace("# ours", "# theirs"));
    assert_eq!(node.text(&format!("{CONFIG}.changed")), theirs);
}

fn differ_put_back() {
    let node = Node::new(&[(CONFIG, &format!("{DEBIAN}{TRANSFER}"))]);
    let put_back = "write \"walking\" there again afterwards, and it stays";
    node.setup(V1_7).ended_well().said(&["as `containerd config default` writes it", put_back]);
    let ours = node.text(CONFIG);
    let theirs = ours.replace("differ = \"tidehold-diff\"", "differ = \"walking\"");
    assert_ne!(theirs, ours);
    node.write(CONFIG, &theirs);
    let stays = "\"walking\" in the unpack_config of the transfer service, and it stays";
    node.setup(V1_7).ended_well().said(&[stays, "nothing to change"]);
    assert_eq!(node.text(CONFIG), theirs);
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.text(CONFIG), format!("{DEBIAN}{TRANSFER}"));

    // One that is all that is written there was chosen to begin with.
    let chosen = &TRANSFER[TRANSFER.find("[[").unwrap()..];
    let node = Node::new(&[(CONFIG, &format!("{DEBIAN}{chosen}"))]);
    let before = node.all();
    node.setup(V1_7).ended_well().said(&[stays]);
    assert!(node.text(CONFIG).contains("differ = \"walking\""));
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.all(), before);
}

fn nonsense() {
    let node = plain();
    node.write("/opt/no-program", "");
    let before = node.all();
    for (options, words) in [
        (["--hosts-dir", "relative"], "--hosts-dir relative: containerd needs the whole path"),
        (["--hosts-dir", "/a:/b"], "--hosts-dir /a:/b: containerd takes a colon"),
        (["--program", "/nonexistent"], "there is no program on the node at /nonexistent"),
        (["--program", "/opt/no-program"], "there is no program on the node at /opt/no-program"),
        (["--program", "/opt"], "there is no program on the node at /opt"),
    ] {
        node.setup(&[V1_7, &options].concat()).failed_with(2, &[words, "nothing was changed"]);
    }
    for option in [&["--mirror-only"][..], &["--docker"], &["--registry", "r.test"]] {
        node.setup(&[&["--undo", "--yes"], option].concat()).failed_with(2, &["--undo", option[0]]);
    }
    let ran = tidehold(&["prune", "--to", "10XB"]);
    ran.failed_with(2, &["10XB", "KiB, MiB, GiB or TiB, as in 500MiB"]);
    assert_eq!(node.all(), before);
}

fn no_restart_without_a_yes() {
    let node = plain();
    let restarted = node.at("/restarted");
    let restart = format!("touch {}", restarted.display());
    let options = ["--mirror-only", "--containerd-version", "1.7", "--restart-with", &restart];
    let asked = "whether to change 2 files and restart containerd";
    node.setup(&options).failed_with(2, &[asked, "--yes", "nothing was changed"]);
    node.setup(&["--yes", "--mirror-only", "--containerd-version", "1.7"]).ended_well();
    node.setup(&options)
        .failed_with(2, &["whether to restart containerd: add --yes"])
        .said(&["nothing to change"]);
    assert!(!restarted.exists());
    node.setup(&[&["--yes"][..], &options].concat()).ended_well();
    assert!(restarted.exists());
}

fn no_containerd() {
    let node = Node::new(&[]);
    node.setup(V1_7).failed_with(1, &["no containerd", "--containerd-config", "--podman"]);
    let k3s = Node::new(&[("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "")]);
    k3s.setup(V1_7).failed_with(1, &["found k3s", "registries.yaml"]);
}

fn may_remove() {
    let node = plain();
    let may = || node.setup(&["--may-remove"]);
    let before = node.all();
    may().ended_well();
    assert_eq!(node.all(), before);
    node.setup(V1_7).ended_well();
    may().failed_with(1, &["/var/lib/tidehold-setup", CONFIG, HOSTS, "--undo --restart"]);
    node.setup(&["--undo", "--yes"]).ended_well();
    may().ended_well();

    // Set up by hand, which no journal knows of.
    node.write("/etc/containerd/conf.d/t.toml", "[proxy_plugins.tidehold]\naddress = \"/t\"\n");
    may().failed_with(1, &["conf.d/t.toml"]);
    node.write("/etc/containerd/conf.d/t.toml", "# [proxy_plugins.tidehold]\n");
    node.write("/etc/docker/daemon.json", "{\"registry-mirrors\": [\"http://127.0.0.1:789\"]}\n");
    may().failed_with(1, &["daemon.json"]);
    node.write("/etc/docker/daemon.json", "{\"registry-mirrors\": [\"http://127.0.0.1:7899\"]}\n");
    may().ended_well();

    // What only the hold has.
    node.write(&mark("bb"), "");
    may().failed_with(
        1,
        &["1 blobs", "\"system\"", "adopt --undo --containerd system --from /var/lib/containerd"],
    );
    node.write(&blob("bb"), "x");
    may().ended_well();

    // Whatever is broken beside it: it goes by what stands there.
    let broken = plain();
    broken.write(
        "/etc/systemd/system/containerd.service",
        "[Service]\nExecStart=/bin/containerd -c /srv/c.toml\n",
    );
    broken.write(CONFIG, "version = = 2\n");
    broken.write(
        "/etc/tidehold/config.toml",
        "data_dir = \"/data\"\n[mirror]\nlisten = \"127.0.0.1:1789\"\n[cash]\n",
    );
    fs::create_dir_all(broken.at(HOSTS)).unwrap();
    broken.write("/srv/c.toml", "root = \"/c\"\n");
    let latin = broken.at("/etc/containerd/certs.d/latin/hosts.toml");
    fs::create_dir_all(latin.parent().unwrap()).unwrap();
    fs::write(&latin, b"# caf\xe9\n").unwrap();
    // Nobody writes into this one.
    let pipe = broken.at("/etc/containerd/certs.d/pipe/hosts.toml");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    broken.setup(&["--may-remove"]).ended_well();
    fs::write(&latin, b"# caf\xe9\n[host.\"http://127.0.0.1:1789\"]\n").unwrap();
    broken.write("/srv/c.toml", "root = \"/c\"\n[proxy_plugins.tidehold]\n");
    broken.write("/data/adopted/system/sha256-bb-1", "");
    let words =
        ["/latin/hosts.toml names", "/srv/c.toml names", "adopt --undo --containerd system --from /c "];
    broken.setup(&["--may-remove"]).failed_with(1, &words);
}

fn secrets() {
    let text = format!("{DEBIAN}\n[plugins.\"x\".auth]\n  password = \"s3cret\"\n");
    let node = Node::new(&[(CONFIG, &text)]);
    let hides = |options: &[&str]| {
        let ran = node.setup(options).ended_well();
        assert!(!ran.stdout.contains("s3cret"), "{ran:?}");
        ran.said(&["   password = \"…\""]);
    };
    hides(V1_7);
    assert!(node.text(CONFIG).contains("  password = \"s3cret\"\n"));
    hides(&["--undo", "--yes"]);
    assert_eq!(node.text(CONFIG), text);
}

fn left_over() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = plain();
    let before = node.all();
    let folder = node.at("/var/lib/tidehold-setup");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    node.setup(&["--undo", "--yes"]).ended_well().said(&["nothing to take back"]);
    assert_eq!(node.all(), before);
}

fn unit_of_containerd() {
    let unit = "/usr/lib/systemd/system/containerd.service";
    let node =
        Node::new(&[(CONFIG, DEBIAN), (unit, "[Service]\nExecStart=/usr/bin/containerd --root /data/c\n")]);
    node.write(&blob("aa").replace("/var/lib/containerd", "/data/c"), "x");
    node.setup(V1_7).failed_with(1, &["in use", "/data/c/"]);
    node.write(unit, "[Service]\nExecStart=/usr/bin/containerd -c /c.toml\n");
    node.setup(V1_7).failed_with(1, &["--containerd-config /c.toml"]);

    let node = Node::new(&[(CONFIG, DEBIAN), ("/usr/bin/containerd", "")]);
    node.setup(V1_7).failed_with(1, &["does not run", "--containerd-root", "nothing was changed"]);
    node.setup(&[V1_7, &["--containerd-root", "/data"]].concat()).ended_well();
}

fn version_1() {
    let mirror_only = &["--yes", "--mirror-only", "--containerd-version", "2.1"];
    let node = Node::new(&[(CONFIG, "# mine\ndisabled_plugins = [\"aufs\"]\n")]);
    node.setup(mirror_only).ended_well();
    assert!(node.text(CONFIG).contains("version = 2") && node.text(CONFIG).contains("config_path"));
    // As Docker's package brings it.
    let node = Node::new(&[(CONFIG, "disabled_plugins = [\"cri\"]\n")]);
    node.setup(mirror_only).ended_well().said(&["CRI is disabled", "1 file changed"]);
    assert_eq!(node.text(CONFIG), "disabled_plugins = [\"cri\"]\n");
    assert!(node.at(HOSTS).exists());
}

fn links() {
    let node = Node::new(&[("/srv/x", "")]);
    fs::create_dir_all(node.at("/srv/containerd")).unwrap();
    fs::create_dir_all(node.at("/etc")).unwrap();
    std::os::unix::fs::symlink("/srv/containerd", node.at("/etc/containerd")).unwrap();
    node.write("/srv/containerd/config.toml", DEBIAN);
    node.setup(V1_7).ended_well();
    assert!(node.text("/srv/containerd/config.toml").contains("[proxy_plugins.tidehold]"));
    assert!(node.text("/srv/containerd/certs.d/_default/hosts.toml").contains("127.0.0.1:789"));
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.text("/srv/containerd/config.toml"), DEBIAN);
    assert!(!node.at("/srv/containerd/certs.d").exists());
}

fn restarts() {
    let hosts = "config_path = \"/etc/containerd/certs.d\"";
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\".registry]";
    let node = Node::new(&[(CONFIG, &format!("version = 2\n{cri}\n{hosts}\n"))]);
    let mirror_only = ["--yes", "--mirror-only", "--containerd-version", "1.7"];
    let ran = node.setup(&mirror_only).ended_well();
    assert!(!ran.stdout.contains("systemctl restart"), "{ran:?}");
    ran.said(&["1 file changed", "containerd needs no restart: it reads its hosts.toml at each pull"]);
    let ran = node.setup(&[&mirror_only[..], &["--docker", "--buildkit", "--podman"]].concat()).ended_well();
    assert!(!ran.stdout.contains("restart docker") && !ran.stdout.contains("hosts.toml"), "{ran:?}");
    let clients =
        ["systemctl reload docker, which stops no", "systemctl restart buildkit", "podman needs no"];
    ran.said(&clients);
    let ran = node.setup(&["--undo", "--yes"]).ended_well();
    ran.said(&["dockerd tries Tidehold's address", "buildkitd tries Tidehold's address"]);

    let node = plain();
    node.setup(&mirror_only).ended_well().said(&["; systemctl restart containerd; tidehold doctor"]);
    // Neither is dockerd restarted where containerd is.
    let restarted = ["--restart-with", "echo restarted", "--docker"];
    let ran = node.setup(&[&mirror_only[..], &restarted].concat()).ended_well();
    ran.said(&["next: tidehold doctor", "systemctl reload docker"]);
}

fn one_at_a_time() {
    let node = plain();
    let folder = node.at("/var/lib/tidehold-setup");
    fs::create_dir(&folder).unwrap();
    let other = fs::File::open(&folder).unwrap();
    other.lock().unwrap();
    let before = node.all();
    for options in [V1_7, &["--undo", "--yes"]] {
        node.setup(options).failed_with(1, &["another tidehold setup is running"]);
    }
    node.setup(&["--dry-run", "--containerd-version", "1.7"]).ended_well();
    assert_eq!(node.all(), before);
    // Said, since a program that another test starts may have a copy of it for another moment.
    other.unlock().unwrap();
    node.setup(V1_7).ended_well();
}

fn undo_without_a_restart() {
    let node = plain();
    node.setup(V1_7).ended_well();
    node.write("/var/lib/tidehold/blobs/sha256/ab/some", "0123456789");
    let ran = node.setup(&["--undo", "--yes", "--restart-with", "false"]);
    let ran = ran.failed_with(1, &["was not restarted", "run tidehold setup --undo --restart again"]);
    assert!(!ran.stderr.contains("take all back"), "{ran:?}");
    let ran = node.setup(&["--undo", "--yes"]).ended_well();
    ran.said(&["what was held stays in /var/lib/tidehold, 10 B", "rm -r /var/lib/tidehold"]);
}
