//! What is wrong with a configuration, said so that a person at a terminal can mend it in one go.
//!
//! Owns positions (line and column) and the text of the report; knows no key and no rule. A report
//! never shows the line it speaks of: a line may hold a secret, and reports end up in the journal. Values are
//! quoted only where their key has no secrets.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One fault and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key's path as TOML would write it, such as `cache.max_size` or `tags.rules[0].match` (counted
    /// from 0); empty where the text could not be read as TOML.
    pub key: String,
    /// What is wrong: lower case, no full stop.
    pub problem: String,
    /// What to write instead, as an imperative; empty where there is nothing to say.
    pub instead: String,
}

impl Fault {
    fn new(text: &str, offset: usize, key: String, wrong: Wrong) -> Self {
        let (line, column) = position(text, offset);
        Self { line, column, key, problem: wrong.problem, instead: wrong.instead }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.instead.is_empty() {
            write!(f, "\n    {}", self.instead)?;
        }
        Ok(())
    }
}

/// Every fault of one file, in the order of its lines; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    file: String,
    faults: Vec<Fault>,
}

impl Faults {
    /// The one fault of a file that could be read only as far as `text`.
    pub(super) fn at_end_of(text: &str, file: &str, wrong: Wrong) -> Self {
        Self { file: file.to_owned(), faults: vec![Fault::new(text, text.len(), String::new(), wrong)] }
    }

    /// The file as the caller named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The faults, first line first.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.faults.iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{}:{fault}\n", self.file)?;
        }
        let plural = if self.faults.len() == 1 { "fault" } else { "faults" };
        write!(f, "{} {plural} in {}", self.faults.len(), self.file)
    }
}

impl std::error::Error for Faults {}

/// Why a file gave no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read at all.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was read, and is faulty.
    #[error(transparent)]
    Faulty(#[from] Faults),
}

/// What a reader of a single value objects to; the walker adds the place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) problem: String,
    pub(super) instead: String,
}

impl Wrong {
    pub(super) fn new(problem: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { problem: problem.into(), instead: instead.into() }
    }
}

/// Collects faults by byte range while a text is read, and turns them into lines at the end.
pub(super) struct Sink<'t> {
    text: &'t str,
    syntax: Vec<(usize, Wrong)>,
    found: Vec<(usize, String, Wrong)>,
}

impl<'t> Sink<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, syntax: Vec::new(), found: Vec::new() }
    }

    /// The text is no TOML at this place.
    pub(super) fn syntax(&mut self, at: Range<usize>, wrong: Wrong) {
        self.syntax.push((at.start, wrong));
    }

    /// The key at this place holds something that it must not.
    pub(super) fn fault(&mut self, at: &Range<usize>, key: &str, wrong: Wrong) {
        self.found.push((at.start, key.to_owned(), wrong));
    }

    /// The line of a range's start, from 1.
    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        position(self.text, at.start).0
    }

    /// The report, or nothing when nothing is wrong.
    ///
    /// A line that is no TOML is read on a guess, so only its first syntax fault counts and what the guess
    /// led to is left out.
    pub(super) fn finish(self, file: &str) -> Result<(), Faults> {
        let mut faults: Vec<Fault> = Vec::new();
        let mut syntax = self.syntax;
        syntax.sort_by_key(|(offset, _)| *offset);
        for (offset, wrong) in syntax {
            let fault = Fault::new(self.text, offset, String::new(), wrong);
            if faults.last().is_none_or(|last| last.line != fault.line) {
                faults.push(fault);
            }
        }
        let broken: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
        for (offset, key, wrong) in self.found {
            let fault = Fault::new(self.text, offset, key, wrong);
            if !broken.contains(&fault.line) {
                faults.push(fault);
            }
        }
        faults.sort_by_key(|fault| (fault.line, fault.column));
        if faults.is_empty() { Ok(()) } else { Err(Faults { file: file.to_owned(), faults }) }
    }
}

/// Line and column, both from 1, of a byte offset; an offset beyond the text is its end.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = (0..=offset.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_survive_any_offset() {
        let text = "é = 1\nb = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 1), (1, 1), "inside a character");
        assert_eq!(position(text, 3), (1, 3));
        assert_eq!(position(text, 7), (2, 1));
        assert_eq!(position(text, 99), (3, 1));
        assert_eq!(position("", 5), (1, 1));
    }

    #[test]
    fn a_broken_line_is_reported_once_and_by_its_syntax() {
        let mut sink = Sink::new("a = x y\nb = 1\n");
        sink.fault(&(4..5), "a", Wrong::new("guessed", ""));
        sink.syntax(6..7, Wrong::new("second", ""));
        sink.syntax(4..5, Wrong::new("first", ""));
        sink.fault(&(12..13), "b", Wrong::new("kept", "write it"));
        let faults = sink.finish("f").unwrap_err();
        assert_eq!(faults.to_string(), "f:1:5: first\n\nf:2:5: b: kept\n    write it\n\n2 faults in f");
    }
}
