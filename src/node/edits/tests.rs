//! Each edit beside what it makes of files as they are found: packaged ones, odd ones, and ones that have it already.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::node::containerd::{File, METADATA, Settings, Version};

const MIRROR: &str = "http://127.0.0.1:789";
const V1_6: Version = Version { major: 1, minor: 6 };
const V1_7: Version = Version { major: 1, minor: 7 };
const V2_1: Version = Version { major: 2, minor: 1 };

fn wanted(version: Version) -> Wanted<'static> {
    let differ = Differ::of(version, "linux/amd64", Path::new("/usr/local/bin/tidehold"));
    let store = Store { socket: Path::new("/run/tidehold/content.sock"), differ };
    Wanted { hosts: Some("/etc/containerd/certs.d"), store: Some(store), is_2: false }
}

const MIRROR_ONLY: Wanted<'_> = Wanted { hosts: Some("/etc/containerd/certs.d"), store: None, is_2: false };

/// What the containerd reads of it afterwards; and a second edit finds nothing to do.
fn configured(text: &str, version: Version) -> (String, Settings) {
    let after = configure(text, &wanted(version)).unwrap_or_else(|refusal| panic!("{refusal}\n{text}"));
    assert_eq!(configure(&after, &wanted(version)).as_ref(), Ok(&after), "a second time");
    let file = File { path: "/c".into(), text: after.clone() };
    let settings = Settings::read(&[file], Some(version)).unwrap_or_else(|error| panic!("{error}\n{after}"));
    assert_eq!(settings.hosts, "/etc/containerd/certs.d", "{after}");
    assert!(settings.builtin_disabled(), "{after}");
    assert!(settings.required.iter().any(|name| name == METADATA), "{after}");
    let stores: Vec<_> = settings.stores().map(|(_, proxy)| proxy.address.as_str()).collect();
    assert_eq!(stores, ["/run/tidehold/content.sock"], "{after}");
    if version.has_differs() {
        assert_eq!(settings.differs.first().map(String::as_str), Some("tidehold-diff"), "{after}");
        assert_eq!(settings.differs.last().map(String::as_str), Some("walking"), "{after}");
        assert!(after.contains("unpack_config"), "{after}");
    } else {
        assert_eq!(settings.processors, ["tidehold"], "{after}");
    }
    (after, settings)
}

/// Every line that was there and is there no more.
fn lost<'t>(before: &'t str, after: &str) -> Vec<&'t str> {
    before.lines().filter(|line| !after.lines().any(|other| other == *line)).collect()
}

const DEBIAN: &str = r#"version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"#;

#[test]
fn a_node_without_a_file_gets_one() {
    let (after, _) = configured("", V1_7);
    let expected = r#"version = 2
disabled_plugins = ["io.containerd.content.v1.content"]
required_plugins = ["io.containerd.metadata.v1.bolt"]

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.service.v1.diff-service"]
default = ["tidehold-diff", "walking"]

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "overlayfs"
differ = "tidehold-diff"

# Tidehold, this node's image cache; "tidehold setup --undo" takes it out.
[proxy_plugins.tidehold]
type = "content"
address = "/run/tidehold/content.sock"

# Tidehold, this node's image cache; "tidehold setup --undo" takes it out.
[proxy_plugins.tidehold-diff]
type = "diff"
address = "/run/tidehold/content.sock"
"#;
    assert_eq!(after, expected);
    for version in [V1_6, V2_1] {
        configured("", version);
    }
}

#[test]
fn the_file_of_debians_package_keeps_all_its_lines() {
    for version in [V1_6, V1_7, V2_1] {
        let (after, _) = configured(DEBIAN, version);
        assert_eq!(lost(DEBIAN, &after), [""; 0], "{after}");
    }
}

#[test]
fn the_file_of_dockers_package_is_brought_to_version_2_and_keeps_its_comments() {
    let before = "#   Licensed under the Apache License\n\ndisabled_plugins = [\"cri\"]\n\n\
                  #root = \"/var/lib/containerd\"\n#[debug]\n#  level = \"info\"\n";
    let (after, settings) = configured(before, V1_7);
    assert_eq!(lost(before, &after), ["disabled_plugins = [\"cri\"]"], "{after}");
    assert_eq!(settings.file_version, 2);
    assert!(settings.disabled.iter().any(|name| name == "io.containerd.grpc.v1.cri"), "{after}");

    // Whoever takes a comment for a key later has it where it would have been.
    let comments = "#root = \"/var/lib/containerd\"\n#[debug]\n#  level = \"info\"\n";
    let (keys, tables) = after.split_once(comments).unwrap_or_else(|| panic!("{after}"));
    assert!(keys.contains("required_plugins = ") && !keys.contains("\n["), "{after}");
    assert!(tables.starts_with("\n[plugins."), "{after}");
    let named = after.replace("#root", "root");
    assert_eq!(named.parse::<toml::Table>().unwrap()["root"].as_str(), Some("/var/lib/containerd"));

    let comments = "# nothing\n# but comments\n";
    assert!(configured(comments, V1_7).0.starts_with("# nothing\n# but comments\nversion = 2\n"));
}

