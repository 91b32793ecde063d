//! What a containerd's configuration comes to: read from its text alone, as that containerd would read it.
//!
//! It knows the names that plugins have by the version of the file, and how a file is merged with those that it imports
//! (`cmd/containerd/server/config/config.go`, before 2.0 `services/server/config/config.go`): before 2.0 a plugin's whole
//! table replaces an earlier one, since 2.0 single keys do. It touches no disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Where containerd looks for its configuration where it is told nothing else.
pub const CONFIG: &str = "/etc/containerd/config.toml";

/// Where it listens where it is told nothing else.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// Where it keeps things where it is told nothing else.
pub const ROOT: &str = "/var/lib/containerd";

/// Where the hosts of registries are looked for by most of its clients.
pub const HOSTS: &str = "/etc/containerd/certs.d";

/// Where dockerd keeps the certificates of registries, and some of containerd's clients look too.
pub const DOCKERS_HOSTS: &str = "/etc/docker/certs.d";

/// The builtin content store.
pub const BUILTIN_STORE: &str = "io.containerd.content.v1.content";

/// The part that fails where there is no content store, or more than one.
pub const METADATA: &str = "io.containerd.metadata.v1.bolt";

/// The service whose `default` is the differs, in order.
pub const DIFF_SERVICE: &str = "io.containerd.service.v1.diff-service";

/// The transfer service, whose `unpack_config` names a differ.
pub const TRANSFER: &str = "io.containerd.transfer.v1.local";

/// The part that has the registries, in files of version 2.
const CRI: &str = "io.containerd.grpc.v1.cri";

/// The same from version 3 on.
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";

/// A line of containerd, such as 1.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1 or 2.
    pub major: u32,
    /// What follows it.
    pub minor: u32,
}

impl Version {
    /// Reads `1.7.24~ds1`, `v2.1.9` or `2.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
        Some(Self { major, minor: minor.parse().ok()? })
    }

    /// Reads what `containerd --version` prints.
    pub fn of_program(said: &str) -> Option<Self> {
        said.split_whitespace().filter(|word| word.contains('.')).find_map(Self::parse)
    }

    /// Whether it takes a differ from elsewhere.
    pub fn has_differs(self) -> bool {
        self >= Self { major: 1, minor: 7 }
    }

    /// Whether it merges single keys, and knows files of version 3.
    pub fn is_2(self) -> bool {
        self.major >= 2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A file of a configuration: its path on the node, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As containerd knows it.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// An entry of `[proxy_plugins]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxy {
    /// `content`, `diff`, `snapshot`, …
    pub kind: String,
    /// Its socket.
    pub address: String,
}

/// What a containerd is told, with its own defaults for what it is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The version of the main file: 1 where it names none, which is how containerd takes it.
    pub file_version: i64,
    /// Where it keeps things.
    pub root: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// `disabled_plugins`, under the names of version 2.
    pub disabled: Vec<String>,
    /// `required_plugins`, under the names of version 2.
    pub required: Vec<String>,
    /// `[proxy_plugins]`, by name.
    pub proxies: BTreeMap<String, Proxy>,
    /// `registry.config_path` of CRI as it stands there, maybe several paths joined by colons; empty where there is none.
    pub hosts: String,
    /// The file that has the last word on it.
    pub hosts_from: Option<PathBuf>,
    /// Values of `config_path` that stand under a name which this containerd does not read, with that name.
    pub hosts_unread: Vec<(String, String)>,
    /// The registries with entries in CRI's own `registry.mirrors`, which rules out a `config_path`.
    pub mirrors: Vec<String>,
    /// The registries with TLS settings in CRI's own `registry.configs`, which before 2.0 does the same.
    pub tls: Vec<String>,
    /// The differs of the diff service, in order; empty where it is not told.
    pub differs: Vec<String>,
    /// The names of the stream processors.
    pub processors: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file_version: 2,
            root: PathBuf::from(ROOT),
            socket: PathBuf::from(SOCKET),
            disabled: Vec::new(),
            required: Vec::new(),
            proxies: BTreeMap::new(),
            hosts: String::new(),
            hosts_from: None,
            hosts_unread: Vec::new(),
            mirrors: Vec::new(),
            tls: Vec::new(),
            differs: Vec::new(),
            processors: Vec::new(),
        }
    }
}

