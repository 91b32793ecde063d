//! One gate: whether requests of one kind may go to one upstream just now.
//!
//! A pure value that is told what came of each request and what time it is. It shuts where the upstream said that too
//! much was asked, or where it failed again and again; each time in a row for longer. Once its time is over it lets
//! one request try, and opens by that one's success. Invariant: while it is shut, at most one request is through.

use std::fmt;
use std::time::{Duration, Instant};

/// How many failures in a row that cost nobody time shut a gate.
const FAILURES: u32 = 5;

/// The first pause after failures in a row, and after a request that timed out.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const FIRST_PAUSE_OF_WAITS: Duration = Duration::from_secs(5);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The first and the longest pause after a limit that did not say for how long.
const FIRST_PAUSE_OF_LIMITS: Duration = Duration::from_secs(60);
const LONGEST_PAUSE_OF_LIMITS: Duration = Duration::from_secs(60 * 60);

/// How long a request that tries a shut gate may take before another one does.
const TRY: Duration = Duration::from_secs(30);

/// Why a gate is shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Too much was asked.
    Limited,
    /// It failed.
    Failing,
    /// As much as may be is coming from it already.
    Busy,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limited => "its limit is reached",
            Self::Failing => "it failed again and again",
            Self::Busy => "enough is coming from it at once already",
        })
    }
}

/// What came of a request, as far as its gate is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer, whatever it said.
    Answered,
    /// The limit is reached, for so long if it said so.
    Limited(Option<Duration>),
    /// Trouble, known at once; for so long if it said so.
    Failed(Option<Duration>),
    /// Somebody waited in vain.
    TimedOut,
    /// The request was given up before it came to anything.
    Dropped,
}

/// A request's way through its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The gate was open.
    Open,
    /// It was shut and this is the one that tries.
    Trying,
}

/// That a gate is shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shut {
    pub(super) because: Because,
    /// How long it stays so, at least.
    pub(super) opens_in: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open { failures: u32, failed_at: Option<Instant>, answered_at: Option<Instant> },
    Shut { because: Because, until: Instant, pause: Duration, tried_at: Option<Instant> },
}

impl Default for Gate {
    fn default() -> Self {
        Self::Open { failures: 0, failed_at: None, answered_at: None }
    }
}

impl Gate {
    /// Whether a request would be let through.
    pub(super) fn state(&self, now: Instant) -> Result<Pass, Shut> {
        match *self {
            Self::Open { .. } => Ok(Pass::Open),
            Self::Shut { because, until, tried_at, .. } => {
                let trying = tried_at.map(|at| at + TRY).filter(|until| now < *until);
                match trying {
                    // How that one ends is not known: a while is a guess.
                    Some(_) => Err(Shut { because, opens_in: FIRST_PAUSE }),
                    None if now < until => Err(Shut { because, opens_in: until - now }),
                    None => Ok(Pass::Trying),
                }
            }
        }
    }

    /// Lets a request through, or not.
    pub(super) fn enter(&mut self, now: Instant) -> Result<Pass, Shut> {
        let pass = self.state(now)?;
        if let (Pass::Trying, Self::Shut { tried_at, .. }) = (pass, &mut *self) {
            *tried_at = Some(now);
        }
        Ok(pass)
    }

