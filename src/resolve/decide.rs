//! The decision: what to do next about a manifest, or a list, that was asked for.
//!
//! A pure function of what was asked, what is known, which gates are open, the time and the last reply of the
//! registry. It asks nobody and reads no clock; the [driver](super::Resolver) does what it says and comes back with
//! the reply.

use std::time::{Duration, SystemTime};

use crate::access::Admission;
use crate::oci::Digest;

/// What was asked for, by whom, and what the hold knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A manifest by its digest, in a repository.
    Digest {
        /// What was asked for.
        digest: Digest,
        /// Whether it can be served.
        held: Held,
        /// Whether whoever asks may have it.
        admission: Admission,
    },
    /// A tag.
    Tag {
        /// What it pointed at when it was last asked about.
        last: Option<LastSeen>,
        /// The latest of what it pointed at before that is still whole.
        before: Option<LastSeen>,
        /// For how long these are good.
        ages: Ages,
        /// How its registry is asked.
        way: Way,
        /// Whether whoever asks may have it.
        admission: Admission,
    },
    /// A list that a registry makes up when it is asked: of tags, or of what refers to a manifest.
    List {
        /// What it was when it was last asked for.
        last: Option<LastSeen>,
        /// For how long that is good.
        ages: Ages,
        /// Whether whoever asks may have it.
        admission: Admission,
    },
}

impl Question {
    /// Whether whoever asks may have it.
    pub fn admission(&self) -> Admission {
        match self {
            Self::Digest { admission, .. } | Self::Tag { admission, .. } | Self::List { admission, .. } => {
                *admission
            }
        }
    }

    /// The same, after the registry has shown that whoever asks may have it.
    #[must_use]
    pub fn granted(mut self) -> Self {
        match &mut self {
            Self::Digest { admission, .. } | Self::Tag { admission, .. } | Self::List { admission, .. } => {
                *admission = Admission::Granted;
            }
        }
        self
    }
}

/// Which requests may be sent. Pulls are those that a registry's pull limit counts; they need both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// Any at all.
    pub all: Gate,
    /// Pulls.
    pub pulls: Gate,
}

impl Gates {
    fn pulls(self) -> Gate {
        match self.all {
            Gate::Open => self.pulls,
            Gate::Shut => Gate::Shut,
        }
    }
}

/// Whether requests of a kind may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open,
    /// The registry wants to be left alone, or has failed again and again.
    Shut,
}

/// How a registry is asked about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a HEAD, which costs nothing.
    Head,
    /// By a GET: it does not answer HEAD, or not with a digest.
    Get,
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

/// How much of an image is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// The manifest, and of an index at least one of the images.
    Whole,
    /// An index alone: whoever wants an image of it has to pull another manifest.
    Hollow,
    /// Nothing.
    Absent,
}

/// A tag as it was confirmed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSeen {
    /// What it pointed at.
    pub digest: Digest,
    /// When the registry said so.
    pub confirmed_at: SystemTime,
    /// How much of that is still here.
    pub bytes: Bytes,
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
    /// GET of the manifest that was asked for, where the registry knows no HEAD or does not say the digest. A pull.
    Get,
    /// GET of the manifest that a tag now points at. A pull.
    GetDigest(Digest),
    /// GET of the list that was asked for: costs nothing.
    List,
}

/// What the registry replied to the last [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A HEAD worked and named a digest.
    Points {
        /// The digest.
        to: Digest,
        /// How much of it is here.
        bytes: Bytes,
        /// Whether what is left of the pull limit is known to be too little to fetch what is not.
        short: bool,
    },
    /// A HEAD worked without naming a digest, or the registry does not do HEAD.
    NoDigest,
    /// A GET worked: what came was verified and is kept.
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
    /// The registry could not be asked, or had nothing left to give.
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
    /// The registry says no, or said so last and cannot be asked.
    Denied,
    /// The registry could not be asked, and nothing is held that could stand in.
    Failed,
}

