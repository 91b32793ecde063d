//! The `hosts.toml` of a folder of registries, held against the mirror: does what is asked of each registry come to us?

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use tidehold::node::containerd::Version;
use tidehold::node::hosts::{self, DEFAULT, FILE, Host, Hosts, Unread};

use super::finding::{Finding, bad, ok, warn};
use crate::cli::words::{quoted, quoted_path};

/// A folder of registries, as it lies on the disk.
#[derive(Debug)]
pub(super) struct Folder {
    /// Its path on the node.
    pub(super) path: PathBuf,
    /// Who reads it, for people.
    pub(super) readers: Vec<String>,
    /// Its registries' folders by their names, in the order of these.
    pub(super) registries: Vec<(String, Text)>,
    /// The version of the containerd that reads it.
    pub(super) version: Option<Version>,
}

/// The file in a registry's folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    There(String),
    Missing,
    Unreadable(String),
}

/// Where the mirror is, as the daemon's configuration says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mirror(pub(super) SocketAddr);

impl Mirror {
    /// As it is written in a file of hosts.
    pub(super) fn url(self) -> String {
        let ip = match self.0.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("http://{ip}:{}", self.0.port())
    }

    /// Whether that is the mirror's machine, and whether it is its port too.
    fn is(self, authority: &str) -> (bool, bool) {
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
            _ => (authority, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let own = self.0.ip();
        let here = match name.parse::<IpAddr>() {
            Ok(ip) => ip == own || own.is_unspecified() || own.is_loopback() && ip.is_loopback(),
            Err(_) => name == "localhost" && (own.is_loopback() || own.is_unspecified()),
        };
        (here, port == Some(self.0.port()))
    }

    pub(super) fn is_named_by(self, text: &str, version: Option<Version>) -> bool {
        let is_ours = |host: &Host| self.is(&host.authority) == (true, true);
        hosts::read(text, version).is_ok_and(|read| read.hosts.iter().chain(&read.server).any(is_ours))
    }

    fn lines(self) -> String {
        format!("[host.\"{}\"]\n    capabilities = [\"pull\", \"resolve\"]", self.url())
    }
}

/// What is found in a folder.
pub(super) fn judge(folder: &Folder, mirror: Mirror) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut good = Vec::new();
    let mut broken = false;
    for (name, text) in &folder.registries {
        let file = folder.path.join(name).join(FILE);
        let judged = match text {
            Text::There(text) => registry(&file, name, text, folder.version, mirror),
            Text::Unreadable(why) => Judged::Broken(vec![bad(
                "hosts.unreadable",
                format!("{} cannot be read: {why}", file.display()),
                format!(
                    "chmod 755 {}; chmod 644 {}",
                    quoted_path(&folder.path.join(name)),
                    quoted_path(&file)
                ),
            )]),
            Text::Missing => Judged::Elsewhere(String::new()),
        };
        match judged {
            Judged::Ours(more) => {
                good.push((name.as_str(), file));
                findings.extend(more);
            }
            Judged::Broken(more) => {
                broken = true;
                findings.extend(more);
            }
            Judged::Elsewhere(whom) => findings.extend(elsewhere(folder, name, &whom, mirror)),
        }
    }
    let whole = good.iter().any(|(name, _)| *name == DEFAULT);
    let names: Vec<_> = good.iter().map(|(name, _)| hosts::registry_of(name)).collect();
    let at = folder.path.display();
    let readers = folder.readers.join(" and ");
    if good.is_empty() && !broken {
        findings.insert(
            0,
            bad(
                "hosts.none",
                format!("nothing in {at} names the mirror, so pulls go past it (read by {readers})"),
                format!(
                    "put into {} (it needs no restart):\n  {}",
                    folder.path.join(DEFAULT).join(FILE).display(),
                    mirror.lines()
                ),
            ),
        );
    } else if whole {
        findings.insert(0, ok("hosts", format!("{readers}: all registries through the mirror ({at})")));
    } else if !good.is_empty() {
        findings.insert(0, ok("hosts", format!("{readers}: {} through the mirror ({at})", names.join(", "))));
    }
    findings
}

