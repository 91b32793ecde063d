//! Times of entries: with nanoseconds, and as far from today as a header can say.

/// From year 1 to 1970, in seconds.
const YEAR_1_TO_1970: i64 = 62_135_596_800;

const SECOND: i64 = 1_000_000_000;

/// The latest time that is set, in nanoseconds since 1970.
const LATEST: i64 = i64::MAX;

/// A point in time, counted from year 1 as Go counts: what is beyond its range comes round at the other end, and then
/// compares as it does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::apply) struct Time {
    seconds: i64,
    nanos: i64,
}

impl Time {
    /// So many seconds and nanoseconds after 1970, or before.
    pub(super) fn since_1970(seconds: i64, nanos: i64) -> Self {
        let seconds = seconds.wrapping_add(nanos.div_euclid(SECOND));
        Self { seconds: seconds.wrapping_add(YEAR_1_TO_1970), nanos: nanos.rem_euclid(SECOND) }
    }

    /// Of an extended record: seconds, and behind a point any number of digits, of which nine count.
    pub(super) fn of_record(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds = whole.parse().ok()?;
        if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nanos = digits.fold(0, |nanos, digit| nanos * 10 + i64::from(digit - b'0'));
        Some(Self::since_1970(seconds, if whole.starts_with('-') { -nanos } else { nanos }))
    }

    /// As seconds and nanoseconds since 1970, to be set on a file: what is before that or after 2262 becomes 1970.
    pub(in crate::apply) fn bounded(self) -> (i64, i64) {
        let seconds = self.seconds.wrapping_sub(YEAR_1_TO_1970);
        let earliest = Self::since_1970(0, 0);
        let latest = Self::since_1970(LATEST / SECOND, LATEST % SECOND);
        if self < earliest || self > latest { (0, 0) } else { (seconds, self.nanos) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Option<(i64, i64)> {
        Time::of_record(text.as_bytes()).map(Time::bounded)
    }

    #[test]
    fn a_record_has_seconds_and_nine_digits() {
        assert_eq!(set("1"), Some((1, 0)));
        assert_eq!(set("1."), Some((1, 0)));
        assert_eq!(set("1.5"), Some((1, 500_000_000)));
        assert_eq!(set("1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(set("1.5x"), None);
        assert_eq!(set("x"), None);
    }

    #[test]
    fn what_is_out_of_range_becomes_1970() {
        assert_eq!(set("-0.5"), Some((0, 0)));
        assert_eq!(set("-7"), Some((0, 0)));
        assert_eq!(set("9223372036.854775807"), Some((9_223_372_036, 854_775_807)));
        assert_eq!(set("9223372036.854775808"), Some((0, 0)));
        assert_eq!(set("9223372036854775807"), Some((0, 0)));
        assert_eq!(Time::default().bounded(), (0, 0));
        assert!(Time::default() < Time::since_1970(0, 0));
    }
}
