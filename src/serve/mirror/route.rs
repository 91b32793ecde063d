//! What a path and its `ns=` ask for.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::error::Problem;
use crate::oci::{Digest, List, ListOf, Reference, Registry, Repository};
use crate::record::Kind;

/// A request that the mirror knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Repository, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<name>/tags/list` and `/v2/<name>/referrers/<digest>`
    List(Repository, List),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("-"),
            Self::Manifest(repository, Reference::Tag(tag)) => write!(f, "{repository}:{tag}"),
            Self::Manifest(repository, Reference::Digest(digest)) | Self::Blob(repository, digest) => {
                write!(f, "{repository}@{digest}")
            }
            Self::List(repository, list) => write!(f, "{repository}/{list}"),
        }
    }
}

impl Route {
    /// What is asked for, and of which repository.
    pub(super) fn what(&self) -> Option<(Kind, Repository)> {
        match self {
            Self::Base => None,
            Self::Manifest(repository, _) => Some((Kind::Manifest, repository.clone())),
            Self::Blob(repository, _) => Some((Kind::Blob, repository.clone())),
            Self::List(repository, list) => {
                let kind = match list.of() {
                    ListOf::Tags => Kind::Tags,
                    ListOf::Referrers { .. } => Kind::Referrers,
                };
                Some((kind, repository.clone()))
            }
        }
    }

    /// The upstream is named by `ns=`, as containerd does; or else by the first part of the path where that looks
    /// like a registry; or else it is Docker Hub, which is what dockerd's mirrors stand for.
    pub(super) fn parse(path: &str, query: Option<&str>) -> Result<Self, Problem> {
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or(Problem::NoSuchRoute)?,
            None => return Err(Problem::NoSuchRoute),
        };
        // From the right: a repository may itself have a part called `blobs`.
        let (rest, last) = rest.rsplit_once('/').ok_or(Problem::NoSuchRoute)?;
        let (name, kind) = rest.rsplit_once('/').ok_or(Problem::NoSuchRoute)?;
        let (name, last) = (decoded(name), decoded(last));
        let repository = repository(&name, query)?;
        match kind {
            "manifests" => Ok(Self::Manifest(repository, last.parse()?)),
            "blobs" => Ok(Self::Blob(repository, last.parse()?)),
            "tags" if last == "list" => Ok(Self::List(repository, List::tags(query.unwrap_or_default())?)),
            "referrers" => {
                let list = List::referrers(last.parse()?, query.unwrap_or_default())?;
                Ok(Self::List(repository, list))
            }
            _ => Err(Problem::NoSuchRoute),
        }
    }
}

/// A part of a path as it was meant. An encoded slash stays as it is: no name has one.
fn decoded(part: &str) -> Cow<'_, str> {
    if part.to_ascii_lowercase().contains("%2f") {
        return Cow::Borrowed(part);
    }
    percent_decode_str(part).decode_utf8_lossy()
}

/// The registries that a query names; nothing else in it is ours to look at.
pub(super) fn named_by(query: Option<&str>) -> impl Iterator<Item = Cow<'_, str>> {
    let query = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    query.filter_map(|(key, value)| (key == "ns").then_some(value))
}

fn repository(name: &str, query: Option<&str>) -> Result<Repository, Problem> {
    let mut named = named_by(query);
    if let Some(ns) = named.next() {
        if let Some(other) = named.find(|other| *other != ns) {
            return Err(Problem::Ambiguous(format!("{ns:.100} and {other:.100}")));
        }
        return Ok(Repository::new(ns.parse()?, name)?);
    }
    match name.split_once('/') {
        Some((first, rest)) if Registry::looks_like_one(first) => Ok(Repository::new(first.parse()?, rest)?),
        Some(_) | None => Ok(Repository::new(Registry::docker_hub(), name)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(registry: &str, name: &str, reference: &str) -> Route {
        let repository = Repository::new(registry.parse().unwrap(), name).unwrap();
        Route::Manifest(repository, reference.parse().unwrap())
    }

    #[test]
    fn ns_names_the_upstream() {
        let route = Route::parse("/v2/library/nginx/manifests/latest", Some("ns=docker.io")).unwrap();
        assert_eq!(route, manifest("docker.io", "library/nginx", "latest"));
        let route = Route::parse("/v2/a/manifests/1", Some("x=y&ns=localhost%3A5000")).unwrap();
        assert_eq!(route, manifest("localhost:5000", "a", "1"));
    }

    #[test]
    fn without_ns_the_path_names_it_or_it_is_docker_hub() {
        let route = Route::parse("/v2/ghcr.io/a/b/manifests/1", None).unwrap();
        assert_eq!(route, manifest("ghcr.io", "a/b", "1"));
        let route = Route::parse("/v2/nginx/manifests/1", None).unwrap();
        assert_eq!(route, manifest("docker.io", "library/nginx", "1"));
        let route = Route::parse("/v2/a/b/manifests/1", None).unwrap();
        assert_eq!(route, manifest("docker.io", "a/b", "1"));
    }

    #[test]
    fn a_repository_may_be_called_blobs() {
        let digest = Digest::of(b"");
        let route = Route::parse(&format!("/v2/blobs/manifests/blobs/{digest}"), Some("ns=quay.io")).unwrap();
        let repository = Repository::new("quay.io".parse().unwrap(), "blobs/manifests").unwrap();
        assert_eq!(route, Route::Blob(repository, digest));
    }

    #[test]
    fn a_list_is_asked_for_with_what_narrows_it() {
        let digest = Digest::of(b"");
        for (path, query, shown) in [
            ("/v2/nginx/tags/list", None, "docker.io/library/nginx/tags/list".to_owned()),
            (
                "/v2/a/b/tags/list",
                Some("n=5&ns=quay.io&last=x&y=z"),
                "quay.io/a/b/tags/list?n=5&last=x".to_owned(),
            ),
            ("/v2/ghcr.io/a/tags/tags/list", Some("n=5"), "ghcr.io/a/tags/tags/list?n=5".to_owned()),
            (&format!("/v2/ghcr.io/a/referrers/{digest}"), None, format!("ghcr.io/a/referrers/{digest}")),
        ] {
            assert_eq!(Route::parse(path, query).unwrap().to_string(), shown);
        }
        for (path, query) in [
            ("/v2/tags/list", ""),
            ("/v2/a/tags/lists", ""),
            ("/v2/a/tags/list/", ""),
            ("/v2/a/tags/list", "n=many"),
            ("/v2/a/referrers/latest", ""),
            ("/v2/a/referrers/sha256:00", ""),
        ] {
            assert!(Route::parse(path, Some(query)).is_err(), "{path}?{query} was taken");
        }
    }

    #[test]
    fn what_is_no_route_of_a_registry_is_refused() {
        for path in [
            "/",
            "/v1/",
            "/v2x/",
            "/v2/a",
            "/v2/a/manifests",
            "/v2/a/uploads/x",
            "/v2//manifests/x",
            "/v2/manifests/x",
        ] {
            assert!(Route::parse(path, None).is_err(), "{path} was taken");
        }
        assert!(Route::parse("/v2/a/manifests/..%2f", None).is_err());
        assert!(Route::parse("/v2/a/blobs/latest", None).is_err());
        assert!(Route::parse("/v2/a/manifests/x", Some("ns=http://evil/")).is_err());
    }
}