/// What is wrong with a registry's file.
enum Judged {
    /// It names the mirror, and containerd comes to it.
    Ours(Vec<Finding>),
    /// It was meant to, and containerd does not.
    Broken(Vec<Finding>),
    /// It names others; whom first.
    Elsewhere(String),
}

/// A folder whose registry goes elsewhere may be meant so, but hides the folder for all.
fn elsewhere(folder: &Folder, name: &str, whom: &str, mirror: Mirror) -> Option<Finding> {
    let file = folder.path.join(name).join(FILE);
    let names_us =
        |text: &Text| matches!(text, Text::There(text) if mirror.is_named_by(text, folder.version));
    let others = folder.registries.iter().filter(|(other, _)| other != name);
    if !others.into_iter().any(|(_, text)| names_us(text)) {
        return None;
    }
    let what = match whom {
        "" => format!("{} has no {FILE} that names the mirror", folder.path.join(name).display()),
        whom => format!("{} names {whom} and not the mirror", file.display()),
    };
    let registry = hosts::registry_of(name);
    let so = if name == DEFAULT {
        "pulls from all other registries go past it".to_owned()
    } else {
        format!("pulls from {registry} go past it, whatever {DEFAULT} says")
    };
    let before = if whom.is_empty() { String::new() } else { ", before its other hosts".to_owned() };
    Some(warn(
        "hosts.past",
        format!("{what}: {so}"),
        format!("if that is not meant so, put into {}{before}:\n  {}", file.display(), mirror.lines()),
    ))
}

fn registry(file: &Path, name: &str, text: &str, version: Option<Version>, mirror: Mirror) -> Judged {
    let file = file.display();
    let read = match hosts::read(text, version) {
        Ok(read) => read,
        Err(Unread::NoHosts) => {
            // Read as 2.x does: if that would not come to us, it is none of our business.
            let server = hosts::read(text, None).ok().and_then(|read| read.server);
            return match server {
                Some(server) if mirror.is(&server.authority) == (true, true) => Judged::Broken(vec![bad(
                    "hosts.no-host-table",
                    format!(
                        "{file} has only a server line, and before 2.0 containerd takes no file without [host]"
                    ),
                    format!("add to {file} (it needs no restart):\n  [host]"),
                )]),
                Some(server) => Judged::Elsewhere(server.written),
                None => Judged::Elsewhere(String::new()),
            };
        }
        Err(unread) => {
            return Judged::Broken(vec![bad(
                "hosts.syntax",
                format!("containerd leaves {file} aside, and pulls from the registry itself: {unread}"),
                format!("mend that line; what Tidehold needs in {file} is:\n  {}", mirror.lines()),
            )]);
        }
    };
    let ours = |host: &&Host| mirror.is(&host.authority) == (true, true);
    let Some(host) = read.hosts.iter().find(ours).or(read.server.as_ref().filter(ours)) else {
        return missed(&file.to_string(), &read, mirror);
    };
    let mut findings = wrong_host(&file.to_string(), host, read.server.as_ref() == Some(host), mirror);
    if findings.iter().any(|finding| finding.level == super::finding::Level::Bad) {
        return Judged::Broken(findings);
    }
    if let Some(wrong) = wrong_name(&file.to_string(), name) {
        findings.push(wrong);
        return Judged::Broken(findings);
    }
    if let Some(first) = read.hosts.first().filter(|first| !ours(first)) {
        findings.push(warn(
            "hosts.order",
            format!("{file} has {} asked before the mirror", first.written),
            format!("move [host.{:?}] in front of it (it needs no restart)", host.written),
        ));
    }
    Judged::Ours(findings)
}

/// A file that does not name the mirror, or at a port where it is not. A server alone is the registry itself, on this node.
fn missed(file: &str, read: &Hosts, mirror: Mirror) -> Judged {
    match read.hosts.first().or(read.server.as_ref()) {
        Some(first) if mirror.is(&first.authority).0 && read.hosts.len() == 1 => Judged::Broken(vec![bad(
            "hosts.port",
            format!("{file} names {}, and the mirror listens at {}", first.written, mirror.url()),
            format!("write {:?} there (it needs no restart)", mirror.url()),
        )]),
        Some(first) => Judged::Elsewhere(first.written.clone()),
        None => Judged::Elsewhere(String::new()),
    }
}

