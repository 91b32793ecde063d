//! The replies that say no, word for word as Docker Hub says them, and what every reply has in common. Pure: what
//! to refuse is decided elsewhere.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::config::{Refusal, RetryAfter};

/// A whole reply: its bytes are sent as they are, or broken by a fault.
pub(super) struct Answer {
    pub(super) response: Response<Bytes>,
    pub(super) counted: bool,
}

impl Answer {
    pub(super) fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        Self { response, counted: false }
    }

    pub(super) fn text(status: StatusCode, text: &'static str) -> Self {
        Self::new(status).with(CONTENT_TYPE, "text/plain").body(Bytes::from_static(text.as_bytes()))
    }

    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status).with(CONTENT_TYPE, "application/json").body(Bytes::from(value.to_string()))
    }

    /// An error as the distribution specification has it.
    pub(super) fn error(status: StatusCode, code: &str, message: &str, detail: Value) -> Self {
        let errors = json!({ "errors": [{ "code": code, "message": message, "detail": detail }] });
        Self::json(status, &errors)
    }

    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("the stand-in writes visible ASCII into headers");
        self.response.headers_mut().insert(name, value);
        self
    }

    pub(super) fn with_all(mut self, headers: HeaderMap) -> Self {
        self.response.headers_mut().extend(headers);
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        *self.response.body_mut() = body;
        self
    }

    pub(super) fn counted(self) -> Self {
        Self { counted: true, ..self }
    }

    /// States the length, and drops the body where it was only asked about.
    pub(super) fn finish(mut self, head: bool) -> Self {
        let bodiless = self.response.status() == StatusCode::NOT_MODIFIED;
        if !bodiless && !self.response.headers().contains_key(CONTENT_LENGTH) {
            let length = HeaderValue::from(self.response.body().len());
            self.response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        if head || bodiless { self.body(Bytes::new()) } else { self }
    }
}

/// The pull limit's 429.
pub(super) fn pull_limit(
    refusal: Refusal,
    form: Option<RetryAfter>,
    wait: Duration,
    wall: SystemTime,
) -> Answer {
    const MODERN: &str = "You have reached your pull rate limit. You may increase the limit by authenticating and \
                          upgrading: https://www.docker.com/increase-rate-limit";
    const EARLY: &str = "You have reached your pull rate limit. You may increase the limit by authenticating and \
                         upgrading: https://www.docker.com/increase-rate-limits";
    let many = StatusCode::TOO_MANY_REQUESTS;
    let (answer, usual) = match refusal {
        Refusal::TooManyRequests => {
            let error = json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": MODERN }] });
            (Answer::json(many, &error), RetryAfter::Absent)
        }
        Refusal::Denied => {
            let error = json!({ "errors": [{ "code": "DENIED", "message": EARLY }] });
            let answer = Answer::json(many, &error).with(CACHE_CONTROL, "no-cache").with(CONNECTION, "close");
            (answer, RetryAfter::Seconds)
        }
    };
    let at = wall + wait;
    let unix = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match form.unwrap_or(usual) {
        RetryAfter::Absent => answer,
        RetryAfter::Seconds => answer.with(RETRY_AFTER, &wait.as_secs().to_string()),
        RetryAfter::HttpDate => answer.with(RETRY_AFTER, &httpdate::fmt_http_date(at)),
        RetryAfter::UnixTimestamp => answer.with(RETRY_AFTER, &unix.to_string()),
    }
}

/// The 429 of the limit on abuse.
pub(super) fn abuse_limit(lasts: Option<Duration>) -> Answer {
    let answer = Answer::text(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests (HAP429)\n");
    match lasts {
        None => answer,
        Some(lasts) => answer.with(RETRY_AFTER, &lasts.as_secs().to_string()),
    }
}

/// 403 that says nothing of what was asked for.
pub(super) fn forbidden() -> Answer {
    Answer::text(StatusCode::FORBIDDEN, "Forbidden\n")
}

pub(super) fn unavailable() -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n")
}

pub(super) fn captive_portal() -> Answer {
    let page = "<!doctype html><title>Welcome</title><p>Please sign in to use this network.</p>\n";
    Answer::new(StatusCode::OK).with(CONTENT_TYPE, "text/html").body(Bytes::from_static(page.as_bytes()))
}

pub(super) fn not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub(super) fn method_not_allowed(allow: &str) -> Answer {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let answer = Answer::error(status, "UNSUPPORTED", "The operation is unsupported.", Value::Null);
    answer.with(http::header::ALLOW, allow)
}

/// The 401 of a repository that is missing, private, or asked for without a token: they are not told apart.
pub(super) fn unauthorized(realm: &str, repository: Option<&str>, token: TokenState) -> Answer {
    let mut challenge = format!(r#"Bearer realm="{realm}",service="{SERVICE}""#);
    let mut detail = Value::Null;
    if let Some(repository) = repository {
        challenge.push_str(&format!(r#",scope="repository:{repository}:pull""#));
        detail = json!([{ "Type": "repository", "Class": "", "Name": repository, "Action": "pull" }]);
    }
    match token {
        TokenState::None => {}
        TokenState::Invalid => challenge.push_str(r#",error="invalid_token""#),
        TokenState::Insufficient => challenge.push_str(r#",error="insufficient_scope""#),
    }
    let status = StatusCode::UNAUTHORIZED;
    let answer = Answer::error(status, "UNAUTHORIZED", "authentication required", detail);
    answer.with(WWW_AUTHENTICATE, &challenge)
}

/// The service that tokens are for.
pub(super) const SERVICE: &str = "registry.docker.io";

/// What was wrong with the token that a refused request brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenState {
    None,
    Invalid,
    Insufficient,
}
