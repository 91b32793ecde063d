//! From the hold to what a plan is made from: the images that tags and pins stand for, each with its parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::parts::Parts;
use super::plan::{Image, Picture};
use crate::oci::{Digest, ImageName, Reference};
use crate::store::{Hold, StoreError, TagEntry};

/// Something that is called by a name, and what that stands for or stood for.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: ImageName,
    /// The latest first.
    pub(super) history: Vec<TagEntry>,
    pub(super) pinned: bool,
}

/// Every tag that is known, and every digest that is pinned by itself, in the order of their names.
pub(super) fn named(hold: &Hold) -> Result<Vec<Named>, StoreError> {
    let pins = hold.pins()?;
    let tags = hold.tags()?.into_iter().map(|tag| {
        let name = ImageName { repository: tag.repository, reference: Reference::Tag(tag.tag) };
        Named { pinned: pins.iter().any(|pin| pin.name == name), name, history: tag.history }
    });
    let mut named: Vec<_> = tags.collect();
    for pin in pins {
        if let Reference::Digest(digest) = &pin.name.reference {
            let entry = TagEntry { digest: digest.clone(), confirmed_at: pin.pinned_at };
            named.push(Named { name: pin.name, history: vec![entry], pinned: true });
        }
    }
    named.sort_by_cached_key(|named| named.name.to_string());
    Ok(named)
}

/// What is held, for a plan. *Blocking.*
pub(super) fn picture(hold: &Hold, parts: &Parts, now: SystemTime) -> Result<Picture, StoreError> {
    let mut images = Images { hold, parts, found: Vec::new(), by_root: HashMap::new() };
    for named in named(hold)? {
        let reference: Arc<str> = named.name.to_string().into();
        // A pin covers what its tag points at now; where that is not whole, the last that is too, since that is served.
        let mut pinned = named.pinned;
        for entry in &named.history {
            let whole = images.add(&entry.digest, &reference, pinned)?;
            pinned &= !whole;
        }
    }
    let images = images.found;
    // After the images: what comes in meanwhile is then in no image and was used just now.
    Ok(Picture { cached: hold.cached(now)?, images, in_use: hold.being_read() })
}

struct Images<'a> {
    hold: &'a Hold,
    parts: &'a Parts,
    found: Vec<Image>,
    /// Where each stands, and whether it is whole.
    by_root: HashMap<Digest, (usize, bool)>,
}

impl Images<'_> {
    /// One more name of an image. Answers whether that is whole.
    fn add(&mut self, root: &Digest, reference: &Arc<str>, pinned: bool) -> Result<bool, StoreError> {
        if let Some((at, whole)) = self.by_root.get(root)
            && let Some(image) = self.found.get_mut(*at)
        {
            image.pinned |= pinned;
            return Ok(*whole);
        }
        let reach = self.parts.reach(self.hold, root)?;
        self.by_root.insert(root.clone(), (self.found.len(), reach.whole));
        let (root, reference, parts) = (root.clone(), Arc::clone(reference), reach.parts.into());
        self.found.push(Image { reference, root, parts, pinned });
        Ok(reach.whole)
    }
}
