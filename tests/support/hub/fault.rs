//! What goes wrong, for which kind of request, and how a test waits on it. It decides which fault a request meets
//! and keeps those that are held until they are released; carrying a fault out is the business of others.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// The kinds of request that can be broken, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `HEAD /v2/…/manifests/…`.
    ManifestHead,
    /// `GET /v2/…/manifests/…`.
    ManifestGet,
    /// GET and HEAD of `/v2/…/blobs/…`, at the registry.
    Blob,
    /// GET and HEAD of `/v2/…/tags/list` and `/v2/…/referrers/…`.
    List,
    /// Everything asked of the CDN.
    Cdn,
    /// Everything asked of the token service.
    Token,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ManifestHead, Self::ManifestGet, Self::Blob, Self::List, Self::Cdn, Self::Token];

    fn name(self) -> &'static str {
        match self {
            Self::ManifestHead => "manifest-head",
            Self::ManifestGet => "manifest-get",
            Self::Blob => "blob",
            Self::List => "list",
            Self::Cdn => "cdn",
            Self::Token => "token",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("kind is one of {}", names()))
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, as the pull limit says it.
    PullLimit,
    /// 429 in plain text, as the limit on abuse says it.
    AbuseLimit,
    /// 403, as from a service that locks out whoever asks.
    Forbidden,
    /// 503.
    Unavailable,
    /// 200 with a page of HTML, as a captive portal answers.
    CaptivePortal,
    /// The connection is reset in place of an answer.
    Reset,
    /// Nothing is answered until the fault is cleared; then the request is answered as usual.
    Hang,
    /// The kind's listener is closed and what is connected to it is cut; clearing opens it on the same port.
    Refuse,
    /// The body ends after this many bytes although more were announced.
    CutAfter(u64),
    /// One byte of the body is wrong; its length is right.
    WrongBytes,
    /// The body stops before this offset of the blob until the fault is cleared, and so does that of whoever asks for the
    /// rest because nothing comes; its head and the bytes before are sent.
    HoldAt(u64),
    /// The body comes at this many bytes a second.
    Slow(u64),
}

impl Fault {
    /// The fault, for the next `times` requests of the kind only.
    pub fn next(self, times: u32) -> Script {
        Script { times: Some(times), ..Script::from(self) }
    }

    /// The fault, only for requests whose path holds `part`: a digest, a tag, a repository.
    pub fn only(self, part: &str) -> Script {
        Script::from(self).only(part)
    }
}

/// A fault, and which requests meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    fault: Fault,
    times: Option<u32>,
    only: Option<String>,
}

impl Script {
    /// Only requests whose path holds `part` meet the fault, and only they use up its times.
    pub fn only(self, part: &str) -> Self {
        Self { only: Some(part.to_owned()), ..self }
    }
}

impl From<Fault> for Script {
    fn from(fault: Fault) -> Self {
        Self { fault, times: None, only: None }
    }
}

/// The faults in force, and the requests that are held by one.
#[derive(Default)]
pub(super) struct Faults {
    scripts: Mutex<BTreeMap<Kind, Script>>,
    /// How often each kind was cleared: a held request waits for this to grow.
    cleared: watch::Sender<BTreeMap<Kind, u64>>,
    held: watch::Sender<BTreeMap<Kind, usize>>,
}

impl Faults {
    pub(super) fn set(&self, kind: Kind, script: Script) {
        self.scripts().insert(kind, script);
    }

    /// Ends the kind's fault and lets go of every request that it holds.
    pub(super) fn clear(&self, kind: Kind) {
        let mut scripts = self.scripts();
        scripts.remove(&kind);
        self.cleared.send_modify(|cleared| *cleared.entry(kind).or_default() += 1);
    }

    /// Whether the kind's listener is to be closed.
    pub(super) fn refused(&self, kind: Kind) -> bool {
        self.scripts().get(&kind).is_some_and(|script| script.fault == Fault::Refuse)
    }

    /// The fault that a request on `path` meets, if any, and the ticket with which that fault can hold it. Both are
    /// taken under one lock: a clear that comes later lets go of the request, one that came before spares it.
    pub(super) fn meet(&self, kind: Kind, path: &str) -> Option<(Fault, Ticket)> {
        let mut scripts = self.scripts();
        let script = scripts.get_mut(&kind)?;
        if script.only.as_deref().is_some_and(|part| !path.contains(part)) {
            return None;
        }
        let fault = script.fault;
        if let Some(times) = &mut script.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                scripts.remove(&kind);
            }
        }
        let cleared = self.cleared.subscribe();
        let seen = cleared.borrow().get(&kind).copied().unwrap_or_default();
        Some((fault, Ticket { kind, seen, cleared, held: self.held.clone() }))
    }

    /// Returns once at least `count` requests of the kind are held.
    pub(super) async fn held(&self, kind: Kind, count: usize) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| held.get(&kind).copied().unwrap_or_default() >= count)
            .await
            .expect("the sender lives as long as self");
    }

    fn scripts(&self) -> std::sync::MutexGuard<'_, BTreeMap<Kind, Script>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds one request until its kind is cleared.
pub(super) struct Ticket {
    kind: Kind,
    seen: u64,
    cleared: watch::Receiver<BTreeMap<Kind, u64>>,
    held: watch::Sender<BTreeMap<Kind, usize>>,
}

impl Ticket {
    /// Returns when the kind is cleared; until then the request is among the held ones, unless its client leaves.
    pub(super) async fn wait(mut self) {
        let _standing = Standing::begin(self.kind, self.held);
        let (kind, seen) = (self.kind, self.seen);
        // An error means that the stand-in is gone, and the connection with it.
        let _ = self.cleared.wait_for(|cleared| cleared.get(&kind).copied().unwrap_or_default() > seen).await;
    }
}

/// Counts a request among the held ones for as long as it lives.
struct Standing {
    kind: Kind,
    held: watch::Sender<BTreeMap<Kind, usize>>,
}

impl Standing {
    fn begin(kind: Kind, held: watch::Sender<BTreeMap<Kind, usize>>) -> Self {
        held.send_modify(|held| *held.entry(kind).or_default() += 1);
        Self { kind, held }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.held.send_modify(|held| *held.entry(self.kind).or_default() -= 1);
    }
}
