//! The layer that asks once more where a connection broke before any answer.
//!
//! Servers close idle connections at any time, and a request may meet that moment; it deserves a second
//! connection. Refuses everything else: a refused connection, a timeout or any status is an answer of its own.

use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use tower::{Service, ServiceExt};

use super::asked::{Answer, Request};
use super::failure::Failure;

/// Sends a request a second time at most.
#[derive(Clone)]
pub(super) struct Retry<S> {
    inner: S,
}

impl<S> Retry<S> {
    /// Around this service.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request> for Retry<S>
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
        let inner = self.inner.clone();
        async move {
            match inner.clone().oneshot(request.clone()).await {
                Err(Failure::Broken(cause)) => {
                    tracing::debug!(%cause, "the connection broke before an answer; asking once more");
                    inner.oneshot(request).await
                }
                answer => answer,
            }
        }
        .boxed()
    }
}
