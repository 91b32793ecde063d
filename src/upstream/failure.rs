//! How asking a registry can fail, each case named by what the caller can do about it.
//!
//! Owns the mapping from an HTTP status to a case. Knows no policy: whether a failure may be answered from what
//! is held is decided by whoever asked. Invariant: every case can be cloned, since one request has many askers.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::asked::Place;
use super::bearer::BearerChallenge;
use super::gate::Because;
use super::logins::LoginName;
use super::reach::Standing;
use super::retry_after;
use crate::oci::Registry;

/// Why a registry gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The registry answered, and does not have it (404, 410).
    #[error("the registry does not have it")]
    Missing,
    /// The registry will not let us have it (401, 403, 451).
    #[error("the registry denies it (status {status})")]
    Denied {
        /// The status it was denied with.
        status: u16,
        /// Where a client gets a token of its own, where the registry says so and may send us there too.
        challenge: Option<BearerChallenge>,
    },
    /// The token service gives us no token (401, 403, 451), or the registry does not take our login. This is not the
    /// registry's own word on what was asked: it says so too while it is locked out of its accounts.
    #[error("{}", no_token(login.as_ref(), *status))]
    NoToken {
        /// The status it was denied with, now or a short while ago: a login that is refused is not shown again at once.
        status: u16,
        /// Where a client gets a token of its own.
        challenge: Option<BearerChallenge>,
        /// The hold's own login, where one was refused: without it the answer may be another. Nothing where none was
        /// shown, and asking as nobody would bring the same.
        login: Option<LoginName>,
    },
    /// Too much was asked (429).
    #[error("the registry's limit is reached")]
    Limited {
        /// How long it wants to be left alone, between a second and six hours.
        retry_after: Option<Duration>,
    },
    /// It was not asked: its gate is shut, because it wants to be left alone or has failed again and again.
    #[error("the registry is not asked for another {}: {because}", retry_after::in_words(*opens_in))]
    Shut {
        /// Why the gate is shut.
        because: Because,
        /// For how long it is, at least.
        opens_in: Duration,
    },
    /// The registry, or the place it redirected to, has trouble of its own (5xx and the like).
    #[error("the registry is unavailable (status {status})")]
    Unavailable {
        /// The status it answered.
        status: u16,
        /// How long it wants to be left alone, between a second and six hours.
        retry_after: Option<Duration>,
    },
    /// No connection could be made: no such name, no route, refused, or no agreement on TLS.
    #[error("the registry can't be reached: {0}")]
    Unreachable(Cause),
    /// The connection broke, before the answer or amid its body.
    #[error("the connection broke: {0}")]
    Broken(Cause),
    /// It took too long.
    #[error("timed out waiting for {0}")]
    TimedOut(Wait),
    /// The registry has no HEAD for this (405, 501): only a GET can tell.
    #[error("the registry does not answer HEAD (status {status})")]
    NoHead {
        /// The status it answered.
        status: u16,
    },
    /// The rules of this node do not let the request go there; nothing was sent.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// More than is taken.
    #[error("the registry's answer is unusable: more than {most} bytes")]
    TooLarge {
        /// How much is.
        most: u64,
    },
    /// An answer that can't be what was asked for.
    #[error("the registry's answer is unusable: {0}")]
    Unusable(Arc<str>),
}

impl Failure {
    /// An answer that makes no sense, and why.
    pub(super) fn unusable(why: impl Into<Arc<str>>) -> Self {
        Self::Unusable(why.into())
    }

    /// Whether it may be gone in a moment: trouble that was known at once, of somebody who did not ask to be left alone.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { retry_after: None, .. } | Self::Broken(_))
    }

    /// Whether it is the registry's own word on what was asked, rather than the lack of one.
    pub fn is_verdict(&self) -> bool {
        matches!(self, Self::Missing | Self::Denied { .. } | Self::NoToken { .. })
    }

    /// Whether it may be due to whom it was asked as.
    pub fn may_differ_for_others(&self) -> bool {
        match self {
            Self::Missing
            | Self::Denied { .. }
            | Self::NoToken { .. }
            | Self::Limited { .. }
            | Self::Shut { because: Because::Limited, .. } => true,
            Self::Shut { because: Because::Failing | Because::Busy, .. }
            | Self::Unavailable { .. }
            | Self::Unreachable(_)
            | Self::Broken(_)
            | Self::TimedOut(_)
            | Self::NoHead { .. }
            | Self::Forbidden(_)
            | Self::TooLarge { .. }
            | Self::Unusable(_) => false,
        }
    }

    /// The status that it came with, where one did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Denied { status, .. }
            | Self::NoToken { status, .. }
            | Self::Unavailable { status, .. }
            | Self::NoHead { status } => Some(*status),
            Self::Missing => Some(404),
            Self::Limited { .. } => Some(429),
            Self::Shut { .. }
            | Self::Unreachable(_)
            | Self::Broken(_)
            | Self::TimedOut(_)
            | Self::Forbidden(_)
            | Self::TooLarge { .. }
            | Self::Unusable(_) => None,
        }
    }

    /// What a status other than the awaited ones means, given who answered it.
    pub(super) fn of_status(
        method: &Method,
        place: Place,
        status: StatusCode,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Self {
        let head = method == Method::HEAD;
        let code = status.as_u16();
        let unavailable =
            || Self::Unavailable { status: code, retry_after: retry_after::among(headers, now) };
        match (code, place) {
            (405 | 501, _) if head => Self::NoHead { status: code },
            // A signed address is often signed for a GET alone.
            (401 | 403, Place::Redirected) if head => Self::NoHead { status: code },
            // The registry granted it; its storage not honouring that is trouble, not a denial.
            (401 | 403, Place::Redirected) => unavailable(),
            (401 | 403, Place::Upstream) => {
                Self::Denied { status: code, challenge: BearerChallenge::left_in(headers) }
            }
            (451, _) => Self::Denied { status: code, challenge: None },
            (404 | 410, _) => Self::Missing,
            (429, _) => Self::Limited { retry_after: retry_after::among(headers, now) },
            (408 | 425 | 500..=599, _) => unavailable(),
            _ => Self::unusable(format!("status {code}")),
        }
    }
}

