//! The layer that shows tokens to upstreams, and to nobody else.
//!
//! The first request to a registry goes bare; its challenge tells how tokens are had, and from then on they are
//! had beforehand. Invariants: a token goes only to the upstream that it was obtained for; one request is sent
//! twice at most.

use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use http::StatusCode;
use http::header::AUTHORIZATION;
use tower::{Service, ServiceExt};
use url::Url;

use super::asked::{Answer, Asked, Place, Request, standing_of};
use super::challenge::Challenge;
use super::failure::Failure;
use super::token::Token;
use super::tokens::{Obtained, Tokens};

/// Adds tokens, and gets them where there are none.
#[derive(Clone)]
pub(super) struct Authorize<S> {
    inner: S,
    tokens: Tokens,
}

impl<S> Authorize<S> {
    /// Around this service, with these tokens.
    pub(super) fn new(inner: S, tokens: Tokens) -> Self {
        Self { inner, tokens }
    }
}

impl<S> Service<Request> for Authorize<S>
where
    S: Service<Request, Response = Answer, Error = Failure, Future: Send> + Clone + Send + 'static,
{
    type Response = Answer;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Answer, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { inner, tokens } = self.clone();
        match Asked::of(&request).place {
            Place::Upstream => authorized(inner, tokens, request).boxed(),
            Place::Redirected => inner.oneshot(request).boxed(),
        }
    }
}

async fn authorized<S>(inner: S, tokens: Tokens, request: Request) -> Result<Answer, Failure>
where
    S: Service<Request, Response = Answer, Error = Failure, Future: Send> + Clone + Send + 'static,
{
    let asked = Asked::of(&request).clone();
    let registry = asked.repository.registry();

    let shown = match tokens.terms(registry) {
        None => None,
        Some(terms) => {
            let grant = terms.grant(&asked);
            match tokens.obtain(&grant, &asked).await {
                Ok(obtained) => Some((grant, obtained)),
                Err(failure) => {
                    if !matches!(failure, Failure::NoToken { .. } | Failure::Limited { .. }) {
                        // Perhaps its token service has moved.
                        tokens.unlearn(registry);
                    }
                    return Err(failure);
                }
            }
        }
    };
    let token = shown.as_ref().map(|(_, obtained)| obtained.token());
    let answer = inner.clone().oneshot(showing(&request, token)).await?;
    if answer.status() != StatusCode::UNAUTHORIZED {
        return Ok(answer);
    }

    let Some(challenge) = Challenge::among(answer.headers()) else {
        return Ok(answer);
    };
    tracing::debug!(%registry, repository = asked.repository.name(), "challenged for a token");
    let over = Url::parse(&request.uri().to_string())
        .map_err(|error| Failure::unusable(format!("an address that is none: {error}")))?;
    let terms = challenge.terms(&asked, &over, standing_of(&answer))?;
    let grant = terms.grant(&asked);
    if let Some((shown_for, obtained)) = &shown {
        tokens.refused(shown_for, obtained.token());
        if matches!(obtained, Obtained::Fresh(_)) && *shown_for == grant {
            // Another one like it would fare no better.
            return Ok(answer);
        }
    }
    // What is left of the refusal must not keep its connection busy meanwhile.
    drop(answer);

    let obtained = tokens.obtain(&grant, &asked).await?;
    tokens.learn(registry, terms);
    let answer = inner.oneshot(showing(&request, Some(obtained.token()))).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        tokens.refused(&grant, obtained.token());
    }
    Ok(answer)
}

fn showing(request: &Request, token: Option<&Token>) -> Request {
    let mut request = request.clone();
    if let Some(token) = token {
        request.headers_mut().insert(AUTHORIZATION, token.header().clone());
    }
    request
}
