//! The command line: one file a family of commands.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 78 bad configuration. `failed` says what is told of each.

mod adopt;
mod budget;
mod control;
mod decompress;
mod doctor;
mod explain;
mod failed;
mod generate;
mod keep;
mod log;
mod ls;
mod paint;
mod plugins;
mod process;
mod prune;
mod refused;
mod relied;
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
use tidehold::config::Config;

use failed::{Failed, misused};

/// Where the configuration is read from where no file is named, if it is there.
const DEFAULT_CONFIG: &str = "/etc/tidehold/config.toml";

/// Where setup keeps what it has changed; beside the hold, so that it outlives that.
const DEFAULT_JOURNAL: &str = "/var/lib/tidehold-setup";

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

/// Runs the command that was asked for. What the command line alone shows to be wrong has ended the process with 2 by
/// then.
pub(crate) fn run() -> ExitCode {
    let json = asks_for_json();
    let ended = match parsed(json).command {
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
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if let (true, Some(error)) = (json, failed.as_json()) {
                // Whoever has gone has its exit code still.
                let _ = print(&error.to_string());
            }
            if let Some(text) = failed.as_text() {
                complain(&text);
            }
            ExitCode::from(failed.exit_code())
        }
    }
}

/// Whether the answer is to be JSON, also where the command line makes no sense. What `serve` writes as JSON is its log.
fn asks_for_json() -> bool {
    let mut arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--").peekable();
    arguments.peek().is_some_and(|command| command != "serve")
        && arguments.any(|argument| argument == "--json")
}

/// What the command line was read as; where that makes no sense, ends the process with 2, and with 0 after `--help`.
fn parsed(json: bool) -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        if let (true, true, Some(told)) = (json, error.use_stderr(), misused(&error).as_json()) {
            let _ = print(&told.to_string());
        }
        error.exit()
    })
}

/// Says what is wrong, where somebody still reads it.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{what}");
}

/// The configuration of a file, or of the usual one if it is there, or else the defaults.
fn load(file: Option<&Path>) -> Result<Config, Failed> {
    let default = Path::new(DEFAULT_CONFIG);
    let path = match file {
        Some(path) => path,
        None if default.exists() => default,
        None => return Ok(Config::default()),
    };
    Config::load(path).map_err(Failed::Configuration)
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
