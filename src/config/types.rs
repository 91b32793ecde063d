//! What a checked configuration holds, with its defaults. Plain values, each documented with its unit.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use url::Url;

use super::values;

/// The name of Docker Hub in references; its registry answers at another address.
pub const DOCKER_HUB: &str = "docker.io";

/// Where Docker Hub's registry answers.
pub(super) const DOCKER_HUB_UPSTREAM: &str = "https://registry-1.docker.io";

const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A checked configuration. Its default is what an empty file gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where blobs and the index live: an absolute path.
    pub data_dir: PathBuf,
    /// The containerds on this node, at least one; no two share a name or a socket.
    pub containerds: Vec<Containerd>,
    /// The pull mirror.
    pub mirror: Mirror,
    /// The socket that the commands talk to.
    pub control: Control,
    /// The status page and the metrics.
    pub web: Web,
    /// How much may be kept.
    pub cache: Cache,
    /// How blobs are fetched.
    pub fetch: Fetch,
    /// How long a tag's digest is good for.
    pub tags: Tags,
    /// How long a client's proof that it may read a repository is good for.
    pub access: Access,
    /// Which registries may be asked, and how.
    pub registries: Registries,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/tidehold"),
            containerds: vec![Containerd::default()],
            mirror: Mirror::default(),
            control: Control::default(),
            web: Web::default(),
            cache: Cache::default(),
            fetch: Fetch::default(),
            tags: Tags::default(),
            access: Access::default(),
            registries: Registries::default(),
        }
    }
}

/// One containerd and the socket it finds its content at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// What its adoptions are recorded under: 1 to 64 of `[a-z0-9-]`.
    pub name: String,
    /// The unix socket, an absolute path of at most 107 bytes.
    pub socket: PathBuf,
    /// Whether a writer's second STAT is answered with the whole blob.
    pub handover: bool,
}

impl Default for Containerd {
    fn default() -> Self {
        Self {
            name: "system".to_owned(),
            socket: PathBuf::from("/run/tidehold/content.sock"),
            handover: true,
        }
    }
}

/// The pull mirror's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 789)) }
    }
}

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The unix socket, an absolute path of at most 107 bytes.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/tidehold/control.sock") }
    }
}

/// The listener of the status page and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
}

impl Default for Web {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7890)) }
    }
}

/// The bounds on what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Most bytes of what no containerd relies on.
    pub max_size_bytes: u64,
    /// How much of the disk stays free: beyond it, blobs are streamed and not stored.
    pub reserve_free: Reserve,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_size_bytes: 100 * GIB,
            reserve_free: Reserve::Share(Share { hundredths_of_a_percent: 500 }),
        }
    }
}

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// So many bytes, whatever the disk's size.
    Bytes(u64),
    /// A share of the disk.
    Share(Share),
}

impl Reserve {
    /// The bytes to keep free on a disk of `disk_bytes`; a share is rounded down.
    pub fn bytes_of(self, disk_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => share.of(disk_bytes),
        }
    }
}

/// A share from nothing to the whole, in steps of a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    hundredths_of_a_percent: u16,
}

impl Share {
    const WHOLE: u16 = 10_000;

    /// 0 to 10,000; nothing beyond it.
    pub fn from_hundredths_of_a_percent(hundredths: u64) -> Option<Self> {
        let hundredths = u16::try_from(hundredths).ok().filter(|hundredths| *hundredths <= Self::WHOLE);
        hundredths.map(|hundredths_of_a_percent| Self { hundredths_of_a_percent })
    }

    /// This share of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        let part = u128::from(whole) * u128::from(self.hundredths_of_a_percent) / u128::from(Self::WHOLE);
        // A share is at most the whole, so the part fits where the whole did.
        u64::try_from(part).unwrap_or(whole)
    }
}

/// How blobs are fetched from registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Whether the blobs of an image are fetched before they are asked for, once its manifest is.
    pub ahead: bool,
    /// How many of them at a time, of each registry.
    pub parallel: usize,
    /// Most connections for one large blob.
    pub connections: usize,
    /// Most bytes a second of all blobs together that come from registries; as many as come where it is not set.
    pub bandwidth: Option<u64>,
}

impl Default for Fetch {
    fn default() -> Self {
        // containerd fetches three at a time itself.
        Self { ahead: true, parallel: 3, connections: 4, bandwidth: None }
    }
}

/// How long a tag's digest is good for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tags {
    /// For tags that no rule matches.
    pub default: Ages,
    /// Tried in this order.
    pub rules: Vec<TagRule>,
}

/// Two ages of what is known of a tag; `fresh_for` is at most `stale_for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Up to this age the upstream is not asked.
    pub fresh_for: Duration,
    /// Up to this age it is served when the upstream cannot be asked.
    pub stale_for: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self { fresh_for: Duration::from_secs(1), stale_for: 30 * DAY }
    }
}

/// The ages of the tags that a pattern matches.
#[derive(Debug, Clone)]
pub struct TagRule {
    /// Searched for in the tag: unanchored unless it says otherwise.
    pub pattern: Regex,
    /// What the rule gives, completed by the default.
    pub ages: Ages,
}

impl PartialEq for TagRule {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.ages == other.ages
    }
}

/// How long a client's proof that it may read a repository is good for; `fresh_for` is at most `stale_for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Up to this age the client's registry is not asked again.
    pub fresh_for: Duration,
    /// Up to this age it is honoured while the registry cannot be asked.
    pub stale_for: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self { fresh_for: Duration::from_secs(5 * 60), stale_for: Duration::from_secs(3600) }
    }
}

/// Which registries may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registries {
    /// Whether a registry that is not listed may be asked, where it stands at a public address.
    pub allow_any: bool,
    /// The listed ones, by the name they have in references (`host` or `host:port`, lower case).
    pub listed: BTreeMap<String, Registry>,
}

impl Default for Registries {
    fn default() -> Self {
        Self { allow_any: true, listed: BTreeMap::new() }
    }
}

/// How to ask a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Where to ask, in order of preference: the last is the registry itself, those before it are its mirrors. Never
    /// empty, and none twice.
    ///
    /// `/v2/…` is appended to each: `http` or `https`, a host, no slash at the end of a path, no credentials, query
    /// or fragment.
    pub upstreams: Vec<Url>,
    /// A file in docker's format with the hold's own credentials; an absolute path, not read yet.
    pub credentials: Option<PathBuf>,
    /// Whether clients without credentials of their own may have what the hold's can read.
    pub share_private: bool,
}

impl Registry {
    /// What holds for a registry of this name where nothing was written; nothing if it is no such name.
    pub(super) fn unlisted(name: &str) -> Option<Self> {
        let address = match name {
            DOCKER_HUB => DOCKER_HUB_UPSTREAM.to_owned(),
            other if values::is_registry_name(other) => format!("https://{other}"),
            _ => return None,
        };
        let upstream = Url::parse(&address).ok()?;
        Some(Self { upstreams: vec![upstream], credentials: None, share_private: false })
    }
}
