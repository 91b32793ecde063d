//! What registries say of their pull limits, and what that comes to.
//!
//! The number lags behind and may be wrong (see the headers `ratelimit-*`), and others behind the same address spend of
//! it too: so the forecast goes by what the registry says is left, not by what was spent here.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::spending::{SPENT_WITHIN, Spending};
use crate::proto::v1;

/// How many registries' limits are remembered, how many of each, and how many readings of one.
const MOST_REGISTRIES: usize = 256;
const MOST_LIMITS: usize = 16;
const MOST_READINGS: usize = 64;

/// How far apart readings are that are remembered, but for the last one.
const APART: Duration = Duration::from_secs(60);

/// How many repositories of a registry are named that something was spent on: usually; and, where all are wanted, of all
/// registries together, which is what a message has room for.
const USUAL_SPENDERS: usize = 50;
const MOST_SPENDERS: usize = 10_000;

/// The pace is what was spent in this time: images come in bursts.
const PACE_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What a registry said was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    source: String,
    remaining: i64,
    limit: Option<i64>,
    window: Option<Duration>,
    at: SystemTime,
}

impl Left {
    /// What the answer to a request said.
    pub(super) fn of(request: &v1::UpstreamRequest) -> Option<Self> {
        Some(Self {
            source: request.source.clone(),
            remaining: request.remaining?,
            limit: request.limit,
            window: request.window.and_then(|window| window.try_into().ok()),
            at: request.at?.try_into().ok()?,
        })
    }
}

impl Left {
    /// When another window has begun, of which nothing was said.
    fn good_until(&self) -> SystemTime {
        self.at.checked_add(self.window.unwrap_or(SPENT_WITHIN)).unwrap_or(self.at)
    }
}

/// The limits of each registry, by whose they are.
#[derive(Default)]
pub(super) struct Limits(BTreeMap<String, BTreeMap<String, Readings>>);

struct Readings {
    last: Left,
    /// Of the window that is running, the oldest first.
    remaining: VecDeque<(SystemTime, i64)>,
}

impl Limits {
    pub(super) fn read(&mut self, registry: &str, left: Left) {
        let full = self.0.len() >= MOST_REGISTRIES && !self.0.contains_key(registry);
        let limits = if full { return } else { self.0.entry(registry.to_owned()).or_default() };
        if limits.len() >= MOST_LIMITS && !limits.contains_key(&left.source) {
            let oldest = limits.iter().min_by_key(|(_, readings)| readings.last.at);
            if let Some(oldest) = oldest.map(|(source, _)| source.clone()) {
                limits.remove(&oldest);
            }
        }
        match limits.get_mut(&left.source) {
            Some(readings) => readings.add(left),
            None => {
                let remaining = VecDeque::from([(left.at, left.remaining)]);
                limits.insert(left.source.clone(), Readings { last: left, remaining });
            }
        }
    }

    fn of(&self, registry: &str, now: SystemTime) -> Vec<v1::Limit> {
        let readings = self.0.get(registry).into_iter().flat_map(BTreeMap::values);
        let good = readings.filter(|readings| readings.last.good_until() > now);
        let mut limits: Vec<_> = good.map(|readings| readings.told(now)).collect();
        limits.sort_by_key(|limit| std::cmp::Reverse(limit.read_at.map(|at| (at.seconds, at.nanos))));
        limits
    }
}

impl Readings {
    fn add(&mut self, left: Left) {
        let more_than_before = self.remaining.back().is_some_and(|(_, before)| left.remaining > *before);
        if more_than_before {
            self.remaining.clear();
        }
        // Requests that ran side by side come to their end in any order.
        if self.remaining.back().is_none_or(|(at, _)| *at <= left.at) {
            self.remaining.push_back((left.at, left.remaining));
            self.thin_out();
        }
        let more = self.remaining.len().saturating_sub(MOST_READINGS);
        self.remaining.drain(..more);
        // Not one that was only late; one of a clock that was set right is the latest.
        if left.at + PACE_WITHIN < self.last.at {
            self.remaining = VecDeque::from([(left.at, left.remaining)]);
            self.last = left;
        } else if left.at >= self.last.at {
            self.last = left;
        }
    }

    /// Drops the last but one where the one before it is hardly older: one a minute is enough, and then they reach back
    /// for an hour.
    fn thin_out(&mut self) {
        if let [.., (before, _), (last_but_one, _), _] = self.remaining.make_contiguous()
            && last_but_one.duration_since(*before).is_ok_and(|apart| apart < APART)
        {
            self.remaining.remove(self.remaining.len() - 2);
        }
    }

    fn told(&self, now: SystemTime) -> v1::Limit {
        let Left { source, remaining, limit, window, at } = &self.last;
        let spent = limit.is_none_or(|limit| *remaining < limit);
        let returns_at = window.filter(|_| spent).map(|window| *at + window);
        v1::Limit {
            source: source.clone(),
            remaining: *remaining,
            limit: *limit,
            window: window.and_then(|window| window.try_into().ok()),
            read_at: Some((*at).into()),
            runs_out_at: runs_out_at(&self.remaining, *window, now).map(Into::into),
            returns_at: returns_at.filter(|at| *at > now).map(Into::into),
        }
    }
}

