//! `tidehold status`, `budget`, `explain` and `log`: what the daemon tells of what it did.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use http::StatusCode;
use serde_json::{Value, json};

use crate::bench::{ASKS_ALWAYS, ASKS_ONCE, Bench, blobs_of, images_only};
use crate::command::{Ran, run, tidehold};
use crate::support::hub::{Fault, HubConfig};
use crate::support::ran::plainly;

const TIDE: &str = "docker.io/library/tide:latest";

/// A registry with a limit of so many pulls.
fn limited_to(pulls: u64) -> HubConfig {
    HubConfig { limit: Some(pulls), ..images_only() }
}

async fn object(bench: &Bench, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    tidehold(bench, &arguments).await.done().object()
}

fn standings(story: &Value) -> Vec<(String, u64)> {
    let decisions = story["decisions"].as_array().unwrap().iter();
    let told = decisions.map(|decision| {
        (decision["standing"].as_str().unwrap().to_owned(), decision["times"].as_u64().unwrap())
    });
    told.collect()
}

#[tokio::test]
async fn explain_tells_each_decision_with_its_reason_its_cost_and_what_went_upstream() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    for _ in 0..3 {
        bench.get(&bench.manifest("latest")).await;
    }
    let story = object(&bench, &["explain", "tide"]).await;
    assert_eq!(story["reference"], TIDE);
    assert_eq!(standings(&story), [("unchanged".to_owned(), 2), ("changed".to_owned(), 1)]);
    let first = &story["decisions"][1];
    assert_eq!(first["digest"], json!(bench.hub.first().digest));
    assert_eq!(first["cost"]["counted"], 1);
    let sent: Vec<_> = first["requests"].as_array().unwrap().iter().collect();
    let seen = |method: &str, status: u64, counted: bool| {
        let such = sent.iter().filter(|sent| sent["kind"] == "manifest" && sent["method"] == method);
        such.filter(|sent| sent["status"] == status && sent["counted"] == counted).count()
    };
    assert_eq!((seen("HEAD", 200, false), seen("GET", 200, true)), (1, 1), "{sent:?}");
    assert!(first["reason"].as_str().unwrap().contains("first time"), "{first}");
    assert_eq!(story["history"][0]["digest"], json!(bench.hub.first().digest));
    assert_eq!(story["history"][0]["held"], true);
}

