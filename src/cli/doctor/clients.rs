//! The other clients of this node: do those that are here and pull by themselves pull through Tidehold?
//!
//! Only what is here is judged, and most of it as a warning: not everybody wants all of them to.

use std::net::IpAddr;
use std::path::PathBuf;

use toml::{Table, Value};

use super::finding::{Finding, bad, ok, warn};
use super::hosts::Mirror;

/// What was seen of the other clients.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// nerdctl's configuration, where there is one.
    pub(super) nerdctl: Option<(PathBuf, String)>,
    /// The folders of registries of which one at least names the mirror.
    pub(super) folders: Vec<PathBuf>,
    /// dockerd's configuration, where dockerd is here; empty where it has none.
    pub(super) docker: Option<String>,
    /// The mirrors that dockerd goes by, where it answers.
    pub(super) dockerd: Option<Vec<String>>,
    /// podman's configuration, all files of it, where podman is here.
    pub(super) podman: Option<Vec<String>>,
    /// Users with a containerd of their own.
    pub(super) rootless: Vec<u32>,
}

/// Where nerdctl looks where it is not told.
pub(super) const NERDCTL_FOLDERS: &[&str] = &["/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// The folders that nerdctl reads.
///
/// # Errors
/// What is wrong with its configuration.
pub(super) fn nerdctl_folders(text: &str) -> Result<Vec<PathBuf>, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let written = table.get("hosts_dir").and_then(Value::as_array);
    let folders =
        written.map(|folders| folders.iter().filter_map(Value::as_str).map(PathBuf::from).collect());
    Ok(folders.unwrap_or_else(|| NERDCTL_FOLDERS.iter().map(PathBuf::from).collect()))
}

/// All of them.
pub(super) fn judge(facts: &Facts, mirror: Mirror) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((file, text)) = &facts.nerdctl {
        findings.push(nerdctl(facts, &file.display().to_string(), text));
    }
    if let Some(text) = &facts.docker {
        findings.push(docker(text, facts.dockerd.as_deref(), mirror));
    }
    if let Some(texts) = &facts.podman {
        findings.push(podman(texts, mirror));
    }
    for user in &facts.rootless {
        findings.push(warn(
            "clients.rootless",
            format!("user {user} has a containerd of its own, which cannot open the content socket (mode 0600)"),
            "it can pull through the mirror: put the hosts.toml into that user's ~/.config/containerd/certs.d, and give \
             it a [[containerd]] table and a socket of its own only where it may read all that the hold has",
        ));
    }
    findings
}

fn nerdctl(facts: &Facts, file: &str, text: &str) -> Finding {
    let folders = match nerdctl_folders(text) {
        Ok(folders) => folders,
        Err(why) => {
            return bad(
                "clients.nerdctl",
                format!("{file} is no valid TOML, so nerdctl does not start: {why}"),
                format!("mend {file}"),
            );
        }
    };
    // It takes the first folder that has the registry.
    if folders.iter().any(|folder| facts.folders.contains(folder)) {
        return ok("clients.nerdctl", "nerdctl reads a folder that names the mirror");
    }
    let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let Some(right) = facts.folders.first() else {
        return warn(
            "clients.nerdctl",
            format!("nerdctl reads {}, where nothing names the mirror", shown.join(", ")),
            "tidehold setup",
        );
    };
    bad(
        "clients.nerdctl",
        format!(
            "nerdctl reads {}, and what names the mirror is in {}: it pulls past it",
            shown.join(", "),
            right.display()
        ),
        format!("write in {file}:\n  hosts_dir = [{:?}]", right.display().to_string()),
    )
}

fn docker(text: &str, goes_by: Option<&[String]>, mirror: Mirror) -> Finding {
    let url = mirror.url();
    let read: Result<serde_json::Value, _> =
        if text.trim().is_empty() { Ok(serde_json::Value::Null) } else { serde_json::from_str(text) };
    let Ok(read) = read else {
        return bad(
            "clients.docker",
            "/etc/docker/daemon.json is no valid JSON, so dockerd does not start",
            "mend it: jq . /etc/docker/daemon.json says where",
        );
    };
    let mirrors = read.get("registry-mirrors").and_then(serde_json::Value::as_array);
    let ours = |text: &str| text.trim_end_matches('/') == url;
    let written =
        mirrors.is_some_and(|mirrors| mirrors.iter().any(|mirror| mirror.as_str().is_some_and(ours)));
    let read = goes_by.map(|mirrors| mirrors.iter().any(|mirror| ours(mirror)));
    match (written, read) {
        (_, Some(true)) => {
            return ok("clients.docker", "dockerd pulls what is Docker Hub's through the mirror");
        }
        (true, None) => {
            return ok(
                "clients.docker",
                "dockerd's configuration names the mirror; whether it has read that it does not say",
            );
        }
        (true, Some(false)) => {
            return warn(
                "clients.docker",
                "dockerd pulls past Tidehold: its configuration names the mirror, and it has not read that yet",
                "systemctl reload docker (which stops no container)",
            );
        }
        (false, Some(false) | None) => {}
    }
    warn(
        "clients.docker",
        "dockerd is here and pulls past Tidehold",
        format!(
            "if that is not meant so, put into /etc/docker/daemon.json, and: systemctl reload docker\n  \"registry-mirrors\": [{url:?}]"
        ),
    )
}

/// Whether one of these files names the mirror.
pub(super) fn name_us(texts: &[String], mirror: Mirror) -> bool {
    let url = mirror.url();
    texts.iter().any(|text| text.contains(url.trim_start_matches("http://")))
}

