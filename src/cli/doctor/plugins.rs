//! What a running containerd says of its own parts, held against its configuration: is its content store ours, and only
//! ours?
//!
//! A containerd that keeps its own store on purpose and only pulls through the mirror is as good as one that does not.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::Plugin;
use tidehold::node::containerd::{BUILTIN_STORE, METADATA, Settings, Version};

use super::super::plugins::BUILTIN;
use super::finding::{Finding, bad, ok, warn};
use super::lines::{Place, SETUP};

/// The parts of CRI, since 2.0.
const CRI_PARTS: &str = "io.containerd.cri.v1";

/// What there is to judge by.
pub(super) struct Facts<'a> {
    pub(super) version: Option<Version>,
    pub(super) plugins: &'a [Plugin],
    /// What its files come to, where they could be read.
    pub(super) settings: Option<&'a Settings>,
    /// Its configuration's main file, and what restarts it.
    pub(super) place: Place<'a>,
    /// The daemon's content sockets, by the names of their tables.
    pub(super) ours: &'a [(String, PathBuf)],
    /// Whether any `hosts.toml` names the mirror.
    pub(super) mirrored: bool,
    /// Whether a setup of it was taken back, of which something is left to do.
    pub(super) leaving: bool,
    /// Whether this node has a kubelet.
    pub(super) kubernetes: bool,
    /// How many blobs its own store has that the hold has not, where it is about to lose that store.
    pub(super) not_taken: u64,
}

/// All that its plugins tell.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = stores(facts);
    findings.extend(metadata(facts));
    if facts.proxies().any(|plugin| facts.name_of(plugin).is_some()) {
        findings.extend(required(facts));
        findings.extend(differ(facts));
    }
    findings.extend(cri(facts));
    findings
}

impl<'a> Facts<'a> {
    fn stores(&self) -> impl Iterator<Item = &'a Plugin> {
        crate::cli::plugins::stores(self.plugins)
    }

    fn proxies(&self) -> impl Iterator<Item = &'a Plugin> {
        self.stores().filter(|plugin| plugin.id != BUILTIN)
    }

    /// Where the store of a proxy is: as containerd says, or as its configuration does.
    fn address_of(&self, plugin: &'a Plugin) -> Option<&'a str> {
        let said = plugin.exports.get("address").map(String::as_str);
        let written = || Some(self.settings?.proxies.get(&plugin.id)?.address.as_str());
        said.filter(|address| !address.is_empty()).or_else(written)
    }

    /// The name of the daemon's table that has the socket of this proxy.
    fn name_of(&self, plugin: &'a Plugin) -> Option<&'a str> {
        let address = Path::new(self.address_of(plugin)?);
        self.ours.iter().find(|(_, socket)| socket == address).map(|(name, _)| name.as_str())
    }

    fn socket(&self) -> String {
        self.ours.first().map_or_else(String::new, |(_, socket)| socket.display().to_string())
    }

    fn config(&self) -> String {
        self.place.config.display().to_string()
    }

    fn restart(&self) -> &'a str {
        self.place.restart
    }

    fn entry(&self) -> String {
        format!("  [proxy_plugins.tidehold]\n    type = \"content\"\n    address = \"{}\"", self.socket())
    }

    /// Whether the files have what the running containerd has not.
    pub(super) fn is_behind(&self) -> bool {
        let wanted = self.settings.is_some_and(|settings| {
            settings
                .stores()
                .any(|(_, proxy)| self.ours.iter().any(|(_, own)| own == Path::new(&proxy.address)))
        });
        wanted && !self.proxies().any(|plugin| self.name_of(plugin).is_some())
    }
}

