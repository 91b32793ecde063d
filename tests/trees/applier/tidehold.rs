//! The daemon, by the calls that containerd makes: the layer into its content store, then the layer onto its mounts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::types;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Applied, Applier, Layer, Mount};
use crate::support::daemon::Daemon;

/// Below what a message may have.
const CHUNK: usize = 1 << 20;

/// A daemon of its own, and a connection to its content socket.
pub(crate) struct Tidehold {
    channel: Channel,
    runtime: Runtime,
    next: AtomicU64,
    daemon: Daemon,
}

impl Tidehold {
    pub(crate) fn start() -> Self {
        let daemon = Daemon::start("");
        let runtime = Runtime::new().unwrap();
        let channel = runtime.block_on(containerd_client::connect(daemon.content())).unwrap();
        Self { channel, runtime, next: AtomicU64::new(0), daemon }
    }

    /// Puts a layer into the hold.
    pub(crate) fn hold(&self, layer: &Layer) {
        let reference = format!("layer-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.runtime.block_on(put(self.channel.clone(), reference, layer)).unwrap();
    }

    /// The one call.
    pub(crate) fn ask(&self, request: api::ApplyRequest) -> Result<Applied, Status> {
        let mut client = DiffClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.apply(request))?.into_inner();
        let applied = answer.applied.unwrap_or_default();
        Ok(Applied { digest: applied.digest, size: applied.size, media_type: applied.media_type })
    }

    /// Where it keeps a layer.
    pub(crate) fn file_of(&self, digest: &str) -> PathBuf {
        self.daemon.file_of(digest)
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

impl Applier for Tidehold {
    fn apply(&self, layers: &[(&Layer, Vec<Mount>)]) -> Vec<Result<Applied, String>> {
        let mut outcomes = Vec::new();
        for (layer, mounts) in layers {
            self.hold(layer);
            let outcome = self.ask(request(layer, mounts)).map_err(|status| status.to_string());
            let failed = outcome.is_err();
            outcomes.push(outcome);
            if failed {
                break;
            }
        }
        outcomes
    }
}

/// What containerd asks for with a layer.
pub(crate) fn request(layer: &Layer, mounts: &[Mount]) -> api::ApplyRequest {
    let diff = types::Descriptor {
        media_type: layer.media_type.to_owned(),
        digest: layer.digest(),
        size: i64::try_from(layer.bytes.len()).unwrap(),
        ..Default::default()
    };
    let mounts = mounts.iter().cloned().map(|mount| types::Mount {
        r#type: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    api::ApplyRequest { diff: Some(diff), mounts: mounts.collect(), ..Default::default() }
}

async fn put(channel: Channel, reference: String, layer: &Layer) -> Result<(), Status> {
    let total = i64::try_from(layer.bytes.len()).unwrap();
    let write =
        |action: api::WriteAction, offset: usize, data: &[u8], expected: &str| api::WriteContentRequest {
            action: action as i32,
            r#ref: reference.clone(),
            total,
            expected: expected.to_owned(),
            offset: i64::try_from(offset).unwrap(),
            data: data.to_vec(),
            ..Default::default()
        };
    let chunks = layer.bytes.chunks(CHUNK).enumerate();
    let mut messages: Vec<_> =
        chunks.map(|(at, chunk)| write(api::WriteAction::Write, at * CHUNK, chunk, "")).collect();
    messages.push(write(api::WriteAction::Commit, layer.bytes.len(), &[], &layer.digest()));
    let answers = ContentClient::new(channel).write(tokio_stream::iter(messages)).await;
    let outcome = match answers {
        Ok(answers) => drain(answers.into_inner()).await,
        Err(status) => Err(status),
    };
    match outcome {
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        other => other,
    }
}

async fn drain(mut answers: tonic::Streaming<api::WriteContentResponse>) -> Result<(), Status> {
    while answers.message().await?.is_some() {}
    Ok(())
}

/// A mount of a folder as it is.
pub(crate) fn bind(source: &Path) -> Mount {
    Mount {
        r#type: "bind".to_owned(),
        source: source.to_str().unwrap().to_owned(),
        target: String::new(),
        options: vec!["rw".to_owned(), "rbind".to_owned()],
    }
}
