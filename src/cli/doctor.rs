//! `tidehold doctor`: checks a node from end to end, and says of each thing that is wrong how it is mended.
//!
//! `look` and `ask` gather facts, the files beside them judge these and nothing else, and `finding` tells. Nothing is
//! changed on the node.

mod ask;
mod clients;
mod containerds;
mod daemon;
mod disk;
mod dockerd;
mod egress;
mod examine;
mod finding;
mod holder;
mod hosts;
mod lines;
mod listeners;
mod logins;
mod look;
mod outside;
mod plugins;
mod presence;
mod registries;
mod reliance;
mod units;
mod upstream;
mod whose;

use std::path::PathBuf;

use clap::Args;

use super::{DEFAULT_JOURNAL, Failed, print};
use finding::Level;
pub(super) use presence::{Presence, presence};

#[derive(Args)]
pub(crate) struct Doctor {
    /// The containerd, by its name in Tidehold's configuration; without it, all that are found
    #[arg(long, value_name = "NAME")]
    containerd: Option<String>,
    /// A containerd's own socket; several may be named. Without it, those that are where distributions put them
    #[arg(long, value_name = "SOCKET")]
    address: Vec<PathBuf>,
    /// The configuration of the containerd whose socket is named in the same place; without it, the one that it was
    /// started with
    #[arg(long, value_name = "FILE", requires = "address")]
    containerd_config: Vec<PathBuf>,
    /// Another folder of registries' hosts.toml to look at, such as `ctr --hosts-dir` is given
    #[arg(long, value_name = "DIR")]
    hosts_dir: Vec<PathBuf>,
    /// The daemon's configuration; without one, /etc/tidehold/config.toml where it is there, else the defaults
    #[arg(long, env = "TIDEHOLD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the node's file system is: all other paths are the node's own
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where setup keeps what it has changed
    #[arg(long, value_name = "DIR", default_value = DEFAULT_JOURNAL)]
    journal: PathBuf,
    /// An image to ask for, several may be named: by a HEAD each, which no registry counts, and nothing is fetched
    #[arg(long, value_name = "REF", default_value = "docker.io/library/busybox:latest")]
    reference: Vec<String>,
    /// Ask no registry
    #[arg(long)]
    offline: bool,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let images = examine::images(&self.reference)?;
        if self.containerd_config.len() > self.address.len() {
            return Err(Failed::Usage(
                "--containerd-config: there are more of them than of --address".to_owned(),
            ));
        }
        let report = super::runtime()?.block_on(examine::examine(&self, &images))?;
        print(&if self.json { report.as_json()? } else { report.as_text() })?;
        match report.count(Level::Bad) {
            0 => Ok(()),
            _ => Err(Failed::Told),
        }
    }
}
