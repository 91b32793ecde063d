//! The whole examination: gathers facts part by part, and has each part judged.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use tidehold::config::Config;
use tidehold::oci::ImageName;

use super::containerds::{Containerd, chosen, look_at, named};
use super::daemon::{Answerer, Door};
use super::finding::{Finding, Report, bad, warn};
use super::hosts::{Folder, Mirror};
use super::look::Node;
use super::reliance::{Hold, Leaving, left_behind, untaken};
use super::{
    Doctor, ask, clients, daemon, disk, dockerd, egress, holder, hosts, lines, listeners, outside, plugins,
    registries, units,
};
use crate::cli::{DEFAULT_CONFIG, Failed};

/// Where a unit of systemd may be.
const UNITS: &[&str] = &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The images to ask for.
///
/// # Errors
/// That one is none.
pub(super) fn images(references: &[String]) -> Result<Vec<ImageName>, Failed> {
    let read =
        |text: &String| text.parse().map_err(|error| Failed::Usage(format!("--reference {text}: {error}")));
    references.iter().map(read).collect()
}

/// Everything.
///
/// # Errors
/// That the daemon's configuration has no containerd of the name that was asked for.
pub(super) async fn examine(asked: &Doctor, images: &[ImageName]) -> Result<Report, Failed> {
    let node = Node { root: asked.root.clone() };
    let mut report = Report::default();
    let looks = chosen(&node, &asked.address, &asked.containerd_config)
        .into_iter()
        .map(|(socket, config)| look_at(&node, socket, config));
    let looks = join_all(looks);
    let leaving = Leaving::find(&node, &asked.journal);
    let default = Path::new(DEFAULT_CONFIG);
    let file = asked.config.as_deref().or_else(|| node.at(default).exists().then_some(default));
    let config = match file.map_or_else(|| Ok(Config::default()), |file| Config::load(&node.at(file))) {
        Ok(config) => config,
        Err(error) => {
            report.add("tidehold", daemon::faulty(file.unwrap_or(default), &error));
            let containerds = looks.await;
            for containerd in &containerds {
                report.add(containerd.title(), by_itself(containerd, &containerds));
            }
            if let Some(leaving) = &leaving {
                report.add("setup", leaving.judge(&node, &containerds).await);
            }
            return Ok(report);
        }
    };
    known(asked.containerd.as_deref(), &config)?;
    let (containerds, facts) = tokio::join!(looks, daemon_facts(&node, file.map(Path::to_owned), config));
    let mirror = facts.at;
    let sockets: Vec<_> = facts.contents.iter().map(|(name, path, _)| (name.clone(), path.clone())).collect();

    let mut found = daemon::judge(&facts);
    found.extend(units::judge(&node.socket_units(&facts.config, &facts.file())));
    found.extend(disk::judge(&disk_facts(&node, &facts)));
    report.add("tidehold", found);
    let told = facts.status.as_ref().and_then(|status| status.as_ref().ok());
    let told = told.map(|status| status.unused_proxy.as_str()).unwrap_or_default();
    let proxies = egress::told(&node, &containerds, told);
    let (registries, credentials) = tokio::join!(
        outside::registries(&node, asked.offline, images, &facts, &proxies),
        outside::logins(&node, asked.offline, &facts)
    );
    report.add("registries", registries);
    report.add("credentials", credentials);

    let elsewhere = clients::name_us(&other_texts(&node), mirror);
    let meant: Vec<&Containerd> = match &asked.containerd {
        Some(name) => named(&containerds, name, &sockets),
        None => containerds.iter().collect(),
    };
    let folders = folders(&node, asked, &meant, elsewhere);
    let mirrored = elsewhere || folders.iter().any(|folder| names_us(folder, mirror));
    let data_dir = &facts.config.data_dir;
    let hold = Hold { node: &node, data_dir, sockets: &sockets };
    let used = Used { hold: &hold, mirrored, mirror, leaving: leaving.as_ref() };
    for containerd in &meant {
        let mut findings = of_containerd(containerd, &containerds, &used);
        findings.extend(left_behind(containerd, &hold).await);
        report.add(containerd.title(), findings);
    }
    if let Some(leaving) = &leaving {
        report.add("setup", leaving.judge(&node, &containerds).await);
    }
    if meant.is_empty() {
        let none = warn(
            "containerd.none",
            "there is no containerd where distributions put it",
            "name its socket: tidehold doctor --address /run/…/containerd.sock",
        );
        report.add("containerd", vec![none]);
    }
    let mut of_hosts: Vec<_> = folders.iter().flat_map(|folder| hosts::judge(folder, mirror)).collect();
    if meant.iter().any(|containerd| containerd.is_bare()) {
        // There it takes more than this one file.
        let none = of_hosts.iter_mut().filter(|finding| finding.name == "hosts.none");
        none.for_each(|finding| finding.mend = lines::SETUP.to_owned());
    }
    report.add("hosts of registries", of_hosts);
    let dockerd = dockerd::mirrors(&node.at(Path::new(dockerd::SOCKET))).await;
    let of_clients = clients::Facts { dockerd, ..client_facts(&node, &folders, mirror) };
    report.add("other clients", clients::judge(&of_clients, mirror));
    Ok(report)
}

