//! What the registry has: repositories, their tags, and the bytes behind every digest; and which of it a client may
//! be given for what it accepts. It knows nothing of who may read what, nor of any cost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::config::WithoutAccept;
use super::image::{Image, MediaTypes, digest_of};

/// Everything that was pushed.
#[derive(Default)]
pub(super) struct Contents {
    repositories: BTreeMap<String, Repository>,
    manifests: BTreeMap<String, Stored>,
    blobs: BTreeMap<String, Bytes>,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    manifests: BTreeSet<String>,
    blobs: BTreeSet<String>,
    /// The pushed images, by marker.
    images: BTreeMap<String, String>,
}

/// A manifest, as it is served.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) digest: String,
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// Why a manifest is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    NotThere,
    OciManifestNotAccepted,
    OciIndexNotAccepted,
    NothingAccepted,
}

impl Unknown {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NotThere => "manifest unknown",
            Self::OciManifestNotAccepted => {
                "OCI manifest found, but accept header does not support OCI manifests"
            }
            Self::OciIndexNotAccepted => "OCI index found, but accept header does not support OCI indexes",
            Self::NothingAccepted => "manifest found, but accept header supports none of its forms",
        }
    }
}

impl Contents {
    /// Adds an image to a repository, which is made where it is missing. No tag moves.
    pub(super) fn push(&mut self, name: &str, image: &Image) {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        repository.images.insert(image.marker.clone(), image.digest.clone());
        for manifest in &image.manifests {
            let digest = digest_of(&manifest.bytes);
            repository.manifests.insert(digest.clone());
            let media_type = manifest.media_type.to_owned();
            let stored = Stored { digest: digest.clone(), media_type, bytes: manifest.bytes.clone() };
            self.manifests.insert(digest, stored);
        }
        for blob in &image.blobs {
            let digest = digest_of(blob);
            repository.blobs.insert(digest.clone());
            self.blobs.insert(digest, blob.clone());
        }
    }

    /// Points a tag at a manifest of the repository.
    pub(super) fn tag(&mut self, name: &str, tag: &str, digest: &str) -> Result<(), String> {
        let repository = self.repositories.get_mut(name).ok_or_else(|| format!("no repository {name}"))?;
        if !repository.manifests.contains(digest) {
            return Err(format!("{name} has no manifest {digest}"));
        }
        repository.tags.insert(tag.to_owned(), digest.to_owned());
        Ok(())
    }

    /// Removes a tag; says whether it was there.
    pub(super) fn untag(&mut self, name: &str, tag: &str) -> bool {
        self.repositories.get_mut(name).is_some_and(|repository| repository.tags.remove(tag).is_some())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.repositories.contains_key(name)
    }

    pub(super) fn blob(&self, name: &str, digest: &str) -> Option<Bytes> {
        let known = self.repositories.get(name)?.blobs.contains(digest);
        known.then(|| self.blobs.get(digest).cloned()).flatten()
    }

    /// What the CDN has: it knows no repositories.
    pub(super) fn cdn_blob(&self, digest: &str) -> Option<Bytes> {
        self.blobs.get(digest).cloned()
    }

    /// The manifest that a client is given for a tag or a digest, by what it accepts.
    ///
    /// The order is that of the open-source registry: OCI types are given only to those who ask for them; a Docker
    /// list asked for by tag falls back to its `linux/amd64` manifest, and that to schema 1.
    pub(super) fn manifest(
        &self,
        name: &str,
        reference: &str,
        accepts: &Accepts,
        otherwise: WithoutAccept,
    ) -> Result<Stored, Unknown> {
        let repository = self.repositories.get(name).ok_or(Unknown::NotThere)?;
        let by_digest = repository.manifests.get(reference);
        let digest = by_digest.or_else(|| repository.tags.get(reference)).ok_or(Unknown::NotThere)?;
        let stored = self.manifests.get(digest).ok_or(Unknown::NotThere)?;
        let media_type = stored.media_type.as_str();
        if accepts.has(media_type) {
            return Ok(stored.clone());
        }
        if media_type == MediaTypes::Oci.index() {
            return Err(Unknown::OciIndexNotAccepted);
        }
        if media_type == MediaTypes::Oci.manifest() {
            return Err(Unknown::OciManifestNotAccepted);
        }
        if by_digest.is_some() {
            return Ok(stored.clone());
        }
        let single = if media_type == MediaTypes::Docker.index() { self.amd64_of(stored)? } else { stored };
        if accepts.has(MediaTypes::Docker.manifest()) {
            return Ok(single.clone());
        }
        match otherwise {
            WithoutAccept::ManifestUnknown => Err(Unknown::NothingAccepted),
            WithoutAccept::Schema1 => Ok(schema1(name, reference, single)),
        }
    }

