//! The decision: what to do next about a manifest that was asked for.
//!
//! A pure function of what was asked, what is known, the time and the last reply of the registry. It asks nobody
//! and reads no clock; the [driver](super::Resolver) does what it says and comes back with the reply.

use std::time::{Duration, SystemTime};

use crate::oci::Digest;

/// What was asked for, and what the hold knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A manifest by its digest, in a repository.
    Digest {
        /// What was asked for.
        digest: Digest,
        /// Whether it can be served.
        held: Held,
    },
    /// A tag.
    Tag {
        /// What it pointed at when it was last asked about.
        last: Option<LastSeen>,
        /// For how long that is good.
        ages: Ages,
        /// Whether its registry is worth waiting for.
        gate: Gate,
    },
}

/// Whether a registry is asked although something is held that can stand in for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It is.
    Open,
    /// It left somebody waiting a moment ago.
    Shut,
}

/// Whether the bytes of a digest are here, and may be served under the repository that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Held, and the registry is known to have it in this repository.
    Here,
    /// Held, but from elsewhere: the registry has to say that this repository has it too.
    Elsewhere,
    /// Not held.
    No,
}

/// A tag as it was last confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSeen {
    /// What it pointed at.
    pub digest: Digest,
    /// When the registry said so.
    pub confirmed_at: SystemTime,
    /// Whether that manifest's bytes are still here.
    pub held: bool,
}

/// For how long what a tag pointed at may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Without asking.
    pub fresh_for: Duration,
    /// When the registry cannot be asked.
    pub stale_for: Duration,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the registry, and decide again with its reply.
    Ask(Ask),
    /// Answer with this manifest, which is held.
    Serve(Digest, Standing),
    /// There is nothing to answer with.
    Refuse(Why),
}

/// A request to the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// HEAD of what was asked for: costs nothing.
    Head,
    /// GET of what was asked for, where the registry knows no HEAD or does not say the digest.
    Get,
    /// GET of the manifest that a tag now points at.
    GetDigest(Digest),
}

/// What the registry replied to the last [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A HEAD worked and named a digest.
    Points {
        /// The digest.
        to: Digest,
        /// Whether its bytes are here.
        held: bool,
    },
    /// A HEAD worked without naming a digest, or the registry does not do HEAD.
    NoDigest,
    /// A GET worked: the manifest was verified and is kept.
    Got(Digest),
    /// The registry does not have it.
    Missing,
    /// The registry says no: 401 or 403 with the token that we could get.
    Denied,
    /// No answer of use: 429, 5xx, timeout, no route, rubbish.
    Failed,
}

/// In what way an answer was found to be good. One word, in the header, the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A digest is its own answer.
    Immutable,
    /// The tag was confirmed a short while ago.
    Fresh,
    /// The registry was asked and the tag points where it did.
    Unchanged,
    /// The registry was asked and the tag points elsewhere now.
    Changed,
    /// The registry could not be asked.
    Stale,
}

impl Standing {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immutable => "immutable",
            Self::Fresh => "fresh",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Stale => "stale",
        }
    }
}

/// Why there is nothing to answer with; the driver knows what exactly the registry said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The registry does not have it.
    Missing,
    /// The registry says no.
    Denied,
    /// The registry could not be asked, and nothing is held that could stand in.
    Failed,
}

/// The next step. It ends: a `Head` may be followed by one `Get` or `GetDigest`, and these by an answer.
pub fn decide(question: &Question, reply: Option<&Reply>, now: SystemTime) -> Step {
    match question {
        Question::Digest { digest, held } => by_digest(digest, *held, reply),
        Question::Tag { last, ages, gate } => by_tag(last.as_ref(), *ages, *gate, reply, now),
    }
}

fn by_digest(digest: &Digest, held: Held, reply: Option<&Reply>) -> Step {
    match (held, reply) {
        (Held::Here, _) => Step::Serve(digest.clone(), Standing::Immutable),
        (Held::Elsewhere, None) => Step::Ask(Ask::Head),
        (Held::No, None) => Step::Ask(Ask::Get),
        (_, Some(Reply::Got(_))) => Step::Serve(digest.clone(), Standing::Immutable),
        (Held::Elsewhere, Some(Reply::Points { to, .. })) if to == digest => {
            Step::Serve(digest.clone(), Standing::Immutable)
        }
        (_, Some(Reply::Points { .. } | Reply::NoDigest)) => Step::Ask(Ask::Get),
        (_, Some(Reply::Missing)) => Step::Refuse(Why::Missing),
        (_, Some(Reply::Denied)) => Step::Refuse(Why::Denied),
        (_, Some(Reply::Failed)) => Step::Refuse(Why::Failed),
    }
}

