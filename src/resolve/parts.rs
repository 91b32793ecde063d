//! A blob in parts: which are still to be fetched, and whether one more connection pays.
//!
//! Pure: sees no connection and no clock. Whoever fetches says what has come and when it looked.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// How often it is looked at how fast a blob comes.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(400);

/// A blob that is here within this many looks needs no second connection: asking for it takes longer.
const WORTH_LOOKS: u64 = 5;

/// The least and the most bytes of a part, and how many parts there are in between: each costs a request, and what
/// comes of it is hashed only when its turn has come.
const LEAST_PART: u64 = 8 << 20;
const MOST_PART: u64 = 64 << 20;
const PARTS: u64 = 32;

/// What is to be fetched of a blob of which one connection brings everything, until others take parts of it.
#[derive(Debug)]
pub(super) struct Parts {
    /// Where the first connection stops: at the end, or where others have begun.
    first_end: u64,
    todo: VecDeque<Range<u64>>,
    was_split: bool,
    /// Whether a connection gave back what it was to bring.
    was_refused: bool,
    /// How many connections are to end when they are done with their part.
    surplus: usize,
}

impl Parts {
    /// All of it is the first connection's; `total` is `u64::MAX` where nobody knows it.
    pub(super) fn new(total: u64) -> Self {
        Self { first_end: total, todo: VecDeque::new(), was_split: false, was_refused: false, surplus: 0 }
    }

    /// Where the first connection stops for now.
    pub(super) fn first_end(&self) -> u64 {
        self.first_end
    }

    /// Cuts what the first connection has not come to, at this offset, into parts for others, and leaves it one of its
    /// own. Whether there are any.
    pub(super) fn split(&mut self, at: u64) -> bool {
        let part = (self.first_end / PARTS).clamp(LEAST_PART, MOST_PART);
        let total = self.first_end;
        let Some(start) = at.checked_add(part).filter(|start| *start < total) else { return false };
        self.first_end = start;
        self.was_split = true;
        let mut start = start;
        while start < total {
            let end = start.saturating_add(part).min(total);
            self.todo.push_back(start..end);
            start = end;
        }
        true
    }

    /// Whether there have been parts for others.
    pub(super) fn is_split(&self) -> bool {
        self.was_split
    }

    /// The next part for a connection that may be one too many.
    pub(super) fn next_for_another(&mut self) -> Option<Range<u64>> {
        if self.surplus > 0 {
            self.surplus -= 1;
            return None;
        }
        self.todo.pop_front()
    }

    /// The next part for one that may not.
    pub(super) fn next(&mut self) -> Option<Range<u64>> {
        self.todo.pop_front()
    }

    /// What the first connection brings next once it has come to its end, without anybody being asked anew: the next
    /// part, where that begins right there. Where another could not bring its part, the first one reads on to whatever
    /// is missing further on: its registry may answer nobody else. It does not go back.
    pub(super) fn goes_on(&mut self) -> Option<Range<u64>> {
        let follows = |part: &Range<u64>| {
            part.start == self.first_end || (self.was_refused && part.start > self.first_end)
        };
        let place = self.todo.iter().position(follows)?;
        let part = self.todo.remove(place)?;
        self.first_end = part.end;
        Some(part)
    }

    /// Takes back what a connection could not bring.
    pub(super) fn give_back(&mut self, rest: Range<u64>) {
        self.was_refused = true;
        let place = self.todo.partition_point(|part| part.start < rest.start);
        self.todo.insert(place, rest);
    }

    /// One connection is to end.
    pub(super) fn one_less(&mut self) {
        self.surplus += 1;
    }
}

/// How many connections a blob gets: one more as long as the last one brought more bytes.
#[derive(Debug)]
pub(super) struct Gain {
    most: usize,
    lines: usize,
    /// How many have been seen to pay.
    paying: usize,
    /// How many bytes came between two looks before the last one was added.
    before: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has just begun, or one was just added: what came meanwhile says little.
    Beginning,
    Watching,
    Settled,
}

/// What to do after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on as it is.
    Stay,
    /// Add so many connections.
    Add(usize),
    /// The last one brought nothing: end one.
    Drop,
}

