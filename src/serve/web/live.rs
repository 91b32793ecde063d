//! The flight record as it grows, as server-sent events (HTML, section 9.2): one event a request, with its number as id.
//!
//! Whoever comes back goes on where they were, by the header `Last-Event-ID` or `after=`; without either there are only
//! new ones. A follower that takes nothing in is cut off, and at a stop all see the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};

use super::api::Asked;
use super::{Problem, Site};
use crate::record::{Record, Which};

/// How often somebody who follows hears that there is nothing new: also how it is noticed that they have left.
const SAYS_NOTHING_EVERY: Duration = Duration::from_secs(15);

/// After how long a browser comes back whose connection was cut.
const COME_BACK_AFTER: Duration = Duration::from_secs(2);

pub(super) async fn answer(
    State(site): State<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = Asked(query);
    let mut which = asked.which()?;
    let place = Arc::clone(&site.followers).try_acquire_owned().map_err(|_| Problem::busy())?;
    let overview = site.overview()?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (after, last) = match seen.or(asked.number("after")?) {
        Some(seen) => (known(overview.record(), seen), usize::MAX),
        None => (0, 0),
    };
    which.after = after;
    let following = overview.record().follow(which, last);
    let hello = Event::default().retry(COME_BACK_AFTER).comment("each upstream request from now on");
    let requests = stream::unfold((following, place), |(mut following, place)| async move {
        let request = following.next().await?;
        let event = Event::default().id(request.number.to_string());
        // None of the messages has a key or a number that JSON has not.
        let event = event.data(serde_json::to_string(&*request).unwrap_or_default());
        Some((event, (following, place)))
    });
    let until_stop = requests.take_until(site.stop.clone().cancelled_owned());
    let events = stream::iter([hello]).chain(until_stop).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(SAYS_NOTHING_EVERY)).into_response())
}

/// What somebody has seen last; nothing where the record has begun anew since and numbers are given again.
fn known(record: &Record, seen: u64) -> u64 {
    let newest = record.requests(&Which::default(), 1).last().map_or(0, |request| request.number);
    if seen > newest { 0 } else { seen }
}
