//! Who may read a repository: what its registry says of everybody, and who has proven to be a reader.
//!
//! Who somebody is, is told by a digest alone: no token and no password is kept. What is here grants nothing; whoever
//! asks decides for how long it holds.

use std::time::SystemTime;

use super::records::{ProofRecord, ReadersRecord};
use super::{Hold, StoreError};
use crate::oci::{Digest, Repository};

/// Who may read a repository, as its registry said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readers {
    /// Anyone, and when that was said.
    Anyone {
        /// When the registry last served somebody without credentials.
        said_at: SystemTime,
    },
    /// Only those who prove themselves.
    Proven {
        /// The challenge by which they do, as the registry put it; empty where it put none.
        challenge: String,
    },
}

impl Hold {
    /// Who may read a repository, if its registry has said.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn readers(&self, repository: &Repository) -> Result<Option<Readers>, StoreError> {
        let record = self.inner.index.readers(&repository.to_string())?;
        Ok(record.map(|record| match record.anyone {
            true => Readers::Anyone { said_at: record.said_at.into() },
            false => Readers::Proven { challenge: record.challenge },
        }))
    }

    /// Notes who may read a repository.
    ///
    /// # Errors
    /// When the index fails.
    pub fn note_readers(
        &self,
        repository: &Repository,
        readers: &Readers,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let record = match readers {
            Readers::Anyone { said_at } => {
                ReadersRecord { anyone: true, challenge: String::new(), said_at: (*said_at).into() }
            }
            Readers::Proven { challenge } => {
                ReadersRecord { anyone: false, challenge: challenge.clone(), said_at: now.into() }
            }
        };
        self.inner.index.put_readers(&repository.to_string(), &record)
    }

    /// When somebody last proved to be a reader of a repository.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn proven_at(&self, repository: &Repository, who: &Digest) -> Result<Option<SystemTime>, StoreError> {
        let record = self.inner.index.proof(&repository.to_string(), who.as_str())?;
        Ok(record.map(|record| record.proven_at.into()))
    }

    /// Notes that somebody has proven to be a reader of a repository.
    ///
    /// # Errors
    /// When the index fails.
    pub fn note_proof(
        &self,
        repository: &Repository,
        who: &Digest,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let record = ProofRecord { proven_at: now.into() };
        self.inner.index.put_proof(&repository.to_string(), who.as_str(), &record)
    }

    /// Forgets that somebody was a reader: the registry says no now.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_proof(&self, repository: &Repository, who: &Digest) -> Result<(), StoreError> {
        self.inner.index.remove_proof(&repository.to_string(), who.as_str())
    }

    /// Forgets the proofs that were given before a moment, but for this reader's.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_proofs_before(&self, moment: SystemTime, except: &Digest) -> Result<(), StoreError> {
        self.inner.index.prune_proofs(except.as_str(), |record| SystemTime::from(record.proven_at) < moment)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::oci::Registry;

    #[test]
    fn readers_and_proofs_outlive_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::new(Registry::docker_hub(), "team/app").unwrap();
        let other = Repository::new(Registry::docker_hub(), "team/app2").unwrap();
        let (ada, bob) = (Digest::of(b"ada"), Digest::of(b"bob"));
        let now = clock::now();
        let closed = Readers::Proven { challenge: "Bearer realm=\"x\"".to_owned() };
        {
            let hold = Hold::open(folder.path(), now).unwrap().0;
            assert_eq!(hold.readers(&repository).unwrap(), None);
            hold.note_readers(&repository, &Readers::Anyone { said_at: now }, now).unwrap();
            hold.note_readers(&repository, &closed, now).unwrap();
            hold.note_readers(&other, &Readers::Anyone { said_at: now }, now).unwrap();
            hold.note_proof(&repository, &ada, now).unwrap();
            hold.note_proof(&repository, &bob, now + Duration::from_secs(9)).unwrap();
            hold.flush().unwrap();
        }
        let hold = Hold::open(folder.path(), now).unwrap().0;
        assert_eq!(hold.readers(&repository).unwrap(), Some(closed));
        assert_eq!(hold.readers(&other).unwrap(), Some(Readers::Anyone { said_at: now }));
        assert_eq!(hold.proven_at(&repository, &ada).unwrap(), Some(now));
        assert_eq!(hold.proven_at(&other, &ada).unwrap(), None);
        hold.forget_proofs_before(now + Duration::from_secs(1), &ada).unwrap();
        assert_eq!(hold.proven_at(&repository, &ada).unwrap(), Some(now));
        hold.forget_proofs_before(now + Duration::from_secs(1), &bob).unwrap();
        assert_eq!(hold.proven_at(&repository, &ada).unwrap(), None);
        hold.forget_proof(&repository, &bob).unwrap();
        assert_eq!(hold.proven_at(&repository, &bob).unwrap(), None);
    }
}
