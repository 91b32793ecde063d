//! Acting on the plan: for the operator, and for the daemon when it is over its bounds.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::images::picture;
use super::parts::Parts;
use super::plan::{Bounds, Plan, Removal, plan};
use crate::store::{Hold, StoreError};

/// What was used so lately is not evicted by the daemon itself: its client may be about to come for the next part.
const SPARE_FOR: Duration = Duration::from_secs(10);

/// When the daemon evicts for the sake of `max_size`, it makes room for a while: to these parts of it.
const DOWN_TO: (u64, u64) = (19, 20);

/// The most that stays free of downloads, in bytes, however much is to stay free of cache: what comes in leaves again, but
/// a full disk takes the index with it.
const MOST_FLOOR_BYTES: u64 = 256 << 20;

/// What the configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes may be cached.
    pub max_cached_bytes: u64,
    /// How many bytes of the disk are to stay free.
    pub reserve_bytes: u64,
}

/// What the operator wants removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prune {
    /// Only look.
    pub dry_run: bool,
    /// Down to so many bytes of cache, in the place of the configuration's bounds.
    pub to_bytes: Option<u64>,
    /// Also what was not used for so long.
    pub unused_for: Option<Duration>,
}

/// What was, or would be, removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In that order.
    pub removed: Vec<Removal>,
    /// The bytes of these.
    pub removed_bytes: u64,
    /// What is cached after that, in bytes.
    pub cached_bytes: u64,
    /// By how many bytes the bounds are missed, since what is left is pinned or in use, or would free nothing.
    pub kept_bytes: u64,
    /// What stays cached in files that another store has too, in bytes.
    pub shared_bytes: u64,
}

/// Whoever keeps and evicts. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) hold: Hold,
    pub(super) limits: Limits,
    pub(super) parts: Parts,
    /// One at a time makes a plan and acts on it.
    acting: Mutex<()>,
}