fn stores(facts: &Facts<'_>) -> Vec<Finding> {
    let config = facts.config();
    let builtin = facts.stores().any(|plugin| plugin.id == BUILTIN);
    let proxies: Vec<_> = facts.proxies().collect();
    let mut findings = Vec::new();
    if facts.is_behind() && facts.not_taken > 0 {
        findings.push(bad(
            "containerd.restart",
            format!(
                "{config} makes Tidehold its content store, and it has not been started again since; meanwhile it has put into \
                 its own store {} blobs that are not in Tidehold, and would lose them",
                facts.not_taken
            ),
            format!("tidehold adopt\nand only then: {}", facts.restart()),
        ));
        return findings;
    }
    if facts.is_behind() {
        findings.push(bad(
            "containerd.restart",
            format!("{config} makes Tidehold its content store, and it has not been started again since"),
            facts.restart(),
        ));
        return findings;
    }
    match proxies.as_slice() {
        [] if builtin && facts.mirrored => findings.push(ok(
            "containerd.mirror-only",
            "mirror only: it keeps its content in a store of its own, and pulls through Tidehold",
        )),
        // Of the setup's end more is said elsewhere.
        [] if builtin && facts.leaving => {}
        [] if builtin => findings.push(bad(
            "containerd.not-set-up",
            "its content store is its own, and nothing sends its pulls through Tidehold",
            SETUP,
        )),
        [] => findings.push(bad(
            "containerd.no-store",
            "it has no content store at all",
            format!("{}\nor take {BUILTIN_STORE:?} out of disabled_plugins", facts.place.put(&facts.entry())),
        )),
        [one] => findings.push(store(facts, one)),
        [_, _, ..] => {
            let names: Vec<_> = proxies.iter().map(|plugin| plugin.id.as_str()).collect();
            findings.push(bad(
                "containerd.stores",
                format!("it has {} content stores that are proxies ({})", names.len(), names.join(", ")),
                format!(
                    "leave one [proxy_plugins.…] of type \"content\" in {config}, and restart it ({})",
                    facts.restart()
                ),
            ));
        }
    }
    if builtin && !proxies.is_empty() {
        let so = if facts.version.is_some_and(|version| !version.is_2()) {
            "it takes one of the two at random at each start"
        } else {
            "it can use neither"
        };
        findings.push(bad(
            "containerd.builtin",
            format!("its own content store is enabled beside the proxy: {so}"),
            facts.place.put(&format!("  disabled_plugins = [{BUILTIN_STORE:?}]")),
        ));
    }
    findings
}

fn store(facts: &Facts<'_>, plugin: &Plugin) -> Finding {
    let proxy = &plugin.id;
    let address = facts.address_of(plugin).unwrap_or("nowhere");
    match facts.name_of(plugin) {
        Some(name) => ok(
            "containerd.store",
            format!("its content store is Tidehold, as {name:?}: [proxy_plugins.{proxy}]"),
        ),
        None => {
            let served: Vec<_> = facts.ours.iter().map(|(_, socket)| socket.display().to_string()).collect();
            bad(
                "containerd.address",
                format!(
                    "[proxy_plugins.{proxy}] names {address}, which is no content socket of the daemon ({})",
                    served.join(", ")
                ),
                facts.place.put(&format!(
                    "  [proxy_plugins.{proxy}]\n    type = \"content\"\n    address = \"{}\"",
                    facts.socket()
                )),
            )
        }
    }
}

