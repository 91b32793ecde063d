//! The ten misconfigurations that are reported most (see above): each is found on a real containerd that has it, and
//! doing what is said leaves nothing to mend.

use std::fs;

use crate::bench::Node;
use crate::support::containerd::{Kubernetes, Version};
use crate::{Scenario, only, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("1: config_path is not set", no_folder),
    scenario("containerd has no configuration at all", no_file),
    only(&[Version::V2], "2: config_path names two folders", two_folders),
    scenario("3: config_path stands in another version's section", wrong_section),
    scenario("4: registry.mirrors stands beside config_path", inline_mirrors),
    scenario("5: the CRI plugin is disabled and a kubelet is there", no_cri),
    only(&[Version::V1_6, Version::V1_7], "6: hosts.toml has a server alone", server_alone),
    scenario("7: hosts.toml is no TOML", no_toml),
    scenario("8: the folder has the server's name in place of the image's", wrong_name),
    scenario("9: the mirror is written with https, or beneath a path", wrong_url),
    only(
        &[Version::V1_6, Version::V1_7],
        "10: an imported file replaces the table with config_path",
        replaced,
    ),
    scenario("nerdctl looks for hosts elsewhere", nerdctl),
    scenario("the mirror may not resolve tags", no_resolve),
    scenario("a registry's own folder goes past the mirror", past),
];

fn section(version: Version) -> &'static str {
    match version {
        Version::V1_6 | Version::V1_7 => "io.containerd.grpc.v1.cri",
        Version::V2 => "io.containerd.cri.v1.images",
    }
}

fn config_path(node: &Node) -> String {
    format!("    config_path = \"{}\"\n", node.containerd.hosts().display())
}

fn no_folder(version: Version) {
    let mut node = Node::start(version, Kubernetes::With);
    let line = config_path(&node);
    let good = node.config();
    node.replace(&line, "");
    // What it says stands in its words for the file.
    let plugin = section(version);
    let registry = format!("[plugins.\"{plugin}\".registry]");
    node.ails("registries.folder", &["config_path is not set", &registry, "systemctl restart containerd"]);
    node.containerd.restart_configured(&good);
    node.is_well();
}

fn no_file(version: Version) {
    let node = Node::mirror_only(version, Kubernetes::With);
    node.remove_hosts("_default");
    let bare = node.examine_with(&["--containerd-config", "/etc/containerd/config.toml"]);
    let bad: Vec<_> = bare.all().into_iter().filter(|finding| finding.level == "bad").collect();
    let names: Vec<_> = bad.iter().map(|finding| finding.name.as_str()).collect();
    assert!(names.len() == 3 && names.contains(&"hosts.none"), "{bare:#?}");
    assert!(bad.iter().all(|finding| finding.mend == "sudo tidehold setup"), "{bad:#?}");

    node.write_hosts("_default", &node.hosts_toml());
    let elsewhere = node.examine_with(&["--containerd-config", "/etc/other/config.toml"]);
    let found = elsewhere.all().into_iter().find(|finding| finding.level == "bad").unwrap();
    let whole = "  version = 2\n  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = ";
    assert!(found.mend.contains("make /etc/other/config.toml of this"), "{found:#?}");
    assert!(found.mend.contains(whole), "{found:#?}");
}

fn two_folders(version: Version) {
    let mut node = Node::start(version, Kubernetes::With);
    let hosts = node.containerd.hosts();
    let line = config_path(&node);
    node.replace(&line, &format!("    config_path = \"{}:/etc/docker/certs.d\"\n", hosts.display()));
    let found = node.ails("registries.two-folders", &["transfer service"]);
    assert!(found.mend.contains(line.trim()), "{found:?}");
    let wrong = format!("    config_path = \"{}:/etc/docker/certs.d\"\n", hosts.display());
    node.replace(&wrong, &line);
    node.is_well();
}

fn wrong_section(version: Version) {
    let mut node = Node::start(version, Kubernetes::With);
    let other = match version {
        Version::V1_6 | Version::V1_7 => "io.containerd.cri.v1.images",
        Version::V2 => "io.containerd.grpc.v1.cri",
    };
    let right = format!("[plugins.\"{}\".registry]", section(version));
    let wrong = format!("[plugins.\"{other}\".registry]");
    node.replace(&right, &wrong);
    let found = node.ails("registries.section", &[other, "is not read"]);
    assert!(found.mend.contains(&right), "{found:?}");
    node.replace(&wrong, &right);
    node.is_well();
}

fn inline_mirrors(version: Version) {
    let mut node = Node::start(version, Kubernetes::With);
    let good = node.config();
    let mirrors = format!(
        "{good}\n[plugins.\"{}\".registry.mirrors.\"docker.io\"]\n  endpoint = [\"https://mirror.test\"]\n",
        section(version)
    );
    node.containerd.restart_configured(&mirrors);
    let found = node.examine();
    found.has("bad", "registries.inline", &["registry.mirrors.\"docker.io\"", "take out of"]);
    found.has("bad", "containerd.cri", &["config_path"]);
    node.containerd.restart_configured(&good);
    node.is_well();
}

