//! The CDN: bytes behind signed addresses that expire, in ranges where asked. It knows no repositories, no tokens
//! and no digests of what it sends; an `Authorization` header it takes ill.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, Method, StatusCode};

use super::exchange::Ask;
use super::reply::{self, Answer};
use super::shared::Shared;
use super::target::Target;

/// Answers a request at the CDN's listener.
pub(super) fn answer(hub: &Shared, ask: &Ask) -> Answer {
    if ask.headers.contains_key(AUTHORIZATION) {
        return Answer::text(StatusCode::BAD_REQUEST, "Only one auth mechanism allowed\n");
    }
    if ![Method::GET, Method::HEAD].contains(&ask.method) {
        return reply::method_not_allowed("GET, HEAD");
    }
    let Target::CdnBlob { digest, expires, signature } = &ask.target else { return reply::not_found() };
    let in_time = expires.parse::<u64>().is_ok_and(|expires| hub.clock.unix() < expires);
    if !in_time || *signature != hub.seal.address(digest, expires) {
        return Answer::text(StatusCode::FORBIDDEN, "Request has expired\n");
    }
    let Some(bytes) = hub.with(|state| state.contents.cdn_blob(digest)) else { return reply::not_found() };
    let tag = entity_tag(digest);
    ranged(bytes, &ask.headers, &tag)
        .with(ETAG, &format!("\"{tag}\""))
        .with(LAST_MODIFIED, "Mon, 01 Jan 2024 00:00:00 GMT")
}

/// Stable, and no digest of anything: object stores tag what came in parts like this.
fn entity_tag(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let reversed: String = hex.chars().rev().take(32).collect();
    format!("{reversed}-2")
}

/// The bytes, or the one range of them that is asked for (RFC 9110, section 14).
pub(super) fn ranged(bytes: Bytes, headers: &HeaderMap, entity_tag: &str) -> Answer {
    let answer = |status| {
        let answer = Answer::new(status).with(ACCEPT_RANGES, "bytes");
        answer.with(CONTENT_TYPE, "application/octet-stream")
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let same = text(IF_RANGE).is_none_or(|tag| tag.trim_matches('"') == entity_tag);
    let length = bytes.len();
    match text(RANGE).filter(|_| same).map_or(Part::Whole, |range| Part::read(range, length)) {
        Part::Whole => answer(StatusCode::OK).body(bytes),
        Part::Range { from, to } => answer(StatusCode::PARTIAL_CONTENT)
            .with(CONTENT_RANGE, &format!("bytes {from}-{to}/{length}"))
            .body(bytes.slice(from..=to)),
        Part::Unsatisfiable => {
            answer(StatusCode::RANGE_NOT_SATISFIABLE).with(CONTENT_RANGE, &format!("bytes */{length}"))
        }
    }
}

enum Part {
    Whole,
    /// Both ends are within, and included.
    Range {
        from: usize,
        to: usize,
    },
    Unsatisfiable,
}

impl Part {
    /// What can't be read, and several ranges at once, are answered with the whole.
    fn read(range: &str, length: usize) -> Self {
        let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => (from, to.min(length.saturating_sub(1))),
            (Ok(from), Err(_)) if to.is_empty() => (from, length.saturating_sub(1)),
            (Err(_), Ok(0)) if from.is_empty() => return Self::Unsatisfiable,
            (Err(_), Ok(last)) if from.is_empty() => (length.saturating_sub(last), length.saturating_sub(1)),
            _ => return Self::Whole,
        };
        if from >= length {
            Self::Unsatisfiable
        } else if from > to {
            Self::Whole
        } else {
            Self::Range { from, to }
        }
    }
}
