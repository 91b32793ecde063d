//! What becomes of the folders of registries that are there already, in whichever folder they are.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::files::{CONFIG, DEBIAN, V1_7};
use crate::node::Node;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("what a second folder has counts on beside the first one", second_folder),
    ("what is hidden by a registry of the first folder stays hidden", hidden_before),
    ("what Tidehold is put before comes from the second folder with its certificates", second_docker_io),
    ("certificates without a hosts.toml count on in the one that is written", certificates),
    ("an empty, a missing and the same second folder change nothing", nothing_to_carry),
    ("what cannot be linked is refused with its mend", not_linked),
    ("containerd 2.2 looks into two folders by itself", by_itself),
    ("nerdctl has what it had in the second folder it looks into", of_nerdctl),
    ("another folder that is named has what the others had", named_folder),
];

const FIRST: &str = "/etc/containerd/certs.d";
const SECOND: &str = "/etc/docker/certs.d";

/// With these two folders.
fn config(folders: &str) -> String {
    format!("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{folders}\"\n")
}

fn two(files: &[(&str, &str)]) -> Node {
    let node = Node::new(&[(CONFIG, &config(&format!("{FIRST}:{SECOND}")))]);
    for (path, text) in files {
        node.write(path, text);
    }
    node
}

/// Where a link leads.
fn leads(node: &Node, path: &str) -> Option<String> {
    fs::read_link(node.at(path)).ok().map(|to| to.to_str().unwrap().to_owned())
}

#[track_caller]
fn taken_back(node: &Node, before: &[crate::node::Entry]) {
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.all(), before);
}