    /// Adds a manifest that refers to another one, with nothing in it, and says its digest.
    pub(super) fn refer(&mut self, name: &str, subject: &str, artifact_type: &str) -> Result<String, String> {
        let repository = self.repositories.get_mut(name).ok_or_else(|| format!("no repository {name}"))?;
        let empty = Bytes::from_static(b"{}");
        let descriptor = json!({
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(&empty), "size": empty.len(),
        });
        let subject = json!({ "mediaType": MediaTypes::Oci.index(), "digest": subject, "size": 1 });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaTypes::Oci.manifest(),
            "artifactType": artifact_type,
            "config": descriptor,
            "layers": [descriptor],
            "subject": subject,
        });
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest_of(&bytes);
        repository.blobs.insert(digest_of(&empty));
        repository.manifests.insert(digest.clone());
        self.blobs.insert(digest_of(&empty), empty);
        let media_type = MediaTypes::Oci.manifest().to_owned();
        self.manifests.insert(digest.clone(), Stored { digest: digest.clone(), media_type, bytes });
        Ok(digest)
    }

    /// The tags of a repository, in order.
    pub(super) fn tags(&self, name: &str) -> Vec<String> {
        let repository = self.repositories.get(name).into_iter();
        repository.flat_map(|repository| repository.tags.keys().cloned()).collect()
    }

    /// What refers to a manifest, each as an index lists it, in the order of their digests.
    pub(super) fn referrers(&self, name: &str, subject: &str, artifact_type: Option<&str>) -> Vec<Value> {
        let repository = self.repositories.get(name).into_iter();
        let manifests = repository.flat_map(|repository| &repository.manifests);
        let entry = |digest: &String| {
            let stored = self.manifests.get(digest)?;
            let manifest: Value = serde_json::from_slice(&stored.bytes).ok()?;
            let of_type = manifest.get("artifactType").and_then(Value::as_str);
            let refers = manifest.pointer("/subject/digest").and_then(Value::as_str) == Some(subject);
            (refers && artifact_type.is_none_or(|wanted| of_type == Some(wanted))).then(|| {
                json!({
                    "mediaType": stored.media_type,
                    "digest": digest,
                    "size": stored.bytes.len(),
                    "artifactType": of_type,
                })
            })
        };
        manifests.filter_map(entry).collect()
    }

    /// What is there, for people and scripts.
    pub(super) fn listing(&self) -> Value {
        let repositories: BTreeMap<&str, Value> = self
            .repositories
            .iter()
            .map(|(name, repository)| {
                (name.as_str(), json!({ "tags": repository.tags, "images": repository.images }))
            })
            .collect();
        json!(repositories)
    }

    fn amd64_of(&self, index: &Stored) -> Result<&Stored, Unknown> {
        let index: Value = serde_json::from_slice(&index.bytes).unwrap_or_default();
        let entries = index.get("manifests").and_then(Value::as_array).into_iter().flatten();
        let digest = entries
            .filter(|entry| entry.pointer("/platform/architecture").and_then(Value::as_str) == Some("amd64"))
            .find_map(|entry| entry.get("digest").and_then(Value::as_str));
        digest.and_then(|digest| self.manifests.get(digest)).ok_or(Unknown::NotThere)
    }
}

/// What a client accepts: media types without their parameters. A wildcard accepts no manifest type.
pub(super) struct Accepts(BTreeSet<String>);

impl Accepts {
    pub(super) fn read(headers: &http::HeaderMap) -> Self {
        let values =
            headers.get_all(http::header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let types = values.flat_map(|value| value.split(','));
        let bare = types.map(|media_type| media_type.split(';').next().unwrap_or_default().trim().to_owned());
        Self(bare.collect())
    }

    fn has(&self, media_type: &str) -> bool {
        self.0.contains(media_type)
    }
}

/// The old form of a manifest, unsigned. Its digest is none of those that the image was pushed with.
fn schema1(name: &str, tag: &str, manifest: &Stored) -> Stored {
    let manifest: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let layers = manifest.get("layers").and_then(Value::as_array).into_iter().flatten();
    let sums: Vec<Value> =
        layers.filter_map(|layer| layer.get("digest").map(|digest| json!({ "blobSum": digest }))).collect();
    let history: Vec<Value> = sums.iter().map(|_| json!({ "v1Compatibility": "{}" })).collect();
    let old = json!({
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "architecture": "amd64",
        "fsLayers": sums,
        "history": history,
    });
    let bytes = Bytes::from(old.to_string());
    let media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned();
    Stored { digest: digest_of(&bytes), media_type, bytes }
}