/// The next step. It ends: a `Head` may be followed by one `Get` or `GetDigest`, and these by an answer.
pub fn decide(question: &Question, reply: Option<&Reply>, gates: Gates, now: SystemTime) -> Step {
    match question {
        Question::Digest { digest, held, admission } => by_digest(digest, *held, *admission, reply, gates),
        Question::Tag { last, before, ages, way, admission } => {
            let known = Known {
                last: last.as_ref(),
                before: before.as_ref(),
                ages: *ages,
                admission: *admission,
                now,
            };
            by_tag(&known, *way, reply, gates)
        }
        Question::List { last, ages, admission } => {
            let known = Known { last: last.as_ref(), before: None, ages: *ages, admission: *admission, now };
            by_list(&known, reply, gates)
        }
    }
}

fn by_digest(digest: &Digest, held: Held, admission: Admission, reply: Option<&Reply>, gates: Gates) -> Step {
    let serve = || Step::Serve(digest.clone(), Standing::Immutable);
    let get = || match gates.pulls() {
        Gate::Open => Step::Ask(Ask::Get),
        Gate::Shut => Step::Refuse(failed(admission)),
    };
    // A registry that cannot be asked takes nothing back that it granted a while ago.
    let cannot_ask = || match (held, admission) {
        (Held::Here, Admission::Granted | Admission::WasPublic | Admission::Lapsed) => serve(),
        (Held::Here, Admission::Unknown | Admission::Barred) | (Held::Elsewhere | Held::No, _) => {
            Step::Refuse(failed(admission))
        }
    };
    match (reply, held) {
        (None, Held::Here) if admission == Admission::Granted => serve(),
        (None, Held::Here | Held::Elsewhere) => match gates.all {
            Gate::Open => Step::Ask(Ask::Head),
            Gate::Shut => cannot_ask(),
        },
        (None, Held::No) => get(),
        (Some(Reply::Got(_)), _) => serve(),
        (Some(Reply::Points { to, .. }), Held::Here | Held::Elsewhere) if to == digest => serve(),
        (Some(Reply::Points { .. } | Reply::NoDigest), _) => get(),
        // Removed from a repository that anyone could read: a digest that is held is good for ever.
        (Some(Reply::Missing), Held::Here) if admission == Admission::WasPublic => serve(),
        (Some(Reply::Missing), _) => Step::Refuse(Why::Missing),
        (Some(Reply::Denied), _) => Step::Refuse(Why::Denied),
        (Some(Reply::Failed), _) => cannot_ask(),
    }
}

fn by_tag(known: &Known<'_>, way: Way, reply: Option<&Reply>, gates: Gates) -> Step {
    let get = |ask| match gates.pulls() {
        Gate::Open => Step::Ask(ask),
        Gate::Shut => known.stale(),
    };
    match reply {
        None => match known.fresh() {
            Some(last) => match known.instead_of_hollow(last, gates) {
                Some(before) => Step::Serve(before.digest.clone(), Standing::Stale),
                None => Step::Serve(last.digest.clone(), Standing::Fresh),
            },
            None => match (gates.all, way) {
                (Gate::Shut, _) => known.stale(),
                (Gate::Open, Way::Head) => Step::Ask(Ask::Head),
                (Gate::Open, Way::Get) => get(Ask::Get),
            },
        },
        Some(Reply::Points { to, bytes: Bytes::Whole, .. }) => known.confirmed(to),
        Some(Reply::Points { to, bytes: Bytes::Hollow, .. }) => {
            let hollow = LastSeen { digest: to.clone(), confirmed_at: known.now, bytes: Bytes::Hollow };
            match known.instead_of_hollow(&hollow, gates) {
                Some(whole) => Step::Serve(whole.digest.clone(), Standing::Stale),
                None => known.confirmed(to),
            }
        }
        Some(Reply::Points { to, bytes: Bytes::Absent, short }) => match known.stand_in() {
            // The index alone would use up what is left, and nobody could pull the image it lists.
            Some(LastSeen { bytes: Bytes::Whole, .. }) if *short => known.stale(),
            Some(_) | None => get(Ask::GetDigest(to.clone())),
        },
        Some(Reply::NoDigest) => get(Ask::Get),
        Some(Reply::Got(digest)) => known.confirmed(digest),
        Some(Reply::Missing) => Step::Refuse(Why::Missing),
        Some(Reply::Denied) => Step::Refuse(Why::Denied),
        Some(Reply::Failed) => known.stale(),
    }
}

