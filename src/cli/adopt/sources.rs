//! Where blobs came from, as the containerd that has them tells, so that its first pulls by way of Tidehold need no manifest
//! to show that a registry has what is held already.
//!
//! containerd labels each blob of an image that it pulls with `containerd.io/distribution.source.<host>` and the names of
//! repositories (`core/remotes/docker/handler.go`). That is no proof. The label is set as well where the bytes were there
//! before and a manifest only named them; it leaves out the registry's port; and whoever may use containerd's socket can
//! set any. So a label counts where it is of one repository, and an image of that very repository has the blob, and no
//! label and no image of any namespace has it from another repository, be it of the same registry: anybody may push a
//! manifest there that names what is private to somebody else. Nor does a manifest's word count for a layer that its
//! registry need not have. Of all others nothing is told, and their registries show them once.
//!
//! What a wrong one can do: to those who may read that repository the blob is given without the bytes coming from there, and
//! its registry may answer for the blob with its bare word. Who can set labels can read the blob itself, so gains nothing;
//! nobody gains by naming a blob of which another repository is known. What is left is a blob that has neither a label nor
//! an image's name of its own any more: a build's that was never named, or one whose own image was removed from another
//! namespace while an image stays that names it, in a repository whose registry does not look for what manifests name.
//! What it cannot do: make a blob other than its digest says, bring a tag to point anywhere, open a repository to somebody
//! whom its registry does not let in, or say anything of what the containerd does not rely on, or of what came from
//! somewhere through the daemon.
//!
//! Nothing here is needed: where containerd does not answer, all was taken over nevertheless.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail};
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::{
    ListContentRequest, ListImagesRequest, ListNamespacesRequest, ReadContentRequest,
};
use containerd_client::with_namespace;
use serde_json::{Value, json};
use tidehold::oci::{Digest, ImageName, Kind, MAX_MANIFEST_BYTES, Manifest, Registry, Repository};
use tonic::Request;
use tonic::transport::Channel;

use super::super::Failed;
use super::super::plugins::{BUILTIN, has_root, plugins, stores};
use super::super::words::plain;
use super::daemon::Daemon;
use super::shown::blobs;

/// What the labels begin with; the registry's host follows.
const LABEL: &str = "containerd.io/distribution.source.";

/// How the kubelet's part of containerd names an image once more, by the digest of its config.
const BY_CONFIG: &str = "sha256:";

/// How long containerd may take for all that it has to tell.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest message that containerd sends, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// How many manifests of one image are read.
const MOST_MANIFESTS: usize = 256;

/// What came of asking.
pub(super) enum Asked {
    /// Of so many blobs it is known now, and was not before.
    Noted(u64),
    /// It could not be asked, and why.
    Unanswered(String),
}

impl Asked {
    pub(super) fn as_json(&self) -> Value {
        match self {
            Self::Noted(noted) => json!({ "noted": noted }),
            Self::Unanswered(why) => json!({ "noted": 0, "unanswered": why }),
        }
    }

    /// As a sentence, where there is something to say.
    pub(super) fn as_text(&self) -> Option<String> {
        match self {
            Self::Noted(0) => None,
            Self::Noted(noted) => {
                Some(format!("where they came from is known now of {}, as containerd tells", blobs(*noted)))
            }
            Self::Unanswered(why) => Some(format!(
                "where they came from is not known, since {why}: run `tidehold adopt` again while containerd runs, or the \
                 first pull of each image fetches one manifest"
            )),
        }
    }
}

/// Asks the containerd whose root this is where its blobs came from, and has the daemon note it. Not where the hold is its
/// store and taken for this: it would wait for a daemon, or have one started, that cannot open the hold.
pub(super) async fn note(
    daemon: &mut Daemon,
    address: &Path,
    root: &Path,
    offline: bool,
) -> Result<Asked, Failed> {
    let unanswered = |why: &str| {
        let why = format!("the containerd at {} was not asked ({})", address.display(), plain(why));
        Ok(Asked::Unanswered(why))
    };
    let told = match tokio::time::timeout(PATIENCE, told(address, root, offline)).await {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => return unanswered(&format!("{error:#}")),
        Err(_) => return unanswered("it took too long"),
    };
    let mut noted = 0;
    for (repository, digests) in told.sources() {
        noted += daemon.note_source(&repository, &digests).await?;
    }
    Ok(Asked::Noted(noted))
}

