//! What a request asks for, carried along with it through the stack.
//!
//! Owns how requests are made: every request of the stack is built here, so each carries its [`Asked`].

use std::fmt;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue, RANGE, USER_AGENT};
use http::{Method, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpInfo;
use url::Url;

use super::asker::Asker;
use super::failure::Failure;
use super::reach::{Reach, Standing};
use super::span::Span;
use crate::oci::{ACCEPT_MANIFESTS, Digest, List, ListOf, Reference, Repository};

/// What the stack takes; only a token is ever asked for with a body.
pub(super) type Request = http::Request<Full<Bytes>>;

/// What the stack answers with: a head, and a body that is still to come.
pub(super) type Answer = http::Response<Incoming>;

/// What registries are told about who asks.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("tidehold/", env!("CARGO_PKG_VERSION")));

/// What is asked, and under which rules.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Under which repository.
    pub(super) repository: Repository,
    /// What of it.
    pub(super) kind: Kind,
    /// Who is asked: the upstream itself, or where it sent us.
    pub(super) place: Place,
    /// How far the request may go.
    pub(super) reach: Reach,
    /// For whom.
    pub(super) asker: Asker,
}

/// What of a repository is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A manifest or an index.
    Manifest(Reference),
    /// A blob.
    Blob(Digest),
    /// A list that the registry makes up.
    List(List),
    /// A token to read it with.
    Token,
    /// Nothing of it: a login of the hold's own is tried.
    Login,
}

impl Kind {
    /// One word, for logs and metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Manifest(_) => "manifest",
            Self::Blob(_) => "blob",
            Self::List(list) => match list.of() {
                ListOf::Tags => "tags",
                ListOf::Referrers { .. } => "referrers",
            },
            Self::Token => "token",
            Self::Login => "login",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(reference) => reference.fmt(f),
            Self::Blob(digest) => digest.fmt(f),
            Self::List(list) => list.fmt(f),
            Self::Token => f.write_str("pull"),
            Self::Login => Ok(()),
        }
    }
}

/// Marks a request that is to have a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Apart;

/// Who a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The upstream's own origin: it may be shown a token.
    Upstream,
    /// Somewhere else that the upstream named. Once there, no redirect leads back to trust.
    Redirected,
}

impl Asked {
    /// The repository's name; empty where nothing of one is asked for.
    pub(super) fn repository_name(&self) -> &str {
        match self.kind {
            Kind::Login => "",
            Kind::Manifest(_) | Kind::Blob(_) | Kind::List(_) | Kind::Token => self.repository.name(),
        }
    }

    /// Makes the request for these bytes of it.
    pub(super) fn request(&self, method: Method, url: &Url, span: Span) -> Result<Request, Failure> {
        let uri = uri(url)?;
        let mut request = http::Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        let accepted = match &self.kind {
            Kind::Manifest(_) => Some(ACCEPT_MANIFESTS),
            Kind::List(list) => Some(list.media_type()),
            Kind::Blob(_) | Kind::Token | Kind::Login => None,
        };
        if let Some(accepted) = accepted {
            headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        }
        if let Some(Ok(range)) = span.header().map(HeaderValue::try_from) {
            headers.insert(RANGE, range);
        }
        if span.is_part() {
            request.extensions_mut().insert(Apart);
        }
        request.extensions_mut().insert(self.clone());
        Ok(request)
    }

    /// What a request of the stack asks for.
    #[expect(clippy::expect_used, reason = "a request without it can't be made")]
    pub(super) fn of(request: &Request) -> &Self {
        request.extensions().get().expect("every request of the stack is made by Asked::request")
    }

    /// The same, asked where a redirect leads: what remains of the rules there.
    pub(super) fn moved(&self, from: &Url, to: &Url, leader: Standing) -> Self {
        if self.place == Place::Upstream && from.origin() == to.origin() {
            return self.clone();
        }
        Self { place: Place::Redirected, reach: self.reach.led_by(leader), ..self.clone() }
    }
}

/// The address as the transport takes it. Credentials written into an address are somebody's mistake or trick.
fn uri(url: &Url) -> Result<Uri, Failure> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::unusable("an address with credentials in it"));
    }
    url.as_str().parse().map_err(|error| Failure::unusable(format!("an address that is none: {error}")))
}

/// Where whoever gave this answer stands; in doubt where it may lead least far.
pub(super) fn standing_of(answer: &Answer) -> Standing {
    let info = answer.extensions().get::<HttpInfo>();
    info.map_or(Standing::Public, |info| Standing::of(info.remote_addr().ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Account, Credential};

    fn asked(reach: Reach) -> Asked {
        let repository = Repository::new("quay.io".parse().unwrap(), "a/b").unwrap();
        let asker =
            Asker { credential: Credential::Anonymous, account: Account::default(), only_registry: false };
        Asked { repository, kind: Kind::Blob(Digest::of(b"")), place: Place::Upstream, reach, asker }
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_redirect_within_the_upstream_changes_nothing() {
        let moved =
            asked(Reach::Anywhere).moved(&url("http://a:1/x"), &url("http://a:1/y"), Standing::Private);
        assert_eq!((moved.place, moved.reach), (Place::Upstream, Reach::Anywhere));
    }

    #[test]
    fn a_redirect_to_another_origin_loses_trust_for_good() {
        let home = url("https://a/x");
        for away in ["https://b/x", "https://a:444/x"] {
            let moved = asked(Reach::Anywhere).moved(&home, &url(away), Standing::Private);
            assert_eq!((moved.place, moved.reach), (Place::Redirected, Reach::Private));
            let back = moved.moved(&url(away), &home, Standing::Public);
            assert_eq!((back.place, back.reach), (Place::Redirected, Reach::Public));
        }
    }

    #[test]
    fn an_address_with_credentials_is_not_asked() {
        assert!(asked(Reach::Public).request(Method::GET, &url("https://u@quay.io/"), Span::WHOLE).is_err());
    }
}