#[tokio::test]
async fn explain_tells_what_the_image_is_made_of_how_each_part_came_and_what_all_of_it_took() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.pull("latest").await;
    bench.pull("latest").await;
    let (image, story) = (bench.hub.first(), object(&bench, &["explain", "tide"]).await);
    let told = &story["image"];
    let parts = told["parts"].as_array().unwrap();
    let all = [&[&*image.digest, &*image.own().manifest][..], &blobs_of(image.own())].concat();
    let digests: Vec<_> = parts.iter().map(|part| part["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, all);
    let kinds: Vec<_> = parts.iter().map(|part| part["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..4], ["index", "manifest", "config", "layer"]);
    let length = |digest: &&str| bench.file_of(digest).metadata().unwrap().len();
    let bytes: u64 = all.iter().map(length).sum();
    for (part, digest) in parts.iter().zip(&all) {
        assert_eq!((&part["held"], &part["size"]), (&json!(true), &json!(length(digest))), "{part}");
        assert_eq!(part["came_from"], "docker.io/library/tide", "{part}");
        assert_eq!(part["downloaded_bytes"], part["size"], "{part}");
        assert!(part["came_at"].is_string(), "{part}");
    }
    assert_eq!((&told["complete"], &told["held_parts"]), (&json!(true), &json!(all.len())));
    assert_eq!((&told["counted"], &told["answered"]), (&json!(2), &json!(2)), "{told}");
    assert_eq!((&told["held_bytes"], &told["downloaded_bytes"]), (&json!(bytes), &json!(bytes)));
    let text = tidehold(&bench, &["explain", "tide"]).await.done().stdout;
    let sum = format!("this image: {0} of {0} blobs held", all.len());
    assert!(text.contains(&sum) && text.contains("2 counted GETs and "), "{text}");
    let (decided, made) = (text.find("what was decided").unwrap(), text.find("what it is made of").unwrap());
    assert!(decided < made && all.iter().all(|digest| text[made..].contains(digest)), "{text}");
    // Nobody has pulled the manifest that another tag points at now.
    bench.point_latest_at(bench.hub.second());
    bench.get(&bench.manifest("latest")).await;
    let text = tidehold(&bench, &["explain", "tide"]).await.done().stdout;
    assert!(text.contains("1 of 2 blobs held") && text.contains("its manifest is not held"), "{text}");
}

#[tokio::test]
async fn a_tag_that_is_asked_for_again_and_again_is_one_line_with_a_count() {
    let bench = Bench::before(images_only(), ASKS_ONCE).await;
    for _ in 0..40 {
        bench.get(&bench.manifest("latest")).await;
    }
    let story = object(&bench, &["explain", "tide"]).await;
    assert_eq!(standings(&story), [("fresh".to_owned(), 39), ("changed".to_owned(), 1)]);
    let text = tidehold(&bench, &["explain", "tide"]).await.done().stdout;
    assert!(text.contains("fresh 39 times"), "{text}");
}

#[tokio::test]
async fn a_type_that_the_client_does_not_accept_is_explained() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    for _ in 0..2 {
        bench.get(&bench.manifest("latest")).await;
        let headers = [("accept", "application/vnd.other+json")];
        let reply = bench.client.get(&bench.manifest("latest"), &headers).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
    }
    let story = object(&bench, &["explain", "tide"]).await;
    assert_eq!(
        standings(&story),
        [("refused".to_owned(), 2), ("unchanged".to_owned(), 3), ("changed".to_owned(), 1)]
    );
    let refused = &story["decisions"][0];
    assert!(
        refused["reason"].as_str().unwrap().starts_with("the client does not accept its type"),
        "{refused}"
    );
    assert_eq!(refused["cost"]["requests"], 0, "that was told of the decision before");
}

#[tokio::test]
async fn what_is_fetched_anew_is_told_anew() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    for _ in 0..2 {
        bench.get(&bench.manifest("latest")).await;
        bench.get(&bench.manifest("latest")).await;
        tidehold(&bench, &["forget", "tide"]).await.done();
    }
    let story = object(&bench, &["explain", "tide"]).await;
    let told = |standing: &str| (standing.to_owned(), 1);
    assert_eq!(standings(&story), ["unchanged", "changed", "unchanged", "changed"].map(told));
}

#[tokio::test]
async fn an_outage_and_a_refusal_are_explained() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest("nowhere")).await;
    bench.break_everything(Fault::Refuse).await;
    bench.get(&bench.manifest("latest")).await;
    let story = object(&bench, &["explain", "tide"]).await;
    assert_eq!(story["decisions"][0]["standing"], "stale");
    let reason = story["decisions"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("could not be asked"), "{reason}");
    let story = object(&bench, &["explain", "tide:nowhere"]).await;
    assert_eq!(story["decisions"][0]["standing"], "refused");
    let summary = story["summary"].as_str().unwrap();
    assert!(summary.contains("not known to its registry"), "{summary}");
    let text = async |tag: &str| tidehold(&bench, &["explain", tag]).await.done().stdout;
    assert!(text("tide").await.contains("served without asking for"));
    assert!(!text("tide:nowhere").await.contains("served"), "nothing is held of it");
}

