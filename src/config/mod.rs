//! The configuration: TOML in, checked values out, and every fault of a file reported at once.
//!
//! Reading goes through four files. `walk` steps through the tables and never stops at a fault, `values`
//! reads single values, `tables` knows the keys and the rules between them, `faults` turns what they object
//! to into a report with lines. `types` is what comes out.
//!
//! Invariant: a [`Config`] has passed every check, so no part that is handed a slice of it checks again. It
//! holds plain values only and this module imports no other part of the crate: the parts don't know it, the
//! composition hands each what it needs. It reads one file, the configuration itself; whether a directory
//! or a credentials file exists is found out by whoever uses it.

use std::fs;
use std::io;
use std::path::Path;

use toml::de::DeTable;

mod faults;
mod proxy;
mod tables;
mod types;
mod values;
mod walk;
mod warnings;

pub use faults::{Fault, Faults, LoadError};
pub use proxy::Proxy;
pub use types::{
    Access, Ages, Cache, Config, Containerd, Control, DOCKER_HUB, Fetch, Mirror, Registries, Registry,
    Reserve, Share, TagRule, Tags, Web,
};

use faults::{Sink, Wrong};

impl Config {
    /// Reads TOML; what it leaves out takes its default. `file` is only for the report.
    ///
    /// # Errors
    /// Every fault of the text, each with its line.
    pub fn parse(text: &str, file: &str) -> Result<Self, Faults> {
        let mut sink = Sink::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            report_syntax(&error, &mut sink);
        }
        let config = tables::read(document.get_ref(), &mut sink);
        sink.finish(file)?;
        Ok(config)
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// That it cannot be read, or every fault in it.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |source: io::Error| LoadError::Unreadable { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(unreadable)?;
        let file = path.display().to_string();
        match str::from_utf8(&bytes) {
            Ok(text) => Ok(Self::parse(text, &file)?),
            Err(error) => {
                let sound = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let wrong = Wrong::new("here are bytes that are no text", "save the file as UTF-8");
                Err(Faults::at_end_of(&String::from_utf8_lossy(sound), &file, wrong).into())
            }
        }
    }
}

impl Config {
    /// What a file says that may be faulty, with defaults in the place of what cannot be read: nothing to run with, but what
    /// a daemon may once have been told.
    ///
    /// # Errors
    /// That it cannot be read at all.
    pub fn recovered(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let (document, _) = DeTable::parse_recoverable(&text);
        Ok(tables::read(document.get_ref(), &mut Sink::new(&text)))
    }
}

/// Says in our words what the parser stumbles over most, and passes on the rest as it is.
fn report_syntax(error: &toml::de::Error, sink: &mut Sink) {
    let at = error.span().unwrap_or(0..0);
    let message = error.message();
    let wrong = if message == "duplicate key" {
        Wrong::new("this key or table was given before", "keep one of the two")
    } else if message.starts_with("string values must be quoted") {
        Wrong::new("text must stand in quotes", "put quotes around it")
    } else if message.starts_with("invalid float") || message.starts_with("invalid integer") {
        Wrong::new("this is no number", "put text in quotes: times, sizes and addresses too")
    } else {
        Wrong::new(message, "")
    };
    sink.syntax(at, wrong);
}
