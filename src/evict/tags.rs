//! What is known by which name: how much of it is held, and who needs it. And pins.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use super::images::{Named, named};
use super::parts::Reach;
use super::{Keeper, keeper};
use crate::oci::{Digest, ImageName, Reference};
use crate::store::{Hold, StoreError};

/// How alike a name has to be to one that was misspelt, from 0 to 1.
const ALIKE: f64 = 0.8;

/// A tag, or a digest that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTag {
    /// Its name.
    pub name: ImageName,
    /// What it points at.
    pub digest: Digest,
    /// When its registry last said so; of a digest, when it was pinned.
    pub confirmed_at: SystemTime,
    /// Whether it is pinned by this name.
    pub pinned: bool,
    /// All that it needs and that is held, in bytes.
    pub held_bytes: u64,
    /// What of that no other name needs, in bytes.
    pub own_bytes: u64,
    /// Whether some image of it is held with all its parts.
    pub whole: bool,
    /// The containerds that rely on it, by their names.
    pub adopted_by: Vec<String>,
    /// When it was last of use; `None` where nothing of it is held.
    pub used_at: Option<SystemTime>,
}

/// That nothing is known by a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing is known of {name}{}", .nearest.as_ref().map(|near| format!(": is {near} meant?")).unwrap_or_default())]
pub struct Unknown {
    /// The name.
    pub name: ImageName,
    /// One that is known and much like it.
    pub nearest: Option<String>,
}

impl Keeper {
    /// The names that contain this, in their order. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn tags(&self, contains: &str) -> Result<Vec<KeptTag>, StoreError> {
        let keeper::Inner { hold, parts, .. } = &*self.inner;
        let mut found = Vec::new();
        let mut needed = HashMap::<Digest, usize>::new();
        for named in named(hold)? {
            let Some(latest) = named.history.first().cloned() else { continue };
            let reach = parts.reach(hold, &latest.digest)?;
            for part in &reach.parts {
                *needed.entry(part.clone()).or_default() += 1;
            }
            if named.name.to_string().contains(contains) {
                found.push((named, latest, reach));
            }
        }
        let mut tags = Vec::new();
        for (Named { name, pinned, .. }, latest, reach) in found {
            let held = Held::of(hold, &reach, &needed)?;
            let mut adopted_by = BTreeSet::new();
            let mut used_at = None;
            for manifest in &reach.manifests {
                adopted_by.extend(hold.adopted_by(manifest)?);
                used_at = used_at.max(hold.used_at(manifest)?);
            }
            tags.push(KeptTag {
                name,
                digest: latest.digest,
                confirmed_at: latest.confirmed_at,
                pinned,
                held_bytes: held.bytes,
                own_bytes: held.own_bytes,
                whole: reach.whole,
                adopted_by: adopted_by.into_iter().collect(),
                used_at,
            });
        }
        Ok(tags)
    }

    /// All that is needed by what is pinned: what a pinned tag points at now and, while that is not whole, what it
    /// pointed at before, down to what is. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn pinned(&self) -> Result<HashSet<Digest>, StoreError> {
        let keeper::Inner { hold, parts, .. } = &*self.inner;
        let mut needed = HashSet::new();
        for pinned in named(hold)?.into_iter().filter(|named| named.pinned) {
            for entry in pinned.history {
                let reach = parts.reach(hold, &entry.digest)?;
                needed.extend(reach.parts);
                if reach.whole {
                    break;
                }
            }
        }
        Ok(needed)
    }

    /// Pins a name, and answers how many bytes are held of it. *Blocking.*
    ///
    /// # Errors
    /// When nothing is known of it, in the inner result. When the index fails.
    pub fn pin(&self, name: &ImageName, now: SystemTime) -> Result<Result<u64, Unknown>, StoreError> {
        // Nothing is evicted in between.
        let _alone = self.inner.alone();
        let keeper::Inner { hold, parts, .. } = &*self.inner;
        let Some(digest) = self.stands_for(name)? else { return Ok(Err(self.unknown(name)?)) };
        hold.pin(name, now)?;
        let reach = parts.reach(hold, &digest)?;
        Ok(Ok(Held::of(hold, &reach, &HashMap::new())?.bytes))
    }

    /// Ends a pin; what is not pinned is unknown here. *Blocking.*
    ///
    /// # Errors
    /// When it was not pinned, in the inner result. When the index fails.
    pub fn unpin(&self, name: &ImageName) -> Result<Result<(), Unknown>, StoreError> {
        if self.inner.hold.unpin(name)? {
            return Ok(Ok(()));
        }
        let pins = self.inner.hold.pins()?.into_iter().map(|pin| pin.name.to_string());
        Ok(Err(Unknown { name: name.clone(), nearest: nearest(name, pins) }))
    }

    /// What a name is known to stand for: a tag that was asked about, or a digest that was seen in its repository.
    pub(super) fn stands_for(&self, name: &ImageName) -> Result<Option<Digest>, StoreError> {
        let hold = &self.inner.hold;
        Ok(match &name.reference {
            Reference::Tag(tag) => {
                hold.tag(&name.repository, tag)?.into_iter().next().map(|entry| entry.digest)
            }
            Reference::Digest(digest) => hold.seen_in(digest, &name.repository)?.then(|| digest.clone()),
        })
    }

    pub(super) fn unknown(&self, name: &ImageName) -> Result<Unknown, StoreError> {
        let known = named(&self.inner.hold)?.into_iter().map(|named| named.name.to_string());
        Ok(Unknown { name: name.clone(), nearest: nearest(name, known) })
    }
}

