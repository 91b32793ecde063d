//! Limits and gates: what still goes on when a registry gives no more, and that it is then left in peace.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;

use crate::bench::{
    ASKS_ALWAYS, Bench, assert_gives, assert_refused, images_only, marker, retry_after, soon, standing, until,
};
use crate::support::hub::client::Reply;
use crate::support::hub::{
    Fault, Hub, HubConfig, Image, Kind, Platform, REPOSITORY, Refusal, RetryAfter, digest_of,
};

const SIX_HOURS: u64 = 21_600;

/// A registry that says after how many seconds a pull may be tried again, in both kinds of refusal.
fn patient(seconds: u64) -> HubConfig {
    let window = Duration::from_secs(seconds);
    let retry_after = Some(RetryAfter::Seconds);
    HubConfig { window, retry_after, abuse_lasts: Some(window), ..images_only() }
}

/// A tag of another image, which nobody has asked for yet.
fn push_new(bench: &Bench, tag: &str) -> Image {
    let image = Image::build(&marker(tag)).unwrap();
    bench.hub.push(REPOSITORY, &image);
    bench.hub.tag(REPOSITORY, tag, &image.digest);
    image
}

#[track_caller]
fn assert_limited(reply: &Reply, seconds: std::ops::RangeInclusive<u64>) {
    assert_refused(reply, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    assert!(seconds.contains(&retry_after(reply)), "{reply:?}");
}

#[tokio::test]
async fn with_nothing_left_unchanged_tags_are_confirmed_and_changed_ones_are_stale_without_a_get() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.hub.set_remaining(0);
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.first(), "unchanged");
    assert_eq!((cost.manifest_heads, cost.manifest_gets, cost.too_many_requests), (1, 0, 0), "{cost:?}");

    bench.point_latest_at(bench.hub.second());
    for _ in 0..3 {
        let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
        assert_gives(&reply, bench.hub.first(), "stale");
        assert_eq!((cost.manifest_heads, cost.manifest_gets, cost.too_many_requests), (1, 0, 0), "{cost:?}");
    }
    bench.hub.refill();
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.second(), "changed");
}

#[tokio::test]
async fn what_is_not_held_costs_one_get_until_the_registry_gives_again_however_many_ask() {
    let registry = HubConfig { refusal: Refusal::Denied, ..images_only() };
    let bench = Bench::before(registry, ASKS_ALWAYS).await;
    bench.pull("latest").await;
    const TAGS: [&str; 3] = ["2.0", "3.0", "4.0"];
    for tag in TAGS {
        push_new(&bench, tag);
    }
    bench.hub.set_remaining(0);
    bench.hub.reset_counters();
    for tags in [[TAGS[0]; 3], TAGS, TAGS] {
        let urls: Vec<_> = tags.iter().cycle().take(30).map(|tag| bench.manifest(tag)).collect();
        for reply in soon(join_all(urls.iter().map(|url| bench.get(url)))).await {
            assert_limited(&reply, 1..=SIX_HOURS);
        }
    }
    let counters = bench.hub.counters();
    assert!(counters.too_many_requests <= 1, "{counters:?}");
    assert_eq!(counters.manifest_gets, 0, "{counters:?}");
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "unchanged");
}

#[tokio::test]
async fn a_get_by_digest_of_what_is_not_held_is_refused_at_once_after_the_first() {
    let bench = Bench::before(patient(3600), ASKS_ALWAYS).await;
    bench.hub.set_remaining(0);
    bench.hub.reset_counters();
    for digest in [&bench.hub.first().digest, &bench.hub.second().digest, &bench.hub.first().own().manifest] {
        assert_limited(&bench.get(&bench.manifest(digest)).await, 3500..=3600);
    }
    assert_eq!(bench.hub.counters().too_many_requests, 1);
}

#[tokio::test]
async fn when_to_come_back_is_the_registrys_own_word_up_to_six_hours() {
    for (said, expected) in [(120, 110..=120), (7200, 7190..=7200), (1_000_000, SIX_HOURS - 10..=SIX_HOURS)] {
        let bench = Bench::before(patient(said), ASKS_ALWAYS).await;
        bench.hub.fault(Kind::ManifestGet, Fault::PullLimit).await;
        for _ in 0..2 {
            assert_limited(&bench.get(&bench.manifest("latest")).await, expected.clone());
        }
        assert_eq!(bench.hub.counters().too_many_requests, 1);
    }
}

#[tokio::test]
async fn blobs_go_on_with_nothing_left_to_pull() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    let large = bench.push_with_layer(64 * 1024);
    bench.hub.set_remaining(0);
    push_new(&bench, "2.0");
    assert_limited(&bench.get(&bench.manifest("2.0")).await, 1..=SIX_HOURS);
    let reply = bench.get(&bench.blob(&large.layer)).await;
    assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, large.layer.clone()));
}

