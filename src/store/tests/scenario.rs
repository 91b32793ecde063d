//! A life of the store that meets every way in which it changes the disk, told to the model as it goes.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::model::Model;
use super::{NOW, digest_of};
use crate::oci::{Algorithm, Child, Digest, Registry, Repository};
use crate::store::disk::Disk;
use crate::store::{
    Announced, ArrivalError, Download, Hold, Ingest, Ingests, Listed, Owner, Reading, TagEntry,
};

/// How many bytes every ingest is said to have.
const ANNOUNCED: u64 = 99;

/// Plays it from an empty folder to the end.
pub(super) async fn play(root: &Path, disk: &Disk, model: &Arc<Mutex<Model>>) {
    let world = World::open(root, disk, model);
    let layer = world.download(b"a layer that is downloaded in two pieces");
    let manifest = world.keep(b"a manifest");
    world.point_tag(&manifest);
    world.adopt("system", &manifest);
    world.adopt("system", &layer);
    world.adopt("other", &layer);

    // Resumed, cut back to nothing, filled again, committed.
    world.write("system", "layer", &[b"one ", b"two"]).await;
    let mut ingest = world.write("system", "layer", &[b" three and more than comes after it"]).await;
    ingest.clear(NOW).unwrap();
    world.begun("system", "layer");
    drop(ingest);
    let ingest = world.write("system", "layer", &[b"what it came ", b"to be"]).await;
    let pulled = world.commit("system", ingest, Algorithm::Sha256, b"what it came to be");

    // A second copy, by another containerd and by ourselves.
    let ingest = world.write("other", "layer", &[b"what it came to be"]).await;
    world.commit("other", ingest, Algorithm::Sha256, b"what it came to be");
    world.keep(b"what it came to be");
    world.relabel("system", &pulled);
    let ingest = world.write("other", "large", &[b"by another hash"]).await;
    world.commit("other", ingest, Algorithm::Sha512, b"by another hash");

    // All that was announced has come: it is durable before the commit.
    let whole = [b"flushed as it comes, ".repeat(4), b"in many pieces.".to_vec()].concat();
    let pieces: Vec<_> = whole.chunks(33).collect();
    let ingest = world.write("system", "whole", &pieces).await;
    world.commit("system", ingest, Algorithm::Sha256, &whole);

    // Refused, aborted, left.
    let refused = world.write("system", "refused", &[b"not what was announced"]).await;
    let announced = Announced { digest: Some(Digest::of(b"another")), ..Announced::default() };
    refused.commit(announced, NOW).unwrap_err();
    drop(world.write("system", "aborted", &[b"gone"]).await);
    assert!(world.ingests("system").abort("aborted").unwrap());
    world.write("other", "aborted", &[b"gone"]).await.abort().unwrap();
    drop(world.write("other", "left", &[b"half of "]).await);
    let broken = world.hold.draft().unwrap();
    broken.remove();

    // Others bring some: of these one is held already, one has its name for nothing, and one does not come.
    let brought: [&[u8]; 3] = [b"brought by another", b"by another hash", b"what it came to be"];
    world.take_over("system", &brought, b"not what its name says");

    world.release("other", &layer);
    world.release("system", &layer);
    world.adopt("system", &layer);
    world.release("other", &pulled);

    // Cache is evicted, and comes back; what is relied on stays.
    let cache = world.keep(b"cache that nobody relies on");
    world.evict(&[&cache]);
    world.keep(b"cache that nobody relies on");
    world.hold.read(&cache).unwrap();
    world.hold.note_uses(NOW).unwrap();
    let more = world.keep(b"more of it");
    world.evict(&[&cache, &more]);
    assert_eq!(world.hold.remove_cached(&[layer.clone(), pulled.clone()]).unwrap(), []);
    world.keep(b"more of it");
    let pinned = "nginx".parse().unwrap();
    world.hold.pin(&pinned, NOW).unwrap();
    world.hold.unpin(&pinned).unwrap();

    // An adopted blob is lost, noticed and made whole.
    world.spoil(&layer);
    assert!(matches!(world.hold.read(&layer).unwrap(), Reading::Lost { .. }));
    world.download(b"a layer that is downloaded in two pieces");

    // A restart in between.
    world.hold.flush().unwrap();
    drop(world);
    let world = World::open(root, disk, model);
    world.hold.sweep(NOW, || true).unwrap();
    world.hold.count(|| true).unwrap();
    world.hold.close(NOW).unwrap();
    world.keep(b"committed after the close");
    drop(world);
    let world = World::open(root, disk, model);
    let ingest = world.write("other", "left", &[b"a layer"]).await;
    world.commit("other", ingest, Algorithm::Sha256, b"half of a layer");
    world.adopt("other", &layer);
}

