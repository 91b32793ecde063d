//! The mirror: the pull side of the OCI distribution specification, for `hosts.toml` and other clients.
//!
//! Turns paths into names, calls the resolver, and turns its answers into HTTP. Answers `identity`, whatever
//! encodings a client accepts, since a digest is over the bytes themselves.

mod accept;
mod blob;
mod error;
mod list;
mod manifest;
mod route;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};

use crate::clock;
use crate::oci::Repository;
use crate::record::{Ending, Front, Kind};
use crate::resolve::{Caller, Client, ClientToken, Cost, Grounds, Resolver, Standing};
use crate::serve::http::{Again, Body, Repeat, Request};
use accept::Accept;
use error::Problem;
use route::Route;

/// The name of the event that an answer was given again, of which there may be very many.
pub const GIVEN_AGAIN: &str = "given again";

/// In what way an answer was found to be good.
const STANDING: HeaderName = HeaderName::from_static("tidehold-standing");

/// In a request for a manifest: only to look what would be answered. It is asked for by a HEAD at most, and nothing is
/// fetched or noted. `tidehold doctor` sends it.
const LOOK_ONLY: HeaderName = HeaderName::from_static("tidehold-look-only");

/// In the answer to that, whether it is held: `yes`, with its standing, or `no`.
const HELD: HeaderName = HeaderName::from_static("tidehold-held");

/// The digest of what is answered (OCI distribution specification).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The mirror: answers a request over the resolver.
pub async fn answer(resolver: Resolver, request: Request) -> Response<Body> {
    let begun = clock::instant();
    let agent = agent(&request);
    let caller = Caller::new(client(&request), format!("{} {agent}", request.peer.ip()));
    let route = Route::parse(request.uri.path(), request.uri.query());
    let reference = route.as_ref().map(ToString::to_string).unwrap_or_default();
    // Whoever only looks is given nothing. Of anything but a manifest there is no such look, and it counts.
    let looks = matches!(route, Ok(Route::Manifest(..))) && request.headers.contains_key(LOOK_ONLY);
    let of = route.as_ref().ok().filter(|_| !looks).and_then(Route::what);
    let answered = match route {
        _ if !matches!(request.method, Method::GET | Method::HEAD) => Err(Problem::ReadOnly),
        Ok(route) => respond(&resolver, &caller, route, &request).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| problem.into_response(&request.method));
    let line = Line::of(&request, &reference, &response, agent);
    line.log(Given::Anew, request.peer, caller.cost(), begun.elapsed());
    let given = of.map(|(kind, repository)| Answered::of(kind, repository, &request.method, &response));
    if let Some(given) = &given {
        given.tell(&resolver, clock::now());
    }
    if let Some(grounds) = response.extensions_mut().remove::<Arc<Grounds>>() {
        response.extensions_mut().insert(Again::new(Repeated { resolver, grounds, line, given }));
    }
    response
}

/// An answer that may be given again, to whoever asks for the same in the same words.
struct Repeated {
    resolver: Resolver,
    grounds: Arc<Grounds>,
    line: Line,
    given: Option<Answered>,
}

impl Repeat for Repeated {
    fn repeat(&self, peer: SocketAddr) -> Option<Duration> {
        let age = self.resolver.still_stands(&self.grounds)?;
        self.line.log(Given::Again, peer, Cost::default(), Duration::ZERO);
        if let Some(given) = &self.given {
            given.tell(&self.resolver, clock::now());
        }
        Some(age)
    }
}

/// What the record is told of an answer.
struct Answered {
    kind: Kind,
    ending: Ending,
    /// The repository of a manifest that was given out whole, which its registry would have counted.
    gave: Option<Repository>,
}

impl Answered {
    fn of(kind: Kind, repository: Repository, method: &Method, response: &Response<Body>) -> Self {
        let standing = response.headers().get(STANDING).and_then(|standing| standing.to_str().ok());
        let good = response.status().is_success();
        let otherwise = match response.status() {
            StatusCode::UNAUTHORIZED => Ending::Challenged,
            _ => Ending::Refused,
        };
        let ending = standing.filter(|_| good).and_then(Ending::parse).unwrap_or(otherwise);
        let gave = (good && kind == Kind::Manifest && *method == Method::GET).then_some(repository);
        Self { kind, ending, gave }
    }

