//! What a `hosts.toml` comes to, read from its text alone, as a containerd reads it
//! (`core/remotes/docker/config/hosts.go`, before 2.0 `remotes/docker/config/hosts.go`).
//!
//! containerd goes on without a file that it cannot read, and says so in its log alone: so the registry itself is asked.
//! Here such a file is an error that says why.

use std::path::{Component, Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use super::containerd::Version;

/// The name of the file in a registry's folder.
pub const FILE: &str = "hosts.toml";

/// The folder for all registries that have none of their own.
pub const DEFAULT: &str = "_default";

/// Whom a client asks, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    /// The tables `[host."…"]`, as they follow one another.
    pub hosts: Vec<Host>,
    /// The last to be asked; the registry itself where it is not written.
    pub server: Option<Host>,
}

/// Somebody to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As it is written.
    pub written: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// What is put in front of a repository's name, as it is sent.
    pub path: String,
    /// What it is asked for; empty where that is not written, which means everything, pushes included.
    pub capabilities: Vec<String>,
    /// Whether it has settings for TLS.
    pub tls: bool,
}

impl Host {
    /// Whether it is asked for this.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.is_empty() || self.capabilities.iter().any(|own| own == capability)
    }
}

/// Why containerd does not read a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is no TOML.
    #[error("line {line}: {problem}")]
    Syntax {
        /// From 1.
        line: usize,
        /// In the parser's words.
        problem: String,
    },
    /// There is no table of hosts at all, which before 2.0 is an error.
    #[error("it has no table [host]")]
    NoHosts,
    /// A value that cannot be.
    #[error("{key}: {problem}")]
    Value {
        /// Where.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a file's text.
///
/// # Errors
/// Why containerd would not.
pub fn read(text: &str, version: Option<Version>) -> Result<Hosts, Unread> {
    let document = Document::parse(text).map_err(|error| Unread::Syntax {
        line: error
            .span()
            .map_or(1, |span| 1 + text.get(..span.start).unwrap_or_default().matches('\n').count()),
        problem: error.message().lines().next().unwrap_or_default().to_owned(),
    })?;
    let root = document.as_table();
    let mut read = Hosts::default();
    match root.get("host") {
        None if version.is_some_and(|version| !version.is_2()) => return Err(Unread::NoHosts),
        None => {}
        Some(hosts) => {
            let hosts =
                hosts.as_table_like().ok_or_else(|| wrong("host", "is no table: write [host.\"URL\"]"))?;
            for (url, settings) in hosts.iter() {
                let key = format!("host.{url:?}");
                let settings = settings.as_table_like().ok_or_else(|| wrong(&key, "is no table"))?;
                read.hosts.push(host(&key, url, settings)?);
            }
        }
    }
    if let Some(server) = text_at(root, "server", "server")? {
        read.server = Some(host("server", &server, root)?);
    } else {
        capabilities("capabilities", root)?;
    }
    Ok(read)
}

/// The folders that are looked for in turn for a registry (`hostPaths`); the first one that is there counts.
pub fn folders(root: &Path, registry: &str) -> Vec<PathBuf> {
    let plain = registry.rsplit_once(':').map(|(host, port)| root.join(format!("{host}_{port}_")));
    plain.into_iter().chain([root.join(registry), root.join(DEFAULT)]).collect()
}

/// The registry that a folder is for: a port may stand between underscores, since some systems bear no colon in names.
pub fn registry_of(folder: &str) -> String {
    let port = folder.strip_suffix('_').and_then(|folder| folder.rsplit_once('_'));
    match port {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{host}:{port}")
        }
        _ => folder.to_owned(),
    }
}

/// The first file that is named by a path which leads out of the registry's folder, if any: it is another one as soon as that
/// folder is found by another way, since containerd shortens the path before it follows it (`makeAbsPath`).
pub fn leads_out(text: &str) -> Option<String> {
    let root = text.parse::<toml::Table>().ok()?;
    let hosts = root.get("host").and_then(toml::Value::as_table).into_iter().flatten();
    let tables = hosts.filter_map(|(_, host)| host.as_table()).chain([&root]);
    let files = tables.flat_map(|table| ["ca", "client"].into_iter().filter_map(|key| table.get(key)));
    files.flat_map(texts_in).find(|name| {
        let path = Path::new(name);
        path.is_relative() && path.components().any(|part| part == Component::ParentDir)
    })
}

/// The texts in a value, however deep.
fn texts_in(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Array(values) => values.iter().flat_map(texts_in).collect(),
        _ => Vec::new(),
    }
}