fn by_list(known: &Known<'_>, reply: Option<&Reply>, gates: Gates) -> Step {
    match reply {
        None => match (known.fresh(), gates.all) {
            (Some(last), _) => Step::Serve(last.digest.clone(), Standing::Fresh),
            (None, Gate::Open) => Step::Ask(Ask::List),
            (None, Gate::Shut) => known.stale(),
        },
        Some(Reply::Got(digest)) => known.confirmed(digest),
        Some(Reply::Missing) => Step::Refuse(Why::Missing),
        Some(Reply::Denied) => Step::Refuse(Why::Denied),
        Some(Reply::Points { .. } | Reply::NoDigest | Reply::Failed) => known.stale(),
    }
}

/// What is known of something that its registry may change.
struct Known<'a> {
    last: Option<&'a LastSeen>,
    before: Option<&'a LastSeen>,
    ages: Ages,
    admission: Admission,
    now: SystemTime,
}

impl<'a> Known<'a> {
    /// What may be served without asking. A confirmation from the future, after the clock was set back, is not taken
    /// for fresh: asking costs little.
    fn fresh(&self) -> Option<&'a LastSeen> {
        let fresh = |last: &&LastSeen| {
            let age = self.now.duration_since(last.confirmed_at);
            last.bytes != Bytes::Absent && age.is_ok_and(|age| age < self.ages.fresh_for)
        };
        self.last.filter(|_| self.admission == Admission::Granted).filter(fresh)
    }

    /// What may be served in the place of an answer that cannot be had: the latest that is whole, or else the latest.
    fn stand_in(&self) -> Option<&'a LastSeen> {
        // One from the future serves: its true age is not known to be too great.
        let usable = |seen: &&LastSeen| {
            let age = self.now.duration_since(seen.confirmed_at).unwrap_or_default();
            seen.bytes != Bytes::Absent && age <= self.ages.stale_for
        };
        let (last, before) = (self.last.filter(usable), self.before.filter(usable));
        let whole = |seen: &&LastSeen| seen.bytes == Bytes::Whole;
        match self.admission {
            Admission::Granted | Admission::WasPublic | Admission::Lapsed => {
                last.filter(whole).or(before.filter(whole)).or(last)
            }
            Admission::Unknown | Admission::Barred => None,
        }
    }

    /// A whole image to serve in the place of an index whose images cannot be pulled now.
    fn instead_of_hollow(&self, seen: &LastSeen, gates: Gates) -> Option<&'a LastSeen> {
        match (seen.bytes, gates.pulls()) {
            (Bytes::Hollow, Gate::Shut) => self.stand_in().filter(|whole| whole.bytes == Bytes::Whole),
            (Bytes::Hollow, Gate::Open) | (Bytes::Whole | Bytes::Absent, _) => None,
        }
    }

    fn stale(&self) -> Step {
        match self.stand_in() {
            Some(seen) => Step::Serve(seen.digest.clone(), Standing::Stale),
            None => Step::Refuse(failed(self.admission)),
        }
    }

    fn confirmed(&self, digest: &Digest) -> Step {
        let standing = match self.last {
            Some(last) if last.digest == *digest => Standing::Unchanged,
            Some(_) | None => Standing::Changed,
        };
        Step::Serve(digest.clone(), standing)
    }
}