impl Keeper {
    /// For a hold.
    pub fn new(hold: Hold, limits: Limits) -> Self {
        hold.keep_free(limits.reserve_bytes.min(MOST_FLOOR_BYTES));
        let inner = Inner { hold, limits, parts: Parts::default(), acting: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Its hold.
    pub fn hold(&self) -> &Hold {
        &self.inner.hold
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Removes what the operator wants removed. *Blocking.*
    ///
    /// # Errors
    /// When the disk or the index fails.
    pub fn prune(&self, prune: &Prune, now: SystemTime) -> Result<Pruned, StoreError> {
        let Limits { max_cached_bytes, reserve_bytes } = self.inner.limits;
        let free_bytes = match (prune.to_bytes, prune.unused_for) {
            (None, _) => reserve_bytes.saturating_sub(self.inner.hold.disk_space()?.free_bytes),
            (Some(_), _) => 0,
        };
        let most_bytes = Some(prune.to_bytes.unwrap_or(max_cached_bytes));
        let bounds =
            Bounds { most_bytes, free_bytes, unused_for: prune.unused_for, spare_for: Duration::ZERO };
        self.inner.act(&bounds, prune.dry_run, now)
    }

    /// What is too much, in bytes: nothing as long as the bounds are kept. Answers at once.
    ///
    /// # Errors
    /// When the system does not say how full the disk is.
    pub(super) fn excess(&self) -> Result<Excess, StoreError> {
        let Limits { max_cached_bytes, reserve_bytes } = self.inner.limits;
        let usage = self.inner.hold.usage();
        let missing = reserve_bytes.saturating_sub(self.inner.hold.disk_space()?.free_bytes);
        Ok(Excess {
            cached_bytes: usage.cached.bytes,
            over_bytes: usage.cached.bytes.saturating_sub(max_cached_bytes),
            missing_bytes: missing,
        })
    }

    /// Evicts, for the daemon itself. *Blocking.*
    pub(super) fn evict(&self, excess: Excess, now: SystemTime) -> Result<Pruned, StoreError> {
        let (parts, of) = DOWN_TO;
        let most = self.inner.limits.max_cached_bytes;
        let most_bytes = (excess.over_bytes > 0).then_some(most / of * parts + most % of * parts / of);
        let bounds =
            Bounds { most_bytes, free_bytes: excess.missing_bytes, unused_for: None, spare_for: SPARE_FOR };
        self.inner.act(&bounds, false, now)
    }
}

/// By how much the bounds are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) cached_bytes: u64,
    /// What is cached beyond the most that may be.
    pub(super) over_bytes: u64,
    /// What is not free of what is to stay free.
    pub(super) missing_bytes: u64,
}

impl Excess {
    /// Whether evicting may help.
    pub(super) fn calls_for_eviction(&self) -> bool {
        self.over_bytes > 0 || (self.missing_bytes > 0 && self.cached_bytes > 0)
    }
}

impl Inner {
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.acting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act(&self, bounds: &Bounds, dry_run: bool, now: SystemTime) -> Result<Pruned, StoreError> {
        let _alone = self.alone();
        let plan = plan(&picture(&self.hold, &self.parts, now)?, bounds, now);
        let Plan {
            mut removals,
            removed_bytes,
            mut cached_bytes,
            mut kept_bytes,
            shared_bytes,
            unlisted,
            ..
        } = plan;
        if !dry_run {
            let digests: Vec<_> = removals.iter().map(|removal| removal.digest.clone()).collect();
            let removed = self.hold.remove_cached(&digests)?;
            self.hold.forget_listed(&unlisted)?;
            // What somebody came to rely on since the plan was made has stayed.
            let gone: HashSet<_> = removed.into_iter().map(|removed| removed.digest).collect();
            removals.retain(|removal| gone.contains(&removal.digest));
            let stayed = removed_bytes - removals.iter().map(|removal| removal.size).sum::<u64>();
            cached_bytes += stayed;
            kept_bytes += stayed;
        }
        let removed_bytes = removals.iter().map(|removal| removal.size).sum();
        Ok(Pruned { removed: removals, removed_bytes, cached_bytes, kept_bytes, shared_bytes })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::oci::{Digest, ImageName, Reference};
    use crate::store::{Owner, TagEntry};

    pub(crate) fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    pub(crate) fn name(text: &str) -> ImageName {
        text.parse().unwrap()
    }

    /// A hold with a tag for each of these images of a config and two layers, the first shared by all.
    pub(crate) struct World {
        _folder: tempfile::TempDir,
        pub(crate) keeper: Keeper,
    }

    impl World {
        pub(crate) fn new(limits: Limits) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let hold = Hold::open(folder.path(), at(0)).unwrap().0;
            hold.count(|| true).unwrap();
            Self { _folder: folder, keeper: Keeper::new(hold, limits) }
        }

        pub(crate) fn hold(&self) -> &Hold {
            self.keeper.hold()
        }

        pub(crate) fn keep(&self, bytes: &[u8], seconds: u64) -> Digest {
            let digest = Digest::of(bytes);
            self.hold().keep(bytes, &digest, at(seconds)).unwrap();
            digest
        }

        /// An image that came at that moment: its manifest, its own layer, and the one that all have.
        pub(crate) fn push(&self, reference: &str, seconds: u64) -> [Digest; 3] {
            let own = self.keep(format!("{reference}, a layer of {:<100}", "its own").as_bytes(), seconds);
            let shared = self.keep(format!("{:<100}", "a layer that all have").as_bytes(), seconds);
            let config = self.keep(b"{}", seconds);
            let described = |digest: &Digest, kind: &str| {
                format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":1}}"#)
            };
            let manifest = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
                described(&config, "config.v1+json"),
                described(&own, "layer.v1.tar"),
                described(&shared, "layer.v1.tar"),
            );
            let manifest = self.keep(manifest.as_bytes(), seconds);
            let named = name(reference);
            let Reference::Tag(tag) = &named.reference else { panic!("{reference} has no tag") };
            let entry = TagEntry { digest: manifest.clone(), confirmed_at: at(seconds) };
            self.hold().point_tag(&named.repository, tag, &entry).unwrap();
            self.hold().note_source(&manifest, &named.repository).unwrap();
            [manifest, own, shared]
        }

        pub(crate) fn holds(&self, digest: &Digest) -> bool {
            self.hold().path_of(digest).exists() && self.hold().blob(digest).unwrap().is_some()
        }
    }

    pub(crate) const UNBOUNDED: Limits = Limits { max_cached_bytes: u64::MAX, reserve_bytes: 0 };

    fn to(bytes: u64) -> Prune {
        Prune { to_bytes: Some(bytes), ..Prune::default() }
    }

    #[test]
    fn a_dry_run_says_what_a_run_then_does() {
        let world = World::new(UNBOUNDED);
        let [old, old_layer, shared] = world.push("old:1", 10);
        let [new, new_layer, _] = world.push("new:1", 20);
        let loose = world.keep(b"loose", 15);
        let cached = world.hold().usage().cached.bytes;
        let dry = world.keeper.prune(&Prune { dry_run: true, ..to(cached - 1) }, at(1000)).unwrap();
        assert!(world.holds(&old));
        let wet = world.keeper.prune(&to(cached - 1), at(1000)).unwrap();
        assert_eq!(dry, wet);
        assert_eq!(wet.removed.iter().map(|removal| &removal.digest).collect::<Vec<_>>(), [&old, &old_layer]);
        assert_eq!(&*wet.removed[0].reference, "docker.io/library/old:1");
        assert_eq!(world.hold().usage().cached.bytes, wet.cached_bytes);
        assert!([&new, &new_layer, &shared, &loose].iter().all(|digest| world.holds(digest)));
        assert_eq!(world.keeper.prune(&to(wet.cached_bytes), at(1000)).unwrap().removed, []);
        let unused = Prune { unused_for: Some(Duration::from_secs(982)), ..Prune::default() };
        let removed = world.keeper.prune(&unused, at(1000)).unwrap().removed;
        assert_eq!(removed.iter().map(|removal| &removal.digest).collect::<Vec<_>>(), [&loose]);
    }

    #[test]
    fn what_is_adopted_or_pinned_outlives_a_prune_to_nothing() {
        let world = World::new(UNBOUNDED);
        let [pinned, pinned_layer, shared] = world.push("pinned:1", 10);
        let [used, used_layer, _] = world.push("used:1", 10);
        world.hold().pin(&name("pinned:1"), at(20)).unwrap();
        let system = Owner::new("system");
        world.hold().adopt(&system, &used, at(20)).unwrap();
        let pruned = world.keeper.prune(&to(0), at(1000)).unwrap();
        assert!([&pinned, &pinned_layer, &shared, &used].iter().all(|digest| world.holds(digest)));
        assert!(!world.holds(&used_layer));
        assert_eq!(pruned.kept_bytes, pruned.cached_bytes);
        // A pin is of the name: it moves with its tag, and what the tag has left is free.
        let [moved, ..] = world.push("moved:1", 30);
        let named = name("pinned:1");
        let Reference::Tag(tag) = &named.reference else { panic!("no tag") };
        let entry = TagEntry { digest: moved.clone(), confirmed_at: at(30) };
        world.hold().point_tag(&named.repository, tag, &entry).unwrap();
        world.keeper.prune(&to(0), at(1000)).unwrap();
        assert!(world.holds(&moved) && !world.holds(&pinned) && !world.holds(&pinned_layer));
    }

    #[test]
    fn what_another_store_has_too_stays_where_only_the_disk_is_full() {
        let world = World::new(Limits { max_cached_bytes: u64::MAX, reserve_bytes: u64::MAX });
        let [taken_over, layer, shared] = world.push("taken-over:1", 10);
        let elsewhere = tempfile::tempdir().unwrap();
        let config = Digest::of(b"{}");
        for (number, digest) in [&taken_over, &layer, &shared, &config].into_iter().enumerate() {
            let other = elsewhere.path().join(number.to_string());
            std::fs::hard_link(world.hold().path_of(digest), other).unwrap();
        }
        let [fetched, its_layer, _] = world.push("fetched:1", 20);
        let evict = |now| world.keeper.evict(world.keeper.excess().unwrap(), now).unwrap();
        let evicted = evict(at(1000));
        assert!(!world.holds(&fetched) && !world.holds(&its_layer));
        let stays = [&taken_over, &layer, &shared];
        assert!(stays.iter().all(|digest| world.holds(digest)), "{evicted:?}");
        assert_eq!((evicted.shared_bytes, evicted.kept_bytes), (evicted.cached_bytes, evicted.cached_bytes));
        // Once the other store has let go of it, it is cache like any other.
        elsewhere.close().unwrap();
        assert_eq!(evict(at(2000)).cached_bytes, 0);
        assert!(stays.iter().all(|digest| !world.holds(digest)));
    }

    #[test]
    fn the_daemon_spares_what_was_just_used_and_makes_room_for_a_while() {
        let world = World::new(Limits { max_cached_bytes: 1000, reserve_bytes: 0 });
        for number in 0..6 {
            world.push(&format!("image:{number}"), 10 + number);
        }
        let excess = world.keeper.excess().unwrap();
        assert!(excess.calls_for_eviction());
        assert_eq!(world.keeper.evict(excess, at(12)).unwrap().removed, []);
        let evicted = world.keeper.evict(excess, at(1000)).unwrap();
        assert!(evicted.cached_bytes <= 950, "{evicted:?}");
        assert_eq!(world.keeper.excess().unwrap().over_bytes, 0);
    }
}
