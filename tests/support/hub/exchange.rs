//! One request, from its arrival to its answer: log it, let it meet its fault, have it answered, count it, send it.
//! It decides no content; that is the registry's, the CDN's and the token service's.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HOST, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::body::{Body, Course, paced, whole};
use super::door::{Cut, Reset};
use super::fault::Fault;
use super::ledger::{Asked, LogEntry, Outcome};
use super::reply::{self, Answer};
use super::shared::Shared;
use super::target::{Role, Target};
use super::{admin, cdn, registry, token};

/// A request, as those who answer it see it.
pub(super) struct Ask {
    pub(super) target: Target,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) peer: IpAddr,
}

impl Ask {
    pub(super) fn host(&self) -> Option<&str> {
        self.text(&HOST)
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Answers one request; an error resets its connection.
pub(super) async fn exchange(
    hub: Arc<Shared>,
    role: Role,
    peer: IpAddr,
    cut: Cut,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let target = Target::read(role, &path, &query);
    let ask = Ask { target, method: parts.method, path: path.clone(), query, headers: parts.headers, peer };
    if let Target::Admin(what) = &ask.target {
        return Ok(admin::answer(&hub, &ask.method, what, &ask.query)
            .await
            .finish(false)
            .response
            .map(whole));
    }

    let kind = ask.target.kind(role, &ask.method);
    let asked = Asked {
        kind,
        head: ask.method == Method::HEAD,
        range: ask.headers.contains_key(RANGE),
        authorized: ask.headers.contains_key(AUTHORIZATION),
    };
    let id = hub.record(|ledger| ledger.arrived(entry(role, &path, &ask, asked)));
    let form = form_of(&ask, incoming).await;
    let (fault, ticket) = kind.and_then(|kind| hub.faults.meet(kind, &path)).unzip();

    let mut course = Course::default();
    let mut late = false;
    let instead = match (fault, ticket) {
        (Some(Fault::Hang), Some(ticket)) => {
            hub.record(|ledger| ledger.answered(id, &ask.target, asked, Outcome::NONE));
            ticket.wait().await;
            late = true;
            None
        }
        (Some(Fault::HoldAt(offset)), Some(ticket)) => {
            course.hold = Some((offset, ticket));
            None
        }
        (Some(fault), _) => disturb(&hub, &ask, fault, &cut, &mut course),
        (None, _) => None,
    };
    let answer = match instead {
        Some(Instead::Answer(answer)) => answer,
        Some(Instead::Reset) => {
            hub.record(|ledger| ledger.answered(id, &ask.target, asked, Outcome::NONE));
            return Err(Reset);
        }
        None => match role {
            Role::Registry => registry::answer(&hub, &ask),
            Role::Token if ask.target != Target::Token => reply::not_found(),
            Role::Token => token::answer(&hub, &ask.method, &ask.query, &form, &ask.headers),
            Role::Cdn => cdn::answer(&hub, &ask),
        },
    };
    let mut answer = answer.finish(asked.head);
    if fault == Some(Fault::WrongBytes) {
        spoil(&mut answer);
    }
    if let Some((offset, _)) = &mut course.hold {
        *offset = offset.saturating_sub(begins_at(answer.response.headers()));
    }
    let outcome = Outcome { status: Some(answer.response.status().as_u16()), counted: answer.counted };
    hub.record(|ledger| match late {
        true => ledger.answered_late(id, &ask.target, outcome),
        false => ledger.answered(id, &ask.target, asked, outcome),
    });
    if role == Role::Cdn {
        course.counted_by = Some(Arc::clone(&hub));
    }
    Ok(answer.response.map(|bytes| paced(bytes, course)))
}

/// What comes in place of the answer.
enum Instead {
    Answer(Answer),
    Reset,
}

/// Carries a fault out, as far as it concerns the answer's head or the course of its body.
fn disturb(hub: &Shared, ask: &Ask, fault: Fault, cut: &Cut, course: &mut Course) -> Option<Instead> {
    match fault {
        Fault::PullLimit => return Some(Instead::Answer(registry::forced_limit(hub, ask))),
        Fault::AbuseLimit => return Some(Instead::Answer(reply::abuse_limit(hub.config.abuse_lasts))),
        Fault::Forbidden => return Some(Instead::Answer(reply::forbidden())),
        Fault::Unavailable => return Some(Instead::Answer(reply::unavailable())),
        Fault::CaptivePortal => return Some(Instead::Answer(reply::captive_portal())),
        Fault::Reset => return Some(Instead::Reset),
        Fault::CutAfter(bytes) => course.cut = Some((bytes, cut.clone())),
        Fault::Slow(rate) => course.slow = Some(rate),
        // Held requests have their ticket, wrong bytes come later, and a closed listener lets no request through.
        Fault::Hang | Fault::HoldAt(_) | Fault::WrongBytes | Fault::Refuse => {}
    }
    None
}

/// Where in the blob an answer's body begins.
fn begins_at(headers: &HeaderMap) -> u64 {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    begin.unwrap_or_default()
}

/// Makes one byte in the middle a wrong one.
fn spoil(answer: &mut Answer) {
    let mut bytes = answer.response.body().to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x01;
    }
    *answer.response.body_mut() = Bytes::from(bytes);
}

/// The body of a POST to the token service, as far as it is a sensible size.
async fn form_of(ask: &Ask, incoming: Incoming) -> String {
    const LIMIT: usize = 64 * 1024;
    if ask.method != Method::POST {
        return String::new();
    }
    let collected = Limited::new(incoming, LIMIT).collect().await;
    collected.map(|form| String::from_utf8_lossy(&form.to_bytes()).into_owned()).unwrap_or_default()
}

fn entry(role: Role, path: &str, ask: &Ask, asked: Asked) -> LogEntry {
    let with_query = role != Role::Cdn && !ask.query.is_empty();
    LogEntry {
        listener: role.name(),
        client: ask.peer,
        method: ask.method.to_string(),
        path: if with_query { format!("{path}?{}", ask.query) } else { path.to_owned() },
        status: None,
        counted: false,
        authorized: asked.authorized,
        credentials: ask.text(&AUTHORIZATION).map(token::whose),
        user_agent: ask.text(&USER_AGENT).map(str::to_owned),
        range: ask.text(&RANGE).map(str::to_owned),
        accept: accept_of(ask),
    }
}

fn accept_of(ask: &Ask) -> Option<String> {
    let values = ask.headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    Some(values.collect::<Vec<_>>().join(", ")).filter(|accept| !accept.is_empty())
}
