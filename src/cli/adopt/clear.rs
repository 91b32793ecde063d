//! Clearing: once a containerd has Tidehold as its store, its former store's names of the same files are of no use any
//! more, and hold their space when the hold has let go of them.
//!
//! Invariant: a name is removed only where the hold has the blob for that containerd, and that containerd was seen to have
//! no store of its own. What the hold has as cache alone it may evict, and stays here until it was taken over.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use containerd_client::services::v1::Plugin;
use serde_json::json;
use tidehold::proto::v1::Known;

use super::super::Failed;
use super::super::plugins::{self, BUILTIN};
use super::super::words::size;
use super::Adopt;
use super::daemon::Daemon;
use super::shown::{Shown, blobs, named};
use super::store::ContentStore;

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn clear(daemon: &mut Daemon, asked: &Adopt, mut shown: Shown) -> Result<(), Failed> {
    let store = ContentStore::find(&asked.from)?;
    let socket = asked.address();
    let address = socket.display();
    let asking = tokio::time::timeout(PATIENCE, plugins(&socket)).await;
    let plugins = asking.map_err(anyhow::Error::from).and_then(|asked| asked).with_context(|| {
        format!("ask the containerd at {address} whether Tidehold is its store: is it running? --address names another")
    })?;
    if let Err(why) = has_left(&plugins, &store.root) {
        return Err(anyhow!("the containerd at {address} {why}: nothing was removed").into());
    }
    let listing = store.list()?;
    let digests = listing.blobs.iter().map(|blob| blob.digest.to_string()).collect();
    let known = daemon.look(digests).await?;
    let (mut held, mut left, mut bytes) = (Vec::new(), 0_u64, 0_u64);
    for (blob, known) in listing.blobs.into_iter().zip(known) {
        match known {
            Known::Adopted => {
                bytes = bytes.saturating_add(blob.size);
                held.push(blob);
            }
            Known::Held | Known::Unspecified => left += 1,
        }
    }
    let (root, count) = (store.root.display(), held.len() as u64);
    let json = json!({
        "event": "planned",
        "containerd": daemon.containerd,
        "root": store.root,
        "dry_run": asked.dry_run,
        "held": count,
        "held_bytes": bytes,
        "left": left,
    });
    let verb = if asked.dry_run { "would be" } else { "are" };
    let mut text =
        format!("{} ({}) in {root} that the hold has {verb} removed there", blobs(count), size(bytes));
    if asked.dry_run && left > 0 {
        text = format!("{text}\n{}", staying(left));
    }
    shown.begin(&json, &text, 0)?;
    if asked.dry_run {
        return Ok(());
    }
    for blob in &held {
        match std::fs::remove_file(&blob.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(anyhow!("remove {}: {error}", blob.path.display()).into());
            }
            Ok(()) | Err(_) => shown.done("removed", blob.digest.as_str(), blob.size, "removed")?,
        }
    }
    let json = json!({ "event": "summary", "containerd": daemon.containerd, "removed": count, "left": left });
    let mut text = format!(
        "{} removed; `tidehold adopt --undo` brings back what {} relies on",
        blobs(count),
        named(&daemon.containerd)
    );
    if left > 0 {
        text = format!("{text}\n{}", staying(left));
    }
    shown.end(&json, &text)
}

/// Whether the containerd at a socket was seen to have its root there, and no store of its own any more.
pub(super) async fn is_left(address: &Path, root: &Path) -> bool {
    let asked = tokio::time::timeout(PATIENCE, plugins(address)).await;
    asked.is_ok_and(|asked| asked.is_ok_and(|plugins| has_left(&plugins, root).is_ok()))
}

fn staying(left: u64) -> String {
    format!(
        "{} there that Tidehold has not taken over left alone: run `tidehold adopt` first, and then this again",
        blobs(left)
    )
}

async fn plugins(address: &Path) -> anyhow::Result<Vec<Plugin>> {
    Ok(plugins::plugins(containerd_client::connect(address).await?).await?)
}

/// Whether a containerd with these plugins has its root there, and another content store than its own alone; or why
/// not, as what is said of it.
fn has_left(plugins: &[Plugin], root: &Path) -> Result<(), &'static str> {
    if !plugins::has_root(plugins, root) {
        return Err("is not the one whose root that is (--address and --from have to be of one)");
    }
    let mut stores = plugins::stores(plugins).peekable();
    if stores.peek().is_none() {
        return Err("has no content store");
    }
    if stores.any(|store| store.id == BUILTIN) {
        return Err("has its own content store still, and needs what is in it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT_TYPE: &str = "io.containerd.content.v1";

    fn plugin(r#type: &str, id: &str, root: &str) -> Plugin {
        let exports = [("root".to_owned(), root.to_owned())].into();
        Plugin { r#type: r#type.to_owned(), id: id.to_owned(), exports, ..Plugin::default() }
    }

    #[test]
    fn only_a_containerd_of_that_root_without_a_store_of_its_own_has_left_it() {
        let snapshots =
            plugin("io.containerd.snapshotter.v1", "overlayfs", "/c/io.containerd.snapshotter.v1.overlayfs");
        let ours = Plugin { exports: Default::default(), ..plugin(CONTENT_TYPE, "tidehold", "") };
        let own = plugin(CONTENT_TYPE, BUILTIN, "/c/io.containerd.content.v1.content");
        let failed = Plugin { init_err: Some(Default::default()), ..own.clone() };
        let root = Path::new("/c");
        assert_eq!(has_left(&[snapshots.clone(), ours.clone()], root), Ok(()));
        assert_eq!(has_left(&[snapshots.clone(), ours.clone(), failed], root), Ok(()));
        assert!(has_left(&[snapshots.clone(), ours.clone(), own.clone()], root).is_err());
        assert!(has_left(&[snapshots.clone(), own], root).is_err());
        assert!(has_left(std::slice::from_ref(&snapshots), root).is_err());
        assert!(has_left(&[snapshots, ours.clone()], Path::new("/other")).is_err());
        assert!(has_left(&[ours], root).is_err());
    }
}
