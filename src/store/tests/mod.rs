//! The store under trial: what a crash, a loss of power and a bad disk leave of it.

mod arrival;
mod crash;
mod damage;
mod ingest;
mod model;
mod scenario;
mod trial;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::oci::{Digest, Hasher};

pub(super) use trial::Trial;

const NOW: SystemTime = UNIX_EPOCH;

/// A folder in memory, where there is one: nothing here needs a disk that keeps anything.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn has_digest(bytes: &[u8], digest: &Digest) -> bool {
    digest_of(bytes, digest.algorithm()) == *digest
}

fn digest_of(bytes: &[u8], algorithm: crate::oci::Algorithm) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.digest()
}
