//! What an image is made of on this node, how each part of it came to be held, and what all of it took.
//!
//! The parts are those that a pull on this node needs: of an index, the manifest for its platform alone. What a manifest
//! lists is known only while the manifest is held.

use std::collections::{BTreeSet, HashSet};

use crate::oci::{Child, Digest, Kind, MAX_MANIFEST_BYTES, Manifest, Platform};
use crate::proto::v1;
use crate::record::{Ending, Record};
use crate::store::{Hold, StoreError};

/// How many parts of an image are told of. Hardly any has as many.
const MOST_PARTS: usize = 1024;

/// The image that stands behind a digest, with what is told of answers about it. Waits for the disk.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn told(
    (hold, record): (&Hold, &Record),
    root: &Digest,
    pinned: &HashSet<Digest>,
    decisions: &[v1::Decision],
) -> Result<v1::ImageStory, StoreError> {
    let mut story = v1::ImageStory { digest: root.to_string(), ..v1::ImageStory::default() };
    let parts = parts(hold, root, &mut story)?;
    let mut adopted_by = BTreeSet::new();
    for (kind, digest, listed) in parts {
        let part = part((hold, record), kind, &digest, listed, pinned.contains(&digest))?;
        adopted_by.extend(part.adopted_by.iter().cloned());
        // Whoever made the manifest may claim any size.
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut story.bytes, part.size);
        add(&mut story.held_parts, u64::from(part.held));
        add(&mut story.held_bytes, if part.held { part.size } else { 0 });
        add(&mut story.counted, u64::from(part.counted));
        add(&mut story.downloaded_bytes, part.downloaded_bytes);
        story.parts.push(part);
    }
    story.adopted_by = adopted_by.into_iter().collect();
    story.answered = answered(&story.digest, decisions);
    Ok(story)
}

