//! How the commands say things: sizes, times, costs, standings. One word for one thing, the same as in the log.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytesize::ByteSize;
use serde::Serialize;
use serde_json::{Value, json};
use tidehold::clock;
use tidehold::proto::v1;
use tonic::Code;

/// A size in bytes, in units that a person reads.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A length of time in whole seconds, nothing of it below none.
pub(super) fn seconds(time: Option<prost_types::Duration>) -> u64 {
    time.and_then(|time| u64::try_from(time.seconds).ok()).unwrap_or(0)
}

/// How long something took or is ago, to the second.
pub(super) fn length(seconds: u64) -> String {
    // As the configuration has them: 30d.
    let written = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    written.replace("days", "d").replace("day", "d")
}

/// How long ago that was; more exactly the less it is.
pub(super) fn since(at: Option<prost_types::Timestamp>) -> String {
    roughly(moment(at).and_then(|at| clock::now().duration_since(at).ok()))
}

/// How long it is until then.
pub(super) fn until(at: Option<prost_types::Timestamp>) -> String {
    roughly(moment(at).and_then(|at| at.duration_since(clock::now()).ok()))
}

/// In its two largest units.
fn roughly(time: Option<Duration>) -> String {
    let exact = length(time.unwrap_or_default().as_secs());
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A point in time, as logs have it.
pub(super) fn time(at: Option<prost_types::Timestamp>) -> String {
    moment(at).map(|at| humantime::format_rfc3339_millis(at).to_string()).unwrap_or_default()
}

fn moment(at: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}

/// A length of time that is mostly below a second.
pub(super) fn milliseconds(time: Option<prost_types::Duration>) -> String {
    let time = time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default();
    format!("{} ms", time.as_millis())
}

/// A message as one JSON object, on one line.
pub(super) fn json(message: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string(message).context("write JSON")
}

/// How long ago something was, to the second, minute, hour or day; a dash where it never was.
pub(super) fn ago(then: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    let Some(then) = then.and_then(|then| SystemTime::try_from(then).ok()) else { return "-".to_owned() };
    match now.duration_since(then).unwrap_or_default().as_secs() {
        0 => "just now".to_owned(),
        seconds @ 1..60 => format!("{seconds}s ago"),
        seconds @ 60..3600 => format!("{}m ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h ago", seconds / 3600),
        seconds => format!("{}d ago", seconds / 86_400),
    }
}

/// So many of something, by its name.
pub(super) fn count(number: u64, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}

/// How many of the counted requests nobody had asked for yet, behind their number: else it would seem that pulls had cost so
/// much more than without us.
pub(super) fn by_operator(counted: u64) -> String {
    match counted {
        0 => String::new(),
        counted => format!(" ({counted} of them by commands such as `tidehold warm`)"),
    }
}

/// As much of a digest as tells it from others for a reader: twelve digits, as docker prints them.
pub(super) fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// What an answer took.
pub(super) fn cost(cost: v1::Cost) -> String {
    let v1::Cost { requests, counted } = cost;
    match requests {
        0 => "no request".to_owned(),
        1 => format!("1 request, {counted} counted"),
        _ => format!("{requests} requests, {counted} counted"),
    }
}

pub(super) fn cost_json(cost: Option<v1::Cost>) -> Value {
    let v1::Cost { requests, counted } = cost.unwrap_or_default();
    json!({ "requests": requests, "counted": counted })
}

pub(super) fn standing(standing: v1::Standing) -> &'static str {
    match standing {
        v1::Standing::Unspecified => "unknown",
        v1::Standing::Immutable => "immutable",
        v1::Standing::Fresh => "fresh",
        v1::Standing::Unchanged => "unchanged",
        v1::Standing::Changed => "changed",
        v1::Standing::Stale => "stale",
    }
}

/// The name that gRPC gives a code.
pub(super) fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a registry may have had a word in, without what a terminal would act on.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// A word of a command, which a shell takes for nothing else.
pub(super) fn quoted(word: &str) -> String {
    let fine = |char: char| char.is_ascii_alphanumeric() || "_@%+=:,./-".contains(char);
    match !word.is_empty() && word.chars().all(fine) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A path in a command.
pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_command_is_quoted_where_it_has_to_be() {
        for (word, written) in [("nginx", "nginx"), ("/a/b-1", "/a/b-1"), ("a b", "'a b'"), ("", "''")] {
            assert_eq!(quoted(word), written);
        }
        assert_eq!(quoted("a'$(b)`"), r"'a'\''$(b)`'");
    }

    #[test]
    fn what_a_person_reads_has_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(length(3661), "1h 1m 1s");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |seconds| ago(Some((now - Duration::from_secs(seconds)).into()), now);
        let told = [0, 59, 3599, 7200, 86_400].map(ago);
        assert_eq!(told, ["just now", "59s ago", "59m ago", "2h ago", "1d ago"]);
        assert_eq!((count(1, "blob"), count(0, "blob")), ("1 blob".to_owned(), "0 blobs".to_owned()));
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(cost(v1::Cost { requests: 0, counted: 0 }), "no request");
        assert_eq!(cost(v1::Cost { requests: 3, counted: 2 }), "3 requests, 2 counted");
        assert_eq!(plain("a\u{1b}[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }
}