#[tokio::test]
async fn the_history_of_a_tag_says_where_it_pointed() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.get(&bench.manifest("latest")).await;
    let before = bench.hub.first().digest.clone();
    bench.point_latest_at(bench.hub.second());
    bench.get(&bench.manifest("latest")).await;
    let story = object(&bench, &["explain", "tide"]).await;
    let digests: Vec<_> = story["history"].as_array().unwrap().iter().map(|point| &point["digest"]).collect();
    assert_eq!(digests.len(), 2);
    assert_eq!(digests[1], &json!(before));
    assert!(story["decisions"][0]["reason"].as_str().unwrap().contains("new digest"), "{story}");
}

#[tokio::test]
async fn of_what_nobody_asked_for_nothing_is_known() {
    let bench = Bench::start().await;
    let ran = tidehold(&bench, &["explain", "tide"]).await;
    ran.failed_with(1, &["nothing is known of docker.io/library/tide:latest"]);
    let ran = tidehold(&bench, &["explain", "tide", "--json"]).await;
    let error = &ran.object()["error"];
    assert_eq!((&error["code"], &error["exit_code"]), (&json!("NOT_FOUND"), &json!(1)), "{error}");
    tidehold(&bench, &["explain", "T ide"]).await.failed_with(2, &["REF"]);
    tidehold(&bench, &["budget", "docker.io"]).await.failed_with(1, &["nothing was asked of docker.io"]);
}

#[tokio::test]
async fn the_budget_says_what_is_left_on_what_it_went_and_what_it_would_have_been() {
    let bench = Bench::before(limited_to(10), ASKS_ALWAYS).await;
    for _ in 0..5 {
        bench.get(&bench.manifest("latest")).await;
    }
    let budget = object(&bench, &["budget", "docker.io"]).await;
    let registry = &budget["registries"][0];
    assert_eq!(registry["registry"], "docker.io");
    assert_eq!(
        (&registry["limits"][0]["limit"], &registry["limits"][0]["remaining"]),
        (&json!(10), &json!(9))
    );
    assert_eq!((&registry["counted"], &registry["counted_without"]), (&json!(1), &json!(5)));
    assert_eq!(registry["spenders"][0]["repository"], "library/tide");
    assert_eq!(registry["gate_open"], true);
    let text = tidehold(&bench, &["budget"]).await.done().stdout;
    assert!(text.contains("9 of 10 pulls in 6h") && text.contains("library/tide"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours are for terminals: {text}");
}

#[tokio::test]
async fn a_budget_with_more_repositories_than_it_names_says_how_many_and_names_them_where_asked() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.get(&bench.manifest("latest")).await;
    for number in 0..60 {
        bench.get(&bench.manifest_of(&format!("library/none-{number}"), "latest")).await;
    }
    let usual = object(&bench, &["budget"]).await["registries"][0].clone();
    let named = |registry: &Value| registry["spenders"].as_array().unwrap().len();
    assert_eq!((named(&usual), &usual["others"]["repositories"]), (50, &json!(11)), "{usual}");
    let requests = usual["spenders"].as_array().unwrap().iter().map(|one| one["requests"].as_u64().unwrap());
    let others = usual["others"]["requests"].as_u64().unwrap();
    assert_eq!(json!(requests.sum::<u64>() + others), usual["requests"]);
    let all = object(&bench, &["budget", "--all"]).await["registries"][0].clone();
    assert_eq!((named(&all), &all["others"]), (61, &Value::Null));
    let text = async |arguments: &[&str]| tidehold(&bench, arguments).await.done().stdout;
    let last = text(&["budget"]).await.lines().last().unwrap().to_owned();
    assert!(last.starts_with("  and 11 more (--all names them)"), "{last}");
    let cells: Vec<_> = last.split_whitespace().rev().skip(2).take(3).collect();
    assert_eq!(cells, ["0", &*others.to_string(), "0"], "{last}");
    let all = text(&["budget", "--all"]).await;
    assert!(all.contains("library/none-59 ") && !all.contains(" more"), "{all}");
}

#[tokio::test]
async fn a_shut_gate_says_why_and_when_it_opens() {
    let bench = Bench::before(limited_to(1), ASKS_ALWAYS).await;
    bench.get(&bench.manifest("latest")).await;
    bench.point_latest_at(bench.hub.second());
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest("1.0")).await;
    let budget = object(&bench, &["budget"]).await;
    let registry = &budget["registries"][0];
    assert_eq!(registry["gate_open"], false, "{registry}");
    assert!(registry["opens_at"].is_string() && registry["shut_because"] != "", "{registry}");
    let text = tidehold(&bench, &["budget"]).await.done().stdout;
    assert!(text.contains("held back") && text.contains("the next is tried in"), "{text}");
}

