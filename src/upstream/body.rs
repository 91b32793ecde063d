//! Bodies: read as they come or whole, never longer than announced, never waited for without end.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::failure::{Cause, Failure, Wait};
use super::pace::Pace;
use super::record::Tally;
use super::span::Span;

/// A blob on its way, or the rest of one.
pub struct BlobBody {
    /// How long the whole blob is, in bytes, where the registry says so.
    pub total: Option<u64>,
    /// The offset of the body's first byte in the blob: 0 where the registry ignored what was asked for.
    pub starts_at: u64,
    /// The offset behind its last byte, where the answer tells.
    pub ends_at: Option<u64>,
    /// Whether the registry says that it gives parts of it.
    pub ranges: bool,
    /// The bytes. It ends well only at the announced end, and yields nothing after a failure.
    pub body: BoxStream<'static, Result<Bytes, Failure>>,
}

impl std::fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobBody")
            .field("total", &self.total)
            .field("starts_at", &self.starts_at)
            .finish_non_exhaustive()
    }
}

/// The body's length by its header, in bytes.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What of a blob an answer carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The whole blob's length, in bytes.
    pub(super) total: Option<u64>,
    /// Where the body begins.
    pub(super) starts_at: u64,
    /// How many bytes the body is to bring.
    pub(super) awaited: Option<u64>,
    /// Whether parts can be had.
    pub(super) ranges: bool,
}

impl Extent {
    /// Reads it off an answer to a request for these bytes, given the status was 200 or 206.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, span: Span) -> Result<Self, Failure> {
        let length = length(headers);
        if status == StatusCode::OK {
            let ranges = headers.get(ACCEPT_RANGES).is_some_and(|unit| unit.as_bytes() == b"bytes");
            return Ok(Self { total: length, starts_at: 0, awaited: length, ranges });
        }
        let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let range = range.ok_or_else(|| Failure::unusable("a part of a blob that does not say which"))?;
        let (first, last, total) = parse_content_range(range)
            .ok_or_else(|| Failure::unusable("a part of a blob that can't be told"))?;
        let from = span.from;
        if span == Span::WHOLE || first != from {
            return Err(Failure::unusable(format!("the bytes from {first} on, where {from} was asked for")));
        }
        if span.to.is_some_and(|to| last >= to) {
            return Err(Failure::unusable("more of a blob than was asked for"));
        }
        if length.is_some_and(|length| length != last - first + 1) {
            return Err(Failure::unusable("a part of a blob that is not as long as it says"));
        }
        // Without a total the part's own end is all that is promised.
        let total = total.or(if span.is_part() { None } else { last.checked_add(1) });
        let awaited = if span.is_part() { Some(last - first + 1) } else { total.map(|total| total - first) };
        Ok(Self { total, starts_at: first, awaited, ranges: true })
    }
}

/// Reads `bytes FIRST-LAST/TOTAL` (RFC 9110, section 14.4), both ends inclusive.
fn parse_content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse::<u64>().ok()?),
    };
    let sound = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
    sound.then_some((first, last, total))
}

/// The chunks of a body of which `awaited` bytes must come, each within `idle`.
pub(super) fn chunks(
    tally: Tally,
    incoming: Incoming,
    awaited: Option<u64>,
    idle: Duration,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    stream::try_unfold((incoming, awaited, tally), move |(mut incoming, mut left, mut tally)| async move {
        loop {
            // Time that the reader takes between two chunks does not count: a chunk that is there comes first.
            let frame = timeout(idle, incoming.frame()).await.map_err(|_| Failure::TimedOut(Wait::Body))?;
            let Some(frame) = frame else {
                return match left {
                    None | Some(0) => Ok(None),
                    Some(left) => Err(Failure::Broken(Cause::new(format!("{left} bytes are missing")))),
                };
            };
            let frame = frame.map_err(|error| Failure::Broken(Cause::new(error)))?;
            let Ok(chunk) = frame.into_data() else { continue };
            if chunk.is_empty() {
                continue;
            }
            tally.add(chunk.len());
            if let Some(left) = &mut left {
                *left = left
                    .checked_sub(chunk.len() as u64)
                    .ok_or_else(|| Failure::unusable("more bytes than announced"))?;
            }
            if left == Some(0) {
                // Nobody need read on to find the end.
                tally.tell();
            }
            return Ok(Some((chunk, (incoming, left, tally))));
        }
    })
    .boxed()
}