/// A file that containerd could not read either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no valid TOML: {problem}", path.display())]
pub struct Faulty {
    /// Which one.
    pub path: PathBuf,
    /// What the parser says, with the line.
    pub problem: String,
}

impl Settings {
    /// What these files come to, in the order in which containerd reads them; the first is the main one. Without any,
    /// containerd has its defaults.
    ///
    /// # Errors
    /// That a file is no TOML.
    pub fn read(files: &[File], version: Option<Version>) -> Result<Self, Faulty> {
        let mut settings = Self::default();
        for (index, file) in files.iter().enumerate() {
            let table = parse(file)?;
            // An imported file without a version is read as the main one is.
            let own = if index == 0 || table.contains_key("version") {
                file_version(&table)
            } else {
                settings.file_version
            };
            if index == 0 {
                settings.file_version = own;
            }
            // Nothing but 2.x takes a file of version 3.
            let is_2 = version.map_or(settings.file_version > 2, Version::is_2);
            settings.merge(file, &table, own, is_2);
        }
        Ok(settings)
    }

    /// The folders in `config_path`, which are looked through in order; some parts of containerd take only a single one.
    pub fn hosts_folders(&self) -> Vec<&str> {
        self.hosts.split(':').filter(|folder| !folder.is_empty()).collect()
    }

    /// The folders with hosts that this containerd looks through, those that it has by itself included (from 2.2 on).
    pub fn folders_that_are_read(&self, version: Option<Version>) -> Vec<&str> {
        let has_its_own = version.is_some_and(|version| version >= Version { major: 2, minor: 2 });
        match self.hosts.is_empty() && has_its_own {
            true => vec![HOSTS, DOCKERS_HOSTS],
            false => self.hosts_folders(),
        }
    }

    /// Where the builtin content store keeps its blobs.
    pub fn builtin_blobs(&self) -> PathBuf {
        self.root.join(BUILTIN_STORE).join("blobs")
    }

    /// Whether the builtin content store is out of use.
    pub fn builtin_disabled(&self) -> bool {
        self.disabled.iter().any(|name| name == BUILTIN_STORE)
    }

    /// Whether the part that has the registries is out of use.
    pub fn cri_disabled(&self) -> bool {
        self.disabled.iter().any(|name| name == CRI || name == CRI_IMAGES)
    }

    /// The proxies that are content stores.
    pub fn stores(&self) -> impl Iterator<Item = (&String, &Proxy)> {
        self.proxies.iter().filter(|(_, proxy)| proxy.kind == "content")
    }

    fn merge(&mut self, file: &File, table: &Table, version: i64, is_2: bool) {
        if let Some(root) = text(table, &["root"]) {
            self.root = PathBuf::from(root);
        }
        let server = ["plugins", "io.containerd.server.v1.grpc", "address"];
        if let Some(socket) = text(table, &["grpc", "address"]).or_else(|| text(table, &server)) {
            self.socket = PathBuf::from(socket);
        }
        for (key, list) in
            [("disabled_plugins", &mut self.disabled), ("required_plugins", &mut self.required)]
        {
            for name in texts(table, &[key]) {
                let name = full_name(&name, version);
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        }
        for (name, proxy) in tables(table, &["proxy_plugins"]) {
            let word = |key| text(proxy, &[key]).unwrap_or_default().to_owned();
            self.proxies.insert(name.clone(), Proxy { kind: word("type"), address: word("address") });
        }
        for (name, _) in tables(table, &["stream_processors"]) {
            if !self.processors.contains(name) {
                self.processors.push(name.clone());
            }
        }
        self.merge_registry(file, table, version, is_2);
        if let Some(Value::Table(_)) = at(table, &["plugins", DIFF_SERVICE]) {
            let differs = texts(table, &["plugins", DIFF_SERVICE, "default"]);
            if !is_2 || !differs.is_empty() {
                self.differs = differs;
            }
        }
    }

    fn merge_registry(&mut self, file: &File, table: &Table, version: i64, is_2: bool) {
        let read = registry_plugins(version, is_2);
        for name in ["cri", CRI, CRI_IMAGES] {
            let here = ["plugins", name];
            let Some(Value::Table(plugin)) = at(table, &here) else { continue };
            let path = text(plugin, &["registry", "config_path"]).unwrap_or_default();
            if !read.contains(&name) {
                if !path.is_empty() {
                    self.hosts_unread.push((name.to_owned(), path.to_owned()));
                }
                continue;
            }
            if !is_2 {
                self.hosts = String::new();
                self.mirrors.clear();
                self.tls.clear();
            }
            if !path.is_empty() {
                self.hosts = path.to_owned();
                self.hosts_from = Some(file.path.clone());
            }
            self.mirrors.extend(tables(plugin, &["registry", "mirrors"]).map(|(name, _)| name.clone()));
            let configs = tables(plugin, &["registry", "configs"]);
            let tls = configs.filter(|(_, config)| config.contains_key("tls"));
            self.tls.extend(tls.map(|(name, _)| name.clone()));
        }
    }
}

/// The plugins whose `registry` a file of this version is read for, the strongest last.
fn registry_plugins(version: i64, is_2: bool) -> &'static [&'static str] {
    match (version, is_2) {
        // A file without a version is of version 1, in which the full name is nobody's; 2.x reads neither there.
        (..=1, false) => &["cri"],
        (..=1, true) => &[],
        // 1.6 takes one of version 3 for one of version 2, 1.7 none at all.
        (2.., false) => &[CRI],
        (2, true) => &[CRI_IMAGES, CRI],
        (3.., true) => &[CRI_IMAGES],
    }
}

