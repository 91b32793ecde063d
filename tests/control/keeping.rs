//! `tidehold ls`, `pin`, `unpin`, `forget` and `prune`, and the daemon's own eviction.

use tidehold::proto::v1;
use tidehold::proto::v1::hold_client::HoldClient;

use crate::bench::{Bench, blobs_of, images_only, soon, until};
use crate::command::tidehold;
use crate::socket::channel;
use crate::support::hub::Hub;

const TIDE: &str = "docker.io/library/tide:latest";

/// A daemon before the usual registry, with this in its configuration, that fetches nothing ahead.
async fn bench(cache: &str) -> Bench {
    let hub = Hub::start(images_only()).await;
    let upstream = hub.registry_url();
    let rest = format!(
        "[cache]\n{cache}\n[tags]\nfresh_for = \"0s\"\n[fetch]\nahead = false\n\
         [registries.\"docker.io\"]\nupstream = \"{upstream}\"\n"
    );
    Bench::with(hub, &rest)
}

#[tokio::test]
async fn what_was_pulled_is_listed_with_what_is_held_of_it() {
    let bench = Bench::start().await;
    let ran = tidehold(&bench, &["ls"]).await.done();
    assert!(ran.stdout.starts_with("no tag is known yet"), "{ran:?}");
    bench.pull("latest").await;
    bench.head(&bench.manifest("1.0")).await;

    let tags = tidehold(&bench, &["ls", "--json"]).await.done().objects();
    assert_eq!(tags.len(), 2, "{tags:?}");
    let latest = tags.iter().find(|tag| tag["reference"] == TIDE).unwrap();
    assert_eq!(latest["digest"], bench.hub.first().digest);
    assert_eq!((&latest["whole"], &latest["pinned"]), (&true.into(), &false.into()));
    let held: u64 = bench.held().iter().map(|digest| bench.file_of(digest).metadata().unwrap().len()).sum();
    assert_eq!(latest["held_bytes"], held);
    assert!(latest["used_at"].is_string() && latest["confirmed_at"].is_string(), "{latest}");

    let ran = tidehold(&bench, &["ls", "tide:l"]).await.done();
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert!(lines[0].starts_with("REFERENCE ") && lines[1].starts_with(TIDE), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}'), "{ran:?}");
    let ran = tidehold(&bench, &["ls", "nginx"]).await.done();
    assert_eq!(ran.stdout, "no reference contains nginx\n");
}

#[tokio::test]
async fn a_dry_run_removes_nothing_and_a_prune_what_that_said() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    let before = bench.held().len();
    let dry = tidehold(&bench, &["prune", "--dry-run", "--to", "0", "--json"]).await.done().object();
    assert_eq!(bench.held().len(), before);
    assert_eq!(dry["removed_blobs"], before);
    let ran = tidehold(&bench, &["prune", "--dry-run", "--to", "0"]).await.done();
    assert!(ran.stdout.contains("would be removed; 0 B would be cached then"), "{ran:?}");
    assert!(ran.stdout.contains(TIDE), "{ran:?}");
    // The bounds of the configuration are kept as it is.
    let ran = tidehold(&bench, &["prune"]).await.done();
    assert!(ran.stdout.starts_with("0 blobs, 0 B removed"), "{ran:?}");
    let wet = tidehold(&bench, &["prune", "--to", "0", "--json"]).await.done().object();
    assert_eq!(wet, dry);
    assert!(bench.held().is_empty());
    // And it can be had again.
    bench.pull("latest").await;
    assert_eq!(bench.held().len(), before);
    let unused = tidehold(&bench, &["prune", "--unused-for", "1h"]).await.done();
    assert!(unused.stdout.starts_with("0 blobs"), "{unused:?}");
    tidehold(&bench, &["prune", "--to", "much"]).await.failed_with(2, &["--to"]);
}

#[tokio::test]
async fn what_is_pinned_outlives_a_prune_until_it_is_unpinned() {
    let bench = Bench::start().await;
    tidehold(&bench, &["pin", "tide"])
        .await
        .failed_with(1, &["nothing is known of docker.io/library/tide:latest"]);
    bench.pull("latest").await;
    let held = bench.held().len();
    let ran = tidehold(&bench, &["pin", "tide"]).await.done();
    assert!(ran.stdout.starts_with("docker.io/library/tide:latest is pinned"), "{ran:?}");
    tidehold(&bench, &["pin", "tide"]).await.done();
    tidehold(&bench, &["pin", "tide:lattest"])
        .await
        .failed_with(1, &["is docker.io/library/tide:latest meant?"]);

    let pruned = tidehold(&bench, &["prune", "--to", "0", "--json"]).await.done().object();
    assert_eq!((&pruned["removed_blobs"], &pruned["kept_bytes"]), (&0.into(), &pruned["cached_bytes"]));
    assert_eq!(bench.held().len(), held);
    tidehold(&bench, &["forget", "tide"]).await.failed_with(1, &["is pinned", "tidehold unpin"]);

    tidehold(&bench, &["unpin", "tide", "--json"]).await.done();
    tidehold(&bench, &["unpin", "tide"]).await.failed_with(1, &["is not pinned"]);
    tidehold(&bench, &["prune", "--to", "0"]).await.done();
    assert!(bench.held().is_empty());
}

