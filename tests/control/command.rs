//! The commands as a person or a script runs them, with neither a terminal nor anything of the tester's environment.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bench::{Bench, images_only, soon};
use crate::support::hub::{HubConfig, RetryAfter};
pub(crate) use crate::support::ran::Ran;
use crate::support::ran::plainly;

/// A registry that says when its limit ends.
pub(crate) fn says_when() -> HubConfig {
    HubConfig { retry_after: Some(RetryAfter::Seconds), ..images_only() }
}

/// Runs `tidehold` with the control socket of the bench's daemon.
pub(crate) async fn tidehold(bench: &Bench, arguments: &[&str]) -> Ran {
    let socket = bench.daemon.control();
    let (command, rest) = arguments.split_first().expect("a command");
    let all = [&[*command, "--socket", socket.to_str().unwrap()], rest].concat();
    run(&all, None, "").await
}

/// Runs `tidehold`, perhaps with a configuration in its environment, and gives it its input.
pub(crate) async fn run(arguments: &[&str], config: Option<&Path>, input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidehold"));
    plainly(&mut command).args(arguments);
    if let Some(config) = config {
        command.env("TIDEHOLD_CONFIG", config);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // Dropped, so that the input ends. A command that does not read it may have ended before.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    soon(ended).await.unwrap().into()
}
