//! The layer that tells of each request, in the record and by a line in the log.
//!
//! Owns what is told, and which requests a registry counts against its pull limit. How much of a body has come is told as
//! it is read. Never tells an address whole: a
//! redirect's query is a signature.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use http::{Extensions, Method, StatusCode};
use tower::{Service, ServiceExt};

use super::asked::{Answer, Asked, Kind, Place, Request};
use super::failure::{Failure, Forbidden};
use super::limits::Left;
use super::reach::Reach;
use crate::clock;
use crate::oci::Repository;
use crate::proto::v1::UpstreamRequest;

/// Tells of each request once it has its answer, and puts it on the account of whoever it was sent for.
#[derive(Clone)]
pub(super) struct Record<S> {
    inner: S,
    record: crate::record::Record,
}

impl<S> Record<S> {
    /// Around this service.
    pub(super) fn new(inner: S, record: crate::record::Record) -> Self {
        Self { inner, record }
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
        let record = self.record.clone();
        async move {
            let (at, began) = (clock::now(), clock::instant());
            let mut answer = answer.await;
            let took = clock::instant().duration_since(began);
            let request =
                UpstreamRequest { at: Some(at.into()), host, ..told(&asked, &method, &answer, took) };
            log(&request, answer.as_ref().err());
            if let (Ok(answer), false) = (&mut answer, asked.kind == Kind::Login) {
                let (record, from) = (record.clone(), asked.repository.clone());
                answer.extensions_mut().insert(Teller { record, from });
            }
            match &answer {
                // What may not be gone to was not asked. The registry itself: what it leads to is another matter, and a
                // listed one may be anywhere.
                Err(Failure::Forbidden(Forbidden::Address { address, standing, .. })) => {
                    if asked.place == Place::Upstream
                        && asked.kind != Kind::Token
                        && asked.reach < Reach::Anywhere
                    {
                        record.kept_out(asked.repository.registry().as_str(), *address, standing, at);
                    }
                }
                Err(Failure::Forbidden(_)) => {}
                Ok(_) | Err(_) => asked.asker.account.spend(&record.sent(request)),
            }
            answer
        }
        .boxed()
    }
}

/// Stands with an answer, and tells how much of its body has come.
#[derive(Clone)]
pub(super) struct Teller {
    record: crate::record::Record,
    from: Repository,
}

/// How much of a body has come and is not told yet. The rest is told when it is dropped.
pub(super) struct Tally {
    teller: Option<Teller>,
    untold: u64,
}

/// So many bytes are told at once.
const TOLD_AT_ONCE: u64 = 1 << 20;

impl Tally {
    /// Of the body of this answer.
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self { teller: extensions.get().cloned(), untold: 0 }
    }

    /// More has come.
    pub(super) fn add(&mut self, bytes: usize) {
        self.untold += bytes as u64;
        if self.untold >= TOLD_AT_ONCE {
            self.tell();
        }
    }

    /// Tells what is not told yet.
    pub(super) fn tell(&mut self) {
        if let (Some(Teller { record, from }), 1..) = (&self.teller, self.untold) {
            record.downloaded(from, self.untold, clock::now());
        }
        self.untold = 0;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.tell();
    }
}

fn told(asked: &Asked, method: &Method, answer: &Result<Answer, Failure>, took: Duration) -> UpstreamRequest {
    let request = UpstreamRequest {
        took: took.try_into().ok(),
        registry: asked.repository.registry().to_string(),
        repository: asked.repository_name().to_owned(),
        kind: asked.kind.name().to_owned(),
        target: asked.kind.to_string(),
        method: method.to_string(),
        asked_by: asked.asker.account.asked_by().to_owned(),
        by_operator: asked.asker.account.is_operators(),
        ..UpstreamRequest::default()
    };
    match answer {
        Ok(answer) => {
            let left = Left::among(answer.headers());
            UpstreamRequest {
                status: answer.status().as_u16().into(),
                counted: counts(asked, method, answer.status()),
                remaining: left.as_ref().map(|left| left.remaining),
                limit: left.as_ref().and_then(|left| left.limit),
                window: left.as_ref().and_then(|left| left.window?.try_into().ok()),
                source: left.and_then(|left| left.source).unwrap_or_default(),
                ..request
            }
        }
        Err(failure) => {
            let status = failure.status().unwrap_or_default().into();
            UpstreamRequest { status, failure: failure.to_string(), ..request }
        }
    }
}

fn log(request: &UpstreamRequest, failure: Option<&Failure>) {
    let UpstreamRequest { method, registry, repository, kind, target, host, counted, .. } = request;
    let status = Some(request.status).filter(|status| *status != 0);
    let what = target;
    let took = request.took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match failure {
        None => {
            let (remaining, source) =
                (request.remaining, Some(&*request.source).filter(|source| !source.is_empty()));
            tracing::info!(
                %method, %registry, repository, kind, %what, host, status, counted, remaining, source,
                milliseconds, "asked upstream"
            );
        }
        Some(failure) => {
            tracing::info!(
                %method, %registry, repository, kind, %what, host, status, %failure, counted, milliseconds,
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
