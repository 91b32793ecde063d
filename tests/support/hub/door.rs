//! A listener that can be closed and opened again on the same port, and the connections behind it, which can be
//! reset or cut off at an exact byte. It knows TCP and hands every request on.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::config::HeaderStyle;
use super::exchange::exchange;
use super::shared::Shared;
use super::target::Role;

/// Takes the port: bound, and listening as soon as it is asked to.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Takes a port again that was ours a moment ago. A process that is being started, and has not come to its own
/// program yet, holds a copy of the listener for another moment: the bind is tried until that is gone.
async fn rebind(address: SocketAddr) -> TcpSocket {
    // Milliseconds: far more than a process takes to come to its program, on a busy machine too.
    const MOST_TRIES: u32 = 60_000;
    let mut tries = 0;
    loop {
        match bind(address) {
            Ok(socket) => return socket,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < MOST_TRIES => tries += 1,
            Err(error) => panic!("the port was ours a moment ago: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One of the three listeners. Dropping it ends the listener and its connections.
pub(super) struct Door {
    _task: AbortOnDropHandle<()>,
}

impl Door {
    /// Listens on a bound socket.
    pub(super) fn open(socket: TcpSocket, role: Role, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { _task: AbortOnDropHandle::new(tokio::spawn(attend(listener, role, shared))) })
    }
}

/// Opens and closes a door from elsewhere.
pub(super) struct Latch {
    wanted: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Default for Latch {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(true), open: watch::Sender::new(true) }
    }
}

impl Latch {
    /// Returns when it is done. Closing cuts the connections.
    pub(super) async fn set_open(&self, open: bool) {
        self.wanted.send_replace(open);
        self.open.subscribe().wait_for(|is| *is == open).await.expect("the sender lives as long as self");
    }

    async fn wanted(&self, open: bool) {
        self.wanted
            .subscribe()
            .wait_for(|wanted| *wanted == open)
            .await
            .expect("the sender lives as long as self");
    }
}

const BACKLOG: u32 = 1024;

async fn attend(mut listener: TcpListener, role: Role, shared: Arc<Shared>) {
    let (address, latch) = (shared.addresses.of(role), shared.latch(role));
    loop {
        accept(&listener, role, &shared).await;
        drop(listener);
        // Bound but not listening: connections are refused, and nobody else can take the port.
        let socket = rebind(address).await;
        latch.open.send_replace(false);
        latch.wanted(true).await;
        listener = socket.listen(BACKLOG).expect("a socket that holds its port can listen on it");
        latch.open.send_replace(true);
    }
}

/// Accepts until the listener is to close; its connections end with it.
async fn accept(listener: &TcpListener, role: Role, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut closing = pin!(shared.latch(role).wanted(false));
    loop {
        tokio::select! {
            () = &mut closing => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                // A client that left before it was accepted is no concern of ours.
                if let Ok((stream, peer)) = accepted {
                    connections.spawn(serve(stream, peer, role, Arc::clone(shared)));
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, peer: SocketAddr, role: Role, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let cut = Cut::default();
    let wire = Wire { stream, cut: cut.clone() };
    let titlecase = shared.config.headers == HeaderStyle::Titlecase;
    let service = service_fn(move |request| {
        let (shared, cut) = (Arc::clone(&shared), cut.clone());
        Box::pin(async move { exchange(shared, role, peer.ip(), cut, request).await })
    });
    let mut connection =
        http1::Builder::new().title_case_headers(titlecase).serve_connection(TokioIo::new(wire), service);
    let ended = Pin::new(&mut connection).await;
    if ended.is_err_and(|error| asked_to_reset(&error)) {
        // With nothing to linger for, closing the socket sends RST.
        let _ = connection.into_parts().io.into_inner().stream.set_zero_linger();
    }
}

/// What a request is answered with when its connection is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset")]
pub(super) struct Reset;

fn asked_to_reset(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Reset>())
}

/// Ends its connection once everything written so far has gone out.
#[derive(Clone, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(super) fn when_flushed(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection that can be cut. The server flushes when its own buffer is empty, so whatever was to precede the cut
/// has been handed to the kernel by then.
struct Wire {
    stream: TcpStream,
    cut: Cut,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.cut.0.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