fn second_folder() {
    let hosts = "server = \"https://corp.example\"\nca = \"own/ca.crt\"\n";
    let node = two(&[
        (&format!("{SECOND}/corp.example/hosts.toml"), hosts),
        (&format!("{SECOND}/corp.example/own/ca.crt"), "CA"),
        (&format!("{SECOND}/r.test_5000_/client.key"), "KEY"),
    ]);
    let key = node.at(&format!("{SECOND}/r.test_5000_/client.key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let before = node.all();
    let links = ["+/etc/containerd/certs.d/corp.example -> /etc/docker/certs.d/corp.example\n"];
    let told = "/etc/docker/certs.d is not looked into any more";
    let ran = node.setup(&["--dry-run", "--containerd-version", "1.7"]).ended_well();
    ran.said(&links).said(&[
        told,
        "for corp.example, r.test_5000_ is linked there",
        "4 files would be changed",
    ]);
    assert_eq!(node.all(), before);

    node.setup(V1_7).ended_well().said(&links).said(&["4 files changed"]);
    assert!(node.text(CONFIG).contains("config_path = \"/etc/containerd/certs.d\"\n"));
    for name in ["corp.example", "r.test_5000_"] {
        let to = leads(&node, &format!("{FIRST}/{name}")).unwrap();
        assert_eq!(to, format!("{SECOND}/{name}"));
    }
    assert!(node.at(&format!("{FIRST}/_default/hosts.toml")).exists());
    node.setup(V1_7).ended_well().said(&["nothing to change"]);
    node.setup(&["--undo", "--dry-run"]).ended_well().said(&[
        "-/etc/containerd/certs.d/corp.example -> /etc/docker/certs.d/corp.example\n",
        "4 files would be restored",
    ]);
    taken_back(&node, &before);

    // One that is asked for at Tidehold has what it had, behind it.
    node.setup(&[V1_7, &["--registry", "corp.example"]].concat()).ended_well();
    let text = node.text(&format!("{FIRST}/corp.example/hosts.toml"));
    assert!(text.contains("127.0.0.1:789") && text.starts_with(hosts), "{text}");
    assert_eq!(
        leads(&node, &format!("{FIRST}/corp.example/own")).unwrap(),
        format!("{SECOND}/corp.example/own")
    );
    assert_eq!(node.text(&format!("{SECOND}/corp.example/hosts.toml")), hosts);
    assert!(leads(&node, &format!("{FIRST}/r.test_5000_")).is_some());
    taken_back(&node, &before);
}

fn hidden_before() {
    // The first one has it, or all of them.
    for own in ["r.test:5000", "_default"] {
        let own = format!("{FIRST}/{own}/hosts.toml");
        let node = two(&[
            (&own, "[host.\"https://m.test\"]\n"),
            (&format!("{SECOND}/r.test_5000_/hosts.toml"), "[host.\"https://hidden.test\"]\n"),
        ]);
        let before = node.all();
        let ran = node.setup(V1_7).ended_well();
        assert!(!ran.stdout.contains(" -> "), "{ran:?}");
        assert!(node.text(&own).contains("m.test"));
        taken_back(&node, &before);
    }
}

fn second_docker_io() {
    let header = "[host.\"https://m.test\"]\n  ca = \"ca.crt\"\n  [host.\"https://m.test\".header]\n    authorization = \"s3cret\"\n";
    let node = two(&[
        (&format!("{SECOND}/docker.io/hosts.toml"), header),
        (&format!("{SECOND}/docker.io/ca.crt"), "CA"),
        (&format!("{SECOND}/_default/ca.crt"), "CA"),
    ]);
    let theirs = node.at(&format!("{SECOND}/docker.io/hosts.toml"));
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).unwrap();
    let before = node.all();
    let ran = node.setup(V1_7).ended_well();
    assert!(!ran.stdout.contains("s3cret"), "{ran:?}");
    let ours = format!("{FIRST}/docker.io/hosts.toml");
    let text = node.text(&ours);
    assert!(text.find("127.0.0.1:789").unwrap() < text.find("m.test").unwrap(), "{text}");
    assert!(text.contains("s3cret") && text.contains("ca = \"ca.crt\""), "{text}");
    assert_eq!(fs::metadata(node.at(&ours)).unwrap().mode() & 0o777, 0o600);
    for file in ["docker.io/ca.crt", "_default/ca.crt"] {
        assert_eq!(leads(&node, &format!("{FIRST}/{file}")).unwrap(), format!("{SECOND}/{file}"));
    }
    let text = node.text(&format!("{FIRST}/_default/hosts.toml"));
    assert!(text.starts_with("ca = [\"ca.crt\"]\n") && text.contains("127.0.0.1:789"), "{text}");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), header);
    node.setup(V1_7).ended_well().said(&["nothing to change"]);

    // As a run leaves it that is cut short before all was written.
    let hosts = ["docker.io/hosts.toml", "_default/hosts.toml"];
    for cut in [&hosts[..], &[&hosts[..], &["docker.io/ca.crt", "_default/ca.crt"]].concat()] {
        node.write(CONFIG, &config(&format!("{FIRST}:{SECOND}")));
        for file in cut {
            fs::remove_file(node.at(&format!("{FIRST}/{file}"))).unwrap();
        }
        node.setup(V1_7).ended_well();
        let text = node.text(&ours);
        assert!(text.contains("127.0.0.1:789") && text.contains("m.test"), "{text}");
        assert!(leads(&node, &format!("{FIRST}/docker.io/ca.crt")).is_some());
    }
    taken_back(&node, &before);
}

fn certificates() {
    let node = two(&[]);
    for file in ["a.crt", "b.crt", "c.cert", "c.key", "d.cert", "notes"] {
        node.write(&format!("{FIRST}/docker.io/{file}"), "x");
    }
    let before = node.all();
    node.setup(V1_7).ended_well();
    let text = node.text(&format!("{FIRST}/docker.io/hosts.toml"));
    let says = "ca = [\"a.crt\", \"b.crt\"]\nclient = [[\"c.cert\", \"c.key\"], [\"d.cert\", \"d.cert\"]]\n";
    assert!(text.starts_with(says), "{text}");
    node.setup(V1_7).ended_well().said(&["nothing to change"]);
    taken_back(&node, &before);
}

