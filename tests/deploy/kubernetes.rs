//! The manifests: by kustomize and Kubernetes' own types, and what a pod of theirs does on a node.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tempfile::TempDir;
use tidehold::config::Config;

use crate::checks::{available, check};
use crate::support::go::Unbuilt;
use crate::support::process::{Process, free_port, pid_of};
use crate::support::script::script;
use crate::{Scenario, TIDEHOLD, deploy, everything, failed, sets_up, succeeded, top};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "Kubernetes takes the manifests as they are",
        needs: available,
        run: manifests_are_taken,
    },
    Scenario {
        name: "the manifests and the configuration in them agree",
        needs: available,
        run: ports_agree,
    },
    Scenario {
        name: "with the docs' lines a pod is scraped at its node's address, and its probes still answer",
        needs: scraping,
        run: a_pod_is_scraped,
    },
    Scenario {
        name: "a pod sets its node up and undoes it at its end",
        needs: available,
        run: a_pod_undoes_its_setup,
    },
    Scenario { name: "a node is as it was once its pod is gone", needs: setup, run: a_node_is_as_it_was },
    Scenario {
        name: "a node is cleaned only of what was undone",
        needs: available,
        run: only_what_was_undone_is_removed,
    },
    Scenario {
        name: "a hold that a containerd relies on is never cleaned away",
        needs: setup,
        run: a_live_hold_is_left_alone,
    },
];

fn setup() -> Result<(), Unbuilt> {
    available()?;
    sets_up()
}

fn scraping() -> Result<(), Unbuilt> {
    crate::program("curl")?;
    available()
}

fn object(folder: &str, kind: &str) -> Value {
    let objects = check("kubernetes", &deploy(folder));
    let objects = objects.as_array().expect("a list").iter();
    let mut of_kind = objects.filter(|object| object["kind"] == kind);
    of_kind.next().unwrap_or_else(|| panic!("no {kind}")).clone()
}

/// A container of a DaemonSet, by its name.
fn container(folder: &str, name: &str) -> Value {
    let pod = object(folder, "DaemonSet")["spec"]["template"]["spec"].clone();
    let lists =
        ["containers", "initContainers"].map(|list| pod[list].as_array().cloned().unwrap_or_default());
    lists.concat().into_iter().find(|container| container["name"] == name).expect("the container")
}

fn manifests_are_taken() {
    for (folder, name) in [("kubernetes", "tidehold"), ("kubernetes/remove", "tidehold-remove")] {
        let set = object(folder, "DaemonSet");
        assert_eq!(set["metadata"]["name"], name);
        assert_eq!(set["metadata"]["namespace"], object(folder, "Namespace")["metadata"]["name"]);
        let spec = &set["spec"]["template"]["spec"];
        assert_eq!(set["spec"]["selector"]["matchLabels"], set["spec"]["template"]["metadata"]["labels"]);
        assert_eq!(spec["tolerations"], serde_json::json!([{ "operator": "Exists" }]), "not on every node");
        assert_eq!(spec["automountServiceAccountToken"], false);
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                let name = &container["name"];
                let rights = &container["securityContext"];
                assert_eq!(rights["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
                assert_eq!(rights["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(rights["readOnlyRootFilesystem"], true, "{name}");
                assert!(container["image"].as_str().unwrap().starts_with("tidehold:"), "{name}");
                for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                    let volumes = spec["volumes"].as_array().unwrap();
                    assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
                }
            }
        }
    }
    // What talks to the network sees nothing of the node but its own folder.
    let daemon = container("kubernetes", "tidehold");
    let mounts = daemon["volumeMounts"].as_array().unwrap().iter();
    let mounts: Vec<&str> = mounts.map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(mounts, ["/etc/tidehold", "/var/lib/tidehold", "/run/tidehold"]);
}

fn ports_agree() {
    let map = object("kubernetes", "ConfigMap");
    let config = Config::parse(map["data"]["config.toml"].as_str().unwrap(), "config.toml").unwrap();
    let volumes = object("kubernetes", "DaemonSet")["spec"]["template"]["spec"]["volumes"].clone();
    let named = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == "config").unwrap();
    assert_eq!(
        named["configMap"]["name"], map["metadata"]["name"],
        "the pods restart with their configuration"
    );

    let daemon = container("kubernetes", "tidehold");
    let at = |probe: &str| -> SocketAddr {
        let asked = &daemon[probe]["httpGet"];
        let (host, port) = (asked["host"].as_str().unwrap(), &asked["port"]);
        format!("{host}:{port}").parse().unwrap()
    };
    assert_eq!((at("startupProbe"), at("livenessProbe")), (config.mirror.listen, config.mirror.listen));
    assert_eq!(at("readinessProbe"), config.web.listen);
    let ports = daemon["ports"].as_array().unwrap().iter();
    let ports: Vec<u64> = ports.map(|port| port["hostPort"].as_u64().unwrap()).collect();
    assert_eq!(ports, [config.mirror.listen.port(), config.web.listen.port()].map(u64::from));
    assert_eq!(config.data_dir, Path::new("/var/lib/tidehold"));
}

