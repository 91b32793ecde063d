//! `tidehold serve`: the daemon.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tidehold::app::App;
use tracing_subscriber::EnvFilter;

use super::Failed;
use super::log::{Lines, Rest};

#[derive(Args)]
pub(crate) struct Serve {
    /// The configuration; without one, /etc/tidehold/config.toml where it is there, else the defaults
    #[arg(long, env = "TIDEHOLD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, report every fault with its line, and exit
    #[arg(long)]
    check: bool,
    /// Log as JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let config = super::load(self.config.as_deref())?;
        if self.check {
            for warning in config.warnings() {
                eprintln!("warning: {warning}");
            }
            println!("the configuration is good");
            return Ok(());
        }
        let _rest = self.log().context("open the log")?;
        // A descriptor for each connection and each blob that is being read: the usual 1024 are few.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::warn!(%error, "the limit on open files stays as it is");
        }
        let served = super::runtime()?.block_on(async {
            let app = App::build(config).await.context("start")?;
            app.run().await.context("stop")
        });
        Ok(served?)
    }

    /// To standard error, at `info` where `RUST_LOG` does not say otherwise.
    fn log(&self) -> std::io::Result<Rest> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let (stderr, rest) = Lines::to_stderr()?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
        if self.json {
            log.json().init()
        } else {
            log.with_ansi(false).init()
        }
        Ok(rest)
    }
}
