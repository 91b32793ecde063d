//! What setup prints: diffs without the secrets of a file, whose colours `print` takes out where there is no terminal.

use std::path::Path;
use std::process::Command;

use tidehold::node::journal::Link;

use super::super::{Failed, print};
use super::secrets::hidden;

/// The difference between two contents of a file, of which either may be that there is no file.
pub(super) fn change(path: &Path, before: Option<&str>, after: Option<&str>) -> Result<(), Failed> {
    let name = path.display().to_string();
    let of = |text: Option<&str>| if text.is_some() { name.clone() } else { "/dev/null".to_owned() };
    let mut options = diffy::DiffOptions::new();
    options.set_original_filename(of(before)).set_modified_filename(of(after));
    let [old, new] = [before, after].map(|text| hidden(text.unwrap_or_default()));
    if old == new && before != after && before.is_some() == after.is_some() {
        print(&format!("{name}: the difference is in what is not shown, such as a password"))?;
    }
    let patch = options.create_patch(&old, &new).to_string();
    for line in patch.lines() {
        let colour = match line.chars().next() {
            Some('+') => "\x1b[32m",
            Some('-') => "\x1b[31m",
            Some('@') => "\x1b[36m",
            _ => "",
        };
        // What a file has is no command to the terminal.
        let line: String =
            line.chars().map(|char| if char.is_control() && char != '\t' { '·' } else { char }).collect();
        if colour.is_empty() { print(&line)? } else { print(&format!("{colour}{line}\x1b[0m"))? }
    }
    print("")
}

/// The same of bytes that may be no text.
pub(super) fn bytes(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>) -> Result<(), Failed> {
    let [before, after] = [before, after].map(|bytes| bytes.map(String::from_utf8_lossy));
    change(path, before.as_deref(), after.as_deref())
}

/// A link that is made or goes.
pub(super) fn link(link: &Link, sign: &str, colour: &str) -> Result<(), Failed> {
    print(&format!("{colour}{sign}{} -> {}\x1b[0m\n", link.path.display(), link.to.display()))
}

/// `1 file`, `3 files`.
pub(super) fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// The command that is about to run.
pub(super) fn running(command: &Command) -> Result<(), Failed> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    print(&format!("running {}", words.join(" ")))
}