/// When nothing is left, by the pace of the last hour; `None` where it lasts for the window, or nobody can tell.
fn runs_out_at(
    readings: &VecDeque<(SystemTime, i64)>,
    window: Option<Duration>,
    now: SystemTime,
) -> Option<SystemTime> {
    let young = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age <= PACE_WITHIN);
    let (_, first) = readings.iter().find(|(at, _)| young(at))?;
    let (_, last) = readings.back()?;
    let spent = u32::try_from(first - last).ok().filter(|spent| *spent > 0)?;
    let left = u32::try_from(*last).ok()?;
    let lasts = PACE_WITHIN.checked_mul(left)?.checked_div(spent)?;
    let window = window.unwrap_or(SPENT_WITHIN);
    (left > 0 && lasts < window).then(|| now.checked_add(lasts)).flatten()
}

/// Which repositories are told of by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Those of each registry on which most was spent.
    Dearest,
    /// All, as far as there is room.
    All,
}

/// What each registry, or only this one, allows, and what was spent there. Of gates nothing is known here.
pub(super) fn told(
    limits: &Limits,
    spending: &Spending,
    (only, named): (Option<&str>, Named),
    now: SystemTime,
) -> Vec<v1::RegistryBudget> {
    let mut room = MOST_SPENDERS;
    let mut budgets: BTreeMap<&str, v1::RegistryBudget> = BTreeMap::new();
    let spent = spending.within(SPENT_WITHIN, now);
    for ((registry, repository), spent) in &spent {
        let budget = budgets.entry(registry).or_default();
        budget.requests += spent.requests;
        budget.counted += spent.counted;
        budget.counted_by_operator += spent.by_operator;
        budget.counted_without += spent.given;
        budget.downloaded_bytes += spent.downloaded_bytes;
        budget.spenders.push(v1::Spender {
            repository: (*repository).to_owned(),
            requests: spent.requests,
            counted: spent.counted,
            counted_by_operator: spent.by_operator,
            counted_without: spent.given,
            downloaded_bytes: spent.downloaded_bytes,
        });
    }
    for (registry, of) in &limits.0 {
        if of.values().any(|readings| readings.last.good_until() > now) {
            budgets.entry(registry).or_default();
        }
    }
    let asked = budgets.into_iter().filter(|(registry, _)| only.is_none_or(|only| only == *registry));
    asked
        .map(|(registry, mut budget)| {
            budget.spenders.sort_by_key(|spender| {
                std::cmp::Reverse((spender.counted, spender.counted_without, spender.requests))
            });
            let most = match named {
                Named::Dearest => USUAL_SPENDERS,
                Named::All => room,
            };
            budget.others = others(budget.spenders.split_off(most.min(budget.spenders.len())));
            room -= budget.spenders.len().min(room);
            budget.limits = limits.of(registry, now);
            budget.gate_open = true;
            budget.registry = registry.to_owned();
            budget
        })
        .collect()
}

