//! A registry's challenge, and the token that would answer it (distribution's token specification).
//!
//! Owns whom a token may be asked of, and whom a password may be shown. Asks for nothing itself.

use std::sync::Arc;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::ChallengeRef;
use http_auth::parser::ChallengeParser;
use url::{Host, Url};

use super::asked::Asked;
use super::bearer::parameter;
use super::failure::{Failure, Forbidden};
use super::grant::Grant;
use super::reach::{Reach, Standing};

/// Longer challenges are not read: real ones have a few hundred bytes.
const LONGEST: usize = 8 * 1024;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A token of a token service.
    Bearer(Challenge),
    /// A user and a password, and no token.
    Basic,
}

impl Wanted {
    /// The first Bearer challenge that names a realm; where there is none, Basic if that will do.
    pub(super) fn among(headers: &HeaderMap) -> Option<Self> {
        let values = || {
            let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            values.filter(|value| value.len() <= LONGEST)
        };
        let bearer = values().find_map(Challenge::parse).map(Self::Bearer);
        bearer.or_else(|| {
            values().any(|value| of_scheme(value, "basic").next().is_some()).then_some(Self::Basic)
        })
    }

    /// What is to be done for a registry that wants this; see [`Challenge::terms`].
    pub(super) fn way(&self, asked: &Asked, over: &Url, stands: Standing) -> Result<Way, Failure> {
        match self {
            Self::Bearer(challenge) => challenge.terms(asked, over, stands).map(Way::Bearer),
            Self::Basic => Ok(Way::Basic),
        }
    }
}

/// How a registry lets itself be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// With a token that is had on these terms.
    Bearer(Terms),
    /// With a user and a password.
    Basic,
}

/// Whether an upstream that is asked `over` this is one whose configuration says that it is plain http on loopback:
/// only then may a login go anywhere unencrypted. A name that merely resolves to loopback may resolve to another
/// address the next time.
pub(super) fn is_plain_loopback(over: &Url, reach: Reach) -> bool {
    let loopback = match over.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    };
    over.scheme() == "http" && reach == Reach::Anywhere && loopback
}

/// `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    fn parse(value: &str) -> Option<Self> {
        for bearer in of_scheme(value, "bearer") {
            let parameter = |name| parameter(&bearer, name);
            if let Some(realm) = parameter("realm") {
                return Some(Self { realm, service: parameter("service"), scope: parameter("scope") });
            }
        }
        None
    }

    /// What answers this challenge of an upstream that was asked `over` http or https and `stands` there.
    ///
    /// # Errors
    /// When its token service is none that a token may be asked of.
    pub(super) fn terms(&self, asked: &Asked, over: &Url, stands: Standing) -> Result<Terms, Failure> {
        let mut realm = Url::parse(&self.realm)
            .map_err(|error| Failure::unusable(format!("a challenge whose realm is no address: {error}")))?;
        realm.set_fragment(None);
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(Failure::unusable("a challenge whose realm has credentials in it"));
        }
        // What is asked in clear text by configuration anyway: the token would go over the same wire. A login does not,
        // see `is_plain_loopback`.
        let plain = over.scheme() == "http" && asked.reach == Reach::Anywhere;
        match realm.scheme() {
            "https" => {}
            "http" if plain => {}
            _ => return Err(Forbidden::Realm(without_query(realm)).into()),
        }
        let reach = if realm.origin() == over.origin() { asked.reach } else { asked.reach.led_by(stands) };
        let scope = Scope::of(self.scope.as_deref(), asked.repository.name());
        Ok(Terms { realm, service: self.service.clone(), scope, reach })
    }
}

/// A header's challenges of one scheme. A part that can't be read ends the list; what came before it stands.
fn of_scheme<'a>(value: &'a str, scheme: &'static str) -> impl Iterator<Item = ChallengeRef<'a>> {
    ChallengeParser::new(value)
        .map_while(Result::ok)
        .filter(move |challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
}

/// How a registry wants to be asked for tokens: what of its challenge holds for other repositories too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    realm: Url,
    service: Option<String>,
    scope: Scope,
    reach: Reach,
}

