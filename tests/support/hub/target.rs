//! What a request is about, read from its path alone. It knows the shape of addresses and nothing of what is there.

use http::Method;

use super::fault::Kind;

/// Which of the three a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Registry,
    Token,
    Cdn,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Token => "token",
            Self::Cdn => "cdn",
        }
    }

    /// The listener on which a kind of request arrives.
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::ManifestHead | Kind::ManifestGet | Kind::Blob | Kind::List => Self::Registry,
            Kind::Cdn => Self::Cdn,
            Kind::Token => Self::Token,
        }
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/v2/`.
    Ping,
    /// A manifest, by tag or by digest.
    Manifest { repository: String, reference: String },
    /// A blob at the registry.
    Blob { repository: String, digest: String },
    /// The tags of a repository.
    Tags { repository: String },
    /// What refers to a manifest.
    Referrers { repository: String, subject: String },
    /// A blob at the CDN.
    CdnBlob { digest: String, expires: String, signature: String },
    /// The token endpoint.
    Token,
    /// `/_hub/…`: the stand-in's own, with what follows.
    Admin(String),
    /// Anything else.
    Unknown,
}

impl Target {
    pub(super) fn read(role: Role, path: &str, query: &str) -> Self {
        match role {
            Role::Registry => Self::at_registry(path),
            Role::Token if path == "/token" => Self::Token,
            Role::Token => Self::Unknown,
            Role::Cdn => Self::at_cdn(path, query),
        }
    }

    fn at_registry(path: &str) -> Self {
        if let Some(rest) = path.strip_prefix("/_hub/") {
            return Self::Admin(rest.to_owned());
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Self::Unknown };
        let decoded = rest.replace("%3A", ":").replace("%3a", ":");
        if decoded.is_empty() {
            Self::Ping
        } else if let Some((repository, reference)) = decoded.rsplit_once("/manifests/") {
            Self::Manifest { repository: repository.to_owned(), reference: reference.to_owned() }
        } else if let Some((repository, digest)) = decoded.rsplit_once("/blobs/") {
            Self::Blob { repository: repository.to_owned(), digest: digest.to_owned() }
        } else if let Some(repository) = decoded.strip_suffix("/tags/list") {
            Self::Tags { repository: repository.to_owned() }
        } else if let Some((repository, subject)) = decoded.rsplit_once("/referrers/") {
            Self::Referrers { repository: repository.to_owned(), subject: subject.to_owned() }
        } else {
            Self::Unknown
        }
    }

    fn at_cdn(path: &str, query: &str) -> Self {
        let hex = path.strip_prefix(CDN_PREFIX).and_then(|rest| rest.strip_suffix("/data"));
        let Some((_, hex)) = hex.and_then(|rest| rest.split_once('/')) else { return Self::Unknown };
        let parameter = |name| super::target::parameter(query, name).unwrap_or_default();
        Self::CdnBlob {
            digest: format!("sha256:{hex}"),
            expires: parameter("expires"),
            signature: parameter("signature"),
        }
    }

    /// The kind of fault that such a request can meet.
    pub(super) fn kind(&self, role: Role, method: &Method) -> Option<Kind> {
        match (role, self) {
            (Role::Cdn, _) => Some(Kind::Cdn),
            (Role::Token, _) => Some(Kind::Token),
            (Role::Registry, Self::Manifest { .. }) if *method == Method::HEAD => Some(Kind::ManifestHead),
            (Role::Registry, Self::Manifest { .. }) => Some(Kind::ManifestGet),
            (Role::Registry, Self::Blob { .. }) => Some(Kind::Blob),
            (Role::Registry, Self::Tags { .. } | Self::Referrers { .. }) => Some(Kind::List),
            (Role::Registry, _) => None,
        }
    }
}

const CDN_PREFIX: &str = "/registry-v2/docker/registry/v2/blobs/sha256/";

/// Where the CDN keeps a blob: path and query.
pub(super) fn cdn_path(digest: &str, expires: u64, signature: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    let shard = hex.get(..2).unwrap_or_default();
    format!("{CDN_PREFIX}{shard}/{hex}/data?expires={expires}&signature={signature}")
}

/// The first value of a parameter of a query.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query, name).next()
}

/// Every value of a parameter of a query.
pub(super) fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    url::form_urlencoded::parse(query.as_bytes())
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