#[test]
fn a_file_of_version_1_gets_the_names_of_version_2_in_its_old_order() {
    let before = "disabled_plugins = [\n  \"aufs\", # not here\n]\n[plugins]\n  [plugins.cgroups]\n    no_prometheus = false\n  \
                  # our CRI\n  [plugins.cri]\n    sandbox_image = \"p\"\n    [plugins.cri.registry]\n      config_path = \"\"\n  \
                  [plugins.\"diff-service\"]\n    default = [\"walking\"]\n";
    let (after, settings) = configured(before, V1_7);
    let at = |text: &str| after.find(text).unwrap_or_else(|| panic!("{text} in\n{after}"));
    assert!(
        at("monitor.v1.cgroups") < at("# our CRI") && at("# our CRI") < at("\"io.containerd.grpc.v1.cri\"")
    );
    assert!(at("cri\".registry]") < at("diff-service"), "{after}");
    assert!(after.contains("# not here"));
    assert_eq!(settings.disabled[0], "io.containerd.snapshotter.v1.aufs");

    let mirror_only = configure(before, &MIRROR_ONLY).unwrap();
    assert_eq!(lost(before, &mirror_only), ["      config_path = \"\""], "{mirror_only}");
}

#[test]
fn a_file_of_version_3_has_the_registries_under_their_new_name() {
    let before = "version = 3\n[plugins]\n  [plugins.'io.containerd.cri.v1.images'.registry]\n    \
                  config_path = '/etc/containerd/certs.d:/etc/docker/certs.d' # two\n  \
                  [plugins.'io.containerd.service.v1.diff-service']\n    default = ['erofs', 'walking']\n    sync_fs = false\n  \
                  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n    platform = 'linux/amd64'\n    \
                  snapshotter = 'overlayfs'\n    differ = ''\n  \
                  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n    platform = 'linux(+erofs)/amd64'\n    \
                  snapshotter = 'erofs'\n    differ = 'erofs'\n";
    let (after, settings) = configured(before, V2_1);
    assert!(after.contains("config_path = \"/etc/containerd/certs.d\" # two"), "{after}");
    assert_eq!(settings.differs, ["tidehold-diff", "erofs", "walking"]);
    assert_eq!(after.matches("differ = \"tidehold-diff\"").count(), 1, "{after}");
    assert_eq!(after.matches("differ = 'erofs'").count(), 1, "{after}");
}

#[test]
fn a_differ_that_somebody_chose_for_the_transfer_service_stays() {
    let entry = "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\ndiffer = \"walking\"\n\
                 platform = \"linux/amd64\"\nsnapshotter = \"overlayfs\"\n";
    let chosen = format!("version = 2\n{entry}");
    assert_eq!(transfer_differs(&configured(&chosen, V1_7).0), ["walking"]);
    // As `containerd config default` of 1.7.28 has it.
    let default = format!(
        "version = 2\n[plugins.\"io.containerd.transfer.v1.local\"]\nconfig_path = \"\"\nmax_concurrent_downloads = 3\n\
         max_concurrent_uploaded_layers = 3\n{entry}"
    );
    let (after, _) = configured(&default, V1_7);
    assert_eq!(transfer_differs(&after), [DIFFER]);
    // And once it was put back there.
    let back = after.replace("differ = \"tidehold-diff\"", "differ = \"walking\"");
    let (mut wanted, of_default) = (wanted(V1_7), wanted(V1_7));
    assert_eq!(transfer_differs(&configure(&back, &of_default).unwrap()), [DIFFER]);
    if let Some(Store { differ: Differ::Proxy { walking_is_chosen, .. }, .. }) = &mut wanted.store {
        *walking_is_chosen = true;
    }
    assert_eq!(configure(&back, &wanted).unwrap(), back);
    // What names none takes ours: 1.7 has any of them there.
    let none = chosen.replace("differ = \"walking\"\n", "");
    assert_eq!(transfer_differs(&configure(&none, &wanted).unwrap()), [DIFFER]);
}

