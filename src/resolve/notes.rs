//! What is written down of what registries say about manifests: where one was seen, where a tag points, what it lists.

use std::time::SystemTime;

use super::decide::Standing;
use super::{Inner, Resolver, Served};
use crate::oci::{Digest, Kind, Reference, Repository};
use crate::store::{Listed, StoreError, TagEntry, blocking};

/// The most children of a manifest that are remembered as such: no image has as many.
const MOST_LISTED: usize = 4096;

impl Resolver {
    /// Forgets what registries have lately refused of a repository: the next question goes to them. What the hold knows
    /// is the hold's to forget.
    pub fn forget_refusals(&self, repository: &Repository) {
        let inner = &self.inner;
        inner.refused.forget(|(of, _, _)| of == repository);
        inner.turned_away.forget(|(of, _)| of == repository);
        inner.closed.forget(|of| of == repository);
        inner.unusable.forget(|(of, _)| of == repository);
        inner.downloads.forget_failures(repository);
    }
}

impl Inner {
    /// Writes down what the registry just said: this repository has that manifest, and the tag points at it. What
    /// cannot be written down is asked again the next time, and is no reason not to answer.
    pub(super) fn note(
        &self,
        repository: &Repository,
        reference: &Reference,
        digest: &Digest,
        standing: Standing,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        match standing {
            Standing::Fresh | Standing::Stale => return Ok(()),
            Standing::Immutable | Standing::Unchanged | Standing::Changed => {}
        }
        if !self.hold.seen_in(digest, repository)? {
            self.hold.note_source(digest, repository)?;
        }
        match reference {
            Reference::Tag(tag) => {
                let entry = TagEntry { digest: digest.clone(), confirmed_at: now };
                self.hold.point_tag(repository, tag, &entry)
            }
            Reference::Digest(_) => Ok(()),
        }
    }

    /// What is new is on the disk before it is answered: a daemon killed a moment later, and started while the registry
    /// is down, still knows it. That a tag has not moved may be forgotten.
    pub(super) async fn settle(&self, standing: Standing) {
        match standing {
            Standing::Immutable | Standing::Changed => self.flush_notes().await,
            Standing::Fresh | Standing::Unchanged | Standing::Stale => {}
        }
    }

    /// Brings to the disk what registries said.
    pub(super) async fn flush_notes(&self) {
        let hold = self.hold.clone();
        self.unnoted.tell(blocking(move || hold.flush()).await);
    }

    /// Remembers where to fetch what a manifest lists. An unchanged one was noted when it was new.
    pub(super) fn note_children(
        &self,
        repository: &Repository,
        served: &Served,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        match served.standing {
            Standing::Immutable | Standing::Changed => {}
            Standing::Fresh | Standing::Unchanged | Standing::Stale => return Ok(()),
        }
        let kind = match served.kind {
            Kind::Index => Listed::Manifest,
            Kind::Image => Listed::Blob,
        };
        for child in served.children.iter().take(MOST_LISTED) {
            self.hold.note_listed(child, repository, kind, now)?;
        }
        Ok(())
    }

    /// A tag that its registry no longer has is not served in the next outage either.
    pub(super) fn forget(&self, repository: &Repository, reference: &Reference) -> Result<(), StoreError> {
        match reference {
            Reference::Tag(tag) => self.hold.forget_tag(repository, tag),
            Reference::Digest(_) => Ok(()),
        }
    }
}
