//! A service that is still being opened, and is served already.
//!
//! containerd gives a new connection to its store about a second to come to life, and fails what waits for it. Opening
//! the hold may take longer, after a crash above all. So the connection is answered at once, and each call waits.

use std::convert::Infallible;
use std::future::pending;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

/// Stands for a service until it is there. Cheap to clone.
#[derive(Clone)]
pub struct Pending<S> {
    opened: Shared<BoxFuture<'static, Option<S>>>,
}

impl<S: Clone> Pending<S> {
    /// The service that this comes to. With nothing, its calls wait until their connection ends with the daemon.
    pub fn new(opening: impl Future<Output = Option<S>> + Send + 'static) -> Self {
        Self { opened: opening.boxed().shared() }
    }
}

impl<S, R> Service<R> for Pending<S>
where
    S: Service<R, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    S::Response: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<S::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let opened = self.opened.clone();
        async move {
            match opened.await {
                Some(service) => service.oneshot(request).await,
                None => pending().await,
            }
        }
        .boxed()
    }
}

impl<S: NamedService> NamedService for Pending<S> {
    const NAME: &'static str = S::NAME;
}
