//! The one mapping from what went wrong to a status and the errors of the OCI distribution specification.

use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;

use super::{CONTENT_DIGEST, ascii};
use crate::oci::{DigestError, ListError, NameError, RangeError};
use crate::resolve::{BearerChallenge, Because, Failure, Refusal, whole_seconds};
use crate::serve::http::Body;
use crate::store::FollowError;

/// When to try again where the registry did not say, in seconds.
const RETRY_AFTER_SECONDS: u64 = 10;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(super) enum Problem {
    /// Something other than GET or HEAD.
    ReadOnly,
    /// A path that the pull side of the specification does not have.
    NoSuchRoute,
    /// Two registries named at once.
    Ambiguous(String),
    /// A malformed name, tag or digest.
    BadName(NameError),
    /// A malformed digest.
    BadDigest(DigestError),
    /// A list that cannot be asked for.
    BadList(ListError),
    /// A range outside the blob.
    BadRange(RangeError),
    /// A manifest of a type that the client does not accept.
    NotAccepted(String),
    /// The resolver has nothing to answer with.
    Refused(Refusal),
    /// A download failed before its length was known.
    Interrupted(FollowError),
}

impl Problem {
    pub(super) fn into_response(self, method: &Method) -> Response<Body> {
        let (status, code, retry_after) = self.kind();
        let message = self.message();
        if status.is_server_error() {
            tracing::warn!(%message, "nothing to answer with");
        }
        let body = Errors { errors: [Entry { code, message: &message }] };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let length = body.len();
        let body = if method == Method::HEAD { Body::empty() } else { Body::Bytes(body.into()) };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        if let Some(after) = retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after).max(1).into());
        }
        if let Self::ReadOnly = self {
            // RFC 9110, section 15.5.6.
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if let Self::Refused(Refusal::Denied { challenge: Some(challenge), .. }) = &self {
            headers.insert(header::WWW_AUTHENTICATE, BearerChallenge::to_header(challenge));
        }
        if let Self::BadRange(RangeError { total }) = self {
            headers.insert(header::CONTENT_RANGE, ascii(&format!("bytes */{total}")));
        }
        debug_assert!(!headers.contains_key(CONTENT_DIGEST), "an error has no digest");
        response
    }

    /// Status, code of the specification, and when to try again.
    fn kind(&self) -> (StatusCode, &'static str, Option<Duration>) {
        match self {
            Self::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", None),
            Self::NoSuchRoute => (StatusCode::NOT_FOUND, "UNSUPPORTED", None),
            Self::Ambiguous(_) | Self::BadName(NameError::Registry(_) | NameError::Repository(_)) => {
                (StatusCode::BAD_REQUEST, "NAME_INVALID", None)
            }
            Self::BadName(NameError::Tag(_)) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID", None),
            Self::BadName(NameError::Digest(_)) | Self::BadDigest(_) => {
                (StatusCode::BAD_REQUEST, "DIGEST_INVALID", None)
            }
            Self::BadList(error) => (StatusCode::BAD_REQUEST, of_list(error), None),
            Self::BadRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", None),
            Self::NotAccepted(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", None),
            Self::Refused(refusal) => of_refusal(refusal),
            Self::Interrupted(_) => (StatusCode::BAD_GATEWAY, "UNAVAILABLE", retry_after(None)),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::ReadOnly => "this is a mirror to pull from: push to the registry itself".to_owned(),
            Self::NoSuchRoute => "the mirror serves /v2/<name>/manifests/…, /v2/<name>/blobs/…, \
                                  /v2/<name>/tags/list and /v2/<name>/referrers/…"
                .to_owned(),
            Self::Ambiguous(registries) => format!("ns= names two registries, {registries}: name one"),
            Self::BadName(error) => error.to_string(),
            Self::BadDigest(error) => error.to_string(),
            Self::BadList(error) => error.to_string(),
            Self::BadRange(error) => error.to_string(),
            Self::NotAccepted(media_type) => {
                format!(
                    "the tag stands for a manifest of type {media_type}, which the Accept header does not name"
                )
            }
            Self::Refused(refusal) => refusal.to_string(),
            Self::Interrupted(error) => error.to_string(),
        }
    }
}

