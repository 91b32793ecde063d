//! What was spent on which repository, in spans of five minutes, for as long as Docker Hub's window; and what of it is
//! still to be written down.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::journal::{SpentOn, SpentSpan};
use crate::proto::v1;

/// Over how long spending is added up: Docker Hub's window.
pub const SPENT_WITHIN: Duration = Duration::from_secs(6 * 60 * 60);

/// How long a span is, and how many repositories it tells apart; what is more goes under one name.
const SPAN: Duration = Duration::from_secs(300);
const MOST_SPANS: u64 = SPENT_WITHIN.as_secs() / SPAN.as_secs();
const MOST_REPOSITORIES: usize = 1024;
const OTHERS: &str = "(others)";

/// How many repositories of a span are told apart where all spans are written at once.
const MOST_WRITTEN: usize = 128;

#[derive(Default)]
pub(super) struct Spending {
    /// By their numbers since the epoch, the oldest first.
    spans: VecDeque<(u64, Places)>,
}

/// What was spent on one repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Requests that were sent.
    pub(super) requests: u64,
    /// Those among them that counted.
    pub(super) counted: u64,
    /// Those of the counted ones that commands of the operator's sent.
    pub(super) by_operator: u64,
    /// Manifests that clients were given.
    pub(super) given: u64,
    /// Bytes that came from there, of whatever answers.
    pub(super) downloaded_bytes: u64,
}

impl Spent {
    fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.counted += more.counted;
        self.by_operator += more.by_operator;
        self.given += more.given;
        self.downloaded_bytes += more.downloaded_bytes;
    }

    fn since(&self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            counted: self.counted.saturating_sub(before.counted),
            by_operator: self.by_operator.saturating_sub(before.by_operator),
            given: self.given.saturating_sub(before.given),
            downloaded_bytes: self.downloaded_bytes.saturating_sub(before.downloaded_bytes),
        }
    }

    fn told(self, registry: &str, repository: &str) -> SpentOn {
        let Self { requests, counted, by_operator, given, downloaded_bytes } = self;
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        SpentOn { registry, repository, requests, counted, given, downloaded_bytes, by_operator }
    }
}

/// By the registry, and by the name of the repository.
#[derive(Default)]
struct Places {
    registries: BTreeMap<String, BTreeMap<String, Place>>,
    /// How many repositories these are.
    repositories: usize,
    /// Whether some of it is still to be written.
    unwritten: bool,
}

#[derive(Default)]
struct Place {
    spent: Spent,
    /// How much of that was written.
    written: Spent,
}

impl Places {
    fn each(&self) -> impl Iterator<Item = (&str, &str, Spent)> {
        self.registries.iter().flat_map(|(registry, repositories)| {
            let each = repositories.iter();
            each.map(|(repository, place)| (registry.as_str(), repository.as_str(), place.spent))
        })
    }

    /// What is still to be written, which then counts as written.
    fn since(&mut self) -> Vec<SpentOn> {
        let mut since = Vec::new();
        for (registry, repositories) in &mut self.registries {
            for (repository, place) in repositories {
                let more = place.spent.since(std::mem::replace(&mut place.written, place.spent));
                if more != Spent::default() {
                    since.push(more.told(registry, repository));
                }
            }
        }
        self.unwritten = false;
        since
    }

    /// All of it, the least of each registry as one; it then counts as written.
    fn all(&mut self) -> Vec<SpentOn> {
        self.since();
        let mut each: Vec<_> = self.each().collect();
        each.sort_by_key(|(.., spent)| std::cmp::Reverse((spent.counted, spent.given, spent.requests)));
        let mut others: BTreeMap<&str, Spent> = BTreeMap::new();
        for (registry, _, spent) in each.iter().skip(MOST_WRITTEN) {
            others.entry(registry).or_default().add(*spent);
        }
        each.truncate(MOST_WRITTEN);
        let others = others.into_iter().map(|(registry, spent)| (registry, OTHERS, spent));
        each.into_iter()
            .chain(others.take(MOST_WRITTEN))
            .map(|(registry, repository, spent)| spent.told(registry, repository))
            .collect()
    }

