//! Makes real images: a multi-platform index whose every platform has its own manifest, config and gzip layers.
//! The machine's own platform runs. The same specification gives the same bytes, on the same machine, every time.

use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::busybox::{self, BusyboxError};

/// When everything in an image was made: fixed, so that the bytes are.
const CREATED: &str = "2024-01-01T00:00:00Z";
const CREATED_UNIX: u64 = 1_704_067_200;

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Tells this image from the next: it stands in `/etc/tide-release`, and another marker means other digests.
    pub marker: String,
    /// The size of one more layer that does not compress; 0 for no such layer.
    pub extra_layer_bytes: usize,
    /// OCI's media types or Docker's.
    pub media: MediaTypes,
    /// The platforms; one alone gives an image without an index.
    pub platforms: Vec<Platform>,
    /// What the machine's own platform holds.
    pub rootfs: Rootfs,
    /// What a container of it runs unless told otherwise.
    pub command: &'static [&'static str],
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            marker: "v1".to_owned(),
            extra_layer_bytes: 0,
            media: MediaTypes::Oci,
            platforms: Platform::usual(),
            rootfs: Rootfs::Busybox,
            command: &["/bin/cat", "/etc/tide-release"],
        }
    }
}

/// Whose media types an image uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.…`.
    Oci,
    /// `application/vnd.docker.distribution.…`, schema 2.
    Docker,
}

impl MediaTypes {
    /// The media type of an index.
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// The media type of a platform's manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// What the machine's own platform holds; the others hold a marker file only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rootfs {
    /// The machine's busybox, with what it needs to run.
    Busybox,
    /// A marker file too: nothing of the machine is needed, and nothing runs.
    Marker,
}

/// A platform, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// A Linux platform.
    pub fn linux(architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The machine's own.
    pub fn own() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::linux("amd64", None),
            "aarch64" => Self::linux("arm64", None),
            "arm" => Self::linux("arm", Some("v7")),
            "x86" => Self::linux("386", None),
            "powerpc64" => Self::linux("ppc64le", None),
            other => Self::linux(other, None),
        }
    }

    /// `linux/amd64`, `linux/arm64`, `linux/arm/v7`, and the machine's own where it is none of them.
    pub fn usual() -> Vec<Self> {
        let mut all =
            vec![Self::linux("amd64", None), Self::linux("arm64", None), Self::linux("arm", Some("v7"))];
        if !all.contains(&Self::own()) {
            all.push(Self::own());
        }
        all
    }

    fn json(&self) -> Value {
        let mut platform = json!({ "os": self.os, "architecture": self.architecture });
        if let (Some(variant), Some(fields)) = (&self.variant, platform.as_object_mut()) {
            fields.insert("variant".to_owned(), json!(variant));
        }
        platform
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A built image: everything that a registry needs in order to serve it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The marker it was built with.
    pub marker: String,
    /// What a tag points at: the index, or the manifest where there is one platform only.
    pub digest: String,
    /// The media type of that.
    pub media_type: &'static str,
    /// Each platform's parts, in the order of the index.
    pub platforms: Vec<PlatformImage>,
    pub(super) manifests: Vec<Manifest>,
    pub(super) blobs: Vec<Bytes>,
}

