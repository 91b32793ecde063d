//! Which bytes of a blob are wanted, as a request says it (RFC 9110, section 14).

use std::ops::Range;

/// All bytes from one on, or a part with an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first byte wanted.
    pub(super) from: u64,
    /// The first one that is not.
    pub(super) to: Option<u64>,
}

impl Span {
    /// All of it.
    pub(super) const WHOLE: Self = Self { from: 0, to: None };

    /// From this byte on to the end.
    pub(super) fn from_on(from: u64) -> Self {
        Self { from, to: None }
    }

    /// These bytes alone, at least one.
    pub(super) fn part(part: &Range<u64>) -> Self {
        Self { from: part.start, to: Some(part.end) }
    }

    /// The header that asks for it; all of it needs none.
    pub(super) fn header(self) -> Option<String> {
        match self {
            Self { from: 0, to: None } => None,
            Self { from, to: None } => Some(format!("bytes={from}-")),
            Self { from, to: Some(to) } => Some(format!("bytes={from}-{}", to.saturating_sub(1))),
        }
    }

    /// Whether it is asked for beside other parts of the same blob.
    pub(super) fn is_part(self) -> bool {
        self.to.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_of_a_range_is_wanted_too() {
        assert_eq!(Span::WHOLE.header(), None);
        assert_eq!(Span::from_on(7).header().as_deref(), Some("bytes=7-"));
        assert_eq!(Span::part(&(0..10)).header().as_deref(), Some("bytes=0-9"));
    }
}
