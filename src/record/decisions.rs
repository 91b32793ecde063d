//! What was decided about references, and why: the last few decisions on each of the last some hundreds of them.
//!
//! Decisions that are the same are one, with a count, for as long as nothing happened in between: a tag that is asked for a
//! thousand times a second, and confirmed once a second, is two lines that say so.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lru::LruCache;

use super::answers::Ending;
use super::journal::DecidedLine;
use crate::proto::v1;

/// How many references are remembered, and how many decisions on each; and of how many that were never answered.
const MOST_REFERENCES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const MOST_UNANSWERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();
const MOST_DECISIONS: usize = 32;

/// A decision, as it is told.
#[derive(Debug, Clone)]
pub struct Decided<'a> {
    /// About what, in full.
    pub reference: String,
    /// What came of it.
    pub ending: Ending,
    /// What was answered, or would have been to a client who accepts it; empty where there was nothing.
    pub digest: String,
    /// Why, in words. The same reason has the same words.
    pub reason: String,
    /// For whom.
    pub asked_by: &'a str,
    /// What it took.
    pub cost: v1::Cost,
    /// What was sent upstream for it.
    pub requests: Vec<Arc<v1::UpstreamRequest>>,
}

/// A decision that was told and may be made again, in the same way.
#[derive(Clone)]
pub struct Told(Arc<Entry>);

struct Entry {
    ending: Ending,
    /// The first of them; what may change with the next ones stands beside it.
    decision: v1::Decision,
    times: AtomicU64,
    /// Since the epoch, in milliseconds.
    last_at: AtomicU64,
    latest: Mutex<Latest>,
}

/// Who asked last, what all of them took, and what the latest of them sent that sent anything.
struct Latest {
    asked_by: String,
    cost: v1::Cost,
    requests: Vec<v1::UpstreamRequest>,
}

impl Told {
    /// It was made again.
    pub fn again(&self, now: SystemTime) {
        self.0.times.fetch_add(1, Ordering::Relaxed);
        self.0.last_at.fetch_max(milliseconds(now), Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Told").field(&self.0.ending).finish()
    }
}

/// By the references, the latest decision first.
type References = LruCache<String, VecDeque<Arc<Entry>>>;

pub(super) struct Decisions(Mutex<Remembered>);

/// Anybody may ask for what is not there: that pushes out nothing that is.
struct Remembered {
    answered: References,
    unanswered: References,
}

impl Default for Decisions {
    fn default() -> Self {
        let (answered, unanswered) = (LruCache::new(MOST_REFERENCES), LruCache::new(MOST_UNANSWERED));
        Self(Mutex::new(Remembered { answered, unanswered }))
    }
}

impl Decisions {
    /// Puts a decision where it belongs; what is new is answered as it is to be written down.
    pub(super) fn put(&self, decided: Decided<'_>, now: SystemTime) -> (Told, Option<DecidedLine>) {
        let Decided { reference, ending, digest, reason, asked_by, cost, requests } = decided;
        let mut remembered = self.lock();
        let same = |entry: &&Arc<Entry>| {
            entry.ending == ending && entry.decision.digest == digest && entry.decision.reason == reason
        };
        if let Some(entries) = remembered.of(&reference, ending).get(&reference)
            && let Some(before) = entries.iter().take(uneventful(entries, &digest).max(1)).find(same)
        {
            let told = Told(Arc::clone(before));
            drop(remembered);
            told.again(now);
            told.0.latest().add(asked_by, cost, &requests);
            return (told, None);
        }
        let decision = v1::Decision {
            first_at: Some(now.into()),
            last_at: Some(now.into()),
            times: 1,
            standing: ending.as_str().to_owned(),
            digest,
            reason,
            asked_by: asked_by.to_owned(),
            cost: Some(cost),
            requests: requests.iter().map(|request| (**request).clone()).collect(),
        };
        let line = DecidedLine { reference: reference.clone(), decision: Some(decision.clone()) };
        let told = push(remembered.of(&reference, ending), reference, ending, decision);
        (told, Some(line))
    }

    /// Takes up one that was written down; where it was written down twice, the second says more.
    pub(super) fn take_up(&self, reference: String, decision: v1::Decision) {
        let Some(ending) = Ending::parse(&decision.standing) else { return };
        let mut remembered = self.lock();
        let references = remembered.of(&reference, ending);
        if let Some(entries) = references.get_mut(&reference) {
            entries.retain(|entry| entry.ending != ending || entry.decision.first_at != decision.first_at);
        }
        push(references, reference, ending, decision);
    }

