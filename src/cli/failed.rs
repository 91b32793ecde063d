//! How a command fails: in words for a person on standard error, and where JSON was asked for in one object too.
//!
//! The object goes to standard output, where whoever asked for JSON reads: a script that hands on what a command writes
//! finds JSON there whatever happened, and `error` in it where there is nothing else. What failed for one image among
//! several (`warm`) or is told as a report (`doctor`) stands in their own objects.

use std::io;

use rustix::process::geteuid;
use serde_json::{Value, json};
use tidehold::config::LoadError;

use super::refused::Refused;
use super::words;

/// How a command ended where it did not do what it was asked to.
pub(super) enum Failed {
    /// It was tried and failed.
    Error(anyhow::Error),
    /// The configuration has faults.
    Configuration(LoadError),
    /// It was asked for in a way that makes no sense.
    Usage(String),
    /// Whoever reads what it writes has gone.
    Unread,
    /// Some of it failed; where JSON was asked for, that has been told.
    Partly(String),
    /// It failed, and what it printed says all of it.
    Told,
}

impl Failed {
    /// With what is so in spite of it, or because of it.
    pub(super) fn with(self, so: &str) -> Self {
        match self {
            Self::Error(error) => Self::Error(error.context(so.to_owned())),
            Self::Configuration(_) | Self::Usage(_) | Self::Unread | Self::Partly(_) | Self::Told => self,
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Error(refused.into())
    }
}

impl Failed {
    /// What the process ends with.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Unread => 0,
            Self::Error(_) | Self::Partly(_) | Self::Told => 1,
            Self::Usage(_) => 2,
            Self::Configuration(_) => 78,
        }
    }

    /// For a person; nothing where all is said.
    pub(super) fn as_text(&self) -> Option<String> {
        match self {
            Self::Unread | Self::Told => None,
            Self::Error(error) => Some(format!("tidehold: {}", in_one_line(error))),
            Self::Partly(said) => Some(format!("tidehold: {said}")),
            Self::Configuration(LoadError::Faulty(faults)) => Some(faults.to_string()),
            Self::Configuration(error @ LoadError::Unreadable { .. }) => {
                Some(format!("tidehold: {}", in_one_line_of(error)))
            }
            Self::Usage(faults) => Some(faults.clone()),
        }
    }

    /// The same for a program: what is under `error`.
    pub(super) fn as_json(&self) -> Option<Value> {
        let mut error = match self {
            Self::Unread | Self::Partly(_) | Self::Told => return None,
            Self::Error(error) => {
                let refused = error.downcast_ref::<Refused>();
                json!({
                    "code": refused.map_or("FAILED", |refused| words::code(refused.code)),
                    "reason": in_one_line(error),
                    "reference": refused.and_then(|refused| refused.reference.as_deref()),
                    "retry_after_seconds": refused.and_then(|refused| refused.retry_after_seconds),
                })
            }
            Self::Usage(faults) => usage(faults),
            Self::Configuration(LoadError::Faulty(faults)) => json!({
                "code": "BAD_CONFIGURATION",
                "reason": faults.to_string(),
                "file": faults.file(),
                "faults": faults.iter().map(|fault| json!({
                    "line": fault.line,
                    "column": fault.column,
                    "key": fault.key,
                    "problem": fault.problem,
                    "instead": fault.instead,
                })).collect::<Vec<_>>(),
            }),
            Self::Configuration(error @ LoadError::Unreadable { path, .. }) => json!({
                "code": "BAD_CONFIGURATION",
                "reason": in_one_line_of(error),
                "file": path.display().to_string(),
                "faults": [],
            }),
        };
        if let Some(error) = error.as_object_mut() {
            error.retain(|_, value| !value.is_null());
            error.insert("exit_code".to_owned(), self.exit_code().into());
        }
        Some(json!({ "error": error }))
    }
}

fn usage(reason: &str) -> Value {
    json!({ "code": "INVALID_ARGUMENT", "reason": reason })
}

/// What the command line alone shows to be wrong.
pub(super) fn misused(error: &clap::Error) -> Failed {
    let told = error.render().to_string();
    // The rest of it is how it is used, for people.
    let reason = told.split("\n\n").next().unwrap_or_default();
    Failed::Usage(reason.strip_prefix("error: ").unwrap_or(reason).trim().to_owned())
}

/// An error and what led to it, each said once: many of ours name their source in their own text already.
fn in_one_line(error: &anyhow::Error) -> String {
    joined(error.chain(), geteuid().is_root())
}

fn in_one_line_of(error: &(dyn std::error::Error + 'static)) -> String {
    joined(std::iter::successors(Some(error), |error| error.source()), geteuid().is_root())
}

/// Pure. Who lacks the rights is told whom they belong to.
fn joined<'a>(causes: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>, by_root: bool) -> String {
    let (mut line, mut denied) = (String::new(), false);
    for cause in causes {
        let source = cause.downcast_ref::<io::Error>();
        denied |= source.is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied);
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    if denied && !by_root && !line.contains("as root") {
        line += ": run this as root (sudo)";
    }
    line
}

#[cfg(test)]
mod tests {
    use tonic::Status;

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

    #[test]
    fn who_lacks_the_rights_is_told_to_run_it_as_root() {
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let told = |error: anyhow::Error, by_root| joined(error.chain(), by_root);
        let listen = || anyhow::Error::new(Listen { address: "/s", source: source() }).context("start");
        let plain = "start: listen on /s: permission denied";
        assert_eq!(told(listen(), false), format!("{plain}: run this as root (sudo)"));
        assert_eq!(told(listen(), true), plain);
        let asked = anyhow::Error::new(source()).context("look there: is this run as root?");
        assert!(!told(asked, false).contains("sudo"));
        assert_eq!(told(anyhow::Error::new(io::Error::other("in use")), false), "in use");
    }

    #[test]
    fn a_program_is_told_what_the_daemon_answered_and_what_the_process_ends_with() {
        let status = Status::not_found("nothing is known of it");
        let failed = Failed::from(anyhow::Error::from(Refused::from(&status)).context("ask"));
        let expected = json!({ "error": {
            "code": "NOT_FOUND", "reason": "ask: nothing is known of it", "exit_code": 1,
        } });
        assert_eq!(failed.as_json(), Some(expected));
        assert_eq!(failed.as_text().as_deref(), Some("tidehold: ask: nothing is known of it"));
        let hangs = Failed::from(Refused::from(&Status::cancelled("Timeout expired")));
        assert_eq!(hangs.as_json().unwrap()["error"]["code"], "UNAVAILABLE", "nobody answered that");
        assert_eq!(Failed::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failed::Told.as_json(), None);
    }
}
