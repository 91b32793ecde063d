//! Reading a tar archive, as Go's `archive/tar` reads it, since that is what containerd's own applier reads with.
//!
//! The two do not differ in what everybody writes, but in what nobody should: which number is too large, which of two
//! long names counts, whether a directory may have data, where an archive without an end marker ends. The crate `tar`
//! decides some of these otherwise, and hides what is needed to decide them here, so the blocks are read by code of our
//! own: blocks ([`header`]), extended records ([`pax`]), the maps of sparse files ([`sparse`]) and their order
//! ([`entries`]).
//!
//! Knows no file system. Invariant: nothing that an archive says makes it allocate more than a few MiB.

mod entries;
mod header;
mod pax;
mod sparse;
mod time;

pub(super) use entries::{Entries, Entry, Kind};
pub(super) use time::Time;

/// What an archive is made of, in bytes.
pub(super) const BLOCK: usize = 512;

/// The longest extended header or name, in bytes; Go's limit, and libarchive's.
const MOST_SPECIAL: u64 = 1 << 20;

/// The archive is not one, or not whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    /// A header or its records make no sense.
    #[error("invalid tar header: {0}")]
    Header(&'static str),
    /// It ends within an entry.
    #[error("the tar archive is cut off")]
    CutOff,
    /// The bytes could not be had.
    #[error(transparent)]
    Stream(#[from] super::stream::StreamError),
}
