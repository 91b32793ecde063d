//! Content digests (OCI image specification, "Digests") and the hashes that compute them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::digest::Update;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// The address of a blob: `algorithm:hex`, lower case, of the length that its algorithm has.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Arc<str>,
}

impl Digest {
    /// The digest of these bytes under SHA-256, the algorithm that registries use.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.digest()
    }

    /// Whether it is these bytes' own.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(bytes);
        hasher.digest() == *self
    }

    /// Which hash the digest is of.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash alone, in lower-case hexadecimal.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole digest, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(8 + hash.len() * 2);
        text.push_str(algorithm.name());
        text.push(':');
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self { algorithm, text: text.into() }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(160).collect());
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm =
            Algorithm::named(name).ok_or_else(|| DigestError::Algorithm(name.chars().take(40).collect()))?;
        let hexadecimal = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_len() || !hexadecimal {
            return Err(malformed());
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The algorithms that containerd's own store accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, what nearly every image uses.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm, the common one first.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }
}

/// A hash under way; its digest so far can be read at any time.
#[derive(Clone)]
pub struct Hasher(Box<State>);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(Box::new(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha384 => State::Sha384(Sha384::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        }))
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self.0.as_mut() {
            State::Sha256(hash) => Update::update(hash, bytes),
            State::Sha384(hash) => Update::update(hash, bytes),
            State::Sha512(hash) => Update::update(hash, bytes),
        }
    }

    /// The digest of what was taken in so far.
    pub fn digest(&self) -> Digest {
        match self.0.as_ref() {
            State::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.clone().finalize()),
            State::Sha384(hash) => Digest::from_hash(Algorithm::Sha384, &hash.clone().finalize()),
            State::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.clone().finalize()),
        }
    }
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `algorithm:hex` of the right length in lower case.
    #[error("{0:?} is not a digest: write sha256: and 64 lower-case hexadecimal digits")]
    Malformed(String),
    /// An algorithm that containerd does not accept either.
    #[error("{0:?} is not a digest algorithm that is supported here: use sha256, sha384 or sha512")]
    Algorithm(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_well_known_one() {
        let empty = Digest::of(b"");
        assert_eq!(empty.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.hex().len(), 64);
        assert_eq!(empty.to_string().parse::<Digest>().unwrap(), empty);
    }

    #[test]
    fn a_running_hash_can_be_read_and_goes_on() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"tide");
        let so_far = hasher.digest();
        hasher.update(b"hold");
        assert_ne!(so_far, hasher.digest());
        assert_eq!(hasher.digest().hex().len(), 128);
    }

    #[test]
    fn malformed_digests_are_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            String::new(),
            "sha256".into(),
            "sha256:".into(),
            hex.into(),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha512:{hex}"),
            format!("sha256:../{}", &hex[3..]),
            format!("md5:{hex}"),
            format!("sha256:{hex} "),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken for a digest");
        }
    }
}
