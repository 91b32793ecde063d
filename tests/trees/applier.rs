//! Who applies layers: containerd's own applier, and the daemon.

pub(crate) mod peer;
pub(crate) mod tidehold;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// A compressed or plain tar archive, as a registry has it.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
}

impl Layer {
    pub(crate) fn digest(&self) -> String {
        digest_of(&self.bytes)
    }
}

/// What containerd hands with a layer, by the names of `mount.Mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mount {
    pub(crate) r#type: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) options: Vec<String>,
}

/// What is said to have been applied: the uncompressed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) digest: String,
    pub(crate) size: i64,
    pub(crate) media_type: String,
}

/// Somebody who applies layers.
pub(crate) trait Applier: Send + Sync {
    /// Applies them in turn, the lowest first, each to its mounts, until one fails.
    fn apply(&self, layers: &[(&Layer, Vec<Mount>)]) -> Vec<Result<Applied, String>>;
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
