//! A containerd that has its own content store is given Tidehold instead, with all that it holds, and gets that back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::bench::{FIXED, LATEST, Upstream, assert_free, hex_of, parts_of, release};
use crate::private::{ADA, BOB, REPOSITORY, SECRET, with_a_secret};
use crate::programs;
use crate::support::containerd::{Containerd, Kubernetes, Store, Version, unique_id};
use crate::support::cri::Crictl;
use crate::support::daemon::Daemon;
use crate::support::hub::client::Client;
use crate::support::hub::{Counters, Image};
use crate::support::ran::{Ran, plainly};
use crate::{Scenario, scenario};

const MIB: usize = 1024 * 1024;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("its own store is taken over, and all images and containers work as before", there),
    scenario("what it has, old and new, is given back to its own store", back),
    scenario(
        "where its blobs came from is asked once it runs, and both are given back without a daemon",
        offline,
    ),
    Scenario {
        needs: programs::available,
        ..scenario("what crictl has pulled is taken over with where it came from", by_crictl)
    },
    scenario("a private image that was taken over is for those who may read it at its registry", private),
    scenario("a registry that only names what another one has is not believed", named_by_another),
    scenario("what a public image only names of a private one is given to nobody", named_by_a_neighbour),
    scenario("what it pulls while its store is taken over is taken over by the next run", while_it_pulls),
];

/// A containerd with its own store, and a daemon that it does not know yet.
struct Before {
    containerd: Containerd,
    daemon: Daemon,
    upstream: Upstream,
}

impl Before {
    fn start(version: Version) -> Self {
        Self::start_on(version, Upstream::start())
    }

    fn start_on(version: Version, upstream: Upstream) -> Self {
        Self::start_as(version, upstream, Kubernetes::Without)
    }

    fn start_as(version: Version, upstream: Upstream, kubernetes: Kubernetes) -> Self {
        let daemon = Daemon::start(&upstream.daemon_config());
        let containerd = Containerd::start_as(version, Store::Builtin, kubernetes);
        containerd.route("docker.io", &upstream.hub.registry_url());
        Self { containerd, daemon, upstream }
    }

    /// Gives it Tidehold as its store and as its resolver.
    fn swap(&mut self) {
        self.containerd.restart_with(Store::Tidehold(&self.daemon.content()));
        self.containerd.route("docker.io", &self.daemon.mirror());
    }

    /// Gives it its own again.
    fn swap_back(&mut self) {
        self.containerd.restart_with(Store::Builtin);
        self.containerd.route("docker.io", &self.upstream.hub.registry_url());
    }

    fn adopt(&self, options: &[&str]) -> Ran {
        self.try_adopt(options).done()
    }

    fn try_adopt(&self, options: &[&str]) -> Ran {
        self.adopt_asking(&self.containerd.socket(), options)
    }

    /// Where what came from where is asked at this socket.
    fn adopt_asking(&self, socket: &Path, options: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
        command.arg("adopt").arg("--config").arg(self.daemon.config());
        command.arg("--from").arg(self.containerd.root()).arg("--address").arg(socket);
        plainly(&mut command).args(options).output().unwrap().into()
    }

    /// Another command of the operator's.
    fn ask(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
        plainly(&mut command).args(words).arg("--config").arg(self.daemon.config()).output().unwrap().into()
    }

    /// Takes over, and answers of how many blobs it is known now where they came from, and was not before.
    fn noted(&self) -> usize {
        let summary = self.adopt(&["--json"]).event("summary");
        assert_eq!(summary["sources"].get("unanswered"), None, "{summary}");
        summary["sources"]["noted"].as_u64().unwrap().try_into().unwrap()
    }

    /// Another containerd, with a store of its own, that pulls by way of the same daemon.
    fn neighbour(&self) -> Containerd {
        let other = Containerd::start(self.containerd.version(), Store::Builtin);
        other.route("docker.io", &self.daemon.mirror());
        other
    }

