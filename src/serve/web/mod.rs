//! The status page, the metrics and the health of the daemon, over HTTP, for whoever reaches the address: by default the
//! machine itself.
//!
//! Shows what the [`Overview`] tells and changes nothing: only GET and HEAD are answered. What it shows names private
//! images, so a page of somebody else's in the operator's browser must not read it (`guard.rs`). Invariants: it is
//! answered before the hold is open and while the daemon stops; how many connections and followers there are, how long
//! one may be silent and how long it may take nothing in has a bound (`connections.rs`).

mod api;
mod connections;
mod guard;
mod live;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::proto::v1::{MissingListener, Unwritable};
use crate::serve::overview::{AskError, Overview};
use crate::store::{StoreError, blocking};

/// How many may follow the flight record at a time.
const MOST_FOLLOWERS: usize = 64;

/// How many lists of tags are made, and stories told, at a time: each may go through all that is held. Others wait.
const LISTS_AT_ONCE: usize = 2;

/// What the daemon is at.
#[derive(Clone)]
pub enum Phase {
    /// The hold is being opened; nothing can be told yet.
    Opening,
    /// Everybody is served.
    Serving(Overview),
    /// What runs may end.
    Stopping(Overview),
}

/// Serves until `stop`, and then until the last answer has ended.
pub async fn serve(listener: TcpListener, phase: watch::Receiver<Phase>, stop: CancellationToken) {
    let followers = Arc::new(Semaphore::new(MOST_FOLLOWERS));
    let lists = Arc::new(Semaphore::new(LISTS_AT_ONCE));
    let site = Site { phase, followers, lists, stop: stop.clone() };
    connections::accept(listener, router(site), stop).await;
}

/// What the handlers share.
#[derive(Clone)]
struct Site {
    phase: watch::Receiver<Phase>,
    followers: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    stop: CancellationToken,
}

fn router(site: Site) -> Router {
    let page = Router::new()
        .route("/", get(page::answer))
        .route("/api/status", get(api::status))
        .route("/api/budget", get(api::budget))
        .route("/api/explain", get(api::explain))
        .route("/api/tags", get(api::tags))
        .route("/api/requests", get(api::requests))
        .route("/api/requests/live", get(live::answer))
        .fallback(async || {
            Problem::missing("there is nothing here: the page is at /, its data at /api/status")
        })
        .layer(middleware::from_fn(guard::own_names_only));
    // Nothing of an image is in these, and who watches nodes comes under the names that these have there.
    let health = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    let all = page.merge(health).with_state(site);
    all.layer(middleware::from_fn(guard::read_only)).layer(middleware::map_response(guard::careful))
}

impl Site {
    /// What can be told, once anything can.
    fn overview(&self) -> Result<Overview, Problem> {
        match &*self.phase.borrow() {
            Phase::Opening => Err(Problem::opening()),
            Phase::Serving(overview) | Phase::Stopping(overview) => Ok(overview.clone()),
        }
    }

    /// The same, of something that waits for the disk.
    async fn asked<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Overview) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let overview = self.overview()?;
        Ok(blocking(move || ask(&overview)).await)
    }
}

async fn metrics(State(site): State<Site>) -> Result<Response, Problem> {
    let text = site.asked(|overview| overview.metrics(clock::now())).await??;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Whether this process is of any use: restarting it would mend what is wrong.
async fn healthz(State(site): State<Site>) -> Response {
    match &*site.phase.borrow() {
        Phase::Serving(overview) | Phase::Stopping(overview) if overview.index_lost() => index_lost(),
        Phase::Serving(overview) if overview.hold_replaced() => unkept(overview).unwrap_or_else(ok),
        Phase::Opening | Phase::Serving(_) | Phase::Stopping(_) => ok(),
    }
}

/// Whether pulls can be sent here.
async fn readyz(State(site): State<Site>) -> Response {
    match &*site.phase.borrow() {
        Phase::Serving(overview) if overview.index_lost() => index_lost(),
        Phase::Serving(overview) => unkept(overview).unwrap_or_else(|| listening(&overview.missing())),
        Phase::Opening => unavailable("the hold is being opened\n"),
        Phase::Stopping(_) => unavailable("stopping: what runs may end\n"),
    }
}

/// Without the mirror no pulls can be sent here; what else is missing is told.
fn listening(missing: &[MissingListener]) -> Response {
    let told: String =
        missing.iter().map(|missing| format!("no {} listener: {}\n", missing.name, missing.why)).collect();
    if missing.iter().any(|missing| missing.name == "mirror") {
        return unavailable(told);
    }
    format!("ok\n{told}").into_response()
}

fn ok() -> Response {
    "ok\n".into_response()
}

/// What is new would go past us.
fn unkept(overview: &Overview) -> Option<Response> {
    let Unwritable { why, mend } = overview.unkept()?;
    Some(unavailable(format!("nothing new can be kept: {why}: {mend}\n")))
}

fn index_lost() -> Response {
    unavailable("the index could not be written: is the disk full?\n")
}

fn unavailable(why: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

/// Why there is nothing to show, as the commands say it with `--json`.
#[derive(Debug, Serialize)]
struct Problem {
    #[serde(skip)]
    status: StatusCode,
    code: &'static str,
    reason: String,
}

impl Problem {
    fn malformed(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "INVALID_ARGUMENT", reason: reason.into() }
    }

    fn missing(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "NOT_FOUND", reason: reason.into() }
    }

    fn opening() -> Self {
        let reason = "the hold is being opened: try again in a moment".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "UNAVAILABLE", reason }
    }

    fn busy() -> Self {
        let reason = format!("{MOST_FOLLOWERS} follow already: close one of the pages that are open");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "RESOURCE_EXHAUSTED", reason }
    }
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
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "INTERNAL", reason: error.to_string() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, api::json(&self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn before_the_hold_is_open_it_is_alive_not_ready_and_has_a_page_that_waits() {
        let (_opening, phase) = watch::channel(Phase::Opening);
        let (followers, lists) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let site = Site { phase, followers, lists, stop: CancellationToken::new() };
        for (path, status, says) in [
            ("/healthz", StatusCode::OK, "ok"),
            ("/readyz", StatusCode::SERVICE_UNAVAILABLE, "the hold is being opened"),
            ("/", StatusCode::OK, "<!doctype html>"),
            ("/api/status", StatusCode::SERVICE_UNAVAILABLE, "the hold is being opened: try again"),
            ("/api/requests/live", StatusCode::SERVICE_UNAVAILABLE, "the hold is being opened"),
            ("/metrics", StatusCode::SERVICE_UNAVAILABLE, "the hold is being opened"),
        ] {
            let asked = Request::get(path).body(Body::empty()).unwrap();
            let answer = router(site.clone()).oneshot(asked).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains(says), "{path}: {body:?}");
        }
        assert_eq!(site.followers.available_permits(), 1, "who could not follow holds no place");
    }
}