/// The plugin that has the registries, for a file of this version.
pub fn registry_plugin(version: i64) -> &'static str {
    match version {
        ..=1 => "cri",
        2 => CRI,
        3.. => CRI_IMAGES,
    }
}

/// A plugin's name in files of version 2. In those of version 1 it has a short one (`v1MigratePluginName`).
pub fn full_name(name: &str, version: i64) -> String {
    if version > 1 || name.contains('.') {
        return name.to_owned();
    }
    let kind = match name {
        "cgroups" => "monitor.v1",
        "linux" => "runtime.v1",
        "scheduler" => "gc.v1",
        "bolt" => "metadata.v1",
        "task" => "runtime.v2",
        "opt" | "restart" | "tracing" => "internal.v1",
        "otlp" => "tracing.processor.v1",
        "aufs" | "btrfs" | "devmapper" | "native" | "overlayfs" | "zfs" => "snapshotter.v1",
        name if name.ends_with("-service") => "service.v1",
        _ => "grpc.v1",
    };
    format!("io.containerd.{kind}.{name}")
}

/// The files that a file imports, as absolute paths, which may have wildcards. None where it is no TOML.
pub fn import_patterns(path: &Path, text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<Table>() else { return Vec::new() };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let absolute = texts(&table, &["imports"]).into_iter().map(|import| clean(&folder.join(import)));
    absolute.map(|path| path.display().to_string()).collect()
}

/// A path without `.` and `..`, as Go's `filepath.Clean` makes it.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                cleaned.pop();
            }
            std::path::Component::Normal(name) => cleaned.push(name),
            _ => {}
        }
    }
    cleaned
}

fn parse(file: &File) -> Result<Table, Faulty> {
    let faulty = |error: toml::de::Error| Faulty { path: file.path.clone(), problem: error.to_string() };
    file.text.parse::<Table>().map_err(faulty)
}

/// The version that a file says it has, or else 1.
pub fn file_version(table: &Table) -> i64 {
    table.get("version").and_then(Value::as_integer).filter(|version| *version > 0).unwrap_or(1)
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() { Some(value) } else { at(value.as_table()?, rest) }
}

fn text<'t>(table: &'t Table, path: &[&str]) -> Option<&'t str> {
    at(table, path)?.as_str().filter(|text| !text.is_empty())
}

