//! Who is answered, and what each answer forbids the browser that reads it.
//!
//! The address is loopback's, but any page in a browser on this machine can send requests there. It cannot read the
//! answers, since none allows another origin; unless its own name is made to resolve to this address (DNS rebinding).
//! The browser then still sends that name: so only requests by an address, or to `localhost`, are answered.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses those that name this host by something else than an address.
pub(super) async fn own_names_only(request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let named = named.map(String::from_utf8_lossy);
    match named {
        Some(named) if !is_own(&named) => {
            let why = "this page is shown by its address alone, such as http://127.0.0.1:7890/ or \
                       http://localhost:7890/, so that no other site can read it under a name of its own; from another \
                       machine, forward the port: ssh -L 7890:127.0.0.1:7890 NODE\n";
            (StatusCode::FORBIDDEN, why).into_response()
        }
        // No browser leaves it out.
        Some(_) | None => next.run(request).await,
    }
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_own(named: &str) -> bool {
    if let Some(rest) = named.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return matches!(address.parse(), Ok(IpAddr::V6(_))) && (port.is_empty() || is_port(port));
    }
    let (host, port) = match named.find(':') {
        Some(colon) => named.split_at(colon),
        None => (named, ""),
    };
    let is_name = host.eq_ignore_ascii_case("localhost") || matches!(host.parse(), Ok(IpAddr::V4(_)));
    is_name && (port.is_empty() || is_port(port))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Nothing can be changed here.
pub(super) async fn read_only(request: Request, next: Next) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => next.run(request).await,
        _ => {
            let why = "nothing is changed over HTTP: ask with GET, and change with `tidehold`\n";
            (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], why).into_response()
        }
    }
}

/// What goes for every answer.
pub(super) async fn careful(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let said = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in said {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // The page says more exactly what it needs.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_own_names() {
        for own in
            ["127.0.0.1:7890", "127.0.0.1", "localhost", "LocalHost:80", "[::1]:7890", "[::1]", "10.1.2.3:1"]
        {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:7890",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":7890",
            "localhost:port",
            "[::1].evil.example",
            "[evil.example]",
            "::1",
            "127.0.0.1:7890:1",
            "[127.0.0.1]",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }
}
