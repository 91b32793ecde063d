//! What is to be removed, as a pure function.
//!
//! It goes through images and single blobs from the least recently used on. Each blob is counted by the images that need
//! it, and leaves with the last of them. Where only the disk calls for it, what frees nothing stays: a file that another
//! store has too takes no room of its own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::oci::Digest;
use crate::store::Cached;

/// What is held, as far as it concerns evicting.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// All that no containerd relies on.
    pub(super) cached: Vec<Cached>,
    /// Each image that a tag or a pin stands for, or stood for.
    pub(super) images: Vec<Image>,
    /// What is being read.
    pub(super) in_use: HashSet<Digest>,
}

/// A manifest or index, with all that it needs.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// What it is called; empty where it is pinned by its digest alone.
    pub(super) reference: Arc<str>,
    pub(super) root: Digest,
    /// All that can be reached from it, itself too, held or not.
    pub(super) parts: Arc<[Digest]>,
    pub(super) pinned: bool,
}

/// How much may stay.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    /// How many bytes of cache may stay at most.
    pub(super) most_bytes: Option<u64>,
    /// How many bytes are to be freed on the disk, whatever stays.
    pub(super) free_bytes: u64,
    /// What was not used for so long leaves in any case.
    pub(super) unused_for: Option<Duration>,
    /// What was used more recently than this stays in any case: somebody may be at it.
    pub(super) spare_for: Duration,
}

/// A blob that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last of use.
    pub used_at: SystemTime,
    /// The image that it leaves with; empty where it is of none that is known.
    pub reference: Arc<str>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) removals: Vec<Removal>,
    pub(super) removed_bytes: u64,
    /// What is cached after that, in bytes.
    pub(super) cached_bytes: u64,
    /// By how many bytes the bounds are missed: so much more would have to leave, and is pinned, in use, or would free
    /// nothing.
    pub(super) kept_bytes: u64,
    /// What of the removed bytes the disk has back.
    pub(super) freed_bytes: u64,
    /// What stays cached in files that another store has too, in bytes.
    pub(super) shared_bytes: u64,
    /// What only manifests list that leave.
    pub(super) unlisted: Vec<Digest>,
}

/// What leaves in one piece.
enum Piece<'a> {
    Image(&'a Image),
    Blob(&'a Cached),
}

/// Says what to remove.
pub(super) fn plan(picture: &Picture, bounds: &Bounds, now: SystemTime) -> Plan {
    let before: u64 = picture.cached.iter().map(|blob| blob.size).sum();
    let over = before.saturating_sub(bounds.most_bytes.unwrap_or(u64::MAX));
    let unused_since = bounds.unused_for.and_then(|time| now.checked_sub(time));
    let mut going =
        Going::new(picture, now.checked_sub(bounds.spare_for).filter(|_| !bounds.spare_for.is_zero()));
    for (used_at, piece) in going.in_order(picture) {
        let unused = unused_since.is_some_and(|since| used_at < since);
        let fits = going.plan.removed_bytes >= over;
        if fits && going.plan.freed_bytes >= bounds.free_bytes && !unused {
            break;
        }
        if fits && !unused && going.frees_nothing(&piece) {
            continue;
        }
        match piece {
            Piece::Image(image) => going.take_image(image),
            Piece::Blob(blob) => going.take(&blob.digest, &Arc::from("")),
        }
    }
    let mut plan = going.plan;
    plan.cached_bytes = before.saturating_sub(plan.removed_bytes);
    let over = over.saturating_sub(plan.removed_bytes);
    let not_freed = bounds.free_bytes.saturating_sub(plan.freed_bytes);
    plan.kept_bytes = over.max(not_freed).min(plan.cached_bytes);
    let shared = picture.cached.iter().filter(|blob| blob.shared).map(|blob| blob.size).sum::<u64>();
    plan.shared_bytes = shared.saturating_sub(plan.removed_bytes - plan.freed_bytes);
    plan
}

/// What goes, as it grows.
struct Going<'a> {
    cached: HashMap<&'a Digest, &'a Cached>,
    /// How many images that stay need each.
    needed: HashMap<&'a Digest, usize>,
    kept: HashSet<&'a Digest>,
    plan: Plan,
}

