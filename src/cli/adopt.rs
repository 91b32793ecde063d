//! `tidehold adopt`: takes over what a containerd's own content store holds, and gives it back.
//!
//! The daemon may not see that store's files, and could not link them if it did: its own mount name space makes two file
//! systems of one. So this command, which runs as root in the machine's, puts them where the daemon looks for them. It
//! can be ended at any moment and run again: what was taken over stays, and is not gone through a second time.

mod back;
mod clear;
mod daemon;
mod put;
mod shown;
mod store;
mod take;
mod work;

use std::path::PathBuf;

use clap::Args;

use super::Failed;
use super::control::Control;
use daemon::Daemon;
use shown::Shown;

/// Where containerd keeps all that it has, where nobody says otherwise.
const DEFAULT_ROOT: &str = "/var/lib/containerd";

#[derive(Args)]
pub(crate) struct Adopt {
    /// The containerd, by its name in Tidehold's configuration; without it, the only one there
    #[arg(long, value_name = "NAME")]
    containerd: Option<String>,
    /// containerd's root folder, or its content store's
    #[arg(long, visible_alias = "root", value_name = "DIR", default_value = DEFAULT_ROOT)]
    from: PathBuf,
    /// Give back to that store all that this containerd relies on, so that it can be used again
    #[arg(long)]
    undo: bool,
    /// After that, let go of it: it becomes cache
    #[arg(long, requires = "undo")]
    release: bool,
    /// Once containerd has Tidehold as its store: remove from its former one what the hold has, so that its space is
    /// free when it is let go
    #[arg(long, conflicts_with_all = ["undo", "copy"])]
    clear: bool,
    /// containerd's own socket, where it is asked before that which store it has
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    address: PathBuf,
    /// Copy where neither hard links nor reflinks can be had: it takes as much space again
    #[arg(long)]
    copy: bool,
    /// Say what would be done, and how, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Answer as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Where the hold's folder is seen from here, if not where the daemon sees it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Without the daemon, which must not run: the hold is opened for as long as this takes
    #[arg(long, conflicts_with = "socket")]
    offline: bool,
    #[command(flatten)]
    control: Control,
}

impl Adopt {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let name = self.containerd.clone().unwrap_or_default();
            let mut daemon =
                Daemon::connect(&self.control, name, self.data_dir.as_deref(), self.offline).await?;
            let shown = Shown::new(self.json);
            let done = match (self.undo, self.clear) {
                (true, _) => back::give_back(&mut daemon, &self, shown).await,
                (false, true) => clear::clear(&mut daemon, &self, shown).await,
                (false, false) => take::take_over(&mut daemon, &self, shown).await,
            };
            // Also after a failure: what was done is to stay.
            daemon.close().await.and(done)
        })
    }
}