/// As what, by which digest, and of which length by whoever lists it.
type Listed = (&'static str, Digest, u64);

/// All parts in their order, each once; what there is beside them is put into the story.
fn parts(hold: &Hold, root: &Digest, story: &mut v1::ImageStory) -> Result<Vec<Listed>, StoreError> {
    let Some(manifest) = manifest(hold, root)? else { return Ok(vec![("manifest", root.clone(), 0)]) };
    let (mut parts, image) = match manifest.kind() {
        Kind::Image => (vec![("manifest", root.clone(), 0)], Some(manifest)),
        Kind::Index => {
            let own = own(manifest.children());
            for child in manifest.children().iter().filter(|child| Some(*child) != own) {
                story.other_manifests += 1;
                story.other_held += u64::from(hold.blob(&child.digest)?.is_some());
            }
            let mut parts = vec![("index", root.clone(), 0)];
            let mut image = None;
            if let Some(child) = own {
                story.platform = child.platform.as_ref().map(ToString::to_string).unwrap_or_default();
                parts.push(("manifest", child.digest.clone(), child.size));
                image = self::manifest(hold, &child.digest)?;
            }
            (parts, image)
        }
    };
    // An index within an index is not gone into: nothing that pulls does.
    if let Some(image) = image.filter(|image| image.kind() == Kind::Image) {
        let kinds = std::iter::once("config").chain(std::iter::repeat("layer"));
        let mut seen = HashSet::new();
        let each = kinds.zip(image.children()).filter(|(_, child)| seen.insert(child.digest.clone()));
        parts.extend(each.take(MOST_PARTS).map(|(kind, child)| (kind, child.digest.clone(), child.size)));
        story.complete = true;
    }
    Ok(parts)
}

/// The manifest of an index that is for this node; one that says nothing of its platform where it is the only one.
fn own(index: &[Child]) -> Option<&Child> {
    let node = Platform::of_this_machine();
    let fits = index.iter().filter_map(|child| Some((node.distance_to(child.platform.as_ref()?)?, child)));
    match (fits.min_by_key(|(distance, _)| *distance), index) {
        (Some((_, child)), _) => Some(child),
        (None, [child]) if child.platform.is_none() => Some(child),
        (None, _) => None,
    }
}

fn manifest(hold: &Hold, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
    let bytes = hold.glance(digest, MAX_MANIFEST_BYTES)?;
    Ok(bytes.and_then(|bytes| Manifest::parse(&bytes).ok()))
}

fn part(
    (hold, record): (&Hold, &Record),
    kind: &str,
    digest: &Digest,
    listed: u64,
    pinned: bool,
) -> Result<v1::ImagePart, StoreError> {
    let blob = hold.blob(digest)?;
    let arrival = record.arrival(digest);
    // What somebody wrote here by itself came when it was committed, from nobody that is known.
    let came_at = arrival.as_ref().map(|arrival| arrival.at).or(blob.as_ref().map(|blob| blob.committed_at));
    let (came_from, downloaded_bytes, counted) = match arrival {
        Some(arrival) => (arrival.repository, arrival.bytes, arrival.counted),
        None => (String::new(), 0, 0),
    };
    Ok(v1::ImagePart {
        kind: kind.to_owned(),
        digest: digest.to_string(),
        size: blob.as_ref().map_or(listed, |blob| blob.size),
        held: blob.is_some(),
        pinned,
        adopted_by: hold.adopted_by(digest)?,
        came_at: came_at.map(Into::into),
        came_from,
        downloaded_bytes,
        counted,
    })
}

/// How often this was answered with, as far as is remembered.
fn answered(digest: &str, decisions: &[v1::Decision]) -> u64 {
    let was_given = |decision: &&v1::Decision| match Ending::parse(&decision.standing) {
        Some(Ending::Refused | Ending::Challenged) | None => false,
        Some(Ending::Immutable | Ending::Fresh | Ending::Unchanged | Ending::Changed | Ending::Stale) => {
            decision.digest == digest
        }
    };
    decisions.iter().filter(was_given).map(|decision| decision.times).sum()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::oci::Repository;
    use crate::store::Owner;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn described(digest: &Digest, size: usize, rest: &str) -> String {
        format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{size}{rest}}}"#)
    }

    #[test]
    fn an_image_is_the_parts_that_this_node_needs_and_what_they_took() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), at(0)).unwrap().0;
        let record = Record::new(at(0));
        let nginx = Repository::new("docker.io".parse().unwrap(), "nginx").unwrap();
        let keep = |bytes: &[u8], counted| {
            let digest = Digest::of(bytes);
            hold.keep(bytes, &digest, at(5)).unwrap();
            record.arrived(&digest, &nginx, bytes.len() as u64, counted, at(7));
            digest
        };
        let (config, missing, twice) = (keep(b"{}", 0), Digest::of(b"a layer"), keep(b"layer", 0));
        let layers =
            [described(&missing, 7, ""), described(&twice, 5, ""), described(&twice, 5, "")].join(",");
        let image =
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, described(&config, 2, ""));
        let manifest = keep(image.as_bytes(), 1);
        let own = Platform::of_this_machine().to_string();
        let (os, architecture) = own.split_once('/').unwrap();
        let (architecture, variant) = architecture.split_once('/').unwrap_or((architecture, ""));
        let platform = |os: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#)
        };
        let other = Digest::of(b"for another platform");
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
            described(&other, 1, &platform("plan9")),
            described(&manifest, image.len(), &platform(os))
        );
        let root = Digest::of(index.as_bytes());
        // Nobody fetched it: some containerd has written it.
        hold.keep(index.as_bytes(), &root, at(6)).unwrap();
        hold.adopt(&Owner::new("system"), &manifest, at(8)).unwrap();
        let decision = |standing: &str, digest: &Digest, times| v1::Decision {
            standing: standing.to_owned(),
            digest: digest.to_string(),
            times,
            ..v1::Decision::default()
        };
        let decisions =
            [decision("fresh", &root, 3), decision("stale", &other, 9), decision("changed", &root, 1)];
        let pinned = HashSet::from([twice.clone()]);
        let story = told((&hold, &record), &root, &pinned, &decisions).unwrap();
        let parts: Vec<_> = story.parts.iter().map(|part| (part.kind.as_str(), part.held)).collect();
        assert_eq!(
            parts,
            [("index", true), ("manifest", true), ("config", true), ("layer", false), ("layer", true)]
        );
        assert_eq!((story.platform.as_str(), story.complete, story.answered), (own.as_str(), true, 4));
        assert_eq!((story.other_manifests, story.other_held), (1, 0));
        let held = (index.len() + image.len() + 2 + 5) as u64;
        assert_eq!((story.held_parts, story.held_bytes, story.bytes), (4, held, held + 7));
        assert_eq!((story.counted, story.downloaded_bytes), (1, (image.len() + 2 + 5) as u64));
        assert_eq!(story.adopted_by, ["system"]);
        let [index, manifest, _, missing, layer] = &story.parts[..] else { panic!() };
        assert_eq!((index.came_at, index.came_from.as_str()), (Some(at(6).into()), ""));
        assert_eq!((manifest.came_at, &*manifest.came_from), (Some(at(7).into()), "docker.io/library/nginx"));
        assert_eq!((missing.came_at, missing.size, layer.pinned), (None, 7, true));
    }

    #[test]
    fn what_a_manifest_lists_is_known_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), at(0)).unwrap().0;
        let root = Digest::of(b"evicted");
        let story = told((&hold, &Record::new(at(0))), &root, &HashSet::new(), &[]).unwrap();
        assert_eq!((story.parts.len(), story.held_parts, story.complete), (1, 0, false));
    }
}
