//! What happened: each request that was sent upstream, each decision, how often what was answered and how long it took.
//!
//! Whoever does something tells it here; the control socket, the status page and the metrics show it. Knows none of them,
//! and decides nothing. Invariants: telling waits for no disk and no network, and everything that is kept has a bound.
//! What is kept across restarts is a convenience, never needed to serve (see [`journal`]).

mod answers;
mod budget;
mod decisions;
mod downloads;
mod journal;
mod kept_out;
mod metrics;
mod requests;
mod spending;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

pub use answers::{Ending, Front, Kind};
pub use budget::{Left, Named};
pub use decisions::{Decided, Told};
pub use metrics::{Gauges, Latency};
pub use requests::{Following, MOST_REMEMBERED, Which};
pub use spending::SPENT_WITHIN;

use crate::oci::{Digest, Repository};
use crate::proto::v1;
use answers::Answers;
use budget::Limits;
use decisions::Decisions;
use downloads::Downloads;
use journal::{ArrivedLine, Journal, Line, Opened, SumsLine};
use kept_out::KeptOut;
use metrics::{From, Metrics};
use requests::Requests;
use spending::{Spending, Spent};

/// The record. Cheap to clone: every clone is the same one.
#[derive(Clone)]
pub struct Record {
    inner: Arc<Inner>,
}

struct Inner {
    started_at: SystemTime,
    requests: Requests,
    decisions: Decisions,
    downloads: Downloads,
    answers: Answers,
    kept_out: KeptOut,
    metrics: Metrics,
    money: Mutex<Money>,
    /// When each containerd called last.
    calls: Mutex<BTreeMap<String, SystemTime>>,
    journal: OnceLock<Journal>,
}

/// What registries allow, and what was spent of it.
#[derive(Default)]
struct Money {
    limits: Limits,
    spending: Spending,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("started_at", &self.inner.started_at).finish_non_exhaustive()
    }
}

impl Record {
    /// An empty one, in memory alone.
    pub fn new(now: SystemTime) -> Self {
        let (requests, decisions, downloads) = Default::default();
        let (answers, metrics) = (Answers::new(now), Metrics::new());
        let (money, calls, journal) = (Mutex::default(), Mutex::default(), OnceLock::new());
        let inner = Inner {
            started_at: now,
            requests,
            decisions,
            downloads,
            answers,
            kept_out: KeptOut::default(),
            metrics,
            money,
            calls,
            journal,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps it in a folder too, after taking up what was told there before. A folder that cannot be used is told in the
    /// log, and keeps nobody from anything else. Waits for the disk.
    pub fn keep_in(&self, folder: &Path) {
        let journal = Opened::open(folder).and_then(|(opened, lines)| {
            for line in lines {
                self.take_up(line);
            }
            opened.start(Arc::downgrade(&self.inner))
        });
        match journal {
            Ok(journal) => drop(self.inner.journal.set(journal)),
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "what happens is not kept across restarts");
            }
        }
    }

