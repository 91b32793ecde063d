//! Why a decision was made, in words: for whoever asks later what became of a reference.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{Ages, Ask, Question, Reply, Standing};
use super::manifests::shown;
use super::{Caller, Inner, Refusal, Resolver, Served};
use crate::clock;
use crate::oci::{Reference, Repository};
use crate::proto::v1;
use crate::record::{Decided, Ending, Told};
use crate::store::Unkept;
use crate::upstream::Failure;

/// Why something was answered as it was. The same reason has the same words.
#[derive(Debug, Clone)]
pub enum Reason {
    /// Its digest was asked for, and it is held.
    Held,
    /// Its digest was asked for, and it was fetched.
    Fetched,
    /// Its digest was asked for, it came from elsewhere, and the registry says that it has it here too.
    Vouched,
    /// It was confirmed within this time.
    Fresh(Duration),
    /// The registry was asked by HEAD, and named what is held.
    Same,
    /// The same, but its manifest was not held any more.
    FetchedAgain,
    /// The registry was asked by HEAD, and named something else that is held.
    Repointed,
    /// The registry was asked by HEAD, and named something that was fetched.
    Moved,
    /// The same, of a tag that was never asked for before.
    FirstSeen,
    /// The registry answers no HEAD with a digest, so it was fetched.
    WithoutHead,
    /// The registry could not be asked, or asking failed.
    CannotAsk(Arc<str>),
    /// What the tag points at now cannot be had as a whole, so what it pointed at before serves.
    SteppedBack(Arc<str>),
    /// The disk is full, so nothing was fetched.
    NoRoom,
    /// The disk takes no writes, so nothing was fetched.
    Unwritable(Arc<str>),
    /// A registry did not answer in time.
    Late,
}

impl Reason {
    /// Why this step was taken: after this request, its reply and the last failure.
    pub(super) fn of(
        question: &Question,
        standing: Standing,
        asked: Option<&Ask>,
        reply: Option<&Reply>,
        failure: Option<&Failure>,
    ) -> Self {
        match (standing, question) {
            (Standing::Immutable, _) => match reply {
                Some(Reply::Got(_)) => Self::Fetched,
                Some(Reply::Points { .. }) => Self::Vouched,
                _ => Self::Held,
            },
            (Standing::Fresh, Question::Tag { ages: Ages { fresh_for, .. }, .. }) => Self::Fresh(*fresh_for),
            (Standing::Fresh, _) => Self::Fresh(Duration::ZERO),
            (Standing::Unchanged, _) => match reply {
                Some(Reply::Got(_)) => Self::FetchedAgain,
                _ => Self::Same,
            },
            (Standing::Changed, question) => match (asked, reply) {
                (Some(Ask::Get), _) => Self::WithoutHead,
                (_, Some(Reply::Points { .. })) => Self::Repointed,
                _ if matches!(question, Question::Tag { last: None, .. }) => Self::FirstSeen,
                _ => Self::Moved,
            },
            (Standing::Stale, _) => match (reply, failure) {
                (Some(Reply::Points { .. }), None) => {
                    Self::SteppedBack("too little of the pull limit is left to fetch it".into())
                }
                (Some(Reply::Failed), Some(failure)) if matches!(asked, Some(Ask::GetDigest(_))) => {
                    Self::SteppedBack(told(failure))
                }
                (_, Some(failure)) => Self::CannotAsk(told(failure)),
                (_, None) => {
                    Self::CannotAsk("it wants to be left alone, or has failed again and again".into())
                }
            },
        }
    }

