//! The one mapping from what went wrong to a gRPC code, and when to try again.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::proto::v1::warm_response::Failed;
use crate::resolve::{Because, Cost, Failure, Refusal, whole_seconds};
use crate::serve::overview::AskError;
use crate::store::{FollowError, StoreError};

/// The trailer with the seconds after which to try again.
const RETRY_AFTER: &str = "retry-after";

/// Why a call, or one reference of it, comes to nothing.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    /// For people, without when to try again.
    message: String,
    retry_after: Option<Duration>,
}

impl Problem {
    /// What was sent is not what it should be.
    pub(super) fn malformed(message: String) -> Self {
        Self { code: Code::InvalidArgument, message, retry_after: None }
    }

    /// The registry has nothing that fits.
    pub(super) fn missing(message: String) -> Self {
        Self { code: Code::NotFound, message, retry_after: None }
    }

    /// A place behind the end was asked for.
    pub(super) fn past_the_end(message: String) -> Self {
        Self { code: Code::OutOfRange, message, retry_after: None }
    }

    /// What the registry has goes beyond what is taken.
    pub(super) fn excessive(message: String) -> Self {
        Self { code: Code::FailedPrecondition, message, retry_after: None }
    }

    /// Too much runs already.
    pub(super) fn busy(message: String) -> Self {
        Self { code: Code::ResourceExhausted, message, retry_after: None }
    }

    /// The daemon is about to end.
    pub(super) fn stopping() -> Self {
        Self { code: Code::Unavailable, message: "the daemon is stopping".to_owned(), retry_after: None }
    }

    /// The disk did not give back what it holds.
    pub(super) fn unreadable(error: &std::io::Error) -> Self {
        Self { code: Code::Internal, message: format!("reading what is held: {error}"), retry_after: None }
    }

    /// With when to try again; whole seconds are all that anybody needs.
    pub(super) fn message(&self) -> String {
        match self.retry_after {
            Some(after) => {
                format!("{}; try again in {}", self.message, humantime::format_duration(seconds(after)))
            }
            None => self.message.clone(),
        }
    }
}

fn seconds(time: Duration) -> Duration {
    Duration::from_secs(whole_seconds(time))
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Malformed(error) => Self::malformed(error.to_string()),
            AskError::Unasked(_) | AskError::Unknown(_) => Self::missing(error.to_string()),
            AskError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self { code: Code::Internal, message: error.to_string(), retry_after: None }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, retry_after) = match &refusal {
            Refusal::MissingManifest(_)
            | Refusal::MissingBlob(_)
            | Refusal::MissingTags(_)
            | Refusal::MissingReferrers(_) => (Code::NotFound, None),
            Refusal::Denied { .. } => (Code::PermissionDenied, None),
            Refusal::Unanswered { failure, .. } => of_failure(failure),
            Refusal::NoRoom(_) => (Code::ResourceExhausted, None),
            Refusal::Store(error) | Refusal::Unwritable { error, .. } if error.is_for_want_of_room() => {
                (Code::ResourceExhausted, None)
            }
            Refusal::Unwritable { .. } => (Code::FailedPrecondition, None),
            Refusal::Store(error) if error.is_of_writing() => (Code::FailedPrecondition, None),
            Refusal::NotAManifest(_) => (Code::InvalidArgument, None),
            Refusal::Interrupted(_) => (Code::Unavailable, None),
            Refusal::Store(_) | Refusal::Internal => (Code::Internal, None),
        };
        Self { code, message: refusal.to_string(), retry_after }
    }
}

fn of_failure(failure: &Failure) -> (Code, Option<Duration>) {
    match failure {
        Failure::Missing => (Code::NotFound, None),
        Failure::Denied { .. } | Failure::Forbidden(_) => (Code::PermissionDenied, None),
        Failure::NoToken { .. } => (Code::Unauthenticated, None),
        Failure::Limited { retry_after } => (Code::ResourceExhausted, *retry_after),
        Failure::Shut { because: Because::Limited, opens_in } => (Code::ResourceExhausted, Some(*opens_in)),
        Failure::Shut { because: Because::Failing | Because::Busy, opens_in } => {
            (Code::Unavailable, Some(*opens_in))
        }
        Failure::Unavailable { retry_after, .. } => (Code::Unavailable, *retry_after),
        Failure::Unreachable(_)
        | Failure::Broken(_)
        | Failure::TimedOut(_)
        | Failure::NoHead { .. }
        | Failure::TooLarge { .. }
        | Failure::Unusable(_) => (Code::Unavailable, None),
    }
}

impl From<FollowError> for Problem {
    fn from(error: FollowError) -> Self {
        Refusal::Interrupted(error).into()
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let mut metadata = MetadataMap::new();
        if let Some(after) = problem.retry_after {
            metadata.insert(RETRY_AFTER, seconds(after).as_secs().into());
        }
        Self::with_metadata(problem.code, problem.message(), metadata)
    }
}

impl Problem {
    /// What it is told as where others go on, with what it took until then.
    pub(super) fn after(&self, spent: Cost) -> Failed {
        Failed {
            code: self.code.into(),
            reason: self.message(),
            retry_after: self.retry_after.map(|after| super::duration(seconds(after))),
            cost: Some(super::cost(spent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_when_to_try_again_in_the_message_and_beside_it() {
        let failure = Failure::Limited { retry_after: Some(Duration::from_millis(89_500)) };
        let refusal = Refusal::Unanswered { what: "docker.io/library/a:latest".into(), failure };
        let status = Status::from(Problem::from(refusal.clone()));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().ends_with("; try again in 1m 30s"), "{status}");
        assert_eq!(status.metadata().get(RETRY_AFTER).unwrap(), "90");
        let failed = Problem::from(refusal).after(Cost::default());
        assert_eq!(failed.retry_after.map(|after| after.seconds), Some(90));
    }

    #[test]
    fn each_refusal_has_a_code_of_its_own_kind() {
        let unanswered = |failure| Refusal::Unanswered { what: String::new(), failure };
        for (refusal, code) in [
            (Refusal::MissingManifest(String::new()), Code::NotFound),
            (Refusal::MissingBlob(String::new()), Code::NotFound),
            (Refusal::Denied { what: String::new(), challenge: None }, Code::PermissionDenied),
            (Refusal::Internal, Code::Internal),
            (
                unanswered(Failure::NoToken { status: 401, challenge: None, login: None }),
                Code::Unauthenticated,
            ),
            (unanswered(Failure::Limited { retry_after: None }), Code::ResourceExhausted),
            (unanswered(Failure::Unavailable { status: 503, retry_after: None }), Code::Unavailable),
            (unanswered(Failure::Unusable("html".into())), Code::Unavailable),
        ] {
            let status = Status::from(Problem::from(refusal));
            assert_eq!((status.code(), status.metadata().get(RETRY_AFTER)), (code, None));
        }
    }
}
