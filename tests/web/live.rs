//! The flight record as it grows.

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::bench::{Bench, soon};
use crate::support::hub::client::Client;

/// Somebody who follows.
struct Following {
    response: http::Response<Incoming>,
    read: String,
}

impl Following {
    async fn begin(bench: &Bench, query: &str, headers: &[(&str, &str)]) -> Self {
        let url = format!("{}/api/requests/live{query}", bench.daemon.web());
        let response = soon(Client::new().send(Method::GET, &url, headers)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut following = Self { response, read: String::new() };
        following.event().await.expect("a first event that says when to come back");
        following
    }

    /// The lines of the next event, or the end.
    async fn event(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let event = event.to_owned();
                self.read = rest.to_owned();
                return Some(event);
            }
            let frame = soon(self.response.body_mut().frame()).await?;
            let data = frame.unwrap().into_data().unwrap();
            self.read.push_str(str::from_utf8(&data).unwrap());
        }
    }

    /// The next request, whose number is its event's.
    async fn request(&mut self) -> Value {
        let event = self.event().await.expect("a request");
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let request: Value = serde_json::from_str(field("data:")).unwrap();
        assert_eq!(request["number"].to_string(), field("id:"));
        request
    }
}

#[tokio::test]
async fn each_request_comes_as_it_is_sent_and_who_comes_back_misses_none() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    let mut following = Following::begin(&bench, "", &[]).await;
    bench.get(&bench.manifest("latest")).await;
    let first = following.request().await;
    assert_eq!((first["method"].as_str(), first["number"].as_u64()), (Some("HEAD"), Some(5)));
    drop(following);
    bench.get(&bench.manifest("latest")).await;
    let mut again = Following::begin(&bench, "?after=2", &[("last-event-id", "5")]).await;
    assert_eq!(again.request().await["number"], 6);
    let mut counted = Following::begin(&bench, "?after=0&counted=true", &[]).await;
    assert_eq!(counted.request().await["method"], "GET");
    let mut lost = Following::begin(&bench, "?after=1000000", &[]).await;
    assert_eq!(lost.request().await["number"], 1, "its record began anew");
}

#[tokio::test]
async fn a_stop_ends_whoever_follows() {
    let mut bench = Bench::start().await;
    let mut following = Following::begin(&bench, "", &[]).await;
    bench.daemon.ask_to_end();
    assert_eq!(following.event().await, None);
    assert!(bench.daemon.await_end().success());
}

#[tokio::test]
async fn only_so_many_follow_and_who_leaves_makes_room() {
    let bench = Bench::start().await;
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(Following::begin(&bench, "", &[]).await);
    }
    let url = format!("{}/api/requests/live", bench.daemon.web());
    let refused = bench.get(&url).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.json()["reason"].as_str().unwrap().contains("64 follow already"));
    assert_eq!(bench.get(&format!("{}/api/status", bench.daemon.web())).await.status, StatusCode::OK);
    drop(all);
    crate::bench::until(async || {
        soon(Client::new().send(Method::GET, &url, &[])).await.unwrap().status() == StatusCode::OK
    })
    .await;
}
