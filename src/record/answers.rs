//! How often what was answered: in all since the start, and over the last day in spans of five minutes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::proto::v1;

/// How long a span is, and how many are remembered: a day.
const SPAN_SECONDS: u64 = 300;
const MOST_SPANS: usize = 288;

/// Where it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// The mirror.
    Mirror,
    /// A containerd's own socket.
    Content,
    /// The control socket.
    Control,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A manifest or an index.
    Manifest,
    /// A blob.
    Blob,
    /// A list of tags.
    Tags,
    /// A list of referrers.
    Referrers,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Asked for by its digest.
    Immutable,
    /// Confirmed a short while ago.
    Fresh,
    /// The registry was asked: it is what it was.
    Unchanged,
    /// The registry was asked: it is something else now.
    Changed,
    /// The registry could not be asked.
    Stale,
    /// There was nothing to answer with.
    Refused,
    /// Whoever asked was told to prove itself, as its registry would have.
    Challenged,
}

impl Front {
    const ALL: [Self; 3] = [Self::Mirror, Self::Content, Self::Control];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Content => "content",
            Self::Control => "control",
        }
    }
}

impl Kind {
    const ALL: [Self; 4] = [Self::Manifest, Self::Blob, Self::Tags, Self::Referrers];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}

impl Ending {
    const ALL: [Self; 7] = [
        Self::Immutable,
        Self::Fresh,
        Self::Unchanged,
        Self::Changed,
        Self::Stale,
        Self::Refused,
        Self::Challenged,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immutable => "immutable",
            Self::Fresh => "fresh",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Challenged => "challenged",
        }
    }

    /// By its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.as_str() == word)
    }
}

/// As many as there are of fronts, kinds and endings together.
const MOST: usize = Front::ALL.len() * Kind::ALL.len() * Ending::ALL.len();

pub(super) struct Answers {
    times: [AtomicU64; MOST],
    given: AtomicU64,
    counted: AtomicU64,
    by_operator: AtomicU64,
    /// The number of the span that is running, since the epoch.
    running: AtomicU64,
    past: Mutex<Past>,
}

/// The spans that are over.
#[derive(Default)]
struct Past {
    /// What there was in all when the running span began.
    before: Count,
    /// How much of what there is in all was written down.
    written: Count,
    spans: VecDeque<(u64, Count)>,
    /// What is still to be written of those that are over.
    unwritten: VecDeque<(u64, Count)>,
}

/// How often each ending came about, how many manifests were given, and how many requests were counted; those of them that
/// commands of the operator's sent once more by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    endings: [u64; Ending::ALL.len()],
    given: u64,
    counted: u64,
    by_operator: u64,
}

impl Count {
    fn add(&mut self, more: &Self) {
        for (sum, more) in self.endings.iter_mut().zip(more.endings) {
            *sum += more;
        }
        self.given += more.given;
        self.counted += more.counted;
        self.by_operator += more.by_operator;
    }

    fn since(&self, before: &Self) -> Self {
        let mut endings = self.endings;
        for (now, then) in endings.iter_mut().zip(before.endings) {
            *now = now.saturating_sub(then);
        }
        let given = self.given.saturating_sub(before.given);
        let counted = self.counted.saturating_sub(before.counted);
        Self { endings, given, counted, by_operator: self.by_operator.saturating_sub(before.by_operator) }
    }
}

impl Past {
    fn keep(&mut self, number: u64, count: Count) {
        if count == Count::default() {
            return;
        }
        match self.spans.back_mut() {
            // The rest of one in which the daemon was started again.
            Some((last, sum)) if *last == number => sum.add(&count),
            Some(_) | None => self.spans.push_back((number, count)),
        }
        let more = self.spans.len().saturating_sub(MOST_SPANS);
        self.spans.drain(..more);
    }

    /// What has come since something was written, which then counts as written.
    fn since_written(&mut self, sum: Count) -> Count {
        sum.since(&std::mem::replace(&mut self.written, sum))
    }
}

