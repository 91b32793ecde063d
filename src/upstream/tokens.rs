//! Tokens: asking for them once, however many need them, and keeping them until they expire.
//!
//! Refuses to know what a token is sent with. Invariants: at most one request is under way for a grant and a login;
//! whoever asks drives it, so it goes on when the first of them leaves and ends when the last one does; a token that
//! was had with a login answers nobody who asks without; what is kept is bounded.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::Full;
use lru::LruCache;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::asked::{Answer, Asked, Kind, Place, Request};
use super::body;
use super::failure::Failure;
use super::grant::Grant;
use super::lockout::{Lockouts, Refusal};
use super::logins::{Login, Proof};
use super::record::Tally;
use super::span::Span;
use super::token::Token;
use super::ways::Home;
use crate::clock;

/// How many tokens are kept, the least recently used of them leaving first.
const MOST_TOKENS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The largest answer of a token service that is read.
const MOST_BYTES: u64 = 64 * 1024;

/// How a form is sent.
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What one asker of a token gets.
type Flight = Shared<BoxFuture<'static, Result<Token, Failure>>>;

/// Every token there is, or is being asked for.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    service: BoxCloneSyncService<Request, Answer, Failure>,
    /// How long a token's body may take.
    within: Duration,
    slots: Mutex<LruCache<Want, Slot>>,
    lockouts: Lockouts,
}

/// Which token is wanted: for whom, at which registry, and with which login.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Want {
    /// Where it will be shown.
    pub(super) home: Home,
    /// What it is for, and who grants it.
    pub(super) grant: Grant,
    /// Who asks; nobody has what anyone may have.
    pub(super) login: Option<Login>,
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
            lockouts: Lockouts::new(),
        }))
    }

    /// The logins that are not shown for now.
    pub(super) fn lockouts(&self) -> &Lockouts {
        &self.0.lockouts
    }

    /// This token: one that is kept, one that is on its way, or a new one.
    pub(super) async fn obtain(&self, want: &Want, asked: &Asked) -> Result<Obtained, Failure> {
        let flight = match self.find_or_ask(want, asked, clock::instant()) {
            Found::Held(token) => return Ok(Obtained::Held(token)),
            Found::InFlight(flight) => flight,
        };
        flight.await.map(Obtained::Fresh)
    }

    /// Drops a token that the registry refused, unless another has taken its place already.
    pub(super) fn refused(&self, want: &Want, token: &Token) {
        let mut slots = lock(&self.0.slots);
        if let Some(Slot::Held(held)) = slots.peek(want)
            && held == token
        {
            slots.pop(want);
        }
    }

    fn find_or_ask(&self, want: &Want, asked: &Asked, now: Instant) -> Found {
        let mut slots = lock(&self.0.slots);
        match slots.get(want) {
            Some(Slot::Held(token)) if token.is_good_at(now) => return Found::Held(token.clone()),
            Some(Slot::InFlight(flight)) => {
                if let Some(flight) = flight.upgrade() {
                    return Found::InFlight(flight);
                }
            }
            Some(Slot::Held(_)) | None => {}
        }
        let flight = self.clone().fetch(want.clone(), asked.clone()).boxed().shared();
        match flight.downgrade() {
            Some(weak) => slots.put(want.clone(), Slot::InFlight(weak)),
            None => slots.pop(want),
        };
        Found::InFlight(flight)
    }

    /// Asks for a token and settles its slot, whichever of its askers happens to see it through.
    async fn fetch(self, want: Want, asked: Asked) -> Result<Token, Failure> {
        let fetched = self.ask(&want, asked).await;
        let mut slots = lock(&self.0.slots);
        match &fetched {
            Ok(token) => slots.put(want, Slot::Held(token.clone())),
            Err(_) => slots.pop(&want),
        };
        fetched
    }

    /// A new token, whatever is kept; it is not kept either.
    pub(super) async fn ask(&self, want: &Want, asked: Asked) -> Result<Token, Failure> {
        let Want { home, grant, login } = want;
        let to = grant.realm.origin();
        if let Some(login) = login
            && let Some(locked) = self.0.lockouts.locked(login, &to, Some(grant), clock::instant())
        {
            return Err(match locked.status {
                429 => Failure::Limited { retry_after: Some(locked.left) },
                status => no_token(want, status),
            });
        }
        let answer = self.0.service.clone().oneshot(request(want, asked)?).await?;
        let (head, incoming) = answer.into_parts();
        let status = head.status;
        if status != StatusCode::OK {
            let place = Place::Upstream;
            let failure = Failure::of_status(&Method::GET, place, status, &head.headers, clock::now());
            let (failure, pause) = match failure {
                // It has no token for such a name: no trouble of the registry, and others may have one.
                Failure::Missing => return Err(no_token(want, status.as_u16())),
                Failure::Unusable(_) if status.is_client_error() => {
                    return Err(no_token(want, status.as_u16()));
                }
                Failure::Denied { status, .. } => (no_token(want, status), None),
                Failure::Limited { retry_after } => (Failure::Limited { retry_after }, retry_after),
                other => return Err(other),
            };
            if let Some(login) = login {
                let refusal = Refusal { registry: &home.registry, status: status.as_u16(), pause };
                let pause = self.0.lockouts.refused(login, &to, Some(grant), refusal, clock::instant());
                tell_refused(login, status.as_u16(), pause);
            }
            return Err(failure);
        }
        if let Some(login) = login {
            self.0.lockouts.accepted(login, &to, Some(grant));
        }
        let date = head.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let length = body::length(&head.headers);
        let bytes =
            body::whole(Tally::of(&head.extensions), incoming, length, MOST_BYTES, self.0.within).await?;
        Token::parse(&bytes, date.unwrap_or_else(clock::now), clock::instant())
    }
}

