//! Which blobs a containerd relies on, by its own database: it answers that without looking into its content store.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::{InfoRequest, ListNamespacesRequest};
use containerd_client::with_namespace;
use tonic::{Code, Request};

/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let namespaces: Vec<String> = listed.into_inner().namespaces.into_iter().map(|one| one.name).collect();
    let mut content = ContentClient::new(channel);
    let mut relied_on = 0;
    for digest in digests {
        for namespace in &namespaces {
            let request = with_namespace!(InfoRequest { digest: digest.clone() }, namespace);
            match content.info(request).await {
                Ok(_) => {
                    relied_on += 1;
                    break;
                }
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status.into()),
            }
        }
    }
    Ok(relied_on)
}
