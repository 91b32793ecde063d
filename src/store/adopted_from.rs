//! The word that all of another store was taken over, a file for each containerd: `adopted-from/<containerd>`.
//!
//! Who gives a containerd this hold as its content store looks for it first. It is JSON, for people and tools alike.
//!
//! Invariant: the file is whole and durable, or not there.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Hold, Owner, StoreError};

/// What was taken over, from where and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedFrom {
    /// The containerd's root folder.
    pub root: PathBuf,
    /// Since when its store may have had more: nothing that came before this was left out.
    #[serde(with = "rfc3339")]
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

    /// That word, if it was given. *Blocking.*
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn adopted_from(&self, owner: &Owner) -> Result<Option<AdoptedFrom>, StoreError> {
        let path = self.inner.files.adopted_from(owner.as_str());
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| StoreError::io("read", &path)(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// Takes that word back. *Blocking.*
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_adopted_from(&self, owner: &Owner) -> Result<(), StoreError> {
        self.inner.files.remove_durably(&self.inner.files.adopted_from(owner.as_str()))
    }
}

mod rfc3339 {
    use std::time::SystemTime;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_nanos(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}