/// A body that is read no faster than this.
pub(super) fn paced(
    body: BoxStream<'static, Result<Bytes, Failure>>,
    pace: Arc<Pace>,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    body.then(move |chunk| {
        let pace = Arc::clone(&pace);
        async move {
            if let Ok(chunk) = &chunk {
                pace.take(chunk.len()).await;
            }
            chunk
        }
    })
    .boxed()
}

/// A whole body of at most `most` bytes that has to be there within this time.
pub(super) async fn whole(
    tally: Tally,
    incoming: Incoming,
    announced: Option<u64>,
    most: u64,
    within: Duration,
) -> Result<Bytes, Failure> {
    let too_long = || Failure::TooLarge { most };
    if announced.is_some_and(|announced| announced > most) {
        return Err(too_long());
    }
    let read = async {
        let mut chunks = chunks(tally, incoming, announced, within);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(too_long());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    timeout(within, read).await.unwrap_or(Err(Failure::TimedOut(Wait::Body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(
        status: u16,
        length: Option<&str>,
        range: Option<&str>,
        span: Span,
    ) -> Option<(Option<u64>, u64)> {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.parse().unwrap());
        }
        if let Some(range) = range {
            headers.insert(CONTENT_RANGE, range.parse().unwrap());
        }
        let extent = Extent::of(StatusCode::from_u16(status).unwrap(), &headers, span).ok()?;
        Some((extent.total, extent.starts_at))
    }

    #[test]
    fn a_part_with_an_end_ends_there_at_the_latest() {
        for (status, range, expected) in [
            (206, Some("bytes 4-9/20"), Some((Some(20), 4))),
            (206, Some("bytes 4-7/20"), Some((Some(20), 4))),
            (206, Some("bytes 4-9/*"), Some((None, 4))),
            (206, Some("bytes 4-10/20"), None),
            (206, Some("bytes 5-9/20"), None),
            (200, None, Some((Some(20), 0))),
        ] {
            let length = (status == 200).then_some("20");
            assert_eq!(extent(status, length, range, Span::part(&(4..10))), expected, "{status} {range:?}");
        }
    }

    #[test]
    fn a_part_is_taken_only_where_it_is_the_part_that_was_asked_for() {
        for (status, length, range, from, expected) in [
            (200, Some("10"), None, 0, Some((Some(10), 0))),
            (200, None, None, 0, Some((None, 0))),
            (200, Some("10"), None, 4, Some((Some(10), 0))),
            (206, Some("6"), Some("bytes 4-9/10"), 4, Some((Some(10), 4))),
            (206, None, Some("bytes 4-9/10"), 4, Some((Some(10), 4))),
            (206, Some("6"), Some("bytes 4-9/*"), 4, Some((Some(10), 4))),
            (206, Some("3"), Some("bytes 4-6/10"), 4, Some((Some(10), 4))),
            (206, Some("5"), Some("bytes 4-9/10"), 4, None),
            (206, Some("6"), Some("bytes 3-8/10"), 4, None),
            (206, Some("6"), None, 4, None),
            (206, Some("10"), Some("bytes 0-9/10"), 0, None),
            (206, None, Some("bytes 9-4/10"), 9, None),
            (206, None, Some("bytes 4-10/10"), 4, None),
            (206, None, Some("bytes 4-18446744073709551615/*"), 4, None),
            (206, None, Some("bytes */10"), 4, None),
            (206, None, Some("pages 4-9/10"), 4, None),
            (206, None, Some("bytes 4-/10"), 4, None),
        ] {
            let span = Span::from_on(from);
            assert_eq!(extent(status, length, range, span), expected, "{status} {length:?} {range:?} {from}");
        }
    }
}
