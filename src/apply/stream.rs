//! The uncompressed bytes of a layer on their way: made by one thread, hashed by a second, taken apart by a third.
//!
//! Invariant: what is hashed is what is written, since both read the same chunks. There are never more chunks than the
//! queues have room for, and each is used again when both are done with it.

use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::oci::{Algorithm, Digest, Hasher};

/// How much is handed on at a time, in bytes: what two cores can hand to each other by way of their caches.
const CHUNK_BYTES: usize = 256 << 10;

/// How many chunks may wait for each reader.
const WAITING_CHUNKS: usize = 8;

/// Why there are no more bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum StreamError {
    /// They are not what they should be.
    #[error("the layer's bytes cannot be decompressed: {0}")]
    Damaged(String),
    /// The hold's file could not be read.
    #[error("the layer's file cannot be read: {0}")]
    Unreadable(String),
    /// Nobody wants them any more.
    #[error("whoever asked for the layer has gone")]
    Cancelled,
}

/// Some bytes, of which the first so many count.
struct Chunk {
    bytes: Vec<u8>,
    length: usize,
    home: Home,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.bytes));
    }
}

/// Where buffers wait to be used again.
#[derive(Clone, Default)]
struct Home(Arc<Mutex<Vec<Vec<u8>>>>);

impl Home {
    fn take(&self) -> Vec<u8> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        known.unwrap_or_else(|| vec![0; CHUNK_BYTES])
    }

    fn put(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// The end that makes the chunks.
pub(super) struct Source {
    to_reader: SyncSender<Result<Arc<Chunk>, StreamError>>,
    to_hasher: SyncSender<Arc<Chunk>>,
    cancel: CancellationToken,
}

/// The end that hashes them.
pub(super) struct Hashing {
    chunks: Receiver<Arc<Chunk>>,
}

/// The end that reads them.
pub(super) struct Stream {
    chunks: Receiver<Result<Arc<Chunk>, StreamError>>,
    chunk: Option<Arc<Chunk>>,
    /// How far the chunk was read.
    at: usize,
    cancel: CancellationToken,
}

/// The three ends of a new stream.
pub(super) fn stream(cancel: CancellationToken) -> (Source, Hashing, Stream) {
    let (to_reader, chunks) = sync_channel(WAITING_CHUNKS);
    let (to_hasher, hashed) = sync_channel(WAITING_CHUNKS);
    let stream = Stream { chunks, chunk: None, at: 0, cancel: cancel.clone() };
    (Source { to_reader, to_hasher, cancel }, Hashing { chunks: hashed }, stream)
}

impl Source {
    /// Reads to the end and hands on what comes, or the reason why nothing more does. Ends early where the reader has.
    pub(super) fn pump(self, mut from: impl Read) {
        let home = Home::default();
        loop {
            let mut chunk = Chunk { bytes: home.take(), length: 0, home: home.clone() };
            let filled = match self.cancel.is_cancelled() {
                true => Err(StreamError::Cancelled),
                false => fill(&mut from, &mut chunk.bytes),
            };
            match filled {
                Ok(0) => return,
                Ok(length) => {
                    chunk.length = length;
                    let chunk = Arc::new(chunk);
                    let hashed = self.to_hasher.send(Arc::clone(&chunk));
                    if hashed.is_err() || self.to_reader.send(Ok(chunk)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Where the reader has gone, nobody is left to be told.
                    let _ = self.to_reader.send(Err(error));
                    return;
                }
            }
        }
    }
}

impl Source {
    /// Tells the reader that there will be nothing.
    pub(super) fn fail(self, error: &std::io::Error) {
        let _ = self.to_reader.send(Err(StreamError::Unreadable(error.to_string())));
    }
}

impl Hashing {
    /// The digest and the length of everything that comes.
    pub(super) fn hash(self) -> (Digest, u64) {
        let (mut hasher, mut length) = (Hasher::new(Algorithm::Sha256), 0);
        for chunk in self.chunks {
            hasher.update(chunk.bytes());
            length += chunk.length as u64;
        }
        (hasher.digest(), length)
    }
}

impl Stream {
    /// Some bytes, at most so many, where they lie; none at the end.
    pub(super) fn some(&mut self, most: usize) -> Result<&[u8], StreamError> {
        // Each entry of an archive comes by here: what is queued already may be thousands, and each slow.
        if self.cancel.is_cancelled() {
            return Err(StreamError::Cancelled);
        }
        while self.chunk.as_ref().is_none_or(|chunk| self.at >= chunk.length) {
            self.at = 0;
            // Done with before the wait, so that it can be filled again.
            self.chunk = None;
            match self.chunks.recv() {
                Ok(chunk) => self.chunk = Some(chunk?),
                Err(_) => return Ok(&[]),
            }
        }
        let from = self.at;
        let Some(chunk) = &self.chunk else { return Ok(&[]) };
        self.at = chunk.length.min(from.saturating_add(most));
        Ok(chunk.bytes().get(from..self.at).unwrap_or_default())
    }

    /// Fills the buffer as far as there are bytes, and answers how far.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let bytes = self.some(rest.len())?;
            if bytes.is_empty() {
                break;
            }
            // Never more than was asked for.
            rest.split_at_mut(bytes.len()).0.copy_from_slice(bytes);
            filled += bytes.len();
        }
        Ok(filled)
    }

    /// Passes over everything that is left, so that it is hashed.
    pub(super) fn drain(&mut self) -> Result<(), StreamError> {
        while !self.some(usize::MAX)?.is_empty() {}
        Ok(())
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, StreamError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Decompressors have errors of their own; what the system says has a number.
            Err(error) if error.raw_os_error().is_some() => {
                return Err(StreamError::Unreadable(error.to_string()));
            }
            Err(error) => return Err(StreamError::Damaged(error.to_string())),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_when_a_request_ends_is_not_worked_off() {
        let cancel = CancellationToken::new();
        let (source, hashing, mut stream) = stream(cancel.clone());
        source.pump([7; 1024].as_slice());
        assert_eq!(stream.some(512).unwrap(), [7; 512]);
        cancel.cancel();
        assert!(matches!(stream.some(512), Err(StreamError::Cancelled)));
        assert_eq!(hashing.hash().1, 1024);
    }
}