    /// The blobs in its own store, by digest.
    fn stored(&self) -> BTreeSet<String> {
        let names = fs::read_dir(blobs_of(&self.containerd)).unwrap();
        names.map(|name| format!("sha256:{}", name.unwrap().file_name().to_str().unwrap())).collect()
    }

    /// Both stores have these as the same files.
    fn shares(&self, digests: &BTreeSet<String>) {
        for digest in digests {
            let own = blobs_of(&self.containerd).join(digest.strip_prefix("sha256:").unwrap());
            assert_eq!(inode(&own), inode(&self.daemon.file_of(digest)), "{digest}");
        }
    }

    fn relied_on(&self) -> BTreeSet<String> {
        let marks = fs::read_dir(self.daemon.data().join("adopted/node")).unwrap();
        let marks = marks.map(|mark| mark.unwrap().file_name().into_string().unwrap());
        marks.map(|mark| mark.rsplit_once('-').unwrap().0.replacen('-', ":", 1)).collect()
    }
}

fn blobs_of(containerd: &Containerd) -> PathBuf {
    containerd.root().join("io.containerd.content.v1.content/blobs/sha256")
}

/// Nothing but the one manifest by which its registry shows that it has the image.
fn assert_shown(cost: &Counters) {
    assert_eq!((cost.manifest_gets, cost.blob_gets, cost.cdn_gets), (1, 0, 0), "{cost:?}");
}

fn inode(file: &Path) -> u64 {
    fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).ino()
}

fn there(version: Version) {
    let mut node = Before::start(version);
    let pushed = node.upstream.push("large", 2 * MIB);
    let own = unique_id();
    node.containerd.pull(&own, LATEST);
    node.containerd.pull(&own, FIXED);
    node.containerd.pull("other", &pushed.reference);
    let created = node.containerd.create(&own, LATEST);
    let before = [node.containerd.content(&own), node.containerd.content("other")];
    let first = node.upstream.hub.first().clone();

    // While it runs, and a second time, which finds nothing more to do.
    for new in [node.stored().len(), 0] {
        assert_eq!(node.noted(), new);
        node.shares(&node.stored());
        assert_eq!(node.relied_on(), node.stored());
    }
    node.try_adopt(&["--clear"]).failed_with(1, &["has its own content store still"]);
    // Its names are containerd's alone, and what is held is told of nevertheless.
    node.ask(&["ls"]).done().said(&["containerd \"node\" relies on ", "without a tag that is known here"]);
    let held =
        ["nothing is known of", "blobs of docker.io/library/tide were", "taken over from a containerd"];
    node.ask(&["explain", LATEST]).failed_with(1, &held);
    node.shares(&node.relied_on());
    node.swap();
    assert_eq!([node.containerd.content(&own), node.containerd.content("other")], before);
    assert_eq!(node.containerd.read_back(&own), parts_of(&first));
    assert_eq!(node.containerd.read_back("other"), parts_of(&pushed.image));
    assert_eq!(node.containerd.run_created(&own, &created), release(&first));
    assert_eq!(node.containerd.run(&own, LATEST), release(&first));
    assert_eq!(node.containerd.run("other", &pushed.reference), release(&pushed.image));

    // Its former store lets go of what was taken over, so that what is removed leaves the disk; not of what the hold has as
    // cache alone, and may evict.
    let kept = pushed.large();
    let mark = format!("sha256-{}-{}", hex_of(kept), pushed.size_of(kept));
    assert!(node.daemon.terminate().success());
    fs::remove_file(node.daemon.data().join("adopted/node").join(mark)).unwrap();
    node.daemon.start_again();
    let stays = "1 blob there that Tidehold has not taken over left alone: run `tidehold adopt` first";
    node.adopt(&["--clear", "--dry-run"]).said(&[stays]);
    node.adopt(&["--clear"]).said(&[stays]);
    assert_eq!(node.stored(), BTreeSet::from([kept.to_owned()]));
    node.adopt(&[]);
    node.adopt(&["--clear"]);
    assert!(node.stored().is_empty());
    assert_eq!(node.containerd.read_back(&own), parts_of(&first));

    // What is pulled again is there, for others too; what is removed goes, and nothing else.
    let neighbour = node.neighbour();
    node.adopt_asking(&neighbour.socket(), &[]).done().said(&["its root is not", "--address names"]);
    for reference in [LATEST, &pushed.reference] {
        let cost = node.upstream.cost_of(|| node.containerd.pull(&own, reference));
        assert_free(&cost);
        assert!(cost.manifest_heads > 0, "its registry was asked: {cost:?}");
        assert_free(&node.upstream.cost_of(|| node.containerd.pull("third", reference)));
        assert_free(&node.upstream.cost_of(|| neighbour.pull("default", reference)));
        node.containerd.remove_images("third");
        assert_free(&node.upstream.cost_of(|| node.containerd.pull("third", reference)));
    }
    assert_eq!(neighbour.run("default", &pushed.reference), release(&pushed.image));
    node.containerd.ctr(&["-n", own.as_str(), "images", "rm", "--sync", &pushed.reference]);
    node.containerd.remove_images("other");
    node.containerd.remove_images("third");
    assert!(node.containerd.content("other").is_empty());
    assert_eq!(node.containerd.read_back(&own), parts_of(&first));
    assert_eq!(node.relied_on(), parts_of(&first));
    assert_eq!(node.containerd.run(&own, FIXED), release(&first));
}

