//! What the index writes down, as protobuf messages: compact, and a later version may add fields.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time of day with its nanoseconds, which a file's own times would not keep across a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub(super) struct Time {
    #[prost(uint64, tag = "1")]
    seconds: u64,
    #[prost(uint32, tag = "2")]
    nanoseconds: u32,
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        UNIX_EPOCH
            + Duration::new(time.seconds.min(u64::from(u32::MAX) * 4), time.nanoseconds.min(999_999_999))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BlobRecord {
    #[prost(uint64, tag = "1")]
    pub(super) size: u64,
    #[prost(message, required, tag = "2")]
    pub(super) committed_at: Time,
    /// The file's own time of its last change: another one means that somebody else has written to it.
    #[prost(message, required, tag = "3")]
    pub(super) modified_at: Time,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AdoptionRecord {
    #[prost(message, required, tag = "1")]
    pub(super) adopted_at: Time,
    #[prost(message, required, tag = "2")]
    pub(super) updated_at: Time,
    #[prost(map = "string, string", tag = "3")]
    pub(super) labels: HashMap<String, String>,
    /// Of the blob: what is relied on has a length also while it is lost.
    #[prost(uint64, tag = "4")]
    pub(super) size: u64,
    #[prost(message, required, tag = "5")]
    pub(super) committed_at: Time,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TagRecord {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(message, required, tag = "2")]
    pub(super) confirmed_at: Time,
    /// What it pointed at before, the latest first; without pasts of their own.
    #[prost(message, repeated, tag = "3")]
    pub(super) past: Vec<TagRecord>,
}

/// Who may read a repository, as its registry said last.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReadersRecord {
    #[prost(bool, tag = "1")]
    pub(super) anyone: bool,
    /// How somebody proves themselves, where not anyone may.
    #[prost(string, tag = "2")]
    pub(super) challenge: String,
    #[prost(message, required, tag = "3")]
    pub(super) said_at: Time,
}

/// That somebody has proven to be a reader.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProofRecord {
    #[prost(message, required, tag = "1")]
    pub(super) proven_at: Time,
}

/// Where to ask for a blob that a manifest lists.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListedRecord {
    #[prost(string, tag = "1")]
    pub(super) repository: String,
    #[prost(bool, tag = "2")]
    pub(super) manifest: bool,
    #[prost(message, required, tag = "3")]
    pub(super) noted_at: Time,
    /// In bytes, as that manifest claims; 0 where it was noted before sizes were.
    #[prost(uint64, tag = "4")]
    pub(super) size: u64,
}

/// A list that a registry made up, whole.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListRecord {
    /// What was asked for, for whoever looks at the file.
    #[prost(string, tag = "1")]
    pub(super) list: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) bytes: Vec<u8>,
    /// The query of the next page's address.
    #[prost(string, tag = "4")]
    pub(super) next: String,
    #[prost(string, tag = "5")]
    pub(super) filters_applied: String,
    #[prost(message, required, tag = "6")]
    pub(super) confirmed_at: Time,
    #[prost(message, optional, tag = "7")]
    pub(super) anyone_at: Option<Time>,
    #[prost(message, repeated, tag = "8")]
    pub(super) shown: Vec<ShownRecord>,
}

/// That a registry has shown somebody a list.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ShownRecord {
    #[prost(string, tag = "1")]
    pub(super) who: String,
    #[prost(message, required, tag = "2")]
    pub(super) at: Time,
}

/// How the blobs' folders stood when the hold was closed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ClosedRecord {
    /// By their names, when each was last changed.
    #[prost(map = "string, message", tag = "1")]
    pub(super) changed_at: HashMap<String, Time>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct IngestRecord {
    #[prost(message, required, tag = "1")]
    pub(super) started_at: Time,
    #[prost(message, required, tag = "2")]
    pub(super) updated_at: Time,
    #[prost(uint64, tag = "3")]
    pub(super) total: u64,
    #[prost(uint64, tag = "4")]
    pub(super) number: u64,
}

/// That the operator wants to keep what a reference stands for.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PinRecord {
    #[prost(message, required, tag = "1")]
    pub(super) pinned_at: Time,
}

/// When a blob was last of use to somebody.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UseRecord {
    #[prost(message, required, tag = "1")]
    pub(super) used_at: Time,
}

/// How much was held when the hold was closed, group by group.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CountsRecord {
    #[prost(message, repeated, tag = "1")]
    pub(super) groups: Vec<CountRecord>,
}

/// How much of one group was held.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CountRecord {
    #[prost(message, required, tag = "1")]
    pub(super) adopted: AmountRecord,
    #[prost(message, required, tag = "2")]
    pub(super) cached: AmountRecord,
    #[prost(map = "string, message", tag = "3")]
    pub(super) by_containerd: HashMap<String, AmountRecord>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct AmountRecord {
    #[prost(uint64, tag = "1")]
    pub(super) blobs: u64,
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
}
