//! Room on the disk: how much is left, and how much of that the cache does not take.
//!
//! The index does not outlive a full disk, and neither do others on the node. So what comes in is refused, or cut off,
//! before the last of the disk is gone. What containerds write themselves is not held up here: they have said that they
//! want it, and would run into the end of any disk in the same way.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Hold, StoreError};

/// What a manifest, and what the index writes with it, may take.
const LEAST_BYTES: u64 = 1 << 20;

/// How many bytes stay free when a download begins, and while it goes on; 0 until it is set.
#[derive(Default)]
pub(super) struct Floor(AtomicU64);

/// The file system that the hold is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// How large it is, in bytes.
    pub total_bytes: u64,
    /// What is free on it for us, in bytes.
    pub free_bytes: u64,
}

impl Hold {
    /// How much room there is on the disk: one call that the kernel answers from memory.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn disk_space(&self) -> Result<DiskSpace, StoreError> {
        let files = &self.inner.files;
        let said = files.file_system().map_err(StoreError::io("ask for the room on", files.data_dir()))?;
        Ok(DiskSpace {
            total_bytes: said.f_blocks.saturating_mul(said.f_frsize),
            free_bytes: said.f_bavail.saturating_mul(said.f_frsize),
        })
    }

    /// Says how many bytes no download may take.
    pub fn keep_free(&self, bytes: u64) {
        self.inner.floor.0.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes a download may take. Where the system does not say, as many as there are.
    pub(super) fn room(&self) -> u64 {
        let floor = self.inner.floor.0.load(Ordering::Relaxed);
        self.disk_space().map_or(u64::MAX, |space| space.free_bytes.saturating_sub(floor))
    }

    /// Whether there is no room even for a manifest: what is fetched could not be kept, and would be fetched again.
    pub(super) fn is_full(&self) -> bool {
        self.disk_space().is_ok_and(|space| space.free_bytes < LEAST_BYTES)
    }
}