/// What was spent on these, in sum.
fn others(spenders: Vec<v1::Spender>) -> Option<v1::OtherSpenders> {
    let mut others = v1::OtherSpenders { repositories: spenders.len() as u64, ..Default::default() };
    for spender in &spenders {
        others.requests += spender.requests;
        others.counted += spender.counted;
        others.counted_by_operator += spender.counted_by_operator;
        others.counted_without += spender.counted_without;
        others.downloaded_bytes += spender.downloaded_bytes;
    }
    (!spenders.is_empty()).then_some(others)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use prost::Message as _;

    use super::*;

    fn at(minutes: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(minutes * 60)
    }

    fn left(minutes: u64, remaining: i64) -> Left {
        let window = Some(SPENT_WITHIN);
        Left { source: "192.0.2.7".to_owned(), remaining, limit: Some(100), window, at: at(minutes) }
    }

    fn limit(readings: &[(u64, i64)], now: u64) -> v1::Limit {
        let mut limits = Limits::default();
        for (minutes, remaining) in readings {
            limits.read("docker.io", left(*minutes, *remaining));
        }
        limits.of("docker.io", at(now)).remove(0)
    }

    fn time(at: Option<prost_types::Timestamp>) -> Option<u64> {
        at.map(|at| u64::try_from(at.seconds).unwrap() / 60)
    }

    #[test]
    fn the_forecast_goes_by_the_pace_of_the_last_hour() {
        // 40 in the last hour: the 60 that are left last for an hour and a half.
        let told = limit(&[(0, 100), (5, 80), (10, 60)], 20);
        assert_eq!((told.remaining, told.limit, time(told.runs_out_at)), (60, Some(100), Some(110)));
        assert_eq!(time(limit(&[(0, 100), (30, 80), (40, 60)], 70).runs_out_at), Some(250), "20 of them");
    }

    #[test]
    fn a_few_images_are_no_pace() {
        assert_eq!(limit(&[(0, 100), (0, 98)], 1).runs_out_at, None);
        assert_eq!(limit(&[(0, 100), (1, 90)], 5).runs_out_at, None);
        assert_eq!(time(limit(&[(0, 100), (1, 50)], 1).runs_out_at), Some(61), "a burst is");
        // So many that only some of them can be remembered.
        let mut limits = Limits::default();
        for (second, remaining) in (1000..3400).zip((0..8000).rev()) {
            let at = UNIX_EPOCH + Duration::from_secs(second);
            limits.read("docker.io", Left { at, ..left(0, remaining) });
        }
        let now = UNIX_EPOCH + Duration::from_secs(3400);
        // 2400 in the last hour: the 5600 that are left last for 140 minutes.
        let runs_out_at: SystemTime = limits.of("docker.io", now)[0].runs_out_at.unwrap().try_into().unwrap();
        assert_eq!(runs_out_at.duration_since(now).unwrap().as_secs() / 60, 140);
    }

    #[test]
    fn what_lasts_for_the_window_has_no_forecast() {
        assert_eq!(limit(&[(0, 90), (50, 89)], 50).runs_out_at, None);
        assert_eq!(limit(&[(0, 90)], 0).runs_out_at, None);
        assert_eq!(limit(&[(0, 90), (1, 20), (2, 95)], 2).runs_out_at, None, "it has come back");
        assert_eq!(limit(&[(0, 90), (10, 80)], 300).runs_out_at, None, "too long ago");
        assert_eq!(limit(&[(0, 5), (10, -1)], 10).runs_out_at, None, "it has run out");
    }

    #[test]
    fn a_limit_is_whole_again_a_window_after_it_was_read() {
        assert_eq!(time(limit(&[(0, 90)], 1).returns_at), Some(360));
        assert_eq!(time(limit(&[(0, 100)], 1).returns_at), None, "it is whole");
    }

    #[test]
    fn what_was_said_of_a_window_that_is_over_is_told_no_more() {
        let mut limits = Limits::default();
        limits.read("docker.io", left(0, 3));
        assert_eq!(limits.of("docker.io", at(359)).len(), 1);
        assert_eq!(limits.of("docker.io", at(360)), []);
        assert_eq!(told(&limits, &Spending::default(), (None, Named::Dearest), at(360)), []);
    }

    fn sent(registry: &str, repository: &str, counted: bool) -> v1::UpstreamRequest {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        v1::UpstreamRequest { registry, repository, counted, ..Default::default() }
    }

    #[test]
    fn the_dearest_repositories_are_named_and_the_others_told_in_sum() {
        let mut spending = Spending::default();
        for number in 0..500 {
            let repository = format!("a/{number:03}");
            spending.sent(&sent("docker.io", &repository, true), at(600));
            spending.sent(&sent("docker.io", &repository, false), at(600));
        }
        spending.sent(&sent("docker.io", "a/499", true), at(600));
        spending.sent(&sent("ghcr.io", "a/b", true), at(600));
        let told = |named| told(&Limits::default(), &spending, (None, named), at(600));
        let usual = told(Named::Dearest);
        assert_eq!((usual[0].spenders.len(), &*usual[0].spenders[0].repository), (50, "a/499"));
        let others =
            v1::OtherSpenders { repositories: 450, requests: 900, counted: 450, ..Default::default() };
        assert_eq!((usual[0].others, usual[1].others), (Some(others), None));
        let counted = usual[0].spenders.iter().map(|spender| spender.counted).sum::<u64>();
        assert_eq!(counted + others.counted, usual[0].counted);
        let all = told(Named::All);
        assert_eq!((all[0].spenders.len(), all[0].others), (500, None));
    }

    #[test]
    fn what_has_no_room_in_a_message_is_told_in_sum_too() {
        let mut spending = Spending::default();
        for number in 0..12_000 {
            let repository = format!("{number:05}/{}", "x".repeat(240));
            spending.sent(&sent("docker.io", &repository, true), at(600 + 5 * (number / 1000)));
        }
        spending.sent(&sent("ghcr.io", "a/b", true), at(659));
        let all = told(&Limits::default(), &spending, (None, Named::All), at(659));
        let others = all.iter().map(|budget| budget.others.unwrap().repositories).collect::<Vec<_>>();
        assert_eq!(others, [2000, 1]);
        let bytes = v1::BudgetResponse { registries: all }.encoded_len();
        assert!(bytes < 4 << 20, "{bytes}");
    }

    #[test]
    fn limits_are_told_apart_by_whose_they_are_and_there_are_only_so_many() {
        let mut limits = Limits::default();
        for minutes in 0..40 {
            let source = format!("account-{minutes}");
            limits.read("docker.io", Left { source, ..left(minutes, 7) });
        }
        let told = limits.of("docker.io", at(40));
        assert_eq!(told.len(), MOST_LIMITS);
        assert_eq!(told[0].source, "account-39");
    }
}
