//! `tidehold warm`: what it brings in, costs, says and ends with.

use std::fs;

use serde_json::{Value, json};
use tidehold::proto::v1::warm_response::Step;
use tidehold::proto::{MOST_PLATFORMS, MOST_REFERENCES, v1};
use tonic::{Code, Streaming};

use crate::bench::{ASKS_ALWAYS, Bench, blobs_of, marker, soon};
use crate::command::{run, says_when, tidehold};
use crate::socket::client;
use crate::support::hub::{Fault, Image, ImageSpec, Kind, REPOSITORY, digest_of};

const MIB: usize = 1 << 20;

/// Bytes of the blobs of this machine's platform.
fn bytes_of(image: &Image) -> usize {
    blobs_of(image.own()).iter().map(|blob| image.bytes_of(blob).unwrap().len()).sum()
}

#[tokio::test]
async fn a_warm_image_cost_two_counted_gets_and_is_pulled_with_its_registry_gone() {
    let bench = Bench::start().await;
    let (ran, cost) = bench.cost_of(tidehold(&bench, &["warm", "tide"])).await;
    ran.done();
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_eq!(cost.cdn_bytes, bytes_of(bench.hub.first()) as u64);
    assert_eq!(bench.held().len(), 2 + blobs_of(bench.hub.first().own()).len());

    bench.break_everything(Fault::Refuse).await;
    bench.pull("latest").await;
}

#[tokio::test]
async fn warming_again_costs_a_head_and_nothing_else() {
    let bench = Bench::start().await;
    tidehold(&bench, &["warm", "tide"]).await.done();
    let (ran, cost) = bench.cost_of(tidehold(&bench, &["warm", "tide", "--json"])).await;
    let objects = ran.done().objects();
    assert_eq!((cost.requests, cost.manifest_heads), (1, 1), "{cost:?}");
    let bytes = bytes_of(bench.hub.first());
    let summary = json!({
        "event": "summary",
        "finished": 1,
        "failed": 0,
        "cost": { "requests": 1, "counted": 0 },
        "fetched_bytes": 0,
        "held_bytes": bytes,
    });
    assert_eq!(objects.last(), Some(&summary));
}

#[tokio::test]
async fn one_that_fails_says_why_and_the_others_are_done() {
    let bench = Bench::start().await;
    bench.hub.tag(REPOSITORY, "2.0", &bench.hub.second().digest);
    let ran = tidehold(&bench, &["warm", "tide", "tide:9.9", "tide:2.0"]).await;
    let ran = ran.failed_with(
        1,
        &[
            "tidehold: docker.io/library/tide:9.9: failed: docker.io/library/tide:9.9 is not known to its registry (",
            "tidehold: 1 of 3 images could not be had",
        ],
    );
    assert!(ran.stdout.lines().last().unwrap().starts_with("2 done, 1 failed: "), "{ran:?}");
    bench.break_everything(Fault::Refuse).await;
    bench.pull("latest").await;
    bench.pull("2.0").await;
}

#[tokio::test]
async fn without_a_terminal_each_line_is_news_in_plain_text() {
    let bench = Bench::start().await;
    let ran = tidehold(&bench, &["warm", "tide"]).await.done();
    let image = bench.hub.first();
    assert!(!ran.stdout.contains(['\u{1b}', '\r']), "{ran:?}");
    let blobs = blobs_of(image.own());
    let own = "docker.io/library/tide:latest: ";
    let mut lines = ran.stdout.lines();
    assert_eq!(lines.next(), Some(format!("{own}{} (changed)", image.digest).as_str()));
    assert!(lines.next().unwrap().starts_with(&format!("{own}{} blobs, ", blobs.len())), "{ran:?}");
    for blob in blobs {
        let size = image.bytes_of(blob).unwrap().len();
        let (short, size) = (&blob[..19], bytesize::ByteSize(size as u64).display().iec());
        assert!(ran.stdout.contains(&format!("{own}{short}: {size} fetched\n")), "{short} {size} {ran:?}");
    }
    let ends: Vec<&str> = ran.stdout.lines().rev().take(2).collect();
    assert!(ends[1].starts_with(&format!("{own}done: ")), "{ran:?}");
    assert!(ends[0].starts_with("1 done: ") && ends[0].contains(" fetched, 0 B held before, "), "{ran:?}");
}