    /// Those that were made more than once, as they are to be written down in the end.
    pub(super) fn grown(&self) -> Vec<DecidedLine> {
        let remembered = self.lock();
        let references = remembered.answered.iter().chain(&remembered.unanswered);
        let entries = references
            .flat_map(|(reference, entries)| entries.iter().rev().map(move |entry| (reference, entry)));
        let grown = entries.filter(|(_, entry)| entry.times.load(Ordering::Relaxed) > entry.decision.times);
        let line = |(reference, entry): (&String, &Arc<Entry>)| DecidedLine {
            reference: reference.clone(),
            decision: Some(entry.told()),
        };
        grown.map(line).collect()
    }

    pub(super) fn of(&self, reference: &str) -> Vec<v1::Decision> {
        let remembered = self.lock();
        let mut entries: Vec<_> = remembered.all_of(reference).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_at.load(Ordering::Relaxed)));
        entries.into_iter().map(|entry| entry.told()).collect()
    }

    pub(super) fn standing(&self, reference: &str) -> Option<Ending> {
        let remembered = self.lock();
        let entries: Vec<_> = remembered.all_of(reference).collect();
        let latest = entries.into_iter().rev().max_by_key(|entry| entry.last_at.load(Ordering::Relaxed));
        latest.map(|entry| entry.ending)
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// Where a decision on a reference belongs.
    fn of(&mut self, reference: &str, ending: Ending) -> &mut References {
        match ending {
            Ending::Refused | Ending::Challenged if !self.answered.contains(reference) => {
                &mut self.unanswered
            }
            _ => &mut self.answered,
        }
    }

    fn all_of(&self, reference: &str) -> impl Iterator<Item = &Arc<Entry>> {
        [&self.answered, &self.unanswered]
            .into_iter()
            .filter_map(|references| references.peek(reference))
            .flatten()
    }
}

impl Latest {
    fn add(&mut self, asked_by: &str, cost: v1::Cost, requests: &[Arc<v1::UpstreamRequest>]) {
        asked_by.clone_into(&mut self.asked_by);
        self.cost.requests = self.cost.requests.saturating_add(cost.requests);
        self.cost.counted = self.cost.counted.saturating_add(cost.counted);
        if !requests.is_empty() {
            self.requests = requests.iter().map(|request| (**request).clone()).collect();
        }
    }
}

/// How many of the latest decisions tell of nothing but that the same is served as ever, or was no use to a client.
fn uneventful(entries: &VecDeque<Arc<Entry>>, digest: &str) -> usize {
    let uneventful = |entry: &&Arc<Entry>| match entry.ending {
        Ending::Immutable | Ending::Fresh | Ending::Unchanged => entry.decision.digest == digest,
        Ending::Refused => !digest.is_empty() && entry.decision.digest == digest,
        Ending::Changed | Ending::Stale | Ending::Challenged => false,
    };
    entries.iter().take_while(uneventful).count()
}

fn push(references: &mut References, reference: String, ending: Ending, decision: v1::Decision) -> Told {
    let last_at = decision.last_at.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or(UNIX_EPOCH);
    let entry = Arc::new(Entry {
        ending,
        times: AtomicU64::new(decision.times),
        last_at: AtomicU64::new(milliseconds(last_at)),
        latest: Mutex::new(Latest {
            asked_by: decision.asked_by.clone(),
            cost: decision.cost.unwrap_or_default(),
            requests: decision.requests.clone(),
        }),
        decision,
    });
    let entries = references.get_or_insert_mut(reference, VecDeque::new);
    entries.truncate(MOST_DECISIONS - 1);
    entries.push_front(Arc::clone(&entry));
    Told(entry)
}

impl Entry {
    fn told(&self) -> v1::Decision {
        let last_at = UNIX_EPOCH + Duration::from_millis(self.last_at.load(Ordering::Relaxed));
        let latest = self.latest();
        v1::Decision {
            times: self.times.load(Ordering::Relaxed),
            last_at: Some(last_at.into()),
            asked_by: latest.asked_by.clone(),
            cost: Some(latest.cost),
            requests: latest.requests.clone(),
            ..self.decision.clone()
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