impl Gain {
    /// For one connection that has just begun, and at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, lines: 1, paying: 1, before: 0, state: State::Watching }
    }

    /// So many bytes came since the last look, and so many are missing. `known` is how many connections paid for this
    /// registry a while ago.
    pub(super) fn look(&mut self, came: u64, missing: u64, known: Option<usize>) -> Next {
        match self.state {
            State::Settled => return Next::Stay,
            State::Beginning => {
                self.state = State::Watching;
                return Next::Stay;
            }
            State::Watching => {}
        }
        if self.lines > self.paying {
            // At least half of what they would bring if they brought as much as those before them.
            let more = (self.lines - self.paying) as u64;
            let due = self.before + self.before * more / (2 * self.paying as u64);
            if came < due {
                self.state = State::Settled;
                return Next::Drop;
            }
            self.paying = self.lines;
        }
        let wanted = match known {
            Some(known) => known.min(self.most),
            None => self.most,
        };
        if self.lines >= wanted {
            self.state = State::Settled;
            return Next::Stay;
        }
        if came == 0 || missing / WORTH_LOOKS < came || missing < 2 * LEAST_PART {
            return Next::Stay;
        }
        let more = known.map_or(1, |_| wanted - self.lines);
        self.before = came;
        self.lines += more;
        self.state = State::Beginning;
        Next::Add(more)
    }

    /// A connection could not bring its part: no more of them.
    pub(super) fn gave_up(&mut self) {
        self.lines = self.lines.saturating_sub(1).max(1);
        self.paying = self.paying.min(self.lines);
        self.state = State::Settled;
    }

    /// How many connections have paid, once that is certain.
    pub(super) fn learned(&self) -> Option<usize> {
        (self.state == State::Settled).then_some(self.paying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_connection_is_added_while_the_last_one_paid() {
        let mut gain = Gain::new(4);
        let missing = 1000 * MIB;
        assert_eq!(gain.look(8 * MIB, missing, None), Next::Add(1));
        assert_eq!(gain.look(9 * MIB, missing, None), Next::Stay, "it has just begun");
        assert_eq!(gain.look(15 * MIB, missing, None), Next::Add(1));
        assert_eq!(gain.look(15 * MIB, missing, None), Next::Stay);
        assert_eq!(gain.learned(), None);
        assert_eq!(gain.look(16 * MIB, missing, None), Next::Drop, "the third brought nothing");
        assert_eq!(gain.learned(), Some(2));
        assert_eq!(gain.look(16 * MIB, missing, None), Next::Stay);
    }

    #[test]
    fn there_are_never_more_than_allowed_and_none_where_it_is_not_worth_it() {
        let mut one = Gain::new(1);
        assert_eq!(one.look(MIB, 1000 * MIB, None), Next::Stay);
        let mut fast = Gain::new(4);
        assert_eq!(fast.look(100 * MIB, 400 * MIB, None), Next::Stay, "it will be here in a moment");
        assert_eq!(fast.look(MIB, 10 * MIB, None), Next::Stay, "it is too small");
        assert_eq!(fast.look(0, 1000 * MIB, None), Next::Stay, "nothing comes at all");
        let mut gain = Gain::new(2);
        assert_eq!(gain.look(MIB, 1000 * MIB, None), Next::Add(1));
        gain.look(MIB, 1000 * MIB, None);
        assert_eq!(gain.look(2 * MIB, 1000 * MIB, None), Next::Stay);
        assert_eq!(gain.learned(), Some(2));
    }

    #[test]
    fn what_paid_a_while_ago_is_done_at_once() {
        assert_eq!(Gain::new(4).look(MIB, 1000 * MIB, Some(3)), Next::Add(2));
        assert_eq!(Gain::new(4).look(MIB, 1000 * MIB, Some(1)), Next::Stay);
        assert_eq!(Gain::new(2).look(MIB, 1000 * MIB, Some(4)), Next::Add(1));
    }

    #[test]
    fn the_parts_are_all_that_the_first_connection_does_not_bring() {
        let total = 100 * MIB + 7;
        let mut parts = Parts::new(total);
        assert!(parts.split(10 * MIB));
        let mut at = parts.first_end();
        assert_eq!(at, 18 * MIB);
        let mut given_back = false;
        while let Some(part) = parts.next() {
            assert_eq!(part.start, at);
            if !given_back {
                given_back = true;
                parts.give_back(part);
                continue;
            }
            at = part.end;
        }
        assert_eq!(at, total);
        assert_eq!(parts.goes_on(), None);
    }

    #[test]
    fn a_first_connection_that_nobody_helps_goes_on() {
        let mut parts = Parts::new(64 * MIB);
        assert!(parts.split(0));
        let taken = parts.next_for_another().unwrap();
        parts.give_back(taken);
        while parts.goes_on().is_some() {}
        assert_eq!((parts.first_end(), parts.next()), (64 * MIB, None));
    }

    #[test]
    fn a_first_connection_reads_on_over_what_others_brought_once_they_bring_no_more() {
        let mut parts = Parts::new(64 * MIB);
        parts.split(0);
        let brought = parts.next_for_another().unwrap();
        assert_eq!(parts.goes_on(), None);
        let refused = parts.next_for_another().unwrap();
        parts.give_back(refused.clone());
        assert_eq!(refused.start, brought.end);
        assert_eq!(parts.goes_on(), Some(refused));
    }

    #[test]
    fn a_first_connection_leaves_to_others_what_it_has_read_past() {
        let mut parts = Parts::new(100 * MIB);
        parts.split(0);
        let (early, refused) = (parts.next_for_another().unwrap(), parts.next_for_another().unwrap());
        parts.give_back(refused.clone());
        assert_eq!(parts.goes_on(), Some(refused.clone()));
        parts.give_back(early.clone());
        let further = parts.goes_on().unwrap();
        assert_eq!(further.start, refused.end);
        assert_eq!(parts.next_for_another(), Some(early));
    }

    #[test]
    fn what_is_nearly_here_is_not_split() {
        let mut parts = Parts::new(20 * MIB);
        assert!(!parts.split(12 * MIB));
        assert_eq!((parts.first_end(), parts.next()), (20 * MIB, None));
    }

    #[test]
    fn one_too_many_ends_after_its_part() {
        let mut parts = Parts::new(64 * MIB);
        parts.split(0);
        parts.one_less();
        assert_eq!(parts.next_for_another(), None);
        assert!(parts.next_for_another().is_some());
    }
}
