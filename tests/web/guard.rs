//! Who is answered, and what an answer lets a browser do.

use http::{Method, StatusCode};

use crate::bench::{Bench, soon};

const EVERYTHING: [&str; 8] = [
    "/",
    "/api/status",
    "/api/budget",
    "/api/explain?ref=tide",
    "/api/tags",
    "/api/requests",
    "/api/requests/live",
    "/nothing",
];

#[tokio::test]
async fn another_sites_name_for_this_address_is_refused_whatever_is_asked_for() {
    let bench = Bench::start().await;
    for path in EVERYTHING {
        let url = format!("{}{path}", bench.daemon.web());
        for host in ["rebound.example", "localhost.rebound.example:7890", "127.0.0.1.rebound.example"] {
            let reply = bench.ask(Method::GET, &url, &[("host", host)]).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{host}{path}");
            let said = String::from_utf8_lossy(&reply.body).into_owned();
            assert!(said.contains("http://localhost:7890/") && said.contains("ssh -L"), "{said}");
        }
    }
    for host in ["localhost:7890", "127.0.0.1", "[::1]:1234", "192.0.2.7:80"] {
        let reply =
            bench.ask(Method::GET, &format!("{}/api/status", bench.daemon.web()), &[("host", host)]).await;
        assert_eq!(reply.status, StatusCode::OK, "{host}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let url = format!("{}{path}", bench.daemon.web());
        let reply = bench.ask(Method::GET, &url, &[("host", "node-1:7890")]).await;
        assert_eq!(reply.status, StatusCode::OK, "who watches nodes comes under their names: {path}");
    }
}

#[tokio::test]
async fn nothing_is_changed_whatever_the_method() {
    let bench = Bench::start().await;
    for path in EVERYTHING.into_iter().chain(["/metrics", "/healthz", "/readyz"]) {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            let reply = bench.ask(method.clone(), &format!("{}{path}", bench.daemon.web()), &[]).await;
            assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        }
    }
    let head = bench.head(&format!("{}/", bench.daemon.web())).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn each_answer_forbids_what_a_page_of_somebody_elses_could_do_with_it() {
    let bench = Bench::start().await;
    for path in EVERYTHING.into_iter().filter(|path| !path.ends_with("/live")) {
        let reply = bench
            .ask(Method::GET, &format!("{}{path}", bench.daemon.web()), &[("origin", "http://evil.example")])
            .await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{path}");
    }
}

#[tokio::test]
async fn a_head_beyond_the_bound_is_refused_and_the_next_client_is_answered() {
    let bench = Bench::start().await;
    let url = format!("{}/api/status", bench.daemon.web());
    let long = "x".repeat(64 << 10);
    let sent = soon(bench.client.send(Method::GET, &url, &[("x-long", &long)])).await;
    assert!(sent.is_err() || sent.unwrap().status().is_client_error());
    assert_eq!(bench.get(&url).await.status, StatusCode::OK);
}
