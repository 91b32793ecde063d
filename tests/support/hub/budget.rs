//! What each source has spent of its limit. Pure: the time and the limit are handed in; whether a request is one
//! that counts was decided before.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::config::Drops;

/// The spending of every source in its present window.
#[derive(Default)]
pub(super) struct Budgets {
    by_source: BTreeMap<String, Window>,
    /// What a source not met before finds left, where a test has said so.
    preset: Option<i64>,
}

struct Window {
    began: Instant,
    gets: u64,
    /// What was left when the window began.
    grant: i64,
}

/// The rules by which a source is charged.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) limit: u64,
    pub(super) window: Duration,
    pub(super) late_by: u64,
    pub(super) drops: Drops,
}

impl Budgets {
    /// Charges one GET, or says that nothing is left.
    pub(super) fn spend(&mut self, source: &str, terms: Terms, now: Instant) -> Result<(), Spent> {
        let late_by = i64::try_from(terms.late_by).unwrap_or(i64::MAX);
        if self.remaining(source, terms, now).saturating_add(late_by) <= 0 {
            return Err(Spent { retry_after: self.window_left(source, terms, now) });
        }
        self.window(source, terms, now).gets += 1;
        Ok(())
    }

    /// What the header tells: below zero where the limit is enforced late.
    pub(super) fn remaining(&mut self, source: &str, terms: Terms, now: Instant) -> i64 {
        let window = self.window(source, terms, now);
        let drops = match terms.drops {
            Drops::EveryGet => window.gets,
            Drops::EverySecondGet => window.gets / 2,
        };
        window.grant - i64::try_from(drops).unwrap_or(i64::MAX)
    }

    /// From now on every source finds this much left, until its window ends.
    pub(super) fn preset(&mut self, remaining: i64) {
        self.by_source.clear();
        self.preset = Some(remaining);
    }

    /// Every source starts a new, full window.
    pub(super) fn refill(&mut self) {
        self.by_source.clear();
        self.preset = None;
    }

    fn window_left(&mut self, source: &str, terms: Terms, now: Instant) -> Duration {
        let began = self.window(source, terms, now).began;
        terms.window.saturating_sub(now.saturating_duration_since(began))
    }

    fn window(&mut self, source: &str, terms: Terms, now: Instant) -> &mut Window {
        let full = i64::try_from(terms.limit).unwrap_or(i64::MAX);
        let preset = self.preset;
        let window = self.by_source.entry(source.to_owned()).or_insert_with(|| Window {
            began: now,
            gets: 0,
            grant: preset.unwrap_or(full),
        });
        if window.gets == 0 && window.grant == full {
            window.began = now;
        } else if now.saturating_duration_since(window.began) >= terms.window {
            *window = Window { began: now, gets: 0, grant: full };
        }
        window
    }
}

/// Nothing is left.
pub(super) struct Spent {
    /// Until the window ends.
    pub(super) retry_after: Duration,
}

/// What an address is charged as: itself, or its /64 where it is an IPv6 address.
pub(super) fn source_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            std::net::Ipv6Addr::from_bits(network).to_string()
        }
    }
}