    /// What is to be added to. What is there already is found without making anything.
    fn of(&mut self, registry: &str, repository: &str) -> Option<&mut Place> {
        let known = self.registries.get(registry).is_some_and(|of| of.contains_key(repository));
        let (registry, repository) = match known || self.repositories < MOST_REPOSITORIES {
            true => (registry, repository),
            false => (OTHERS, OTHERS),
        };
        if !self.registries.get(registry).is_some_and(|of| of.contains_key(repository)) {
            let repositories = self.registries.entry(registry.to_owned()).or_default();
            repositories.insert(repository.to_owned(), Place::default());
            self.repositories += 1;
        }
        self.registries.get_mut(registry).and_then(|of| of.get_mut(repository))
    }
}

impl Spending {
    pub(super) fn sent(&mut self, request: &v1::UpstreamRequest, at: SystemTime) {
        // The clock was set back by hours: what was told of the future is no use any more.
        if self.spans.back().is_some_and(|(newest, _)| *newest > number(at) + MOST_SPANS) {
            self.spans.clear();
        }
        let v1::UpstreamRequest { registry, repository, counted, by_operator, .. } = request;
        let (counted, by_operator) = (u64::from(*counted), u64::from(*counted && *by_operator));
        let sent = Spent { requests: 1, counted, by_operator, ..Spent::default() };
        self.spend(registry, repository, sent, at);
    }

    /// More was spent on a repository, or given.
    pub(super) fn spend(&mut self, registry: &str, repository: &str, more: Spent, at: SystemTime) {
        if let Some(places) = self.at(at) {
            places.unwritten = true;
            if let Some(place) = places.of(registry, repository) {
                place.spent.add(more);
            }
        }
    }

    /// Takes up what was written.
    pub(super) fn take_up(&mut self, span: SpentSpan) {
        let Some(Ok(at)) = span.at.map(SystemTime::try_from) else { return };
        let Some(places) = self.at(at) else { return };
        for SpentOn { registry, repository, requests, counted, given, downloaded_bytes, by_operator } in
            span.on
        {
            if let Some(place) = places.of(&registry, &repository) {
                let spent = Spent { requests, counted, by_operator, given, downloaded_bytes };
                place.spent.add(spent);
                place.written.add(spent);
            }
        }
    }

    /// What is to be written of each span: what has come since, or all of it.
    pub(super) fn write(&mut self, all: bool) -> Vec<SpentSpan> {
        let due = self.spans.iter_mut().filter(|(_, places)| all || places.unwritten);
        let told = due.map(|(number, places)| {
            let at = UNIX_EPOCH + Duration::from_secs(number.saturating_mul(SPAN.as_secs()));
            SpentSpan { at: Some(at.into()), on: if all { places.all() } else { places.since() } }
        });
        told.collect()
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
    fn at(&mut self, at: SystemTime) -> Option<&mut Places> {
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
        self.spans.get_mut(place).map(|(_, places)| places)
    }
}

fn number(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SPAN.as_secs()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::journal::SumsLine;
    use super::*;

    fn at(minutes: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 * 300 + minutes * 60)
    }

    fn sent(registry: &str, repository: &str, counted: bool) -> v1::UpstreamRequest {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        v1::UpstreamRequest { registry, repository, counted, ..Default::default() }
    }