    /// Gives these registries labels of their own in the metrics, whoever else is asked.
    pub fn name<'a>(&self, registries: impl IntoIterator<Item = &'a str>) {
        for registry in registries {
            self.inner.metrics.name(registry);
        }
    }

    /// When the daemon started.
    pub fn started_at(&self) -> SystemTime {
        self.inner.started_at
    }

    /// A request that was sent upstream has come to its end. Gives it its number.
    pub fn sent(&self, request: v1::UpstreamRequest) -> Arc<v1::UpstreamRequest> {
        let Inner { requests, metrics, journal, .. } = &*self.inner;
        metrics.sent(&request);
        if let (true, Some(Ok(at))) = (request.counted, request.at.map(SystemTime::try_from)) {
            self.inner.answers.turn(at);
            self.inner.answers.counted(request.by_operator);
        }
        self.spend(&request);
        let request = requests.push(request);
        write(journal.get(), || Line::sent(&request));
        request
    }

    /// A request was not sent to a registry that is not listed, and is at such an address, of such a standing.
    pub fn kept_out(&self, registry: &str, address: IpAddr, standing: impl Display, now: SystemTime) {
        self.inner.kept_out.note(registry, address.to_string(), standing.to_string(), now);
    }

    /// The registries of which that was so lately, the latest first.
    pub fn all_kept_out(&self, now: SystemTime) -> Vec<v1::KeptOutRegistry> {
        self.inner.kept_out.told(now)
    }

    /// A reference was decided on. What comes again is told by what this answers with.
    pub fn decided(&self, decided: Decided<'_>, now: SystemTime) -> Told {
        let Inner { decisions, journal, .. } = &*self.inner;
        let (told, new) = decisions.put(decided, now);
        if let Some(decision) = new {
            write(journal.get(), || Line::decided(decision));
        }
        told
    }

    /// Something was answered.
    pub fn answered(&self, front: Front, kind: Kind, ending: Ending, now: SystemTime) {
        self.inner.answers.turn(now);
        self.inner.answers.count(front, kind, ending);
    }

    /// A client was given a manifest that it would have asked the registry for.
    pub fn given_manifest(&self, repository: &Repository, now: SystemTime) {
        self.inner.answers.turn(now);
        self.inner.answers.given();
        let (registry, name) = (repository.registry().as_str(), repository.name());
        self.money().spending.spend(registry, name, Spent { given: 1, ..Spent::default() }, now);
    }

    /// Bytes of an answer of a registry have come.
    pub fn downloaded(&self, from: &Repository, bytes: u64, now: SystemTime) {
        let (registry, name) = (from.registry().as_str(), from.name());
        self.inner.metrics.downloaded(registry, bytes);
        let more = Spent { downloaded_bytes: bytes, ..Spent::default() };
        self.money().spending.spend(registry, name, more, now);
    }

    /// A blob or manifest that was not held is, after so many bytes and so many counted requests.
    pub fn arrived(&self, digest: &Digest, from: &Repository, bytes: u64, counted: u32, now: SystemTime) {
        let (digest, repository) = (digest.to_string(), from.to_string());
        let line = ArrivedLine { digest, repository, at: Some(now.into()), bytes, counted };
        write(self.inner.journal.get(), || Line::arrived(line.clone()));
        self.inner.downloads.arrived(line);
    }

    /// How a blob came, where that is remembered.
    pub fn arrival(&self, digest: &Digest) -> Option<Arrival> {
        let ArrivedLine { repository, at, bytes, counted, .. } = self.inner.downloads.arrival(digest)?;
        Some(Arrival { repository, at: at?.try_into().ok()?, bytes, counted })
    }

    /// Somebody reads a blob later that is about to be downloaded, or is already.
    pub fn wants(&self, digest: &Digest) {
        self.inner.downloads.want(digest);
    }

    /// It was no download that was wanted.
    pub fn wants_no_more(&self, digest: &Digest) {
        self.inner.downloads.want_no_more(digest);
    }

    /// The download of a blob begins, of so many bytes where that is known.
    pub fn begins(&self, digest: &Digest, bytes: Option<u64>) {
        self.inner.downloads.begin(digest, bytes);
    }

    /// It has ended: with all of the blob's bytes, or with nothing.
    pub fn ends(&self, digest: &Digest, bytes: Option<u64>) {
        self.inner.downloads.end(digest, bytes);
    }

    /// A containerd called, by the name of its listener.
    pub fn called(&self, containerd: &str, now: SystemTime) {
        let mut calls = self.inner.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(containerd) {
            Some(at) => *at = now,
            None => {
                calls.insert(containerd.to_owned(), now);
            }
        }
    }

    /// When a containerd called last.
    pub fn called_at(&self, containerd: &str) -> Option<SystemTime> {
        self.inner.calls.lock().unwrap_or_else(PoisonError::into_inner).get(containerd).copied()
    }

    /// A client reads bytes of a blob that is held.
    pub fn read(&self, front: Front, digest: &Digest, bytes: u64) {
        let paid = self.inner.downloads.pay(digest, bytes);
        self.bytes(front, paid, bytes);
    }

    /// Bytes were given to a client, so many of them out of what was downloaded for it.
    fn bytes(&self, front: Front, from_upstream: u64, bytes: u64) {
        self.inner.metrics.bytes(front, From::Upstream, from_upstream);
        self.inner.metrics.bytes(front, From::Hold, bytes.saturating_sub(from_upstream));
    }

    /// Something took so long.
    pub fn took(&self, what: Latency, time: Duration) {
        self.inner.metrics.took(what, time);
    }

    /// So many bytes of a blob are about to be sent to a client of the mirror that asked for them then.
    pub fn sending(&self, digest: &Digest, bytes: u64, asked_at: Instant) -> Sending {
        let from_upstream = self.inner.downloads.pay(digest, bytes);
        Sending { record: self.clone(), from_upstream, asked_at, first: true }
    }

    /// The requests that are remembered and fit, the oldest first, `last` of them at most.
    pub fn requests(&self, which: &Which, last: usize) -> Vec<Arc<v1::UpstreamRequest>> {
        self.inner.requests.last(which, last)
    }

    /// Those that are remembered and fit, and then each new one.
    pub fn follow(&self, which: Which, last: usize) -> Following {
        self.inner.requests.follow(which, last)
    }

    /// What was decided about a reference, as [`Decided::reference`] has it; the latest first.
    pub fn decisions(&self, reference: &str) -> Vec<v1::Decision> {
        self.inner.decisions.of(reference)
    }

    /// The standing of the last answer about a reference.
    pub fn standing(&self, reference: &str) -> Option<Ending> {
        self.inner.decisions.standing(reference)
    }

    /// What each registry allows, and what was spent there lately; only this one, where one is named. Whoever knows
    /// about gates adds them.
    pub fn budget(&self, registry: Option<&str>, named: Named, now: SystemTime) -> Vec<v1::RegistryBudget> {
        let money = self.money();
        budget::told(&money.limits, &money.spending, (registry, named), now)
    }

    /// What was answered since the start, by front, kind and standing.
    pub fn totals(&self) -> Vec<v1::Answered> {
        self.inner.answers.totals()
    }

    /// What was answered over the last day, in spans.
    pub fn history(&self, now: SystemTime) -> Vec<v1::AnsweredSpan> {
        self.inner.answers.turn(now);
        self.inner.answers.history(now)
    }

    /// What it comes to since the start.
    pub fn sums(&self) -> Sums {
        let [requests, counted] = self.inner.metrics.upstream();
        let from = |from| self.inner.metrics.bytes_from(from);
        let counted_without = self.inner.answers.all_given();
        let counted_by_operator = self.inner.answers.all_by_operator();
        Sums {
            requests,
            counted,
            counted_by_operator,
            counted_without,
            from_hold: from(From::Hold),
            from_upstream: from(From::Upstream),
            downloaded: self.inner.metrics.all_downloaded(),
        }
    }

    /// The metrics in Prometheus's text form, with those that others know: these, and the gates in the budgets.
    pub fn metrics(&self, budgets: &[v1::RegistryBudget], gauges: &Gauges) -> String {
        self.inner.metrics.text(budgets, &self.inner.answers.totals(), gauges)
    }

    /// Brings to the disk what is to be kept. Waits for it.
    pub fn close(&self) {
        let Some(journal) = self.inner.journal.get() else { return };
        for decision in self.inner.decisions.grown() {
            journal.write_in_turn(Line::decided(decision));
        }
        journal.close();
    }

    fn spend(&self, request: &v1::UpstreamRequest) {
        let mut money = self.money();
        money.read(request);
        if request.repository.is_empty() {
            // Nothing was asked for: a login was tried.
            return;
        }
        let at = request.at.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or(self.inner.started_at);
        money.spending.sent(request, at);
    }

    fn take_up(&self, line: Line) {
        match line.what {
            Some(journal::What::Sent(request)) => {
                self.money().read(&request);
                self.inner.requests.push(request);
            }
            Some(journal::What::Decided(decision)) => {
                self.inner.decisions.take_up(decision.reference, decision.decision.unwrap_or_default());
            }
            Some(journal::What::Arrived(line)) => self.inner.downloads.arrived(line),
            Some(journal::What::Sums(SumsLine { all, spent, answered })) => {
                let mut money = self.money();
                if all {
                    money.spending = Spending::default();
                    self.inner.answers.take_up_afresh();
                }
                spent.into_iter().for_each(|span| money.spending.take_up(span));
                answered.into_iter().for_each(|span| self.inner.answers.take_up(span));
            }
            None => {}
        }
    }

    fn money(&self) -> MutexGuard<'_, Money> {
        self.inner.money.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Money {
    /// Takes note of what the answer to a request said is left.
    fn read(&mut self, request: &v1::UpstreamRequest) {
        if let Some(left) = Left::of(request) {
            self.limits.read(&request.registry, left);
        }
    }
}

