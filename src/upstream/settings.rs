//! What the configuration says about upstreams, and where each registry's API therefore stands.
//!
//! Refuses to know how a request is sent. Invariant: every listed address was checked when the settings were taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::asked::Kind;
use super::asker::Credential;
use super::failure::{Failure, Forbidden};
use super::logins::Credentials;
use super::reach::Reach;
use crate::oci::{Registry, Repository};

/// Which registries may be asked, where they stand, and how long they may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether registries that are not listed may be asked, as long as their addresses are public.
    pub allow_any: bool,
    /// The registries that the configuration names.
    pub listed: BTreeMap<Registry, Listed>,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// Most bytes a second of all blobs together, where there is a limit.
    pub bandwidth: Option<u64>,
}

/// What the configuration says about one registry.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Where its API is, without `/v2/`, in order of preference: the last one is the registry itself, the ones before
    /// it are mirrors of it. Plain http only as written here.
    pub urls: Vec<Url>,
    /// A file in docker's format with the hold's own logins.
    pub credentials: Option<PathBuf>,
}

/// How long each part of a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Finding, reaching and agreeing on TLS with a host.
    pub connect: Duration,
    /// From asking to the head of the answer, connecting included.
    pub headers: Duration,
    /// The same for an upstream that another one follows, redirects and tokens included.
    pub mirror: Duration,
    /// For all of these together: the registry itself is to have time left.
    pub mirrors: Duration,
    /// From one chunk of a body to the next; for a manifest or a token, the whole body.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            headers: Duration::from_secs(10),
            mirror: Duration::from_secs(4),
            mirrors: Duration::from_secs(5),
            idle: Duration::from_secs(10),
        }
    }
}

/// An address in the settings that can't be the base of a registry's API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the upstream of {registry} can't be {url}: {why}")]
pub struct SettingsError {
    /// Whose address it is.
    pub registry: Registry,
    /// The address, with nothing secret in it.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Settings {
    /// Takes the settings once every address in them makes sense.
    pub(super) fn checked(self) -> Result<Self, SettingsError> {
        for (registry, url) in self
            .listed
            .iter()
            .flat_map(|(registry, listed)| listed.urls.iter().map(move |url| (registry, url)))
        {
            let why = if !matches!(url.scheme(), "http" | "https") {
                "it must begin with https:// or http://"
            } else if url.host().is_none() {
                "it names no host"
            } else if !url.username().is_empty() || url.password().is_some() {
                "credentials do not belong in an address"
            } else if url.query().is_some() || url.fragment().is_some() {
                "it is the base of an API, and can have neither a query nor a fragment"
            } else {
                continue;
            };
            let mut url = url.clone();
            // An address without a host has no credentials to remove either.
            let _ = url.set_password(None);
            let _ = url.set_username("");
            url.set_query(None);
            return Err(SettingsError { registry: registry.clone(), url: url.into(), why });
        }
        Ok(self)
    }

    /// The logins that the configuration names.
    pub(super) fn credentials(&self) -> Credentials {
        let files = self.listed.iter().filter_map(|(name, listed)| {
            Some((name.clone(), listed.urls.last()?.origin(), listed.credentials.clone()?))
        });
        Credentials::new(files, std::env::var_os("PATH").unwrap_or_default())
    }

    /// Where this registry's API is, in order of preference; at least one.
    pub(super) fn upstreams(&self, registry: &Registry) -> Result<Vec<Upstream>, Failure> {
        if let Some(listed) = self.listed.get(registry)
            && let Some(home) = listed.urls.last()
        {
            let upstream = |url: &Url| Upstream {
                base: url.clone(),
                reach: Reach::Anywhere,
                role: if url == home { Role::Home } else { Role::Mirror },
            };
            return Ok(listed.urls.iter().map(upstream).collect());
        }
        if !self.allow_any {
            return Err(Forbidden::NotListed(registry.clone()).into());
        }
        let host =
            if *registry == Registry::docker_hub() { "registry-1.docker.io" } else { registry.as_str() };
        let base = Url::parse(&format!("https://{host}"))
            .map_err(|error| Failure::unusable(format!("{registry} is no host: {error}")))?;
        Ok(vec![Upstream { base, reach: Reach::Public, role: Role::Home }])
    }
}

/// Which part an upstream has for a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the registry: what it says holds, and its clients' tokens are for it.
    Home,
    /// It may have what the registry has, and is asked before it.
    Mirror,
}