#[tokio::test]
async fn the_limit_on_abuse_stops_everything_for_that_registry() {
    let bench = Bench::before(patient(600), ASKS_ALWAYS).await;
    bench.pull("latest").await;
    let large = bench.push_with_layer(64 * 1024);
    push_new(&bench, "2.0");
    bench.break_everything(Fault::AbuseLimit).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "stale");
    let work = async {
        for url in
            [bench.manifest("2.0"), bench.manifest(&bench.hub.second().digest), bench.blob(&large.layer)]
        {
            assert_limited(&bench.get(&url).await, 1..=600);
            assert_eq!(bench.head(&url).await.status, StatusCode::TOO_MANY_REQUESTS, "{url}");
        }
        assert_gives(&bench.head(&bench.manifest("latest")).await, bench.hub.first(), "stale");
        bench.pull("latest").await;
    };
    let ((), cost) = bench.cost_of(work).await;
    assert_eq!(cost.requests, 0, "{cost:?}");
}

#[tokio::test]
async fn once_the_limit_on_abuse_is_over_one_request_tries_and_then_all_is_well() {
    let bench = Bench::before(patient(1), ASKS_ALWAYS).await;
    bench.pull("latest").await;
    bench.hub.fault(Kind::ManifestHead, Fault::AbuseLimit.next(1)).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "stale");
    // The next that is let through hangs, so that all who come meanwhile are seen to be kept off.
    bench.hub.fault(Kind::ManifestHead, Fault::Hang).await;
    bench.hub.reset_counters();
    let url = bench.manifest("latest");
    let probe = until(async || bench.hub.counters().manifest_heads > 0 || !tried(&bench, &url).await);
    let first = async {
        bench.hub.held(Kind::ManifestHead, 1).await;
        let others = (0..20).map(|number| bench.manifest(if number % 2 == 0 { "1.0" } else { "2.0" }));
        for url in others {
            let reply = bench.get(&url).await;
            assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{reply:?}");
        }
        assert_eq!(bench.hub.counters().manifest_heads, 1);
        bench.hub.clear(Kind::ManifestHead).await;
    };
    soon(async { tokio::join!(probe, first) }).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "unchanged");
    assert_gives(&bench.get(&bench.manifest("1.0")).await, bench.hub.first(), "changed");
}

/// Whether the tag was not confirmed.
async fn tried(bench: &Bench, url: &str) -> bool {
    standing(&bench.get(url).await) == "stale"
}

#[tokio::test]
async fn once_the_pull_limit_is_over_what_was_refused_is_to_be_had() {
    let bench = Bench::before(patient(1), ASKS_ALWAYS).await;
    bench.hub.fault(Kind::ManifestGet, Fault::PullLimit.next(1)).await;
    let url = bench.manifest("latest");
    assert_limited(&bench.get(&url).await, 1..=1);
    bench.hub.reset_counters();
    until(async || bench.get(&url).await.status == StatusCode::OK).await;
    let counters = bench.hub.counters();
    assert_eq!((counters.manifest_gets, counters.too_many_requests), (1, 0), "{counters:?}");
}

#[tokio::test]
async fn more_left_again_ends_the_wait_before_its_time() {
    let bench = Bench::before(patient(SIX_HOURS), ASKS_ALWAYS).await;
    bench.pull("latest").await;
    let new = push_new(&bench, "2.0");
    bench.hub.set_remaining(0);
    for tag in ["2.0", &new.digest] {
        assert_limited(&bench.get(&bench.manifest(tag)).await, SIX_HOURS - 60..=SIX_HOURS);
    }
    bench.hub.refill();
    // Any answer that tells the number will do.
    assert_gives(&bench.head(&bench.manifest("latest")).await, bench.hub.first(), "unchanged");
    assert_gives(&bench.get(&bench.manifest("2.0")).await, &new, "changed");
}

