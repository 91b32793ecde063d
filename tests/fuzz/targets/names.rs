//! Whatever text comes in place of a digest, a name, a range or a manifest: it is refused, or it is what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidehold::oci::{ByteRange, Digest, Manifest, Reference, Registry, Repository};

fuzz_target!(|bytes: &[u8]| {
    let _ = Manifest::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(!digest.hex().contains(['/', '.']));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(registry) = text.parse::<Registry>() {
        assert_eq!(registry.as_str().parse::<Registry>().as_ref(), Ok(&registry));
    }
    if let Ok(repository) = Repository::new(Registry::docker_hub(), text) {
        assert!(!repository.name().contains(".."));
    }
    if let Some(range) = ByteRange::parse(text) {
        for total in [0, 1, 1000, u64::MAX] {
            if let Ok(range) = range.within(total) {
                assert!(range.start < range.end && range.end <= total);
            }
        }
    }
});
