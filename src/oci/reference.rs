//! Names: registries, repositories, tags and whole references (OCI distribution specification, "Pull").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::Digest;

/// The name Docker Hub goes by in references; its API host is another.
const DOCKER_HUB: &str = "docker.io";

/// A registry as references name it: a host, with a port where it is not the scheme's own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(Arc<str>);

impl Registry {
    /// Docker Hub, what a reference without a registry means.
    pub fn docker_hub() -> Self {
        Self(DOCKER_HUB.into())
    }

    /// Whether a path's first part names a registry rather than a repository of Docker Hub: the rule of
    /// docker's reference grammar.
    pub fn looks_like_one(part: &str) -> bool {
        part.contains(['.', ':']) || part == "localhost"
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Registry {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::Registry(shortened(text));
        let name = text.to_ascii_lowercase();
        let (host, port) = match name.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or_else(refuse)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| refuse())?;
                (None, after.strip_prefix(':').or((!after.is_empty()).then_some("?")))
            }
            None => match name.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(name.as_str()), None),
            },
        };
        if let Some(host) = host {
            let label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            };
            if host.len() > 253 || !host.split('.').all(label) {
                return Err(refuse());
            }
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(refuse());
        }
        // Docker Hub's other host names mean the same registry.
        Ok(match name.as_str() {
            "index.docker.io" | "registry-1.docker.io" => Self::docker_hub(),
            _ => Self(name.into()),
        })
    }
}

/// A repository in a registry: all that the manifests and blobs of an image are asked under.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: Registry,
    name: Arc<str>,
}

impl Repository {
    /// A repository by its name in the registry. Docker Hub's own images stand under `library/`, which people
    /// leave out: it is put back.
    ///
    /// # Errors
    /// When the name is outside the grammar of the distribution specification.
    pub fn new(registry: Registry, name: &str) -> Result<Self, NameError> {
        let full = if registry == Registry::docker_hub() && !name.contains('/') {
            format!("library/{name}")
        } else {
            name.to_owned()
        };
        if full.len() > 255 || !full.split('/').all(is_name_component) {
            return Err(NameError::Repository(shortened(name)));
        }
        Ok(Self { registry, name: full.into() })
    }

    /// The registry it is in.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its name in the registry, such as `library/nginx`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, the specification's path component.
fn is_name_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut after_alphanumeric = false;
    for character in component.chars() {
        match character {
            'a'..='z' | '0'..='9' => {
                let joined = separator.is_empty()
                    || matches!(separator.as_str(), "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-');
                if !joined {
                    return false;
                }
                separator.clear();
                after_alphanumeric = true;
            }
            '.' | '_' | '-' if after_alphanumeric => separator.push(character),
            _ => return false,
        }
    }
    after_alphanumeric && separator.is_empty()
}

/// A tag: a name that its registry may move from one manifest to another.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts = text.bytes().next().is_some_and(word);
        if !starts || text.len() > 128 || !text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
        {
            return Err(NameError::Tag(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

/// What the last part of a manifest's address names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reference {
    /// A tag, to be resolved.
    Tag(Tag),
    /// A digest, which is its own answer.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // A tag cannot hold a colon and a digest must.
        if text.contains(':') {
            return text.parse().map(Self::Digest).map_err(|_| NameError::Digest(shortened(text)));
        }
        text.parse().map(Self::Tag)
    }
}

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a host with an optional port.
    #[error("{0:?} is not a registry: write a host name, with a port where it needs one")]
    Registry(String),
    /// Outside the grammar of repository names.
    #[error(
        "{0:?} is not a repository name: lower-case letters, digits and single separators, in parts joined by /"
    )]
    Repository(String),
    /// Outside the grammar of tags.
    #[error("{0:?} is not a tag: up to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'")]
    Tag(String),
    /// It has a colon but is no digest.
    #[error("{0:?} is not a digest: write sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
}

/// What of a stranger's text goes into an error.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

macro_rules! display_as {
    ($type:ty, |$self:ident, $f:ident| $body:expr) => {
        impl fmt::Display for $type {
            fn fmt(&$self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $body
            }
        }
    };
}

display_as!(Registry, |self, f| f.write_str(&self.0));
display_as!(Repository, |self, f| write!(f, "{}/{}", self.registry, self.name));
display_as!(Tag, |self, f| f.write_str(&self.0));
display_as!(Reference, |self, f| match self {
    Self::Tag(tag) => tag.fmt(f),
    Self::Digest(digest) => digest.fmt(f),
});

macro_rules! debug_as_display {
    ($($type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

debug_as_display!(Registry, Repository, Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hubs_short_names_get_their_library() {
        let hub = Registry::docker_hub();
        assert_eq!(Repository::new(hub.clone(), "nginx").unwrap().name(), "library/nginx");
        assert_eq!(Repository::new(hub, "grafana/loki").unwrap().name(), "grafana/loki");
        let quay: Registry = "quay.io".parse().unwrap();
        assert_eq!(Repository::new(quay, "nginx").unwrap().to_string(), "quay.io/nginx");
    }

    #[test]
    fn docker_hub_has_one_name() {
        for alias in ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"] {
            assert_eq!(alias.parse::<Registry>().unwrap(), Registry::docker_hub());
        }
    }

    #[test]
    fn registries_are_hosts_with_ports() {
        for good in ["ghcr.io", "localhost:5000", "10.0.0.1", "[::1]:5000", "[::1]", "my_host.internal"] {
            assert!(good.parse::<Registry>().is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "a b",
            "http://x",
            "host:",
            "host:port",
            "host:99999",
            "host:0",
            "-host",
            "host-.io",
            "x/y",
            "..",
            "[::1",
            "[x]",
            "a@b",
            "[::1]x",
        ] {
            assert!(bad.parse::<Registry>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn repository_names_follow_the_specification() {
        let registry: Registry = "quay.io".parse().unwrap();
        for good in ["a", "a/b/c", "a.b", "a_b", "a__b", "a-b", "a--b", "0/1", "library/nginx"] {
            assert!(Repository::new(registry.clone(), good).is_ok(), "{good} was refused");
        }
        let long = "a".repeat(256);
        for bad in
            ["", "/", "a/", "/a", "A", "a..b", "a___b", "-a", "a-", "a._b", "a b", "../a", "a/../b", &long]
        {
            assert!(Repository::new(registry.clone(), bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn references_are_tags_or_digests() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!(matches!(Digest::of(b"").as_str().parse(), Ok(Reference::Digest(_))));
        for bad in ["", ".x", "-x", "a b", "sha256:short", "a/b", &"t".repeat(129)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was taken");
        }
    }
}