#[tokio::test]
async fn repeated_failures_shut_the_gate_and_one_success_opens_it() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    bench.break_everything(Fault::Unavailable).await;
    let digest = |number: u8| digest_of(&[number]);
    for number in 0..10 {
        bench.get(&bench.manifest(&digest(number))).await;
    }
    let refused = async {
        for number in 10..15 {
            let reply = bench.get(&bench.manifest(&digest(number))).await;
            assert_refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
            assert!(retry_after(&reply) >= 1);
        }
        assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "stale");
    };
    let ((), cost) = bench.cost_of(refused).await;
    assert!(cost.requests <= 1, "a shut gate lets a probe through at most: {cost:?}");

    bench.hub.clear_all().await;
    until(async || standing(&bench.get(&bench.manifest("latest")).await) == "unchanged").await;
    for number in 20..25 {
        let reply = bench.get(&bench.manifest(&digest(number))).await;
        assert_refused(&reply, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn another_registry_is_not_affected() {
    for fault in [Fault::AbuseLimit, Fault::Unavailable] {
        let (first, second) = (Hub::start(images_only()).await, Hub::start(images_only()).await);
        let rest = format!(
            "[tags]\n{ASKS_ALWAYS}\n[registries.\"docker.io\"]\nupstream = \"{}\"\n\
             [registries.\"other.test\"]\nupstream = \"{}\"\n",
            first.registry_url(),
            second.registry_url()
        );
        let bench = Bench::with(first, &rest);
        bench.break_everything(fault).await;
        for number in 0..8_u8 {
            let reply = bench.get(&bench.manifest(&digest_of(&[number]))).await;
            assert!(!reply.status.is_success(), "{reply:?}");
        }
        let other = format!("{}/v2/{REPOSITORY}/manifests/latest?ns=other.test", bench.daemon.mirror());
        assert_gives(&bench.get(&other).await, second.first(), "changed");
    }
}

/// Everything that a node needs of this, by digest, as containerd asks for it once the tag is resolved.
async fn pull_of(bench: &Bench, tag: &str) -> Image {
    let head = bench.head(&bench.manifest(tag)).await;
    assert_eq!(head.status, StatusCode::OK, "{head:?}");
    bench.pull(tag).await;
    let digest = head.header("docker-content-digest").unwrap();
    let known = [bench.hub.first(), bench.hub.second()].into_iter().find(|image| image.digest == digest);
    known.unwrap().clone()
}

#[tokio::test]
async fn a_new_index_whose_image_is_refused_leaves_the_old_version_to_be_pulled() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.point_latest_at(bench.hub.second());
    let second = bench.hub.second().clone();
    bench.hub.fault(Kind::ManifestGet, Fault::PullLimit.only(&second.own().manifest)).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, &second, "changed");
    let refused = bench.get(&bench.manifest(&second.own().manifest)).await;
    assert_refused(&refused, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    bench.hub.set_remaining(0);
    // Who comes again, as every client does, gets a whole image.
    let reply = bench.get(&bench.manifest("latest")).await;
    assert_gives(&reply, bench.hub.first(), "stale");
    assert_eq!(pull_of(&bench, "latest").await.digest, bench.hub.first().digest);

    bench.hub.clear_all().await;
    bench.hub.refill();
    bench.head(&bench.manifest("latest")).await;
    assert_eq!(pull_of(&bench, "latest").await.digest, second.digest);
}

#[tokio::test]
async fn with_one_left_a_changed_index_is_not_begun() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.point_latest_at(bench.hub.second());
    bench.hub.set_remaining(1);
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.first(), "stale");
    assert_eq!(cost.manifest_gets, 0, "{cost:?}");
    assert_eq!(pull_of(&bench, "latest").await.digest, bench.hub.first().digest);
    bench.hub.set_remaining(2);
    assert_eq!(pull_of(&bench, "latest").await.digest, bench.hub.second().digest);
}

#[tokio::test]
async fn with_one_left_a_changed_image_of_one_platform_is_fetched() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    let single = crate::support::hub::ImageSpec { platforms: vec![Platform::own()], ..marker("single") };
    let image = Image::build(&single).unwrap();
    bench.hub.push(REPOSITORY, &image);
    bench.point_latest_at(&image);
    bench.hub.set_remaining(1);
    assert_gives(&bench.get(&bench.manifest("latest")).await, &image, "changed");
}

#[tokio::test]
async fn a_404_is_kept_for_a_moment() {
    let bench = Bench::start().await;
    let unknown_blob = bench.blob(&digest_of(b"no blob"));
    bench.hub.reset_counters();
    for _ in 0..2 {
        let reply = bench.get(&bench.manifest("9.9")).await;
        assert_refused(&reply, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        assert_refused(&bench.get(&unknown_blob).await, StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    }
    let counters = bench.hub.counters();
    assert_eq!((counters.manifest_heads, counters.manifest_gets), (1, 0), "{counters:?}");
    assert_eq!(counters.blob_gets + counters.blob_heads, 1, "{counters:?}");
    bench.hub.tag(REPOSITORY, "9.9", &bench.hub.first().digest);
    until(async || bench.get(&bench.manifest("9.9")).await.status == StatusCode::OK).await;
}
