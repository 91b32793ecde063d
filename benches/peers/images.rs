//! The images that are pulled, as a registry keeps them. They are made once and kept.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::hub::digest_of;
use crate::{places, tree};

/// What an image is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One layer that cannot be compressed, in gzip's stored blocks, which is what gzip makes of noise.
    Noise,
    /// Thousands of files in four layers, by gzip's usual level.
    Gzip,
    /// The same tree by zstd's usual level.
    Zstd,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Noise, Self::Gzip, Self::Zstd];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noise => "noise",
            Self::Gzip => "tree-gzip",
            Self::Zstd => "tree-zstd",
        })
    }
}

/// An image in the folder of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// Of the index that its tag points at.
    pub(crate) digest: String,
    /// Of the layer with the most bytes.
    pub(crate) largest: String,
}

impl Image {
    /// The reference that a client pulls.
    pub(crate) fn reference(&self) -> String {
        format!("docker.io/library/{}:latest", self.name)
    }

    pub(crate) fn file_of(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest.strip_prefix("sha256:").expect("a digest of sha256"))
    }
}

/// The folder of the registry that has every image.
pub(crate) fn registry() -> PathBuf {
    places::kept("registry")
}

/// The image, made now if no earlier run has made it.
pub(crate) fn image(kind: Kind, quick: bool) -> Image {
    let name = format!("{kind}{}", if quick { "-small" } else { "" });
    let folder = registry().join(&name);
    if !folder.is_dir() {
        eprintln!("making the image {name}, once");
        let partial = registry().join(format!(".{name}"));
        let _ = fs::remove_dir_all(&partial);
        make(kind, quick, &partial);
        fs::rename(&partial, &folder).expect("the same file system");
    }
    let read = |file: &str| fs::read_to_string(folder.join(file)).expect("an image that was made whole");
    Image { digest: read("tags/latest"), largest: read("largest"), name, folder }
}

fn make(kind: Kind, quick: bool, folder: &Path) {
    fs::create_dir_all(folder.join("blobs")).expect("a folder");
    fs::create_dir_all(folder.join("tags")).expect("a folder");
    let tars = match kind {
        Kind::Noise => vec![tree::of_noise(if quick { 30 << 20 } else { 300_000_000 }, 7)],
        Kind::Gzip | Kind::Zstd => tree::of_files(if quick { 1_200 } else { 12_000 }),
    };
    let diff_ids: Vec<String> = tars.iter().map(|tar| digest_of(tar)).collect();
    let mut layers = Vec::new();
    let mut largest = (0, String::new());
    for tar in tars {
        let bytes = compress(kind, &tar);
        let layer = keep(folder, layer_type(kind), &bytes);
        eprintln!("  a layer: {} KiB of {} KiB", bytes.len() >> 10, tar.len() >> 10);
        if bytes.len() > largest.0 {
            largest = (bytes.len(), layer["digest"].as_str().expect("a digest").to_owned());
        }
        layers.push(layer);
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = json!({ "architecture": architecture, "os": "linux" });
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = keep_json(folder, "application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    let mut manifest = keep_json(folder, MANIFEST, &manifest);
    manifest["platform"] = platform;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    let index = keep_json(folder, INDEX, &index);
    fs::write(folder.join("tags/latest"), index["digest"].as_str().expect("a digest")).expect("a file");
    fs::write(folder.join("largest"), largest.1).expect("a file");
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn layer_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Noise | Kind::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Kind::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

fn compress(kind: Kind, tar: &[u8]) -> Vec<u8> {
    let gzip = |level| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
        gzip.write_all(tar).expect("memory");
        gzip.finish().expect("memory")
    };
    match kind {
        Kind::Noise => gzip(flate2::Compression::none()),
        Kind::Gzip => gzip(flate2::Compression::default()),
        Kind::Zstd => zstd::encode_all(tar, zstd::DEFAULT_COMPRESSION_LEVEL).expect("memory"),
    }
}

fn keep_json(folder: &Path, media_type: &str, value: &Value) -> Value {
    keep(folder, media_type, value.to_string().as_bytes())
}

/// Writes a blob and answers with its descriptor.
fn keep(folder: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest_of(bytes);
    let hex = digest.strip_prefix("sha256:").expect("a digest of sha256");
    fs::write(folder.join("blobs").join(hex), bytes).expect("a file");
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}