fn no_cri(version: Version) {
    let mut node = Node::start(version, Kubernetes::With);
    let good = node.config();
    node.root.write("/var/lib/kubelet/config.yaml", "");
    node.is_well();
    // Since 2.0 the name stands for one part of several, which serves the others.
    node.replace("disabled_plugins = [", "disabled_plugins = [\"io.containerd.grpc.v1.cri\", ");
    node.ails("containerd.cri", &["is disabled", "disabled_plugins"]);
    node.containerd.restart_configured(&good);
    node.is_well();
}

fn server_alone(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    let text = format!("server = \"{}\"\n", node.daemon.mirror());
    node.write_hosts("docker.io", &text);
    node.ails("hosts.no-host-table", &["docker.io/hosts.toml", "[host]"]);
    node.write_hosts("docker.io", &format!("{text}[host]\n"));
    node.is_well();
}

fn no_toml(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    let good = node.hosts_toml();
    node.write_hosts("docker.io", &format!("# ours\n{}", good.replacen("\"]", "]", 1)));
    node.ails("hosts.syntax", &["docker.io/hosts.toml", "line 2"]);
    node.write_hosts("docker.io", &format!("{good}{good}"));
    node.ails("hosts.syntax", &["docker.io/hosts.toml", "line 3"]);
    node.write_hosts("docker.io", &good.replace("resolve", "read"));
    node.ails("hosts.syntax", &["no capability \"read\""]);
    node.write_hosts("docker.io", &good);
    node.is_well();
}

fn wrong_name(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    for (wrong, right) in [("registry-1.docker.io", "docker.io"), ("reg.test_5000", "reg.test_5000_")] {
        let folder = node.write_hosts(wrong, &node.hosts_toml());
        let found = node.ails("hosts.name", &["is never read"]);
        let mend = format!("mv {} {}", folder.display(), folder.with_file_name(right).display());
        assert!(found.mend.starts_with(&mend), "{found:?}");
        fs::rename(&folder, folder.with_file_name(right)).unwrap();
        node.is_well();
    }
}

fn wrong_url(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    let good = node.hosts_toml();
    let url = node.daemon.mirror();
    let cases = [
        (good.replace("http:", "https:"), "hosts.scheme"),
        (good.replace(&url, &format!("{url}/docker.io")), "hosts.path"),
        (format!("{good}  override_path = true\n"), "hosts.path"),
        (good.replace(&url, "http://127.0.0.1:1"), "hosts.port"),
    ];
    for (text, name) in cases {
        node.write_hosts("docker.io", &text);
        node.ails(name, &[&url]);
    }
    node.write_hosts("docker.io", &good);
    node.is_well();
}

fn replaced(version: Version) {
    let mut node = Node::start(version, Kubernetes::With);
    let good = node.config();
    let more = node.containerd.folder().join("more.toml");
    let folder = node.containerd.folder().display().to_string();
    // With its networks, since all else is lost.
    let drop_in = format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  disable_apparmor = true\n  \
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    snapshotter = \"{}\"\n  \
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"{folder}/cni/bin\"\n    \
         conf_dir = \"{folder}/cni/net.d\"\n",
        node.containerd.snapshotter()
    );
    fs::write(&more, &drop_in).unwrap();
    let imports = format!("imports = [\"{}\"]\n{good}", more.display());
    node.containerd.restart_configured(&imports);
    node.ails("registries.replaced", &["is lost", &format!("put into {}", more.display())]);
    let mended =
        format!("{drop_in}  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n{}", config_path(&node));
    fs::write(&more, mended).unwrap();
    node.containerd.restart_configured(&imports);
    node.is_well();
}

fn nerdctl(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    node.root.write("/etc/nerdctl/nerdctl.toml", "hosts_dir = [\"/etc/nerdctl/certs.d\"]\n");
    let found = node.examine();
    let right = format!("hosts_dir = [{:?}]", node.containerd.hosts());
    found.has("bad", "clients.nerdctl", &["/etc/nerdctl/certs.d", &right]);
    node.root.write("/etc/nerdctl/nerdctl.toml", &format!("{right}\n"));
    node.is_well();
}

fn no_resolve(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    node.write_hosts("docker.io", &node.hosts_toml().replace(", \"resolve\"", ""));
    node.ails("hosts.capabilities", &["resolve", "capabilities = [\"pull\", \"resolve\"]"]);
    node.write_hosts("docker.io", &node.hosts_toml());
    node.is_well();
}

fn past(version: Version) {
    let node = Node::start(version, Kubernetes::With);
    node.write_hosts("quay.io", "[host.\"https://mirror.test\"]\n");
    node.examine().has("warn", "hosts.past", &["quay.io", "https://mirror.test", "_default"]);
    node.write_hosts("quay.io", &format!("{}[host.\"https://mirror.test\"]\n", node.hosts_toml()));
    node.is_well();
}