/// What keeps a host that is the mirror from being one. `alone`: it is the registry's server, so that nobody else is
/// there for pushes either.
fn wrong_host(file: &str, host: &Host, alone: bool, mirror: Mirror) -> Vec<Finding> {
    let mut findings = Vec::new();
    let written = &host.written;
    let url = mirror.url();
    if host.scheme != "http" {
        findings.push(bad(
            "hosts.scheme",
            format!("{file} has the mirror asked over https ({written}), and it speaks plain http"),
            format!("write {url:?} there (it needs no restart)"),
        ));
    }
    if host.path != "/v2" {
        findings.push(bad(
            "hosts.path",
            format!(
                "{file} has the mirror asked beneath {:?}: the registry is named by ns=, not by a path",
                host.path
            ),
            format!("write {url:?} there, without override_path (it needs no restart)"),
        ));
    }
    let missing: Vec<_> = ["pull", "resolve"].into_iter().filter(|name| !host.can(name)).collect();
    if !missing.is_empty() {
        findings.push(bad(
            "hosts.capabilities",
            format!("{file} does not let the mirror {}: the registry itself is asked for that", missing.join(" or ")),
            format!("write under [host.{written:?}] (it needs no restart):\n  capabilities = [\"pull\", \"resolve\"]"),
        ));
    } else if host.capabilities.is_empty() && !alone {
        findings.push(warn(
            "hosts.push",
            format!("{file} sends pushes to the mirror too, which takes none"),
            format!("write under [host.{written:?}]:\n  capabilities = [\"pull\", \"resolve\"]"),
        ));
    }
    if host.tls && host.scheme == "http" {
        findings.push(warn(
            "hosts.tls",
            format!("{file} has TLS settings for the mirror, so each connection is tried over https first"),
            format!("take ca, client and skip_verify out from under [host.{written:?}]"),
        ));
    }
    findings
}

