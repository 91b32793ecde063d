//! What goes into the journal and comes out of it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file's new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path on the node.
    pub path: PathBuf,
    /// What it has now; none where there is no such file.
    pub before: Option<String>,
    /// What it is to have.
    pub after: String,
    /// The mode of one that is made, where that is not the usual one.
    pub mode: Option<u32>,
}

/// A symbolic link that is made where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its path on the node.
    pub path: PathBuf,
    /// What it leads to, a path on the node.
    pub to: PathBuf,
}

/// What happens to a file when it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// Its path on the node.
    pub path: PathBuf,
    /// What it has now; none where there is no such file.
    pub now: Option<Vec<u8>>,
    /// What it will have; none where it will be removed.
    pub then: Option<Vec<u8>>,
    /// Whether somebody changed it since, which is carried over.
    pub merged: bool,
}

/// A file that somebody changed since, so that it cannot be taken back without losing that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its path on the node.
    pub path: PathBuf,
    /// What was written.
    pub written: Vec<u8>,
    /// What it has now; none where it was removed.
    pub now: Option<Vec<u8>>,
}

/// A content store that was put in the place of a containerd's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Swap {
    /// The name that it has in Tidehold's configuration.
    pub containerd: String,
    /// Where that containerd keeps things.
    pub root: PathBuf,
    /// The hold.
    pub data_dir: PathBuf,
    /// Where that containerd listens; empty where that is not known.
    #[serde(default)]
    pub socket: PathBuf,
}

/// A restart that containerd is owed, by what shows that it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Debt {
    /// That it was started since.
    Files,
    /// That it has the hold as its content store: it had its own when the files were written.
    Store,
}

/// Why the journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or folder could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// In a few words.
        doing: &'static str,
        /// The path on the node.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record is not one.
    #[error("{} is damaged ({source}): the originals are beside it, put them back by hand", path.display())]
    Damaged {
        /// The path on the node.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file was changed by others since, and what they changed is what is to be written anew.
    #[error(
        "{} was changed since the last setup, too near to what that wrote: run tidehold setup --undo first",
        .0.display()
    )]
    Changed(PathBuf),
    /// A file is not what it was when the changes were shown.
    #[error("{} has changed this very moment: run this again", .0.display())]
    Moved(PathBuf),
    /// Another run has it.
    #[error("another tidehold setup is running: run this again once it has ended")]
    Busy,
    /// Another run has changed it since it was read.
    #[error("another tidehold setup has run meanwhile: run this again")]
    Stale,
}
