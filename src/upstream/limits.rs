//! What a registry says about its pull limit: `ratelimit-limit: 100;w=21600` and its companions (Docker Hub's
//! documentation, "Pull usage and limits"; the IETF's draft on RateLimit header fields).
//!
//! Best effort on the registry's side, so nothing here is more than a hint: the number may lag behind or be negative.

use std::time::Duration;

use http::HeaderMap;

/// What is left of a pull limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Pulls that are left; may be negative.
    pub remaining: i64,
    /// Pulls in each window, where it is said.
    pub limit: Option<i64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// Whose limit this is: an address or the name of an account.
    pub source: Option<String>,
}

impl Left {
    /// Reads it from an answer's headers. Paid accounts and sponsored images have none.
    pub(super) fn among(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let (remaining, window) = pair(text("ratelimit-remaining")?)?;
        let limit = text("ratelimit-limit").and_then(pair);
        Some(Self {
            remaining,
            limit: limit.map(|(limit, _)| limit),
            window: limit.and_then(|(_, window)| window).or(window),
            source: text("docker-ratelimit-source").map(|source| source.chars().take(64).collect()),
        })
    }
}

/// `96;w=21600`: a number, and the window in seconds.
fn pair(value: &str) -> Option<(i64, Option<Duration>)> {
    let mut parts = value.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((number, window.map(Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_where_it_can_be() {
        for (value, left) in [
            ("96;w=21600", Some((96, Some(21600)))),
            ("0;w=21600", Some((0, Some(21600)))),
            ("-3; w=60", Some((-3, Some(60)))),
            ("7", Some((7, None))),
            ("7;w=soon", Some((7, None))),
            ("", None),
            ("many", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("ratelimit-remaining", value.parse().unwrap());
            let read = Left::among(&headers);
            let read = read.map(|left| (left.remaining, left.window.map(|window| window.as_secs())));
            assert_eq!(read, left, "{value:?}");
        }
        assert_eq!(Left::among(&HeaderMap::new()), None);
    }

    #[test]
    fn whose_limit_it_is_and_how_large() {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-remaining", "5".parse().unwrap());
        headers.insert("ratelimit-limit", "100;w=21600".parse().unwrap());
        headers.insert("docker-ratelimit-source", "192.0.2.7".parse().unwrap());
        let left = Left::among(&headers).unwrap();
        assert_eq!((left.limit, left.window), (Some(100), Some(Duration::from_secs(21600))));
        assert_eq!(left.source.as_deref(), Some("192.0.2.7"));
    }
}
