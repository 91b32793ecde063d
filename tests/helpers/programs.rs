//! Small programs in folders of their own.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Puts a shell script into a folder. Another process writes it: a program that this one had open for writing could
/// not be run while a child that was started meanwhile still has it open too.
pub(crate) fn install(folder: &TempDir, name: &str, script: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(folder.path().join(name))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Runs a line of shell to its end; `$0` is the argument.
pub(crate) fn run(line: &str, argument: &OsStr) {
    assert!(Command::new("sh").args(["-c", line]).arg(argument).status().unwrap().success());
}
