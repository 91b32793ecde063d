//! The layer that shows tokens and logins to upstreams, and to nobody else.
//!
//! The first request to a registry goes bare; its challenge tells how it wants to be asked, and from then on it is
//! asked so beforehand. A client's own token is shown as it came, and nothing is got for it. Invariants: what is shown
//! goes only to the upstream that it is for, never to where that redirects; a login's secret goes to it only encrypted
//! or on loopback; one request is sent twice at most; the only challenge that leaves this layer is one that may be
//! handed on to a client.

use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use tower::{Service, ServiceExt};
use url::Url;

use super::asked::{Answer, Asked, Place, Request, standing_of};
use super::asker::Credential;
use super::bearer::BearerChallenge;
use super::challenge::{Wanted, Way, is_plain_loopback};
use super::failure::{Failure, Forbidden};
use super::lockout::Refusal;
use super::logins::{Credentials, Login, Proof};
use super::tokens::{Obtained, Tokens, Want, tell_refused};
use super::ways::{Home, Ways};
use crate::clock;

/// Adds tokens and logins, and gets tokens where there are none.
#[derive(Clone)]
pub(super) struct Authorize<S> {
    inner: S,
    tokens: Tokens,
    credentials: Credentials,
    ways: Ways,
}

impl<S> Authorize<S> {
    /// Around this service, with these tokens and logins.
    pub(super) fn new(inner: S, tokens: Tokens, credentials: Credentials) -> Self {
        Self { inner, tokens, credentials, ways: Ways::new() }
    }
}

impl<S> Service<Request> for Authorize<S>
where
    S: Service<Request, Response = Answer, Error = Failure, Future: Send> + Clone + Send + Sync + 'static,
{
    type Response = Answer;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Answer, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let layer = self.clone();
        match Asked::of(&request).place {
            Place::Upstream => async { Exchange::new(layer, request)?.run().await }.boxed(),
            Place::Redirected => layer.inner.oneshot(request).boxed(),
        }
    }
}

/// One request to an upstream, until it has its answer.
struct Exchange<S> {
    layer: Authorize<S>,
    request: Request,
    asked: Asked,
    /// The request's address.
    over: Url,
    home: Home,
}

/// What a request is sent with.
enum Shown {
    Nothing,
    /// A token that was got for it.
    Token {
        want: Box<Want>,
        obtained: Obtained,
    },
    /// What a login itself consists of.
    Login {
        login: Login,
        header: HeaderValue,
    },
}

impl Shown {
    fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Token { obtained, .. } => Some(obtained.token().header()),
            Self::Login { header, .. } => Some(header),
        }
    }
}

