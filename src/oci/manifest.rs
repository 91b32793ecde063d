//! What a manifest says of itself and of what it points at (OCI image specification, "Image Manifest" and
//! "Image Index"; Docker's schema 2 has the same shape).

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use super::{Digest, Platform};

/// The largest manifest that is taken, in bytes: what the distribution specification asks registries to bear.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// The `Accept` header for every manifest asked of a registry: always the full set, since a registry may answer
/// with another digest, or not at all, to a shorter one.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or an index, as far as a cache has to understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    kind: Kind,
    media_type: String,
    children: Vec<Child>,
}

/// What a manifest points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Manifests, one for each platform.
    Index,
    /// A config and layers.
    Image,
}

impl Kind {
    /// Whether a media type is that of an index, as a registry's header says; what it really is, its bytes tell.
    pub fn is_index(media_type: &str) -> bool {
        matches!(
            media_type,
            "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }
}

/// A blob or manifest that a manifest points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes, as the manifest claims it.
    pub size: u64,
    /// What it is, as the manifest claims it.
    pub media_type: String,
    /// What it is made for, where the manifest is an index that says so.
    pub platform: Option<Platform>,
    /// Whether the manifest names addresses of its bytes beside its registry.
    pub has_urls: bool,
}

impl Manifest {
    /// Reads the bytes of a manifest. What they are is told by the bytes themselves, never by a header, so that
    /// a blob needs no record of its type and a web page in a manifest's place is found out.
    ///
    /// # Errors
    /// When this is no image manifest or index, or one of Docker's schema 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let shape: Shape = serde_json::from_slice(bytes).map_err(ManifestError::NotJson)?;
        match shape.schema_version {
            Some(2) => {}
            Some(1) => return Err(ManifestError::Schema1),
            Some(_) | None => return Err(ManifestError::NotAManifest),
        }
        let (kind, fallback, descriptors) = match (&shape.manifests, &shape.layers, &shape.config) {
            (Some(_), None, None) => {
                let index: ImageIndex = serde_json::from_slice(bytes).map_err(ManifestError::NotJson)?;
                (Kind::Index, "application/vnd.oci.image.index.v1+json", index.manifests().clone())
            }
            (None, Some(_), Some(_)) => {
                let image: ImageManifest = serde_json::from_slice(bytes).map_err(ManifestError::NotJson)?;
                let mut descriptors = vec![image.config().clone()];
                descriptors.extend(image.layers().iter().cloned());
                (Kind::Image, "application/vnd.oci.image.manifest.v1+json", descriptors)
            }
            // Both shapes at once is how a confused deputy is made (OCI advisory GHSA-77vh-xpmg-72qh).
            _ => return Err(ManifestError::NotAManifest),
        };
        let media_type = shape.media_type.unwrap_or_else(|| fallback.to_owned());
        if media_type.is_empty() || !media_type.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ManifestError::NotAManifest);
        }
        let children = descriptors.iter().map(Child::of).collect::<Result<_, _>>()?;
        Ok(Self { kind, media_type, children })
    }

    /// What it points at.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The media type to serve it with.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What it points at, in its own order: an index its manifests; a manifest its config, then its layers.
    pub fn children(&self) -> &[Child] {
        &self.children
    }
}

impl Child {
    fn of(descriptor: &Descriptor) -> Result<Self, ManifestError> {
        let digest = descriptor.digest().as_ref().parse().map_err(|_| ManifestError::NotAManifest)?;
        let platform = descriptor.platform().as_ref().and_then(|platform| {
            let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
            Platform::new(&os, &architecture, platform.variant().as_deref()).ok()
        });
        Ok(Self {
            digest,
            size: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
            platform,
            has_urls: descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty()),
        })
    }

    /// Whether its registry need not have it: a layer that only its maker may hand out (OCI image specification,
    /// "Non-Distributable Layers"; Docker's word is foreign).
    pub fn is_elsewhere(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }

    /// Whether a registry may have taken the manifest without having this. Distribution, up to its second version, looks for
    /// no layer that is said to be at some address, of whatever type (`registry/storage/ocimanifesthandler.go`).
    pub fn may_be_elsewhere(&self) -> bool {
        self.has_urls || self.is_elsewhere()
    }
}

