//! The layer that leaves one line in the log for each request.
//!
//! Owns what the line says, and which requests a registry counts against its pull limit. Never logs an address
//! whole: a redirect's query is a signature.

use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::{BoxFuture, FutureExt};
use http::{Method, StatusCode};
use tower::{Service, ServiceExt};

use super::asked::{Answer, Asked, Kind, Place, Request};
use super::failure::Failure;
use super::limits::Left;
use crate::clock;

/// Logs each request once it has its answer, and puts it on the account of whoever it was sent for.
#[derive(Clone)]
pub(super) struct Record<S> {
    inner: S,
}

impl<S> Record<S> {
    /// Around this service.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request> for Record<S>
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
        let asked = Asked::of(&request).clone();
        let method = request.method().clone();
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = self.inner.clone().oneshot(request);
        async move {
            let began = clock::instant();
            let answer = answer.await;
            log(&asked, &method, &host, &answer, began);
            answer
        }
        .boxed()
    }
}

fn log(asked: &Asked, method: &Method, host: &str, answer: &Result<Answer, Failure>, began: Instant) {
    let registry = asked.repository.registry();
    let repository = asked.repository.name();
    let kind = asked.kind.name();
    let what = &asked.kind;
    let milliseconds = u64::try_from(clock::instant().duration_since(began).as_millis()).unwrap_or(u64::MAX);
    match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let counted = counts(asked, method, answer.status());
            asked.asker.account.spend(counted);
            let left = Left::among(answer.headers());
            let remaining = left.as_ref().map(|left| left.remaining);
            let source = left.as_ref().and_then(|left| left.source.as_deref());
            tracing::info!(
                %method, %registry, repository, kind, %what, host, status, counted, remaining, source,
                milliseconds, "asked upstream"
            );
        }
        Err(failure) => {
            asked.asker.account.spend(false);
            let status = failure.status();
            tracing::info!(
                %method, %registry, repository, kind, %what, host, status, %failure, counted = false, milliseconds,
                "asked upstream in vain"
            );
        }
    }
}

/// Whether a registry with a pull limit counts this: a GET of a manifest that it let through (Docker Hub's
/// documentation, "Pull usage and limits": a HEAD is no pull).
fn counts(asked: &Asked, method: &Method, status: StatusCode) -> bool {
    matches!(asked.kind, Kind::Manifest(_))
        && asked.place == Place::Upstream
        && method == Method::GET
        && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, Repository};
    use crate::upstream::reach::Reach;
    use crate::upstream::{Account, Asker, Credential};

    #[test]
    fn only_a_get_of_a_manifest_that_was_let_through_counts() {
        let asked = |kind, place| {
            let repository = Repository::new("docker.io".parse().unwrap(), "nginx").unwrap();
            let asker = Asker {
                credential: Credential::Anonymous,
                account: Account::default(),
                only_registry: false,
            };
            Asked { repository, kind, place, reach: Reach::Public, asker }
        };
        let manifest = asked(Kind::Manifest("latest".parse().unwrap()), Place::Upstream);
        let elsewhere = asked(Kind::Manifest("latest".parse().unwrap()), Place::Redirected);
        let blob = asked(Kind::Blob(Digest::of(b"")), Place::Upstream);
        for (asked, method, status, counted) in [
            (&manifest, Method::GET, 200, true),
            (&manifest, Method::GET, 304, true),
            (&manifest, Method::GET, 404, true),
            (&manifest, Method::GET, 307, true),
            (&manifest, Method::GET, 401, false),
            (&manifest, Method::GET, 429, false),
            (&manifest, Method::HEAD, 200, false),
            (&elsewhere, Method::GET, 200, false),
            (&blob, Method::GET, 200, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(counts(asked, &method, status), counted, "{method} {} {status}", asked.kind.name());
        }
    }
}
