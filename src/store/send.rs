//! Sending blobs from the page cache, without copying them into memory of ours.
//!
//! `sendfile` waits for the disk where a page is not in memory, and whoever calls it is an async worker: so it is
//! looked first, which costs nothing worth mentioning, and what is missing is read elsewhere.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;

use super::download::Follower;
use super::read::OpenBlob;

/// How far apart the bytes are that are looked for in memory: the system takes and drops neighbouring pages together.
const PROBED_BYTES: usize = 128 << 10;

/// How much is read at a time of what is not in memory, and how far ahead the system is told to read, in bytes.
const LOADED_AT_A_TIME: usize = 128 << 10;
const AHEAD_BYTES: NonZeroU64 = NonZeroU64::new(8 << 20).unwrap();

/// A blob's file, to be sent.
#[derive(Clone, Debug)]
pub struct Sendable(Arc<File>);

impl OpenBlob {
    /// Its file, to be sent.
    pub fn sendable(&self) -> Sendable {
        Sendable(Arc::clone(self.file()))
    }
}

impl Follower {
    /// The file, to be sent as far as it [can be read](Self::past).
    pub fn sendable(&self) -> Sendable {
        Sendable(Arc::clone(self.file()))
    }
}

impl Sendable {
    /// Whether a range can be had without waiting for the disk, as far as one can tell.
    pub fn is_in_memory(&self, range: Range<u64>) -> bool {
        let last = range.end.saturating_sub(1).max(range.start);
        range.step_by(PROBED_BYTES).chain([last]).all(|offset| {
            let mut byte = [0];
            let mut buffer = [IoSliceMut::new(&mut byte)];
            rustix::io::preadv2(&self.0, &mut buffer, offset, ReadWriteFlags::NOWAIT) == Ok(1)
        })
    }

    /// Has the system bring a range into memory, and begin to read what comes after it. *Blocking.*
    ///
    /// # Errors
    /// When the disk fails, or the file ends before.
    pub fn load(&self, mut range: Range<u64>) -> io::Result<()> {
        // Where it does not follow the advice, it is just slower.
        let _ = rustix::fs::fadvise(&self.0, range.start, Some(AHEAD_BYTES), Advice::WillNeed);
        let mut buffer = vec![0; LOADED_AT_A_TIME];
        while !range.is_empty() {
            let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(LOADED_AT_A_TIME);
            match self.0.read_at(buffer.get_mut(..wanted).unwrap_or_default(), range.start) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => range.start += read as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what the socket takes of a range, and tells how many bytes that was: none where the file has ended.
    ///
    /// # Errors
    /// When the socket takes nothing just now, or no more at all, or the disk fails.
    pub fn send(&self, socket: impl AsFd, range: Range<u64>) -> io::Result<u64> {
        let mut offset = range.start;
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let sent = rustix::fs::sendfile(socket, &self.0, Some(&mut offset), length)?;
        Ok(sent as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_in_memory_as_far_as_it_goes() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = vec![7; 300_000];
        io::Write::write_all(&mut file, &bytes).unwrap();
        let file = Sendable(Arc::new(file));
        file.load(0..300_000).unwrap();
        assert!(!file.is_in_memory(0..300_001));
        assert_eq!(file.load(299_999..300_001).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
