//! `tidehold resolve`: what it says, costs and ends with.

use serde_json::json;

use crate::bench::{ASKS_ALWAYS, ASKS_ONCE, Bench, images_only};
use crate::command::{run, says_when, tidehold};
use crate::support::hub::{Fault, MediaTypes};

#[tokio::test]
async fn a_reference_nobody_asked_for_is_changed_and_then_unchanged_and_the_cost_is_what_the_registry_saw() {
    let bench = Bench::start().await;
    let (ran, cost) = bench.cost_of(tidehold(&bench, &["resolve", "--json", "tide"])).await;
    let first = ran.done().object();
    let size = bench.get(&bench.manifest("latest")).await.body.len();
    // A challenge and the request that it was for may count as one.
    let expected = json!({
        "reference": "docker.io/library/tide:latest",
        "digest": bench.hub.first().digest,
        "media_type": MediaTypes::Oci.index(),
        "size": size,
        "standing": "changed",
        "age_seconds": 0,
        "cost": { "requests": cost.requests, "counted": 1 },
    });
    assert_eq!(first, expected);
    assert_eq!(cost.manifest_gets, 1, "{cost:?}");

    let (ran, cost) = bench.cost_of(tidehold(&bench, &["resolve", "docker.io/tide:latest", "--json"])).await;
    let again = ran.done().object();
    assert_eq!(again["standing"], "unchanged");
    assert_eq!(again["cost"], json!({ "requests": 1, "counted": 0 }));
    assert_eq!((cost.requests, cost.manifest_heads), (1, 1), "{cost:?}");
}

#[tokio::test]
async fn a_person_reads_words_and_units() {
    let bench = Bench::start().await;
    tidehold(&bench, &["resolve", "tide:1.0"]).await.done();
    let own = crate::support::hub::Platform::own().to_string();
    let ran = tidehold(&bench, &["resolve", "tide:1.0", "--platform", &own]).await.done();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let image = bench.hub.first();
    assert_eq!(lines[0], "docker.io/library/tide:1.0");
    assert_eq!(lines[1], format!("  digest     {}", image.digest));
    assert!(lines[3].starts_with("  size       ") && lines[3].contains('B'), "{lines:?}");
    assert_eq!(lines[4], "  standing   unchanged");
    assert_eq!(lines[5], "  confirmed  just now");
    assert_eq!(lines[6], "  cost       1 request, 0 counted");
    assert!(lines[7].starts_with(&format!("  manifest   {} for {own}, ", image.own().manifest)), "{lines:?}");
    assert_eq!(lines.len(), 8);
}

#[tokio::test]
async fn a_fresh_tag_costs_nothing() {
    let bench = Bench::before(images_only(), ASKS_ONCE).await;
    tidehold(&bench, &["resolve", "tide"]).await.done();
    let (ran, cost) = bench.cost_of(tidehold(&bench, &["resolve", "tide", "--json"])).await;
    let object = ran.done().object();
    assert_eq!(object["standing"], "fresh");
    assert_eq!(object["cost"], json!({ "requests": 0, "counted": 0 }));
    assert_eq!(cost.requests, 0);
}

#[tokio::test]
async fn a_digest_is_immutable_whatever_tag_stands_before_it() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().digest;
    let object = tidehold(&bench, &["resolve", &format!("tide:9@{digest}"), "--json"]).await.done().object();
    assert_eq!(object["reference"], format!("docker.io/library/tide@{digest}"));
    assert_eq!((&object["standing"], &object["digest"]), (&json!("immutable"), &json!(digest)));
}

#[tokio::test]
async fn a_held_tag_is_stale_while_its_registry_is_down_and_that_is_no_failure() {
    let bench = Bench::start().await;
    tidehold(&bench, &["resolve", "tide"]).await.done();
    bench.break_everything(Fault::Refuse).await;
    let object = tidehold(&bench, &["resolve", "tide", "--json"]).await.done().object();
    assert_eq!((&object["standing"], &object["digest"]), (&json!("stale"), &json!(bench.hub.first().digest)));
}

#[tokio::test]
async fn what_the_registry_does_not_have_fails_with_its_name() {
    let bench = Bench::start().await;
    let said = "tidehold: docker.io/library/tide:9.9 is not known to its registry\n";
    let ran = tidehold(&bench, &["resolve", "tide:9.9"]).await.failed_with(1, &[said]);
    assert_eq!(ran.stdout, "");
    let object = tidehold(&bench, &["resolve", "tide:9.9", "--json"]).await.failed_with(1, &[said]).object();
    let expected = json!({ "error": {
        "reference": "docker.io/library/tide:9.9",
        "code": "NOT_FOUND",
        "reason": "docker.io/library/tide:9.9 is not known to its registry",
        "exit_code": 1,
    } });
    assert_eq!(object, expected);
}

