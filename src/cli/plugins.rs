//! What a containerd says of its plugins, and which of its content stores are loaded.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::{Plugin, PluginsRequest};
use tonic::Status;
use tonic::transport::Channel;

/// What containerd calls its own content store.
pub(super) const BUILTIN: &str = "content";

const CONTENT: &str = "io.containerd.content.v1";

/// Whether they are of the containerd that has its root there.
pub(super) fn has_root(plugins: &[Plugin], root: &Path) -> bool {
    let roots = plugins.iter().filter_map(|plugin| plugin.exports.get("root").map(PathBuf::from));
    // The root is where its links lead.
    let mut roots = roots.map(|other| fs::canonicalize(&other).unwrap_or(other));
    roots.any(|other| other.starts_with(root))
}

/// Where the containerd keeps things whose plugins these are: most have their folder there, named after them.
pub(super) fn root(plugins: &[Plugin]) -> Option<PathBuf> {
    plugins.iter().find_map(|plugin| {
        let own = Path::new(plugin.exports.get("root")?);
        let named = own.file_name()?.to_str()? == format!("{}.{}", plugin.r#type, plugin.id);
        named.then(|| own.parent().map(Path::to_owned)).flatten()
    })
}

/// All of them, loaded or not.
pub(super) async fn plugins(containerd: Channel) -> Result<Vec<Plugin>, Status> {
    let plugins = IntrospectionClient::new(containerd).plugins(PluginsRequest { filters: vec![] }).await?;
    Ok(plugins.into_inner().plugins)
}

/// The content stores among them that are loaded.
pub(super) fn stores(plugins: &[Plugin]) -> impl Iterator<Item = &Plugin> {
    plugins.iter().filter(|plugin| plugin.r#type == CONTENT && plugin.init_err.is_none())
}