    #[test]
    fn only_the_last_six_hours_count() {
        let mut spending = Spending::default();
        for minutes in [0, 100, 400] {
            spending.sent(&sent("docker.io", "library/nginx", minutes == 100), at(minutes));
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
        spending.sent(&sent("docker.io", "a/b", true), at(100_000));
        spending.sent(&sent("docker.io", "a/b", true), at(0));
        spending.sent(&sent("docker.io", "a/b", false), at(1));
        let sums = spending.within(SPENT_WITHIN, at(1));
        assert_eq!(
            sums.get(&("docker.io", "a/b")),
            Some(&Spent { requests: 2, counted: 1, ..Spent::default() })
        );
    }

    #[test]
    fn what_was_spent_is_written_once_and_found_again() {
        let mut spending = Spending::default();
        let spent = |given, downloaded_bytes| Spent { given, downloaded_bytes, ..Spent::default() };
        let on = |spans: &[SpentSpan]| spans.iter().map(|span| span.on.clone()).collect::<Vec<_>>();
        spending.spend("docker.io", "a/b", spent(1, 0), at(0));
        spending.spend("docker.io", "a/b", spent(1, 70), at(1));
        let first = spending.write(false);
        assert_eq!(on(&first), [[spent(2, 70).told("docker.io", "a/b")]]);
        assert_eq!(spending.write(false), []);
        spending.spend("docker.io", "a/b", spent(1, 0), at(1));
        spending.spend("docker.io", "a/c", spent(0, 5), at(7));
        let second = spending.write(false);
        assert_eq!(
            on(&second),
            [[spent(1, 0).told("docker.io", "a/b")], [spent(0, 5).told("docker.io", "a/c")]]
        );

        let all = spending.write(true);
        let of = |lines: Vec<SpentSpan>| {
            let mut again = Spending::default();
            lines.into_iter().for_each(|line| again.take_up(line));
            assert_eq!(again.write(false), [], "it is written already");
            again.within(SPENT_WITHIN, at(8)).get(&("docker.io", "a/b")).copied()
        };
        assert_eq!(of([first, second].concat()), Some(spent(3, 70)));
        assert_eq!(of(all), Some(spent(3, 70)));
    }

    #[test]
    fn what_commands_of_the_operator_were_counted_for_is_told_apart_and_kept() {
        let mut spending = Spending::default();
        for (counted, by_operator) in [(true, true), (true, false), (false, true)] {
            let request = v1::UpstreamRequest { by_operator, ..sent("docker.io", "library/nginx", counted) };
            spending.sent(&request, at(0));
        }
        let nginx = |spending: &Spending| {
            spending.within(SPENT_WITHIN, at(1)).get(&("docker.io", "library/nginx")).copied()
        };
        let spent = Some(Spent { requests: 3, counted: 2, by_operator: 1, ..Spent::default() });
        assert_eq!(nginx(&spending), spent);
        let mut again = Spending::default();
        spending.write(false).into_iter().for_each(|span| again.take_up(span));
        assert_eq!(nginx(&again), spent);
    }

    #[test]
    fn all_that_was_spent_has_a_bound_when_it_is_written() {
        let mut spending = Spending::default();
        for minutes in 0..400 {
            for number in 0..MOST_WRITTEN + 9 {
                let repository = format!("{number}/{}", "x".repeat(240));
                spending.sent(&sent("docker.io", &repository, true), at(minutes));
            }
        }
        let all = SumsLine { all: true, spent: spending.write(true), answered: Vec::new() };
        assert!(all.encoded_len() < 4 << 20, "{}", all.encoded_len());
        let counted = all.spent.iter().flat_map(|span| &span.on).map(|on| on.counted).sum::<u64>();
        let sums = spending.within(Duration::MAX, at(400));
        assert_eq!(counted, sums.values().map(|spent| spent.counted).sum::<u64>());
    }

    #[test]
    fn a_span_tells_only_so_many_repositories_apart() {
        let mut spending = Spending::default();
        for number in 0..2000 {
            spending.sent(&sent("docker.io", &format!("a/{number}"), true), at(0));
        }
        let sums = spending.within(SPENT_WITHIN, at(0));
        assert_eq!(sums.len(), MOST_REPOSITORIES + 1);
        assert_eq!(sums.values().map(|spent| spent.counted).sum::<u64>(), 2000);
    }
}