    /// Learns from what came of a request that was let through when it `began`. Failures of requests that were under way
    /// at the same time are one.
    pub(super) fn learn(&mut self, pass: Pass, outcome: Outcome, began: Instant, now: Instant) {
        if let (Self::Shut { because, .. }, Pass::Open) = (&*self, pass) {
            // It left before the gate shut: what others have met since is newer, but an answer is a sign of life.
            if (*because, outcome) == (Because::Failing, Outcome::Answered) {
                *self = Self::default();
            }
            return;
        }
        *self = match outcome {
            Outcome::Answered => Self::Open { failures: 0, failed_at: None, answered_at: Some(now) },
            // It has answered somebody else meanwhile.
            Outcome::TimedOut | Outcome::Failed(None) if self.has_answered_since(began) => return,
            Outcome::Dropped => {
                if let Self::Shut { tried_at, .. } = self {
                    *tried_at = None;
                }
                return;
            }
            Outcome::Limited(said) => {
                let pause = said.unwrap_or_else(|| {
                    self.next(Because::Limited, FIRST_PAUSE_OF_LIMITS, LONGEST_PAUSE_OF_LIMITS)
                });
                Self::shut(Because::Limited, pause, now)
            }
            Outcome::TimedOut => Self::shut(
                Because::Failing,
                self.next(Because::Failing, FIRST_PAUSE_OF_WAITS, LONGEST_PAUSE),
                now,
            ),
            Outcome::Failed(Some(said)) => Self::shut(Because::Failing, said.min(LONGEST_PAUSE), now),
            Outcome::Failed(None) => match *self {
                Self::Open { failed_at: Some(at), .. } if began < at => return,
                Self::Open { failures, answered_at, .. } if failures + 1 < FAILURES => {
                    Self::Open { failures: failures + 1, failed_at: Some(now), answered_at }
                }
                Self::Open { .. } | Self::Shut { .. } => {
                    Self::shut(Because::Failing, self.next(Because::Failing, FIRST_PAUSE, LONGEST_PAUSE), now)
                }
            },
        };
    }

    /// Lets no more than one request through at a time, although none was refused: there may be nothing left.
    pub(super) fn narrow(&mut self, now: Instant) {
        if let Self::Open { .. } = self {
            let pause = Duration::ZERO;
            *self = Self::Shut { because: Because::Limited, until: now, pause, tried_at: None };
        }
    }

    /// Opens it, for a reason of its own.
    pub(super) fn open(&mut self) {
        *self = Self::default();
    }

    fn has_answered_since(&self, moment: Instant) -> bool {
        match self {
            Self::Open { answered_at: Some(at), .. } => moment < *at,
            Self::Open { answered_at: None, .. } | Self::Shut { .. } => false,
        }
    }

    fn shut(because: Because, pause: Duration, now: Instant) -> Self {
        Self::Shut { because, until: now + pause, pause, tried_at: None }
    }

