//! Trying the hold's own logins, as `docker login` does: each is shown to the registry that it is for or to its token
//! service, and nothing is asked for with it, so that no registry counts it.
//!
//! Invariants: a login is shown to nobody whom a pull would not show it to; one that was refused is not shown again before
//! its time.

use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, StatusCode};
use url::{Position, Url};

use super::asked::{Answer, Asked, Kind, Place, standing_of};
use super::asker::{Account, Asker, Credential};
use super::authorize::in_clear_text;
use super::challenge::{Wanted, Way};
use super::failure::{Failure, Wait};
use super::lockout::Refusal;
use super::logins::{Credentials, Login, LoginName, Proof, Unread};
use super::settings::{Role, Upstream};
use super::span::Span;
use super::stack::Stack;
use super::tokens::{Tokens, Want, tell_refused};
use super::ways::Home;
use crate::clock;
use crate::oci::{Registry, Repository};
use tower::ServiceExt;

/// How many logins for one upstream are tried.
const MOST: usize = 32;

/// How long all that is done for one upstream may take.
const WITHIN: Duration = Duration::from_secs(20);

/// What came of trying a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The host, with its port where the address has one.
    pub host: String,
    /// Which login; nothing where there is none, or none was come to.
    pub login: Option<LoginName>,
    /// What came of it.
    pub outcome: Outcome,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The login is good.
    Accepted,
    /// It is not: now, or when it was shown a short while ago.
    Refused {
        /// What it was refused with.
        status: u16,
    },
    /// That could not be seen.
    Untried {
        /// Why not.
        why: String,
    },
    /// The file has none.
    Absent,
}

/// Whoever tries logins. Cheap to clone.
#[derive(Clone)]
pub(super) struct Trials {
    /// The stack without what shows tokens and logins by itself.
    service: Stack,
    tokens: Tokens,
    credentials: Credentials,
}

impl Trials {
    /// Over this service, with the tokens and logins that pulls go by.
    pub(super) fn new(service: Stack, tokens: Tokens, credentials: Credentials) -> Self {
        Self { service, tokens, credentials }
    }

    /// The tokens that pulls go by.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Tries all that there are for an upstream of a registry. That a mirror has none is as it should be.
    pub(super) async fn at(&self, upstream: &Upstream, repository: &Repository) -> Vec<Tried> {
        let over = upstream.address(repository, &Kind::Login);
        let host = over[Position::BeforeHost..Position::AfterPort].to_owned();
        let tried =
            |login: Option<&LoginName>, outcome| Tried { host: host.clone(), login: login.cloned(), outcome };
        let untried = |why: &str| Outcome::Untried { why: why.to_owned() };
        let until = tokio::time::Instant::now() + WITHIN;
        let logins = self.credentials.all_at(&over, repository.registry(), clock::instant());
        let logins = match tokio::time::timeout_at(until, logins).await {
            Ok(Ok(logins)) => logins,
            Ok(Err(Unread)) => return vec![tried(None, untried("the file cannot be used"))],
            Err(_) => return vec![tried(None, untried("its credential helpers take too long"))],
        };
        if logins.is_empty() {
            return match upstream.role {
                Role::Home => vec![tried(None, Outcome::Absent)],
                Role::Mirror => Vec::new(),
            };
        }
        let asker = Asker {
            credential: Credential::Own,
            account: Account::of_operator("doctor"),
            only_registry: upstream.role == Role::Home,
        };
        let asked = Asked {
            repository: repository.clone(),
            kind: Kind::Login,
            place: Place::Upstream,
            reach: upstream.reach,
            asker,
        };
        let door = Door { trials: self, asked, over };
        let in_time = || Failure::TimedOut(Wait::Headers);
        let bare = tokio::time::timeout_at(until, door.knock(None)).await.unwrap_or_else(|_| Err(in_time()));
        let mut all = Vec::new();
        for (place, login) in logins.into_iter().enumerate() {
            let outcome = match (&bare, &login) {
                (_, Err(_)) => untried("its credential helper fails"),
                (Err(failure), _) => untried(&failure.to_string()),
                _ if place >= MOST => untried(&format!("no more than {MOST} are tried at once")),
                (Ok(bare), Ok(login)) => {
                    let shown = tokio::time::timeout_at(until, door.show(login, bare)).await;
                    match shown.unwrap_or_else(|_| Err(in_time())) {
                        Ok(outcome) => outcome,
                        Err(Failure::NoToken { status: status @ (401 | 403), .. }) => {
                            Outcome::Refused { status }
                        }
                        Err(failure) => untried(&failure.to_string()),
                    }
                }
            };
            if let (Outcome::Refused { .. }, Ok(login)) = (&outcome, &login) {
                // A helper may have a newer one.
                self.credentials.refused(repository.registry(), login);
            }
            let name = login.as_ref().map_or_else(|name| name, Login::name);
            all.push(tried(Some(name), outcome));
        }
        all
    }
}

