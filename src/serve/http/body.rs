//! Bodies: bytes that are in memory, and blobs, which go from their file to the socket by `sendfile`.
//!
//! Invariant: a blob costs no memory of ours, however slowly it is read; it holds up no other connection of its worker
//! for longer than a few MiB take, nor for the disk.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::net::SendFlags;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

use crate::clock;
use crate::record::Sending;
use crate::resolve::BlobBytes;
use crate::store::{Sendable, blocking};

/// How much of a file is sent before others of the same worker have their turn, in bytes.
const AT_ONCE_BYTES: u64 = 4 << 20;

/// How long a client may take in nothing of an answer: longer than a disk stands still that it writes to. One that has
/// died without a word would keep its place for good.
const TAKEN_WITHIN: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(120) };

/// The body of an answer. Its length is known.
pub enum Body {
    /// All of it in memory.
    Bytes(Bytes),
    /// A range of a blob, and who is told of the bytes that leave.
    Blob(BlobBytes, Range<u64>, Sending),
}

impl Body {
    /// Nothing.
    pub fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(_, range, _) => range.end.saturating_sub(range.start),
        }
    }

    /// Sends a head and then itself. An error leaves the client with less than was announced to it: the connection
    /// is of no more use.
    pub(super) async fn send(self, head: Vec<u8>, stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => send_all(stream, head.as_slice().chain(bytes)).await,
            Self::Blob(_, range, _) if range.is_empty() => send_all(stream, head.as_slice()).await,
            Self::Blob(BlobBytes::Held(blob), range, mut sending) => {
                send_with_more_to_come(stream, &head).await?;
                send_file(stream, &blob.sendable(), range, &mut sending).await
            }
            Self::Blob(BlobBytes::Coming(mut follower), mut range, mut sending) => {
                send_all(stream, head.as_slice()).await?;
                let file = follower.sendable();
                while !range.is_empty() {
                    let readable = follower.past(range.start).await.map_err(io::Error::other)?;
                    let end = readable.min(range.end);
                    if end <= range.start {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    send_file(stream, &file, range.start..end, &mut sending).await?;
                    range.start = end;
                }
                Ok(())
            }
        }
    }
}

async fn send_all(stream: &mut TcpStream, mut bytes: impl Buf) -> io::Result<()> {
    while bytes.has_remaining() {
        taken(stream.write_buf(&mut bytes)).await?;
    }
    Ok(())
}

/// Waits for the client, and not without end.
async fn taken<T>(sending: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let within = tokio::time::timeout(TAKEN_WITHIN, sending).await;
    within.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "the client takes nothing more in")))
}

/// Sends a head that leaves in one packet with the first bytes after it.
async fn send_with_more_to_come(stream: &TcpStream, mut head: &[u8]) -> io::Result<()> {
    while !head.is_empty() {
        taken(stream.writable()).await?;
        let send = || Ok(rustix::net::send(stream, head, SendFlags::MORE | SendFlags::NOSIGNAL)?);
        match stream.try_io(Interest::WRITABLE, send) {
            Ok(sent) => head.advance(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn send_file(
    stream: &TcpStream,
    file: &Sendable,
    mut range: Range<u64>,
    sending: &mut Sending,
) -> io::Result<()> {
    // Up to where the file is known to be in memory, where nothing has been waited for since.
    let mut in_memory = range.start;
    while !range.is_empty() {
        taken(stream.writable()).await?;
        if in_memory == range.start {
            in_memory = range.end.min(range.start + AT_ONCE_BYTES);
            let part = range.start..in_memory;
            if !file.is_in_memory(part.clone()) {
                let file = file.clone();
                blocking(move || file.load(part)).await?;
            }
        }
        let part = range.start..in_memory;
        match stream.try_io(Interest::WRITABLE, || file.send(stream, part)) {
            // The file is shorter than it was.
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(sent) => {
                range.start += sent;
                sending.sent(sent, clock::instant());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                in_memory = range.start;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if in_memory == range.start {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
