//! What a manifest needs, read from the manifests that are held.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::oci::{Digest, Kind, MAX_MANIFEST_BYTES, Manifest};
use crate::store::{Hold, StoreError};

/// How many manifests' contents are kept in mind; what a digest stands for never changes.
const MOST_KNOWN: NonZeroUsize = NonZeroUsize::new(16 << 10).unwrap();

/// How many parts of one image are looked at. No image has as many.
const MOST_PARTS: usize = 16 << 10;

/// What manifests say.
pub(super) struct Parts(Mutex<LruCache<Digest, Arc<Known>>>);

#[derive(Debug)]
struct Known {
    kind: Kind,
    children: Vec<Digest>,
}

/// What can be reached from a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// All of it, the manifest itself first, held or not, each once.
    pub(super) parts: Vec<Digest>,
    /// The manifests among these that are held.
    pub(super) manifests: Vec<Digest>,
    /// Whether some image of it is held with all its parts.
    pub(super) whole: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST_KNOWN)))
    }
}

impl Parts {
    /// Looks at all that a manifest needs. *Blocking.*
    pub(super) fn reach(&self, hold: &Hold, root: &Digest) -> Result<Reach, StoreError> {
        let mut walk = Walk { parts: self, hold, seen: HashSet::new(), reach: Reach::of(root) };
        walk.seen.insert(root.clone());
        let whole = walk.manifest(root, true)?;
        Ok(Reach { whole, ..walk.reach })
    }

    /// `None` where it is not held, or is no manifest.
    fn of(&self, hold: &Hold, digest: &Digest) -> Result<Option<Arc<Known>>, StoreError> {
        if hold.blob(digest)?.is_none() {
            return Ok(None);
        }
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(bytes) = hold.glance(digest, MAX_MANIFEST_BYTES)? else { return Ok(None) };
        let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(None) };
        let children = manifest.children().iter().map(|child| child.digest.clone()).collect();
        let known = Arc::new(Known { kind: manifest.kind(), children });
        lock().put(digest.clone(), Arc::clone(&known));
        Ok(Some(known))
    }
}

impl Reach {
    fn of(root: &Digest) -> Self {
        Self { parts: vec![root.clone()], manifests: Vec::new(), whole: false }
    }
}

struct Walk<'a> {
    parts: &'a Parts,
    hold: &'a Hold,
    seen: HashSet<Digest>,
    reach: Reach,
}

impl Walk<'_> {
    /// Walks from a manifest on, and answers whether it is whole. An index within an index is not gone into: nothing
    /// that pulls does.
    fn manifest(&mut self, digest: &Digest, indexes_too: bool) -> Result<bool, StoreError> {
        let Some(known) = self.parts.of(self.hold, digest)? else { return Ok(false) };
        self.reach.manifests.push(digest.clone());
        let mut all = true;
        let mut any = known.children.is_empty();
        for child in &known.children {
            let new = self.seen.insert(child.clone());
            if new {
                if self.reach.parts.len() >= MOST_PARTS {
                    return Ok(false);
                }
                self.reach.parts.push(child.clone());
            }
            let there = match known.kind {
                Kind::Index if new && indexes_too => self.manifest(child, false)?,
                Kind::Index => false,
                Kind::Image => self.hold.blob(child)?.is_some(),
            };
            all &= there;
            any |= there;
        }
        Ok(match known.kind {
            Kind::Index => any,
            Kind::Image => all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_index_is_whole_once_one_of_its_images_is() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let keep = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            hold.keep(bytes, &digest, clock::now()).unwrap();
            digest
        };
        let described = |digest: &Digest, kind: &str| {
            format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":1}}"#)
        };
        let (config, layer) = (keep(b"{}"), Digest::of(b"layer"));
        let image = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            described(&config, "config.v1+json"),
            described(&layer, "layer.v1.tar")
        );
        let image = keep(image.as_bytes());
        let other = Digest::of(b"for another platform");
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
            described(&other, "manifest.v1+json"),
            described(&image, "manifest.v1+json")
        );
        let index = keep(index.as_bytes());
        let parts = Parts::default();
        let reach = parts.reach(&hold, &index).unwrap();
        assert_eq!(reach.parts, [&index, &other, &image, &config, &layer].map(Clone::clone));
        assert_eq!((reach.manifests, reach.whole), (vec![index.clone(), image.clone()], false));
        keep(b"layer");
        assert!(parts.reach(&hold, &index).unwrap().whole);
        hold.remove_cached(std::slice::from_ref(&image)).unwrap();
        let reach = parts.reach(&hold, &index).unwrap();
        assert_eq!((reach.parts.len(), reach.whole), (3, false));
    }
}
