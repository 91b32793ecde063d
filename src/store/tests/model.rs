//! What the store has promised, beside the store; and whether what a crash left can still keep it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::NOW;
use super::trial::Image;
use crate::oci::Digest;
use crate::store::{Announced, Hold, Ingests, Kept, Owner, Reading};

/// The containerds of the scenarios.
pub(super) const OWNERS: [&str; 2] = ["system", "other"];

/// An adoption: by whom, and of what.
pub(super) type Adoption = (&'static str, Digest);

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    /// Answered as committed.
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    /// Answered as adopted, and no release asked for since.
    pub(super) adopted: BTreeSet<Adoption>,
    /// Ever asked for: a crash may finish an adoption that was not answered, or undo a release.
    pub(super) may_be_adopted: BTreeSet<Adoption>,
    /// Answered as labelled.
    pub(super) labels: BTreeMap<Adoption, HashMap<String, String>>,
    /// Spoilt by the scenario: adopted and perhaps not held.
    pub(super) may_be_lost: BTreeSet<Digest>,
    /// All that was written to refs, from their beginnings on.
    pub(super) written: BTreeMap<(&'static str, &'static str), Vec<Vec<u8>>>,
    /// The index was taken away: labels with it.
    pub(super) index_lost: bool,
}

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

impl Model {
    /// Opens what a crash left, twice, and goes on working with it.
    pub(super) fn check(&self, image: &Image) -> Result<(), String> {
        self.entries_are_true(image)?;
        let folder = super::folder();
        image.lay_out(folder.path());
        let (hold, _) = Hold::open(folder.path(), NOW).map_err(|error| format!("does not open: {error}"))?;
        self.blobs_are_there(&hold)?;
        self.adoptions_are_there(&hold)?;
        // What was answered is there already. The rest:
        hold.sweep(NOW, || true).map_err(|error| format!("does not sweep: {error}"))?;
        self.blobs_are_there(&hold)?;
        let after = nothing_is_astray(&hold, folder.path())?;
        drop(hold);
        let (hold, again) = Hold::open(folder.path(), NOW).map_err(|error| format!("not again: {error}"))?;
        ensure!(!again.put_right(), "the second recovery put right what the first left: {again:?}");
        let again = hold.sweep(NOW, || true).map_err(|error| format!("not again: {error}"))?;
        ensure!(!again.put_right(), "the second sweep put right what the first left: {again:?}");
        let twice = nothing_is_astray(&hold, folder.path())?;
        ensure!(after == twice, "the second recovery changed something");
        self.ingests_go_on(&hold, folder.path())?;
        self.blobs_are_there(&hold)
    }

    /// Whatever the index says is so on the disk, at any moment, before anything is put right.
    fn entries_are_true(&self, image: &Image) -> Result<(), String> {
        for (tree, key) in image.index.iter().flat_map(|index| index.keys()) {
            if tree == "blobs" {
                let digest: Digest = String::from_utf8_lossy(key).parse().unwrap();
                let path = Path::new("blobs").join(digest.algorithm().name()).join(&digest.hex()[..2]);
                let file = image.files.get(&path.join(digest.hex()));
                let whole = file.is_some_and(|file| super::has_digest(&file.bytes, &digest));
                ensure!(
                    whole || self.may_be_lost.contains(&digest),
                    "the index has {digest}, the disk has not"
                );
            }
        }
        Ok(())
    }

    fn blobs_are_there(&self, hold: &Hold) -> Result<(), String> {
        for (digest, bytes) in &self.blobs {
            let read = match hold.read(digest) {
                Ok(Reading::Open(open)) => open.read_at(0, usize::MAX).map_err(|error| error.to_string())?,
                other => return Err(format!("{digest}, which was committed, reads as {other:?}")),
            };
            ensure!(read == *bytes, "{digest} reads as other bytes");
        }
        Ok(())
    }