/// What it comes to when the registry cannot be asked: whoever it turned away stays outside.
fn failed(admission: Admission) -> Why {
    match admission {
        Admission::Barred => Why::Denied,
        Admission::Granted | Admission::WasPublic | Admission::Lapsed | Admission::Unknown => Why::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const AGES: Ages = Ages { fresh_for: MINUTE, stale_for: Duration::from_secs(3600) };
    const OPEN: Gates = Gates { all: Gate::Open, pulls: Gate::Open };
    const NO_PULLS: Gates = Gates { all: Gate::Open, pulls: Gate::Shut };
    const SHUT: Gates = Gates { all: Gate::Shut, pulls: Gate::Open };

    fn old() -> Digest {
        Digest::of(b"old")
    }

    fn new() -> Digest {
        Digest::of(b"new")
    }

    fn older() -> Digest {
        Digest::of(b"older")
    }

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    /// The old manifest, confirmed at the start.
    fn seen(bytes: Bytes) -> Option<LastSeen> {
        Some(LastSeen { digest: old(), confirmed_at: start(), bytes })
    }

    /// The one before it, whole, as old as that.
    fn seen_before() -> Option<LastSeen> {
        Some(LastSeen { digest: older(), confirmed_at: start(), bytes: Bytes::Whole })
    }

    fn tag(last: Option<LastSeen>) -> Question {
        let admission = Admission::Granted;
        Question::Tag { last, before: None, ages: AGES, way: Way::Head, admission }
    }

    fn tag_with_a_past(bytes: Bytes) -> Question {
        let (last, before) = (seen(bytes), seen_before());
        Question::Tag { last, before, ages: AGES, way: Way::Head, admission: Admission::Granted }
    }

    fn without_head(last: Option<LastSeen>) -> Question {
        let admission = Admission::Granted;
        Question::Tag { last, before: None, ages: AGES, way: Way::Get, admission }
    }

    fn list(last: Option<LastSeen>) -> Question {
        Question::List { last, ages: AGES, admission: Admission::Granted }
    }

    fn digest(held: Held) -> Question {
        Question::Digest { digest: old(), held, admission: Admission::Granted }
    }

    fn of(admitted: Admission, mut question: Question) -> Question {
        match &mut question {
            Question::Digest { admission, .. }
            | Question::Tag { admission, .. }
            | Question::List { admission, .. } => *admission = admitted,
        }
        question
    }

    fn points(to: Digest, bytes: Bytes) -> Option<Reply> {
        Some(Reply::Points { to, bytes, short: false })
    }

    fn serve(digest: Digest, standing: Standing) -> Step {
        Step::Serve(digest, standing)
    }

    const HEAD: Step = Step::Ask(Ask::Head);
    const GET: Step = Step::Ask(Ask::Get);
    const GET_LIST: Step = Step::Ask(Ask::List);
    const MISSING: Step = Step::Refuse(Why::Missing);
    const DENIED: Step = Step::Refuse(Why::Denied);
    const FAILED: Step = Step::Refuse(Why::Failed);

    #[track_caller]
    fn holds(rows: impl IntoIterator<Item = (&'static str, Question, Gates, Duration, Option<Reply>, Step)>) {
        for (name, question, gates, age, reply, expected) in rows {
            assert_eq!(decide(&question, reply.as_ref(), gates, start() + age), expected, "{name}");
        }
    }

    const SOON: Duration = Duration::from_secs(30);
    const LATER: Duration = Duration::from_secs(120);
    const TOO_LATE: Duration = Duration::from_secs(3660);

    #[test]
    fn digests() {
        use Admission::{Barred, Lapsed, Unknown, WasPublic};
        use Standing::Immutable;
        let failed = Some(Reply::Failed);
        let missing = Some(Reply::Missing);
        let denied = Some(Reply::Denied);
        let here = || serve(old(), Immutable);
        holds([
            ("held", digest(Held::Here), OPEN, SOON, None, here()),
            ("held, whatever the gate", digest(Held::Here), SHUT, TOO_LATE, None, here()),
            ("not held", digest(Held::No), OPEN, SOON, None, GET),
            ("not held, no pulls", digest(Held::No), NO_PULLS, SOON, None, FAILED),
            ("not held, shut", digest(Held::No), SHUT, SOON, None, FAILED),
            ("fetched", digest(Held::No), OPEN, SOON, Some(Reply::Got(old())), here()),
            ("not there", digest(Held::No), OPEN, SOON, missing.clone(), MISSING),
            ("no answer", digest(Held::No), OPEN, SOON, failed.clone(), FAILED),
            ("from elsewhere", digest(Held::Elsewhere), NO_PULLS, SOON, None, HEAD),
            ("from elsewhere, shut", digest(Held::Elsewhere), SHUT, SOON, None, FAILED),
            ("here too", digest(Held::Elsewhere), NO_PULLS, SOON, points(old(), Bytes::Whole), here()),
            ("not here", digest(Held::Elsewhere), OPEN, SOON, missing.clone(), MISSING),
            ("nobody says so", digest(Held::Elsewhere), OPEN, SOON, Some(Reply::NoDigest), GET),
            ("and no pulls", digest(Held::Elsewhere), NO_PULLS, SOON, Some(Reply::NoDigest), FAILED),
            ("elsewhere, no answer", digest(Held::Elsewhere), OPEN, SOON, failed.clone(), FAILED),
            ("was public", of(WasPublic, digest(Held::Here)), OPEN, SOON, None, HEAD),
            ("was public, shut", of(WasPublic, digest(Held::Here)), SHUT, SOON, None, here()),
            ("was public, no answer", of(WasPublic, digest(Held::Here)), OPEN, SOON, failed.clone(), here()),
            ("was public, removed", of(WasPublic, digest(Held::Here)), OPEN, SOON, missing.clone(), here()),
            ("was public, closed", of(WasPublic, digest(Held::Here)), OPEN, SOON, denied.clone(), DENIED),
            ("lapsed", of(Lapsed, digest(Held::Here)), OPEN, SOON, None, HEAD),
            ("lapsed, no answer", of(Lapsed, digest(Held::Here)), OPEN, SOON, failed.clone(), here()),
            ("lapsed, removed", of(Lapsed, digest(Held::Here)), OPEN, SOON, missing.clone(), MISSING),
            ("lapsed, denied", of(Lapsed, digest(Held::Here)), OPEN, SOON, denied.clone(), DENIED),
            ("unknown", of(Unknown, digest(Held::Here)), OPEN, SOON, None, HEAD),
            ("unknown, shut", of(Unknown, digest(Held::Here)), SHUT, SOON, None, FAILED),
            ("unknown, no answer", of(Unknown, digest(Held::Here)), OPEN, SOON, failed.clone(), FAILED),
            ("barred", of(Barred, digest(Held::Here)), OPEN, SOON, None, HEAD),
            ("barred, shut", of(Barred, digest(Held::Here)), SHUT, SOON, None, DENIED),
            ("barred, no answer", of(Barred, digest(Held::Here)), OPEN, SOON, failed, DENIED),
            ("barred, not held", of(Barred, digest(Held::No)), OPEN, SOON, None, GET),
            ("barred, not held, no pulls", of(Barred, digest(Held::No)), NO_PULLS, SOON, None, DENIED),
            ("denied", of(Barred, digest(Held::Here)), OPEN, SOON, denied, DENIED),
        ]);
    }

    #[test]
    fn tags() {
        use Bytes::{Absent, Hollow, Whole};
        use Standing::{Changed, Fresh, Stale, Unchanged};
        let failed = Some(Reply::Failed);
        let get_digest = |digest| Step::Ask(Ask::GetDigest(digest));
        let short = Some(Reply::Points { to: new(), bytes: Absent, short: true });
        let stale = || serve(old(), Stale);
        holds([
            ("never seen", tag(None), OPEN, SOON, None, HEAD),
            ("never seen, no pulls", tag(None), NO_PULLS, SOON, None, HEAD),
            ("never seen, shut", tag(None), SHUT, SOON, None, FAILED),
            ("fresh", tag(seen(Whole)), OPEN, SOON, None, serve(old(), Fresh)),
            ("fresh, shut", tag(seen(Whole)), SHUT, SOON, None, serve(old(), Fresh)),
            ("fresh, evicted", tag(seen(Absent)), OPEN, SOON, None, HEAD),
            ("not fresh", tag(seen(Whole)), OPEN, LATER, None, HEAD),
            ("not fresh, no pulls", tag(seen(Whole)), NO_PULLS, LATER, None, HEAD),
            ("shut", tag(seen(Whole)), SHUT, LATER, None, stale()),
            ("shut, too old", tag(seen(Whole)), SHUT, TOO_LATE, None, FAILED),
            ("shut, evicted", tag(seen(Absent)), SHUT, LATER, None, FAILED),
            ("unchanged", tag(seen(Whole)), OPEN, LATER, points(old(), Whole), serve(old(), Unchanged)),
            (
                "unchanged, no pulls",
                tag(seen(Whole)),
                NO_PULLS,
                LATER,
                points(old(), Whole),
                serve(old(), Unchanged),
            ),
            ("unchanged, evicted", tag(seen(Absent)), OPEN, LATER, points(old(), Absent), get_digest(old())),
            (
                "and fetched again",
                tag(seen(Absent)),
                OPEN,
                LATER,
                Some(Reply::Got(old())),
                serve(old(), Unchanged),
            ),
            ("repointed", tag(seen(Whole)), NO_PULLS, LATER, points(new(), Whole), serve(new(), Changed)),
            ("changed", tag(seen(Whole)), OPEN, LATER, points(new(), Absent), get_digest(new())),
            ("changed, no pulls", tag(seen(Whole)), NO_PULLS, LATER, points(new(), Absent), stale()),
            ("changed, no pulls, never seen", tag(None), NO_PULLS, LATER, points(new(), Absent), FAILED),
            ("changed, too little left", tag(seen(Whole)), OPEN, LATER, short.clone(), stale()),
            ("too little left, never seen", tag(None), OPEN, LATER, short.clone(), get_digest(new())),
            ("too little left, too old", tag(seen(Whole)), OPEN, TOO_LATE, short, get_digest(new())),
            ("and fetched", tag(seen(Whole)), OPEN, LATER, Some(Reply::Got(new())), serve(new(), Changed)),
            ("no digest in HEAD", tag(seen(Whole)), OPEN, LATER, Some(Reply::NoDigest), GET),
            (
                "no digest in HEAD, no pulls",
                tag(seen(Whole)),
                NO_PULLS,
                LATER,
                Some(Reply::NoDigest),
                stale(),
            ),
            ("no HEAD there", without_head(seen(Whole)), OPEN, LATER, None, GET),
            ("no HEAD there, no pulls", without_head(seen(Whole)), NO_PULLS, LATER, None, stale()),
            ("no HEAD there, fresh", without_head(seen(Whole)), OPEN, SOON, None, serve(old(), Fresh)),
            ("no answer", tag(seen(Whole)), OPEN, LATER, failed.clone(), stale()),
            ("no answer, too old", tag(seen(Whole)), OPEN, TOO_LATE, failed.clone(), FAILED),
            ("no answer, evicted", tag(seen(Absent)), OPEN, LATER, failed.clone(), FAILED),
            ("no answer, never seen", tag(None), OPEN, LATER, failed.clone(), FAILED),
            ("gone", tag(seen(Whole)), OPEN, LATER, Some(Reply::Missing), MISSING),
            ("denied", tag(seen(Whole)), OPEN, LATER, Some(Reply::Denied), DENIED),
            ("hollow", tag_with_a_past(Hollow), OPEN, LATER, points(old(), Hollow), serve(old(), Unchanged)),
            (
                "hollow, no pulls",
                tag_with_a_past(Hollow),
                NO_PULLS,
                LATER,
                points(old(), Hollow),
                serve(older(), Stale),
            ),
            (
                "hollow and fresh, no pulls",
                tag_with_a_past(Hollow),
                NO_PULLS,
                SOON,
                None,
                serve(older(), Stale),
            ),
            (
                "hollow, no answer",
                tag_with_a_past(Hollow),
                OPEN,
                LATER,
                failed.clone(),
                serve(older(), Stale),
            ),
            (
                "hollow, no pulls, no past",
                tag(seen(Hollow)),
                NO_PULLS,
                LATER,
                points(old(), Hollow),
                serve(old(), Unchanged),
            ),
            (
                "evicted, no answer, a past",
                tag_with_a_past(Absent),
                OPEN,
                LATER,
                failed.clone(),
                serve(older(), Stale),
            ),
            ("whole, no answer, a past", tag_with_a_past(Whole), OPEN, LATER, failed, stale()),
        ]);
    }

    #[test]
    fn tags_of_those_who_have_to_prove_themselves() {
        use Admission::{Barred, Lapsed, Unknown, WasPublic};
        use Standing::{Stale, Unchanged};
        let failed = Some(Reply::Failed);
        let held = || tag(seen(Bytes::Whole));
        let stale = || serve(old(), Stale);
        let still = points(old(), Bytes::Whole);
        let unchanged = || serve(old(), Unchanged);
        holds([
            ("was public, fresh", of(WasPublic, held()), OPEN, SOON, None, HEAD),
            ("was public, shut", of(WasPublic, held()), SHUT, SOON, None, stale()),
            ("was public, no answer", of(WasPublic, held()), OPEN, LATER, failed.clone(), stale()),
            ("lapsed, fresh", of(Lapsed, held()), OPEN, SOON, None, HEAD),
            ("lapsed, shut", of(Lapsed, held()), SHUT, SOON, None, stale()),
            ("lapsed, no answer", of(Lapsed, held()), OPEN, LATER, failed.clone(), stale()),
            ("unknown, fresh", of(Unknown, held()), OPEN, SOON, None, HEAD),
            ("unknown, shut", of(Unknown, held()), SHUT, SOON, None, FAILED),
            ("unknown, no answer", of(Unknown, held()), OPEN, LATER, failed.clone(), FAILED),
            ("unknown, proven", of(Unknown, held()), OPEN, LATER, still.clone(), unchanged()),
            ("barred, fresh", of(Barred, held()), OPEN, SOON, None, HEAD),
            ("barred, shut", of(Barred, held()), SHUT, SOON, None, DENIED),
            ("barred, no answer", of(Barred, held()), OPEN, LATER, failed, DENIED),
            ("barred, proven", of(Barred, held()), OPEN, LATER, still, unchanged()),
        ]);
    }

    #[test]
    fn lists() {
        use Standing::{Changed, Fresh, Stale, Unchanged};
        let held = || list(seen(Bytes::Whole));
        holds([
            ("never seen", list(None), NO_PULLS, SOON, None, GET_LIST),
            ("fresh", held(), OPEN, SOON, None, serve(old(), Fresh)),
            ("not fresh", held(), NO_PULLS, LATER, None, GET_LIST),
            ("shut", held(), SHUT, LATER, None, serve(old(), Stale)),
            ("shut, never seen", list(None), SHUT, LATER, None, FAILED),
            ("the same", held(), OPEN, LATER, Some(Reply::Got(old())), serve(old(), Unchanged)),
            ("another", held(), OPEN, LATER, Some(Reply::Got(new())), serve(new(), Changed)),
            ("no answer", held(), OPEN, LATER, Some(Reply::Failed), serve(old(), Stale)),
            ("no answer, too old", held(), OPEN, TOO_LATE, Some(Reply::Failed), FAILED),
            ("gone", held(), OPEN, LATER, Some(Reply::Missing), MISSING),
            ("denied", held(), OPEN, LATER, Some(Reply::Denied), DENIED),
            ("barred", of(Admission::Barred, held()), SHUT, LATER, None, DENIED),
        ]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_fresh_and_nothing_too_old() {
        let before = start() - MINUTE;
        let question = tag(seen(Bytes::Whole));
        assert_eq!(decide(&question, None, OPEN, before), HEAD);
        let stale = decide(&question, Some(&Reply::Failed), OPEN, before);
        assert_eq!(stale, serve(old(), Standing::Stale));
    }

    const ALL_BYTES: [Bytes; 3] = [Bytes::Whole, Bytes::Hollow, Bytes::Absent];

    /// Every question with every chain of replies that could follow, under gates that may change at any moment.
    #[test]
    fn every_walk_keeps_the_rules() {
        let admissions = [
            Admission::Granted,
            Admission::WasPublic,
            Admission::Lapsed,
            Admission::Unknown,
            Admission::Barred,
        ];
        let mut questions = Vec::new();
        for admission in admissions {
            let lasts: Vec<_> = ALL_BYTES.map(seen).into_iter().chain([None]).collect();
            for last in &lasts {
                questions.push(Question::List { last: last.clone(), ages: AGES, admission });
                for way in [Way::Head, Way::Get] {
                    for before in [None, seen_before()] {
                        let last = last.clone();
                        questions.push(Question::Tag { last, before, ages: AGES, way, admission });
                    }
                }
            }
            questions.extend([Held::Here, Held::Elsewhere, Held::No].map(|held| of(admission, digest(held))));
        }
        let mut walked = 0;
        for question in questions {
            for age in [Duration::ZERO, LATER, TOO_LATE] {
                walk(&question, None, start() + age, 0, &mut walked);
            }
        }
        assert!(walked > 10_000, "only {walked} walks");
    }

    fn walk(question: &Question, reply: Option<&Reply>, now: SystemTime, depth: usize, walked: &mut usize) {
        assert!(depth <= 3, "{question:?} does not end");
        for gates in [OPEN, NO_PULLS, SHUT] {
            *walked += 1;
            let next = match decide(question, reply, gates, now) {
                Step::Ask(next) => next,
                Step::Serve(served, standing) => {
                    check_served(question, reply, &served, standing);
                    continue;
                }
                Step::Refuse(_) => continue,
            };
            let open = match next {
                Ask::Head | Ask::List => gates.all,
                Ask::Get | Ask::GetDigest(_) => gates.pulls(),
            };
            assert_eq!(open, Gate::Open, "{next:?} leaves through a shut gate: {question:?} after {reply:?}");
            for reply in replies(&next, question) {
                let question = match reply {
                    Reply::Points { .. } => question.clone().granted(),
                    _ => question.clone(),
                };
                walk(&question, Some(&reply), now, depth + 1, walked);
            }
        }
    }

    fn replies(to: &Ask, question: &Question) -> Vec<Reply> {
        let mut replies = vec![Reply::Missing, Reply::Denied, Reply::Failed];
        match (to, question) {
            (Ask::Head, _) => {
                replies.push(Reply::NoDigest);
                for to in [old(), new()] {
                    for short in [true, false] {
                        replies.extend(ALL_BYTES.map(|bytes| Reply::Points { to: to.clone(), bytes, short }));
                    }
                }
            }
            (Ask::GetDigest(digest), _) | (Ask::Get, Question::Digest { digest, .. }) => {
                replies.push(Reply::Got(digest.clone()));
            }
            (Ask::Get | Ask::List, _) => replies.extend([old(), new()].map(Reply::Got)),
        }
        replies
    }

    fn check_served(question: &Question, reply: Option<&Reply>, served: &Digest, standing: Standing) {
        let said = format!("{question:?} after {reply:?} is served {served} as {standing:?}");
        let refused = matches!(reply, Some(Reply::Denied));
        assert!(!refused, "a denial was turned into an answer: {said}");
        let just_shown = match reply {
            Some(Reply::Got(digest)) => digest == served,
            Some(Reply::Points { to, bytes, .. }) => *bytes != Bytes::Absent && to == served,
            _ => false,
        };
        let (known, admission) = match question {
            Question::Digest { digest, held, admission } => {
                assert_eq!(served, digest, "a digest was answered with another: {said}");
                (*held != Held::No, admission)
            }
            Question::Tag { last, before, admission, .. } => {
                (has(last.as_ref(), served) || has(before.as_ref(), served), admission)
            }
            Question::List { last, admission, .. } => (has(last.as_ref(), served), admission),
        };
        assert!(just_shown || known, "what is served is not here: {said}");
        let may = !matches!(admission, Admission::Unknown | Admission::Barred);
        assert!(just_shown || may, "somebody nobody knows was let in: {said}");
    }

    fn has(seen: Option<&LastSeen>, digest: &Digest) -> bool {
        seen.is_some_and(|seen| seen.digest == *digest && seen.bytes != Bytes::Absent)
    }
}
