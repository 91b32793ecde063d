//! The values of the OCI image and distribution specifications: digests, names, manifests, lists, byte ranges.
//!
//! No I/O and no clock in here. A value of these types cannot be malformed: each has a fallible
//! constructor and private fields, so whoever holds one need not check it again.

mod digest;
mod image_name;
mod list;
mod manifest;
mod platform;
mod range;
mod reference;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use image_name::ImageName;
pub use list::{List, ListError, ListOf, filters_applied};
pub use manifest::{ACCEPT_MANIFESTS, Child, Kind, MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use platform::{Platform, PlatformError};
pub use range::{ByteRange, RangeError};
pub use reference::{NameError, Reference, Registry, Repository, Tag};

#[cfg(test)]
mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever stands in a request's path: it is refused, or it is just what it says.
        #[test]
        fn a_name_that_is_taken_is_its_own_text(text in "\\PC{0,80}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.as_str(), &text);
            }
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text.clone());
            }
            if let Ok(repository) = Repository::new(Registry::docker_hub(), &text) {
                prop_assert!(!repository.name().split('/').any(|part| part.starts_with('.')));
            }
            let _ = text.parse::<Registry>();
        }

        #[test]
        fn a_registry_that_is_taken_is_taken_again(text in "[a-z0-9.:\\[\\]_-]{0,40}") {
            if let Ok(registry) = text.parse::<Registry>() {
                prop_assert_eq!(registry.as_str().parse::<Registry>(), Ok(registry));
            }
        }

        #[test]
        fn every_digest_is_read_back(bytes: Vec<u8>) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.as_str().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn a_range_lies_within_its_blob(text in "bytes=[0-9-]{0,24}", total: u64) {
            if let Some(Ok(range)) = ByteRange::parse(&text).map(|range| range.within(total)) {
                prop_assert!(range.start < range.end && range.end <= total);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_manifest_and_no_panic(bytes: Vec<u8>) {
            prop_assert!(Manifest::parse(&bytes).is_err());
        }
    }
}