fn back(version: Version) {
    let mut node = Before::start(version);
    let own = unique_id();
    node.containerd.pull(&own, LATEST);
    let created = node.containerd.create(&own, LATEST);
    node.adopt(&[]);
    node.swap();
    let new = node.upstream.push("new", 2 * MIB);
    node.containerd.pull(&own, &new.reference);
    let created_new = node.containerd.create(&own, &new.reference);
    let first = node.upstream.hub.first().clone();
    let all = &parts_of(&first) | &parts_of(&new.image);
    let mark = node.daemon.data().join("adopted-from/node");
    assert!(mark.exists());

    // As its own store never had anything, too.
    fs::remove_dir_all(blobs_of(&node.containerd)).unwrap();
    for _ in 0..2 {
        node.adopt(&["--undo"]);
        node.shares(&all);
        assert_eq!(node.stored(), all);
    }
    assert!(!mark.exists());
    for digest in &all {
        let own = blobs_of(&node.containerd).join(digest.strip_prefix("sha256:").unwrap());
        assert_eq!(fs::metadata(own).unwrap().permissions().mode() & 0o7777, 0o444);
    }
    node.swap_back();
    assert!(node.daemon.terminate().success());
    assert_eq!(node.containerd.read_back(&own), all);
    for (reference, image) in [(LATEST, &first), (new.reference.as_str(), &new.image)] {
        assert_eq!(node.containerd.run(&own, reference), release(image));
    }
    assert_eq!(node.containerd.run_created(&own, &created), release(&first));
    assert_eq!(node.containerd.run_created(&own, &created_new), release(&new.image));
    let again = node.upstream.push("again", MIB);
    node.containerd.pull(&own, &again.reference);
    assert_eq!(node.containerd.run(&own, &again.reference), release(&again.image));

    // Its collection takes what no image needs, of what came back too, and the hold is none of its business.
    node.containerd.ctr(&["-n", own.as_str(), "images", "rm", "--sync", &new.reference, &again.reference]);
    assert_eq!(node.stored(), parts_of(&first));
    node.adopt(&["--undo", "--release", "--offline"]);
    assert!(node.relied_on().is_empty());
    assert!(all.iter().all(|digest| node.daemon.file_of(digest).exists()));
}