impl Answers {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            times: [const { AtomicU64::new(0) }; MOST],
            given: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            by_operator: AtomicU64::new(0),
            running: AtomicU64::new(span(now)),
            past: Mutex::default(),
        }
    }

    pub(super) fn count(&self, front: Front, kind: Kind, ending: Ending) {
        let place = (front as usize * Kind::ALL.len() + kind as usize) * Ending::ALL.len() + ending as usize;
        if let Some(times) = self.times.get(place) {
            times.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn given(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
    }

    /// A registry counted a request.
    pub(super) fn counted(&self, by_operator: bool) {
        self.counted.fetch_add(1, Ordering::Relaxed);
        self.by_operator.fetch_add(u64::from(by_operator), Ordering::Relaxed);
    }

    pub(super) fn all_by_operator(&self) -> u64 {
        self.by_operator.load(Ordering::Relaxed)
    }

    pub(super) fn all_given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    pub(super) fn totals(&self) -> Vec<v1::Answered> {
        let each = Front::ALL.into_iter().flat_map(|front| {
            Kind::ALL.into_iter().flat_map(move |kind| Ending::ALL.map(|ending| (front, kind, ending)))
        });
        let told = each.zip(&self.times).map(|((front, kind, ending), times)| v1::Answered {
            front: front.as_str().to_owned(),
            kind: kind.as_str().to_owned(),
            standing: ending.as_str().to_owned(),
            times: times.load(Ordering::Relaxed),
        });
        told.filter(|answered| answered.times > 0).collect()
    }

    pub(super) fn history(&self, now: SystemTime) -> Vec<v1::AnsweredSpan> {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = (span(now), self.sum().since(&past.before));
        let mut spans: Vec<_> = past.spans.iter().copied().collect();
        if let Some((_, begun)) = spans.pop_if(|(number, _)| *number == running.0) {
            running.1.add(&begun);
        }
        let oldest = span(now).saturating_sub(MOST_SPANS as u64);
        let spans = spans.into_iter().chain([running]);
        let some = spans.filter(|(number, count)| *number > oldest && *count != Count::default());
        some.map(|(number, count)| told(number, count)).collect()
    }

    /// Takes up a span of an earlier run.
    pub(super) fn take_up(&self, told: v1::AnsweredSpan) {
        let Some(Ok(at)) = told.at.map(SystemTime::try_from) else { return };
        let v1::AnsweredSpan { immutable, fresh, unchanged, changed, stale, refused, challenged, .. } = told;
        let endings = [immutable, fresh, unchanged, changed, stale, refused, challenged];
        let v1::AnsweredSpan { counted, counted_without: given, counted_by_operator: by_operator, .. } = told;
        let count = Count { endings, given, counted, by_operator };
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.keep(span(at), count);
    }

    /// Forgets what was taken up: it comes again.
    pub(super) fn take_up_afresh(&self) {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).spans.clear();
    }

    /// What is to be written of each span: what has come since, or all of it.
    pub(super) fn write(&self, all: bool) -> Vec<v1::AnsweredSpan> {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, sum) = (self.running.load(Ordering::Relaxed), self.sum());
        let since = past.since_written(sum);
        let over = std::mem::take(&mut past.unwritten);
        let due: Vec<_> = match all {
            true => past.spans.iter().copied().chain([(running, sum.since(&past.before))]).collect(),
            false => over.into_iter().chain([(running, since)]).collect(),
        };
        let some = due.into_iter().filter(|(_, count)| *count != Count::default());
        some.map(|(number, count)| told(number, count)).collect()
    }

    /// Ends the running span where it is over.
    pub(super) fn turn(&self, now: SystemTime) {
        let number = span(now);
        if self.is_running(number) {
            return;
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_running(number) {
            return;
        }
        let over = self.running.swap(number, Ordering::Relaxed);
        let sum = self.sum();
        let (count, since) = (sum.since(&past.before), past.since_written(sum));
        past.before = sum;
        past.keep(over, count);
        past.unwritten.push_back((over, since));
        let oldest = number.saturating_sub(MOST_SPANS as u64);
        past.spans.retain(|(number, _)| *number > oldest);
        past.unwritten.retain(|(number, _)| *number > oldest);
    }

    /// Whether what happened in that span goes to the one that is running: what ends late began in an earlier one. Where
    /// it is a day earlier, the clock was set back.
    fn is_running(&self, number: u64) -> bool {
        let running = self.running.load(Ordering::Relaxed);
        number <= running && running - number < MOST_SPANS as u64
    }

    fn sum(&self) -> Count {
        let counted = self.counted.load(Ordering::Relaxed);
        let (given, by_operator) = (self.all_given(), self.all_by_operator());
        let mut sum = Count { given, counted, by_operator, ..Count::default() };
        for one in self.times.chunks(Ending::ALL.len()) {
            for (sum, times) in sum.endings.iter_mut().zip(one) {
                *sum += times.load(Ordering::Relaxed);
            }
        }
        sum
    }
}

fn span(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SPAN_SECONDS
}

fn told(number: u64, count: Count) -> v1::AnsweredSpan {
    let at = UNIX_EPOCH + Duration::from_secs(number.saturating_mul(SPAN_SECONDS));
    let [immutable, fresh, unchanged, changed, stale, refused, challenged] = count.endings;
    let (at, counted, counted_without) = (Some(at.into()), count.counted, count.given);
    v1::AnsweredSpan {
        at,
        immutable,
        fresh,
        unchanged,
        changed,
        stale,
        refused,
        counted,
        counted_without,
        challenged,
        counted_by_operator: count.by_operator,
    }
}
