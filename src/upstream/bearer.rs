//! A registry's Bearer challenge as it is handed on: to a client, which then gets a token of its own.
//!
//! Invariant: nothing is in it but realm, service and scope, and it can always be sent as a header. Whether its realm
//! may be asked, `challenge` decides before it makes one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http_auth::ChallengeRef;
use http_auth::parser::ChallengeParser;
use url::Url;

/// A longer one is not handed on: real ones have a few hundred bytes.
const LONGEST: usize = 8 * 1024;

/// `Bearer realm="…",service="…",scope="…"`: where a token is to be had, and what for. Holds no secret, and survives
/// being kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BearerChallenge(Arc<str>);

impl BearerChallenge {
    /// The challenge of these parts; nothing where they cannot be sent in a header.
    pub(super) fn new(realm: &Url, service: Option<&str>, scope: Option<&str>) -> Option<Self> {
        let sound = matches!(realm.scheme(), "https" | "http")
            && realm.has_host()
            && realm.username().is_empty()
            && realm.password().is_none();
        if !sound {
            return None;
        }
        let mut text = format!("Bearer realm={}", quoted(realm.as_str())?);
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                text.push_str(&format!(",{name}={}", quoted(value)?));
            }
        }
        (text.len() <= LONGEST).then(|| Self(text.into()))
    }

    /// The one that the layer which shows tokens left in an answer: it leaves none but those that may be handed on.
    pub(super) fn left_in(headers: &HeaderMap) -> Option<Self> {
        headers.get(WWW_AUTHENTICATE)?.to_str().ok()?.parse().ok()
    }

    /// Its text, which [`str::parse`] takes back.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It as the value of `WWW-Authenticate`.
    #[expect(clippy::expect_used, reason = "it is made of visible ASCII alone")]
    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a challenge is made of visible ASCII alone")
    }
}

impl fmt::Display for BearerChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BearerChallenge {
    type Err = NoBearerChallenge;

    fn from_str(text: &str) -> Result<Self, NoBearerChallenge> {
        if text.len() > LONGEST {
            return Err(NoBearerChallenge);
        }
        let mut challenges = ChallengeParser::new(text);
        let (Some(Ok(bearer)), None) = (challenges.next(), challenges.next()) else {
            return Err(NoBearerChallenge);
        };
        if !bearer.scheme.eq_ignore_ascii_case("bearer") {
            return Err(NoBearerChallenge);
        }
        let realm = parameter(&bearer, "realm").and_then(|realm| Url::parse(&realm).ok());
        let realm = realm.ok_or(NoBearerChallenge)?;
        let (service, scope) = (parameter(&bearer, "service"), parameter(&bearer, "scope"));
        Self::new(&realm, service.as_deref(), scope.as_deref()).ok_or(NoBearerChallenge)
    }
}

/// A text that is no Bearer challenge with a realm that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Bearer challenge with the address of a token service")]
pub struct NoBearerChallenge;

/// A challenge's parameter, without its quotes; nothing where it is empty.
pub(super) fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
}

/// A quoted string (RFC 9110, section 5.6.4) of visible ASCII and blanks.
fn quoted(value: &str) -> Option<String> {
    if value.is_empty() || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    Some(format!("\"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;

    #[test]
    fn a_challenge_survives_being_kept_as_text() {
        let realm = Url::parse("https://t.test/token?k=v").unwrap();
        for (service, scope) in [
            (None, None),
            (Some("registry.test"), None),
            (None, Some("aws")),
            (Some(r#"a "quoted\" one, and"#), Some("repository:a/b:pull repository:c:pull,push")),
        ] {
            let made = BearerChallenge::new(&realm, service, scope).unwrap();
            assert_eq!(made.as_str().parse(), Ok(made.clone()), "{made}");
            assert_eq!(made.to_header(), made.as_str());
        }
        assert_eq!(HUB.parse::<BearerChallenge>().unwrap().as_str(), HUB);
    }

    #[test]
    fn only_realm_service_and_scope_are_in_it() {
        let text = r#"bearer error="insufficient_scope", Realm="https://t.test", x=y, scope="""#;
        let taken: BearerChallenge = text.parse().unwrap();
        assert_eq!(taken.as_str(), r#"Bearer realm="https://t.test/""#);
    }

    #[test]
    fn what_is_no_challenge_or_cannot_be_sent_is_refused() {
        for text in [
            "",
            "Bearer",
            r#"Basic realm="https://t.test""#,
            r#"Bearer service="x""#,
            r#"Bearer realm="t""#,
            r#"Bearer realm="ftp://t.test""#,
            r#"Bearer realm="https://user:secret@t.test/""#,
            r#"Bearer realm="https://t.test/", Basic realm="x""#,
            r#"Bearer realm="https://t.test/",scope="a"#,
            "Bearer realm=\"https://t.test/\",scope=\"a\u{7}b\"",
        ] {
            assert_eq!(text.parse::<BearerChallenge>(), Err(NoBearerChallenge), "{text:?}");
        }
        let realm = Url::parse("https://t.test/").unwrap();
        for scope in ["", "a\nb", "ä", &"x".repeat(LONGEST)] {
            assert_eq!(BearerChallenge::new(&realm, None, Some(scope)), None, "{scope:.9}");
        }
    }
}