/// The labels are in containerd's own database, whichever store it has.
fn offline(version: Version) {
    let mut node = Before::start(version);
    let own = unique_id();
    node.containerd.pull(&own, LATEST);
    let first = node.upstream.hub.first().clone();
    node.containerd.stop();
    node.adopt(&[]).said(&[
        "where they came from is not known",
        "was not asked",
        "run `tidehold adopt` again",
    ]);
    node.swap();
    assert_eq!(node.noted(), parts_of(&first).len());
    assert_eq!(node.noted(), 0);
    assert_free(&node.upstream.cost_of(|| node.containerd.pull(&own, LATEST)));
    node.containerd.remove_images(&own);
    assert_free(&node.upstream.cost_of(|| node.containerd.pull(&own, LATEST)));

    let new = node.upstream.push("new", MIB);
    node.containerd.pull(&own, &new.reference);
    let all = &parts_of(&first) | &parts_of(&new.image);
    assert!(node.daemon.terminate().success());
    node.adopt(&["--offline"]).said(&["where they came from is not known", "its content store is Tidehold"]);
    fs::remove_dir_all(blobs_of(&node.containerd)).unwrap();
    node.containerd.stop();
    node.adopt(&["--undo", "--offline"]);
    node.shares(&all);
    node.swap_back();
    assert_eq!(node.containerd.read_back(&own), all);
    assert_eq!(node.containerd.run(&own, LATEST), release(&first));
    assert_eq!(node.containerd.run(&own, &new.reference), release(&new.image));
}

/// It names each image twice more, by its digest and by its config's.
fn by_crictl(version: Version) {
    let mut node = Before::start_as(version, Upstream::start(), Kubernetes::With);
    let program = programs::program("crictl");
    let first = node.upstream.hub.first().clone();
    Crictl::new(program.clone(), &node.containerd).pull(LATEST);
    assert_eq!(node.noted(), parts_of(&first).len());
    node.swap();
    let crictl = Crictl::new(program, &node.containerd);
    assert_free(&node.upstream.cost_of(|| crictl.pull(LATEST)));
    crictl.ask(&["rmi", LATEST]);
    assert!(!crictl.images().iter().any(|image| image == LATEST));
    assert_free(&node.upstream.cost_of(|| crictl.pull(LATEST)));
    assert_eq!(node.containerd.read_back("k8s.io"), parts_of(&first));
}

fn private(version: Version) {
    let (upstream, image) = with_a_secret();
    let mut node = Before::start_on(version, upstream);
    let own = unique_id();
    let pulled = node.containerd.try_pull_as(&own, SECRET, Some(ADA));
    assert!(pulled.status.success(), "{pulled:?}");
    assert_eq!(node.noted(), parts_of(&image).len());
    node.swap();

    let neighbour = node.neighbour();
    let by_digest = format!("docker.io/{REPOSITORY}@{}", image.digest);
    // What is public has them no more than the private one does.
    let as_public = format!("docker.io/library/tide@{}", image.digest);
    let cost = node.upstream.cost_of(|| {
        for (containerd, namespace) in [(&node.containerd, "one"), (&neighbour, "default")] {
            for reference in [SECRET, &by_digest, &as_public] {
                for login in [None, Some(BOB)] {
                    let pulled = containerd.try_pull_as(namespace, reference, login);
                    assert!(!pulled.status.success(), "{reference} as {login:?}");
                }
            }
        }
    });
    assert_free(&cost);
    let cost = node.upstream.cost_of(|| {
        for (containerd, namespace) in [(&node.containerd, "three"), (&neighbour, "default")] {
            let pulled = containerd.try_pull_as(namespace, SECRET, Some(ADA));
            assert!(pulled.status.success(), "{pulled:?}");
        }
    });
    assert_free(&cost);
    assert_eq!(neighbour.run("default", SECRET), release(&image));
}

/// Its image is pulled without a byte of it, as containerd has them all, and labels them with its name too.
fn named_by_another(version: Version) {
    const OTHER: &str = "other.test/library/tide:latest";
    let mut node = Before::start(version);
    let own = unique_id();
    node.containerd.pull(&own, LATEST);
    node.containerd.route("other.test", &node.upstream.hub.registry_url());
    node.containerd.pull(&own, OTHER);
    assert_eq!(node.noted(), 0);
    node.swap();
    let cost = node.upstream.cost_of(|| node.containerd.pull(&own, LATEST));
    assert_shown(&cost);
    assert_free(&node.upstream.cost_of(|| node.containerd.pull(&own, LATEST)));
}

