//! What was spent on which repository, in spans of five minutes, for as long as Docker Hub's window.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::budget::SPENT_WITHIN;
use super::journal::{Given, GivenLine};

/// How long a span is, and how many repositories it tells apart; what is more goes under one name.
const SPAN: Duration = Duration::from_secs(300);
const MOST_SPANS: u64 = SPENT_WITHIN.as_secs() / SPAN.as_secs();
const MOST_REPOSITORIES: usize = 1024;
const OTHERS: &str = "(others)";

#[derive(Default)]
pub(super) struct Spending {
    /// By their numbers since the epoch, the oldest first.
    spans: VecDeque<(u64, Places)>,
    /// The span of which it was not yet written down what was given.
    unwritten: Option<u64>,
}

/// What was spent on one repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Requests that were sent.
    pub(super) requests: u64,
    /// Those among them that counted.
    pub(super) counted: u64,
    /// Manifests that clients were given.
    pub(super) given: u64,
    /// Bytes that came from there, of whatever answers.
    pub(super) downloaded_bytes: u64,
}

impl Spent {
    fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.counted += more.counted;
        self.given += more.given;
        self.downloaded_bytes += more.downloaded_bytes;
    }
}

/// By the registry, and by the name of the repository.
#[derive(Default)]
struct Places {
    registries: BTreeMap<String, BTreeMap<String, Spent>>,
    /// How many repositories these are.
    repositories: usize,
}

impl Places {
    fn each(&self) -> impl Iterator<Item = (&str, &str, Spent)> {
        self.registries.iter().flat_map(|(registry, repositories)| {
            repositories.iter().map(|(repository, spent)| (registry.as_str(), repository.as_str(), *spent))
        })
    }

    /// What is to be added to. What is there already is found without making anything.
    fn of(&mut self, registry: &str, repository: &str) -> Option<&mut Spent> {
        let known = self.registries.get(registry).is_some_and(|of| of.contains_key(repository));
        let (registry, repository) = match known || self.repositories < MOST_REPOSITORIES {
            true => (registry, repository),
            false => (OTHERS, OTHERS),
        };
        if !self.registries.get(registry).is_some_and(|of| of.contains_key(repository)) {
            let repositories = self.registries.entry(registry.to_owned()).or_default();
            repositories.insert(repository.to_owned(), Spent::default());
            self.repositories += 1;
        }
        self.registries.get_mut(registry).and_then(|of| of.get_mut(repository))
    }
}

impl Spending {
    pub(super) fn sent(&mut self, registry: &str, repository: &str, counted: bool, at: SystemTime) {
        // The clock was set back by hours: what was told of the future is no use any more.
        if self.spans.back().is_some_and(|(newest, _)| *newest > number(at) + MOST_SPANS) {
            self.spans.clear();
        }
        let sent = Spent { requests: 1, counted: u64::from(counted), ..Spent::default() };
        self.spend(registry, repository, sent, at);
    }

    /// More was spent on a repository, or given.
    pub(super) fn spend(&mut self, registry: &str, repository: &str, more: Spent, at: SystemTime) {
        if let Some(spent) = self.at(registry, repository, at) {
            spent.add(more);
        }
    }

    /// The same, of what is to be written down too: answers with the span before, where a new one has begun.
    pub(super) fn spend_now(
        &mut self,
        registry: &str,
        repository: &str,
        more: Spent,
        now: SystemTime,
    ) -> Option<GivenLine> {
        let over = if self.unwritten == Some(number(now)) { None } else { self.end() };
        self.spend(registry, repository, more, now);
        self.unwritten = Some(number(now));
        over
    }

    /// What is still to be written down.
    pub(super) fn end(&mut self) -> Option<GivenLine> {
        self.unwritten.take().and_then(|number| self.line(number))
    }

    /// By repository, over the time that ends now.
    pub(super) fn within(&self, time: Duration, now: SystemTime) -> BTreeMap<(&str, &str), Spent> {
        let oldest = number(now.checked_sub(time).unwrap_or(UNIX_EPOCH));
        let mut sums: BTreeMap<_, Spent> = BTreeMap::new();
        for (_, places) in self.spans.iter().filter(|(number, _)| *number > oldest) {
            for (registry, repository, spent) in places.each() {
                sums.entry((registry, repository)).or_default().add(spent);
            }
        }
        sums
    }

