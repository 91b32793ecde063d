//! Bringing a file's bytes to the disk while more of them come, so that its commit has little left to wait for.
//!
//! Invariant: what the disk failed to take once is never said to be durable. The system tells of such a failure a
//! single time, and whether a later sync means all bytes nobody knows.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::StoreError;
use super::disk::Disk;

/// How many bytes come between two flushes. One is under way at a time, so twice as many may be left at the end.
const EVERY_BYTES: u64 = if cfg!(test) { 16 } else { 32 << 20 };

/// How much of a file that grows is on the disk.
#[derive(Default)]
pub(super) struct Flush {
    /// Up to where a flush was begun, in bytes.
    begun: u64,
    /// The length at which all of the file was known to be durable, in bytes.
    durable: Option<u64>,
    running: Option<Running>,
    failed: Option<StoreError>,
}

/// A flush on a thread of its own: a wait for the disk that others of its kind would have to queue behind.
pub(super) type Running = JoinHandle<Result<(), StoreError>>;

impl Flush {
    /// Takes note that the file has grown. Where the disk is slower than what comes, the writer waits here, and not
    /// at the commit.
    pub(super) fn grown(
        &mut self,
        disk: &Disk,
        path: &Path,
        file: &Arc<File>,
        length: u64,
    ) -> Result<(), StoreError> {
        if length.saturating_sub(self.begun) >= EVERY_BYTES {
            self.wait()?;
            self.begun = length;
            self.running = disk.sync_behind(path, file).inspect_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Makes all of the file durable.
    pub(super) fn finish(
        &mut self,
        disk: &Disk,
        path: &Path,
        file: &File,
        length: u64,
    ) -> Result<(), StoreError> {
        self.wait()?;
        if self.durable != Some(length) {
            disk.sync(path, file).inspect_err(|error| self.fail(error))?;
            self.durable = Some(length);
        }
        Ok(())
    }

    /// One that the disk has refused.
    #[cfg(test)]
    pub(super) fn refused(error: StoreError) -> Self {
        Self { failed: Some(error), ..Self::default() }
    }

    /// The file is about to be changed, were it only to be cut back again: what was durable is so no more.
    pub(super) fn disturbed(&mut self) -> Result<(), StoreError> {
        self.durable = None;
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Whether bytes may be missing on the disk.
    pub(super) fn failed(&self) -> bool {
        self.failed.is_some()
    }

    fn wait(&mut self) -> Result<(), StoreError> {
        match self.running.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => self.fail(&error),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(Ok(()))) | None => {}
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: &StoreError) {
        self.failed = Some(error.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_disk_refused_once_is_never_durable() {
        let disk = Disk::default();
        let path = Path::new("refused");
        // A socket cannot be synced.
        let refused = Arc::new(File::from(OwnedFd::from(UnixStream::pair().unwrap().0)));
        let mut flush = Flush::default();
        flush.grown(&disk, path, &refused, EVERY_BYTES).unwrap();
        flush.finish(&disk, path, &refused, EVERY_BYTES).unwrap_err();
        let well = Arc::new(tempfile::tempfile().unwrap());
        flush.finish(&disk, path, &well, EVERY_BYTES).unwrap_err();
        flush.grown(&disk, path, &well, 2 * EVERY_BYTES).unwrap_err();
        assert!(flush.failed());
        flush.disturbed().unwrap_err();
    }
}