fn podman(texts: &[String], mirror: Mirror) -> Finding {
    let address = mirror.url();
    let address = address.trim_start_matches("http://");
    if name_us(texts, mirror) {
        return ok("clients.podman", "podman's configuration names the mirror");
    }
    warn(
        "clients.podman",
        "podman is here and pulls past Tidehold",
        format!(
            "if that is not meant so, put into /etc/containers/registries.conf.d/50-tidehold.conf:\n  [[registry]]\n  \
             location = \"docker.io\"\n  [[registry.mirror]]\n  location = \"{address}/docker.io\"\n  insecure = true"
        ),
    )
}

/// A proxy in containerd's own environment that stands between it and the mirror. Go asks no proxy for loopback.
pub(super) fn proxy(environment: &[(String, String)], mirror: Mirror, restart: &str) -> Option<Finding> {
    let value = |names: [&str; 2]| {
        let named =
            environment.iter().find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    };
    let proxy = value(["HTTP_PROXY", "http_proxy"])?;
    let ip = mirror.0.ip();
    if ip.is_loopback() || ip.is_unspecified() {
        return None;
    }
    let excluded = value(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let covers = |entry: &str| entry == "*" || entry == ip.to_string() || in_network(entry, ip);
    if excluded.split(',').map(str::trim).any(covers) {
        return None;
    }
    Some(bad(
        "containerd.proxy",
        format!(
            "containerd is told to ask the proxy {proxy} for everything, the mirror at {} too",
            mirror.url()
        ),
        format!("add {ip} to NO_PROXY in its unit (systemctl edit containerd), and: {restart}"),
    ))
}

/// Whether an address is in `10.0.0.0/8` or the like.
fn in_network(entry: &str, ip: IpAddr) -> bool {
    let Some((network, bits)) = entry.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) if bits <= 32 => {
            let off = 32 - bits;
            network.to_bits().checked_shr(off).unwrap_or(0) == ip.to_bits().checked_shr(off).unwrap_or(0)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) if bits <= 128 => {
            let off = 128 - bits;
            network.to_bits().checked_shr(off).unwrap_or(0) == ip.to_bits().checked_shr(off).unwrap_or(0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    fn mirror() -> Mirror {
        Mirror(([127, 0, 0, 1], 789).into())
    }

    #[test]
    fn nerdctl_has_to_read_a_folder_that_names_the_mirror() {
        let level = |text: &str, folders: &[&str]| {
            let facts = Facts {
                nerdctl: Some(("/n.toml".into(), text.to_owned())),
                folders: folders.iter().map(PathBuf::from).collect(),
                ..Facts::default()
            };
            judge(&facts, mirror())[0].level
        };
        assert_eq!(level("", &["/etc/containerd/certs.d"]), Level::Ok);
        assert_eq!(level("hosts_dir = [\"/a\", \"/b\"]", &["/b"]), Level::Ok);
        assert_eq!(level("hosts_dir = [\"/a\"]", &["/b"]), Level::Bad);
        assert_eq!(level("hosts_dir = [", &["/b"]), Level::Bad);
        assert_eq!(level("", &[]), Level::Warn);
    }

    #[test]
    fn dockerd_and_podman_are_warned_of() {
        let judged = |docker: &str, podman: &str| {
            let facts = Facts {
                docker: Some(docker.to_owned()),
                podman: Some(vec![podman.to_owned()]),
                ..Facts::default()
            };
            judge(&facts, mirror()).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        let goes_by = |mirrors: &[&str]| {
            let mirrors = mirrors.iter().map(|mirror| (*mirror).to_owned()).collect();
            let text = "{\"registry-mirrors\": [\"http://127.0.0.1:789\"]}".to_owned();
            let facts = Facts { docker: Some(text), dockerd: Some(mirrors), ..Facts::default() };
            let found = judge(&facts, mirror()).remove(0);
            (found.level, found.mend)
        };
        assert_eq!(goes_by(&["http://127.0.0.1:789/"]).0, Level::Ok);
        assert_eq!(goes_by(&[]).0, Level::Warn);
        assert!(goes_by(&["http://m.test/"]).1.contains("systemctl reload docker"));
        assert_eq!(judged("", ""), [Level::Warn, Level::Warn]);
        let docker = "{\"registry-mirrors\": [\"http://127.0.0.1:789/\"]}";
        assert_eq!(judged(docker, "location = \"127.0.0.1:789/docker.io\""), [Level::Ok, Level::Ok]);
        assert_eq!(judged("{", "")[0], Level::Bad);
    }

    #[test]
    fn a_proxy_stands_in_the_way_only_of_what_is_not_loopback() {
        let environment = |none: &str| {
            vec![
                ("HTTP_PROXY".to_owned(), "http://p:3128".to_owned()),
                ("NO_PROXY".to_owned(), none.to_owned()),
            ]
        };
        let far = Mirror(([10, 1, 2, 3], 789).into());
        assert!(proxy(&environment(""), mirror(), "").is_none());
        assert!(proxy(&environment("example.com"), far, "").is_some());
        for excluded in ["10.1.2.3", "a.test, 10.0.0.0/8", "*"] {
            assert!(proxy(&environment(excluded), far, "").is_none(), "{excluded}");
        }
        assert!(proxy(&environment("10.2.0.0/16"), far, "").is_some());
        assert!(proxy(&[], far, "").is_none());
    }
}