fn texts(table: &Table, path: &[&str]) -> Vec<String> {
    let values = at(table, path).and_then(Value::as_array).into_iter().flatten();
    values.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn tables<'t>(table: &'t Table, path: &[&str]) -> impl Iterator<Item = (&'t String, &'t Table)> {
    let entries = at(table, path).and_then(Value::as_table).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name, value.as_table()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_7: Version = Version { major: 1, minor: 7 };
    const V2_1: Version = Version { major: 2, minor: 1 };

    fn read(texts: &[&str], version: Version) -> Settings {
        let file = |(index, text): (usize, &&str)| File {
            path: PathBuf::from(format!("/{index}.toml")),
            text: (*text).to_owned(),
        };
        Settings::read(&texts.iter().enumerate().map(file).collect::<Vec<_>>(), Some(version)).unwrap()
    }

    #[test]
    fn versions_are_read_from_what_programs_print() {
        let v = |major, minor| Some(Version { major, minor });
        let printed = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3";
        assert_eq!(Version::of_program(printed), v(1, 6));
        assert_eq!(Version::of_program("containerd github.com/containerd/containerd/v2 v2.1.9 abc"), v(2, 1));
        assert_eq!(
            Version::of_program("containerd github.com/containerd/containerd/v2 2.1.9+unknown "),
            v(2, 1)
        );
        assert_eq!(Version::of_program("containerd containerd.io 1.7.27 05044ec0a9a7"), v(1, 7));
        assert_eq!(Version::parse("v2.2.0-rc.1"), v(2, 2));
        assert_eq!(Version::parse("2"), None);
    }

    #[test]
    fn a_containerd_that_is_told_nothing_has_its_defaults() {
        assert_eq!(Settings::read(&[], None).unwrap(), Settings::default());
        assert_eq!(
            Settings::default().builtin_blobs(),
            Path::new("/var/lib/containerd/io.containerd.content.v1.content/blobs")
        );
    }

    #[test]
    fn the_hosts_are_read_under_the_name_that_goes_with_the_file() {
        let v2 = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/a\"\n";
        let v3 = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = \"/a\"\n";
        let v1 = "[plugins.cri.registry]\nconfig_path = \"/a\"\n";
        for (text, version) in [(v2, V1_7), (v2, V2_1), (v3, V2_1), (v1, V1_7)] {
            let settings = read(&[text], version);
            assert_eq!(settings.hosts, "/a", "{text}");
            assert_eq!(settings.hosts_from.as_deref(), Some(Path::new("/0.toml")));
            assert!(settings.hosts_unread.is_empty());
        }
        let unversioned = v2.replace("version = 2\n", "");
        for version in [V1_7, V2_1] {
            let settings = read(&[&unversioned], version);
            assert_eq!((settings.file_version, settings.hosts.as_str()), (1, ""), "{version}");
            assert_eq!(settings.hosts_unread.len(), 1);
            assert_eq!(read(&["version = 2\n", &unversioned], version).hosts, "/a");
        }
        let wrong = v2.replace('2', "3");
        let settings = read(&[&wrong], V2_1);
        assert_eq!(settings.hosts, "");
        assert_eq!(settings.hosts_unread, [("io.containerd.grpc.v1.cri".to_owned(), "/a".to_owned())]);
    }

    #[test]
    fn an_imported_plugin_replaces_the_whole_table_before_2_0_and_its_keys_since() {
        let main = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/a\"\n";
        let more = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n";
        assert_eq!(read(&[main, more], V1_7).hosts, "");
        assert_eq!(read(&[main, more], V2_1).hosts, "/a");
        let other = main.replace("/a", "/b:/c");
        for version in [V1_7, V2_1] {
            let settings = read(&[main, &other], version);
            assert_eq!(settings.hosts_folders(), ["/b", "/c"]);
            assert_eq!(settings.hosts_from.as_deref(), Some(Path::new("/1.toml")));
        }
    }

    #[test]
    fn lists_grow_and_proxies_are_told_apart_by_their_names() {
        let main = "version = 2\ndisabled_plugins = [\"io.containerd.content.v1.content\"]\n\
                    [proxy_plugins]\nx = { type = \"content\", address = \"/x.sock\" }\n";
        let more = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[proxy_plugins.y]\ntype = \"diff\"\n";
        let settings = read(&[main, more], V1_7);
        assert_eq!(settings.disabled, ["io.containerd.content.v1.content", "io.containerd.grpc.v1.cri"]);
        assert!(settings.builtin_disabled());
        assert_eq!(settings.stores().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(settings.proxies["y"], Proxy { kind: "diff".to_owned(), address: String::new() });
    }

    #[test]
    fn what_rules_out_a_config_path_is_seen() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n\
                    endpoint = [\"https://x\"]\n\
                    [plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"a.b\".tls]\nca_file = \"x\"\n";
        let settings = read(&[text], V1_7);
        assert_eq!(settings.mirrors, ["docker.io"]);
        assert_eq!(settings.tls, ["a.b"]);
        let faulty = File { path: PathBuf::from("/x"), text: "a = ".to_owned() };
        assert!(Settings::read(&[faulty], None).unwrap_err().to_string().starts_with("/x is no valid TOML"));
    }
}