fn of_list(error: &ListError) -> &'static str {
    match error {
        // The reference registry's own code; the specification has none for it.
        ListError::Entries(_) | ListError::Last(_) | ListError::Twice(_) => "PAGINATION_NUMBER_INVALID",
        ListError::ArtifactType(_) => "UNSUPPORTED",
        ListError::LeadsNowhere
        | ListError::NotTags(_)
        | ListError::NotReferrers(_)
        | ListError::NotAnIndex => "UNKNOWN",
    }
}

fn of_refusal(refusal: &Refusal) -> (StatusCode, &'static str, Option<Duration>) {
    match refusal {
        Refusal::MissingBlob(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN", None),
        Refusal::MissingManifest(_) | Refusal::NotAManifest(_) => {
            (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", None)
        }
        Refusal::MissingTags(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN", None),
        // With any code but NAME_UNKNOWN a client falls back on the tag that stands in for referrers.
        Refusal::MissingReferrers(_) => (StatusCode::NOT_FOUND, "UNSUPPORTED", None),
        // Whoever is told how to get a token may come again; nobody is ever asked for a password.
        Refusal::Denied { challenge: Some(_), .. } => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", None),
        Refusal::Denied { challenge: None, .. } => (StatusCode::FORBIDDEN, "DENIED", None),
        Refusal::Unanswered { failure, .. } => of_failure(failure),
        Refusal::Interrupted(_) => (StatusCode::BAD_GATEWAY, "UNAVAILABLE", retry_after(None)),
        // Not 503, which containerd asks again here: at any other it goes on to the registry itself.
        Refusal::NoRoom(_) | Refusal::Unwritable { .. } => {
            (StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE", None)
        }
        Refusal::Store(error) if error.is_for_want_of_room() || error.is_of_writing() => {
            (StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE", None)
        }
        Refusal::Store(_) | Refusal::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", None),
    }
}

fn of_failure(failure: &Failure) -> (StatusCode, &'static str, Option<Duration>) {
    match failure {
        Failure::Missing => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", None),
        Failure::Denied { .. } | Failure::NoToken { .. } | Failure::Forbidden(_) => {
            (StatusCode::FORBIDDEN, "DENIED", None)
        }
        Failure::Limited { retry_after: after } => {
            (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", retry_after(*after))
        }
        Failure::Shut { because: Because::Limited, opens_in } => {
            (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", retry_after(Some(*opens_in)))
        }
        Failure::Shut { because: Because::Failing | Because::Busy, opens_in } => {
            (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", retry_after(Some(*opens_in)))
        }
        Failure::Unavailable { retry_after: after, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", retry_after(*after))
        }
        Failure::Unreachable(_) | Failure::Broken(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", retry_after(None))
        }
        Failure::TimedOut(_) => (StatusCode::GATEWAY_TIMEOUT, "UNAVAILABLE", retry_after(None)),
        Failure::NoHead { .. } | Failure::TooLarge { .. } | Failure::Unusable(_) => {
            (StatusCode::BAD_GATEWAY, "UNAVAILABLE", None)
        }
    }
}

fn retry_after(said: Option<Duration>) -> Option<Duration> {
    Some(said.unwrap_or(Duration::from_secs(RETRY_AFTER_SECONDS)))
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::BadName(error)
    }
}

impl From<DigestError> for Problem {
    fn from(error: DigestError) -> Self {
        Self::BadDigest(error)
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        Self::BadList(error)
    }
}

impl From<RangeError> for Problem {
    fn from(error: RangeError) -> Self {
        Self::BadRange(error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<FollowError> for Problem {
    fn from(error: FollowError) -> Self {
        Self::Interrupted(error)
    }
}