fn nothing_to_carry() {
    let missing = two(&[]);
    let empty = two(&[]);
    fs::create_dir_all(empty.at(SECOND)).unwrap();
    let same = two(&[(&format!("{FIRST}/r.test/hosts.toml"), "[host.\"https://r.test\"]\n")]);
    fs::create_dir_all(same.at("/etc/docker")).unwrap();
    symlink(FIRST, same.at(SECOND)).unwrap();
    for node in [missing, empty, same] {
        let ran = node.setup(V1_7).ended_well().said(&["2 files changed"]);
        assert!(!ran.stdout.contains(" -> "), "{ran:?}");
        node.setup(&["--undo", "--yes"]).ended_well();
    }
}

fn not_linked() {
    let out = two(&[(&format!("{SECOND}/r.test/hosts.toml"), "ca = \"../../all.crt\"\n")]);
    let taken = two(&[(&format!("{SECOND}/r.test/ca.crt"), "CA"), (&format!("{FIRST}/r.test"), "no folder")]);
    for (node, words) in [
        (out, ["/etc/docker/certs.d/r.test/hosts.toml", "\"../../all.crt\"", "write the whole path"]),
        (taken, ["/etc/containerd/certs.d/r.test leads to no folder", "remove it", "nothing was changed"]),
    ] {
        let before = node.all();
        node.setup(V1_7).failed_with(1, &words);
        assert_eq!(node.all(), before);
    }
}

fn by_itself() {
    let node = Node::new(&[(CONFIG, DEBIAN), (&format!("{SECOND}/corp.example/ca.crt"), "CA")]);
    let before = node.all();
    for (version, linked) in [("2.1", false), ("2.2", true)] {
        node.setup(&["--yes", "--containerd-version", version]).ended_well();
        assert_eq!(leads(&node, &format!("{FIRST}/corp.example")).is_some(), linked, "{version}");
        taken_back(&node, &before);
    }
}

fn of_nerdctl() {
    let ca = format!("{SECOND}/corp.example/ca.crt");
    let node = Node::new(&[(CONFIG, DEBIAN), (&ca, "CA"), ("/usr/bin/nerdctl", "")]);
    let before = node.all();
    node.setup(V1_7).ended_well().said(&["found nerdctl, which reads the same hosts"]);
    assert_eq!(
        fs::read_link(node.at(&format!("{FIRST}/corp.example"))).unwrap(),
        Path::new(SECOND).join("corp.example")
    );
    node.setup(V1_7).ended_well().said(&["nothing to change"]);
    taken_back(&node, &before);
    // Only what is told of hides anything.
    node.setup(&[V1_7, &["--registry", "docker.io"]].concat()).ended_well();
    assert!(!node.at(&format!("{FIRST}/corp.example")).exists());
    taken_back(&node, &before);

    node.write("/etc/nerdctl/nerdctl.toml", "hosts_dir = [\"/srv/hosts\"]\n");
    let ran = node.setup(V1_7).ended_well();
    ran.said(&["found nerdctl, which reads its hosts in /srv/hosts and is told of Tidehold there"]);
    assert!(node.text("/srv/hosts/_default/hosts.toml").contains("127.0.0.1:789"));
}

fn named_folder() {
    let node = two(&[
        (&format!("{FIRST}/a.test/ca.crt"), "CA"),
        (&format!("{SECOND}/b.test/ca.crt"), "CA"),
        ("/srv/hosts/b.test/ca.crt", "another CA"),
    ]);
    let before = node.all();
    node.setup(&[V1_7, &["--hosts-dir", "/srv/hosts"]].concat()).ended_well();
    assert_eq!(leads(&node, "/srv/hosts/a.test").unwrap(), format!("{FIRST}/a.test"));
    assert_eq!(node.text("/srv/hosts/b.test/ca.crt"), "another CA");
    taken_back(&node, &before);
}
