//! What is answered: the same as the commands tell, and how well the daemon is.

use http::StatusCode;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::command::tidehold;

async fn told(bench: &Bench, path: &str) -> Value {
    let reply = bench.get(&format!("{}{path}", bench.daemon.web())).await;
    assert_eq!(reply.status, StatusCode::OK, "{path}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.json()
}

#[tokio::test]
async fn the_data_is_what_the_commands_write_as_json() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    let budget = tidehold(&bench, &["budget", "--json"]).await.done();
    let budget: Value = serde_json::from_str(&budget.stdout).unwrap();
    assert_eq!(told(&bench, "/api/budget").await, budget);
    assert_eq!(told(&bench, "/api/budget?registry=docker.io&all=true").await, budget);
    let story = tidehold(&bench, &["explain", "tide", "--json"]).await.done();
    let story: Value = serde_json::from_str(&story.stdout).unwrap();
    assert_eq!(told(&bench, "/api/explain?ref=tide").await, story);
    let log = tidehold(&bench, &["log", "--json", "-n", "5000"]).await.done().objects();
    let sums = json!({ "requests": log, "remembered": log.len(), "most_remembered": 4096 });
    assert_eq!(told(&bench, "/api/requests").await, sums);
    let last = told(&bench, "/api/requests?counted=true&last=1").await;
    assert_eq!(last["requests"].as_array().unwrap().len(), 1);
    assert_eq!(last["remembered"], 2, "so many counted ones there are");
    let after = told(&bench, "/api/requests?after=3").await;
    assert_eq!(after["requests"][0]["number"], 4);
    let tags = told(&bench, "/api/tags").await;
    assert_eq!(tags["tags"][0]["reference"], "docker.io/library/tide:latest");
    assert_eq!(told(&bench, "/api/tags?contains=nothing").await, json!({ "tags": [] }));
}

#[tokio::test]
async fn the_status_says_where_the_page_is() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    let status = told(&bench, "/api/status").await;
    assert_eq!(format!("http://{}", status["web"].as_str().unwrap()), bench.daemon.web());
    assert_eq!(format!("http://{}", status["mirror"].as_str().unwrap()), bench.daemon.mirror());
    assert_eq!(status["hold"]["tags"], 1);
    assert_eq!(status["upstream_counted"], 1);
    let said = tidehold(&bench, &["status"]).await.done().stdout;
    assert!(said.contains(&format!("{}/", bench.daemon.web())), "{said}");
}

#[tokio::test]
async fn what_cannot_be_told_is_answered_with_why() {
    let bench = Bench::start().await;
    for (path, status, reason) in [
        ("/api/explain", 400, "name what is to be explained: /api/explain?ref=nginx:latest"),
        ("/api/explain?ref=a%20b", 400, ""),
        (
            "/api/explain?ref=never/asked",
            404,
            "nothing is known of docker.io/never/asked:latest: nobody has asked for it here",
        ),
        ("/api/budget?registry=ghcr.io", 404, "nothing was asked of ghcr.io in the last six hours"),
        ("/api/budget?all=some", 400, "all=some is neither true nor false"),
        ("/api/requests?last=many", 400, "last=many is no number"),
        ("/nothing", 404, "there is nothing here: the page is at /, its data at /api/status"),
    ] {
        let reply = bench.get(&format!("{}{path}", bench.daemon.web())).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(reply.json()["reason"].as_str().unwrap().contains(reason), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_serves_is_alive_and_ready() {
    let bench = Bench::start().await;
    for path in ["/healthz", "/readyz"] {
        let reply = bench.get(&format!("{}{path}", bench.daemon.web())).await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"ok\n"[..]), "{path}");
    }
}

#[tokio::test]
async fn a_hold_whose_folder_was_moved_away_costs_no_pull_and_is_told_of_until_it_is_back() {
    let bench = Bench::start().await;
    let (data, aside) = (bench.daemon.data(), bench.daemon.data().with_extension("aside"));
    std::fs::rename(&data, &aside).unwrap();
    let (refused, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{refused:?}");
    assert_eq!((cost.manifest_gets, cost.blob_gets), (0, 0), "{cost:?}");
    for path in ["/healthz", "/readyz"] {
        let reply = bench.get(&format!("{}{path}", bench.daemon.web())).await;
        let said = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {reply:?}");
        assert!(said.contains("is not the folder that the daemon opened"), "{path}: {said}");
        assert!(said.contains("systemctl restart tidehold"), "{path}: {said}");
    }
    let unwritable = told(&bench, "/api/status").await["unwritable"].clone();
    assert!(unwritable["mend"].as_str().unwrap().contains("systemctl restart tidehold"), "{unwritable}");
    let said = tidehold(&bench, &["status"]).await.done().stdout;
    assert!(said.contains("nothing new can be kept") && said.contains("to mend it: "), "{said}");
    assert!(!data.exists(), "nothing is made in the way of what was moved");

    std::fs::rename(&aside, &data).unwrap();
    assert_eq!(bench.get(&bench.manifest("latest")).await.status, StatusCode::OK);
    let ready = bench.get(&format!("{}/readyz", bench.daemon.web())).await;
    assert_eq!((ready.status, &ready.body[..]), (StatusCode::OK, &b"ok\n"[..]));
}