fn a_pod_is_scraped() {
    let page = fs::read_to_string(top().join("docs/kubernetes.md")).unwrap();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).expect("such a block");
        rest.split_once("```").unwrap().0.to_owned()
    };
    let map = object("kubernetes", "ConfigMap");
    let text = map["data"]["config.toml"].as_str().unwrap().to_owned() + &block("toml");
    let config = Config::parse(&text, "config.toml").unwrap();
    assert!(config.web.listen.ip().is_unspecified(), "one address does not fit all nodes");

    // The same on ports and in a folder of its own.
    let folder = tempfile::Builder::new().prefix("tidehold-pod-").tempdir_in("/tmp").unwrap();
    let (at, web) = (folder.path().display(), free_port());
    let text = text.replace(&format!(":{}", config.web.listen.port()), &format!(":{web}"));
    let own = format!(
        "data_dir = \"{at}/data\"\n[[containerd]]\nsocket = \"{at}/content.sock\"\n\
         [control]\nsocket = \"{at}/control.sock\"\n[mirror]\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    fs::write(folder.path().join("config.toml"), own + &text).unwrap();
    let mut command = Command::new(TIDEHOLD);
    command.args(["serve", "--config"]).arg(folder.path().join("config.toml"));
    let _daemon = Process::start_notifying("tidehold", &mut command, folder.path());
    let ask = |host: &str, path: &str| {
        let url = format!("http://{host}:{web}{path}");
        succeeded(Command::new("curl").args(["--noproxy", "*", "--fail", "--silent", "--show-error", &url]))
    };
    let daemon = container("kubernetes", "tidehold");
    let probe = &daemon["readinessProbe"]["httpGet"];
    ask(probe["host"].as_str().unwrap(), probe["path"].as_str().unwrap());
    // Another address of this machine, in the place of its network's.
    assert!(ask("127.0.0.2", "/metrics").contains("tidehold_hold_bytes"));

    let named = folder.path().join("prometheus.yml");
    fs::write(&named, block("yaml")).unwrap();
    let scrape = check("yaml", &named)["scrape_configs"][0].clone();
    assert_eq!(scrape["job_name"], "tidehold");
    let namespace = &object("kubernetes", "Namespace")["metadata"]["name"];
    assert_eq!(&scrape["kubernetes_sd_configs"][0]["namespaces"]["names"][0], namespace);
    let port = &scrape["relabel_configs"][0]["regex"];
    let ports = daemon["ports"].as_array().unwrap();
    let of_web = ports.iter().find(|named| named["name"] == *port).expect("the port that is kept");
    assert_eq!(of_web["containerPort"], config.web.listen.port());
}

/// A node's folder, and a `tidehold` that writes down how it is run and ends as `$folder/ends` says.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("host/var/lib/tidehold/blobs")).unwrap();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        let body = format!(
            "echo \"$*\" >>{0}/ran\nexit \"$(cat {0}/ends 2>/dev/null || echo 0)\"",
            folder.path().display()
        );
        script(&folder.path().join("bin/tidehold"), &body);
        Self { folder }
    }

    /// What a container runs, with this node as its /host.
    fn command(&self, container: &Value) -> Command {
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        let words = ["command", "args"].map(|list| container[list].as_array().unwrap().iter().map(word));
        let host = self.folder.path().join("host");
        let words: Vec<String> =
            words.into_iter().flatten().map(|word| word.replace("/host", host.to_str().unwrap())).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display()));
        command
    }

    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("ran")).unwrap_or_default();
        text.lines().map(|line| line.replace(self.folder.path().to_str().unwrap(), "")).collect()
    }
}

