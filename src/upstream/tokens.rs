//! Tokens: asking for them once, however many need them, and keeping them until they expire.
//!
//! Refuses to know what a token is sent with. Invariants: at most one request is under way for a grant; whoever
//! asks drives it, so it goes on when the first of them leaves and ends when the last one does; what is kept is
//! bounded.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};
use http::{Method, StatusCode};
use lru::LruCache;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::asked::{Answer, Asked, Kind, Place, Request};
use super::body;
use super::challenge::{Grant, Terms};
use super::failure::Failure;
use super::token::Token;
use crate::clock;
use crate::oci::Registry;

/// How many tokens are kept, the least recently used of them leaving first.
const MOST_TOKENS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How many registries' terms are remembered.
const MOST_REGISTRIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The largest answer of a token service that is read.
const MOST_BYTES: u64 = 64 * 1024;

/// What one asker of a token gets.
type Flight = Shared<BoxFuture<'static, Result<Token, Failure>>>;

/// Every token there is, or is being asked for.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    service: BoxCloneSyncService<Request, Answer, Failure>,
    /// How long a token's body may take.
    within: Duration,
    slots: Mutex<LruCache<Grant, Slot>>,
    terms: Mutex<LruCache<Registry, Terms>>,
}

enum Slot {
    Held(Token),
    /// Alive as long as somebody waits for it.
    InFlight(WeakShared<BoxFuture<'static, Result<Token, Failure>>>),
}

/// A token, and whether it was had already.
pub(super) enum Obtained {
    /// It was; the registry may have changed its mind about it since.
    Held(Token),
    /// It was asked for just now.
    Fresh(Token),
}

impl Obtained {
    /// The token, however it was come by.
    pub(super) fn token(&self) -> &Token {
        match self {
            Self::Held(token) | Self::Fresh(token) => token,
        }
    }
}

impl Tokens {
    /// No tokens yet; they will be asked for through this service.
    pub(super) fn new(service: BoxCloneSyncService<Request, Answer, Failure>, within: Duration) -> Self {
        Self(Arc::new(Inner {
            service,
            within,
            slots: Mutex::new(LruCache::new(MOST_TOKENS)),
            terms: Mutex::new(LruCache::new(MOST_REGISTRIES)),
        }))
    }

    /// How this registry wanted to be asked for tokens when it last challenged us.
    pub(super) fn terms(&self, registry: &Registry) -> Option<Terms> {
        lock(&self.0.terms).get(registry).cloned()
    }

    /// Remembers how a registry wants to be asked, so that its next repository costs no challenge.
    pub(super) fn learn(&self, registry: &Registry, terms: Terms) {
        lock(&self.0.terms).put(registry.clone(), terms);
    }

    /// Forgets that, because it no longer worked: the next request is challenged anew.
    pub(super) fn unlearn(&self, registry: &Registry) {
        lock(&self.0.terms).pop(registry);
    }

    /// The token for this grant: one that is kept, one that is on its way, or a new one.
    pub(super) async fn obtain(&self, grant: &Grant, asked: &Asked) -> Result<Obtained, Failure> {
        let flight = match self.find_or_ask(grant, asked, clock::instant()) {
            Found::Held(token) => return Ok(Obtained::Held(token)),
            Found::InFlight(flight) => flight,
        };
        flight.await.map(Obtained::Fresh)
    }

    /// Drops a token that the registry refused, unless another has taken its place already.
    pub(super) fn refused(&self, grant: &Grant, token: &Token) {
        let mut slots = lock(&self.0.slots);
        if let Some(Slot::Held(held)) = slots.peek(grant)
            && held == token
        {
            slots.pop(grant);
        }
    }

    fn find_or_ask(&self, grant: &Grant, asked: &Asked, now: Instant) -> Found {
        let mut slots = lock(&self.0.slots);
        match slots.get(grant) {
            Some(Slot::Held(token)) if token.is_good_at(now) => return Found::Held(token.clone()),
            Some(Slot::InFlight(flight)) => {
                if let Some(flight) = flight.upgrade() {
                    return Found::InFlight(flight);
                }
            }
            Some(Slot::Held(_)) | None => {}
        }
        let flight = self.clone().fetch(grant.clone(), asked.clone()).boxed().shared();
        match flight.downgrade() {
            Some(weak) => slots.put(grant.clone(), Slot::InFlight(weak)),
            None => slots.pop(grant),
        };
        Found::InFlight(flight)
    }

    /// Asks for a token and settles its slot, whichever of its askers happens to see it through.
    async fn fetch(self, grant: Grant, asked: Asked) -> Result<Token, Failure> {
        let fetched = self.ask(&grant, asked).await;
        let mut slots = lock(&self.0.slots);
        match &fetched {
            Ok(token) => slots.put(grant, Slot::Held(token.clone())),
            Err(_) => slots.pop(&grant),
        };
        fetched
    }

    async fn ask(&self, grant: &Grant, asked: Asked) -> Result<Token, Failure> {
        let place = Place::Upstream;
        let asked = Asked { kind: Kind::Token, place, reach: grant.reach, ..asked };
        let request = asked.request(Method::GET, &grant.address, 0)?;
        let answer = self.0.service.clone().oneshot(request).await?;
        let (head, incoming) = answer.into_parts();
        if head.status != StatusCode::OK {
            let failure = Failure::of_status(&Method::GET, place, head.status, &head.headers, clock::now());
            return Err(match failure {
                Failure::Missing => Failure::unusable("the token service is not there (status 404)"),
                Failure::Denied { status, .. } => Failure::NoToken { status, challenge: None, login: None },
                other => other,
            });
        }
        let date = head.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let length = body::length(&head.headers);
        let bytes = body::whole(incoming, length, MOST_BYTES, self.0.within).await?;
        Token::parse(&bytes, date.unwrap_or_else(clock::now), clock::instant())
    }
}

enum Found {
    Held(Token),
    InFlight(Flight),
}

/// Nothing that is done under these locks can leave what they guard half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
