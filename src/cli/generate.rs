//! `tidehold generate`: the manual pages and the completions of shells, for whoever makes a package.
//!
//! Made from the same definition as the command line itself, so that neither can be at odds with it. Hidden: nobody
//! who runs a node needs it.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failed};

const NAME: &str = "tidehold";

#[derive(Args)]
pub(crate) struct Generate {
    /// The folder that gets tidehold*.1 and the completions, tidehold.bash, _tidehold and tidehold.fish
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

impl Generate {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let folder = &self.folder;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        clap_mangen::generate_to(Cli::command(), folder).context("write the manual pages")?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut Cli::command(), NAME, folder)
                .context("write the completions")?;
        }
        Ok(())
    }
}
