//! Edits of configuration files, each a pure function from the old text to the new one.
//!
//! What is there stays as it is, comments, order and all, but for what Tidehold needs. A text that has all of that
//! already comes out as it went in. Where something stands against it, the edit is refused with what to do.

mod clients;
mod containerd;
mod hosts;
mod json;
mod table;

pub use clients::{buildkit, podman};
pub use containerd::{DIFFER, Differ, Store, WALKING, Wanted, configure, transfer_differs};
pub use hosts::{has_hosts, hosts, with_certificates};
pub use json::docker;

/// Why a file is left as it is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: {mend}")]
pub struct Refusal {
    /// What stands against it.
    pub problem: String,
    /// What to do.
    pub mend: String,
}

impl Refusal {
    /// Why not, and what to do.
    pub fn new(problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { problem: problem.into(), mend: mend.into() }
    }
}

/// What is said of Tidehold where it writes into a file of others.
const NOTE: &str = "# Tidehold, this node's image cache; \"tidehold setup --undo\" takes it out.\n";

#[cfg(test)]
mod tests;
