//! One token: what a token service answers, and how long it is good for.
//!
//! Knows no network and is handed the time. Invariant: a token is never written out whole; where it is shown, it
//! is a header that is marked as a secret.

use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;

/// What a token without `expires_in` is good for (distribution's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// No token is kept for longer, whatever it says.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of its life a token is not relied on: it has to survive the request that it is sent with.
const MARGIN: Duration = Duration::from_secs(10);

/// A bearer token, and until when it is worth showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    header: HeaderValue,
    good_until: Instant,
}

impl Token {
    /// Reads a token service's answer that it dated `sent`, and that came `now`.
    pub(super) fn parse(body: &[u8], sent: SystemTime, now: Instant) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<Value>,
            issued_at: Option<Value>,
        }
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|error| Failure::unusable(format!("the token service's answer: {error}")))?;
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = token.ok_or_else(|| Failure::unusable("the token service's answer has no token"))?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failure::unusable("the token service's token can't be sent"))?;
        header.set_sensitive(true);

        let life = answer.expires_in.as_ref().and_then(Value::as_f64);
        let life = life.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(DEFAULT_LIFE);
        let issued = answer.issued_at.as_ref().and_then(Value::as_str);
        let issued = issued.and_then(|time| humantime::parse_rfc3339(time).ok());
        // By the token service's own clock, so that a wrong one here does no harm.
        let age = issued.and_then(|issued| sent.duration_since(issued).ok()).unwrap_or_default();
        let left = life.saturating_sub(age).min(LONGEST_LIFE);
        Ok(Self { header, good_until: now + left.saturating_sub(MARGIN.min(left / 4)) })
    }

    /// Whether it is still worth showing.
    pub(super) fn is_good_at(&self, now: Instant) -> bool {
        now < self.good_until
    }

    /// The `Authorization` header that shows it.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn good_for(body: &str) -> u64 {
        let sent = humantime::parse_rfc3339("2026-07-01T12:00:00Z").unwrap();
        let now = clock::instant();
        let token = Token::parse(body.as_bytes(), sent, now).unwrap();
        (token.good_until - now).as_secs()
    }

    #[test]
    fn a_token_is_good_until_shortly_before_it_expires() {
        for (fields, seconds) in [
            (r#""expires_in":300"#, 290),
            (r#""expires_in":300,"issued_at":"2026-07-01T11:59:00Z""#, 230),
            (r#""expires_in":300,"issued_at":"2026-07-01T11:59:00.123456Z""#, 230),
            (r#""expires_in":300,"issued_at":"2026-07-01T12:59:00Z""#, 290),
            (r#""expires_in":300,"issued_at":"2026-07-01T01:00:00Z""#, 0),
            (r#""expires_in":300,"issued_at":"yesterday""#, 290),
            (r#""issued_at":null"#, 50),
            (r#""expires_in":20"#, 15),
            (r#""expires_in":0"#, 0),
            (r#""expires_in":-1"#, 50),
            (r#""expires_in":"300""#, 50),
            (r#""expires_in":1e300"#, 50),
            (r#""expires_in":9999999999"#, 86390),
        ] {
            let seconds_good = good_for(&format!(r#"{{"token":"t",{fields}}}"#));
            assert!(seconds_good.abs_diff(seconds) <= 1, "{fields}: {seconds_good}");
        }
    }

    #[test]
    fn a_token_has_either_name_and_stays_secret() {
        let read = |body: &str| Token::parse(body.as_bytes(), clock::now(), clock::instant());
        for body in [
            r#"{"token":"abc"}"#,
            r#"{"access_token":"abc"}"#,
            r#"{"token":"","access_token":"abc"}"#,
            r#"{"token":"abc","access_token":"x","more":{}}"#,
        ] {
            let token = read(body).unwrap();
            assert_eq!(token.header().to_str().unwrap(), "Bearer abc");
            assert!(!format!("{token:?}").contains("abc"));
        }
        for body in ["", "{}", "[]", "<html>", r#"{"token":""}"#, r#"{"token":1}"#, r#"{"token":"a\nb"}"#] {
            assert!(matches!(read(body), Err(Failure::Unusable(_))), "{body}");
        }
    }
}