/// Anybody may push a manifest that names a layer which its registry need not have, and whoever has pulled both has the layer
/// with the public one's label too; with that alone, where the other was in another namespace and is gone.
fn named_by_a_neighbour(version: Version) {
    let (upstream, image) = with_a_secret();
    let own = image.own();
    let (base, secret) = (&own.layers[0], &own.layers[1]);
    let bytes_of = |digest: &str| image.bytes_of(digest).unwrap();
    let names = |repository: &str, secret: Value| {
        let sized = |digest: &str, kind: &str| {
            let media_type = format!("application/vnd.oci.image.{kind}");
            json!({ "mediaType": media_type, "digest": digest, "size": bytes_of(digest).len() })
        };
        let mut layer = sized(&own.layers[1], "layer.v1.tar+gzip");
        layer.as_object_mut().unwrap().extend(secret.as_object().unwrap().clone());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": sized(&own.config, "config.v1+json"),
            "layers": [sized(base, "layer.v1.tar+gzip"), layer],
            "annotations": { "of": repository },
        });
        let image = Image::of_manifest(media_type, manifest.to_string());
        let image = image.with_blobs([bytes_of(&own.config), bytes_of(base)]);
        upstream.hub.tag(repository, "latest", &upstream.hub.push(repository, &image));
    };
    let foreign = json!({ "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" });
    names("foreign/beside", foreign.clone());
    names("foreign/alone", foreign);
    names("urls/alone", json!({ "urls": ["https://urls.test/layer"] }));
    let node = Before::start_on(version, upstream);
    let client = Client::new();
    let given = |repository: &str, digest: &str| {
        let url = format!("{}/v2/{repository}/blobs/{digest}?ns=docker.io", node.daemon.mirror());
        node.upstream.soon(client.get(&url, &[])).status.as_u16()
    };

    let namespaces = [(); 4].map(|()| unique_id());
    let pulled = node.containerd.try_pull_as(&namespaces[0], SECRET, Some(ADA));
    assert!(pulled.status.success(), "{pulled:?}");
    for (index, repository) in [(1, "foreign/beside"), (2, "foreign/alone"), (3, "urls/alone")] {
        let namespace = &namespaces[index];
        node.containerd.pull(namespace, &format!("docker.io/{repository}:latest"));
        let listed = node.containerd.ctr(&["-n", namespace, "content", "ls"]);
        let labelled = listed.lines().find(|line| line.contains(secret)).unwrap();
        assert!(labelled.contains(&format!("distribution.source.docker.io={repository}")), "{labelled}");
        if repository.ends_with("alone") {
            namespaces[..index].iter().for_each(|before| node.containerd.remove_images(before));
        }
        node.noted();
        // What is known to be everybody's is not asked for again.
        assert_eq!([given(repository, base), given(repository, secret)], [200, 404], "{repository}");
    }
}

fn while_it_pulls(version: Version) {
    let mut node = Before::start(version);
    node.containerd.pull("default", LATEST);
    let pushed: Vec<_> =
        (0..6).map(|number| node.upstream.push(&format!("image-{number}"), 2 * MIB)).collect();
    thread::scope(|scope| {
        let pulling = scope.spawn(|| {
            pushed.iter().for_each(|pushed| node.containerd.pull("default", &pushed.reference));
        });
        while !pulling.is_finished() {
            node.adopt(&[]);
        }
        pulling.join().unwrap();
    });
    node.adopt(&[]);
    node.shares(&node.stored());
    node.swap();
    for pushed in &pushed {
        assert_eq!(node.containerd.run("default", &pushed.reference), release(&pushed.image));
        assert_free(&node.upstream.cost_of(|| node.containerd.pull("default", &pushed.reference)));
    }
    node.containerd.read_back("default");
}
