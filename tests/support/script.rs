//! Shell scripts that a test puts where programs are looked for.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Puts a shell script there. Another process writes it: a program that this one had open for writing could not be run
/// while a child that was started meanwhile still has it open too.
pub(crate) fn script(file: &Path, body: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{body}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success(), "{}", file.display());
}