    fn adoptions_are_there(&self, hold: &Hold) -> Result<(), String> {
        for (owner, digest) in &self.adopted {
            let adopted = hold.adopted(&Owner::new(owner), digest).unwrap();
            ensure!(adopted.is_some(), "{owner}'s adoption of {digest} is gone");
            let held = hold.blob(digest).unwrap().is_some();
            ensure!(
                held || self.may_be_lost.contains(digest),
                "{digest}, which {owner} adopted, is not held"
            );
        }
        for owner in OWNERS {
            for adopted in hold.adopted_after(&Owner::new(owner), None, usize::MAX).unwrap() {
                let adoption = (owner, adopted.blob.digest);
                ensure!(self.may_be_adopted.contains(&adoption), "{adoption:?} was never asked for");
                let labels = self.labels.get(&adoption).filter(|_| !self.index_lost);
                ensure!(
                    labels.is_none_or(|labels| *labels == adopted.labels),
                    "{adoption:?} has other labels"
                );
            }
        }
        Ok(())
    }

    /// Every ingest has the digest of its bytes, the beginning of what was written, and can be finished.
    fn ingests_go_on(&self, hold: &Hold, root: &Path) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for owner in OWNERS {
            let ingests = Ingests::open(hold, Owner::new(owner)).map_err(|error| error.to_string())?;
            for (name, status) in ingests.statuses() {
                let key = self.written.keys().find(|key| key.0 == owner && key.1 == name);
                let written = key.and_then(|key| self.written.get(key));
                let written = written.ok_or_else(|| format!("{owner} never wrote to {name}"))?;
                let mut ingest = runtime.block_on(ingests.write(&name, NOW)).unwrap();
                ensure!(ingest.status().offset == status.offset, "{name} has two offsets");
                let at = usize::try_from(status.offset).unwrap();
                let whole = written
                    .iter()
                    .find(|whole| whole.get(..at).is_some_and(|begun| Digest::of(begun) == ingest.digest()));
                let whole = whole.ok_or_else(|| format!("{name} has {at} bytes that nobody wrote"))?;
                ingest.write(&whole[at..], NOW).unwrap();
                let kept = ingest.commit(Announced::default(), NOW).map_err(|error| error.to_string())?;
                let (Kept::New(blob) | Kept::Already(blob)) = kept;
                ensure!(blob.digest == Digest::of(whole), "{name} became another blob");
            }
        }
        hold.flush().map_err(|error| error.to_string())?;
        nothing_is_astray(hold, root).map(drop)
    }
}

/// Files and entries are the same things, and no others are there. Answers with all of them.
fn nothing_is_astray(hold: &Hold, root: &Path) -> Result<Image, String> {
    let mut image = Image::of(root);
    let entries = hold.inner.index.dump();
    let of_tree = |name: &str| {
        let keys = entries.keys().filter(|(tree, _)| tree == name);
        keys.map(|(_, key)| String::from_utf8_lossy(key).into_owned()).collect::<BTreeSet<_>>()
    };
    let blobs: BTreeSet<_> = image
        .below("blobs")
        .into_iter()
        .map(|path| {
            let algorithm = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
            format!("{algorithm}:{}", path.file_name().unwrap().to_string_lossy())
        })
        .collect();
    ensure!(blobs == of_tree("blobs"), "blobs: files {blobs:?}, entries {:?}", of_tree("blobs"));
    for (path, content) in &image.files {
        if path.starts_with("blobs") {
            let name = path.file_name().unwrap().to_string_lossy();
            let digest = blobs.iter().find(|digest| digest.ends_with(&*name)).unwrap().parse().unwrap();
            ensure!(super::has_digest(&content.bytes, &digest), "{} has other bytes", path.display());
        }
    }
    let marks: BTreeSet<_> = image
        .below("adopted")
        .into_iter()
        .map(|path| {
            let mark = path.file_name().unwrap().to_string_lossy().replacen('-', ":", 1);
            let owner = path.parent().unwrap().to_string_lossy();
            format!("{owner}\0{}", mark.rsplit_once('-').unwrap().0)
        })
        .collect();
    ensure!(marks == of_tree("adoptions"), "marks {marks:?}, entries {:?}", of_tree("adoptions"));
    ensure!(image.below("ingest/download").is_empty(), "a download is left");
    ensure!(image.below("entering").is_empty(), "a note is left");
    ensure!(image.below("arriving").is_empty(), "an arrival is left");
    let ingests = image.below("ingest").len();
    ensure!(ingests == of_tree("ingests").len(), "{ingests} ingests, entries {:?}", of_tree("ingests"));
    image.index = Some(entries);
    Ok(image)
}