fn by_tag(last: Option<&LastSeen>, ages: Ages, gate: Gate, reply: Option<&Reply>, now: SystemTime) -> Step {
    let confirmed = |digest: &Digest| match last {
        Some(last) if last.digest == *digest => Standing::Unchanged,
        Some(_) | None => Standing::Changed,
    };
    match reply {
        None => match last {
            Some(last) if last.held && is_fresh(last, ages, now) => {
                Step::Serve(last.digest.clone(), Standing::Fresh)
            }
            Some(last) if gate == Gate::Shut && last.held && is_within(last, ages.stale_for, now) => {
                Step::Serve(last.digest.clone(), Standing::Stale)
            }
            Some(_) | None => Step::Ask(Ask::Head),
        },
        Some(Reply::Points { to, held: true }) => Step::Serve(to.clone(), confirmed(to)),
        Some(Reply::Points { to, held: false }) => Step::Ask(Ask::GetDigest(to.clone())),
        Some(Reply::NoDigest) => Step::Ask(Ask::Get),
        Some(Reply::Got(digest)) => Step::Serve(digest.clone(), confirmed(digest)),
        Some(Reply::Missing) => Step::Refuse(Why::Missing),
        Some(Reply::Denied) => Step::Refuse(Why::Denied),
        Some(Reply::Failed) => match last {
            Some(last) if last.held && is_within(last, ages.stale_for, now) => {
                Step::Serve(last.digest.clone(), Standing::Stale)
            }
            Some(_) | None => Step::Refuse(Why::Failed),
        },
    }
}

/// A confirmation from the future, after the clock was set back, is not taken for fresh: asking costs little.
fn is_fresh(last: &LastSeen, ages: Ages, now: SystemTime) -> bool {
    now.duration_since(last.confirmed_at).is_ok_and(|age| age < ages.fresh_for)
}