fn known(name: Option<&str>, config: &Config) -> Result<(), Failed> {
    let names: Vec<&str> = config.containerds.iter().map(|containerd| containerd.name.as_str()).collect();
    match name {
        Some(name) if !names.contains(&name) => Err(Failed::Usage(format!(
            "tidehold: --containerd: the configuration has no containerd {name:?}, only: {}; a socket of one is named with \
             --address",
            names.join(", ")
        ))),
        Some(_) | None => Ok(()),
    }
}

/// About the daemon itself.
pub(super) async fn daemon_facts(node: &Node, file: Option<PathBuf>, config: Config) -> daemon::Facts {
    let control = (config.control.socket.clone(), node.door(&config.control.socket).await);
    let mut contents = Vec::new();
    for containerd in &config.containerds {
        let door = node.door(&containerd.socket).await;
        contents.push((containerd.name.clone(), containerd.socket.clone(), door));
    }
    let status = async {
        match &control.1 {
            Door::Open { .. } => Some(ask::status(&node.at(&control.0)).await),
            _ => None,
        }
    };
    let page = ask::ready(ask::reachable(config.web.listen));
    let listen = config.mirror.listen;
    let mirror = async {
        match listen.port() {
            0 => None,
            _ => Some(ask::mirror(ask::reachable(listen)).await),
        }
    };
    let (status, page, mirror) = tokio::join!(status, page, mirror);
    let (listen, mirror) = match mirror {
        Some(mirror) => (listen, mirror),
        // Port 0 is another one each time: the daemon knows.
        None => {
            let told = status.as_ref().and_then(|status| status.as_ref().ok());
            let listen = told.and_then(|status| status.mirror.parse().ok()).unwrap_or(listen);
            (listen, ask::mirror(ask::reachable(listen)).await)
        }
    };
    let at = Mirror(listen);
    let told_by_page = match &status {
        Some(Ok(_)) => Vec::new(),
        Some(Err(_)) | None => listeners::told(&page),
    };
    let mut facts = daemon::Facts {
        file,
        config,
        control,
        contents,
        status,
        told_by_page,
        opening: listeners::opens(&page),
        mirror,
        at,
        mirror_holder: None,
        web_holder: None,
    };
    if facts.missing("mirror").is_some() || matches!(facts.mirror, Answerer::Other(_) | Answerer::Mute(_)) {
        facts.mirror_holder = holder::holder(listen);
    }
    if facts.missing("web").is_some() {
        facts.web_holder = holder::holder(facts.config.web.listen);
    }
    facts
}

fn disk_facts(node: &Node, facts: &daemon::Facts) -> disk::Facts {
    let (config, expected) = (&facts.config, facts.answers());
    let said = facts.status.as_ref().and_then(|status| status.as_ref().ok());
    let unwritable = said.and_then(|status| status.unwritable.clone());
    let disk = node.disk(&config.data_dir);
    let reserve = disk.as_ref().map_or(0, |disk| config.cache.reserve_free.bytes_of(disk.total));
    disk::Facts { data_dir: config.data_dir.clone(), expected, unwritable, disk, reserve }
}

