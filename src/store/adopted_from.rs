//! The word that all of another store was taken over, a file for each containerd: `adopted-from/<containerd>`.
//!
//! Who gives a containerd this hold as its content store looks for it first. It is JSON, for people and tools alike.
//!
//! Invariant: the file is whole and durable, or not there.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{Hold, Owner, StoreError};

/// What was taken over, from where and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdoptedFrom {
    /// The containerd's root folder.
    pub root: PathBuf,
    /// Since when its store may have had more: nothing that came before this was left out.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// How many blobs the store had then.
    pub blobs: u64,
}

impl Hold {
    /// Keeps that word, in the place of an earlier one. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_adopted_from(&self, owner: &Owner, from: &AdoptedFrom) -> Result<(), StoreError> {
        let files = &self.inner.files;
        let path = files.adopted_from(owner.as_str());
        let text = serde_json::to_vec(from).map_err(io::Error::from);
        let text = text.map_err(StoreError::io("describe", &path))?;
        files.replace_small(&path, &text)
    }

    /// Takes that word back. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_adopted_from(&self, owner: &Owner) -> Result<(), StoreError> {
        self.inner.files.remove_durably(&self.inner.files.adopted_from(owner.as_str()))
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_nanos(*time))
}
