//! Whether what a containerd relies on is where it looks for it, and stays there: in its own content store, or in the hold.
//!
//! It is not where a containerd was given another store and something has not gone along: what it pulled before it was
//! started again, or what it is to have back after an undo.

use std::path::{Path, PathBuf};

use tidehold::node::containerd::{BUILTIN_STORE, ROOT, SOCKET};
use tidehold::node::discover::{blobs, lacking, not_taken};
use tidehold::node::journal::{Journal, Swap};

use super::super::DEFAULT_JOURNAL;
use super::super::plugins::{BUILTIN, root, stores};
use super::ask;
use super::containerds::Containerd;
use super::finding::{Finding, bad, warn};
use super::look::Node;

/// The hold, as it lies on the disk, and who has it.
pub(super) struct Hold<'a> {
    pub(super) node: &'a Node,
    pub(super) data_dir: &'a Path,
    /// The daemon's content sockets, by the names of their tables.
    pub(super) sockets: &'a [(String, PathBuf)],
}

/// How many blobs it has in its own store that the hold has not, where its files give it the hold from its next start on.
pub(super) fn untaken(containerd: &Containerd, hold: &Hold<'_>) -> u64 {
    let own = stores(containerd.plugins()).find(|store| store.id == BUILTIN);
    let (Some(own), Ok(settings)) = (own, &containerd.settings) else { return 0 };
    let is_ours = |socket: &Path| settings.stores().any(|(_, proxy)| Path::new(&proxy.address) == socket);
    let name = hold.sockets.iter().find(|(_, socket)| is_ours(socket));
    let (Some((name, _)), Some(root)) = (name, own.exports.get("root")) else { return 0 };
    let folder = Path::new(root).join("blobs");
    blobs(&hold.node.root, &folder, hold.data_dir, name, None).map_or(0, |blobs| blobs.not_taken)
}

/// What it relies on of its former store, where the hold is its store already.
pub(super) async fn left_behind(containerd: &Containerd, hold: &Hold<'_>) -> Option<Finding> {
    if stores(containerd.plugins()).any(|store| store.id == BUILTIN) {
        return None;
    }
    let settings = containerd.settings.as_ref().ok();
    let addresses = stores(containerd.plugins()).filter_map(|store| {
        let said = store.exports.get("address").filter(|address| !address.is_empty());
        said.or_else(|| Some(&settings?.proxies.get(&store.id)?.address))
    });
    let addresses: Vec<&Path> = addresses.map(Path::new).collect();
    let (name, _) = hold.sockets.iter().find(|(_, socket)| addresses.contains(&socket.as_path()))?;
    let root = root(containerd.plugins()).or_else(|| settings.map(|settings| settings.root.clone()))?;
    let folder = root.join(BUILTIN_STORE).join("blobs");
    let found = not_taken(&hold.node.root, &folder, hold.data_dir, name).unwrap_or_default();
    let count = ask::relied_on(&hold.node.at(&containerd.socket), &found).await;
    (count > 0).then(|| behind(count, &root, name, hold.sockets.len() > 1))
}

fn behind(count: usize, root: &Path, name: &str, of_several: bool) -> Finding {
    let mut mend = "tidehold adopt".to_owned();
    if of_several {
        mend += &format!(" --containerd {name}");
    }
    if root != Path::new(ROOT) {
        mend += &format!(" --from {}", root.display());
    }
    bad(
        "containerd.left-behind",
        format!(
            "it relies on {count} blobs that Tidehold has not taken over, from before it was started with Tidehold: they are in \
             {}, where it does not look any more, so their images do not run",
            root.join(BUILTIN_STORE).display()
        ),
        mend,
    )
}

/// A setup that was taken back, and of which something is left to do.
pub(super) struct Leaving {
    swaps: Vec<Swap>,
    /// As an option, where it is not where it usually is.
    journal: String,
}

impl Leaving {
    /// By its record; none where there is none, or nobody may read it.
    pub(super) fn find(node: &Node, folder: &Path) -> Option<Self> {
        let journal = Journal::open(&node.root, folder).ok().filter(Journal::is_restored)?;
        let usual = folder == Path::new(DEFAULT_JOURNAL);
        let option = if usual { String::new() } else { format!(" --journal {}", folder.display()) };
        Some(Self { swaps: journal.swaps().cloned().collect(), journal: option })
    }

    /// Whether this containerd is one that it was about.
    pub(super) fn is_of(&self, containerd: &Containerd) -> bool {
        self.swaps.iter().any(|swap| socket(swap) == containerd.socket)
    }

    /// What is still to be done.
    pub(super) async fn judge(&self, node: &Node, containerds: &[Containerd]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for swap in &self.swaps {
            let of_it = containerds.iter().find(|containerd| containerd.socket == socket(swap));
            let own =
                of_it.filter(|it| stores(it.plugins()).any(|store| store.id == BUILTIN)).map(|it| &it.socket);
            let blobs = swap.root.join(BUILTIN_STORE).join("blobs");
            let lacking = lacking(&node.root, &swap.data_dir, &swap.containerd, &blobs).unwrap_or_default();
            let owed = match own {
                // What it has removed since is owed to nobody, and of that Tidehold is not told.
                Some(socket) => ask::relied_on(&node.at(socket), &lacking).await,
                None => lacking.len(),
            };
            findings.push(self.of_one(swap, owed, own.is_some()));
        }
        if findings.is_empty() {
            let what = "what setup has changed was taken back, and that has not come to its end";
            findings.push(warn("setup.undo", what, format!("tidehold setup --undo{}", self.journal)));
        }
        findings
    }

    fn of_one(&self, swap: &Swap, owed: usize, has_own: bool) -> Finding {
        let restart = if has_own { "" } else { " --restart" };
        let mend = format!("tidehold setup --undo{restart}{}", self.journal);
        let so = format!("what setup has changed for the containerd {:?} was taken back", swap.containerd);
        match owed {
            0 => warn("setup.undo", format!("{so}, and that has not come to its end"), mend),
            _ => bad(
                "setup.undo",
                format!(
                    "{so}, and it relies on {owed} blobs that are in Tidehold alone: with its own content store their images do \
                     not run"
                ),
                mend,
            ),
        }
    }
}

fn socket(swap: &Swap) -> &Path {
    if swap.socket.as_os_str().is_empty() { Path::new(SOCKET) } else { &swap.socket }
}