    /// That what is new could not be kept.
    pub(super) fn unkept(why: &Unkept) -> Self {
        match why {
            Unkept::NoRoom => Self::NoRoom,
            Unkept::Unwritable(error) => Self::Unwritable(error.to_string().into()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("it was asked for by its digest, and that is held: nobody has to be asked"),
            Self::Fetched => f.write_str("it was asked for by its digest, which was not held: it was fetched by a GET"),
            Self::Vouched => f.write_str(
                "it was asked for by its digest, which is held from elsewhere: a HEAD showed that its registry has it \
                 here too",
            ),
            Self::Fresh(fresh_for) => {
                let fresh_for = humantime::format_duration(*fresh_for);
                write!(f, "its registry confirmed it less than {fresh_for} ago (fresh_for): it was not asked again")
            }
            Self::Same => f.write_str("a HEAD named the digest that is held: the tag has not moved"),
            Self::FetchedAgain => f.write_str(
                "a HEAD named the digest of before, whose manifest was not held any more: it was fetched again by a GET",
            ),
            Self::Repointed => f.write_str("a HEAD named another digest than before, and that is held: no GET was needed"),
            Self::Moved => f.write_str("a HEAD named a new digest: it was fetched by a GET of that digest"),
            Self::FirstSeen => {
                f.write_str("the tag was asked for the first time: a HEAD named its digest, and a GET fetched that")
            }
            Self::WithoutHead => f.write_str("its registry answers no HEAD with a digest: it was asked by a GET"),
            Self::CannotAsk(why) => write!(f, "its registry could not be asked ({why}): what was confirmed last serves"),
            Self::SteppedBack(why) => {
                write!(f, "the tag has moved, and what it points at now cannot be had ({why}): what is held serves")
            }
            Self::NoRoom => f.write_str("the disk is full, so that nothing new can be fetched: what was confirmed last serves"),
            Self::Unwritable(why) => {
                write!(f, "the hold cannot be written ({why}), so that nothing new can be fetched: what was confirmed last serves")
            }
            Self::Late => f.write_str("its registry did not answer in time: what was confirmed last serves"),
        }
    }
}

/// A failure in the same words each time: without how many seconds are left.
fn told(failure: &Failure) -> Arc<str> {
    match failure {
        Failure::Limited { .. } => "429: its pull limit is reached".into(),
        Failure::Shut { because, .. } => format!("it is left alone for a while: {because}").into(),
        other => other.to_string().into(),
    }
}

impl Inner {
    /// Tells the record what was decided.
    pub(super) fn tell(
        &self,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
        answered: &Result<Served, Refusal>,
        now: std::time::SystemTime,
    ) -> Told {
        let (ending, digest, reason) = match answered {
            Ok(served) => (served.standing.into(), served.digest.to_string(), served.reason.to_string()),
            Err(refusal @ Refusal::Denied { challenge: Some(_), .. }) => {
                (Ending::Challenged, String::new(), refusal.to_string())
            }
            Err(refusal) => (Ending::Refused, String::new(), refusal.to_string()),
        };
        let (cost, requests) = (caller.cost(), caller.account.requests());
        let decided = Decided {
            reference: shown(repository, reference),
            ending,
            digest,
            reason,
            asked_by: caller.account.asked_by(),
            cost: v1::Cost { requests: cost.requests, counted: cost.counted },
            requests,
        };
        self.record.decided(decided, now)
    }
}

impl Resolver {
    /// Tells the record that a client accepts no manifest of the type that a reference stands for.
    pub fn not_accepted(
        &self,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
        served: &Served,
    ) {
        let decided = Decided {
            reference: shown(repository, reference),
            ending: Ending::Refused,
            digest: served.digest.to_string(),
            reason: format!("the client does not accept its type, {}", served.media_type),
            asked_by: caller.account.asked_by(),
            // What it took was told when it was decided what to serve.
            cost: v1::Cost::default(),
            requests: Vec::new(),
        };
        self.inner.record.decided(decided, clock::now());
    }
}

impl From<Standing> for Ending {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Immutable => Self::Immutable,
            Standing::Fresh => Self::Fresh,
            Standing::Unchanged => Self::Unchanged,
            Standing::Changed => Self::Changed,
            Standing::Stale => Self::Stale,
        }
    }
}