    /// The pause after the one that has just been in vain.
    fn next(&self, why: Because, first: Duration, longest: Duration) -> Duration {
        match *self {
            Self::Shut { because, pause, .. } if because == why => (pause * 2).clamp(first, longest),
            Self::Shut { .. } | Self::Open { .. } => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn opens_in(gate: &Gate, now: Instant) -> Option<u64> {
        gate.state(now).err().map(|shut| shut.opens_in.as_secs())
    }

    fn fail(gate: &mut Gate, outcome: Outcome, now: Instant) {
        let pass = gate.enter(now).unwrap();
        gate.learn(pass, outcome, now, now);
    }

    #[test]
    fn failures_in_a_row_shut_it_and_a_success_between_them_does_not() {
        let (mut gate, now) = (Gate::default(), clock::instant());
        for _ in 0..FAILURES - 1 {
            fail(&mut gate, Outcome::Failed(None), now);
        }
        gate.learn(Pass::Open, Outcome::Answered, now, now);
        for _ in 0..FAILURES - 1 {
            fail(&mut gate, Outcome::Failed(None), now);
        }
        assert_eq!(gate.state(now), Ok(Pass::Open));
        fail(&mut gate, Outcome::Failed(None), now);
        assert_eq!(gate.state(now), Err(Shut { because: Because::Failing, opens_in: SECOND }));
    }

    #[test]
    fn a_burst_of_failures_is_one() {
        let (mut gate, now) = (Gate::default(), clock::instant());
        for _ in 0..50 {
            gate.learn(Pass::Open, Outcome::Failed(None), now, now + SECOND);
        }
        assert_eq!(gate.state(now + SECOND), Ok(Pass::Open));
    }

    #[test]
    fn one_request_tries_it_and_each_one_in_vain_doubles_the_pause() {
        for (outcome, pauses) in [
            (Outcome::Failed(None), [1, 2, 4, 8, 16, 32, 60, 60].as_slice()),
            (Outcome::TimedOut, &[5, 10, 20, 40, 60, 60]),
            (Outcome::Limited(None), &[60, 120, 240, 480, 960, 1920, 3600, 3600]),
            (Outcome::Limited(Some(7 * SECOND)), &[7, 7, 7]),
        ] {
            let (mut gate, mut now) = (Gate::default(), clock::instant());
            while gate.state(now).is_ok() {
                fail(&mut gate, outcome, now);
            }
            for pause in pauses {
                assert_eq!(opens_in(&gate, now), Some(*pause), "{outcome:?}");
                now += Duration::from_secs(*pause);
                assert_eq!(gate.enter(now), Ok(Pass::Trying));
                assert!(gate.enter(now).is_err(), "a second one tries");
                gate.learn(Pass::Trying, outcome, now, now);
            }
            now += LONGEST_PAUSE_OF_LIMITS;
            assert_eq!(gate.enter(now), Ok(Pass::Trying));
            gate.learn(Pass::Trying, Outcome::Answered, now, now);
            assert_eq!(gate.state(now), Ok(Pass::Open));
        }
    }

    #[test]
    fn a_wait_in_vain_counts_for_nothing_where_others_were_answered_meanwhile() {
        let (mut gate, now) = (Gate::default(), clock::instant());
        gate.learn(Pass::Open, Outcome::Answered, now + SECOND, now + 2 * SECOND);
        gate.learn(Pass::Open, Outcome::TimedOut, now, now + 10 * SECOND);
        assert_eq!(gate.state(now + 10 * SECOND), Ok(Pass::Open));
        gate.learn(Pass::Open, Outcome::TimedOut, now + 3 * SECOND, now + 13 * SECOND);
        assert!(gate.state(now + 13 * SECOND).is_err());
    }

    #[test]
    fn narrowed_it_lets_one_through_at_a_time() {
        let (mut gate, now) = (Gate::default(), clock::instant());
        gate.narrow(now);
        assert_eq!(gate.enter(now), Ok(Pass::Trying));
        assert!(gate.enter(now).is_err());
        gate.narrow(now);
        assert!(gate.enter(now).is_err());
        gate.learn(Pass::Trying, Outcome::Limited(None), now, now);
        assert_eq!(opens_in(&gate, now), Some(60));
    }

    #[test]
    fn what_left_before_it_shut_changes_nothing_unless_it_is_a_sign_of_life() {
        let (mut gate, now) = (Gate::default(), clock::instant());
        let early = gate.enter(now).unwrap();
        fail(&mut gate, Outcome::Limited(Some(10 * SECOND)), now);
        let shut = gate;
        for outcome in
            [Outcome::Answered, Outcome::TimedOut, Outcome::Limited(Some(SECOND)), Outcome::Dropped]
        {
            gate.learn(early, outcome, now, now + SECOND);
            assert_eq!(gate, shut);
        }
        let mut gate = Gate::default();
        fail(&mut gate, Outcome::TimedOut, now);
        gate.learn(early, Outcome::Answered, now, now);
        assert_eq!(gate.state(now), Ok(Pass::Open));
    }

    #[test]
    fn one_that_tries_and_is_given_up_leaves_its_place_to_another() {
        let (mut gate, now) = (Gate::default(), clock::instant());
        fail(&mut gate, Outcome::TimedOut, now);
        let later = now + 6 * SECOND;
        assert_eq!(gate.enter(later), Ok(Pass::Trying));
        gate.learn(Pass::Trying, Outcome::Dropped, later, later);
        assert_eq!(gate.enter(later), Ok(Pass::Trying));
        // One that is never heard of again is not waited for without an end.
        assert!(gate.enter(later + TRY - SECOND).is_err());
        assert_eq!(gate.enter(later + TRY), Ok(Pass::Trying));
    }
}