/// What a containerd tells of its blobs, in all its namespaces.
#[derive(Debug, Default)]
struct Told {
    /// The repositories of which an image names the blob, each with what its manifests say.
    named: HashMap<Digest, BTreeMap<Repository, Named>>,
    /// What its labels say: hosts, and the repositories there with commas between them.
    labelled: HashMap<Digest, Vec<(String, String)>>,
}

/// What an image's manifests say of where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// Their registry need not have it.
    Elsewhere,
    /// In their repository.
    Here,
}

impl Told {
    /// Pure: which blobs are known to have come from which repository.
    fn sources(self) -> BTreeMap<Repository, Vec<Digest>> {
        let mut sources: BTreeMap<Repository, Vec<Digest>> = BTreeMap::new();
        for (digest, labels) in self.labelled {
            let Some(named) = self.named.get(&digest).filter(|named| named.len() == 1) else { continue };
            let Some((repository, Named::Here)) = named.first_key_value() else { continue };
            let is_it = |name: &str| name == repository.name();
            let of_it = |(host, names): &(String, String)| {
                same_host(host, repository.registry()) && names.split(',').all(is_it)
            };
            if !labels.is_empty() && labels.iter().all(of_it) {
                sources.entry(repository.clone()).or_default().push(digest);
            }
        }
        sources
    }

    fn name(&mut self, digest: Digest, repository: &Repository, named: Named) {
        let by = self.named.entry(digest).or_default();
        let known = by.entry(repository.clone()).or_insert(named);
        *known = named.max(*known);
    }
}

/// The repository in an image's name.
fn repository_of(name: &str) -> Option<Repository> {
    if name.starts_with(BY_CONFIG) {
        return None;
    }
    name.parse::<ImageName>().ok().map(|name| name.repository)
}

/// Whether a label's host is a registry's, whatever the port.
fn same_host(host: &str, registry: &Registry) -> bool {
    // An address of the sixth version stands between brackets in a registry's name.
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let without_port = match registry.as_str().rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        Some(_) | None => registry.as_str(),
    };
    host.parse::<Registry>().is_ok_and(|host| host.as_str() == without_port)
}

async fn told(address: &Path, root: &Path, offline: bool) -> anyhow::Result<Told> {
    let Ok(channel) = containerd_client::connect(address).await else {
        bail!("nobody answers there; --address names another socket");
    };
    let plugins = plugins(channel.clone()).await?;
    if !has_root(&plugins, root) {
        bail!("its root is not {}; --address names the socket of the one whose root that is", root.display());
    }
    if offline && !stores(&plugins).any(|store| store.id == BUILTIN) {
        bail!("its content store is Tidehold, which answers nobody as long as this is done --offline");
    }
    let namespaces = NamespacesClient::new(channel.clone()).list(ListNamespacesRequest::default()).await?;
    let mut told = Told::default();
    let mut asking = Asking { channel, manifests: HashMap::new() };
    for namespace in namespaces.into_inner().namespaces {
        asking.namespace(&mut told, &namespace.name).await?;
    }
    Ok(told)
}

/// What a manifest points at.
type Pointing = (Kind, Vec<(Digest, Named)>);

/// A containerd that is asked, and what its manifests point at, as far as they were read.
struct Asking {
    channel: Channel,
    manifests: HashMap<Digest, Option<Pointing>>,
}