impl Terms {
    /// The token that is needed for this repository.
    pub(super) fn grant(&self, asked: &Asked) -> Grant {
        Grant {
            realm: self.realm.clone(),
            service: self.service.clone(),
            scope: self.scope.text(asked.repository.name()),
            reach: self.reach,
        }
    }

    /// A token that is for nothing, but shows whether a login is good.
    pub(super) fn bare_grant(&self) -> Grant {
        let (realm, service) = (self.realm.clone(), self.service.clone());
        Grant { realm, service, scope: String::new(), reach: self.reach }
    }
}

/// What tokens of a registry are for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// One repository, whose name stands between these two.
    Repository { before: Arc<str>, after: Arc<str> },
    /// Always the same, such as `aws`.
    Fixed(Arc<str>),
}

impl Scope {
    /// Recognises where the repository's name stands in the scope that it was challenged with.
    fn of(challenged: Option<&str>, name: &str) -> Self {
        let Some(scope) = challenged else {
            return Self::Repository { before: "repository:".into(), after: ":pull".into() };
        };
        for (position, _) in scope.match_indices(name) {
            let (before, rest) = scope.split_at(position);
            let after = rest.strip_prefix(name).unwrap_or_default();
            if before.ends_with([':', '/']) && after.starts_with(':') {
                return Self::Repository { before: before.into(), after: after.into() };
            }
        }
        Self::Fixed(scope.into())
    }

    fn text(&self, name: &str) -> String {
        match self {
            Self::Repository { before, after } => format!("{before}{name}{after}"),
            Self::Fixed(scope) => scope.to_string(),
        }
    }
}