/// What the journal asks for; nothing once the record is gone.
impl journal::Sums for Weak<Inner> {
    fn sums(&self, all: bool) -> SumsLine {
        let Some(inner) = self.upgrade() else { return SumsLine::default() };
        let spent = inner.money.lock().unwrap_or_else(PoisonError::into_inner).spending.write(all);
        SumsLine { all, spent, answered: inner.answers.write(all) }
    }
}

/// What happened since the start, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Requests sent upstream.
    pub requests: u64,
    /// Those that a registry with a pull limit counts.
    pub counted: u64,
    /// Those of them that commands of the operator's sent.
    pub counted_by_operator: u64,
    /// What the manifests that clients were given would have cost without us.
    pub counted_without: u64,
    /// Bytes of blobs that clients were given out of the hold.
    pub from_hold: u64,
    /// Bytes of blobs that were downloaded for the clients who were given them.
    pub from_upstream: u64,
    /// Bytes that came from registries.
    pub downloaded: u64,
}

/// How a blob came to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// From which repository, with its registry.
    pub repository: String,
    /// When it was whole.
    pub at: SystemTime,
    /// How many bytes were received for it.
    pub bytes: u64,
    /// How many requests a registry counted for it.
    pub counted: u32,
}

/// A body on its way to a client.
pub struct Sending {
    record: Record,
    /// How many of the bytes that are still to be sent were downloaded for this.
    from_upstream: u64,
    asked_at: Instant,
    first: bool,
}

impl Sending {
    /// Bytes of it have left.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        if std::mem::take(&mut self.first) {
            self.record.took(Latency::BlobFirstByte, now.saturating_duration_since(self.asked_at));
        }
        let from_upstream = bytes.min(self.from_upstream);
        self.from_upstream -= from_upstream;
        self.record.bytes(Front::Mirror, from_upstream, bytes);
    }
}

fn write(journal: Option<&Journal>, line: impl FnOnce() -> Line) {
    if let Some(journal) = journal {
        journal.write(line());
    }
}
