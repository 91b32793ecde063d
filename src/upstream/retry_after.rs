//! When a registry wants to be asked again: `Retry-After` (RFC 9110, section 10.2.3) and what is sent in its place.
//!
//! Refuses to trust it: whatever it says is brought within [`LEAST`] and [`MOST`]. Is handed the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

/// The shortest wait that is believed.
pub(super) const LEAST: Duration = Duration::from_secs(1);

/// The longest wait that is believed: the window of Docker Hub's limit.
pub(super) const MOST: Duration = Duration::from_secs(6 * 60 * 60);

/// Larger numbers are moments (Unix time) rather than seconds to wait: as a wait this one is 31 years.
const FIRST_MOMENT: u64 = 1_000_000_000;

/// The wait that these headers ask for, if they ask for one that can be read.
pub(super) fn among(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    ["retry-after", "x-retry-after"]
        .into_iter()
        .filter_map(|name| headers.get(name)?.to_str().ok())
        .find_map(|value| parse(value, now))
}

/// A wait as it is told: rounded up, so that whoever comes back then is not too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The same for a person: `6h`, `1m 30s`.
pub(super) fn in_words(wait: Duration) -> String {
    humantime::format_duration(Duration::from_secs(whole_seconds(wait))).to_string()
}

/// Reads seconds, an HTTP date or a Unix timestamp.
fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) if seconds < FIRST_MOMENT => Duration::from_secs(seconds),
        Ok(moment) => {
            let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            Duration::from_secs(moment).saturating_sub(now)
        }
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.clamp(LEAST, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_784_000_000;

    #[test]
    fn a_person_is_told_a_wait_in_units() {
        assert_eq!(in_words(MOST), "6h");
        assert_eq!(in_words(Duration::from_millis(89_500)), "1m 30s");
    }

    #[test]
    fn every_form_is_read_and_brought_within_bounds() {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let date = |offset: i64| {
            httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW.saturating_add_signed(offset)))
        };
        for (value, seconds) in [
            ("30".to_owned(), Some(30)),
            (" 30 ".to_owned(), Some(30)),
            ("0".to_owned(), Some(1)),
            ("21600".to_owned(), Some(21600)),
            ("99999".to_owned(), Some(21600)),
            ((NOW + 90).to_string(), Some(90)),
            ((NOW - 90).to_string(), Some(1)),
            ((NOW * 1000).to_string(), Some(21600)),
            (u64::MAX.to_string(), Some(21600)),
            (date(120), Some(120)),
            (date(-120), Some(1)),
            (date(400_000), Some(21600)),
            ("-5".to_owned(), None),
            ("soon".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn a_header_that_cant_be_read_gives_way_to_the_next() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", http::HeaderValue::from_bytes(b"\xff").unwrap());
        headers.insert("x-retry-after", http::HeaderValue::from_static("7"));
        assert_eq!(among(&headers, UNIX_EPOCH), Some(Duration::from_secs(7)));
    }
}
