//! The values of the OCI image and distribution specifications: digests, names, manifests, byte ranges.
//!
//! No I/O and no clock in here. A value of these types cannot be malformed: each has a fallible
//! constructor and private fields, so whoever holds one need not check it again.

mod digest;
mod manifest;
mod range;
mod reference;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use manifest::{ACCEPT_MANIFESTS, Child, Kind, MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use range::{ByteRange, RangeError};
pub use reference::{NameError, Reference, Registry, Repository, Tag};