    /// What is to be added to; nothing where that is too long ago.
    fn at(&mut self, registry: &str, repository: &str, at: SystemTime) -> Option<&mut Spent> {
        let number = number(at);
        let newest = self.spans.back().map_or(number, |(newest, _)| (*newest).max(number));
        let oldest = newest.saturating_sub(MOST_SPANS);
        self.spans.retain(|(number, _)| *number >= oldest);
        if number < oldest {
            return None;
        }
        let place = match self.spans.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => place,
            Err(place) => {
                self.spans.insert(place, (number, Places::default()));
                place
            }
        };
        self.spans.get_mut(place).and_then(|(_, places)| places.of(registry, repository))
    }

    fn line(&self, number: u64) -> Option<GivenLine> {
        let (_, places) = self.spans.iter().find(|(this, _)| *this == number)?;
        let given = places.each().filter(|(_, _, spent)| spent.given > 0 || spent.downloaded_bytes > 0);
        let to: Vec<_> = given
            .map(|(registry, repository, spent)| Given {
                registry: registry.to_owned(),
                repository: repository.to_owned(),
                times: spent.given,
                downloaded_bytes: spent.downloaded_bytes,
            })
            .collect();
        let at = UNIX_EPOCH + Duration::from_secs(number.saturating_mul(SPAN.as_secs()));
        (!to.is_empty()).then(|| GivenLine { at: Some(at.into()), to })
    }
}

fn number(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SPAN.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 * 300 + minutes * 60)
    }

    #[test]
    fn only_the_last_six_hours_count() {
        let mut spending = Spending::default();
        for minutes in [0, 100, 400] {
            spending.sent("docker.io", "library/nginx", minutes == 100, at(minutes));
            spending.spend("docker.io", "library/nginx", Spent { given: 2, ..Spent::default() }, at(minutes));
        }
        let spent =
            |now| spending.within(SPENT_WITHIN, at(now)).get(&("docker.io", "library/nginx")).copied();
        assert_eq!(spent(400), Some(Spent { requests: 2, counted: 1, given: 4, ..Spent::default() }));
        assert_eq!(spent(500), Some(Spent { requests: 1, given: 2, ..Spent::default() }));
        assert_eq!(spent(900), None);
    }

    #[test]
    fn a_clock_that_is_set_right_loses_the_future_and_counts_on() {
        let mut spending = Spending::default();
        spending.sent("docker.io", "a/b", true, at(100_000));
        spending.sent("docker.io", "a/b", true, at(0));
        spending.sent("docker.io", "a/b", false, at(1));
        let sums = spending.within(SPENT_WITHIN, at(1));
        assert_eq!(
            sums.get(&("docker.io", "a/b")),
            Some(&Spent { requests: 2, counted: 1, ..Spent::default() })
        );
    }

    #[test]
    fn a_span_that_is_over_is_written_down_once_and_found_again() {
        let mut spending = Spending::default();
        let mut spend = |repository, given, downloaded_bytes, minutes| {
            let more = Spent { given, downloaded_bytes, ..Spent::default() };
            spending.spend_now("docker.io", repository, more, at(minutes)).map(|line| line.to)
        };
        let told = |repository: &str, times, downloaded_bytes| {
            vec![Given {
                registry: "docker.io".into(),
                repository: repository.into(),
                times,
                downloaded_bytes,
            }]
        };
        assert_eq!(spend("a/b", 1, 0, 0), None);
        assert_eq!(spend("a/b", 1, 70, 1), None);
        assert_eq!(spend("a/c", 0, 5, 7), Some(told("a/b", 2, 70)));
        assert_eq!(spend("a/c", 0, 5, 8), None);
        assert_eq!(spending.end().unwrap().to, told("a/c", 0, 10));
        assert_eq!(spending.end(), None);
    }

    #[test]
    fn a_span_tells_only_so_many_repositories_apart() {
        let mut spending = Spending::default();
        for number in 0..2000 {
            spending.sent("docker.io", &format!("a/{number}"), true, at(0));
        }
        let sums = spending.within(SPENT_WITHIN, at(0));
        assert_eq!(sums.len(), MOST_REPOSITORIES + 1);
        assert_eq!(sums.values().map(|spent| spent.counted).sum::<u64>(), 2000);
    }
}
