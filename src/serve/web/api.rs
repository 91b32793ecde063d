//! What the page shows, as JSON: the messages of `proto/tidehold/v1/hold.proto`, written as the commands write them with
//! `--json`.

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use url::form_urlencoded;

use super::{Problem, Site};
use crate::clock;
use crate::proto::v1;
use crate::record::{MOST_REMEMBERED, Named, Which};

/// How many requests are told where nobody says how many.
const USUAL_REQUESTS: usize = 500;

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        // None of the messages has a key or a number that JSON has not.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(super) async fn status(State(site): State<Site>) -> Result<Response, Problem> {
    let status = site.asked(|overview| overview.status(clock::now())).await??;
    Ok(json(&status))
}

pub(super) async fn budget(State(site): State<Site>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let asked = Asked(query);
    let only = asked.text("registry");
    let named = if asked.whether("all")? { Named::All } else { Named::Dearest };
    Ok(json(&site.overview()?.budget(only.as_deref(), named, clock::now())?))
}

pub(super) async fn explain(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = Asked(query);
    let Some(reference) = asked.text("ref") else {
        return Err(Problem::malformed("name what is to be explained: /api/explain?ref=nginx:latest"));
    };
    // Never closed. What nobody has asked for is looked for among much of what is held.
    let _turn = site.lists.acquire().await;
    Ok(json(&site.asked(move |overview| overview.explain(&reference)).await??))
}

/// The tags that are known, in the order of their references.
#[derive(Serialize)]
struct Tags {
    tags: Vec<v1::HeldTag>,
}

pub(super) async fn tags(State(site): State<Site>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let contains = Asked(query).text("contains").unwrap_or_default();
    // Never closed.
    let _turn = site.lists.acquire().await;
    let tags = site.asked(move |overview| overview.tags(&contains)).await??;
    Ok(json(&Tags { tags }))
}

/// The flight record, the oldest first.
#[derive(Serialize)]
struct Requests<'a> {
    requests: Vec<&'a v1::UpstreamRequest>,
    /// How many there are, of which these are the last.
    remembered: usize,
    /// How many there may be.
    most_remembered: usize,
}

pub(super) async fn requests(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = Asked(query);
    let last =
        asked.number("last")?.map_or(USUAL_REQUESTS, |last| usize::try_from(last).unwrap_or(usize::MAX));
    let all = site.overview()?.record().requests(&asked.which()?, MOST_REMEMBERED);
    let (remembered, most_remembered) = (all.len(), MOST_REMEMBERED);
    let requests = all.iter().skip(remembered.saturating_sub(last)).map(AsRef::as_ref).collect();
    Ok(json(&Requests { requests, remembered, most_remembered }))
}

/// The query of a request.
pub(super) struct Asked(pub(super) Option<String>);

impl Asked {
    /// The first value of this name that is not empty.
    fn text(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.0.as_deref().unwrap_or_default().as_bytes());
        pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let malformed = |text: &str| Problem::malformed(format!("{name}={text} is no number"));
        self.text(name).map(|text| text.parse().map_err(|_| malformed(&text))).transpose()
    }

    fn whether(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(Problem::malformed(format!("{name}={other} is neither true nor false"))),
        }
    }

    /// Which requests are wanted.
    pub(super) fn which(&self) -> Result<Which, Problem> {
        Ok(Which {
            registry: Which::registry_of(&self.text("registry").unwrap_or_default())
                .map_err(|error| Problem::malformed(error.to_string()))?,
            repository: self.text("repository").unwrap_or_default(),
            counted: self.whether("counted")?,
            after: self.number("after")?.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_what_a_browser_makes_of_it() {
        let asked = Asked(Some("ref=ghcr.io%2Fa%2Fb%3A1%2B2&counted=true&after=7&last=&x=y".to_owned()));
        assert_eq!(asked.text("ref").as_deref(), Some("ghcr.io/a/b:1+2"));
        assert_eq!(asked.number("last").unwrap(), None);
        let which = asked.which().unwrap();
        assert_eq!((which.counted, which.after, which.registry.as_str()), (true, 7, ""));
    }

    #[test]
    fn what_is_neither_number_nor_truth_is_told() {
        let reason = |query: &str| Asked(Some(query.to_owned())).which().unwrap_err().reason;
        assert_eq!(reason("after=-1"), "after=-1 is no number");
        assert_eq!(reason("counted=perhaps"), "counted=perhaps is neither true nor false");
    }
}