fn metadata(facts: &Facts<'_>) -> Vec<Finding> {
    let metadata = facts.plugins.iter().find(|plugin| plugin.r#type == "io.containerd.metadata.v1");
    match metadata {
        Some(plugin) if plugin.init_err.is_none() => {
            let policy = plugin.exports.get("policy").map_or("shared", String::as_str);
            let told = format!("its metadata store is loaded; between namespaces content is {policy}");
            vec![ok("containerd.metadata", told)]
        }
        Some(plugin) => vec![bad(
            "containerd.metadata",
            format!("its metadata store is not loaded, so nothing can be pulled or run: {}", problem(plugin)),
            format!("mend its content stores in {}, and restart it ({})", facts.config(), facts.restart()),
        )],
        None => vec![bad(
            "containerd.metadata",
            "its metadata store is not loaded, so nothing can be pulled or run",
            format!(
                "take {METADATA:?} out of disabled_plugins in {}, and restart it ({})",
                facts.config(),
                facts.restart()
            ),
        )],
    }
}

fn required(facts: &Facts<'_>) -> Option<Finding> {
    let settings = facts.settings?;
    if settings.required.iter().any(|name| name == METADATA) {
        return None;
    }
    Some(warn(
        "containerd.required",
        "it would start even without a content store, and only fail later",
        facts.place.put(&format!("  required_plugins = [{METADATA:?}]")),
    ))
}

fn differ(facts: &Facts<'_>) -> Option<Finding> {
    let (version, settings) = (facts.version?, facts.settings?);
    let slow = "unpacking takes several times as long as it could:";
    if !version.has_differs() {
        return settings.processors.is_empty().then(|| {
            warn(
                "containerd.differ",
                format!("{slow} 1.6 has no stream processor for layers"),
                "put the [stream_processors] of docs/containerd.md into its configuration: tidehold setup does it",
            )
        });
    }
    let ours = |address: &str| facts.ours.iter().any(|(_, own)| own == Path::new(address));
    let differ = settings.proxies.iter().find(|(_, proxy)| proxy.kind == "diff" && ours(&proxy.address));
    let socket = facts.socket();
    match differ {
        None => Some(warn(
            "containerd.differ",
            format!("{slow} Tidehold is not its differ"),
            facts.place.put(&format!(
                "  [proxy_plugins.tidehold-diff]\n    type = \"diff\"\n    address = \"{socket}\"\n  \
                 [plugins.\"io.containerd.service.v1.diff-service\"]\n    default = [\"tidehold-diff\", \"walking\"]"
            )),
        )),
        Some((name, _)) if settings.differs.first() != Some(name) => Some(warn(
            "containerd.differ",
            format!("{slow} [proxy_plugins.{name}] is there, and the diff service does not ask it first"),
            facts.place.put(&format!(
                "  [plugins.\"io.containerd.service.v1.diff-service\"]\n    default = [\"{name}\", \"walking\"]"
            )),
        )),
        Some((name, _)) => {
            Some(ok("containerd.differ", format!("Tidehold unpacks what it holds: [proxy_plugins.{name}]")))
        }
    }
}

/// Kubernetes' side of it: before 2.0 one plugin, since then several, of which the one with the old name serves the others.
fn cri(facts: &Facts<'_>) -> Option<Finding> {
    if !has_cri(facts.plugins) {
        return facts.kubernetes.then(|| {
            bad(
                "containerd.cri",
                "its CRI plugin is disabled, so kubelet and crictl get no answer (unknown service runtime.v1)",
                format!(
                    "take \"cri\", or \"io.containerd.grpc.v1.cri\", out of disabled_plugins in {}, and restart it ({})",
                    facts.config(),
                    facts.restart()
                ),
            )
        });
    }
    let parts = facts.plugins.iter().filter(|plugin| plugin.r#type == CRI_PARTS || serves_cri(plugin));
    // The one that the others depend on says why.
    let broken = parts.filter(|plugin| plugin.init_err.is_some());
    let first = broken.min_by_key(|plugin| (plugin.r#type != CRI_PARTS, plugin.id.len()));
    let Some(plugin) = first else {
        return Some(ok("containerd.cri", "its CRI plugin is loaded, for kubelet and crictl"));
    };
    let said = problem(plugin);
    let mend = if said.contains("config_path") {
        format!("see the finding on registry.mirrors, and restart it ({})", facts.restart())
    } else {
        format!("mend what it says, in {}, and restart it ({})", facts.config(), facts.restart())
    };
    let what = format!("its CRI plugin is not loaded, so kubelet and crictl get no answer: {said}");
    Some(if facts.kubernetes || said.contains("config_path") {
        bad("containerd.cri", what, mend)
    } else {
        warn("containerd.cri", what, mend)
    })
}

/// Whether Kubernetes can pull by it. Where `cri` is disabled, as docker's packages have it, 2.x still loads the parts that
/// it consists of, and nobody can ask them.
pub(super) fn has_cri(plugins: &[Plugin]) -> bool {
    plugins.iter().any(serves_cri)
}

fn serves_cri(plugin: &Plugin) -> bool {
    plugin.r#type == "io.containerd.grpc.v1" && plugin.id == "cri"
}

fn problem(plugin: &Plugin) -> &str {
    plugin.init_err.as_ref().map_or("it does not say why", |status| status.message.as_str())
}
