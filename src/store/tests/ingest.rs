//! Ingests against a model: whatever a containerd does in whatever order, each ref has the bytes that were written to
//! it, one writer, and a digest to show for it.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::{NOW, folder};
use crate::oci::Digest;
use crate::store::{Announced, CommitError, Hold, Ingest, Ingests, Kept, OpenIngestError, Owner, Reading};

const REFS: [&str; 3] = ["a", "b", "a/layer-sha256:\u{1}\u{fe0f}"];

#[derive(Debug, Clone)]
enum Deed {
    Open(usize),
    Write(usize, Vec<u8>),
    Clear(usize),
    ExpectTotal(usize, u64),
    LetGo(usize),
    /// With the digest of what was written, or of something else.
    Commit(usize, bool),
    /// By the stream that writes.
    GiveUp(usize),
    /// By somebody else.
    Abort(usize),
    /// Streams that were aborted under their writers try to commit.
    CommitAborted,
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let name = || 0..REFS.len();
    let bytes = prop_oneof![Just(b"tide".to_vec()), prop::collection::vec(any::<u8>(), 0..40)];
    let deed = prop_oneof![
        6 => name().prop_map(Deed::Open),
        8 => (name(), bytes).prop_map(|(name, bytes)| Deed::Write(name, bytes)),
        1 => name().prop_map(Deed::Clear),
        1 => (name(), any::<u64>()).prop_map(|(name, total)| Deed::ExpectTotal(name, total)),
        3 => name().prop_map(Deed::LetGo),
        3 => (name(), any::<bool>()).prop_map(|(name, right)| Deed::Commit(name, right)),
        1 => name().prop_map(Deed::GiveUp),
        1 => name().prop_map(Deed::Abort),
        1 => Just(Deed::CommitAborted),
        1 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 1..60)
}

/// The store with its open streams, and what it should hold.
struct World {
    hold: Hold,
    ingests: Ingests,
    open: BTreeMap<usize, Ingest>,
    aborted: Vec<Ingest>,
    /// The bytes and the total of every ingest.
    refs: BTreeMap<usize, (Vec<u8>, u64)>,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

fn owner() -> Owner {
    Owner::new("system")
}

fn announced(digest: &Digest) -> Announced {
    Announced { digest: Some(digest.clone()), ..Announced::default() }
}

impl World {
    fn open(root: &Path) -> Self {
        let hold = Hold::open(root, NOW).unwrap().0;
        let ingests = Ingests::open(&hold, owner()).unwrap();
        let (open, aborted, refs, blobs) = Default::default();
        Self { hold, ingests, open, aborted, refs, blobs }
    }

    async fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Open(name) => match self.ingests.write(REFS[name], NOW).await {
                Ok(ingest) => {
                    assert!(!self.open.contains_key(&name), "a ref has two writers");
                    self.refs.entry(name).or_default();
                    self.open.insert(name, ingest);
                }
                Err(OpenIngestError::Busy(_)) => assert!(self.open.contains_key(&name), "a free ref is busy"),
                Err(error) => panic!("{error}"),
            },
            Deed::Write(name, bytes) => {
                if let Some(ingest) = self.open.get_mut(&name) {
                    ingest.write(&bytes, NOW).unwrap();
                    self.refs.get_mut(&name).unwrap().0.extend(bytes);
                }
            }
            Deed::Clear(name) => {
                if let Some(ingest) = self.open.get_mut(&name) {
                    ingest.clear(NOW).unwrap();
                    self.refs.get_mut(&name).unwrap().0.clear();
                }
            }
            Deed::ExpectTotal(name, total) => {
                if let Some(ingest) = self.open.get_mut(&name) {
                    ingest.expect_total(total).unwrap();
                    self.refs.get_mut(&name).unwrap().1 = total;
                }
            }
            Deed::LetGo(name) => drop(self.open.remove(&name)),
            Deed::Commit(name, right) => {
                if let Some(ingest) = self.open.remove(&name) {
                    self.commits(name, ingest, right);
                }
            }
            Deed::GiveUp(name) => {
                if let Some(ingest) = self.open.remove(&name) {
                    ingest.abort().unwrap();
                    self.refs.remove(&name);
                }
            }
            Deed::Abort(name) => {
                let there = self.refs.remove(&name).is_some();
                assert_eq!(self.ingests.abort(REFS[name]).unwrap(), there);
                self.aborted.extend(self.open.remove(&name));
            }
            Deed::CommitAborted => {
                for ingest in std::mem::take(&mut self.aborted) {
                    let new = matches!(ingest.commit(Announced::default(), NOW), Ok(Kept::New(_)));
                    assert!(!new, "an aborted ingest became a blob");
                }
            }
            Deed::Restart => {}
        }
    }

    fn commits(&mut self, name: usize, ingest: Ingest, right: bool) {
        let bytes = self.refs[&name].0.clone();
        let digest = Digest::of(&bytes);
        if !right {
            let refused = ingest.commit(announced(&Digest::of(b"something else")), NOW);
            assert!(matches!(refused, Err(CommitError::Digest { .. })));
            return;
        }
        match ingest.commit(announced(&digest), NOW).unwrap() {
            Kept::New(_) => assert!(!self.blobs.contains_key(&digest), "a blob is new twice"),
            Kept::Already(_) => assert!(self.blobs.contains_key(&digest), "a new blob was there already"),
        }
        self.refs.remove(&name);
        self.blobs.insert(digest, bytes);
    }

    fn is_as_it_should_be(&self) {
        assert_eq!(self.ingests.statuses().len(), self.refs.len());
        for (name, (bytes, total)) in &self.refs {
            let status = self.ingests.status(REFS[*name]).unwrap();
            assert_eq!((status.offset, status.total), (bytes.len() as u64, *total));
        }
        for (name, ingest) in &self.open {
            assert_eq!(ingest.digest(), Digest::of(&self.refs[name].0));
        }
        for (digest, bytes) in &self.blobs {
            let Reading::Open(open) = self.hold.read(digest).unwrap() else { panic!("{digest} is gone") };
            assert_eq!(open.read_at(0, usize::MAX).unwrap(), bytes);
            assert!(self.hold.adopted(&owner(), digest).unwrap().is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_ingest_is_what_was_written_to_it(deeds in deeds()) {
        let folder = folder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut world = World::open(folder.path());
        for deed in deeds {
            if matches!(deed, Deed::Restart) {
                let World { hold, ingests, open, aborted, refs, blobs } = world;
                drop((open, aborted, ingests, hold));
                world = World { refs, blobs, ..World::open(folder.path()) };
            } else {
                runtime.block_on(world.does(deed));
            }
            world.is_as_it_should_be();
        }
    }
}
