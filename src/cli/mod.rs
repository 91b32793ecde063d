//! The command line: one file a family of commands.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 78 bad configuration.

mod doctor;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A node's one image cache, plugged into containerd as its content store and as its resolver.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Serve(serve::Serve),
    /// Check that this node's containerd uses Tidehold, and say what to mend
    Doctor(doctor::Doctor),
}

/// How a command ended where it did not do what it was asked to.
enum Failed {
    /// It was tried and failed.
    Error(anyhow::Error),
    /// The configuration has faults.
    Configuration(String),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

/// Runs the command that was asked for. Usage errors have ended the process with 2 by then.
pub(crate) fn run() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Doctor(doctor) => doctor.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Error(error)) => {
            eprintln!("tidehold: {error:#}");
            ExitCode::FAILURE
        }
        Err(Failed::Configuration(faults)) => {
            eprintln!("{faults}");
            ExitCode::from(78)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")
}
