//! Forgetting a name, with what nothing else needs.

use std::collections::{BTreeSet, HashSet};

use super::images::{Named, named};
use super::{Keeper, Unknown, keeper};
use crate::oci::{Digest, ImageName, Reference};
use crate::store::{Hold, StoreError};

/// What came of forgetting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many blobs left with it, and their bytes.
    pub removed_blobs: u64,
    /// The bytes of these.
    pub removed_bytes: u64,
    /// What it needed and is held on.
    pub kept_blobs: u64,
    /// The bytes of these.
    pub kept_bytes: u64,
    /// The containerds that rely on some of that, by their names.
    pub adopted_by: Vec<String>,
    /// Other names that need some of that, at most [`MOST_NAMED`](Self::MOST_NAMED).
    pub needed_by: Vec<String>,
}

impl Forgotten {
    /// How many other names are told.
    pub const MOST_NAMED: usize = 16;
}

/// Why a name is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// Nothing is known of it.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// It is to be kept.
    #[error("{0} is pinned: `tidehold unpin {0}` first, if it is no longer to be kept")]
    Pinned(ImageName),
}

impl Keeper {
    /// Forgets a tag with its history, or that a manifest was seen in a repository, and removes what only that needed and
    /// no containerd relies on. *Blocking.*
    ///
    /// # Errors
    /// When it is unknown or pinned, in the inner result. When the disk or the index fails.
    pub fn forget(&self, name: &ImageName) -> Result<Result<Forgotten, ForgetError>, StoreError> {
        let _alone = self.inner.alone();
        let keeper::Inner { hold, parts, .. } = &*self.inner;
        if hold.is_pinned(name)? {
            return Ok(Err(ForgetError::Pinned(name.clone())));
        }
        let roots = self.roots(name)?;
        if roots.is_empty() {
            return Ok(Err(self.unknown(name)?.into()));
        }
        let mut all = Vec::new();
        let mut met = HashSet::new();
        for root in &roots {
            let reach = parts.reach(hold, root)?;
            all.extend(reach.parts.into_iter().filter(|part| met.insert(part.clone())));
        }
        match &name.reference {
            Reference::Tag(tag) => hold.forget_tag(&name.repository, tag)?,
            Reference::Digest(digest) => hold.forget_source(digest, &name.repository)?,
        }
        hold.flush()?;
        let mut others = HashSet::new();
        let mut needed_by = Vec::new();
        for Named { name: other, history, .. } in named(hold)? {
            let mut needs_some = false;
            for entry in &history {
                let needed = parts.reach(hold, &entry.digest)?.parts;
                needs_some |= needed.iter().any(|part| met.contains(part) && is_held(hold, part));
                others.extend(needed);
            }
            if needs_some && needed_by.len() < Forgotten::MOST_NAMED {
                needed_by.push(other.to_string());
            }
        }
        let free: Vec<_> = all.iter().filter(|part| !others.contains(*part)).cloned().collect();
        let removed = hold.remove_cached(&free)?;
        let gone: HashSet<_> = removed.iter().map(|removed| &removed.digest).collect();
        // What a containerd has the manifest of it may yet want to fetch.
        if roots.iter().all(|root| !is_held(hold, root)) {
            hold.forget_listed(&free)?;
        }
        let mut forgotten = Forgotten {
            removed_blobs: removed.len() as u64,
            removed_bytes: removed.iter().map(|removed| removed.size).sum(),
            needed_by,
            ..Forgotten::default()
        };
        let mut adopted_by = BTreeSet::new();
        for part in all.iter().filter(|part| !gone.contains(part)) {
            if let Some(blob) = hold.blob(part)? {
                forgotten.kept_blobs += 1;
                forgotten.kept_bytes += blob.size;
                adopted_by.extend(hold.adopted_by(part)?);
            }
        }
        forgotten.adopted_by = adopted_by.into_iter().collect();
        Ok(Ok(forgotten))
    }

    /// All that a name stands for or stood for.
    fn roots(&self, name: &ImageName) -> Result<Vec<Digest>, StoreError> {
        Ok(match &name.reference {
            Reference::Tag(tag) => {
                let history = self.inner.hold.tag(&name.repository, tag)?;
                history.into_iter().map(|entry| entry.digest).collect()
            }
            Reference::Digest(_) => self.stands_for(name)?.into_iter().collect(),
        })
    }
}

fn is_held(hold: &Hold, digest: &Digest) -> bool {
    matches!(hold.blob(digest), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::super::keeper::tests::{UNBOUNDED, World, at, name};
    use super::*;
    use crate::store::Owner;

    #[test]
    fn a_tag_goes_with_what_only_it_needed() {
        let world = World::new(UNBOUNDED);
        let [one, own, shared] = world.push("one:1", 10);
        let [two, ..] = world.push("two:1", 20);
        let forgotten = world.keeper.forget(&name("one:1")).unwrap().unwrap();
        assert_eq!((forgotten.removed_blobs, forgotten.kept_blobs), (2, 2));
        assert_eq!(forgotten.needed_by, ["docker.io/library/two:1"]);
        assert!(!world.holds(&one) && !world.holds(&own) && world.holds(&shared) && world.holds(&two));
        assert_eq!(world.keeper.tags("").unwrap().len(), 1);
        assert!(!world.hold().seen_in(&one, &name("one:1").repository).unwrap());
        let again = world.keeper.forget(&name("one:1")).unwrap().unwrap_err();
        assert!(matches!(again, ForgetError::Unknown(_)));
    }

    #[test]
    fn what_a_containerd_relies_on_stays_and_what_is_pinned_is_not_forgotten() {
        let world = World::new(UNBOUNDED);
        let parts = world.push("one:1", 10);
        for part in &parts {
            world.hold().adopt(&Owner::new("system"), part, at(20)).unwrap();
        }
        world.hold().pin(&name("one:1"), at(20)).unwrap();
        let refused = world.keeper.forget(&name("one:1")).unwrap().unwrap_err();
        assert!(refused.to_string().contains("tidehold unpin docker.io/library/one:1"), "{refused}");
        world.hold().unpin(&name("one:1")).unwrap();
        let forgotten = world.keeper.forget(&name("one:1")).unwrap().unwrap();
        // The config alone was cache.
        assert_eq!((forgotten.removed_blobs, forgotten.kept_blobs), (1, 3));
        assert_eq!(forgotten.adopted_by, ["system"]);
        assert!(parts.iter().all(|part| world.holds(part)));
    }

    #[test]
    fn a_digest_is_forgotten_unless_a_tag_needs_it() {
        let world = World::new(UNBOUNDED);
        let [manifest, ..] = world.push("one:1", 10);
        let by_digest = name(&format!("one@{manifest}"));
        let forgotten = world.keeper.forget(&by_digest).unwrap().unwrap();
        assert_eq!((forgotten.removed_blobs, forgotten.needed_by.len()), (0, 1));
        assert!(world.holds(&manifest));
        assert!(!world.hold().seen_in(&manifest, &by_digest.repository).unwrap());
        assert!(world.keeper.forget(&by_digest).unwrap().is_err());
    }
}
