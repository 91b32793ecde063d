//! A login of the hold's own: what proves it, and what it is called.
//!
//! Knows no file's format and no network. Invariant: what proves a login is never written out; its name stands for it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;

/// The user name with which credential helpers mark a secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// Which login of the hold's own it is: the file, and the entry in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoginName {
    /// The file in docker's format.
    pub file: Arc<Path>,
    /// The entry: a registry, or a registry and the beginning of a repository's name.
    pub entry: Arc<str>,
}

impl fmt::Display for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.entry, self.file.display())
    }
}

/// A login. Two of them are equal where they prove the same by the same entry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Login(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    proof: Proof,
    name: LoginName,
}

/// What proves a login, by how it is shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// A user and a password, as the header `Authorization: Basic` that shows them.
    Password(HeaderValue),
    /// A refresh token, for the form of a token service and nobody else.
    Identity(String),
    /// A bearer token for the registry itself, as the header that shows it.
    Bearer(HeaderValue),
}

impl Login {
    /// A user with a password, or with the identity token that `<token>` announces.
    pub(crate) fn of_user(name: LoginName, user: &str, secret: &str) -> Self {
        if user == TOKEN_USER {
            return Self::of_identity(name, secret);
        }
        let encoded = BASE64_STANDARD.encode(format!("{user}:{secret}"));
        Self::new(name, Proof::Password(secret_header(&format!("Basic {encoded}"))))
    }

    /// An identity token (docker's `identitytoken`).
    pub(crate) fn of_identity(name: LoginName, token: &str) -> Self {
        Self::new(name, Proof::Identity(token.to_owned()))
    }

    /// A token for the registry itself (docker's `registrytoken`); nothing where it cannot be sent.
    pub(crate) fn of_registry_token(name: LoginName, token: &str) -> Option<Self> {
        let sound = token.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Self::new(name, Proof::Bearer(secret_header(&format!("Bearer {token}")))))
    }

    /// What proves it.
    pub(crate) fn proof(&self) -> &Proof {
        &self.0.proof
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &LoginName {
        &self.0.name
    }

    fn new(name: LoginName, proof: Proof) -> Self {
        Self(Arc::new(Inner { proof, name }))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.0.name)
    }
}

#[expect(clippy::expect_used, reason = "both callers hand in visible ASCII alone")]
fn secret_header(text: &str) -> HeaderValue {
    let mut header = HeaderValue::from_str(text).expect("a secret of visible ASCII can be a header");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn name() -> LoginName {
        LoginName { file: Path::new("/etc/logins.json").into(), entry: "reg.test".into() }
    }

    #[test]
    fn a_login_is_shown_by_its_kind_and_stays_secret() {
        let password = Login::of_user(name(), "me", "verysecret:ä");
        let Proof::Password(header) = password.proof() else { panic!("no password") };
        assert_eq!(header, &format!("Basic {}", BASE64_STANDARD.encode("me:verysecret:ä")));
        let token = Login::of_user(name(), "<token>", "verysecret");
        assert_eq!(token, Login::of_identity(name(), "verysecret"));
        let bearer = Login::of_registry_token(name(), "verysecret").unwrap();
        let Proof::Bearer(shown) = bearer.proof() else { panic!("no bearer token") };
        assert_eq!(shown, "Bearer verysecret");
        for login in [&password, &token, &bearer] {
            assert_eq!(format!("{login:?}"), "Login(reg.test in /etc/logins.json)");
        }
        assert!(!format!("{header:?} {shown:?}").contains("very"));
    }

    #[test]
    fn a_registry_token_that_cannot_be_sent_is_none() {
        for token in ["a b", "a\nb", "ä"] {
            assert_eq!(Login::of_registry_token(name(), token), None, "{token:?}");
        }
    }
}