/// Returns once the shell waits for its `sleep`: by then everything before has been run.
fn await_sleep(pod: &mut Child) {
    let children = format!("/proc/{0}/task/{0}/children", pod.id());
    for _ in 0..3000 {
        let child = fs::read_to_string(&children).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{}/comm", child.trim())).unwrap_or_default();
        if name.trim() == "sleep" {
            return;
        }
        if let Some(ended) = pod.try_wait().unwrap() {
            panic!("it has ended by itself: {ended}");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not wait for its end");
}

/// Ends it as the kubelet does. Its `sleep`, which would go with the container, goes too.
fn end(mut pod: Child) -> ExitStatus {
    let sleep = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pod.id())).unwrap();
    kill(pid_of(pod.id()), Signal::SIGTERM).unwrap();
    let ended = pod.wait().unwrap();
    kill(pid_of(sleep.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    ended
}

fn a_pod_undoes_its_setup() {
    let node = Node::new();
    let container = container("kubernetes", "node");
    let mut pod = node.command(&container).stdout(Stdio::null()).spawn().unwrap();
    await_sleep(&mut pod);
    let setup = "setup --mirror-only --no-units --yes --root /host --config /etc/tidehold/config.toml";
    assert_eq!(node.ran(), [setup], "the content store is left alone");
    let ended = end(pod);
    assert!(ended.success(), "{ended}");
    assert_eq!(node.ran(), [setup, "setup --undo --yes --root /host --config /etc/tidehold/config.toml"]);
    // The hold is for the next pod.
    assert!(node.folder.path().join("host/var/lib/tidehold/blobs").is_dir());

    // Where setup refuses, the container says so and is tried again, and nothing is undone.
    let node = Node::new();
    fs::write(node.folder.path().join("ends"), "1").unwrap();
    failed(&mut node.command(&container));
    assert_eq!(node.ran(), [setup]);
}

/// With the program itself, on a node that has a containerd's configuration.
fn a_node_is_as_it_was() {
    let node = Node::new();
    let program = node.folder.path().join("bin/tidehold");
    fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(TIDEHOLD, &program).unwrap();
    let host = node.folder.path().join("host");
    fs::create_dir_all(host.join("etc/containerd")).unwrap();
    // Where systemd runs, no units are to be written all the same.
    fs::create_dir_all(host.join("run/systemd/system")).unwrap();
    fs::write(host.join("etc/containerd/config.toml"), "version = 2 # as it came\n").unwrap();
    let before = everything(&host);

    let mut container = container("kubernetes", "node");
    let config = deploy("kubernetes/config.toml");
    let script = container["args"][0].as_str().unwrap();
    container["args"][0] = script.replace("/etc/tidehold/config.toml", config.to_str().unwrap()).into();
    let mut pod = node.command(&container).stdout(Stdio::null()).spawn().unwrap();
    await_sleep(&mut pod);
    let hosts = fs::read_to_string(host.join("etc/containerd/certs.d/_default/hosts.toml")).unwrap();
    assert!(hosts.contains("\"http://127.0.0.1:789\""), "{hosts}");
    assert!(!host.join("etc/systemd").exists(), "units were written for what is a pod");
    let containerd = fs::read_to_string(host.join("etc/containerd/config.toml")).unwrap();
    assert!(!containerd.contains("proxy_plugins") && containerd.contains("# as it came"), "{containerd}");
    assert!(end(pod).success());
    assert_eq!(everything(&host), before);
}

fn only_what_was_undone_is_removed() {
    let container = container("kubernetes/remove", "remove");
    let node = Node::new();
    fs::write(node.folder.path().join("ends"), "1").unwrap();
    failed(&mut node.command(&container));
    assert!(node.folder.path().join("host/var/lib/tidehold/blobs").is_dir());

    fs::write(node.folder.path().join("ends"), "0").unwrap();
    succeeded(&mut node.command(&container));
    let (undo, asked) = ("setup --undo --yes --root /host", "setup --may-remove --root /host");
    assert_eq!(node.ran(), [undo, undo, asked]);
    assert!(!node.folder.path().join("host/var/lib/tidehold").exists());
    assert!(node.folder.path().join("host/var/lib").is_dir());
}

/// With the program itself: what was set up by hand setup cannot undo.
fn a_live_hold_is_left_alone() {
    let container = container("kubernetes/remove", "remove");
    let node = Node::new();
    let program = node.folder.path().join("bin/tidehold");
    fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(TIDEHOLD, &program).unwrap();
    let host = node.folder.path().join("host");
    fs::create_dir_all(host.join("etc/containerd")).unwrap();
    let config = host.join("etc/containerd/config.toml");
    let by_hand = "version = 2\n[proxy_plugins.tidehold]\ntype = \"content\"\naddress = \"/run/tidehold/content.sock\"\n";
    fs::write(&config, by_hand).unwrap();
    let said = failed(&mut node.command(&container));
    assert!(said.contains("/etc/containerd/config.toml"), "{said}");
    // Nor what is only here, though nothing names us any more.
    fs::write(&config, "version = 2\n").unwrap();
    let mark = host.join(format!("var/lib/tidehold/adopted/system/sha256-{}-3", "ab".repeat(32)));
    fs::create_dir_all(mark.parent().unwrap()).unwrap();
    fs::write(&mark, "").unwrap();
    let said = failed(&mut node.command(&container));
    assert!(said.contains("system"), "{said}");
    assert!(host.join("var/lib/tidehold/blobs").is_dir());
    fs::remove_file(&mark).unwrap();
    succeeded(&mut node.command(&container));
    assert!(!host.join("var/lib/tidehold").exists());
}