/// Where logins are shown.
struct Door<'a> {
    trials: &'a Trials,
    asked: Asked,
    over: Url,
}

impl Door<'_> {
    /// Asks whether this is a registry, which is all that is ever asked.
    async fn knock(&self, shown: Option<&HeaderValue>) -> Result<Answer, Failure> {
        let mut request = self.asked.request(Method::GET, &self.over, Span::WHOLE)?;
        if let Some(header) = shown {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        self.trials.service.clone().oneshot(request).await
    }

    /// Shows a login as this answer to somebody without one wants it.
    async fn show(&self, login: &Login, bare: &Answer) -> Result<Outcome, Failure> {
        let untried = |why: String| Ok(Outcome::Untried { why });
        match bare.status() {
            StatusCode::UNAUTHORIZED => {}
            status if status.is_success() => {
                return untried("it lets everybody in where a login is tried".to_owned());
            }
            status => return untried(format!("it answers {} where a login is tried", status.as_u16())),
        }
        let Some(wanted) = Wanted::among(bare.headers()) else {
            return untried("it does not say how it wants to be shown a login".to_owned());
        };
        let way = wanted.way(&self.asked, &self.over, standing_of(bare))?;
        match (login.proof(), way) {
            (Proof::Bearer(header), _) => {
                self.may_be_shown(login, &self.over)?;
                Ok(outcome(self.knock(Some(header)).await?.status()))
            }
            (Proof::Password(_) | Proof::Identity(_), Way::Bearer(terms)) => {
                let grant = terms.bare_grant();
                self.may_be_shown(login, &grant.realm)?;
                let want = Want { home: self.home(), grant, login: Some(login.clone()) };
                let token = self.trials.tokens.ask(&want, self.asked.clone()).await?;
                Ok(outcome(self.knock(Some(token.header())).await?.status()))
            }
            (Proof::Password(header), Way::Basic) => {
                self.may_be_shown(login, &self.over)?;
                self.show_password(login, header).await
            }
            (Proof::Identity(_), Way::Basic) => {
                untried("it wants a user and a password, and the login is an identity token".to_owned())
            }
        }
    }

    async fn show_password(&self, login: &Login, header: &HeaderValue) -> Result<Outcome, Failure> {
        let (lockouts, home) = (self.trials.tokens.lockouts(), self.home());
        if let Some(locked) = lockouts.locked(login, &home.origin, None, clock::instant()) {
            return Ok(Outcome::Refused { status: locked.status });
        }
        let answer = self.knock(Some(header)).await?.status();
        let outcome = outcome(answer);
        match outcome {
            Outcome::Accepted => lockouts.accepted(login, &home.origin, None),
            // A pull goes on showing a login that is forbidden something.
            Outcome::Refused { status: 401 } => {
                let status = 401;
                let refusal = Refusal { registry: &home.registry, status, pause: None };
                let pause = lockouts.refused(login, &home.origin, None, refusal, clock::instant());
                tell_refused(login, status, pause);
            }
            Outcome::Refused { .. } | Outcome::Untried { .. } | Outcome::Absent => {}
        }
        Ok(outcome)
    }

    fn may_be_shown(&self, login: &Login, to: &Url) -> Result<(), Failure> {
        match to.scheme() {
            "https" => Ok(()),
            _ => Ok(in_clear_text(login, to, &self.over, &self.asked)?),
        }
    }

    fn home(&self) -> Home {
        let registry: &Registry = self.asked.repository.registry();
        Home { registry: registry.clone(), origin: self.over.origin() }
    }
}

/// What is answered to somebody who has shown a login, or a token that was had with it.
fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Refused { status: status.as_u16() },
        status if status.is_success() => Outcome::Accepted,
        // A page to log in at, for one, says nothing of the login.
        status => Outcome::Untried { why: format!("it answers {}", status.as_u16()) },
    }
}