fn host(key: &str, written: &str, settings: &dyn TableLike) -> Result<Host, Unread> {
    // Whatever does not begin like a URL is taken for a host that speaks TLS.
    let url = if written.starts_with("http") { written.to_owned() } else { format!("https://{written}") };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong(key, "is no URL"))?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let whole = flag(settings, key, "override_path")?;
    let path = path.trim_end_matches('/');
    let path = if whole || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    flag(settings, key, "skip_verify")?;
    text_at(settings, key, "dial_timeout")?;
    Ok(Host {
        written: written.to_owned(),
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path,
        capabilities: capabilities(&format!("{key}.capabilities"), settings)?,
        tls: ["ca", "client", "skip_verify"].iter().any(|name| settings.get(name).is_some()),
    })
}

fn capabilities(key: &str, settings: &dyn TableLike) -> Result<Vec<String>, Unread> {
    let Some(item) = settings.get("capabilities") else { return Ok(Vec::new()) };
    let array = item.as_array().ok_or_else(|| wrong(key, "is no list: write [\"pull\", \"resolve\"]"))?;
    let one = |value: &toml_edit::Value| {
        let text = value.as_str().ok_or_else(|| wrong(key, "holds what is no text"))?.to_lowercase();
        match text.as_str() {
            "pull" | "resolve" | "push" => Ok(text),
            _ => Err(wrong(key, &format!("there is no capability {text:?}, only pull, resolve and push"))),
        }
    };
    array.iter().map(one).collect()
}

fn flag(settings: &dyn TableLike, key: &str, name: &str) -> Result<bool, Unread> {
    match settings.get(name) {
        None => Ok(false),
        Some(item) => {
            item.as_bool().ok_or_else(|| wrong(&format!("{key}.{name}"), "is neither true nor false"))
        }
    }
}

fn text_at(settings: &dyn TableLike, key: &str, name: &str) -> Result<Option<String>, Unread> {
    match settings.get(name).map(Item::as_str) {
        None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
        Some(None) => Err(wrong(&format!("{key}.{name}"), "is no text")),
    }
}

fn wrong(key: &str, problem: &str) -> Unread {
    Unread::Value { key: key.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_7: Option<Version> = Some(Version { major: 1, minor: 7 });
    const V2_1: Option<Version> = Some(Version { major: 2, minor: 1 });

    #[test]
    fn hosts_come_in_the_order_of_the_file_and_have_their_paths() {
        let text = "server = \"https://z\"\n[host.\"http://y:1\"]\ncapabilities = [\"pull\"]\n\
                    [host.\"a/v2/\"]\n[host.\"https://b/v2/x\"]\noverride_path = true\n[host.\"https://c/p\"]\n";
        let read = read(text, V2_1).unwrap();
        let seen: Vec<_> = read
            .hosts
            .iter()
            .map(|host| (host.scheme.as_str(), host.authority.as_str(), host.path.as_str()))
            .collect();
        let expected =
            [("http", "y:1", "/v2"), ("https", "a", "/v2"), ("https", "b", "/v2/x"), ("https", "c", "/p/v2")];
        assert_eq!(seen, expected);
        assert_eq!(read.server.unwrap().authority, "z");
        assert!(!read.hosts[0].can("resolve") && read.hosts[1].can("push"));
    }

    #[test]
    fn a_file_that_containerd_leaves_aside_says_why() {
        let problem = |text: &str| read(text, V1_7).unwrap_err().to_string();
        assert_eq!(read("server = \"http://x\"", V1_7), Err(Unread::NoHosts));
        assert!(read("server = \"http://x\"", V2_1).is_ok());
        assert!(problem("\n[host.\"http://x]\n").starts_with("line 2: "));
        assert!(problem("[host.\"x\"]\n[host.\"x\"]\n").starts_with("line 2: "));
        assert!(problem("[host.\"x\"]\ncapabilities = [\"read\"]").contains("no capability \"read\""));
        assert!(problem("[host.\"x\"]\ncapabilities = \"pull\"").contains("is no list"));
        assert!(problem("[host.\"x\"]\nskip_verify = \"no\"").contains("neither true nor false"));
        assert!(problem("host = \"x\"").contains("is no table"));
    }

    #[test]
    fn a_file_outside_of_the_folder_is_found_wherever_it_is_named() {
        let out = |text: &str| leads_out(text);
        assert_eq!(out("ca = [\"/a/../b\", \"x/ca.crt\"]\n[host.\"x\"]\nca = \"ca.crt\"\n"), None);
        assert_eq!(out("ca = \"../x.crt\"\n").as_deref(), Some("../x.crt"));
        let deep = "[host.\"x\"]\nclient = [[\"a\", \"k/../../b\"]]\n";
        assert_eq!(out(deep).as_deref(), Some("k/../../b"));
    }

    #[test]
    fn a_port_may_stand_between_underscores() {
        let found = folders(Path::new("/c"), "r:5000");
        assert_eq!(found, [Path::new("/c/r_5000_"), Path::new("/c/r:5000"), Path::new("/c/_default")]);
        assert_eq!(registry_of("r_5000_"), "r:5000");
        for other in ["r:5000", "docker.io", "_default", "a_b_"] {
            assert_eq!(registry_of(other), other);
        }
    }
}