#[tokio::test]
async fn the_log_has_each_request_once_and_filters_them() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    let (_, cost) = bench
        .cost_of(async {
            bench.get(&bench.manifest("latest")).await;
            bench.get(&bench.manifest("latest")).await;
        })
        .await;
    let all = tidehold(&bench, &["log", "--json"]).await.done().objects();
    assert_eq!(all.len() as u64, cost.requests, "{all:?}");
    let numbers: Vec<_> = all.iter().map(|request| request["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "{numbers:?}");
    assert!(
        all.iter().all(|request| request["asked_by"].as_str().unwrap().starts_with("127.0.0.1 ")),
        "{all:?}"
    );
    let counted = tidehold(&bench, &["log", "--json", "--counted"]).await.done().objects();
    assert_eq!(counted.len(), 1);
    assert_eq!((&counted[0]["method"], &counted[0]["repository"]), (&json!("GET"), &json!("library/tide")));
    let none = tidehold(&bench, &["log", "--registry", "ghcr.io"]).await.ended_well();
    assert_eq!((&*none.stdout, &*none.stderr), ("", "no such request is remembered\n"));
    let hub = tidehold(&bench, &["log", "--registry", "index.docker.io", "--json"]).await.done().objects();
    assert_eq!(hub, all);
    for wrong in [&["log", "--registry", "http://x"][..], &["budget", "http://x"]] {
        tidehold(&bench, wrong).await.failed_with(2, &["http://x"]);
    }
    let none = tidehold(&bench, &["log", "-n", "0"]).await.done();
    assert_eq!((&*none.stdout, &*none.stderr), ("", ""));
    let last = tidehold(&bench, &["log", "-n", "1"]).await.done();
    assert_eq!(last.stdout.lines().count(), 1);
    assert!(last.stdout.contains("200 HEAD docker.io/library/tide:latest"), "{}", last.stdout);
}

#[tokio::test]
async fn what_may_not_be_asked_is_no_request() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.get(&format!("{}/v2/a/b/manifests/latest?ns=127.0.0.1:1", bench.daemon.mirror())).await;
    let none = tidehold(&bench, &["log"]).await.ended_well();
    assert_eq!((&*none.stdout, &*none.stderr), ("", "nothing was sent upstream yet\n"));
    let none = tidehold(&bench, &["log", "--json"]).await.done();
    assert_eq!((&*none.stdout, &*none.stderr), ("", ""));
    assert_eq!(object(&bench, &["status"]).await["upstream_requests"], 0);
    let story = object(&bench, &["explain", "127.0.0.1:1/a/b"]).await;
    assert_eq!(story["decisions"][0]["standing"], "refused");
}

#[tokio::test]
async fn whoever_wants_nothing_of_the_past_is_shown_the_new_ones_alone() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.get(&bench.manifest("latest")).await;
    let past = tidehold(&bench, &["log", "--json"]).await.done().objects().len() as u64;
    let mut following = Command::new(env!("CARGO_BIN_EXE_tidehold"))
        .args(["log", "-f", "-n", "0", "--json", "--socket"])
        .arg(bench.daemon.control())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut first = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap());
    // It may begin to follow at any moment, and what was sent before that is past too.
    let manifest = bench.manifest("latest");
    let first = loop {
        tokio::select! {
            first = &mut first => break first.unwrap(),
            _ = bench.get(&manifest) => {}
        }
    };
    following.kill().unwrap();
    following.wait().unwrap();
    let number = serde_json::from_str::<Value>(&first).unwrap()["number"].as_u64().unwrap();
    assert!(number > past, "{first}");
}

