//! The `tidehold` binary: reads the command line, runs the command, answers with its exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
