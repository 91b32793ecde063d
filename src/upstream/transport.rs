//! The bottom of the stack: pooled connections, and what their errors mean.
//!
//! Owns one pool of connections for each reach, so that a connection made for a trusted request can't serve one
//! that was led to the same host by a stranger. Knows nothing of registries.

use std::error::Error;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::asked::{Answer, Apart, Asked, Request};
use super::dial::{Dial, Protocols, TooSlow};
use super::failure::{Cause, Failure, Forbidden, Wait};
use super::reach::Reach;

/// How long a connection without work is kept: shorter than the servers' own patience.
const IDLE_CONNECTION: Duration = Duration::from_secs(55);

/// How many connections without work are kept for each host.
const IDLE_CONNECTIONS: usize = 16;

/// How long an HTTP/2 connection may be silent before it is asked whether it still lives, and how long it may
/// take to say so. Without this a connection that died silently would swallow every request for many minutes.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

type Client = legacy::Client<Dial, Full<Bytes>>;

/// Sends a request as it is and answers once the head of the answer is there.
#[derive(Clone)]
pub(super) struct Transport {
    public: Clients,
    private: Clients,
    anywhere: Clients,
}

/// The connections for one reach.
#[derive(Clone)]
struct Clients {
    usual: Client,
    /// Without HTTP/2, which would put the parts of a blob that are asked for at once on one connection.
    apart: Client,
}

impl Transport {
    /// A transport whose connections take at most `connect` to make.
    pub(super) fn new(connect: Duration) -> Self {
        let client = |reach, protocols| {
            let dial = Dial::new(reach, connect, protocols);
            if (reach, protocols) == (Reach::Public, Protocols::All) && !dial.has_roots() {
                tracing::warn!("no root certificates on this machine: https upstreams can't be asked");
            }
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_CONNECTION)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .http2_keep_alive_interval(PING.0)
                .http2_keep_alive_timeout(PING.1)
                .http2_keep_alive_while_idle(true)
                .build(dial)
        };
        let both = |reach| Clients {
            usual: client(reach, Protocols::All),
            apart: client(reach, Protocols::OnlyHttp1),
        };
        Self { public: both(Reach::Public), private: both(Reach::Private), anywhere: both(Reach::Anywhere) }
    }
}

impl Service<Request> for Transport {
    type Response = Answer;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Answer, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let clients = match Asked::of(&request).reach {
            Reach::Public => &self.public,
            Reach::Private => &self.private,
            Reach::Anywhere => &self.anywhere,
        };
        let client = match request.extensions().get::<Apart>() {
            Some(Apart) => &clients.apart,
            None => &clients.usual,
        };
        client.request(request).map_err(failure).boxed()
    }
}

/// What an error of the client means: our own refusals lie at the bottom of its chain.
fn failure(error: legacy::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(forbidden) = inner.downcast_ref::<Forbidden>() {
            return forbidden.clone().into();
        }
        if inner.is::<TooSlow>() {
            return Failure::TimedOut(Wait::Connection);
        }
        if let Some(http) = inner.downcast_ref::<hyper::Error>()
            && (http.is_parse() || http.is_user())
        {
            return Failure::unusable(Cause::new(error).to_string());
        }
        cause = inner.source();
    }
    if error.is_connect() {
        return Failure::Unreachable(Cause::new(error));
    }
    Failure::Broken(Cause::new(error))
}