#[tokio::test]
async fn whoever_follows_is_told_when_the_daemon_ends_and_whoever_reads_may_leave() {
    let mut bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    let socket = bench.daemon.control();
    let socket = socket.to_str().unwrap();
    let tidehold = env!("CARGO_BIN_EXE_tidehold");
    let script = format!("'{tidehold}' log --socket '{socket}' | head -n 1; echo ${{PIPESTATUS[0]}}");
    let piped = plainly(&mut Command::new("bash")).args(["-c", &script]).output().unwrap();
    let (said, errors) = (String::from_utf8(piped.stdout).unwrap(), String::from_utf8(piped.stderr).unwrap());
    assert_eq!((said.lines().count(), said.lines().last(), errors.as_str()), (2, Some("0"), ""));
    let mut following = plainly(&mut Command::new(tidehold))
        .args(["log", "-f", "--socket", socket])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(following.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("docker.io/library/tide"), "{first}");
    assert!(bench.daemon.terminate().success());
    let ended = following.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && said.contains("the daemon has ended"), "{said}");
}

#[tokio::test]
async fn the_status_shows_the_daemon_at_a_glance() {
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest("latest")).await;
    let status = object(&bench, &["status"]).await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["mirror"], json!(bench.daemon.mirror().trim_start_matches("http://")));
    assert_eq!((&status["upstream_counted"], &status["counted_without"]), (&json!(1), &json!(2)));
    assert!(status["disk"]["total_bytes"].as_u64().unwrap() > 0);
    assert_eq!(status["containerds"][0]["name"], "node");
    let answered = status["answered"].as_array().unwrap();
    let unchanged = answered.iter().find(|answered| answered["standing"] == "unchanged").unwrap();
    assert_eq!(
        (&unchanged["front"], &unchanged["kind"], &unchanged["times"]),
        (&json!("mirror"), &json!("manifest"), &json!(1))
    );
    assert_eq!(
        status["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|span| span["changed"].as_u64().unwrap())
            .sum::<u64>(),
        1
    );
    let text = tidehold(&bench, &["status"]).await.done().stdout;
    assert!(text.contains("1 unchanged, 1 changed"), "{text}");
    assert!(text.contains("1 counted; it would have been 2 without Tidehold"), "{text}");
}

#[tokio::test]
async fn what_was_warmed_is_told_apart_from_what_pulls_cost_and_saves_once_it_is_pulled() {
    let mut bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    // The index of both tags is one.
    bench.get(&bench.manifest("1.0")).await;
    tidehold(&bench, &["warm", "tide"]).await.done();
    let text = async |bench: &Bench, command: &str| tidehold(bench, &[command]).await.done().stdout;
    let of_them = "2 counted (1 of them by commands such as `tidehold warm`)";
    let status = text(&bench, "status").await;
    assert!(status.contains(&format!("{of_them}; it would have been 1 without Tidehold")), "{status}");
    let budget = text(&bench, "budget").await;
    assert!(budget.contains(&format!("{of_them} of ")), "{budget}");
    bench.pull("latest").await;
    assert!(bench.daemon.terminate().success());
    bench.daemon.start_again();
    let status = text(&bench, "status").await;
    assert!(status.contains(&format!("{of_them}; it would have been 3 without Tidehold")), "{status}");
    let registry = object(&bench, &["budget"]).await["registries"][0].clone();
    assert_eq!([&registry["counted_by_operator"], &registry["spenders"][0]["counted_by_operator"]], [1, 1]);
    let log = tidehold(&bench, &["log", "--json", "--counted"]).await.done().objects();
    let by_operator: Vec<_> = log.iter().map(|request| request["by_operator"].as_bool().unwrap()).collect();
    assert_eq!(by_operator, [false, true], "{log:?}");
}