fn without_query(mut url: Url) -> Url {
    url.set_query(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Repository;
    use crate::upstream::asked::{Kind, Place};
    use crate::upstream::{Account, Asker, Credential};

    const HUB: &str = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull",error="insufficient_scope""#;

    fn asked(name: &str, reach: Reach) -> Asked {
        let repository = Repository::new("reg.example".parse().unwrap(), name).unwrap();
        let asker =
            Asker { credential: Credential::Anonymous, account: Account::default(), only_registry: false };
        Asked { repository, kind: Kind::Token, place: Place::Upstream, reach, asker }
    }

    fn grant(challenge: &str, challenged: &str, wanted: &str) -> String {
        let over = "https://reg.example/v2/".parse().unwrap();
        let terms = Challenge::parse(challenge)
            .unwrap()
            .terms(&asked(challenged, Reach::Public), &over, Standing::Public)
            .unwrap();
        terms.grant(&asked(wanted, Reach::Public)).address().into()
    }

    #[test]
    fn a_challenge_tells_how_every_repository_of_the_registry_is_asked_for() {
        let token = "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3A";
        assert_eq!(grant(HUB, "library/nginx", "library/nginx"), format!("{token}library%2Fnginx%3Apull"));
        assert_eq!(grant(HUB, "library/nginx", "a/b"), format!("{token}a%2Fb%3Apull"));
    }

    #[test]
    fn a_scope_is_added_kept_or_carried_over() {
        for (scope, wanted) in [
            ("", "scope=repository%3Aother%3Apull"),
            (r#",scope="repository:a:pull""#, "scope=repository%3Aother%3Apull"),
            (r#",scope="repository:mirror/a:pull,push""#, "scope=repository%3Amirror%2Fother%3Apull%2Cpush"),
            (r#",scope="aws""#, "scope=aws"),
            (r#",scope="x:a:pull y""#, "scope=x%3Aother%3Apull&scope=y"),
        ] {
            let address = grant(&format!(r#"bearer realm="https://t/?k=v"{scope}"#), "a", "other");
            assert_eq!(address, format!("https://t/?k=v&{wanted}"));
        }
    }

    #[test]
    fn only_a_bearer_challenge_with_a_realm_is_one() {
        for (value, realm) in [
            (r#"Basic realm="https://x""#, None),
            (r#"Basic realm="x", Bearer realm="https://y""#, Some("https://y")),
            (r#"BEARER REALM="https://y""#, Some("https://y")),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="""#, None),
            (r#"Bearer realm="https://y", Basic realm="x", ???"#, Some("https://y")),
            ("", None),
            ("Bearer", None),
            ("=,=,\"", None),
        ] {
            let parsed = Challenge::parse(value);
            assert_eq!(parsed.as_ref().map(|challenge| challenge.realm.as_str()), realm, "{value}");
        }
    }

    #[test]
    fn a_bearer_challenge_is_preferred_to_a_password() {
        let wanted = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            match Wanted::among(&headers)? {
                Wanted::Bearer(challenge) => Some(challenge.realm),
                Wanted::Basic => Some("a password".to_owned()),
            }
        };
        for (values, expected) in [
            (&[r#"Basic realm="x""#][..], Some("a password")),
            (&[r#"basic realm="x", bearer realm="https://y""#], Some("https://y")),
            (&[r#"Basic realm="x""#, r#"Bearer realm="https://y""#], Some("https://y")),
            (&[r#"Bearer realm="""#, r#"Basic realm="x""#], Some("a password")),
            (&["Negotiate"], None),
            (&[], None),
        ] {
            assert_eq!(wanted(values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn a_plain_loopback_is_one_that_is_written_so() {
        for (over, reach, may) in [
            ("https://127.0.0.1/", Reach::Anywhere, false),
            ("http://127.0.0.1:5000/", Reach::Anywhere, true),
            ("http://127.9.9.9/", Reach::Anywhere, true),
            ("http://[::1]:5000/", Reach::Anywhere, true),
            ("http://localhost/", Reach::Anywhere, true),
            ("http://reg.localhost/", Reach::Anywhere, true),
            ("http://127.0.0.1/", Reach::Private, false),
            ("http://localhost.test/", Reach::Anywhere, false),
            ("http://notlocalhost/", Reach::Anywhere, false),
            ("http://10.0.0.1/", Reach::Anywhere, false),
            ("http://0.0.0.0/", Reach::Anywhere, false),
            ("http://r/", Reach::Anywhere, false),
            ("ftp://127.0.0.1/", Reach::Anywhere, false),
        ] {
            assert_eq!(is_plain_loopback(&over.parse().unwrap(), reach), may, "{over} {reach:?}");
        }
    }

    #[test]
    fn a_token_is_asked_for_over_https_or_where_its_upstream_is_listed_as_plain_http() {
        let may = |realm: &str, over: &str, reach, stands| {
            let challenge = Challenge { realm: realm.to_owned(), service: None, scope: None };
            challenge.terms(&asked("a", reach), &over.parse().unwrap(), stands).map(|terms| terms.reach)
        };
        let (public, private, loopback) = (Standing::Public, Standing::Private, Standing::Loopback);
        for (realm, over, reach, stands, allowed) in [
            ("https://t/", "https://r/", Reach::Public, public, Some(Reach::Public)),
            ("http://t/", "https://r/", Reach::Public, public, None),
            ("http://t/", "https://r/", Reach::Anywhere, loopback, None),
            ("http://t/", "http://r/", Reach::Anywhere, loopback, Some(Reach::Anywhere)),
            ("http://t/", "http://r/", Reach::Anywhere, private, Some(Reach::Private)),
            ("http://t/", "http://r/", Reach::Private, private, None),
            ("https://t/", "http://r/", Reach::Anywhere, private, Some(Reach::Private)),
            ("https://r/t", "https://r/", Reach::Anywhere, private, Some(Reach::Anywhere)),
            ("https://t/", "https://r/", Reach::Anywhere, public, Some(Reach::Public)),
            ("https://u:p@t/", "https://r/", Reach::Public, public, None),
            ("file:///etc/passwd", "http://r/", Reach::Anywhere, loopback, None),
            ("t", "https://r/", Reach::Public, public, None),
        ] {
            assert_eq!(may(realm, over, reach, stands).ok(), allowed, "{realm} of {over}");
        }
    }
}