#[tokio::test]
async fn as_json_each_line_is_a_step() {
    let bench = Bench::start().await;
    let ran = tidehold(&bench, &["warm", "tide", "tide:9.9", "--json"]).await;
    let objects = ran.failed_with(1, &["1 of 2 images could not be had"]).objects();
    let of = |event: &str| -> Vec<Value> {
        objects.iter().filter(|object| object["event"] == event).cloned().collect()
    };
    let image = bench.hub.first();
    let reference = "docker.io/library/tide:latest";
    let size = bench.get(&bench.manifest(&image.digest)).await.body.len();
    let resolved = json!({
        "event": "resolved",
        "reference": reference,
        "digest": image.digest,
        "media_type": image.media_type,
        "size": size,
        "standing": "changed",
        "age_seconds": 0,
    });
    assert_eq!(of("resolved"), [resolved]);
    let blobs = blobs_of(image.own());
    let planned =
        json!({ "event": "planned", "reference": reference, "blobs": blobs.len(), "bytes": bytes_of(image) });
    assert_eq!(of("planned"), [planned]);
    let done = of("blob_done");
    for blob in &blobs {
        let size = image.bytes_of(blob).unwrap().len();
        let expected = json!({
            "event": "blob_done",
            "reference": reference,
            "digest": blob,
            "size": size,
            "fetched": true,
        });
        assert!(done.contains(&expected), "{expected} is not among {done:?}");
    }
    assert_eq!(done.len(), blobs.len());
    let told = of("failed");
    // The registry was asked, perhaps for a token before that.
    let asked = told[0]["cost"]["requests"].as_u64().unwrap();
    assert!((1..=3).contains(&asked), "{told:?}");
    let failed = json!({
        "event": "failed",
        "reference": "docker.io/library/tide:9.9",
        "code": "NOT_FOUND",
        "reason": "docker.io/library/tide:9.9 is not known to its registry",
        "retry_after_seconds": null,
        "cost": { "requests": asked, "counted": 0 },
    });
    assert_eq!(told, [failed]);
    let finished = &of("finished")[0];
    assert_eq!(
        (&finished["fetched_bytes"], &finished["cost"]["counted"]),
        (&json!(bytes_of(image)), &json!(2))
    );
    let summary = objects.last().unwrap();
    assert_eq!((&summary["finished"], &summary["failed"]), (&json!(1), &json!(1)));
    let all = summary["cost"]["requests"].as_u64().unwrap();
    assert_eq!(all, asked + finished["cost"]["requests"].as_u64().unwrap(), "{summary}");
}

#[tokio::test]
async fn other_platforms_come_where_they_are_asked_for() {
    let bench = Bench::start().await;
    let image = bench.hub.first();
    tidehold(&bench, &["warm", "tide", "--platform", "linux/arm/v7"]).await.done();
    let arm = image.platforms.iter().find(|one| one.platform.to_string() == "linux/arm/v7").unwrap();
    let held = bench.held();
    assert_eq!(held.len(), 2 + blobs_of(arm).len());
    assert!(blobs_of(arm).iter().all(|blob| held.iter().any(|held| held == blob)));

    tidehold(&bench, &["warm", "tide", "--all-platforms"]).await.done();
    let held = bench.held();
    for one in &image.platforms {
        for part in [vec![one.manifest.as_str()], blobs_of(one)].concat() {
            assert!(held.iter().any(|held| held == part), "{} of {} is missing", part, one.platform);
        }
    }
    let ran = tidehold(&bench, &["warm", "tide", "--platform", "plan9/386"]).await;
    ran.failed_with(1, &["it has nothing for plan9/386, only for linux/amd64"]);
    let both = ["warm", "tide", "--platform", "linux/amd64", "--all-platforms"];
    tidehold(&bench, &both).await.failed_with(2, &["cannot be used with"]);
}

#[tokio::test]
async fn a_file_has_one_image_a_line_and_every_faulty_line_is_told_before_anything_is_fetched() {
    let bench = Bench::start().await;
    let file = bench.daemon.config().with_file_name("images.txt");
    let path = file.to_str().unwrap();
    fs::write(&file, "# ours\ntide\n\nTide:1.0 # no\n  tide:1.0  # yes\ntide:@\n").unwrap();
    let ran = tidehold(&bench, &["warm", "-f", path, "a b"]).await;
    let faulty = [
        format!("{path}:4: \"Tide:1.0\": \"Tide\" is not a repository name"),
        format!("{path}:6: \"tide:@\": "),
    ];
    let ran = ran.failed_with(2, &[&faulty[0], &faulty[1], "\"a b\": \"a b\" is not a repository name"]);
    assert_eq!((ran.stderr.lines().count(), ran.stdout.as_str()), (3, ""), "{ran:?}");
    assert_eq!(bench.hub.counters().requests, 0);

    fs::write(&file, "# ours\ntide\n\n  tide:1.0  # yes\n").unwrap();
    let ran = tidehold(&bench, &["warm", "-f", path]).await.done();
    assert!(ran.stdout.lines().last().unwrap().starts_with("2 done: "), "{ran:?}");

    let socket = bench.daemon.control();
    let standard_input = ["warm", "--socket", socket.to_str().unwrap(), "-f", "-", "tide"];
    let ran = run(&standard_input, None, "tide:1.0\ndocker.io/library/tide:latest\n").await.done();
    assert!(ran.stdout.lines().last().unwrap().starts_with("2 done: "), "the same one counts once: {ran:?}");
    run(&standard_input, None, "tide\n:\n").await.failed_with(2, &["-:2: "]);

    fs::write(&file, "# nothing yet\n").unwrap();
    let ran = tidehold(&bench, &["warm", "-f", path, "--json"]).await.done();
    assert_eq!(ran.object()["finished"], 0);
    tidehold(&bench, &["warm"]).await.failed_with(2, &["<REF>"]);
    tidehold(&bench, &["warm", "-f", "/nowhere/images.txt"])
        .await
        .failed_with(1, &["read /nowhere/images.txt"]);
}