#[tokio::test]
async fn what_happened_before_a_restart_is_still_told() {
    let mut bench = Bench::before(limited_to(10), ASKS_ALWAYS).await;
    for runs in 1..=3_u64 {
        bench.get(&bench.manifest("latest")).await;
        assert!(bench.daemon.terminate().success());
        bench.daemon.start_again();
        let budget = object(&bench, &["budget"]).await;
        assert_eq!(budget["registries"][0]["counted"], 1);
        assert_eq!(budget["registries"][0]["counted_without"], runs);
        let status = object(&bench, &["status"]).await;
        let spans = status["history"].as_array().unwrap().iter();
        assert_eq!(spans.map(|span| span["counted_without"].as_u64().unwrap()).sum::<u64>(), runs);
    }
    let story = object(&bench, &["explain", "tide"]).await;
    assert_eq!(standings(&story), [("unchanged".to_owned(), 2), ("changed".to_owned(), 1)]);
    let status = object(&bench, &["status"]).await;
    assert_eq!(status["upstream_counted"], 0, "what is told of the daemon is since its start");
}

#[tokio::test]
async fn without_a_daemon_the_commands_say_so() {
    let nowhere = ["--socket", "/nowhere/control.sock"];
    for command in [&["status"][..], &["budget"], &["explain", "tide"], &["log"]] {
        let ran: Ran = run(&[command, &nowhere].concat(), None, "").await;
        ran.failed_with(1, &["nobody answers at /nowhere/control.sock", "tidehold serve"]);
    }
}

#[tokio::test]
async fn whoever_asks_for_json_gets_json_whatever_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[cache]\nmax_sise = \"1GiB\"\n[web]\nlisten = 7\n").unwrap();
    let config = config.to_str().unwrap();
    let commands: &[&[&str]] = &[
        &["status"],
        &["budget"],
        &["explain", "tide"],
        &["log"],
        &["log", "-f"],
        &["ls"],
        &["pin", "tide"],
        &["unpin", "tide"],
        &["forget", "tide"],
        &["prune", "--dry-run"],
        &["resolve", "tide"],
        &["warm", "tide"],
    ];
    for command in commands {
        let error_of = async |rest: &[&str]| {
            let ran = run(&[command, &["--json"][..], rest].concat(), None, "").await;
            let error = ran.object()["error"].clone();
            assert_eq!(error["exit_code"], ran.code, "{command:?}: {ran:?}");
            assert!(!ran.stderr.is_empty(), "a person is told too: {ran:?}");
            error
        };
        let nobody = error_of(&["--socket", "/nowhere/control.sock"]).await;
        assert_eq!(
            (&nobody["code"], &nobody["exit_code"]),
            (&json!("UNAVAILABLE"), &json!(1)),
            "{command:?}"
        );
        let faulty = error_of(&["--config", config]).await;
        assert_eq!((&faulty["code"], &faulty["exit_code"]), (&json!("BAD_CONFIGURATION"), &json!(78)));
        let lines: Vec<_> = faulty["faults"].as_array().unwrap().iter().map(|fault| &fault["line"]).collect();
        assert_eq!(lines, [2, 4], "{faulty}");
        let misused = error_of(&["--no-such-option"]).await;
        assert_eq!((&misused["code"], &misused["exit_code"]), (&json!("INVALID_ARGUMENT"), &json!(2)));
        assert!(misused["reason"].as_str().unwrap().contains("--no-such-option"), "{misused}");
    }
    // Help is no failure, and what is not asked for is not there.
    assert!(run(&["status", "--json", "--help"], None, "").await.done().stdout.contains("Usage"));
    assert_eq!(run(&["status", "--no-such-option"], None, "").await.failed_with(2, &[]).stdout, "");
}