#[tokio::test]
async fn status_counts_what_is_listed_the_tags_and_the_digests_that_are_pinned_by_themselves() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.pull("1.0").await;
    tidehold(&bench, &["pin", "tide"]).await.done();
    let tags = async || {
        let told = tidehold(&bench, &["status"]).await.done().stdout;
        told.lines().find_map(|line| Some(line.trim().strip_prefix("tags")?.trim().to_owned())).unwrap()
    };
    assert_eq!(tags().await, "2, 1 pinned");
    let digest = format!("library/tide@{}", bench.hub.first().digest);
    tidehold(&bench, &["pin", &digest]).await.done();
    assert_eq!(tags().await, "2 and 1 digest, 2 pinned");
    assert_eq!(tidehold(&bench, &["ls", "--json"]).await.done().objects().len(), 3);
    let hold = tidehold(&bench, &["status", "--json"]).await.done().object()["hold"].clone();
    assert_eq!([&hold["tags"], &hold["pinned_digests"]], [2, 1], "{hold}");
}

#[tokio::test]
async fn of_several_images_one_that_fails_keeps_none_of_the_others() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.pull("1.0").await;
    let all = ["tide", "tide:absent", "tide:1.0"];
    let asked = |command| [&[command][..], &all, &["--json"]].concat();
    let pinned = tidehold(&bench, &asked("pin")[..4]).await;
    let pinned =
        pinned.failed_with(1, &["nothing is known of docker.io/library/tide:absent", "1 of 3 images"]);
    assert_eq!(pinned.stdout.lines().filter(|line| line.contains(" is pinned: ")).count(), 2, "{pinned:?}");
    let unpinned = tidehold(&bench, &asked("unpin")).await.failed_with(1, &["is not pinned"]).objects();
    assert_eq!((&unpinned[0]["reference"], unpinned.len()), (&TIDE.into(), 3), "{unpinned:?}");
    let error = &unpinned[1]["error"];
    assert_eq!(
        (&error["code"], &error["reference"]),
        (&"NOT_FOUND".into(), &"docker.io/library/tide:absent".into())
    );
    let forgotten = tidehold(&bench, &["forget", "tide", "tide:1.0", TIDE]).await.done();
    assert_eq!(forgotten.stdout.lines().count(), 2, "each once: {forgotten:?}");
    tidehold(&bench, &["forget"]).await.failed_with(2, &["<REF>"]);
}

#[tokio::test]
async fn after_a_forget_the_registry_is_asked_anew() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    let ran = tidehold(&bench, &["forget", "tide", "--json"]).await.done().object();
    assert_eq!((&ran["kept_blobs"], &ran["reference"]), (&0.into(), &TIDE.into()));
    assert!(bench.held().is_empty());
    assert!(tidehold(&bench, &["ls", "--json"]).await.done().objects().is_empty());
    tidehold(&bench, &["forget", "tide"]).await.failed_with(1, &["nothing is known of"]);
    let ((), cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");

    // Nor is a refusal remembered.
    assert_eq!(bench.head(&bench.manifest("absent")).await.status, 404);
    tidehold(&bench, &["forget", "tide"]).await.done();
    let (_, cost) = bench.cost_of(bench.head(&bench.manifest("absent"))).await;
    assert_eq!(cost.manifest_heads, 1, "{cost:?}");
}

#[tokio::test]
async fn a_manifest_that_is_forgotten_by_digest_is_asked_for_again() {
    let bench = Bench::start().await;
    let digest = bench.hub.first().digest.clone();
    bench.get(&bench.manifest(&digest)).await;
    tidehold(&bench, &["forget", &format!("tide@{digest}")]).await.done();
    assert!(bench.held().is_empty());
    let (_, cost) = bench.cost_of(bench.get(&bench.manifest(&digest))).await;
    assert_eq!(cost.manifest_gets, 1, "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_keeps_to_its_bounds_by_itself() {
    let bench = bench("max_size = \"3MiB\"").await;
    let large = bench.push_with_layer(2 << 20);
    soon(bench.begin(&bench.blob(&large.layer)).await.finish()).await;
    bench.pull("latest").await;
    let pinned = tidehold(&bench, &["pin", "tide"]).await.done();
    assert!(pinned.stdout.contains("is pinned"), "{pinned:?}");
    let more = bench.push_with_layer((2 << 20) + 1);
    soon(bench.begin(&bench.blob(&more.layer)).await.finish()).await;
    until(async || !bench.file_of(&large.layer).exists()).await;
    assert!(bench.file_of(&more.layer).exists());
    assert!(blobs_of(bench.hub.first().own()).iter().all(|blob| bench.file_of(blob).exists()));
    // It comes again, unharmed.
    assert!(bench.get(&bench.blob(&large.layer)).await.body == large.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_has_no_room_to_spare_what_comes_in_is_given_out_and_not_kept() {
    let bench = bench("reserve_free = \"100%\"").await;
    bench.pull("latest").await;
    until(async || bench.held().is_empty()).await;
    bench.pull("latest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_through_the_mirror_go_on_while_everything_is_evicted() {
    let bench = Bench::start().await;
    let mut client = HoldClient::new(channel(&bench).await);
    let pruning = async {
        loop {
            let everything = v1::PruneRequest { to_bytes: Some(0), ..Default::default() };
            soon(client.prune(everything)).await.unwrap();
        }
    };
    let pulling = async {
        for round in 0..20 {
            bench.point_latest_at(if round % 2 == 0 { bench.hub.second() } else { bench.hub.first() });
            futures_util::future::join(bench.pull("latest"), bench.pull("1.0")).await;
        }
    };
    tokio::select! {
        never = pruning => never,
        () = pulling => {}
    }
}
