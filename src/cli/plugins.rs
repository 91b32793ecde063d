//! What a containerd says of its plugins, and which of its content stores are loaded.

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::{Plugin, PluginsRequest};
use tonic::Status;
use tonic::transport::Channel;

/// What containerd calls its own content store.
pub(super) const BUILTIN: &str = "content";

const CONTENT: &str = "io.containerd.content.v1";

/// All of them, loaded or not.
pub(super) async fn plugins(containerd: Channel) -> Result<Vec<Plugin>, Status> {
    let plugins = IntrospectionClient::new(containerd).plugins(PluginsRequest { filters: vec![] }).await?;
    Ok(plugins.into_inner().plugins)
}

/// The content stores among them that are loaded.
pub(super) fn stores(plugins: &[Plugin]) -> impl Iterator<Item = &Plugin> {
    plugins.iter().filter(|plugin| plugin.r#type == CONTENT && plugin.init_err.is_none())
}
