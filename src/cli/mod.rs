//! The command line: one file a family of commands.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 78 bad configuration.

mod adopt;
mod budget;
mod control;
mod decompress;
mod doctor;
mod explain;
mod generate;
mod keep;
mod log;
mod ls;
mod paint;
mod plugins;
mod prune;
mod requests;
mod resolve;
mod serve;
mod setup;
mod status;
mod warm;
mod warm_shown;
mod words;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tidehold::config::{Config, LoadError};

/// Where the configuration is read from where no file is named, if it is there.
const DEFAULT_CONFIG: &str = "/etc/tidehold/config.toml";

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
    /// Tell containerd and others on this node of Tidehold, or take that back
    Setup(Box<setup::Setup>),
    /// Check that this node's containerd uses Tidehold, and say what to mend
    Doctor(doctor::Doctor),
    /// Show the daemon and its hold at a glance
    Status(status::Status),
    /// Show what each registry still allows, when it returns, and on what it was spent
    Budget(budget::Budget),
    /// Tell the story of an image: what was decided about it, when, why, and what it took
    Explain(explain::Explain),
    /// Show the flight record: each request that was sent upstream, and whether it counted
    Log(requests::Log),
    /// Say what an image stands for now, how the daemon knows, and what it cost to find out
    Resolve(resolve::Resolve),
    /// Fetch images ahead of those who will pull them
    Warm(warm::Warm),
    /// Take over what a containerd's own content store holds, without a second copy, or give it back
    Adopt(adopt::Adopt),
    /// List the tags that are known, and what is held of each
    Ls(ls::Ls),
    /// Keep what a reference stands for from being evicted, whatever it points at from now on
    Pin(keep::Pin),
    /// Let what was pinned be evicted again
    Unpin(keep::Unpin),
    /// Forget a tag, and remove what only it needed: the next pull asks its registry anew
    Forget(keep::Forget),
    /// Remove what is only cache, the least recently used first
    Prune(prune::Prune),
    /// Decompress a layer for containerd 1.6, which runs this as its stream processor
    Decompress(decompress::Decompress),
    /// Write the manual pages and the completions of shells
    #[command(hide = true)]
    Generate(generate::Generate),
}

/// How a command ended where it did not do what it was asked to.
enum Failed {
    /// It was tried and failed.
    Error(anyhow::Error),
    /// The configuration has faults.
    Configuration(String),
    /// It was asked for in a way that makes no sense.
    Usage(String),
    /// Whoever reads what it writes has gone.
    Unread,
    /// It failed, and what it printed says all of it.
    Told,
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

/// Runs the command that was asked for. What the command line alone shows to be wrong has ended the process with 2 by
/// then.
pub(crate) fn run() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Setup(setup) => setup.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Status(status) => status.run(),
        Command::Budget(budget) => budget.run(),
        Command::Explain(explain) => explain.run(),
        Command::Log(log) => log.run(),
        Command::Resolve(resolve) => resolve.run(),
        Command::Warm(warm) => warm.run(),
        Command::Adopt(adopt) => adopt.run(),
        Command::Ls(ls) => ls.run(),
        Command::Pin(pin) => pin.run(),
        Command::Unpin(unpin) => unpin.run(),
        Command::Forget(forget) => forget.run(),
        Command::Prune(prune) => prune.run(),
        Command::Decompress(decompress) => decompress.run(),
        Command::Generate(generate) => generate.run(),
    };
    match ended {
        Ok(()) | Err(Failed::Unread) => ExitCode::SUCCESS,
        Err(Failed::Told) => ExitCode::FAILURE,
        Err(Failed::Error(error)) => {
            complain(&format!("tidehold: {}", in_one_line(&error)));
            ExitCode::FAILURE
        }
        Err(Failed::Configuration(faults)) => {
            complain(&faults);
            ExitCode::from(78)
        }
        Err(Failed::Usage(faults)) => {
            complain(&faults);
            ExitCode::from(2)
        }
    }
}

/// Says what is wrong, where somebody still reads it.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{what}");
}

/// An error and what led to it, each said once: many of ours name their source in their own text already.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// The configuration of a file, or of the usual one if it is there, or else the defaults.
fn load(file: Option<&Path>) -> Result<Config, Failed> {
    let default = Path::new(DEFAULT_CONFIG);
    let path = match file {
        Some(path) => path,
        None if default.exists() => default,
        None => return Ok(Config::default()),
    };
    Config::load(path).map_err(|error| match error {
        LoadError::Faulty(faults) => Failed::Configuration(faults.to_string()),
        LoadError::Unreadable { .. } => Failed::Configuration(format!("tidehold: {error}")),
    })
}

/// Writes a line to standard output, with its styles where that is a terminal that may show them. Where whoever read it has
/// gone, as `head` does, that is the end and no failure.
fn print(line: &str) -> Result<(), Failed> {
    match writeln!(anstream::stdout().lock(), "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failed::Unread),
        Err(error) => Err(anyhow::Error::new(error).context("write to standard output").into()),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // A download holds one for as long as it runs, and there may be several hundred: others must not wait for them.
    runtime.enable_all().max_blocking_threads(1024).build().context("start the runtime")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("listen on {address}: {source}")]
    struct Listen {
        address: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_cause_is_said_once() {
        let source = io::Error::other("in use");
        let error = anyhow::Error::new(Listen { address: "127.0.0.1:789", source }).context("start");
        assert_eq!(in_one_line(&error), "start: listen on 127.0.0.1:789: in use");
        let error = anyhow::Error::new(io::Error::other("in use")).context("start");
        assert_eq!(in_one_line(&error), "start: in use");
    }
}