/// Where a registry's API stands, and how far a request to it may go.
#[derive(Debug)]
pub(super) struct Upstream {
    /// The base of the API.
    pub(super) base: Url,
    /// Which part it has.
    pub(super) role: Role,
    /// A listed one may stand anywhere.
    pub(super) reach: Reach,
}

impl Upstream {
    /// Whether it is asked for somebody: a client's token is for the registry itself.
    pub(super) fn answers(&self, credential: &Credential, only_registry: bool) -> bool {
        match (self.role, credential) {
            (Role::Home, _) => true,
            (Role::Mirror, Credential::Anonymous | Credential::Own) => !only_registry,
            (Role::Mirror, Credential::Client(_)) => false,
        }
    }

    /// The address of something in a repository (OCI distribution specification, "Endpoints").
    pub(super) fn address(&self, repository: &Repository, kind: &Kind) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/');
        let base = base.strip_suffix("/v2").unwrap_or(base);
        let name = repository.name();
        let path = match kind {
            Kind::Manifest(reference) => format!("{base}/v2/{name}/manifests/{reference}"),
            Kind::Blob(digest) => format!("{base}/v2/{name}/blobs/{digest}"),
            Kind::List(list) => format!("{base}/v2/{name}/{}", list.path()),
            Kind::Token | Kind::Login => format!("{base}/v2/"),
        };
        url.set_path(&path);
        if let Kind::List(list) = kind
            && let parameters = list.parameters()
            && !parameters.is_empty()
        {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow_any: bool, listed: &[(&str, &str)]) -> Settings {
        let listed = listed
            .iter()
            .map(|(name, url)| {
                (name.parse().unwrap(), Listed { urls: vec![url.parse().unwrap()], credentials: None })
            })
            .collect();
        Settings { allow_any, listed, timeouts: Timeouts::default(), bandwidth: None }
    }

    fn address(settings: &Settings, registry: &str, name: &str) -> String {
        let repository = Repository::new(registry.parse().unwrap(), name).unwrap();
        let kind = Kind::Manifest("latest".parse().unwrap());
        settings.upstreams(repository.registry()).unwrap()[0].address(&repository, &kind).into()
    }

    #[test]
    fn an_unlisted_registry_is_asked_over_https_by_its_own_name() {
        let settings = settings(true, &[]);
        assert_eq!(
            address(&settings, "docker.io", "nginx"),
            "https://registry-1.docker.io/v2/library/nginx/manifests/latest"
        );
        assert_eq!(address(&settings, "quay.io", "a/b"), "https://quay.io/v2/a/b/manifests/latest");
        assert_eq!(address(&settings, "[2a00::1]:5000", "a"), "https://[2a00::1]:5000/v2/a/manifests/latest");
        assert_eq!(settings.upstreams(&"quay.io".parse().unwrap()).unwrap()[0].reach, Reach::Public);
    }

    #[test]
    fn a_listed_registry_is_asked_where_it_was_written_to_stand() {
        let settings = settings(
            false,
            &[("a.io", "http://10.0.0.1:5000"), ("b.io", "https://m/x/"), ("c.io", "https://m/v2/")],
        );
        assert_eq!(address(&settings, "a.io", "r"), "http://10.0.0.1:5000/v2/r/manifests/latest");
        assert_eq!(address(&settings, "b.io", "r"), "https://m/x/v2/r/manifests/latest");
        assert_eq!(address(&settings, "c.io", "r"), "https://m/v2/r/manifests/latest");
    }

    #[test]
    fn an_unlisted_registry_is_refused_by_name_of_the_key_to_add() {
        let refused = settings(false, &[]).upstreams(&"ghcr.io".parse().unwrap()).unwrap_err();
        assert!(matches!(refused, Failure::Forbidden(Forbidden::NotListed(_))));
        assert!(refused.to_string().contains("[registries.\"ghcr.io\"]"), "{refused}");
    }

    #[test]
    fn addresses_that_are_no_base_of_an_api_are_refused_without_their_secrets() {
        for url in ["ftp://x", "file:///x", "https://u:secret@x", "https://x?y", "https://x#y", "data:x"] {
            let error = settings(true, &[("a.io", url)]).checked().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(settings(true, &[("a.io", "http://[::1]:5000/x/")]).checked().is_ok());
    }
}