impl<'a> Going<'a> {
    fn new(picture: &'a Picture, spared_since: Option<SystemTime>) -> Self {
        let cached: HashMap<_, _> = picture.cached.iter().map(|blob| (&blob.digest, blob)).collect();
        let mut needed = HashMap::<_, usize>::new();
        for part in picture.images.iter().flat_map(|image| image.parts.iter()) {
            *needed.entry(part).or_default() += 1;
        }
        let pinned = picture.images.iter().filter(|image| image.pinned).flat_map(|image| image.parts.iter());
        let spared =
            picture.cached.iter().filter(|blob| spared_since.is_some_and(|since| blob.used_at > since));
        let kept = pinned.chain(&picture.in_use).chain(spared.map(|blob| &blob.digest)).collect();
        Self { cached, needed, kept, plan: Plan::default() }
    }

    /// What may leave, the least recently used first; of what was used at the same time, in the order of digests.
    fn in_order(&self, picture: &'a Picture) -> Vec<(SystemTime, Piece<'a>)> {
        let images = picture.images.iter().filter(|image| !image.pinned);
        let images =
            images.filter_map(|image| Some((self.used_at(image)?, &image.root, Piece::Image(image))));
        let loose = picture.cached.iter().filter(|blob| !self.needed.contains_key(&blob.digest));
        let loose = loose.map(|blob| (blob.used_at, &blob.digest, Piece::Blob(blob)));
        let mut pieces: Vec<_> = images.chain(loose).collect();
        pieces.sort_by(|(at, digest, _), (other_at, other, _)| (at, digest).cmp(&(other_at, other)));
        pieces.into_iter().map(|(used_at, _, piece)| (used_at, piece)).collect()
    }

    /// When an image was last of use: as any part was that no other image has. `None` where nothing of it is cached.
    fn used_at(&self, image: &Image) -> Option<SystemTime> {
        let used = |own: bool| {
            let parts = image.parts.iter().filter(|part| !own || self.is_own(image, part));
            parts.filter_map(|part| self.cached.get(part)).map(|blob| blob.used_at).max()
        };
        used(true).or_else(|| used(false))
    }

    fn is_own(&self, image: &Image, part: &Digest) -> bool {
        *part == image.root || self.needed.get(part) == Some(&1)
    }

    /// Whether the disk would have nothing back of it, were it to leave now.
    fn frees_nothing(&self, piece: &Piece<'_>) -> bool {
        match piece {
            Piece::Blob(blob) => blob.shared,
            Piece::Image(image) => {
                let own = image.parts.iter().filter(|part| self.needed.get(part) == Some(&1));
                own.filter_map(|part| self.cached.get(part)).all(|blob| blob.shared)
            }
        }
    }

    /// An image of which something of its own is kept stays whole.
    fn take_image(&mut self, image: &'a Image) {
        if image.parts.iter().any(|part| self.is_own(image, part) && self.kept.contains(part)) {
            return;
        }
        // A containerd that relies on the manifest may yet want what it lists.
        let leaves = self.cached.contains_key(&image.root);
        for part in image.parts.iter() {
            let Some(needed) = self.needed.get_mut(part) else { continue };
            *needed -= 1;
            if *needed == 0 {
                self.take(part, &image.reference);
                if leaves {
                    self.plan.unlisted.push(part.clone());
                }
            }
        }
    }

