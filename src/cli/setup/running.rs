//! What a containerd that runs says of itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::version_client::VersionClient;
use tidehold::node::containerd::Version;

use super::super::Failed;

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A containerd that answers.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) version: Option<Version>,
    /// Where its builtin content store is, if that is in use.
    pub(super) store: Option<PathBuf>,
}

/// Asks the one at a socket. None where nobody answers in time.
pub(super) fn ask(socket: &Path) -> Result<Option<Running>, Failed> {
    let asked =
        super::super::runtime()?.block_on(async { tokio::time::timeout(PATIENCE, look(socket)).await });
    Ok(asked.ok().and_then(Result::ok))
}

async fn look(socket: &Path) -> anyhow::Result<Running> {
    let channel = containerd_client::connect(socket).await?;
    let version = VersionClient::new(channel.clone()).version(()).await?.into_inner();
    let plugins = IntrospectionClient::new(channel).plugins(PluginsRequest { filters: vec![] }).await?;
    let plugins = plugins.into_inner().plugins;
    let builtin = plugins.iter().find(|plugin| {
        plugin.r#type == "io.containerd.content.v1" && plugin.id == "content" && plugin.init_err.is_none()
    });
    let store = builtin.and_then(|plugin| plugin.exports.get("root")).map(PathBuf::from);
    Ok(Running { version: Version::parse(&version.version), store })
}