impl<S> Exchange<S>
where
    S: Service<Request, Response = Answer, Error = Failure, Future: Send> + Clone + Send + Sync + 'static,
{
    fn new(layer: Authorize<S>, request: Request) -> Result<Self, Failure> {
        let asked = Asked::of(&request).clone();
        let over = Url::parse(&request.uri().to_string())
            .map_err(|error| Failure::unusable(format!("an address that is none: {error}")))?;
        let home = Home { registry: asked.repository.registry().clone(), origin: over.origin() };
        Ok(Self { layer, request, asked, over, home })
    }

    async fn run(self) -> Result<Answer, Failure> {
        let answer = match &self.asked.asker.credential {
            Credential::Client(token) => self.send(Some(token.header())).await?,
            Credential::Anonymous | Credential::Own => self.negotiate().await?,
        };
        Ok(self.handing_on(answer))
    }

    async fn negotiate(&self) -> Result<Answer, Failure> {
        let shown = match self.layer.ways.known(&self.home) {
            None => Shown::Nothing,
            Some(way) => self.prepare(&way).await.inspect_err(|failure| {
                let own_word = matches!(
                    failure,
                    Failure::NoToken { status: 401 | 403 | 451, .. } | Failure::Limited { .. }
                );
                if !own_word && !matches!(failure, Failure::Forbidden(Forbidden::ClearText { .. })) {
                    // Perhaps its token service has moved.
                    self.layer.ways.unlearn(&self.home);
                }
            })?,
        };
        let answer = self.send(shown.header()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(wanted) = Wanted::among(answer.headers()) else {
            return Ok(answer);
        };
        let (registry, repository) = (&self.home.registry, self.asked.repository.name());
        tracing::debug!(%registry, repository, "challenged");
        let way = wanted.way(&self.asked, &self.over, standing_of(&answer))?;
        if self.refused(&shown, &way) {
            return Ok(answer);
        }
        match way {
            Way::Bearer(_) => {
                // What is left of the refusal must not keep its connection busy meanwhile.
                drop(answer);
                self.with_token(way).await
            }
            Way::Basic => self.with_password(answer).await,
        }
    }

    /// Gets what a registry that wants to be asked this way is to be shown.
    async fn prepare(&self, way: &Way) -> Result<Shown, Failure> {
        let login = self.login().await;
        match way {
            Way::Bearer(terms) => {
                if let Some(login) = &login
                    && let Proof::Bearer(header) = login.proof()
                {
                    return self.in_person(login, header);
                }
                let grant = terms.grant(&self.asked);
                if let Some(login) = &login
                    && grant.realm.scheme() != "https"
                {
                    self.in_clear_text(login, &grant.realm)?;
                }
                let want = Want { home: self.home.clone(), grant, login };
                let obtained = self.layer.tokens.obtain(&want, &self.asked).await;
                if let (Err(Failure::NoToken { .. }), Some(login)) = (&obtained, &want.login) {
                    self.doubt(login);
                }
                Ok(Shown::Token { obtained: obtained?, want: Box::new(want) })
            }
            Way::Basic => {
                let Some(login) = login else { return Ok(Shown::Nothing) };
                let Proof::Password(header) = login.proof() else { return Ok(Shown::Nothing) };
                let lockouts = self.layer.tokens.lockouts();
                match lockouts.locked(&login, &self.home.origin, None, clock::instant()) {
                    Some(locked) => Err(refusal(&login, locked.status)),
                    None => self.in_person(&login, header),
                }
            }
        }
    }

    /// The hold's own login for this, where it is asked for with that and there is one.
    async fn login(&self) -> Option<Login> {
        match self.asked.asker.credential {
            Credential::Anonymous | Credential::Client(_) => None,
            Credential::Own => {
                let credentials = &self.layer.credentials;
                credentials.login_at(&self.over, &self.asked.repository, clock::instant()).await
            }
        }
    }

    /// A login's own secret, where it may be shown here.
    fn in_person(&self, login: &Login, header: &HeaderValue) -> Result<Shown, Failure> {
        if self.over.scheme() != "https" {
            self.in_clear_text(login, &self.over)?;
        }
        Ok(Shown::Login { login: login.clone(), header: header.clone() })
    }

    /// Whether a secret may go there unencrypted: only where the upstream stands on loopback.
    fn in_clear_text(&self, login: &Login, to: &Url) -> Result<(), Forbidden> {
        in_clear_text(login, to, &self.over, &self.asked)
    }

    /// Takes note that what was shown did not do. Whether that is the end of it: whoever wants it this way would be
    /// shown the same again.
    fn refused(&self, shown: &Shown, way: &Way) -> bool {
        match (shown, way) {
            (Shown::Nothing, _) => false,
            (Shown::Token { want, obtained }, way) => {
                self.layer.tokens.refused(want, obtained.token());
                let again = matches!(way, Way::Bearer(terms) if terms.grant(&self.asked) == want.grant);
                again && matches!(obtained, Obtained::Fresh(_))
            }
            (Shown::Login { login, .. }, way) => {
                self.doubt(login);
                match (login.proof(), way) {
                    (Proof::Password(_), Way::Basic) => {
                        // It was taken before, so this may be about the repository alone. If it is not, the next
                        // request finds out.
                        self.layer.ways.unlearn(&self.home);
                        true
                    }
                    (Proof::Bearer(_), Way::Bearer(_)) => true,
                    (Proof::Password(_) | Proof::Identity(_), Way::Bearer(_))
                    | (Proof::Bearer(_) | Proof::Identity(_), Way::Basic) => false,
                }
            }
        }
    }

    /// Asks again with a token.
    async fn with_token(&self, way: Way) -> Result<Answer, Failure> {
        let shown = self.prepare(&way).await?;
        self.layer.ways.learn(&self.home, way);
        let answer = self.send(shown.header()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            match &shown {
                Shown::Nothing => {}
                Shown::Token { want, obtained } => self.layer.tokens.refused(want, obtained.token()),
                Shown::Login { login, .. } => self.doubt(login),
            }
        }
        Ok(answer)
    }

    /// Asks again with a user and a password; where there are none, what was answered stands.
    async fn with_password(&self, denied: Answer) -> Result<Answer, Failure> {
        let Shown::Login { login, header } = self.prepare(&Way::Basic).await? else {
            return Ok(denied);
        };
        drop(denied);
        let answer = self.send(Some(&header)).await?;
        let (lockouts, to) = (self.layer.tokens.lockouts(), &self.home.origin);
        match answer.status() {
            status @ StatusCode::UNAUTHORIZED => {
                self.doubt(&login);
                let (registry, status) = (&self.home.registry, status.as_u16());
                let refused = Refusal { registry, status, pause: None };
                let pause = lockouts.refused(&login, to, None, refused, clock::instant());
                tell_refused(&login, status, pause);
                Err(refusal(&login, status))
            }
            // Neither says anything about the login.
            StatusCode::TOO_MANY_REQUESTS => Ok(answer),
            status if status.is_server_error() => Ok(answer),
            _ => {
                lockouts.accepted(&login, to, None);
                self.layer.ways.learn(&self.home, Way::Basic);
                Ok(answer)
            }
        }
    }

    /// A helper may have a newer login than the one that was refused.
    fn doubt(&self, login: &Login) {
        self.layer.credentials.refused(&self.home.registry, login);
    }

    async fn send(&self, shown: Option<&HeaderValue>) -> Result<Answer, Failure> {
        let mut request = self.request.clone();
        if let Some(header) = shown {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        self.layer.inner.clone().oneshot(request).await
    }

    /// The answer, with the one challenge that a client may be given: for this repository, without anything but what
    /// leads to a token, and only where we would ask for one there ourselves.
    fn handing_on(&self, mut answer: Answer) -> Answer {
        let challenge = match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.challenge_of(&answer),
            _ => None,
        };
        let headers = answer.headers_mut();
        headers.remove(WWW_AUTHENTICATE);
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge.to_header());
        }
        answer
    }

    fn challenge_of(&self, answer: &Answer) -> Option<BearerChallenge> {
        let way = match Wanted::among(answer.headers()) {
            Some(wanted) => wanted.way(&self.asked, &self.over, standing_of(answer)).ok(),
            None => self.layer.ways.known(&self.home),
        };
        match way? {
            Way::Bearer(terms) => terms.grant(&self.asked).challenge(),
            Way::Basic => None,
        }
    }
}

/// Whether a login may be shown there unencrypted, to an upstream that is asked `over` this or its token service.
pub(super) fn in_clear_text(login: &Login, to: &Url, over: &Url, asked: &Asked) -> Result<(), Forbidden> {
    if is_plain_loopback(over, asked.reach) {
        return Ok(());
    }
    let host = to.host_str().unwrap_or_default().to_owned();
    Err(Forbidden::ClearText { login: login.name().clone(), host })
}

/// A login that the registry itself does not take.
fn refusal(login: &Login, status: u16) -> Failure {
    Failure::NoToken { status, challenge: None, login: Some(login.name().clone()) }
}
