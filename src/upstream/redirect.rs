//! Where a redirect leads (RFC 9110, section 15.4). Sends nothing and keeps nothing: a registry's redirects are
//! signed for minutes.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::failure::{Failure, Forbidden};

/// How many redirects one request follows.
pub(super) const MOST: usize = 5;

/// The next address, where this answer redirects.
pub(super) fn next(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers.get(LOCATION).ok_or_else(|| Failure::unusable("a redirect to nowhere"))?;
    let location = std::str::from_utf8(location.as_bytes())
        .map_err(|_| Failure::unusable("a redirect to an address that can't be read"))?;
    let mut to = from
        .join(location)
        .map_err(|error| Failure::unusable(format!("a redirect to an address that is none: {error}")))?;
    to.set_fragment(None);
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(to)),
        (_, "http") => {
            Err(Forbidden::Downgrade { host: to.host_str().unwrap_or_default().to_owned() }.into())
        }
        (_, other) => Err(Failure::unusable(format!("a redirect to {other}:"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(from: &str, location: &str) -> Result<Option<Url>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        next(&from.parse().unwrap(), StatusCode::TEMPORARY_REDIRECT, &headers)
    }

    #[test]
    fn a_location_may_be_whole_or_relative() {
        for (location, to) in [
            ("https://cdn/x?sig=%2F+1#f", "https://cdn/x?sig=%2F+1"),
            ("/y", "https://a:5/y"),
            ("y", "https://a:5/v2/y"),
            ("//cdn/x", "https://cdn/x"),
        ] {
            assert_eq!(led("https://a:5/v2/x", location).unwrap().unwrap().as_str(), to);
        }
    }

    #[test]
    fn https_is_never_left_for_http() {
        assert!(matches!(
            led("https://a/", "http://b/"),
            Err(Failure::Forbidden(Forbidden::Downgrade { host })) if host == "b"
        ));
        assert!(led("http://a/", "http://b/").is_ok());
        assert!(led("http://a/", "https://b/").is_ok());
    }

    #[test]
    fn a_redirect_that_leads_nowhere_is_unusable() {
        for location in ["ftp://x/", "file:///etc/passwd", "https://", "http://[", "data:,x"] {
            assert!(matches!(led("http://a/", location), Err(Failure::Unusable(_))), "{location}");
        }
        let from = "http://a/".parse().unwrap();
        assert!(next(&from, StatusCode::FOUND, &HeaderMap::new()).is_err());
        assert!(next(&from, StatusCode::OK, &HeaderMap::new()).unwrap().is_none());
    }
}