/// The keys that tell the kinds of manifest apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl ManifestError {
    /// Whether a media type is that of Docker's schema 1.
    pub fn is_schema_1(media_type: &str) -> bool {
        matches!(
            media_type,
            "application/vnd.docker.distribution.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v1+prettyjws"
        )
    }
}

/// Why bytes are no manifest that can be served.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not with the fields a manifest must have.
    #[error("not a manifest: {0}")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but neither an image manifest nor an index.
    #[error("not an image manifest or index of schema version 2")]
    NotAManifest,
    /// The format before content addressing, which registries have stopped serving.
    #[error(
        "a manifest of Docker's schema 1, which is not supported: push the image again with a current client"
    )]
    Schema1,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(text: &str) -> String {
        format!(
            r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#,
            Digest::of(text.as_bytes()),
            text.len()
        )
    }

    #[test]
    fn an_index_points_at_its_manifests() {
        let json =
            format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, descriptor("one"), descriptor("three"));
        let index = Manifest::parse(json.as_bytes()).unwrap();
        assert_eq!(index.media_type(), "application/vnd.oci.image.index.v1+json");
        let three = Child {
            digest: Digest::of(b"three"),
            size: 5,
            media_type: "application/x".to_owned(),
            platform: None,
            has_urls: false,
        };
        assert_eq!(index.children()[1], three);
    }

    #[test]
    fn an_index_says_what_its_manifests_are_made_for() {
        let entry = |platform: &str| descriptor("one").replace('}', &format!(r#","platform":{platform}}}"#));
        let json = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#),
            entry(r#"{"os":"plan 9","architecture":"amd64"}"#),
            descriptor("one"),
        );
        let index = Manifest::parse(json.as_bytes()).unwrap();
        let platforms: Vec<_> = index.children().iter().map(|child| child.platform.clone()).collect();
        assert_eq!(platforms, ["linux/arm/v7".parse().ok(), None, None]);
    }

    #[test]
    fn a_manifest_points_at_its_config_then_its_layers() {
        let json = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
                "config":{},"layers":[{}]}}"#,
            descriptor("config"),
            descriptor("layer")
        );
        let image = Manifest::parse(json.as_bytes()).unwrap();
        assert_eq!(image.media_type(), "application/vnd.docker.distribution.manifest.v2+json");
        let children: Vec<_> = image.children().iter().map(|child| child.digest.clone()).collect();
        assert_eq!(children, [Digest::of(b"config"), Digest::of(b"layer")]);
    }

    #[test]
    fn a_layer_may_be_elsewhere_by_its_type_or_where_addresses_of_it_are_named() {
        let layer = |media_type: &str, more: &str| {
            let layer =
                descriptor("layer").replace("application/x", media_type).replace('}', &format!("{more}}}"));
            let json =
                format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layer}]}}"#, descriptor("config"));
            Manifest::parse(json.as_bytes()).unwrap().children()[1].clone()
        };
        for (media_type, more, may) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip", "", false),
            ("application/vnd.oci.image.layer.v1.tar+gzip", r#","urls":[]"#, false),
            ("application/vnd.oci.image.layer.v1.tar+gzip", r#","urls":["https://a.test/b"]"#, true),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "", true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "", true),
        ] {
            assert_eq!(layer(media_type, more).may_be_elsewhere(), may, "{media_type} {more}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}}"#, descriptor("config"));
        for bytes in [
            "",
            "<html>log in</html>",
            "{}",
            "[]",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":3,"manifests":[]}"#,
            &both,
        ] {
            assert!(Manifest::parse(bytes.as_bytes()).is_err(), "{bytes} was taken for a manifest");
        }
        let schema1 = br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#;
        assert!(matches!(Manifest::parse(schema1), Err(ManifestError::Schema1)));
    }

    #[test]
    fn a_media_type_that_could_split_a_header_is_refused() {
        let json = r#"{"schemaVersion":2,"mediaType":"a\r\nb: c","manifests":[]}"#;
        assert!(Manifest::parse(json.as_bytes()).is_err());
    }
}
