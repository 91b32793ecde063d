//! `tidehold doctor`: does the containerd of this node use Tidehold as it should?

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{Plugin, PluginsRequest};

use super::Failed;

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Doctor {
    /// containerd's own socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "SOCKET")]
    containerd: PathBuf,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let examined = super::runtime()?.block_on(async {
            let examined = tokio::time::timeout(PATIENCE, examine(&self.containerd)).await;
            examined.context("containerd does not answer: is it running?")?
        });
        let findings =
            examined.with_context(|| format!("ask the containerd at {}", self.containerd.display()))?;
        for finding in &findings {
            println!("{finding}");
        }
        let bad = findings.iter().filter(|finding| matches!(finding, Finding::Bad { .. })).count();
        if bad == 0 { Ok(()) } else { Err(anyhow::anyhow!("{bad} to mend").into()) }
    }
}

/// What was found, and where it is bad, the mend.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good(String),
    Bad { what: String, mend: &'static str },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(what) => write!(f, "ok    {what}"),
            Self::Bad { what, mend } => write!(f, "bad   {what}\n      {mend}"),
        }
    }
}

async fn examine(socket: &std::path::Path) -> anyhow::Result<Vec<Finding>> {
    let channel = containerd_client::connect(socket).await?;
    let version = VersionClient::new(channel.clone()).version(()).await?.into_inner();
    let plugins = IntrospectionClient::new(channel).plugins(PluginsRequest { filters: vec![] }).await?;
    let mut findings = vec![Finding::Good(format!("containerd {} answers", version.version))];
    findings.extend(judge(&plugins.into_inner().plugins));
    Ok(findings)
}

/// Judges containerd's own list of its plugins.
fn judge(plugins: &[Plugin]) -> Vec<Finding> {
    let loaded = |plugin: &&Plugin| plugin.init_err.is_none();
    let stores: Vec<_> =
        plugins.iter().filter(|plugin| plugin.r#type == "io.containerd.content.v1").filter(loaded).collect();
    let builtin = stores.iter().any(|plugin| plugin.id == "content");
    let proxies: Vec<_> = stores.iter().filter(|plugin| plugin.id != "content").collect();
    let mut findings = Vec::new();
    findings.push(match proxies.as_slice() {
        [] => Finding::Bad {
            what: "no content store of containerd is a proxy plugin".to_owned(),
            mend: "add [proxy_plugins.tidehold] with type = \"content\" and the address of the content socket",
        },
        [one] => Finding::Good(format!("its content store is the proxy plugin {:?}", one.id)),
        [_, _, ..] => Finding::Bad {
            what: format!("it has {} proxy plugins of type content and takes one of them at random", proxies.len()),
            mend: "leave one of them in [proxy_plugins]",
        },
    });
    if builtin && !proxies.is_empty() {
        findings.push(Finding::Bad {
            what: "its builtin content store is enabled beside the proxy plugin".to_owned(),
            mend: "add disabled_plugins = [\"io.containerd.content.v1.content\"]",
        });
    }
    let metadata = plugins.iter().find(|plugin| plugin.r#type == "io.containerd.metadata.v1");
    findings.push(match metadata {
        Some(plugin) if loaded(&plugin) => {
            let policy = plugin.exports.get("policy").map_or("not told", String::as_str);
            Finding::Good(format!("its metadata store is loaded; content sharing between namespaces: {policy}"))
        }
        Some(_) | None => Finding::Bad {
            what: "its metadata store is not loaded, so nothing can be pulled or run".to_owned(),
            mend: "mend the content stores named above, add required_plugins = [\"io.containerd.metadata.v1.bolt\"] \
                   so that containerd says so itself, and restart it",
        },
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(kind: &str, id: &str) -> Plugin {
        Plugin { r#type: format!("io.containerd.{kind}.v1"), id: id.to_owned(), ..Plugin::default() }
    }

    fn bad(plugins: &[Plugin]) -> usize {
        judge(plugins).iter().filter(|finding| matches!(finding, Finding::Bad { .. })).count()
    }

    #[test]
    fn one_proxy_store_and_a_metadata_store_are_good() {
        assert_eq!(bad(&[plugin("content", "tidehold"), plugin("metadata", "bolt")]), 0);
    }

    #[test]
    fn the_builtin_store_beside_ours_is_found() {
        let both = [plugin("content", "content"), plugin("content", "tidehold"), plugin("metadata", "bolt")];
        assert_eq!(bad(&both), 1);
    }

    #[test]
    fn a_containerd_without_us_is_found() {
        assert_eq!(bad(&[plugin("content", "content"), plugin("metadata", "bolt")]), 1);
        assert_eq!(bad(&[]), 2);
    }
}
