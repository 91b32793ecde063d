//! Whether what a containerd relies on is where it looks for it, and stays there: in its own content store, or in the hold.
//!
//! It is not where a containerd was given another store and something has not gone along: what it pulled before it was
//! started again, or what it is to have back after an undo.

use std::path::{Path, PathBuf};

use tidehold::node::containerd::BUILTIN_STORE;
use tidehold::node::discover::{blobs, lacking};
use tidehold::node::journal::{Journal, Swap};

use super::super::DEFAULT_JOURNAL;
use super::super::plugins::{BUILTIN, root, stores};
use super::super::relied::{adoption, socket, told_behind, told_owed};
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
    let swap = Swap {
        containerd: name.clone(),
        root: root(containerd.plugins()).or_else(|| settings.map(|settings| settings.root.clone()))?,
        data_dir: hold.data_dir.to_owned(),
        socket: containerd.socket.clone(),
    };
    behind(ask::left_behind(&hold.node.root, &swap).await, &swap)
}

/// Pure: what it comes to that it relies on so many, or could not be asked.
fn behind(count: Result<usize, String>, swap: &Swap) -> Option<Finding> {
    let store = swap.root.join(BUILTIN_STORE);
    let store = store.display();
    match count {
        Ok(0) => None,
        Ok(count) => Some(bad("containerd.left-behind", told_behind("it", count, swap), adoption(swap))),
        Err(why) => Some(warn(
            "containerd.unasked",
            format!(
                "it could not be asked whether it relies on what Tidehold has not taken over of {store}, its former store: {why}"
            ),
            format!("run tidehold doctor again; if it stays so: {}", adoption(swap)),
        )),
    }
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
                None => Ok(lacking.len()),
            };
            findings.push(self.of_one(swap, owed, own.is_some()));
        }
        if findings.is_empty() {
            let what = "what setup has changed was taken back, and that has not come to its end";
            findings.push(warn("setup.undo", what, format!("tidehold setup --undo{}", self.journal)));
        }
        findings
    }

    fn of_one(&self, swap: &Swap, owed: Result<usize, String>, has_own: bool) -> Finding {
        let restart = if has_own { "" } else { " --restart" };
        let mend = format!("tidehold setup --undo{restart}{}", self.journal);
        let so = format!("what setup has changed for the containerd {:?} was taken back", swap.containerd);
        match owed {
            Ok(0) => warn("setup.undo", format!("{so}, and that has not come to its end"), mend),
            Err(why) => warn(
                "setup.undo",
                format!("{so}, and it could not be asked what it relies on that is in Tidehold alone: {why}"),
                mend,
            ),
            Ok(owed) => bad("setup.undo", format!("{so}, and {}", told_owed("it", owed)), mend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn swap(root: &str) -> Swap {
        let [root, data_dir, socket] = [root, "/hold", "/run/containerd.sock"].map(PathBuf::from);
        Swap { containerd: "node".to_owned(), root, data_dir, socket }
    }

    #[test]
    fn one_that_does_not_say_what_it_relies_on_is_no_reason_for_an_alarm() {
        let swap = swap("/root");
        assert_eq!(behind(Ok(0), &swap), None);
        let adopt = "tidehold adopt --containerd node --from /root";
        let found = behind(Ok(3), &swap).unwrap();
        assert_eq!(
            (found.level, found.name, found.mend.as_str()),
            (Level::Bad, "containerd.left-behind", adopt)
        );
        let found = behind(Err("no answer".to_owned()), &swap).unwrap();
        assert_eq!((found.level, found.name), (Level::Warn, "containerd.unasked"));
        assert!(found.what.contains("no answer") && found.mend.ends_with(adopt), "{found:?}");
    }

    #[test]
    fn nor_is_it_after_an_undo() {
        let leaving = Leaving { swaps: vec![swap("/root")], journal: String::new() };
        for (owed, level, word) in [
            (Ok(0), Level::Warn, "not come to its end"),
            (Err("no answer".to_owned()), Level::Warn, "could not be asked"),
            (Ok(2), Level::Bad, "relies on 2 blobs"),
        ] {
            let found = leaving.of_one(&swap("/root"), owed, true);
            assert_eq!((found.level, found.name), (level, "setup.undo"));
            assert!(found.what.contains(word), "{found:?}");
        }
    }
}