impl Asking {
    async fn namespace(&mut self, told: &mut Told, namespace: &str) -> anyhow::Result<()> {
        // The blobs of the namespace that may be manifests, by their length.
        let mut small = HashSet::new();
        let request = with_namespace!(ListContentRequest::default(), namespace);
        let mut content = ContentClient::new(self.channel.clone()).max_decoding_message_size(MOST_BYTES);
        let mut pages = content.list(request).await?.into_inner();
        while let Some(page) = pages.message().await? {
            for info in page.info {
                let Ok(digest) = info.digest.parse::<Digest>() else { continue };
                if u64::try_from(info.size).is_ok_and(|size| size <= MAX_MANIFEST_BYTES) {
                    small.insert(digest.clone());
                }
                for (key, names) in info.labels {
                    if let Some(host) = key.strip_prefix(LABEL) {
                        told.labelled.entry(digest.clone()).or_default().push((host.to_owned(), names));
                    }
                }
            }
        }
        let request = with_namespace!(ListImagesRequest::default(), namespace);
        let mut images = ImagesClient::new(self.channel.clone()).max_decoding_message_size(MOST_BYTES);
        for image in images.list(request).await?.into_inner().images {
            let target = image.target.map(|target| target.digest.parse::<Digest>());
            let (Some(Ok(target)), Some(repository)) = (target, repository_of(&image.name)) else { continue };
            for (digest, named) in self.parts(namespace, target, &small).await {
                told.name(digest, &repository, named);
            }
        }
        Ok(())
    }

    /// The blobs of an image, as far as its manifests are there.
    async fn parts(
        &mut self,
        namespace: &str,
        target: Digest,
        small: &HashSet<Digest>,
    ) -> HashMap<Digest, Named> {
        let (mut parts, mut manifests) = (HashMap::from([(target.clone(), Named::Here)]), vec![target]);
        let mut read = 0;
        while let Some(digest) = manifests.pop() {
            if !small.contains(&digest) {
                continue;
            }
            read += 1;
            if read > MOST_MANIFESTS {
                break;
            }
            let Some((kind, children)) = self.manifest(namespace, &digest).await else { continue };
            for (child, named) in children {
                let known = parts.insert(child.clone(), *named);
                match known {
                    Some(known) => drop(parts.insert(child.clone(), known.max(*named))),
                    None if *kind == Kind::Index => manifests.push(child.clone()),
                    None => {}
                }
            }
        }
        parts
    }

    /// What a manifest points at; nothing where it is none, or cannot be read.
    async fn manifest(&mut self, namespace: &str, digest: &Digest) -> Option<&Pointing> {
        if !self.manifests.contains_key(digest) {
            let manifest = self.read(namespace, digest).await.ok();
            let manifest = manifest.and_then(|bytes| Manifest::parse(&bytes).ok());
            let pointing = manifest.map(|manifest| {
                let children = manifest.children().iter().map(|child| {
                    let named = if child.may_be_elsewhere() { Named::Elsewhere } else { Named::Here };
                    (child.digest.clone(), named)
                });
                (manifest.kind(), children.collect())
            });
            self.manifests.insert(digest.clone(), pointing);
        }
        self.manifests.get(digest)?.as_ref()
    }

