//! The connections: how many there may be, how long each may be silent or take nothing in, and how they end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::serve::listen;

/// How many connections are served at a time. Those beyond wait in the listener's queue.
const MOST_CONNECTIONS: usize = 256;

/// How long a connection may wait with the head of its next request.
const SILENT_FOR: Duration = Duration::from_secs(60);

/// How long a client may take nothing in.
const STALLED_FOR: Duration = Duration::from_secs(30);

/// The longest head of a request, in bytes.
const MOST_HEAD_BYTES: usize = 16 << 10;

/// How long answers may go on at a stop.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Serves until `stop`, and then until the last answer has ended.
pub(super) async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let serve = |stream, _| serve(stream, router.clone(), stop.clone());
    listen::connections(listener, MOST_CONNECTIONS, &stop, serve).await;
}

async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    // An event is to be seen when it happens.
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SILENT_FOR).max_buf_size(MOST_HEAD_BYTES);
    let io = TokioIo::new(Impatient { stream, stalled: None });
    let connection = server.serve_connection(io, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(ENDS_WITHIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the status page ended early");
    }
}

/// A connection that breaks off where the other side takes nothing in.
struct Impatient {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn no_longer_than<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED_FOR)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.no_longer_than(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.no_longer_than(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