/// The folders of registries that somebody on this node reads.
fn folders(node: &Node, asked: &Doctor, containerds: &[&Containerd], elsewhere: bool) -> Vec<Folder> {
    let mut folders: Vec<Folder> = Vec::new();
    let mut add =
        |path: &Path, reader: String, version| match folders.iter_mut().find(|folder| folder.path == path) {
            Some(folder) => folder.readers.push(reader),
            None => folders.push(node.hosts(path, reader, version)),
        };
    for containerd in containerds {
        let Ok(settings) = &containerd.settings else { continue };
        if !plugins::has_cri(containerd.plugins()) {
            continue;
        }
        let all = settings.hosts_folders();
        // Where there are several, it is the first that has a registry.
        if let Some(first) = all.iter().find(|folder| node.has(folder)).or(all.first()) {
            let version =
                containerd.version.map_or_else(String::new, |version| format!(" of containerd {version}"));
            add(Path::new(first), format!("CRI{version}"), containerd.version);
        }
    }
    let version = containerds.first().and_then(|containerd| containerd.version);
    for folder in &asked.hosts_dir {
        add(folder, "--hosts-dir".to_owned(), version);
    }
    if node.has("/etc/nerdctl/nerdctl.toml") || node.has_program("nerdctl") {
        let text = node.text("/etc/nerdctl/nerdctl.toml").unwrap_or_default();
        let all = clients::nerdctl_folders(&text).unwrap_or_default();
        if let Some(first) = all.iter().find(|folder| node.at(folder).is_dir()).or(all.first()) {
            add(first, "nerdctl".to_owned(), None);
        }
    }
    let usual = Path::new(tidehold::node::containerd::HOSTS);
    // On a node of dockerd's or podman's alone nobody reads it.
    if folders.is_empty() && (!elsewhere || node.at(usual).is_dir()) {
        folders.push(node.hosts(usual, "nerdctl, ctr --hosts-dir".to_owned(), version));
    }
    folders
}

/// What a containerd is judged with beside itself.
struct Used<'a> {
    hold: &'a Hold<'a>,
    mirrored: bool,
    mirror: Mirror,
    leaving: Option<&'a Leaving>,
}

fn of_containerd(containerd: &Containerd, all: &[Containerd], used: &Used<'_>) -> Vec<Finding> {
    let mut findings = containerd.judge();
    let config = containerd.editable();
    let not_taken = untaken(containerd, used.hold);
    let leaving = used.leaving.is_some_and(|leaving| leaving.is_of(containerd));
    if not_taken > 0 || leaving {
        // What is said of its store, or of what setup has left to do, tells when.
        findings.retain(|finding| finding.name != "containerd.restart");
    }
    let kubernetes = ["/var/lib/kubelet/config.yaml", "/etc/kubernetes", "/etc/crictl.yaml"];
    if containerd.answer.is_ok() {
        findings.extend(plugins::judge(&plugins::Facts {
            version: containerd.version,
            plugins: containerd.plugins(),
            settings: containerd.settings.as_ref().ok(),
            place: containerd.place(&config),
            ours: used.hold.sockets,
            mirrored: used.mirrored,
            leaving,
            kubernetes: kubernetes.iter().any(|path| used.hold.node.has(path)),
            not_taken,
        }));
    }
    if let Ok(settings) = &containerd.settings {
        findings.extend(of_settings(containerd, settings, all));
        findings.extend(order(containerd, settings, used));
    }
    findings.extend(clients::proxy(&containerd.running.environment, used.mirror, containerd.restart));
    findings
}

/// What can be said of it whatever the daemon's configuration.
fn by_itself(containerd: &Containerd, all: &[Containerd]) -> Vec<Finding> {
    let mut findings = containerd.judge();
    if let Ok(settings) = &containerd.settings {
        findings.extend(of_settings(containerd, settings, all));
    }
    findings
}

fn of_settings(
    containerd: &Containerd,
    settings: &tidehold::node::containerd::Settings,
    all: &[Containerd],
) -> Vec<Finding> {
    let mut findings = registries::judge(&registries::Facts {
        version: containerd.version,
        files: &containerd.files,
        settings,
        place: containerd.place(&containerd.editable()),
        unread: &containerd.unread,
        cri: plugins::has_cri(containerd.plugins()),
    });
    findings.extend(shared(containerd, settings, all));
    findings
}