#[test]
fn new_tables_come_behind_all_that_was_there() {
    let before = "version = 2\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/o\"\n#other = 1\n\n\
                  [timeouts]\nx = \"1s\"\n#y = \"2s\"";
    for version in [V1_6, V1_7, V2_1] {
        let (after, _) = configured(before, version);
        let (theirs, ours) = after.split_once("[timeouts]\nx = \"1s\"\n#y = \"2s\"\n\n").expect(&after);
        assert!(theirs.contains("path = \"/o\"\n#other = 1\n") && !theirs.contains("tidehold"), "{after}");
        assert!(ours.starts_with("[plugins."), "{after}");
        let named = after.replace("#y", "y").parse::<toml::Table>().unwrap();
        assert_eq!(named["timeouts"]["y"].as_str(), Some("2s"), "{after}");
    }
    let hosts = hosts("server = \"https://x.test\"\n#ca = \"x\"\n", MIRROR).unwrap();
    assert!(hosts.starts_with("server = \"https://x.test\"\n#ca = \"x\"\n\n# Tidehold"), "{hosts}");
}

#[test]
fn lists_grow_as_they_are_laid_out() {
    let before =
        "version = 2\ndisabled_plugins = [\n    \"a.b\", # why\n    \"c.d\",\n]\nrequired_plugins = []\n";
    let (after, _) = configured(before, V1_7);
    let lines = "    \"a.b\", # why\n    \"c.d\",\n    \"io.containerd.content.v1.content\",\n]\n";
    assert!(after.contains(lines), "{after}");
    assert!(after.contains("required_plugins = [\"io.containerd.metadata.v1.bolt\"]\n"), "{after}");
}

#[test]
fn inline_tables_and_dotted_keys_are_added_to_in_their_own_form() {
    let inline = "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { registry = { config_path = \"\" } } }\n\
                  proxy_plugins = { snap = { type = \"snapshot\", address = \"/s\" } }\n";
    configured(inline, V1_7);
    configured(inline, V2_1);
    let dotted = "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".registry.config_path = \"\"\n\
                  proxy_plugins.snap.type = \"snapshot\"\n";
    configured(dotted, V1_7);
    configured(dotted, V1_6);
}

#[test]
fn the_ends_of_lines_stay_what_they_are() {
    let before = DEBIAN.replace('\n', "\r\n");
    let (after, _) = configured(&before, V1_7);
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    assert_eq!(lost(&before, &after), [""; 0]);
}

#[test]
fn another_content_store_is_not_pushed_aside() {
    let before = "version = 2\n[proxy_plugins.other]\ntype = \"content\"\naddress = \"/run/other.sock\"\n";
    let refusal = configure(before, &wanted(V1_7)).unwrap_err();
    assert!(refusal.to_string().contains("[proxy_plugins.other]"), "{refusal}");
    assert!(configure(before, &MIRROR_ONLY).is_ok());
    // One that is ours under another name is ours.
    let ours = before.replace("/run/other.sock", "/run/tidehold/content.sock");
    assert!(!configured(&ours, V1_6).0.contains("[proxy_plugins.tidehold]"));
}

#[test]
fn a_file_of_version_1_gets_hosts_where_2_x_reads_them() {
    let text = "# mine\ndisabled_plugins = [\"aufs\"]\n";
    let after = configure(text, &Wanted { is_2: true, ..MIRROR_ONLY }).unwrap();
    assert!(after.contains("version = 2") && after.contains("# mine"), "{after}");
    assert!(after.contains("io.containerd.snapshotter.v1.aufs"), "{after}");
    assert!(after.contains("[plugins.\"io.containerd.grpc.v1.cri\".registry]"), "{after}");
    assert!(!configure(text, &MIRROR_ONLY).unwrap().contains("version"), "1.x reads it as it is");
}

#[test]
fn what_cannot_be_read_is_not_edited() {
    for text in ["a = ", "disabled_plugins = 3\n", "proxy_plugins = []\n", "plugins = 1\n"] {
        assert!(configure(&format!("version = 2\n{text}"), &wanted(V1_7)).is_err(), "{text}");
    }
}

#[test]
fn the_mirror_comes_before_the_hosts_that_are_there() {
    let alone = hosts("", MIRROR).unwrap();
    assert!(alone.ends_with("[host.\"http://127.0.0.1:789\"]\n  capabilities = [\"pull\", \"resolve\"]\n"));
    assert_eq!(hosts(&alone, MIRROR).unwrap(), alone);
    assert!(!has_hosts(&alone, MIRROR));

    let before = "server = \"https://registry-1.docker.io\"\n\n# the one in the cellar\n\
                  [host.\"https://b.test\"]\n  capabilities = [\"pull\"]\n\n[host.\"https://a.test\"]\n";
    let after = hosts(before, MIRROR).unwrap();
    assert_eq!(hosts(&after, MIRROR).unwrap(), after);
    assert_eq!(lost(before, &after), [""; 0]);
    let at = |text: &str| after.find(text).unwrap();
    assert!(
        at("server") < at("127.0.0.1:789") && at("127.0.0.1:789") < at("# the one in the cellar"),
        "{after}"
    );
    assert!(at("b.test") < at("a.test"), "{after}");
    assert!(has_hosts(before, MIRROR));

    let server = "server = \"https://x.test\"\n";
    assert!(hosts(server, MIRROR).unwrap().starts_with(server));
    let behind = "[host.\"https://b.test\"]\n[host.\"http://127.0.0.1:789\"]\n  capabilities = [\"pull\"]\n";
    let after = hosts(behind, MIRROR).unwrap();
    assert!(after.find("127.0.0.1").unwrap() < after.find("b.test").unwrap(), "{after}");
    assert!(after.contains("[\"pull\", \"resolve\"]"), "{after}");
    for odd in
        ["host = { \"https://b\" = {} }\n", "host.\"https://b\".capabilities = [\"pull\"]\n", "host = 1\n"]
    {
        assert!(hosts(odd, MIRROR).unwrap_err().to_string().contains("yourself"), "{odd}");
    }
}