/// One platform's parts, by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformImage {
    pub platform: Platform,
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) media_type: &'static str,
    pub(super) bytes: Bytes,
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Busybox(#[from] BusyboxError),
    #[error("a layer could not be packed")]
    Pack(#[from] io::Error),
}

impl Image {
    /// Builds what the specification says.
    ///
    /// # Errors
    /// Where busybox is asked for and the machine has none that can be packed.
    pub fn build(spec: &ImageSpec) -> Result<Self, ImageError> {
        let own = Platform::own();
        let extra = (spec.extra_layer_bytes > 0).then(|| incompressible_layer(spec)).transpose()?;
        let mut manifests = Vec::new();
        let mut blobs = Vec::new();
        let mut platforms = Vec::new();
        let mut entries = Vec::new();
        for platform in &spec.platforms {
            let base = match spec.rootfs {
                Rootfs::Busybox if *platform == own => busybox_layer()?,
                Rootfs::Busybox | Rootfs::Marker => foreign_layer(platform)?,
            };
            let layers: Vec<Layer> = [Some(base), Some(release_layer(spec, platform)?), extra.clone()]
                .into_iter()
                .flatten()
                .collect();
            let config = Bytes::from(config(spec, platform, &layers).to_string());
            let bytes = Bytes::from(manifest(spec.media, &config, &layers).to_string());
            let mut entry = descriptor(spec.media.manifest(), &bytes);
            if let Some(fields) = entry.as_object_mut() {
                fields.insert("platform".to_owned(), platform.json());
            }
            entries.push(entry);
            platforms.push(PlatformImage {
                platform: platform.clone(),
                manifest: digest_of(&bytes),
                config: digest_of(&config),
                layers: layers.iter().map(|layer| digest_of(&layer.gzip)).collect(),
            });
            manifests.push(Manifest { media_type: spec.media.manifest(), bytes });
            blobs.push(config);
            blobs.extend(layers.into_iter().map(|layer| layer.gzip));
        }
        if platforms.len() != 1 {
            let index = json!({ "schemaVersion": 2, "mediaType": spec.media.index(), "manifests": entries })
                .to_string();
            manifests.push(Manifest { media_type: spec.media.index(), bytes: Bytes::from(index) });
        }
        let top = manifests.last().expect("an image has an index or its one manifest");
        let (digest, media_type) = (digest_of(&top.bytes), top.media_type);
        Ok(Self { marker: spec.marker.clone(), digest, media_type, platforms, manifests, blobs })
    }

    /// A manifest of whatever kind, whole or not, with nothing beside it.
    pub fn of_manifest(media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes: Bytes = bytes.into();
        let (digest, manifests) = (digest_of(&bytes), vec![Manifest { media_type, bytes }]);
        Self { marker: digest.clone(), digest, media_type, platforms: vec![], manifests, blobs: vec![] }
    }

    /// The same with blobs beside it: those of what it names that its repository has.
    pub fn with_blobs(mut self, blobs: impl IntoIterator<Item = Bytes>) -> Self {
        self.blobs.extend(blobs);
        self
    }

    /// The machine's own platform, or the first where the image lacks it.
    pub fn own(&self) -> &PlatformImage {
        let own = Platform::own();
        let found = self.platforms.iter().find(|image| image.platform == own);
        found.or(self.platforms.first()).expect("an image is built for one platform or more")
    }

    /// The bytes behind a digest of this image.
    pub fn bytes_of(&self, digest: &str) -> Option<Bytes> {
        let manifests = self.manifests.iter().map(|manifest| &manifest.bytes);
        manifests.chain(&self.blobs).find(|bytes| digest_of(bytes) == digest).cloned()
    }
}

/// `sha256:` and the hash in hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}

/// A layer: compressed, and the digest of its tar.
#[derive(Clone)]
struct Layer {
    gzip: Bytes,
    diff_id: String,
}

/// The same for every image of this process, since packing it takes a while.
fn busybox_layer() -> Result<Layer, ImageError> {
    static PACKED: OnceLock<Arc<Layer>> = OnceLock::new();
    if let Some(layer) = PACKED.get() {
        return Ok(Layer::clone(layer));
    }
    let mut tree = Tree::new();
    busybox::unpack_into(&mut tree)?;
    let layer = tree.pack(Compression::fast())?;
    Ok(Layer::clone(PACKED.get_or_init(|| Arc::new(layer))))
}

fn foreign_layer(platform: &Platform) -> Result<Layer, ImageError> {
    let mut tree = Tree::new();
    tree.directory("etc", 0o755)?;
    tree.file("etc/platform", 0o644, format!("{platform}\n").as_bytes())?;
    tree.pack(Compression::fast())
}

fn release_layer(spec: &ImageSpec, platform: &Platform) -> Result<Layer, ImageError> {
    let mut tree = Tree::new();
    tree.directory("etc", 0o755)?;
    tree.file("etc/tide-release", 0o644, format!("{} {platform}\n", spec.marker).as_bytes())?;
    tree.pack(Compression::fast())
}

fn incompressible_layer(spec: &ImageSpec) -> Result<Layer, ImageError> {
    let mut tree = Tree::new();
    tree.directory("opt", 0o755)?;
    tree.file("opt/noise", 0o644, &noise(&spec.marker, spec.extra_layer_bytes))?;
    tree.pack(Compression::none())
}

/// Bytes that no compression shortens, the same for the same seed (splitmix64).
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut state = Sha256::digest(seed.as_bytes())
        .iter()
        .fold(0_u64, |state, byte| state.rotate_left(8) ^ u64::from(*byte));
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn config(spec: &ImageSpec, platform: &Platform, layers: &[Layer]) -> Value {
    let history: Vec<Value> =
        layers.iter().map(|_| json!({ "created": CREATED, "created_by": "stand-in" })).collect();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let mut config = platform.json();
    if let Some(fields) = config.as_object_mut() {
        fields.insert("created".to_owned(), json!(CREATED));
        fields.insert(
            "config".to_owned(),
            json!({
                "Cmd": spec.command,
                "Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"],
                "WorkingDir": "/",
            }),
        );
        fields.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
        fields.insert("history".to_owned(), json!(history));
    }
    config
}

fn manifest(media: MediaTypes, config: &[u8], layers: &[Layer]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(media.layer(), &layer.gzip)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": media.manifest(),
        "config": descriptor(media.config(), config),
        "layers": layers,
    })
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest_of(bytes), "size": bytes.len() })
}

/// A layer's tree, as it is being packed: root owns all, and every time is the same.
pub(super) struct Tree(tar::Builder<Vec<u8>>);

impl Tree {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, format!("{path}/"), io::empty())
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target)
    }

    fn pack(self, compression: Compression) -> Result<Layer, ImageError> {
        let tar = self.0.into_inner()?;
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), compression);
        gzip.write_all(&tar)?;
        Ok(Layer { diff_id: digest_of(&tar), gzip: Bytes::from(gzip.finish()?) })
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(CREATED_UNIX);
    header
}
