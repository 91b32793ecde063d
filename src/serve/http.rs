//! The HTTP/1 server of a TCP listener: how many connections there may be, how long each may be silent, and how they
//! end when the daemon stops.
//!
//! Knows no route. Invariant: whoever connects and says nothing costs a place for some seconds and never holds up a
//! stop; an answer that has begun may end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Request;
use axum::Router;
use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How many connections are served at a time. Those beyond wait in the listener's queue.
const MOST_CONNECTIONS: usize = 1024;

/// How long a connection is kept until it has brought the whole head of its next request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long nothing is accepted after the system refused to, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long a connection that is not being answered stays when the daemon stops: the end of its last answer may be
/// on its way.
const PARTING: Duration = Duration::from_millis(500);

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves until it is told to stop and the last answer has ended.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is gone already");
    }
    // One is held by the service; each answer under way holds another.
    let answering = Arc::new(());
    let counted = Arc::downgrade(&answering);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let (router, answering) = (router.clone(), Arc::clone(&answering));
        async move {
            let Ok(response) = router.oneshot(request).await;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _under_way: answering }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(PARTING, served.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) if counted.strong_count() > 1 => {}
                    Err(_) => break Ok(()),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A body that shows for as long as it lives that an answer is under way.
struct Answer {
    body: Body,
    _under_way: Arc<()>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_stop_waits_for_answers_and_not_for_those_who_ask_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (finish, finished) = oneshot::channel::<()>();
        let finished = Arc::new(tokio::sync::Mutex::new(Some(finished)));
        let slow = move || async move {
            let finished = finished.lock().await.take();
            let rest = async move {
                finished.unwrap().await.unwrap();
                Ok::<_, Infallible>(Bytes::from_static(b"end"))
            };
            let first = std::future::ready(Ok(Bytes::from_static(b"begin ")));
            let body = futures_util::stream::StreamExt::chain(
                futures_util::stream::once(first),
                futures_util::stream::once(rest),
            );
            Body::from_stream(body)
        };
        let router = Router::new().route("/slow", get(slow)).fallback(async || "soon");
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, stop.clone()));

        let _silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HT").await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_until(&mut idle, "soon").await;
        let mut answered = TcpStream::connect(address).await.unwrap();
        answered.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_until(&mut answered, "begin ").await;

        stop.cancel();
        let mut rest = Vec::new();
        let let_go = async {
            half.read_to_end(&mut rest).await.unwrap();
            idle.read_to_end(&mut rest).await.unwrap();
        };
        tokio::time::timeout(HEAD_WITHIN / 2, let_go).await.expect("no time-out is waited for");
        assert_eq!(rest, b"");
        assert!(!server.is_finished());
        finish.send(()).unwrap();
        read_until(&mut answered, "end").await;
        server.await.unwrap();
    }

    async fn read_until(stream: &mut TcpStream, end: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "it ended early");
        }
    }
}
