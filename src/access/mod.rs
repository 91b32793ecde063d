//! Which client may have which repository, and for how long that is known.
//!
//! What a registry lets anyone read is everybody's. For anything else a client proves with its own token that the
//! registry lets it read, and the proof holds for that client and that repository for a few minutes; a little longer
//! where the registry cannot be asked. A pure rule: it asks nobody, keeps nothing and reads no clock.

use std::time::{Duration, SystemTime};

/// How long it is known that a repository is everybody's before its registry is asked anew, with a HEAD. Whoever asks
/// for a tag asks more often.
const PUBLIC_FOR: Duration = Duration::from_secs(60 * 60);

/// What a registry has said of a repository's readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing yet.
    Nothing,
    /// Anyone may read it.
    Anyone {
        /// When it last served somebody without credentials.
        at: SystemTime,
    },
    /// Only those who prove themselves.
    Proven,
}

/// For how long a client's proof is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Without asking the registry.
    pub fresh_for: Duration,
    /// When the registry cannot be asked.
    pub stale_for: Duration,
}

/// Whether a client may have what is held of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Granted,
    /// Anyone could, when that was last said: the registry is to be asked, and where it cannot be, it may.
    WasPublic,
    /// It could, when it last proved itself: the same.
    Lapsed,
    /// Nobody knows.
    Unknown,
    /// Not unless the registry says so.
    Barred,
}

impl Admission {
    /// Whether it holds where the registry has to be asked and cannot be.
    pub fn outlasts_an_outage(self) -> bool {
        match self {
            Self::Granted | Self::WasPublic | Self::Lapsed => true,
            Self::Unknown | Self::Barred => false,
        }
    }
}

/// The rule. `proven_at` is when this very client last proved to be a reader.
pub fn admit(said: Said, proven_at: Option<SystemTime>, ages: Ages, now: SystemTime) -> Admission {
    // A proof from the future, after the clock was set back, is not taken for a fresh one.
    let within = |at: SystemTime, limit| now.duration_since(at).is_ok_and(|age| age < limit);
    match (said, proven_at) {
        (Said::Anyone { at }, _) if within(at, PUBLIC_FOR) => Admission::Granted,
        (_, Some(proven_at)) if within(proven_at, ages.fresh_for) => Admission::Granted,
        (Said::Anyone { .. }, _) => Admission::WasPublic,
        (_, Some(proven_at)) if within(proven_at, ages.stale_for) => Admission::Lapsed,
        (Said::Nothing, None) => Admission::Unknown,
        (Said::Nothing, Some(_)) | (Said::Proven, _) => Admission::Barred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_table() {
        use Admission::{Barred, Granted, Lapsed, Unknown, WasPublic};
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let ages = Ages { fresh_for: 5 * MINUTE, stale_for: 60 * MINUTE };
        let ago = |minutes: u32| now - minutes * MINUTE;
        let anyone = |at| Said::Anyone { at };
        for (said, proven_at, expected) in [
            (Said::Nothing, None, Unknown),
            (Said::Nothing, Some(ago(1)), Granted),
            (Said::Nothing, Some(ago(61)), Barred),
            (anyone(ago(1)), None, Granted),
            (anyone(ago(59)), None, Granted),
            (anyone(ago(61)), None, WasPublic),
            (anyone(ago(61)), Some(ago(1)), Granted),
            (anyone(ago(61)), Some(ago(6)), WasPublic),
            (anyone(now + MINUTE), None, WasPublic),
            (Said::Proven, None, Barred),
            (Said::Proven, Some(ago(4)), Granted),
            (Said::Proven, Some(ago(5)), Lapsed),
            (Said::Proven, Some(ago(59)), Lapsed),
            (Said::Proven, Some(ago(60)), Barred),
            (Said::Proven, Some(now + MINUTE), Barred),
        ] {
            assert_eq!(admit(said, proven_at, ages, now), expected, "{said:?} {proven_at:?}");
        }
    }
}
