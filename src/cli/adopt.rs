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
mod sources;
mod store;
mod take;
mod work;

use std::path::{Path, PathBuf};

use clap::Args;

use tidehold::node::containerd::{CONFIG, ROOT, SOCKET, Settings};
use tidehold::node::files::configuration;
use tidehold::node::unit;

use super::Failed;
use super::control::Control;
use daemon::Daemon;
use shown::Shown;

/// Below which k3s and rke2 keep the roots of theirs, and where these listen.
const RANCHER_ROOT: &str = "/var/lib/rancher";
const RANCHER_SOCKET: &str = "/run/k3s/containerd/containerd.sock";

#[derive(Args)]
pub(crate) struct Adopt {
    /// The containerd, by its name in Tidehold's configuration; without it, the only one there
    #[arg(long, value_name = "NAME")]
    containerd: Option<String>,
    /// containerd's root folder, or its content store's
    #[arg(long, visible_alias = "root", value_name = "DIR", default_value = ROOT)]
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
    /// containerd's own socket, where it is asked what came from where, and before --clear which store it has; without
    /// it, the one that containerd's configuration names
    #[arg(long, value_name = "SOCKET")]
    address: Option<PathBuf>,
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
    /// For setup, which does next what would be told to be done
    #[arg(long, hide = true)]
    within_setup: bool,
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

    /// Where containerd listens. What its configuration does not tell, or nobody can read, is as usual.
    fn address(&self) -> PathBuf {
        if let Some(address) = &self.address {
            return address.clone();
        }
        if self.from.starts_with(RANCHER_ROOT) {
            return RANCHER_SOCKET.into();
        }
        let root = Path::new("/");
        let flags = unit::flags(root).ok().flatten().unwrap_or_default();
        flags.socket.unwrap_or_else(|| {
            let config = flags.config.unwrap_or_else(|| CONFIG.into());
            let settings =
                configuration(root, &config).ok().and_then(|files| Settings::read(&files, None).ok());
            settings.map_or_else(|| SOCKET.into(), |settings| settings.socket)
        })
    }
}
