//! A small HTTP client for tests: it follows nothing, repeats nothing and adds nothing, so that what a test sends is
//! what the other side gets.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client as Pool};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Every manifest type there is, as a client sends it that can read them all.
pub const ALL_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A client with its own connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// A reply, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new() -> Self {
        Self::build(HttpConnector::new())
    }

    /// A client that comes from another address of this machine: any of 127.0.0.0/8 will do.
    pub fn from_address(address: IpAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(address));
        Self::build(connector)
    }

    fn build(connector: HttpConnector) -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector) }
    }

    /// Sends a request and returns with the reply's head.
    ///
    /// # Errors
    /// Where the connection is refused or ends before the head has come.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<http::Response<Incoming>, legacy::Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("tests write valid requests");
        self.pool.request(request).await
    }

    /// Sends a request and reads the reply.
    ///
    /// # Panics
    /// Where no reply comes, or not all of it.
    pub async fn ask(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Reply {
        let response = self.send(method, url, headers).await.expect("a reply comes");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the whole reply comes").to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Reply {
        self.ask(Method::GET, url, headers).await
    }

    pub async fn head(&self, url: &str, headers: &[(&str, &str)]) -> Reply {
        self.ask(Method::HEAD, url, headers).await
    }

    pub async fn post(&self, url: &str) -> Reply {
        self.ask(Method::POST, url, &[]).await
    }

    /// Asks for a repository as a well-behaved client does: takes the challenge, fetches a token, comes back with it.
    /// Everything else about the request is given; every manifest type is accepted.
    pub async fn pull(&self, method: Method, url: &str) -> Reply {
        let first = self.ask(method.clone(), url, &[(ACCEPT.as_str(), ALL_MANIFESTS)]).await;
        if first.status != StatusCode::UNAUTHORIZED {
            return first;
        }
        let token = self.token(&first.challenge(), &[]).await;
        let bearer = format!("Bearer {token}");
        self.ask(method, url, &[(ACCEPT.as_str(), ALL_MANIFESTS), (AUTHORIZATION.as_str(), &bearer)]).await
    }

    /// Fetches a token from the realm of a challenge.
    pub async fn token(&self, challenge: &Challenge, headers: &[(&str, &str)]) -> String {
        let Challenge { realm, service, scope, .. } = challenge;
        let reply = self.get(&format!("{realm}?service={service}&scope={scope}"), headers).await;
        let token = reply.json().get("token").and_then(Value::as_str).map(str::to_owned);
        token.expect("the token service grants a token")
    }
}

/// What a 401 says about getting in.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub service: String,
    pub scope: String,
    pub error: String,
}

impl Reply {
    /// A header's text, or none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The code of the first error in the body.
    pub fn error_code(&self) -> String {
        let code = self.json().pointer("/errors/0/code").and_then(Value::as_str).map(str::to_owned);
        code.unwrap_or_default()
    }

    /// Where a redirect points.
    pub fn location(&self) -> String {
        self.header(LOCATION.as_str()).expect("a redirect has a location").to_owned()
    }

    /// The challenge of a 401.
    pub fn challenge(&self) -> Challenge {
        let text = self.header(WWW_AUTHENTICATE.as_str()).expect("a 401 has a challenge");
        let fields = text.strip_prefix("Bearer ").expect("the challenge asks for a token");
        let field = |name: &str| {
            let found = fields.split(',').find_map(|field| field.strip_prefix(&format!("{name}=")));
            found.unwrap_or_default().trim_matches('"').to_owned()
        };
        Challenge {
            realm: field("realm"),
            service: field("service"),
            scope: field("scope"),
            error: field("error"),
        }
    }
}