    fn tell(&self, resolver: &Resolver, now: SystemTime) {
        resolver.record().answered(Front::Mirror, self.kind, self.ending, now);
        if let Some(repository) = &self.gave {
            resolver.record().given_manifest(repository, now);
        }
    }
}

async fn respond(
    resolver: &Resolver,
    caller: &Caller,
    route: Route,
    request: &Request,
) -> Result<Response<Body>, Problem> {
    let head = request.method == Method::HEAD;
    match route {
        Route::Base => Ok(base()),
        Route::Manifest(repository, reference) if request.headers.contains_key(LOOK_ONLY) => {
            manifest::look(resolver, caller, &repository, &reference).await
        }
        Route::Manifest(repository, reference) => {
            let accept = Accept::of(&request.headers);
            manifest::answer(resolver, caller, &repository, &reference, &accept, head).await
        }
        Route::Blob(repository, digest) if head => {
            blob::describe(resolver, caller, &repository, &digest).await
        }
        Route::Blob(repository, digest) => {
            let range = blob::range(&request.headers, &digest);
            blob::answer(resolver, caller, &repository, &digest, range).await
        }
        Route::List(repository, list) => {
            list::answer(resolver, caller, &repository, &list, &request.uri, head).await
        }
    }
}

/// Tells in what way an answer was found to be good, and how old it is.
fn put_standing(headers: &mut HeaderMap, standing: Standing, age: Duration) {
    headers.insert(header::AGE, age.as_secs().into());
    headers.insert(STANDING, HeaderValue::from_static(standing.as_str()));
    if standing == Standing::Stale {
        // RFC 7234, section 5.5.1; clients that know it show it.
        headers.insert(header::WARNING, HeaderValue::from_static("110 tidehold \"Response is Stale\""));
    }
}

/// Whoever asks: a client's token is its own; a password is nobody's business here.
fn client(request: &Request) -> Client {
    let header = request.headers.get(header::AUTHORIZATION);
    header.and_then(ClientToken::from_authorization).map_or(Client::Anyone, Client::Token)
}

/// What a client says that it is.
fn agent(request: &Request) -> String {
    let agent = request.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.unwrap_or("-").chars().take(80).collect()
}

/// What clients ask first to see whether this is a registry at all.
fn base() -> Response<Body> {
    let mut response = Response::new(Body::Bytes(Bytes::from_static(b"{}")));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    // Who asks whether the mirror is at its address has to tell it from any other registry.
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("tidehold"));
    response
}

/// In what way an answer came about.
#[derive(Clone, Copy)]
enum Given {
    Anew,
    Again,
}

/// What is logged of a request and its answer, in one line. A body that streams has only begun by then.
struct Line {
    method: Method,
    uri: Uri,
    reference: String,
    status: StatusCode,
    standing: HeaderValue,
    agent: String,
}

impl Line {
    fn of(request: &Request, reference: &str, response: &Response<Body>, agent: String) -> Self {
        Self {
            method: request.method.clone(),
            uri: request.uri.clone(),
            reference: reference.to_owned(),
            status: response.status(),
            standing: response.headers().get(STANDING).cloned().unwrap_or(HeaderValue::from_static("-")),
            agent,
        }
    }

    fn log(&self, given: Given, client: SocketAddr, cost: Cost, took: Duration) {
        let Self { method, uri, reference, status, standing, agent } = self;
        let (path, reference) = (uri.path(), reference.as_str());
        // The rest of the query is the client's own, and may be a secret.
        let ns = route::named_by(uri.query()).next().unwrap_or("-".into());
        let ns = ns.as_ref();
        let (standing, agent) = (standing.to_str().unwrap_or("-"), agent.as_str());
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let Cost { requests, counted } = cost;
        let status = status.as_u16();
        macro_rules! answered {
            ($level:ident, $name:expr) => {
                tracing::$level!(
                    name: $name, target: "tidehold::mirror", %method, path, ns, reference, status, standing, requests,
                    counted, milliseconds, %client, agent, "answered"
                )
            };
        }
        match given {
            Given::Again => answered!(info, GIVEN_AGAIN),
            Given::Anew if status >= 500 => answered!(warn, "answered"),
            Given::Anew => answered!(info, "answered"),
        }
    }
}

/// A header value made of text that is known to be visible ASCII.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
