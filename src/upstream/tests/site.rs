//! A small server on loopback that answers as it is told and remembers what it was asked.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method};
use tokio::net::{TcpListener, TcpStream};

use crate::oci::{Digest, Reference, Repository};
use crate::upstream::{Account, Asker, Credential, Listed, Settings, Timeouts, Upstreams};

/// The name under which a site is listed.
pub(super) const REGISTRY: &str = "reg.test";

/// The server.
pub(super) struct Site {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// This site, as it was called.
    pub(super) fn site(&self) -> String {
        format!("http://{}", self.header("host").unwrap())
    }
}

impl Site {
    /// A site that answers with what this makes of each request.
    pub(super) async fn serve<A, F>(answer: A) -> Self
    where
        A: Fn(Seen) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let app = Router::new().fallback(move |request: Request| {
            let (all, answer) = (Arc::clone(&all), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
                let body = String::from_utf8(body.to_vec()).unwrap();
                let (target, headers) = (head.uri.to_string(), head.headers);
                let seen = Seen { method: head.method, target, headers, body };
                all.lock().unwrap().push(seen.clone());
                answer(seen).await
            }
        });
        // It ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, seen }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it was asked, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How often something beneath this path was asked for.
    pub(super) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.target.starts_with(path)).count()
    }

    /// Upstreams that list this site.
    pub(super) fn upstreams(&self) -> Upstreams {
        upstreams_at(&self.url(), Timeouts::default())
    }
}

/// Upstreams that list a registry at this address.
pub(super) fn upstreams_at(url: &str, timeouts: Timeouts) -> Upstreams {
    upstreams_of(url, None, timeouts)
}

/// The same, with the hold's own logins in this file.
pub(super) fn upstreams_of(url: &str, credentials: Option<PathBuf>, timeouts: Timeouts) -> Upstreams {
    let listed = Listed { urls: vec![url.parse().unwrap()], credentials };
    let listed = BTreeMap::from([(REGISTRY.parse().unwrap(), listed)]);
    let settings = Settings { allow_any: true, listed, timeouts, bandwidth: None };
    Upstreams::new(settings, crate::record::Record::new(std::time::UNIX_EPOCH)).unwrap()
}

/// Patience for tests in which a wait is the point. Whatever else they wait for comes in its own time.
const SHORT: Duration = Duration::from_millis(80);

/// With an answer that does not begin.
pub(super) fn impatient_for_heads() -> Timeouts {
    Timeouts { headers: SHORT, mirror: SHORT, mirrors: SHORT, ..Timeouts::default() }
}

/// With a body that does not go on.
pub(super) fn impatient_for_bodies() -> Timeouts {
    Timeouts { idle: SHORT, ..Timeouts::default() }
}

pub(super) fn repository(name: &str) -> Repository {
    Repository::new(REGISTRY.parse().unwrap(), name).unwrap()
}

pub(super) fn latest() -> Reference {
    "latest".parse().unwrap()
}

pub(super) fn some_digest() -> Digest {
    Digest::of(b"some blob")
}

/// A response with these headers.
pub(super) fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// A server of raw bytes: the n-th connection is answered with the n-th text (the last one again and again), and
/// then closed, or with [`HOLD`] at the text's end held open. Hands out each connection's number as it comes.
pub(super) async fn raw(
    answers: &'static [&'static str],
) -> (SocketAddr, tokio::sync::watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, counted) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        let mut held = Vec::new();
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            count.send_replace(number + 1);
            read_head(&stream).await;
            let answer = answers[number.min(answers.len() - 1)];
            let text = answer.trim_end_matches(HOLD);
            write_all(&stream, text.as_bytes()).await;
            if text.len() < answer.len() {
                held.push(stream);
            }
        }
    });
    (address, counted)
}

/// Keeps a raw connection open.
pub(super) const HOLD: char = '\u{0}';

async fn read_head(stream: &TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.readable().await.unwrap();
        let mut buffer = [0; 1024];
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        stream.writable().await.unwrap();
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

/// Somebody with no right of their own.
pub(super) fn anyone() -> Asker {
    Asker { credential: Credential::Anonymous, account: Account::default(), only_registry: false }
}