/// But it serves in an outage: its true age is not known to be too great.
fn is_within(last: &LastSeen, limit: Duration, now: SystemTime) -> bool {
    now.duration_since(last.confirmed_at).unwrap_or_default() <= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const AGES: Ages = Ages { fresh_for: MINUTE, stale_for: Duration::from_secs(3600) };

    fn old() -> Digest {
        Digest::of(b"old")
    }

    fn new() -> Digest {
        Digest::of(b"new")
    }

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    /// The old manifest, confirmed at the start.
    fn seen(held: bool) -> Option<LastSeen> {
        Some(LastSeen { digest: old(), confirmed_at: start(), held })
    }

    fn tag(last: Option<LastSeen>) -> Question {
        Question::Tag { last, ages: AGES, gate: Gate::Open }
    }

    fn shut(last: Option<LastSeen>) -> Question {
        Question::Tag { last, ages: AGES, gate: Gate::Shut }
    }

    fn digest(held: Held) -> Question {
        Question::Digest { digest: old(), held }
    }

    fn ask(ask: Ask) -> Step {
        Step::Ask(ask)
    }

    #[test]
    fn the_table() {
        use Standing::{Changed, Fresh, Immutable, Stale, Unchanged};
        let points = |to, held| Some(Reply::Points { to, held });
        let soon = MINUTE / 2;
        let later = MINUTE * 2;
        let too_late = MINUTE * 61;
        for (name, question, age, reply, expected) in [
            ("digest held", digest(Held::Here), soon, None, Step::Serve(old(), Immutable)),
            ("digest not held", digest(Held::No), soon, None, ask(Ask::Get)),
            (
                "digest fetched",
                digest(Held::No),
                soon,
                Some(Reply::Got(old())),
                Step::Serve(old(), Immutable),
            ),
            ("digest not there", digest(Held::No), soon, Some(Reply::Missing), Step::Refuse(Why::Missing)),
            ("digest, no answer", digest(Held::No), soon, Some(Reply::Failed), Step::Refuse(Why::Failed)),
            ("digest from elsewhere", digest(Held::Elsewhere), soon, None, ask(Ask::Head)),
            (
                "it is here too",
                digest(Held::Elsewhere),
                soon,
                points(old(), true),
                Step::Serve(old(), Immutable),
            ),
            (
                "it is not here",
                digest(Held::Elsewhere),
                soon,
                Some(Reply::Missing),
                Step::Refuse(Why::Missing),
            ),
            ("nobody says so", digest(Held::Elsewhere), soon, Some(Reply::NoDigest), ask(Ask::Get)),
            ("tag never seen", tag(None), soon, None, ask(Ask::Head)),
            ("tag fresh", tag(seen(true)), soon, None, Step::Serve(old(), Fresh)),
            ("tag fresh, evicted", tag(seen(false)), soon, None, ask(Ask::Head)),
            ("tag not fresh", tag(seen(true)), later, None, ask(Ask::Head)),
            ("unchanged", tag(seen(true)), later, points(old(), true), Step::Serve(old(), Unchanged)),
            ("unchanged, evicted", tag(seen(false)), later, points(old(), false), ask(Ask::GetDigest(old()))),
            (
                "and fetched again",
                tag(seen(false)),
                later,
                Some(Reply::Got(old())),
                Step::Serve(old(), Unchanged),
            ),
            ("repointed", tag(seen(true)), later, points(new(), true), Step::Serve(new(), Changed)),
            ("changed", tag(seen(true)), later, points(new(), false), ask(Ask::GetDigest(new()))),
            ("and fetched", tag(seen(true)), later, Some(Reply::Got(new())), Step::Serve(new(), Changed)),
            ("no digest in HEAD", tag(seen(true)), later, Some(Reply::NoDigest), ask(Ask::Get)),
            ("no answer", tag(seen(true)), later, Some(Reply::Failed), Step::Serve(old(), Stale)),
            ("no answer, too old", tag(seen(true)), too_late, Some(Reply::Failed), Step::Refuse(Why::Failed)),
            ("no answer, evicted", tag(seen(false)), later, Some(Reply::Failed), Step::Refuse(Why::Failed)),
            ("no answer, never seen", tag(None), later, Some(Reply::Failed), Step::Refuse(Why::Failed)),
            ("gone", tag(seen(true)), later, Some(Reply::Missing), Step::Refuse(Why::Missing)),
            ("gate shut", shut(seen(true)), later, None, Step::Serve(old(), Stale)),
            ("gate shut, fresh", shut(seen(true)), soon, None, Step::Serve(old(), Fresh)),
            ("gate shut, too old", shut(seen(true)), too_late, None, ask(Ask::Head)),
            ("gate shut, evicted", shut(seen(false)), later, None, ask(Ask::Head)),
            ("gate shut, never seen", shut(None), later, None, ask(Ask::Head)),
            ("denied", tag(seen(true)), later, Some(Reply::Denied), Step::Refuse(Why::Denied)),
        ] {
            assert_eq!(decide(&question, reply.as_ref(), start() + age), expected, "{name}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_fresh_and_nothing_too_old() {
        let before = start() - MINUTE;
        assert_eq!(decide(&tag(seen(true)), None, before), ask(Ask::Head));
        let stale = decide(&tag(seen(true)), Some(&Reply::Failed), before);
        assert_eq!(stale, Step::Serve(old(), Standing::Stale));
    }

    /// Every question with every chain of replies that could follow.
    #[test]
    fn every_walk_ends_within_three_steps_and_serves_only_what_is_held() {
        let mut questions = vec![tag(None), shut(None)];
        questions.extend([true, false].map(|held| tag(seen(held))));
        questions.extend([true, false].map(|held| shut(seen(held))));
        questions.extend([Held::Here, Held::Elsewhere, Held::No].map(digest));
        for question in questions {
            for age in [Duration::ZERO, MINUTE * 2, MINUTE * 61] {
                walk(&question, None, start() + age, 0);
            }
        }
    }

    fn walk(question: &Question, reply: Option<&Reply>, now: SystemTime, depth: usize) {
        assert!(depth <= 3, "{question:?} does not end");
        let next = match decide(question, reply, now) {
            Step::Ask(next) => next,
            Step::Serve(served, standing) => return check_served(question, reply, &served, standing),
            Step::Refuse(_) => return,
        };
        let got = match (&next, question) {
            (Ask::GetDigest(digest), _) | (Ask::Get, Question::Digest { digest, .. }) => digest.clone(),
            (Ask::Get | Ask::Head, _) => new(),
        };
        let mut replies = vec![Reply::Missing, Reply::Denied, Reply::Failed];
        match next {
            Ask::Head => {
                replies.push(Reply::NoDigest);
                for to in [old(), new()] {
                    replies.extend([true, false].map(|held| Reply::Points { to: to.clone(), held }));
                }
            }
            Ask::Get | Ask::GetDigest(_) => replies.push(Reply::Got(got)),
        }
        for reply in replies {
            walk(question, Some(&reply), now, depth + 1);
        }
    }

    fn check_served(question: &Question, reply: Option<&Reply>, served: &Digest, standing: Standing) {
        let held = match (question, reply) {
            (_, Some(Reply::Got(digest))) => digest == served,
            (Question::Tag { .. }, Some(Reply::Points { to, held })) => *held && to == served,
            (Question::Tag { last, .. }, _) => {
                last.as_ref().is_some_and(|last| last.held && last.digest == *served)
            }
            (Question::Digest { held, .. }, _) => *held != Held::No,
        };
        assert!(held, "{question:?} after {reply:?} serves what it lacks");
        if let Question::Digest { digest, .. } = question {
            assert_eq!(served, digest, "a digest was answered with another");
        }
        let refused = matches!(reply, Some(Reply::Denied | Reply::Missing));
        assert!(!refused, "{question:?} after {reply:?} was served {standing:?}");
    }
}