#[tokio::test]
async fn under_a_limit_the_reason_says_when_to_try_again() {
    let bench = Bench::before(says_when(), ASKS_ALWAYS).await;
    bench.hub.set_remaining(1);
    let ran = tidehold(&bench, &["warm", "tide", "--json"]).await;
    let objects = ran.failed_with(1, &["1 of 1 images could not be had"]).objects();
    let failed = objects.iter().find(|object| object["event"] == "failed").unwrap();
    assert_eq!(failed["code"], "RESOURCE_EXHAUSTED");
    assert!(failed["retry_after_seconds"].as_u64().unwrap() > 0, "{failed}");
    assert_eq!(objects.last().unwrap()["cost"]["counted"], 1, "the index was had: {objects:?}");
}

#[tokio::test]
async fn two_that_share_their_blobs_fetch_each_once_and_count_it_once() {
    let bench = Bench::start().await;
    let (ran, cost) = bench.cost_of(tidehold(&bench, &["warm", "tide", "tide:1.0", "--json"])).await;
    let objects = ran.done().objects();
    let bytes = bytes_of(bench.hub.first());
    assert_eq!(cost.cdn_bytes, bytes as u64, "{cost:?}");
    let summary = objects.last().unwrap();
    assert_eq!((&summary["fetched_bytes"], &summary["held_bytes"]), (&json!(bytes), &json!(bytes)));
}

async fn begin(bench: &Bench) -> Streaming<v1::WarmResponse> {
    let request = v1::WarmRequest { references: vec!["tide:large".into()], ..Default::default() };
    soon(client(bench).await.warm(request)).await.unwrap().into_inner()
}

async fn until(steps: &mut Streaming<v1::WarmResponse>, wished: impl Fn(&Step) -> bool) {
    loop {
        let step = soon(steps.message()).await.unwrap().expect("there is more").step.unwrap();
        assert!(!matches!(step, Step::Failed(_) | Step::Summary(_)), "{step:?}");
        if wished(&step) {
            return;
        }
    }
}

/// Tags an image `large`, one layer of which is held back half-way.
async fn half_way(bench: &Bench) -> String {
    let image = Image::build(&ImageSpec { extra_layer_bytes: MIB, ..marker("large") }).unwrap();
    bench.hub.push(REPOSITORY, &image);
    bench.hub.tag(REPOSITORY, "large", &image.digest);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(MIB as u64 / 2)).await;
    image.own().layers.last().unwrap().clone()
}

#[tokio::test]
async fn progress_is_told_and_a_client_that_leaves_leaves_the_download_to_end() {
    let bench = Bench::start().await;
    let large = half_way(&bench).await;
    let mut steps = begin(&bench).await;
    let more =
        |step: &Step| matches!(step, Step::BlobProgress(blob) if blob.digest == large && blob.received > 0);
    until(&mut steps, more).await;
    drop(steps);
    bench.hub.clear(Kind::Cdn).await;
    let reply = bench.get(&bench.blob(&large)).await;
    assert_eq!(digest_of(&reply.body), large);
    assert_eq!(bench.hub.counters().cdn_wholes_by_digest.get(&large), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_it_with_a_word_and_lets_the_download_end() {
    let mut bench = Bench::start().await;
    let large = half_way(&bench).await;
    let mut steps = begin(&bench).await;
    until(&mut steps, |step| matches!(step, Step::BlobProgress(_))).await;
    bench.daemon.ask_to_end();
    let ended = loop {
        match soon(steps.message()).await {
            Ok(step) => assert!(step.is_some(), "it ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "the daemon is stopping"));
    bench.hub.clear(Kind::Cdn).await;
    assert!(bench.daemon.await_end().success());
    assert!(bench.file_of(&large).exists());
}

#[tokio::test]
async fn more_than_a_call_may_have_and_what_is_malformed_is_refused_as_a_whole() {
    let bench = Bench::start().await;
    let text = |count: usize, text: &str| vec![text.to_owned(); count];
    for (references, platforms, all_platforms) in [
        (text(MOST_REFERENCES + 1, "tide"), vec![], false),
        (text(1, "tide"), text(MOST_PLATFORMS + 1, "linux/amd64"), false),
        (text(1, "tide"), text(1, "linux"), false),
        (text(1, "tide"), text(1, "linux/amd64"), true),
        (vec!["tide".into(), "Tide".into(), String::new()], vec![], false),
    ] {
        let request = v1::WarmRequest { references, platforms, all_platforms };
        let refused = client(&bench).await.warm(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    assert_eq!(bench.hub.counters().requests, 0);
}
