//! What the stand-in was asked and what it cost: the counters and the log. It records; it decides nothing.
//!
//! Every request is in the log from its arrival. The counters take it up when it is answered, reset or left
//! hanging, except for a request answered 401, which only `requests` and `unauthorized` count.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::Serialize;

use super::fault::Kind;
use super::target::Target;

/// The log's bound: a quickstart that runs for days must not fill the memory.
const LOG_ENTRIES: usize = 100_000;

/// A snapshot of what was asked since the start, or since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Requests that arrived, at any of the three listeners.
    pub requests: u64,
    /// Manifest GETs of the kind that counts, whether or not the client's account has a limit.
    pub manifest_gets: u64,
    /// The same by `repository:tag` and `repository@digest`.
    pub manifest_gets_by_reference: BTreeMap<String, u64>,
    /// Manifest HEADs, which never count against a limit.
    pub manifest_heads: u64,
    /// 304s sent.
    pub not_modified: u64,
    /// Blob GETs at the registry.
    pub blob_gets: u64,
    /// Blob HEADs at the registry.
    pub blob_heads: u64,
    /// GETs and HEADs of a list of tags or referrers.
    pub lists: u64,
    /// GETs at the CDN.
    pub cdn_gets: u64,
    /// The same by digest.
    pub cdn_gets_by_digest: BTreeMap<String, u64>,
    /// Those of them that asked for all of it: what was begun, and not taken up where it had stalled.
    pub cdn_wholes_by_digest: BTreeMap<String, u64>,
    /// Body bytes that the CDN sent.
    pub cdn_bytes: u64,
    /// Requests to the token service.
    pub token_requests: u64,
    /// 401s sent.
    pub unauthorized: u64,
    /// 429s sent, of either kind.
    pub too_many_requests: u64,
    /// Requests that brought an `Authorization` header to the CDN: each of them is a leak.
    pub cdn_authorizations: u64,
    /// GETs of a blob, here or at the CDN, that asked for a range.
    pub range_requests: u64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// `registry`, `token` or `cdn`.
    pub listener: &'static str,
    /// Who asked.
    pub client: IpAddr,
    /// The method.
    pub method: String,
    /// The path, with its query except at the CDN.
    pub path: String,
    /// The status; `None` while nothing was answered, and for good where the connection was reset.
    pub status: Option<u16>,
    /// Whether it was of the kind that counts.
    pub counted: bool,
    /// Whether it brought an `Authorization` header.
    pub authorized: bool,
    /// What that header was: its scheme, and whose it is by its own word, as in `Bearer ada`; a `Bearer` alone is
    /// nobody's, or cannot be read.
    pub credentials: Option<String>,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// The range asked for.
    pub range: Option<String>,
    /// The media types accepted.
    pub accept: Option<String>,
}

/// The number under which a request arrived.
#[derive(Clone, Copy)]
pub(super) struct EntryId(u64);

/// How a request came out.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) status: Option<u16>,
    pub(super) counted: bool,
}

impl Outcome {
    /// Nothing was answered.
    pub(super) const NONE: Self = Self { status: None, counted: false };
}

/// The counters and the log.
#[derive(Default)]
pub(super) struct Ledger {
    counters: Counters,
    log: VecDeque<LogEntry>,
    /// The number of the log's first entry.
    first: u64,
}

impl Ledger {
    pub(super) fn counters(&self) -> Counters {
        self.counters.clone()
    }

    pub(super) fn log(&self) -> Vec<LogEntry> {
        self.log.iter().cloned().collect()
    }

    pub(super) fn reset(&mut self) {
        self.first += self.log.len() as u64;
        self.log.clear();
        self.counters = Counters::default();
    }

    pub(super) fn arrived(&mut self, entry: LogEntry) -> EntryId {
        self.counters.requests += 1;
        if self.log.len() == LOG_ENTRIES {
            self.log.pop_front();
            self.first += 1;
        }
        self.log.push_back(entry);
        EntryId(self.first + self.log.len() as u64 - 1)
    }

    /// Takes the request up in the counters.
    pub(super) fn answered(&mut self, id: EntryId, target: &Target, asked: Asked, outcome: Outcome) {
        self.settle(id, outcome);
        let counters = &mut self.counters;
        match outcome.status {
            Some(401) => {
                counters.unauthorized += 1;
                return;
            }
            Some(429) => counters.too_many_requests += 1,
            Some(304) => counters.not_modified += 1,
            _ => {}
        }
        match target {
            Target::Manifest { .. } if asked.head => counters.manifest_heads += 1,
            Target::Blob { .. } if asked.head => counters.blob_heads += 1,
            Target::Blob { .. } => counters.blob_gets += 1,
            Target::Tags { .. } | Target::Referrers { .. } => counters.lists += 1,
            Target::CdnBlob { digest, .. } if !asked.head => {
                counters.cdn_gets += 1;
                *counters.cdn_gets_by_digest.entry(digest.clone()).or_default() += 1;
                if !asked.range {
                    *counters.cdn_wholes_by_digest.entry(digest.clone()).or_default() += 1;
                }
            }
            Target::Token => counters.token_requests += 1,
            // A GET of a manifest is taken up where it counts.
            Target::Manifest { .. } | Target::CdnBlob { .. } => {}
            Target::Ping | Target::Admin(_) | Target::Unknown => {}
        }
        if asked.range && !asked.head && matches!(target, Target::Blob { .. } | Target::CdnBlob { .. }) {
            counters.range_requests += 1;
        }
        if asked.authorized && matches!(asked.kind, Some(Kind::Cdn)) {
            counters.cdn_authorizations += 1;
        }
        if outcome.counted {
            self.count(target);
        }
    }

    /// A request left hanging got its answer after all: the counters have it already, but for its cost.
    pub(super) fn answered_late(&mut self, id: EntryId, target: &Target, outcome: Outcome) {
        self.settle(id, outcome);
        if outcome.counted {
            self.count(target);
        }
    }

    pub(super) fn cdn_sent(&mut self, bytes: u64) {
        self.counters.cdn_bytes += bytes;
    }

    fn settle(&mut self, id: EntryId, outcome: Outcome) {
        let index = id.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.log.get_mut(index)) {
            entry.status = outcome.status;
            entry.counted = outcome.counted;
        }
    }

    fn count(&mut self, target: &Target) {
        if let Target::Manifest { repository, reference } = target {
            let separator = if reference.contains(':') { '@' } else { ':' };
            let name = format!("{repository}{separator}{reference}");
            self.counters.manifest_gets += 1;
            *self.counters.manifest_gets_by_reference.entry(name).or_default() += 1;
        }
    }
}

/// What the ledger needs to know of a request beside its target.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) kind: Option<Kind>,
    pub(super) head: bool,
    pub(super) range: bool,
    pub(super) authorized: bool,
}