/// How much of an image is held.
#[derive(Default)]
struct Held {
    bytes: u64,
    own_bytes: u64,
}

impl Held {
    fn of(hold: &Hold, reach: &Reach, needed: &HashMap<Digest, usize>) -> Result<Self, StoreError> {
        let mut held = Self::default();
        for part in &reach.parts {
            if let Some(blob) = hold.blob(part)? {
                held.bytes += blob.size;
                if needed.get(part) == Some(&1) {
                    held.own_bytes += blob.size;
                }
            }
        }
        Ok(held)
    }
}

fn nearest(name: &ImageName, known: impl Iterator<Item = String>) -> Option<String> {
    let name = name.to_string();
    let alike = known.map(|known| (strsim::normalized_damerau_levenshtein(&name, &known), known));
    let nearest = alike.filter(|(alike, _)| *alike >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    nearest.map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::super::keeper::tests::{UNBOUNDED, World, at, name};
    use crate::store::Owner;

    #[test]
    fn a_tag_says_what_it_needs_what_is_its_own_and_who_relies_on_it() {
        let world = World::new(UNBOUNDED);
        let [one, own, shared] = world.push("one:1", 10);
        world.push("two:1", 20);
        world.hold().adopt(&Owner::new("system"), &one, at(30)).unwrap();
        let tags = world.keeper.tags("").unwrap();
        let names: Vec<_> = tags.iter().map(|tag| tag.name.to_string()).collect();
        assert_eq!(names, ["docker.io/library/one:1", "docker.io/library/two:1"]);
        let size = |digest| world.hold().blob(digest).unwrap().unwrap().size;
        let config = 2;
        assert_eq!(tags[0].own_bytes, size(&one) + size(&own));
        assert_eq!(tags[0].held_bytes, size(&one) + size(&own) + size(&shared) + config);
        assert_eq!((tags[0].whole, tags[0].pinned, tags[0].used_at), (true, false, Some(at(10))));
        assert_eq!(tags[0].adopted_by, ["system"]);
        assert_eq!(tags[1].adopted_by, Vec::<String>::new());
        assert_eq!(world.keeper.tags("two").unwrap(), tags[1..]);
    }

    #[test]
    fn what_is_unknown_is_told_with_what_may_be_meant() {
        let world = World::new(UNBOUNDED);
        let [manifest, ..] = world.push("nginx:1.27", 10);
        let unknown = world.keeper.pin(&name("ngnix:1.27"), at(20)).unwrap().unwrap_err();
        assert_eq!(unknown.nearest.as_deref(), Some("docker.io/library/nginx:1.27"));
        let unknown = world.keeper.pin(&name("quay.io/something/else"), at(20)).unwrap().unwrap_err();
        assert_eq!(unknown.nearest, None);
        assert!(world.keeper.unpin(&name("nginx:1.27")).unwrap().is_err());
        assert!(world.keeper.pinned().unwrap().is_empty());
        assert!(world.keeper.pin(&name("nginx:1.27"), at(20)).unwrap().unwrap() > 0);
        assert!(world.keeper.pinned().unwrap().contains(&manifest));
        let by_digest = name(&format!("nginx@{manifest}"));
        assert!(world.keeper.pin(&by_digest, at(20)).unwrap().is_ok());
        assert_eq!(world.keeper.tags("@").unwrap()[0].name, by_digest);
        assert_eq!(world.keeper.unpin(&by_digest).unwrap(), Ok(()));
    }
}
