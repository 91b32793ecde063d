//! What goes wrong with Tidehold itself: its daemon, its sockets, its mirror, its registries and logins.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::bench::{Found, Node, Root, examine};
use crate::support::containerd::{Kubernetes, Version};
use crate::support::daemon::{Daemon, Plan};
use crate::support::hub::client::Client;
use crate::support::hub::{Account, Hub, HubConfig};
use crate::{Scenario, only};

/// What version it is makes no difference here.
const ONE: &[Version] = &[Version::V2];

pub(crate) const SCENARIOS: &[Scenario] = &[
    only(ONE, "the daemon is down", down),
    only(ONE, "the daemon died and left its sockets", stale),
    only(ONE, "the daemon answers nobody", hangs),
    only(ONE, "another program has the mirror's port", other_on_the_port),
    only(ONE, "other programs had the mirror's port and the page's before the daemon", taken),
    only(ONE, "something else is in the place of the control socket", no_control),
    only(ONE, "systemd listens elsewhere than the configuration says", other_units),
    only(ONE, "the configuration has faults", faulty),
    only(ONE, "its sockets are open to everybody", open_to_all),
    only(ONE, "the daemon cannot write into its hold", unwritable),
    only(ONE, "the registry cannot be reached", unreachable),
    only(ONE, "containerd goes out by a proxy, and the daemon cannot", by_proxy),
    only(ONE, "a registry at a private address is asked for and not listed", unlisted),
    only(ONE, "a login is refused, though images are to be had without it", refused_logins),
    only(ONE, "the credentials are missing, or for all to read, or name a helper that is not there", logins),
];

fn down(_: Version) {
    let mut node = Node::mirror_only(Version::V2, Kubernetes::Without);
    assert!(node.daemon.terminate().success());
    node.ails("daemon.down", &["systemctl enable --now tidehold.socket"]);
    node.daemon.start_again();
    node.is_well();
}

fn stale(_: Version) {
    let mut node = Node::mirror_only(Version::V2, Kubernetes::Without);
    node.daemon.kill();
    node.ails("daemon.stale-socket", &["nobody listens"]);
    node.daemon.start_again();
    node.is_well();
}

fn hangs(_: Version) {
    let node = Node::mirror_only(Version::V2, Kubernetes::Without);
    let still = node.daemon.stand_still();
    let pid = still.pid();
    let found = node.examine();
    found.has(
        "bad",
        "daemon.silent",
        &[&format!("process {pid}"), &node.daemon.mirror(), &format!("kill {pid} ")],
    );
    let told: Vec<_> = found.all().into_iter().filter(|finding| finding.level == "bad").collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    drop(still);
    node.is_well();
}

fn unwritable(_: Version) {
    let node = Node::mirror_only(Version::V2, Kubernetes::Without);
    let (entering, aside) = (node.daemon.data().join("entering"), node.daemon.data().join("aside"));
    fs::rename(&entering, &aside).unwrap();
    let found = node.examine_with(&["--offline"]);
    found.has("bad", "disk.unwritable", &[entering.to_str().unwrap(), "systemctl restart tidehold"]);
    fs::rename(&aside, &entering).unwrap();
    node.is_well();
}