/// The request for a token: with an identity token a form, else a GET, with the password where there is one.
fn request(want: &Want, asked: Asked) -> Result<Request, Failure> {
    let grant = &want.grant;
    let kind = match asked.kind {
        Kind::Login => Kind::Login,
        Kind::Manifest(_) | Kind::Blob(_) | Kind::List(_) | Kind::Token => Kind::Token,
    };
    let asked = Asked { kind, place: Place::Upstream, reach: grant.reach, ..asked };
    match want.login.as_ref().map(Login::proof) {
        // One for the registry itself is not for its token service, which then is asked as by anyone.
        None | Some(Proof::Bearer(_)) => asked.request(Method::GET, &grant.address(), Span::WHOLE),
        Some(Proof::Password(header)) => {
            let mut request = asked.request(Method::GET, &grant.address(), Span::WHOLE)?;
            request.headers_mut().insert(AUTHORIZATION, header.clone());
            Ok(request)
        }
        Some(Proof::Identity(token)) => {
            let mut request = asked.request(Method::POST, &grant.realm, Span::WHOLE)?;
            request.headers_mut().insert(CONTENT_TYPE, FORM);
            *request.body_mut() = Full::from(grant.form(token));
            Ok(request)
        }
    }
}

fn no_token(want: &Want, status: u16) -> Failure {
    let login = want.login.as_ref().map(|login| login.name().clone());
    Failure::NoToken { status, challenge: want.grant.challenge(), login }
}

/// Says that a login was refused; it is not shown again for so long, and so this is not said at every request.
pub(super) fn tell_refused(login: &Login, status: u16, pause: Duration) {
    let (entry, file) = (&login.name().entry, login.name().file.display());
    let seconds = pause.as_secs();
    tracing::error!(%entry, %file, status, seconds, "a login was refused: it is not shown again for a while");
}

enum Found {
    Held(Token),
    InFlight(Flight),
}

/// Nothing that is done under these locks can leave what they guard half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
