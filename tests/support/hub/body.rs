//! How a body goes out: at once, or in pieces that can be held, slowed or cut off at an exact byte. It knows bytes
//! and offsets, not what they mean.

use std::convert::Infallible;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use super::door::Cut;
use super::fault::Ticket;
use super::shared::Shared;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The size of a piece.
const PIECE: u64 = 64 * 1024;

/// How often a second a piece of a slow body goes out.
const TICKS: u64 = 20;

/// What happens to a body on its way.
#[derive(Default)]
pub(super) struct Course {
    /// Stop before this offset until let go.
    pub(super) hold: Option<(u64, Ticket)>,
    /// End the connection after this many bytes.
    pub(super) cut: Option<(u64, Cut)>,
    /// Bytes a second.
    pub(super) slow: Option<u64>,
    /// Whose counter of CDN bytes rises as they go.
    pub(super) counted_by: Option<Arc<Shared>>,
}

/// A body that goes out at once.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// A body that goes out piece by piece.
pub(super) fn paced(bytes: Bytes, course: Course) -> Body {
    let start = Sending { rest: bytes, sent: 0, course };
    StreamBody::new(stream::unfold(start, |sending| async move {
        let (piece, sending) = sending.next().await?;
        Some((Ok(Frame::data(piece)), sending))
    }))
    .boxed_unsync()
}

struct Sending {
    rest: Bytes,
    sent: u64,
    course: Course,
}

impl Sending {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if let Some((_, ticket)) = self.course.hold.take_if(|(at, _)| *at <= self.sent) {
            ticket.wait().await;
        }
        if self.rest.is_empty() {
            return None;
        }
        if let Some((_, cut)) = self.course.cut.take_if(|(at, _)| *at <= self.sent) {
            cut.when_flushed();
            return future::pending().await;
        }
        let mut length = self.rest.len() as u64;
        length = length.min(self.course.slow.map_or(PIECE, |rate| (rate / TICKS).max(1)));
        let stops =
            [self.course.hold.as_ref().map(|(at, _)| *at), self.course.cut.as_ref().map(|(at, _)| *at)];
        for stop in stops.into_iter().flatten() {
            length = length.min(stop - self.sent);
        }
        if self.course.slow.is_some() {
            tokio::time::sleep(Duration::from_secs(1) / TICKS as u32).await;
        }
        let piece = self.rest.split_to(usize::try_from(length).unwrap_or(self.rest.len()));
        self.sent += length;
        if let Some(hub) = &self.course.counted_by {
            hub.record(|ledger| ledger.cdn_sent(length));
        }
        Some((piece, self))
    }
}