fn other_on_the_port(_: Version) {
    let mut node = Node::mirror_only(Version::V2, Kubernetes::Without);
    assert!(node.daemon.terminate().success());
    let address = node.daemon.mirror().trim_start_matches("http://").to_owned();
    let other = TcpListener::bind(address).unwrap();
    // It has the port for as long as this.
    let _kept = other.try_clone().unwrap();
    let answering = std::thread::spawn(move || {
        // One connection to see whether somebody is there, one to ask.
        for stream in other.incoming().take(2) {
            use std::io::{Read as _, Write as _};
            let mut stream = stream.unwrap();
            let mut asked = [0; 1024];
            if stream.read(&mut asked).unwrap_or(0) > 0 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nserver: nginx\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    let own = format!("kill {} ", std::process::id());
    node.examine().has("bad", "mirror.other", &["nginx", &own, "listen under [mirror]"]);
    answering.join().unwrap();
}

fn taken(_: Version) {
    let mut node = Node::mirror_only(Version::V2, Kubernetes::Without);
    assert!(node.daemon.terminate().success());
    let address = |url: String| url.trim_start_matches("http://").to_owned();
    let (mirror, web) = (address(node.daemon.mirror()), address(node.daemon.web()));
    let (one, other) = (TcpListener::bind(mirror).unwrap(), TcpListener::bind(web).unwrap());
    // Nobody is answered there.
    one.set_nonblocking(true).unwrap();
    node.daemon.start_again();
    let own = format!("kill {} ", std::process::id());
    let found = node.examine();
    found.has("bad", "mirror.other", &["the daemon has no mirror", &own, "tidehold-mirror.socket"]);
    found.has("warn", "web.other", &["there is no status page", &own, "listen under [web]"]);
    drop((one, other));
    node.daemon.await_log_times("listening after all", 2);
    node.is_well();
}

fn no_control(_: Version) {
    let mut node = Node::mirror_only(Version::V2, Kubernetes::Without);
    assert!(node.daemon.terminate().success());
    let control = node.daemon.control();
    fs::create_dir(&control).unwrap();
    node.daemon.start_again();
    node.examine().has("bad", "daemon.no-socket", &[&format!("mv {}", control.display())]);
    fs::remove_dir(&control).unwrap();
    node.daemon.await_log("listening after all");
    node.is_well();

    assert!(node.daemon.terminate().success());
    std::os::unix::fs::symlink("nowhere", &control).unwrap();
    node.daemon.start_again();
    node.ails("daemon.control", &["the daemon runs", "is there and is no socket", "within seconds"]);
    fs::remove_file(&control).unwrap();
    node.daemon.await_log_times("listening after all", 2);
    node.is_well();
}

fn other_units(_: Version) {
    let node = Node::mirror_only(Version::V2, Kubernetes::Without);
    let config = node.daemon.config().display().to_string();
    let service = format!("[Service]\nExecStart=tidehold serve --config {config}\n");
    node.root.write("/etc/systemd/system/tidehold.service", &service);
    fs::create_dir_all(node.root.at("/run/systemd/system")).unwrap();
    let socket = |listens: &[String]| -> String {
        let lines: String = listens.iter().map(|listen| format!("ListenStream={listen}\n")).collect();
        format!("[Socket]\n{lines}")
    };
    let own = [node.daemon.content().display().to_string(), node.daemon.control().display().to_string()];
    let mirror = node.daemon.mirror().trim_start_matches("http://").to_owned();
    node.root.write("/usr/lib/systemd/system/tidehold.socket", &socket(&own));
    node.root.write("/usr/lib/systemd/system/tidehold-mirror.socket", &socket(&["127.0.0.1:789".to_owned()]));
    let mend = format!("ListenStream=\n  ListenStream={mirror}\n");
    let found = node.ails("daemon.units", &["127.0.0.1:789, which", &mirror, &mend]);
    assert!(found.mend.contains("systemctl edit tidehold-mirror.socket"), "{found:?}");
    let moved = format!("[Socket]\nListenStream=\nListenStream={mirror}\n");
    node.root.write("/etc/systemd/system/tidehold-mirror.socket.d/override.conf", &moved);
    node.is_well();
    node.root.write("/etc/systemd/system/tidehold.socket", &socket(&own[1..]));
    node.examine().has("warn", "daemon.units", &["does not listen at", &own[0]]);
}

fn faulty(_: Version) {
    let node = Node::mirror_only(Version::V2, Kubernetes::Without);
    let good = fs::read_to_string(node.daemon.config()).unwrap();
    fs::write(node.daemon.config(), format!("{good}\n[cash]\n[cache]\nmax_size = \"1 apple\"\n")).unwrap();
    let found = node.examine();
    let end = good.lines().count();
    let file = node.daemon.config().display().to_string();
    let told: Vec<_> = found.all().into_iter().filter(|finding| finding.level != "ok").collect();
    let names: Vec<_> = told.iter().map(|finding| finding.name.as_str()).collect();
    assert_eq!(names, ["daemon.configuration", "daemon.configuration", "daemon.not-examined"], "{found:#?}");
    assert!(told[0].what.starts_with(&format!("{file}:{}:", end + 2)), "{told:#?}");
    assert!(told[0].mend.contains("cache") && told[1].what.contains("cache.max_size"), "{told:#?}");
    assert!(told[2].what.contains("registries") && told[2].mend.contains("serve --check"), "{told:#?}");
    assert_eq!(found.code, Some(1));
    fs::write(node.daemon.config(), good).unwrap();
    node.is_well();
}

fn open_to_all(_: Version) {
    let node = Node::mirror_only(Version::V2, Kubernetes::Without);
    let socket = node.daemon.content();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    node.ails("daemon.rights", &[&format!("chmod 600 {}", socket.display())]);
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    node.is_well();

    let control = node.daemon.control();
    fs::rename(&control, control.with_extension("away")).unwrap();
    fs::write(&control, "").unwrap();
    node.examine().has("bad", "daemon.no-socket", &[&format!("mv {}", control.display())]);
    fs::rename(control.with_extension("away"), &control).unwrap();
    node.is_well();
}

fn unreachable(_: Version) {
    // Bound and not listening, so that nobody else has it.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = held.local_addr().unwrap();
    let rules = format!("[registries.\"docker.io\"]\nupstream = \"http://{nobody}\"\n");
    let daemon = Daemon::start(&rules);
    let found = examine(&Root::new(), &daemon.config(), &[]);
    found.has("bad", "upstream.unreachable", &["cannot be reached"]);
    found.has("bad", "mirror.refused", &["tidehold log"]);
}

fn by_proxy(_: Version) {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rules = format!("[registries.\"docker.io\"]\nupstream = \"http://{nobody}\"\n");
    let daemon = Daemon::start(&rules);
    let root = Root::new();
    root.write("/etc/containerd/config.toml", "version = 2\n");
    root.write("/usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n");
    let told = |found: &Found| found.all().iter().any(|finding| finding.name == "upstream.proxy");
    let found = examine(&root, &daemon.config(), &[]);
    assert!(!told(&found), "{found:#?}");
    let part = "[Service]\nEnvironment=\"HTTPS_PROXY=http://me:s3cret@proxy.corp:3128\"\n";
    root.write("/etc/systemd/system/containerd.service.d/proxy.conf", part);
    let found = examine(&root, &daemon.config(), &[]);
    let words = [
        "the containerd at /run/containerd/containerd.sock (HTTPS_PROXY=http://proxy.corp:3128)",
        "asks registries directly",
        "pulls work, and nothing is cached",
        "upstream = ",
    ];
    found.has("warn", "upstream.proxy", &words);
    assert!(!format!("{found:?}").contains("s3cret"));

    // Where the registries are reached it is no matter.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let hub = runtime.block_on(Hub::start(HubConfig::default()));
    let rules = format!("[registries.\"docker.io\"]\nupstream = \"{}\"\n", hub.registry_url());
    let environment = &[("HTTPS_PROXY", "http://me:s3cret@proxy.corp:3128")];
    let daemon = Plan { rest: &rules, environment, ..Plan::default() }.start();
    let found = examine(&Root::new(), &daemon.config(), &[]);
    found.has_ok("upstream.proxy");
    let found = examine(&Root::new(), &daemon.config(), &["--offline"]);
    found.has("warn", "upstream.proxy", &["the daemon itself (HTTPS_PROXY=http://proxy.corp:3128)"]);
    assert!(daemon.log().contains("a proxy is set, and is not used"), "{}", daemon.log());
    assert!(!format!("{found:?}{}", daemon.log()).contains("s3cret"));
}

fn unlisted(_: Version) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let hub = runtime.block_on(Hub::start(HubConfig::default()));
    let rules = format!("[registries.\"docker.io\"]\nupstream = \"{}\"\n", hub.registry_url());
    let mut daemon = Daemon::start(&rules);
    let root = Root::new();
    let judged = |daemon: &Daemon, more: &[&str]| examine(&root, &daemon.config(), more);
    let told = |found: &Found| found.all().iter().any(|finding| finding.name == "upstream.private");
    assert!(!told(&judged(&daemon, &[])));
    // It goes by its port, as a registry of one's own on the node does.
    let name = hub.registry_url().replace("http://127.0.0.1", "localhost");
    let url = format!("{}/v2/library/tide/manifests/latest?ns={name}", daemon.mirror());
    assert_eq!(runtime.block_on(Client::new().head(&url, &[])).status, 403);
    let file = daemon.config().display().to_string();
    let lines = format!("  [registries.{name:?}]\n  upstream = \"https://{name}\"");
    let found = judged(&daemon, &[]);
    found.has("warn", "upstream.private", &[&file, "a loopback address", "nothing of it is held", &lines]);
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_tidehold"))
        .args(["status", "--socket"])
        .arg(daemon.control())
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains(&format!("{name}: it is at 127.0.0.1, a loopback address")), "{status}");
    let reference = format!("{name}/library/tide:latest");
    let found = judged(&daemon, &["--reference", &reference]);
    assert!(
        !found.all().iter().any(|finding| finding.name == "mirror.denied"),
        "said of its registry: {found:#?}"
    );

    assert!(daemon.terminate().success());
    let good = fs::read_to_string(daemon.config()).unwrap();
    fs::write(daemon.config(), format!("{good}\n{}\n", lines.replace("https", "http"))).unwrap();
    daemon.start_again();
    let found = judged(&daemon, &["--reference", &reference]);
    assert!(!told(&found), "{found:#?}");
    found.has_ok("mirror.head");
}

fn refused_logins(_: Version) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let accounts = vec![Account::free("ada", "s3cret")];
    let hub = runtime.block_on(Hub::start(HubConfig { accounts, ..HubConfig::default() }));
    let folder = tempfile::Builder::new().prefix("tidehold-logins-").tempdir_in("/tmp").unwrap();
    let file = folder.path().join("logins.json");
    let write = |password: &str| {
        let login = format!(r#"{{"username":"ada","password":"{password}"}}"#);
        fs::write(&file, format!(r#"{{"auths":{{"docker.io":{login},"quay.io":{login}}}}}"#)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    };
    write("wr0ng");
    let (hub_at, shown) = (hub.registry_url(), file.display().to_string());
    let rules: String = ["docker.io", "quay.io", "bare.test"]
        .map(|name| format!("[registries.{name:?}]\nupstream = \"{hub_at}\"\ncredentials = {shown:?}\n"))
        .concat();
    let daemon = Daemon::start(&rules);
    let root = Root::new();
    hub.reset_counters();
    let found = examine(&root, &daemon.config(), &[]);
    let refused: Vec<_> = found.all().into_iter().filter(|found| found.name == "logins.refused").collect();
    let [docker, quay] = &refused[..] else { panic!("{found:#?}") };
    for (finding, name) in [(docker, "docker.io"), (quay, "quay.io")] {
        assert_eq!(finding.level, "bad");
        let words = [&format!("{name} in {shown}"), "status 401", "limit of this node's address"];
        assert!(words.iter().all(|word| finding.what.contains(*word)), "{finding:?}");
        assert!(finding.mend.contains(&format!("--authfile {shown} {name}")), "{finding:?}");
    }
    found.has("warn", "logins.none", &["bare.test", &shown]);
    assert_eq!(hub.counters().manifest_gets, 0, "that costs no pull");
    let told = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidehold"));
        let output = command.args(words).arg("--socket").arg(daemon.control()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for words in [&["budget"][..], &["budget", "docker.io"], &["status"]] {
        let text = told(words);
        assert!(text.contains(&format!("docker.io in {shown} was refused")), "{text}");
        assert!(text.contains("limit of this node's address"), "{text}");
        assert!(!text.contains("wr0ng"), "{text}");
    }
    assert!(!format!("{found:?}{}{}", told(&["log", "--json"]), daemon.log()).contains("wr0ng"));

    write("s3cret");
    let found = examine(&root, &daemon.config(), &[]);
    assert!(!found.all().iter().any(|finding| finding.name == "logins.refused"), "{found:#?}");
    found.has_ok("logins.work");
    assert!(!told(&["budget"]).contains("refused"), "{}", told(&["budget"]));
}

fn logins(_: Version) {
    let folder = tempfile::Builder::new().prefix("tidehold-logins-").tempdir_in("/tmp").unwrap();
    let file = folder.path().join("logins.json");
    let rules = format!(
        "[registries.\"reg.test\"]\nupstream = \"https://reg.test\"\ncredentials = {:?}\n",
        file.display().to_string()
    );
    let daemon = Daemon::start(&rules);
    let root = Root::new();
    let judged = || examine(&root, &daemon.config(), &["--offline"]);
    judged().has("bad", "logins.file", &["reg.test", "cannot be read"]);
    fs::write(&file, r#"{"credHelpers":{"reg.test":"tidehold-no-such"}}"#).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let found = judged();
    found.has("bad", "logins.rights", &["chmod 600"]);
    found.has("bad", "logins.helper", &["docker-credential-tidehold-no-such", "PATH"]);
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, r#"{"auths":{"reg.test":{"auth":"bWU6c2VjcmV0"}}}"#).unwrap();
    let found = judged();
    assert!(!found.all().iter().any(|finding| finding.level == "bad" && finding.name.starts_with("logins")));
    assert!(!format!("{found:?}").contains("bWU6c2VjcmV0"));
    found.has("warn", "logins.untried", &["reg.test", "--offline"]);
    // A socket that is in the way of nobody is none of its business.
    drop(UnixListener::bind(folder.path().join("other.sock")).unwrap());
}
