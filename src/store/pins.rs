//! Pins: the references that the operator wants to keep, whatever they point at.
//!
//! A pin is of a name. What it covers is looked up each time that it matters; here is only that it is there.

use std::time::SystemTime;

use super::records::PinRecord;
use super::sources::parsed;
use super::{Hold, StoreError};
use crate::oci::{ImageName, Reference};

/// A reference that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Of what.
    pub name: ImageName,
    /// Since when.
    pub pinned_at: SystemTime,
}

impl Hold {
    /// Pins a reference, for good. One that is pinned stays as it is. *Blocking.*
    ///
    /// # Errors
    /// When the index fails.
    pub fn pin(&self, name: &ImageName, now: SystemTime) -> Result<(), StoreError> {
        if !self.is_pinned(name)? {
            let record = PinRecord { pinned_at: now.into() };
            self.inner.index.put_pin(&name.repository.to_string(), &name.reference.to_string(), &record)?;
            self.inner.index.flush()?;
        }
        Ok(())
    }

    /// Ends a pin, and answers whether there was one. *Blocking.*
    ///
    /// # Errors
    /// When the index fails.
    pub fn unpin(&self, name: &ImageName) -> Result<bool, StoreError> {
        let pinned = self.is_pinned(name)?;
        if pinned {
            self.inner.index.remove_pin(&name.repository.to_string(), &name.reference.to_string())?;
            self.inner.index.flush()?;
        }
        Ok(pinned)
    }

    /// Whether a reference is pinned by this very name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn is_pinned(&self, name: &ImageName) -> Result<bool, StoreError> {
        let record = self.inner.index.pin(&name.repository.to_string(), &name.reference.to_string())?;
        Ok(record.is_some())
    }

    /// All pins, in the order of their names.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let pin = |(repository, reference, record): (String, String, PinRecord)| {
            let damaged = |_| StoreError::Damaged(format!("the record of the pin of {repository}"));
            let reference: Reference = reference.parse().map_err(damaged)?;
            let name = ImageName { repository: parsed(&repository)?, reference };
            Ok(Pin { name, pinned_at: record.pinned_at.into() })
        };
        self.inner.index.pins()?.into_iter().map(pin).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_pin_is_of_a_name_and_outlives_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let name = |text: &str| text.parse::<ImageName>().unwrap();
        let digest = format!("ghcr.io/a/b@{}", crate::oci::Digest::of(b""));
        let now = clock::now();
        {
            let hold = Hold::open(folder.path(), now).unwrap().0;
            hold.pin(&name("nginx"), now).unwrap();
            hold.pin(&name(&digest), now).unwrap();
            hold.pin(&name("nginx:1"), now).unwrap();
            assert!(hold.unpin(&name("nginx:1")).unwrap());
        }
        let hold = Hold::open(folder.path(), now).unwrap().0;
        let pins: Vec<_> = hold.pins().unwrap().into_iter().map(|pin| pin.name.to_string()).collect();
        assert_eq!(pins, ["docker.io/library/nginx:latest".to_owned(), digest]);
        assert!(hold.is_pinned(&name("docker.io/library/nginx:latest")).unwrap());
        assert!(!hold.unpin(&name("nginx:1")).unwrap());
    }
}
