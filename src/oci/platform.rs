//! What a manifest of an index is made for, in Go's words (OCI image specification, "Image Index"), and which of
//! them fits a machine (containerd's `platforms` package).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// An operating system and an architecture, perhaps a variant of it. Equal where the same images are meant: a variant
/// that goes without saying is left out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Platform {
    os: Arc<str>,
    architecture: Arc<str>,
    variant: Option<Arc<str>>,
}

impl Platform {
    /// A platform by its parts; other names of an architecture become Go's.
    ///
    /// # Errors
    /// When a part is no word of letters, digits, `.`, `_` and `-`.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Result<Self, PlatformError> {
        let variant = variant.filter(|variant| !variant.is_empty());
        if ![Some(os), Some(architecture), variant].into_iter().flatten().all(is_word) {
            let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
            return Err(PlatformError(format!("{os}/{architecture}{variant}").chars().take(100).collect()));
        }
        let (os, architecture) = (os.to_ascii_lowercase(), architecture.to_ascii_lowercase());
        let variant = variant.map(str::to_ascii_lowercase);
        let (architecture, implied) = match architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "x86" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        let variant = variant.as_deref().or(implied);
        let variant = match (architecture, variant) {
            ("amd64", Some("v1")) | ("arm64", Some("v8" | "8")) => None,
            ("arm", None | Some("7")) => Some("v7"),
            (_, variant) => variant,
        };
        Ok(Self { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) })
    }

    /// What this machine runs.
    pub fn of_this_machine() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            // riscv64 and s390x have the same name in Go.
            other => (other, None),
        };
        Self {
            os: std::env::consts::OS.into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
        }
    }

    /// How far what is offered is from the best that this platform runs, 0 being that; nothing where it does not run
    /// it. A variant runs those before it, `v7` what was made for `v6`.
    pub fn distance_to(&self, offered: &Self) -> Option<u32> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        if self.variant == offered.variant {
            return Some(0);
        }
        self.level()?.checked_sub(offered.level()?)
    }

    /// The variant as a number, where the variants of the architecture build on one another.
    fn level(&self) -> Option<u32> {
        match (&*self.architecture, self.variant.as_deref()) {
            ("amd64", None) => Some(1),
            ("arm64", None) => Some(8),
            ("amd64" | "arm64" | "arm", Some(variant)) => variant.strip_prefix('v')?.parse().ok(),
            _ => None,
        }
    }
}

fn is_word(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(sound)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let refused = || PlatformError(text.chars().take(100).collect());
        let (os, rest) = text.split_once('/').ok_or_else(refused)?;
        let (architecture, variant) = match rest.split_once('/') {
            Some((_, "")) => return Err(refused()),
            Some((architecture, variant)) => (architecture, Some(variant)),
            None => (rest, None),
        };
        Self::new(os, architecture, variant).map_err(|_| refused())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: write os/architecture or os/architecture/variant, such as linux/arm64")]
pub struct PlatformError(String);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn other_names_of_a_platform_are_the_same_platform() {
        for (written, meant) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(written).to_string(), meant, "{written}");
        }
        for bad in
            ["", "linux", "linux/", "/amd64", "linux/arm/", "linux/arm/v7/x", "linux/a b", "a/\u{1b}[1m"]
        {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_variant_runs_those_before_it_and_the_nearest_first() {
        for (machine, offered, distance) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/386", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm/v7", None),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v7", "linux/arm/v5", Some(2)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/mips64le", "linux/mips64le/hardfloat", None),
        ] {
            assert_eq!(platform(machine).distance_to(&platform(offered)), distance, "{machine} {offered}");
        }
    }

    #[test]
    fn this_machine_runs_its_own_images() {
        let own = Platform::of_this_machine();
        assert_eq!(own.distance_to(&platform(&own.to_string())), Some(0));
    }

    proptest! {
        #[test]
        fn a_platform_that_is_taken_is_taken_again(text in "[a-zA-Z0-9/._-]{0,30}|\\PC{0,20}") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>(), Ok(platform));
            }
        }
    }
}