#[test]
fn dockerd_keeps_what_it_is_told_and_its_order() {
    assert_eq!(
        docker("", MIRROR).unwrap(),
        "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:789\"\n  ]\n}\n"
    );
    let before = "{\n    \"storage-driver\": \"overlay2\",\n    \"registry-mirrors\": [\n        \"https://m.test\"\n    ],\n    \"debug\": true\n}";
    let after = docker(before, MIRROR).unwrap();
    let expected = before.replace("        \"https", "        \"http://127.0.0.1:789\",\n        \"https");
    assert_eq!(after, expected);
    assert_eq!(docker(&after, MIRROR).unwrap(), after);
    for wrong in ["[]", "{", "{\"registry-mirrors\": 1}"] {
        assert!(docker(wrong, MIRROR).is_err());
    }
}

#[test]
fn buildkit_asks_the_mirror_first_and_in_clear_text() {
    let after = buildkit("", &["docker.io", "ghcr.io"], MIRROR).unwrap();
    let table: toml::Table = after.parse().unwrap();
    assert_eq!(table["registry"]["ghcr.io"]["mirrors"][0].as_str(), Some("127.0.0.1:789"));
    assert_eq!(table["registry"]["127.0.0.1:789"]["http"].as_bool(), Some(true));
    let before = "debug = true\n\n[registry.\"docker.io\"]\n  mirrors = [\"m.test\"]\n";
    let after = buildkit(before, &["docker.io"], MIRROR).unwrap();
    assert!(after.contains("mirrors = [\"127.0.0.1:789\", \"m.test\"]"), "{after}");
    assert_eq!(buildkit(&after, &["docker.io"], MIRROR).unwrap(), after);
}

#[test]
fn podman_is_told_of_the_registry_by_the_path() {
    let text = podman(&["docker.io", "quay.io"], MIRROR);
    let table: toml::Table = text.parse().unwrap();
    let registries = table["registry"].as_array().unwrap();
    assert_eq!(registries.len(), 2);
    assert_eq!(registries[1]["mirror"][0]["location"].as_str(), Some("127.0.0.1:789/quay.io"));
    assert_eq!(registries[1]["mirror"][0]["insecure"].as_bool(), Some(true));
}

/// Files as people write them: a line, a comment or a table after the other, each key once.
fn arbitrary_file() -> impl Strategy<Value = String> {
    let keys = prop::sample::subsequence(
        vec![
            "version = 2",
            "root = '/x'",
            "oom_score = 0",
            "disabled_plugins = [ \"a.b\" ]",
            "imports = []",
            "# a comment",
            "",
        ],
        0..=7,
    );
    let tables = prop::sample::subsequence(
        vec![
            "[grpc]\n  address = \"/s\" # where",
            "[plugins]",
            "  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = 'p'",
            "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n\tconfig_path = ''",
            "[plugins.'io.containerd.service.v1.diff-service']\n  default = [\n    'walking',\n  ]",
            "# last words\n[timeouts]\n  x = \"1s\"",
            "[proxy_plugins.snap]\n  type = 'snapshot'\n  address = '/snap'",
        ],
        0..=7,
    )
    .prop_shuffle();
    (keys, tables, "(\n# the end)?\n?", any::<bool>()).prop_map(|(keys, tables, end, windows)| {
        // A table cannot be opened after one of its children without being named once.
        let text = format!("{}\n{}{end}", keys.join("\n"), tables.join("\n"));
        if windows { text.replace('\n', "\r\n") } else { text }
    })
}

proptest! {
    #[test]
    fn whatever_is_there_is_kept_and_what_is_wanted_is_added(text in arbitrary_file()) {
        prop_assume!(text.parse::<toml::Table>().is_ok());
        for version in [V1_6, V1_7, V2_1] {
            let (after, _) = configured(&text, version);
            let before: Vec<_> = text.lines().filter(|line| line.trim_start().starts_with('#')).collect();
            for comment in before {
                prop_assert!(after.contains(comment), "{comment} of\n{text}\nin\n{after}");
            }
        }
    }
}