    async fn read(&self, namespace: &str, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut content = ContentClient::new(self.channel.clone()).max_decoding_message_size(MOST_BYTES);
        let mut pieces = content.read(with_namespace!(request, namespace)).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            bytes.extend(piece.data);
            if bytes.len() as u64 > MAX_MANIFEST_BYTES {
                return Err(anyhow!("it is longer than it was said to be"));
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// Of one blob: its labels, and the images that have it.
    fn sources(labels: &[(&str, &str)], images: &[&str]) -> Vec<String> {
        let labels = labels.iter().map(|(host, names)| ((*host).to_owned(), (*names).to_owned()));
        let images = images.iter().map(|image| match image.strip_prefix("elsewhere, by ") {
            Some(image) => (image, Named::Elsewhere),
            None => (*image, Named::Here),
        });
        let labelled = HashMap::from([(digest("blob"), labels.collect())]);
        let mut told = Told { labelled, ..Told::default() };
        for (image, named) in images {
            told.name(digest("blob"), &image.parse::<ImageName>().unwrap().repository, named);
        }
        let sources = told.sources();
        assert!(sources.values().all(|digests| *digests == [digest("blob")]));
        sources.keys().map(Repository::to_string).collect()
    }

    #[test]
    fn a_label_counts_where_an_image_of_that_repository_has_the_blob() {
        let hub = [("docker.io", "library/nginx")];
        assert_eq!(sources(&hub, &["nginx:1", "nginx:2"]), ["docker.io/library/nginx"]);
        // In two namespaces.
        assert_eq!(sources(&[hub[0], hub[0]], &["nginx"]), ["docker.io/library/nginx"]);
        assert_eq!(sources(&hub, &["ghcr.io/library/nginx"]), [""; 0]);
        assert_eq!(sources(&hub, &["another"]), [""; 0]);
        assert_eq!(sources(&hub, &[]), [""; 0], "the image was removed");
        assert_eq!(sources(&[], &["nginx"]), [""; 0], "built here, or imported");
        assert_eq!(sources(&[("docker.io", "")], &["nginx"]), [""; 0]);
    }

    #[test]
    fn what_two_repositories_of_a_registry_may_have_is_told_of_neither() {
        let two = [("docker.io", "library/nginx,team/nginx")];
        // In two namespaces.
        let each = [("docker.io", "library/nginx"), ("docker.io", "team/nginx")];
        for labels in [&two[..], &each] {
            assert_eq!(sources(labels, &["nginx", "team/nginx"]), [""; 0]);
            assert_eq!(sources(labels, &["nginx", "another"]), [""; 0]);
            assert_eq!(sources(labels, &["nginx"]), [""; 0], "the other image was removed");
        }
        for label in each {
            assert_eq!(sources(&[label], &["nginx", "team/nginx"]), [""; 0]);
        }
    }

    #[test]
    fn a_layer_that_its_registry_need_not_have_is_told_of_by_no_manifest() {
        let (secret, public) = (("docker.io", "team/secret"), ("docker.io", "attacker/x"));
        let named = "elsewhere, by attacker/x";
        assert_eq!(sources(&[public], &[named]), [""; 0]);
        assert_eq!(sources(&[secret, public], &["team/secret", named]), [""; 0]);
        assert_eq!(sources(&[secret], &["team/secret", named]), [""; 0]);
        assert_eq!(sources(&[public], &[named, "attacker/x:other"]), ["docker.io/attacker/x"]);
    }

    #[test]
    fn what_two_registries_may_have_is_told_of_neither() {
        let hub = ("docker.io", "team/secret");
        assert_eq!(sources(&[hub, ("evil.test", "x")], &["team/secret", "evil.test/x"]), [""; 0]);
        // One of the two images was removed, or was built here.
        assert_eq!(sources(&[hub, ("evil.test", "x")], &["team/secret"]), [""; 0]);
        assert_eq!(sources(&[("evil.test", "x")], &["team/secret", "evil.test/x"]), [""; 0]);
        assert_eq!(sources(&[hub, ("no registry", "x")], &["team/secret"]), [""; 0]);
    }

    #[test]
    fn the_names_that_the_kubelets_part_gives_an_image_are_of_one_repository() {
        let digest = digest("blob");
        let by_digest = format!("docker.io/library/nginx@{digest}");
        let names = ["docker.io/library/nginx:1", &by_digest, digest.as_str(), "no name"];
        let repositories = names.map(|name| repository_of(name).map(|repository| repository.to_string()));
        let nginx = Some("docker.io/library/nginx".to_owned());
        assert_eq!(repositories, [nginx.clone(), nginx, None, None]);
    }

    #[test]
    fn a_port_is_the_one_in_the_images_name() {
        let local = [("localhost", "a")];
        assert_eq!(sources(&local, &["localhost:5000/a"]), ["localhost:5000/a"]);
        assert_eq!(sources(&local, &["localhost:5000/a", "localhost:6000/a"]), [""; 0]);
        assert_eq!(sources(&[("::1", "a")], &["[::1]:5000/a"]), ["[::1]:5000/a"]);
        assert_eq!(sources(&[("::1", "a")], &["localhost:5000/a"]), [""; 0]);
    }
}