struct World {
    root: std::path::PathBuf,
    disk: Disk,
    hold: Hold,
    ingests: Vec<(&'static str, Ingests)>,
    model: Arc<Mutex<Model>>,
}

impl World {
    fn open(root: &Path, disk: &Disk, model: &Arc<Mutex<Model>>) -> Self {
        let hold = Hold::open_on(disk.clone(), root, NOW).unwrap().0;
        let of = |owner| (owner, Ingests::open(&hold, Owner::new(owner)).unwrap());
        let ingests = super::model::OWNERS.into_iter().map(of).collect();
        Self { root: root.to_owned(), disk: disk.clone(), hold, ingests, model: Arc::clone(model) }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn ingests(&self, owner: &str) -> &Ingests {
        &self.ingests.iter().find(|(name, _)| *name == owner).unwrap().1
    }

    fn download(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let total = Some(bytes.len() as u64);
        let mut download = Download::begin(&self.hold, digest.clone(), total).unwrap();
        for piece in bytes.chunks(bytes.len() / 2) {
            let at = download.offset();
            download.write(piece, at).unwrap();
        }
        download.finish(NOW).unwrap();
        self.committed(&digest, bytes);
        digest
    }

    fn keep(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.hold.keep(bytes, &digest, NOW).unwrap();
        self.committed(&digest, bytes);
        digest
    }

    fn evict(&self, digests: &[&Digest]) {
        // From here on it may be there or not.
        self.model().blobs.retain(|digest, _| !digests.contains(&digest));
        let digests: Vec<_> = digests.iter().map(|digest| (*digest).clone()).collect();
        assert_eq!(self.hold.remove_cached(&digests).unwrap().len(), digests.len());
    }

    fn committed(&self, digest: &Digest, bytes: &[u8]) {
        let mut model = self.model();
        model.blobs.insert(digest.clone(), bytes.to_vec());
        model.may_be_lost.remove(digest);
    }

    fn point_tag(&self, manifest: &Digest) {
        let repository = Repository::new(Registry::docker_hub(), "nginx").unwrap();
        let entry = TagEntry { digest: manifest.clone(), confirmed_at: NOW };
        self.hold.point_tag(&repository, &"latest".parse().unwrap(), &entry).unwrap();
        self.hold.note_source(manifest, &repository).unwrap();
        let (digest, media_type) = (Digest::of(b"child"), String::new());
        let child = Child { digest, size: 5, media_type, platform: None, has_urls: false };
        self.hold.note_listed(&child, &repository, Listed::Blob, NOW).unwrap();
        self.hold.forget_tag(&repository, &"latest".parse().unwrap()).unwrap();
    }

    fn adopt(&self, owner: &'static str, digest: &Digest) {
        self.model().may_be_adopted.insert((owner, digest.clone()));
        self.hold.adopt(&Owner::new(owner), digest, NOW).unwrap().unwrap();
        self.model().adopted.insert((owner, digest.clone()));
    }

    /// Lets others put these where arrivals are put, and one under a name that is not its own.
    fn take_over(&self, owner: &'static str, brought: &[&[u8]], misnamed: &[u8]) {
        let arrivals = self.hold.arrivals();
        let put = |digest: &Digest, bytes: &[u8]| {
            let name = format!("{}{}-{}", arrivals.prefix(), digest.algorithm().name(), digest.hex());
            let path = arrivals.folder().join(name);
            let file = self.disk.create(&path).unwrap();
            self.disk.write(&path, &file, bytes, 0).unwrap();
        };
        let mut digests: Vec<_> = brought.iter().map(|bytes| Digest::of(bytes)).collect();
        for (digest, bytes) in digests.iter().zip(brought) {
            put(digest, bytes);
            self.model().may_be_adopted.insert((owner, digest.clone()));
        }
        digests.push(Digest::of(b"something else"));
        put(&Digest::of(b"something else"), misnamed);
        digests.push(Digest::of(b"what does not come"));
        let taken = arrivals.take_over(&Owner::new(owner), &digests, NOW, |_| true).unwrap();
        for ((digest, bytes), taken) in digests.iter().zip(brought).zip(&taken) {
            assert_eq!(taken.as_ref().unwrap().blob().digest, *digest);
            self.committed(digest, bytes);
            self.model().adopted.insert((owner, digest.clone()));
        }
        assert!(
            matches!(taken[3..], [Err(ArrivalError::Digest { .. }), Err(ArrivalError::Missing)]),
            "{taken:?}"
        );
    }

    fn release(&self, owner: &'static str, digest: &Digest) {
        self.model().adopted.remove(&(owner, digest.clone()));
        self.model().labels.remove(&(owner, digest.clone()));
        assert!(self.hold.release(&Owner::new(owner), digest).unwrap());
    }

    fn relabel(&self, owner: &'static str, digest: &Digest) {
        let change = |labels: &mut std::collections::HashMap<_, _>| {
            labels.insert("a label".to_owned(), "its value".to_owned());
        };
        let adopted = self.hold.relabel(&Owner::new(owner), digest, NOW, change).unwrap().unwrap();
        self.model().labels.insert((owner, digest.clone()), adopted.labels);
    }

    /// What is written to a ref from now on starts at its beginning.
    fn begun(&self, owner: &'static str, name: &'static str) {
        self.model().written.entry((owner, name)).or_default().push(Vec::new());
    }

    async fn write(&self, owner: &'static str, name: &'static str, pieces: &[&[u8]]) -> Ingest {
        self.model().written.entry((owner, name)).or_insert_with(|| vec![Vec::new()]);
        let mut ingest = self.ingests(owner).write(name, NOW).await.unwrap();
        ingest.expect_total(ANNOUNCED).unwrap();
        for piece in pieces {
            let mut model = self.model();
            model.written.get_mut(&(owner, name)).unwrap().last_mut().unwrap().extend_from_slice(piece);
            drop(model);
            ingest.write(piece, NOW).unwrap();
        }
        ingest
    }

    fn commit(&self, owner: &'static str, ingest: Ingest, algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let digest = digest_of(bytes, algorithm);
        self.model().may_be_adopted.insert((owner, digest.clone()));
        let announced = Announced { digest: Some(digest.clone()), ..Announced::default() };
        ingest.commit(announced, NOW).unwrap();
        self.committed(&digest, bytes);
        self.model().adopted.insert((owner, digest.clone()));
        digest
    }

    /// Takes a blob's file away, as no part of the store would.
    fn spoil(&self, digest: &Digest) {
        self.model().blobs.remove(digest);
        self.model().may_be_lost.insert(digest.clone());
        let hex = digest.hex();
        self.disk.remove(&self.root.join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
        self.hold.read_again(digest).unwrap();
    }
}