    fn take(&mut self, digest: &Digest, reference: &Arc<str>) {
        let Some(blob) = self.cached.get(digest).filter(|_| !self.kept.contains(digest)) else { return };
        let Cached { digest, size, used_at, shared } = (*blob).clone();
        self.plan.removed_bytes += size;
        if !shared {
            self.plan.freed_bytes += size;
        }
        self.plan.removals.push(Removal { digest, size, used_at, reference: Arc::clone(reference) });
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// Of 100 bytes.
    fn blob(name: &str, used_at: u64) -> Cached {
        Cached { digest: digest(name), size: 100, used_at: at(used_at), shared: false }
    }

    fn image(name: &str, parts: &[&str]) -> Image {
        let parts = std::iter::once(&name).chain(parts).map(|part| digest(part)).collect();
        Image { reference: name.into(), root: digest(name), parts, pinned: false }
    }

    fn removed<'a>(picture: &Picture, bounds: &Bounds, names: &[&'a str]) -> Vec<&'a str> {
        let plan = plan(picture, bounds, at(NOW));
        let name = |removal: &Removal| *names.iter().find(|name| digest(name) == removal.digest).unwrap();
        plan.removals.iter().map(name).collect()
    }

    fn down_to(bytes: u64) -> Bounds {
        Bounds { most_bytes: Some(bytes), ..Bounds::default() }
    }

    #[test]
    fn the_least_recently_used_image_leaves_whole_but_for_what_another_needs() {
        let names = ["old", "new", "own", "shared", "loose"];
        let picture = Picture {
            cached: vec![
                blob("new", 90),
                blob("shared", 95),
                blob("old", 10),
                blob("own", 20),
                blob("loose", 50),
            ],
            images: vec![image("new", &["shared"]), image("old", &["shared", "own", "never held"])],
            in_use: HashSet::new(),
        };
        assert!(removed(&picture, &down_to(500), &names).is_empty());
        assert_eq!(removed(&picture, &down_to(499), &names), ["old", "own"]);
        assert_eq!(removed(&picture, &down_to(299), &names), ["old", "own", "loose"]);
        assert_eq!(removed(&picture, &down_to(199), &names), ["old", "own", "loose", "new", "shared"]);
        let freed = Bounds { free_bytes: 201, ..Bounds::default() };
        assert_eq!(removed(&picture, &freed, &names), ["old", "own", "loose"]);
        let unused = Bounds { unused_for: Some(Duration::from_secs(NOW - 60)), ..Bounds::default() };
        assert_eq!(removed(&picture, &unused, &names), ["old", "own", "loose"]);
        let all = plan(&picture, &down_to(0), at(NOW));
        assert!(all.unlisted.contains(&digest("never held")));
        assert_eq!((all.removed_bytes, all.cached_bytes, all.kept_bytes), (500, 0, 0));
    }

    #[test]
    fn what_is_pinned_in_use_or_just_used_stays_and_is_said_to() {
        let names = ["pinned", "base", "read", "layer", "fresh", "other"];
        let pinned = Image { pinned: true, ..image("pinned", &["base"]) };
        let picture = Picture {
            cached: names.iter().map(|name| blob(name, if *name == "fresh" { 995 } else { 10 })).collect(),
            images: vec![pinned, image("read", &["layer", "base"]), image("other", &["base"])],
            in_use: [digest("layer")].into(),
        };
        let bounds = Bounds { spare_for: Duration::from_secs(10), ..down_to(0) };
        assert_eq!(removed(&picture, &bounds, &names), ["other"]);
        assert_eq!(plan(&picture, &bounds, at(NOW)).kept_bytes, 500);
        assert_eq!(removed(&picture, &down_to(0), &names).len(), 2);
    }

    #[test]
    fn for_room_on_the_disk_nothing_leaves_that_frees_none() {
        let names = ["adopted", "its layer", "new", "base", "top", "loose"];
        let shared = |name, used_at| Cached { shared: true, ..blob(name, used_at) };
        let picture = Picture {
            cached: vec![
                shared("adopted", 10),
                shared("its layer", 10),
                shared("loose", 20),
                blob("new", 30),
                shared("base", 30),
                blob("top", 30),
            ],
            images: vec![image("adopted", &["its layer"]), image("new", &["base", "top"])],
            ..Picture::default()
        };
        let free = |free_bytes| Bounds { free_bytes, ..Bounds::default() };
        // An image that frees something leaves whole.
        assert_eq!(removed(&picture, &free(1), &names), ["new", "base", "top"]);
        let all = plan(&picture, &free(1000), at(NOW));
        assert_eq!((all.removed_bytes, all.freed_bytes, all.cached_bytes), (300, 200, 300));
        assert_eq!((all.kept_bytes, all.shared_bytes), (300, 300));
        // Whoever wants less to be cached, or what is old to go, means all alike.
        let both = Bounds { free_bytes: 200, ..down_to(500) };
        assert_eq!(removed(&picture, &both, &names), ["adopted", "its layer", "new", "base", "top"]);
        let unused = Bounds { unused_for: Some(Duration::from_secs(NOW - 25)), ..Bounds::default() };
        assert_eq!(removed(&picture, &unused, &names), ["adopted", "its layer", "loose"]);
    }

    #[test]
    fn of_an_image_whose_manifest_is_relied_on_the_rest_may_leave_and_stays_listed() {
        let picture = Picture {
            cached: vec![blob("layer", 10)],
            images: vec![image("app", &["layer"])],
            ..Picture::default()
        };
        let plan = plan(&picture, &down_to(0), at(NOW));
        assert_eq!((plan.removed_bytes, plan.unlisted), (100, Vec::new()));
    }

    /// Names of blobs; which of them are cached, their sizes and uses; images over them; what is in use.
    fn pictures() -> impl Strategy<Value = Picture> {
        let cached = prop::collection::btree_map(0..24_u8, (1..50_u64, 0..NOW, any::<bool>()), 0..20);
        let images =
            prop::collection::vec((0..24_u8, prop::collection::btree_set(0..24_u8, 0..8), any::<u8>()), 0..8);
        let in_use = prop::collection::btree_set(0..24_u8, 0..3);
        (cached, images, in_use).prop_map(|(cached, images, in_use)| {
            let of = |number: u8| Digest::of(&[number]);
            let cached = cached.into_iter();
            let cached = cached.map(|(number, (size, used, shared))| Cached {
                digest: of(number),
                size,
                used_at: at(used),
                shared,
            });
            let images = images.into_iter().map(|(root, parts, dice)| Image {
                reference: root.to_string().into(),
                root: of(root),
                parts: parts.into_iter().filter(|part| *part != root).chain([root]).map(of).collect(),
                pinned: dice < 50,
            });
            let in_use = in_use.into_iter().map(of).collect();
            Picture { cached: cached.collect(), images: images.collect(), in_use }
        })
    }

    fn bounds() -> impl Strategy<Value = Bounds> {
        (prop::option::of(0..600_u64), 0..300_u64, prop::option::of(0..NOW), 0..100_u64).prop_map(
            |(most_bytes, free_bytes, unused, spare)| Bounds {
                most_bytes,
                free_bytes,
                unused_for: unused.map(Duration::from_secs),
                spare_for: Duration::from_secs(spare),
            },
        )
    }

    proptest! {
        #[test]
        fn only_what_is_cached_leaves_once_and_never_what_is_pinned_or_in_use(
            picture in pictures(), bounds in bounds()
        ) {
            let plan = plan(&picture, &bounds, at(NOW));
            let pinned: HashSet<_> = picture
                .images
                .iter()
                .filter(|image| image.pinned)
                .flat_map(|image| image.parts.iter())
                .collect();
            let mut seen = HashSet::new();
            for removal in &plan.removals {
                prop_assert!(seen.insert(&removal.digest));
                prop_assert!(picture.cached.iter().any(|blob| blob.digest == removal.digest));
                prop_assert!(!pinned.contains(&removal.digest));
                prop_assert!(!picture.in_use.contains(&removal.digest));
                let spared = !bounds.spare_for.is_zero() && removal.used_at > at(NOW) - bounds.spare_for;
                prop_assert!(!spared);
            }
            let bytes: u64 = plan.removals.iter().map(|removal| removal.size).sum();
            let all: u64 = picture.cached.iter().map(|blob| blob.size).sum();
            prop_assert_eq!((plan.removed_bytes, plan.cached_bytes), (bytes, all - bytes));
            let frees = |removal: &&Removal| {
                picture.cached.iter().any(|blob| blob.digest == removal.digest && !blob.shared)
            };
            let freed: u64 = plan.removals.iter().filter(frees).map(|removal| removal.size).sum();
            prop_assert_eq!(plan.freed_bytes, freed);
            if bounds.most_bytes.is_none() && bounds.unused_for.is_none() {
                prop_assert!(plan.removals.is_empty() || freed > 0, "what left freed nothing");
            }
        }

        #[test]
        fn the_order_in_which_things_are_told_changes_nothing(picture in pictures(), bounds in bounds()) {
            let mut other = picture.clone();
            other.cached.reverse();
            let digests = |plan: &Plan| plan.removals.iter().map(|removal| removal.digest.clone()).collect::<Vec<_>>();
            prop_assert_eq!(
                digests(&plan(&picture, &bounds, at(NOW))),
                digests(&plan(&other, &bounds, at(NOW)))
            );
        }

        /// What another image that stays needs is left, and one step fewer would not have been enough.
        #[test]
        fn it_stops_as_soon_as_the_bounds_are_kept(picture in pictures(), most_bytes in 0..600_u64) {
            let plan = plan(&picture, &down_to(most_bytes), at(NOW));
            let gone: HashSet<_> = plan.removals.iter().map(|removal| &removal.digest).collect();
            prop_assert!(plan.cached_bytes <= most_bytes || plan.kept_bytes > 0);
            if let Some(last) = plan.removals.last() {
                let of_last = plan.removals.iter().filter(|removal| removal.reference == last.reference);
                let last_piece: u64 = match last.reference.is_empty() {
                    true => last.size,
                    false => of_last.map(|removal| removal.size).sum(),
                };
                prop_assert!(plan.cached_bytes + last_piece > most_bytes);
            }
            for image in &picture.images {
                let lost = image.parts.iter().filter(|part| gone.contains(part)).count();
                let cached = |part: &&Digest| picture.cached.iter().any(|blob| blob.digest == **part);
                let roots = picture.images.iter().filter(|other| other.parts.contains(&image.root)).count();
                if lost > 0 && !gone.contains(&image.root) && cached(&&image.root) && roots == 1 {
                    prop_assert!(false, "{} lost parts and stays", image.reference);
                }
            }
        }
    }
}