/// Names of folders that no image is ever asked under.
fn wrong_name(file: &str, name: &str) -> Option<Finding> {
    let folder = |right: &str| file.replacen(&format!("/{name}/"), &format!("/{right}/"), 1);
    let move_to = |right: &str| {
        let strip = |file: &str| file.strip_suffix(&format!("/{FILE}")).unwrap_or(file).to_owned();
        format!("mv {} {} (it needs no restart)", quoted(&strip(file)), quoted(&strip(&folder(right))))
    };
    let hub = [
        "registry-1.docker.io",
        "index.docker.io",
        "hub.docker.com",
        "registry.hub.docker.com",
        "docker.com",
    ];
    if hub.contains(&name) {
        return Some(bad(
            "hosts.name",
            format!("{file} is never read: images of Docker Hub are those of docker.io, whoever serves them"),
            move_to("docker.io"),
        ));
    }
    // What is left of a port without its second underscore.
    let port = name
        .rsplit_once('_')
        .filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if let Some((host, port)) = port {
        return Some(bad(
            "hosts.name",
            format!("{file} is never read: a port comes after a colon, or between two underscores"),
            move_to(&format!("{host}_{port}_")),
        ));
    }
    let sound = name == DEFAULT
        || (name.contains('.') || name.contains(':') || name.ends_with('_') || name == "localhost");
    (!sound).then(|| {
        bad(
            "hosts.name",
            format!("{file} is never read: {name:?} is no registry's name as images have it, such as docker.io or reg.example:5000"),
            "give the folder the name that stands in front of the first slash of an image".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    const OURS: &str = "[host.\"http://127.0.0.1:789\"]\n  capabilities = [\"pull\", \"resolve\"]\n";

    fn mirror() -> Mirror {
        Mirror(([127, 0, 0, 1], 789).into())
    }

    fn judged(version: &str, registries: &[(&str, &str)]) -> Vec<Finding> {
        let registries =
            registries.iter().map(|(name, text)| ((*name).to_owned(), Text::There((*text).to_owned())));
        let folder = Folder {
            path: PathBuf::from("/certs.d"),
            readers: vec!["CRI".to_owned()],
            registries: registries.collect(),
            version: Version::parse(version),
        };
        judge(&folder, mirror())
    }

    fn names(findings: &[Finding]) -> Vec<(Level, &'static str)> {
        findings.iter().map(|finding| (finding.level, finding.name)).collect()
    }

    #[test]
    fn files_that_name_the_mirror_are_good() {
        let with_server = format!("server = \"https://registry-1.docker.io\"\n{OURS}");
        let only = "server = \"http://127.0.0.1:789\"\n[host]\n";
        let other_name = OURS.replace("127.0.0.1", "localhost");
        for text in [OURS, &with_server, only, &other_name] {
            for version in ["1.6.1", "1.7.1", "2.1.1"] {
                for name in ["_default", "docker.io", "reg.test:5000", "reg.test_5000_", "localhost_80_"] {
                    // A server line has no capabilities of its own.
                    let found = judged(version, &[(name, text)]);
                    assert!(
                        found.iter().all(|finding| finding.level != Level::Bad),
                        "{name} {text}: {found:?}"
                    );
                    assert_eq!(found[0].name, "hosts");
                }
            }
        }
        assert_eq!(names(&judged("2.0", &[("_default", OURS)])), [(Level::Ok, "hosts")]);
    }

    #[test]
    fn what_keeps_containerd_from_the_mirror_is_named() {
        let table: &[(&str, &str, &str)] = &[
            ("server = \"http://127.0.0.1:789\"\n", "docker.io", "hosts.no-host-table"),
            ("[host.\"http://127.0.0.1:789]\n", "docker.io", "hosts.syntax"),
            (&format!("{OURS}{OURS}"), "docker.io", "hosts.syntax"),
            (&OURS.replace("http:", "https:"), "docker.io", "hosts.scheme"),
            ("[host.\"127.0.0.1:789\"]\n", "docker.io", "hosts.scheme"),
            (&OURS.replace("789", "789/docker.io"), "docker.io", "hosts.path"),
            (&format!("{OURS}override_path = true\n"), "docker.io", "hosts.path"),
            (&OURS.replace(", \"resolve\"", ""), "docker.io", "hosts.capabilities"),
            (&OURS.replace("resolve", "read"), "docker.io", "hosts.syntax"),
            (&OURS.replace("789", "5000"), "docker.io", "hosts.port"),
            (OURS, "registry-1.docker.io", "hosts.name"),
            (OURS, "reg.test_5000", "hosts.name"),
            (OURS, "nginx", "hosts.name"),
            ("[host.\"https://mirror.test\"]\n", "docker.io", "hosts.none"),
            ("", "docker.io", "hosts.none"),
        ];
        for (text, name, expected) in table {
            let found = judged("1.7.1", &[(name, text)]);
            let bad: Vec<_> = found.iter().filter(|finding| finding.level == Level::Bad).collect();
            assert_eq!(bad.iter().map(|finding| finding.name).collect::<Vec<_>>(), [*expected], "{text}");
            assert!(!bad[0].mend.is_empty());
        }
        assert_eq!(names(&judged("2.1", &[])), [(Level::Bad, "hosts.none")]);
    }

    #[test]
    fn a_registry_of_the_nodes_own_is_not_taken_for_the_mirror() {
        let found =
            judged("1.7.1", &[("_default", OURS), ("corp.test", "server = \"http://127.0.0.1:5000\"\n")]);
        assert!(found.iter().all(|finding| finding.level != Level::Bad), "{found:?}");
    }

    #[test]
    fn what_may_be_meant_so_is_only_a_warning() {
        let others = "[host.\"https://mirror.test\"]\n";
        let found = judged("2.1", &[("_default", OURS), ("quay.io", others)]);
        assert_eq!(names(&found), [(Level::Ok, "hosts"), (Level::Warn, "hosts.past")]);
        let found = judged("2.1", &[("docker.io", &format!("{others}{OURS}"))]);
        assert_eq!(names(&found), [(Level::Ok, "hosts"), (Level::Warn, "hosts.order")]);
        let found = judged("2.1", &[("docker.io", &format!("{OURS}skip_verify = true\n"))]);
        assert_eq!(names(&found), [(Level::Ok, "hosts"), (Level::Warn, "hosts.tls")]);
        let found = judged("2.1", &[("docker.io", "[host.\"http://127.0.0.1:789\"]\n")]);
        assert_eq!(names(&found), [(Level::Ok, "hosts"), (Level::Warn, "hosts.push")]);
    }
}
