//! The layer that gives up on an answer that does not begin. Bodies have a limit of their own.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tower::{Service, ServiceExt};

use super::asked::{Answer, Request};
use super::failure::{Failure, Wait};

/// Waits for the head of an answer for so long, connecting included.
#[derive(Clone)]
pub(super) struct TimeOut<S> {
    inner: S,
    after: Duration,
}

impl<S> TimeOut<S> {
    /// Around this service, this long.
    pub(super) fn new(inner: S, after: Duration) -> Self {
        Self { inner, after }
    }
}

impl<S> Service<Request> for TimeOut<S>
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
        let answer = tokio::time::timeout(self.after, self.inner.clone().oneshot(request));
        async { answer.await.unwrap_or(Err(Failure::TimedOut(Wait::Headers))) }.boxed()
    }
}