#[tokio::test]
async fn a_limit_says_when_to_try_again() {
    let bench = Bench::before(says_when(), ASKS_ALWAYS).await;
    bench.hub.set_remaining(0);
    let said = ["the registry's limit is reached; try again in "];
    let object = tidehold(&bench, &["resolve", "tide", "--json"]).await.failed_with(1, &said).object();
    assert_eq!(object["error"]["code"], "RESOURCE_EXHAUSTED");
    let seconds = object["error"]["retry_after_seconds"].as_u64().unwrap();
    assert!((1..=21_600).contains(&seconds), "{object}");
}

#[tokio::test]
async fn a_registry_that_is_down_and_a_tag_that_is_not_held_is_a_failure() {
    let bench = Bench::start().await;
    bench.break_everything(Fault::Refuse).await;
    let object = tidehold(&bench, &["resolve", "tide", "--json"]).await;
    let object = object.failed_with(1, &["is not held here, and the registry can't be reached"]).object();
    assert_eq!(object["error"]["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn a_platform_gives_its_manifest_beside_and_costs_nothing_more() {
    let bench = Bench::start().await;
    tidehold(&bench, &["resolve", "tide"]).await.done();
    for image in &bench.hub.first().platforms {
        let platform = image.platform.to_string();
        let ran = tidehold(&bench, &["resolve", "tide", "--json", "--platform", &platform]).await;
        let object = ran.done().object();
        assert_eq!(object["digest"], bench.hub.first().digest);
        assert_eq!(object["manifest"]["digest"], image.manifest, "{platform}");
        assert_eq!(object["manifest"]["platform"], platform);
        assert_eq!(object["manifest"]["media_type"], MediaTypes::Oci.manifest());
        assert_eq!(object["cost"]["requests"], 1);
    }
    let ran = tidehold(&bench, &["resolve", "tide", "--platform", "plan9/386"]).await;
    ran.failed_with(1, &["it has nothing for plan9/386, only for linux/amd64, linux/arm/v7, linux/arm64"]);
}

#[tokio::test]
async fn what_is_no_reference_or_no_platform_is_a_usage_error_and_asks_nobody() {
    let bench = Bench::start().await;
    tidehold(&bench, &["resolve", "Tide"]).await.failed_with(2, &["\"Tide\" is not a repository name"]);
    let ran = tidehold(&bench, &["resolve", "tide", "--platform", "linux"]).await;
    ran.failed_with(2, &["\"linux\" is not a platform: write os/architecture"]);
    tidehold(&bench, &["resolve"]).await.failed_with(2, &["<REF>"]);
    assert_eq!(bench.hub.counters().requests, 0);
}

#[tokio::test]
async fn the_configuration_names_the_socket_on_the_command_line_or_in_the_environment() {
    let bench = Bench::start().await;
    let config = bench.daemon.config();
    run(&["resolve", "tide", "--config", config.to_str().unwrap()], None, "").await.done();
    run(&["resolve", "tide"], Some(&config), "").await.done();
    let socket = bench.daemon.control();
    let absent = bench.daemon.data().join("no.toml");
    run(&["resolve", "tide", "--socket", socket.to_str().unwrap()], Some(&absent), "").await.done();
    run(&["resolve", "tide"], Some(&absent), "").await.failed_with(78, &["cannot read"]);
}

#[tokio::test]
async fn where_nobody_answers_the_command_says_what_to_look_at() {
    let mut bench = Bench::start().await;
    let socket = bench.daemon.control();
    let said = ["nobody answers at", "is `tidehold serve` running", socket.to_str().unwrap()];
    // What one that was killed leaves behind, and then nothing at all.
    bench.daemon.kill();
    assert!(socket.exists());
    tidehold(&bench, &["resolve", "tide"]).await.failed_with(1, &said);
    std::fs::remove_file(&socket).unwrap();
    tidehold(&bench, &["resolve", "tide"]).await.failed_with(1, &said);
    tidehold(&bench, &["warm", "tide"]).await.failed_with(1, &said);

    bench.daemon.start_again();
    let content = bench.daemon.content();
    let ran = run(&["resolve", "tide", "--socket", content.to_str().unwrap()], None, "").await;
    ran.failed_with(1, &["this is a socket of another service: is it the control socket?"]);
}