fn no_token(login: Option<&LoginName>, status: u16) -> String {
    match login {
        Some(login) => format!("the login for {login} is refused (status {status})"),
        None => format!("the registry's token service denies it (status {status})"),
    }
}

/// What was waited for when the time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A connection, its TLS included.
    Connection,
    /// The head of an answer.
    Headers,
    /// The next bytes of a body, or the whole of a small one.
    Body,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "a connection",
            Self::Headers => "an answer",
            Self::Body => "the rest of an answer",
        })
    }
}

/// A rule of this node that keeps a request from being sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Only listed registries may be asked.
    #[error("{0} is not a listed registry and allow_any is false: to allow it, add [registries.\"{0}\"]")]
    NotListed(Registry),
    /// The host is, or resolves to, an address beyond the reach of whoever named it.
    #[error(
        "{host} is at {address}, which is {standing}: only a registry that is listed under [registries] \
         may be, or lead, there"
    )]
    Address {
        /// The host as it was named.
        host: String,
        /// What it is or resolves to.
        address: IpAddr,
        /// What kind of address that is.
        standing: Standing,
    },
    /// A redirect from https to http.
    #[error("a redirect from https to http, to {host}, is not followed")]
    Downgrade {
        /// The host of the http address.
        host: String,
    },
    /// A token service that a token may not be asked of.
    #[error(
        "the token service {0} is not asked: it must be https, or http for an upstream that is listed as http"
    )]
    Realm(Url),
    /// A login that would go over the network in clear text.
    #[error("the login for {login} is not shown to {host}: it must be https, or http on loopback as listed")]
    ClearText {
        /// Which login.
        login: LoginName,
        /// The upstream's host.
        host: String,
    },
}

/// An error of the network, with all that led to it in one line.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Shares an error.
    pub(super) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, place: Place, status: u16) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        Failure::of_status(&method, place, status, &HeaderMap::new(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_status_is_named_by_what_can_be_done_about_it() {
        for (status, matches) in [
            (404, (|f| matches!(f, Failure::Missing)) as fn(&Failure) -> bool),
            (401, |f| matches!(f, Failure::Denied { status: 401, challenge: None })),
            (403, |f| matches!(f, Failure::Denied { .. })),
            (405, |f| matches!(f, Failure::Unusable(_))),
            (429, |f| matches!(f, Failure::Limited { retry_after: None })),
            (500, |f| matches!(f, Failure::Unavailable { status: 500, .. })),
            (503, |f| matches!(f, Failure::Unavailable { .. })),
            (204, |f| matches!(f, Failure::Unusable(_))),
            (304, |f| matches!(f, Failure::Unusable(_))),
            (416, |f| matches!(f, Failure::Unusable(_))),
        ] {
            let failure = of(Method::GET, Place::Upstream, status);
            assert!(matches(&failure), "{status} was {failure:?}");
        }
    }

    #[test]
    fn a_head_that_is_not_to_be_had_is_told_apart() {
        assert!(matches!(of(Method::HEAD, Place::Upstream, 405), Failure::NoHead { status: 405 }));
        assert!(matches!(of(Method::HEAD, Place::Upstream, 501), Failure::NoHead { .. }));
        assert!(matches!(of(Method::HEAD, Place::Redirected, 403), Failure::NoHead { .. }));
    }

    #[test]
    fn storage_that_denies_what_its_registry_granted_is_trouble_rather_than_a_denial() {
        assert!(matches!(of(Method::GET, Place::Redirected, 403), Failure::Unavailable { status: 403, .. }));
    }
}
