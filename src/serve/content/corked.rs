//! A socket whose writes are held together until whoever drives the connection has nothing more to say.
//!
//! The HTTP/2 library writes and flushes each DATA frame by itself. For a small read that would be three calls to
//! the system and three wake-ups of the client, where one has room for all of it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// How much is held together at most, in bytes. Beyond it writes wait for the socket.
const MOST_HELD: usize = 256 << 10;

/// A socket that keeps what is written to it until [`Corked::poll_uncork`]. A clone is the same socket.
#[derive(Clone)]
pub(super) struct Corked {
    wire: Arc<Mutex<Wire>>,
}

struct Wire {
    stream: UnixStream,
    held: BytesMut,
}

impl Corked {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { wire: Arc::new(Mutex::new(Wire { stream, held: BytesMut::new() })) }
    }

    /// Sends what is held. Whoever writes must call this before it goes to sleep.
    pub(super) fn poll_uncork(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_send(context)
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.held.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until there is room, and answers how much.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.held.len() >= MOST_HELD {
            ready!(self.poll_send(context))?;
        }
        Poll::Ready(Ok(MOST_HELD - self.held.len()))
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire();
        let room = ready!(wire.poll_room(context))?;
        let mut taken = 0;
        for slice in slices {
            let fitting = slice.get(..slice.len().min(room - taken)).unwrap_or_default();
            wire.held.extend_from_slice(fitting);
            taken += fitting.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: that is what this is for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        ready!(wire.poll_send(context))?;
        Pin::new(&mut wire.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_when_it_is_uncorked() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut corked = Corked::new(ours);
        corked.write_all(b"head, ").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"data").await.unwrap();
        assert_eq!(theirs.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        poll_fn(|context| corked.poll_uncork(context)).await.unwrap();
        let mut all = [0; 16];
        let length = theirs.read(&mut all).await.unwrap();
        assert_eq!(&all[..length], b"head, data");
    }

    #[tokio::test]
    async fn no_more_is_held_than_there_is_room_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut corked = Corked::new(ours);
        let bytes = vec![7; 5 * MOST_HELD];
        let written = tokio::spawn({
            let bytes = bytes.clone();
            async move {
                corked.write_all(&bytes).await.unwrap();
                assert!(corked.wire().held.len() <= MOST_HELD);
                corked.shutdown().await.unwrap();
            }
        });
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes);
        written.await.unwrap();
    }
}
