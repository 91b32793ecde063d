//! What a containerd relies on, by its own database: it answers that without looking into its content store. And of that,
//! what it lacks since it was given the hold in the place of its own store.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::{ListContentRequest, ListNamespacesRequest};
use containerd_client::with_namespace;
use tidehold::node::containerd::{BUILTIN_STORE, ROOT, SOCKET};
use tidehold::node::discover::not_taken;
use tidehold::node::files::seen;
use tidehold::node::journal::Swap;
use tonic::Request;

use super::words;

/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest message that containerd sends, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// How many of these blobs the containerd at a socket relies on.
pub(super) async fn on(socket: &Path, digests: &[String]) -> anyhow::Result<usize> {
    if digests.is_empty() {
        return Ok(0);
    }
    let counted = tokio::time::timeout(PATIENCE, count(socket, digests)).await;
    let counted = counted.map_err(|_| anyhow!("containerd does not answer in time"))?;
    counted.context("ask containerd what it relies on")
}

async fn count(socket: &Path, digests: &[String]) -> anyhow::Result<usize> {
    let channel = containerd_client::connect(socket).await?;
    let listed = NamespacesClient::new(channel.clone()).list(ListNamespacesRequest::default()).await?;
    let mut content = ContentClient::new(channel).max_decoding_message_size(MOST_BYTES);
    let asked: HashSet<&str> = digests.iter().map(String::as_str).collect();
    let mut others = asked.clone();
    for namespace in listed.into_inner().namespaces {
        if others.is_empty() {
            break;
        }
        let request = with_namespace!(ListContentRequest::default(), namespace.name);
        let mut pages = content.list(request).await?.into_inner();
        while let Some(page) = pages.message().await? {
            for info in &page.info {
                others.remove(info.digest.as_str());
            }
        }
    }
    Ok(asked.len() - others.len())
}

/// How many of the blobs in a content store that is not in use any more its containerd relies on, which has the hold in its
/// place.
pub(super) async fn left_behind(root: &Path, swap: &Swap) -> anyhow::Result<usize> {
    let folder = swap.root.join(BUILTIN_STORE).join("blobs");
    let found = not_taken(root, &folder, &swap.data_dir, &swap.containerd)
        .with_context(|| format!("look at {}", folder.display()))?;
    on(&seen(root, socket(swap)), &found).await
}

/// That of so many blobs, as everybody is told; who does is named as the sentence goes on.
pub(super) fn told_behind(who: &str, count: usize, swap: &Swap) -> String {
    format!(
        "{who} relies on {} that Tidehold has not taken over, from before it was started with Tidehold: they are in {}, where it \
         does not look any more, so their images do not run",
        words::count(count as u64, "blob"),
        swap.root.join(BUILTIN_STORE).display()
    )
}

/// The same of what it is to have back before it can do without the hold.
pub(super) fn told_owed(who: &str, count: usize) -> String {
    format!(
        "{who} relies on {} in Tidehold alone: with its own content store their images do not run",
        words::count(count as u64, "blob")
    )
}

/// Where that containerd listens.
pub(super) fn socket(swap: &Swap) -> &Path {
    if swap.socket.as_os_str().is_empty() { Path::new(SOCKET) } else { &swap.socket }
}

/// The command that takes over what it has in its own store.
pub(super) fn adoption(swap: &Swap) -> String {
    let mut command = format!("tidehold adopt --containerd {}", swap.containerd);
    if swap.root != Path::new(ROOT) {
        command += &format!(" --from {}", swap.root.display());
    }
    command
}
