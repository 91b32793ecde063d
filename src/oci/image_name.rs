//! A whole image reference, as people write it: `nginx`, `ghcr.io/a/b:1.2`, `nginx@sha256:…`.
//!
//! The rules are docker's (`distribution/reference`, `ParseNormalizedNamed`).

use std::fmt;
use std::str::FromStr;

use super::{NameError, Reference, Registry, Repository};

/// The tag that is meant where none is written.
const DEFAULT_TAG: &str = "latest";

/// An image: where it is asked for and by what.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ImageName {
    /// The repository it is in.
    pub repository: Repository,
    /// What it is asked for by there: the digest, where both a digest and a tag were written.
    pub reference: Reference,
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        // A colon in front of a slash belongs to the registry's port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (named, None),
        };
        let reference = match (tag.map(str::parse).transpose()?, digest) {
            (_, Some(digest)) => match digest.parse()? {
                Reference::Digest(digest) => Reference::Digest(digest),
                // What follows an @ has to be a digest.
                Reference::Tag(tag) => return Err(NameError::Digest(tag.to_string())),
            },
            (Some(tag), None) => Reference::Tag(tag),
            (None, None) if is_bare_hash(name) => return Err(NameError::Digest(name.to_owned())),
            (None, None) => Reference::Tag(DEFAULT_TAG.parse()?),
        };
        let (registry, name) = match name.split_once('/') {
            Some((first, rest)) if Registry::looks_like_one(first) => (first.parse()?, rest),
            Some(_) | None => (Registry::docker_hub(), name),
        };
        Ok(Self { repository: Repository::new(registry, name)?, reference })
    }
}

/// Whether this is what docker prints for an image, or a digest without its algorithm, rather than a name: docker
/// takes none for a repository either.
fn is_bare_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// In full, with the registry and the tag that may have been left out.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Reference::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Reference::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Digest;

    #[test]
    fn what_people_leave_out_is_put_back() {
        let digest = Digest::of(b"");
        let at = |name: &str| format!("{name}@{digest}");
        for (written, meant) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1"),
            ("GHCR.io/a/b:V1", "ghcr.io/a/b:V1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("reg:5000/a/b:1", "reg:5000/a/b:1"),
            ("[::1]:5000/a:1", "[::1]:5000/a:1"),
            // No registry without a slash: these are names of Docker Hub with a tag.
            ("localhost", "docker.io/library/localhost:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("ghcr.io", "docker.io/library/ghcr.io:latest"),
            (&at("nginx"), &at("docker.io/library/nginx")),
            (&at("nginx:1.27"), &at("docker.io/library/nginx")),
            (&at("ghcr.io/a/b:1"), &at("ghcr.io/a/b")),
            (&at("reg:5000/a"), &at("reg:5000/a")),
        ] {
            let parsed = written.parse::<ImageName>().unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(parsed.to_string(), meant, "{written}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_by_the_part_that_is_wrong() {
        let digest = Digest::of(b"");
        for (text, wrong) in [
            ("", NameError::Repository(String::new())),
            (":1", NameError::Repository(String::new())),
            ("Nginx", NameError::Repository("Nginx".into())),
            ("a//b", NameError::Repository("a//b".into())),
            ("/a", NameError::Repository("/a".into())),
            ("../a", NameError::Registry("..".into())),
            ("a b", NameError::Repository("a b".into())),
            ("https://ghcr.io/a/b", NameError::Registry("https:".into())),
            ("ghcr.io/", NameError::Repository(String::new())),
            ("nginx:", NameError::Tag(String::new())),
            ("nginx:a:b", NameError::Repository("nginx:a".into())),
            ("nginx@", NameError::Tag(String::new())),
            ("nginx@latest", NameError::Digest("latest".into())),
            ("nginx@sha256:short", NameError::Digest("sha256:short".into())),
            (
                &format!("nginx@{digest}@{digest}"),
                NameError::Digest(format!("{digest}@{digest}")[..100].into()),
            ),
            (&format!("@{digest}"), NameError::Repository(String::new())),
            (&format!("nginx:-@{digest}"), NameError::Tag("-".into())),
            (digest.hex(), NameError::Digest(digest.hex().into())),
        ] {
            assert_eq!(text.parse::<ImageName>(), Err(wrong), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_taken_again_in_full(text in "[a-zA-Z0-9.:/@_-]{0,40}|\\PC{0,40}") {
            if let Ok(name) = text.parse::<ImageName>() {
                prop_assert_eq!(name.to_string().parse::<ImageName>(), Ok(name));
            }
        }
    }
}
