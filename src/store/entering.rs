//! Which commits the index may not have yet.
//!
//! Each commit leaves a note on the disk, an empty file beside the blobs, which goes once the index has been flushed.
//! After a crash nobody has to look through all blobs for those that the index lost.
//!
//! Invariant: a blob that was answered as committed is in the index as it is on the disk, or its note is durable.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Hold, StoreError};

/// How many notes may stand: so many the next start reads. Their number also is how many commits share a flush.
const MOST_NOTES: usize = 256;

/// The notes whose blobs were entered since the last flush.
#[derive(Default)]
pub(super) struct Entering(Mutex<Vec<PathBuf>>);

impl Entering {
    fn notes(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// That a blob with a note has been entered. Not before: the note of a commit that fails half-way stays.
    pub(super) fn entered(&self, note: PathBuf) -> Result<(), StoreError> {
        let mut notes = self.inner.entering.notes();
        notes.push(note);
        let full = notes.len() >= MOST_NOTES;
        drop(notes);
        if full { self.flush() } else { Ok(()) }
    }

    /// Waits until everything that was answered is on the disk. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<(), StoreError> {
        let notes = std::mem::take(&mut *self.inner.entering.notes());
        if let Err(error) = self.inner.index.flush() {
            self.inner.entering.notes().extend(notes);
            return Err(error);
        }
        notes.iter().try_for_each(|note| self.inner.files.disk().remove(note))
    }
}