/// Each containerd deletes what it does not know of the store behind its socket: two must not have the same one.
fn shared(
    containerd: &Containerd,
    settings: &tidehold::node::containerd::Settings,
    all: &[Containerd],
) -> Option<Finding> {
    let (_, own) = settings.stores().next()?;
    let other = all.iter().find(|other| {
        let theirs = other.settings.as_ref().ok();
        other.socket != containerd.socket
            && theirs.is_some_and(|theirs| theirs.stores().any(|(_, proxy)| proxy.address == own.address))
    })?;
    Some(bad(
        "containerd.shared-socket",
        format!(
            "it has the same content socket as the containerd at {}: each deletes what the other relies on",
            other.socket.display()
        ),
        "give each its own: a second [[containerd]] with a name and a socket in the daemon's configuration, and that \
         socket as the address of its [proxy_plugins.tidehold]",
    ))
}

/// A containerd that starts before the sockets are there skips the images that it cannot read.
fn order(
    containerd: &Containerd,
    settings: &tidehold::node::containerd::Settings,
    used: &Used<'_>,
) -> Option<Finding> {
    let ours = |address: &str| used.hold.sockets.iter().any(|(_, socket)| socket == Path::new(address));
    if !used.hold.node.has("/run/systemd/system") || !settings.stores().any(|(_, proxy)| ours(&proxy.address))
    {
        return None;
    }
    let unit = UNITS.iter().find_map(|folder| used.hold.node.text(&format!("{folder}/tidehold.socket")))?;
    if !used.hold.node.has("/etc/systemd/system/sockets.target.wants/tidehold.socket") {
        return Some(warn(
            "daemon.boot",
            "tidehold.socket is not enabled: after a restart of the node containerd has no content store",
            "systemctl enable tidehold.socket tidehold.service",
        ));
    }
    let service = containerd.restart.split(' ').nth(2).unwrap_or("containerd");
    let before = unit.lines().filter_map(|line| line.strip_prefix("Before=")).collect::<String>();
    (!before.contains(&format!("{service}.service"))).then(|| {
        warn(
            "daemon.order",
            format!("nothing has the sockets made before {service} starts, which skips the images that it cannot read"),
            format!("systemctl edit tidehold.socket, and put there:\n  [Unit]\n  Before={service}.service"),
        )
    })
}

fn names_us(folder: &Folder, mirror: Mirror) -> bool {
    folder.registries.iter().any(|(_, text)| match text {
        hosts::Text::There(text) => mirror.is_named_by(text, folder.version),
        hosts::Text::Missing | hosts::Text::Unreadable(_) => false,
    })
}

fn client_facts(node: &Node, folders: &[Folder], mirror: Mirror) -> clients::Facts {
    let naming = folders.iter().filter(|folder| names_us(folder, mirror));
    let file = "/etc/nerdctl/nerdctl.toml";
    let has_docker = node.has_program("dockerd") || node.has("/etc/docker/daemon.json");
    let has_podman = node.has_program("podman");
    let users = node.names(Path::new("/run/user")).into_iter();
    let rootless = users.filter(|user| node.has(&format!("/run/user/{user}/containerd-rootless")));
    clients::Facts {
        nerdctl: node.text(file).map(|text| (PathBuf::from(file), text)),
        folders: naming.map(|folder| folder.path.clone()).collect(),
        docker: has_docker.then(|| node.text("/etc/docker/daemon.json").unwrap_or_default()),
        dockerd: None,
        podman: has_podman.then(|| podman_texts(node)),
        rootless: rootless.filter_map(|user| user.parse().ok()).collect(),
    }
}

fn podman_texts(node: &Node) -> Vec<String> {
    let drop_ins = Path::new("/etc/containers/registries.conf.d");
    let names = node.names(drop_ins).into_iter().map(|name| drop_ins.join(name).display().to_string());
    let all = names.chain(["/etc/containers/registries.conf".to_owned()]);
    all.filter_map(|path| node.text(&path)).collect()
}

/// The configurations of clients that read no hosts.toml.
fn other_texts(node: &Node) -> Vec<String> {
    let more = ["/etc/docker/daemon.json", "/etc/buildkit/buildkitd.toml"].into_iter();
    podman_texts(node).into_iter().chain(more.filter_map(|path| node.text(path))).collect()
}
