//! For whom a registry is asked, and what that has taken so far.
//!
//! Invariant: a client's token is never written out; where it has to be told apart from others, its hash stands for
//! it.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;

use crate::oci::Digest;
use crate::proto::v1::UpstreamRequest;

/// The longest token of a client that is taken, in bytes: real ones have a few thousand at most.
const LONGEST_TOKEN: usize = 16 << 10;

/// For whom a registry is asked, and on whose account.
#[derive(Clone, Debug)]
pub struct Asker {
    /// As whom.
    pub credential: Credential,
    /// What it takes is put here.
    pub account: Account,
    /// Whether the registry itself is asked and none of its mirrors: it alone says who may read what.
    pub only_registry: bool,
}

/// How many requests of one account are remembered.
const MOST_REQUESTS: usize = 16;

/// What asking for somebody has taken so far. Clones are the same account.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<Spent>);

impl Account {
    /// An empty one of somebody, in words.
    pub fn of(asked_by: impl Into<String>) -> Self {
        Self(Arc::new(Spent { asked_by: asked_by.into(), ..Spent::default() }))
    }

    /// An empty one of a command of the operator's, by its name.
    pub fn of_operator(command: &str) -> Self {
        let asked_by = format!("operator: {command}");
        Self(Arc::new(Spent { asked_by, by_operator: true, ..Spent::default() }))
    }

    /// Whether it is a command's of the operator, and no client's.
    pub fn is_operators(&self) -> bool {
        self.0.by_operator
    }

    /// Whose it is, in words.
    pub fn asked_by(&self) -> &str {
        &self.0.asked_by
    }

    /// The first of the requests that it took.
    pub fn requests(&self) -> Vec<Arc<UpstreamRequest>> {
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sum.
    pub fn cost(&self) -> Cost {
        Cost {
            requests: self.0.requests.load(Ordering::Relaxed),
            counted: self.0.counted.load(Ordering::Relaxed),
        }
    }

    /// Adds a request that was answered, or was not.
    pub(super) fn spend(&self, request: &Arc<UpstreamRequest>) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        if request.counted {
            self.0.counted.fetch_add(1, Ordering::Relaxed);
        }
        let mut first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < MOST_REQUESTS {
            first.push(Arc::clone(request));
        }
    }
}

/// Whose right to read is shown to a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Nobody's: what anyone may read.
    Anonymous,
    /// The hold's own login for this repository, where the configuration has one; else nobody's.
    Own,
    /// A client's own token.
    Client(ClientToken),
}

/// A client's `Authorization` header: a bearer token of its registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientToken {
    header: HeaderValue,
    hash: Digest,
}

impl ClientToken {
    /// Takes a header if it is `Bearer …`: a password is nobody's business here.
    pub fn from_authorization(header: &HeaderValue) -> Option<Self> {
        let (scheme, token) = header.as_bytes().split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ")
            || token.trim_ascii().is_empty()
            || token.len() > LONGEST_TOKEN
        {
            return None;
        }
        let mut header = header.clone();
        header.set_sensitive(true);
        Some(Self { hash: Digest::of(token.trim_ascii()), header })
    }

    /// What stands for it wherever it is remembered.
    pub fn hash(&self) -> &Digest {
        &self.hash
    }

    /// The `Authorization` header that shows it.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(…)")
    }
}

#[derive(Debug, Default)]
struct Spent {
    asked_by: String,
    by_operator: bool,
    first: Mutex<Vec<Arc<UpstreamRequest>>>,
    requests: AtomicU32,
    counted: AtomicU32,
}

/// What an answer took of its registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Requests sent, tokens and redirects included.
    pub requests: u32,
    /// Those among them that a registry with a pull limit counts.
    pub counted: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> Option<ClientToken> {
        ClientToken::from_authorization(&header.parse().unwrap())
    }

    #[test]
    fn only_a_bearer_token_is_one_and_it_stays_secret() {
        for header in ["", "Bearer", "Bearer ", "Bearer   ", "Basic dXNlcjpwYXNz", "bearertoken"] {
            assert_eq!(token(header), None, "{header:?}");
        }
        let taken = token("bearer abc.def").unwrap();
        assert_eq!(taken.header(), "bearer abc.def");
        assert_eq!(taken.hash(), token("Bearer abc.def").unwrap().hash());
        assert!(!format!("{taken:?} {:?}", taken.header()).contains("abc"));
    }

    #[test]
    fn clones_are_one_account() {
        let account = Account::default();
        let request = |counted| Arc::new(UpstreamRequest { counted, ..UpstreamRequest::default() });
        account.clone().spend(&request(true));
        account.spend(&request(false));
        assert_eq!(account.cost(), Cost { requests: 2, counted: 1 });
    }
}
