//! When the registry is limited, broken or gone: what is held still serves, and what is not gets an honest error.

use std::time::Duration;

use http::StatusCode;

use crate::bench::{ASKS_ALWAYS, Bench, assert_gives, assert_refused, images_only, retry_after, standing};
use crate::support::hub::client::Reply;
use crate::support::hub::{Fault, HubConfig, Kind, Refusal, RetryAfter, digest_of};

/// containerd 2.3 and later give up on a host whose headers take longer.
const CONTAINERD_WAITS: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_held_tag_is_stale_while_the_registry_answers_429() {
    serves_stale_under(Fault::PullLimit).await;
}

#[tokio::test]
async fn a_held_tag_is_stale_under_the_limit_on_abuse() {
    serves_stale_under(Fault::AbuseLimit).await;
}

#[tokio::test]
async fn a_held_tag_is_stale_while_the_registry_answers_503() {
    serves_stale_under(Fault::Unavailable).await;
}

#[tokio::test]
async fn a_held_tag_is_stale_while_connections_are_reset() {
    serves_stale_under(Fault::Reset).await;
}

#[tokio::test]
async fn a_held_tag_is_stale_while_connections_are_refused() {
    serves_stale_under(Fault::Refuse).await;
}

#[tokio::test]
async fn a_held_tag_is_stale_while_the_registry_answers_html() {
    serves_stale_under(Fault::CaptivePortal).await;
}

/// This one takes as long as the daemon waits for a registry.
#[tokio::test]
async fn a_held_tag_is_stale_while_the_registry_hangs_and_comes_before_containerd_gives_up() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.break_everything(Fault::Hang).await;
    let url = bench.manifest("latest");
    let reply = tokio::time::timeout(CONTAINERD_WAITS, bench.head(&url)).await.expect("an answer in time");
    assert_stale(&bench, &reply);
    // Who asks next does not wait: no further request leaves.
    let (reply, cost) = bench.cost_of(bench.head(&url)).await;
    assert_stale(&bench, &reply);
    assert_eq!((cost.manifest_heads, cost.manifest_gets), (0, 0), "{cost:?}");
}

async fn serves_stale_under(fault: Fault) {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.break_everything(fault).await;
    for reply in [bench.head(&bench.manifest("latest")).await, bench.get(&bench.manifest("latest")).await] {
        assert_stale(&bench, &reply);
    }
    let (_, cost) = bench.cost_of(bench.pull("latest")).await;
    assert_eq!((cost.manifest_gets, cost.blob_gets, cost.cdn_gets), (0, 0, 0), "{cost:?}");
}

fn assert_stale(bench: &Bench, reply: &Reply) {
    assert_gives(reply, bench.hub.first(), "stale");
    let warning = reply.header("warning").expect("a stale answer has a warning");
    assert!(warning.starts_with("110 "), "{warning}");
    assert!(reply.header("age").unwrap().parse::<u64>().is_ok(), "{reply:?}");
}

#[tokio::test]
async fn a_tag_is_confirmed_again_once_a_short_outage_is_over() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    bench.hub.fault(Kind::ManifestHead, Fault::Unavailable.next(1)).await;
    assert_stale(&bench, &bench.get(&bench.manifest("latest")).await);
    let reply = bench.get(&bench.manifest("latest")).await;
    assert_gives(&reply, bench.hub.first(), "unchanged");
    assert_eq!(reply.header("warning"), None);
}

#[tokio::test]
async fn the_old_digest_is_served_stale_where_the_new_one_may_not_be_pulled() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.point_latest_at(bench.hub.second());
    bench.hub.set_remaining(0);
    let reply = bench.get(&bench.manifest("latest")).await;
    assert_stale(&bench, &reply);
    assert_eq!(digest_of(&reply.body), bench.hub.first().digest);
    bench.pull("latest").await;
}

#[tokio::test]
async fn a_new_manifest_that_comes_broken_leaves_the_old_one_in_its_place() {
    for fault in [Fault::WrongBytes, Fault::CutAfter(100), Fault::CaptivePortal, Fault::Unavailable] {
        let bench = Bench::start().await;
        bench.get(&bench.manifest("latest")).await;
        bench.point_latest_at(bench.hub.second());
        bench.hub.fault(Kind::ManifestGet, fault).await;
        assert_stale(&bench, &bench.get(&bench.manifest("latest")).await);
        assert_eq!(bench.held(), [&*bench.hub.first().digest], "{fault:?}");
    }
}

#[tokio::test]
async fn what_a_head_was_answered_for_can_be_had_even_if_the_registry_goes_away_then() {
    let bench = Bench::start().await;
    let head = bench.head(&bench.manifest("latest")).await;
    bench.break_everything(Fault::Refuse).await;
    let digest = head.header("docker-content-digest").unwrap();
    let reply = bench.get(&bench.manifest(digest)).await;
    assert_eq!((reply.status, standing(&reply)), (StatusCode::OK, "immutable"));
    assert_eq!(digest_of(&reply.body), digest);
}

#[tokio::test]
async fn a_tag_too_old_to_serve_gets_an_error_that_says_when_to_come_back() {
    for (fault, status, code) in [
        (Fault::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        (Fault::Refuse, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        (Fault::AbuseLimit, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
    ] {
        let bench = Bench::before(images_only(), &format!("{ASKS_ALWAYS}\nstale_for = \"0s\"")).await;
        bench.get(&bench.manifest("latest")).await;
        bench.break_everything(fault).await;
        let reply = bench.get(&bench.manifest("latest")).await;
        assert_refused(&reply, status, code);
        assert!(retry_after(&reply) >= 1);
        let head = bench.head(&bench.manifest("latest")).await;
        assert_eq!((head.status, head.body.len()), (status, 0));
        assert!(retry_after(&head) >= 1);
    }
}

#[tokio::test]
async fn what_is_not_held_is_refused_with_429_where_the_registry_says_so() {
    for fault in [Fault::PullLimit, Fault::AbuseLimit] {
        let bench = Bench::start().await;
        bench.break_everything(fault).await;
        let reply = bench.get(&bench.manifest("latest")).await;
        assert_refused(&reply, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
        assert!((1..=21_600).contains(&retry_after(&reply)));
        assert_eq!(bench.held(), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn when_to_come_back_is_what_the_registry_says_within_reason() {
    for form in [RetryAfter::Seconds, RetryAfter::HttpDate, RetryAfter::UnixTimestamp] {
        let registry = HubConfig { refusal: Refusal::Denied, retry_after: Some(form), ..images_only() };
        let bench = Bench::before(registry, ASKS_ALWAYS).await;
        bench.hub.set_remaining(0);
        let reply = bench.get(&bench.manifest("latest")).await;
        assert_refused(&reply, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
        assert!((21_500..=21_600).contains(&retry_after(&reply)), "{form:?}: {reply:?}");
    }
}

#[tokio::test]
async fn what_is_not_held_gets_an_honest_error_while_the_registry_is_gone() {
    for fault in [Fault::Unavailable, Fault::Reset, Fault::Refuse] {
        let bench = Bench::start().await;
        bench.break_everything(fault).await;
        let blob = bench.blob(&bench.hub.first().own().config);
        for url in [bench.manifest("latest"), bench.manifest(&bench.hub.first().digest), blob] {
            let reply = bench.get(&url).await;
            assert_refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
            assert!(retry_after(&reply) >= 1);
        }
        assert_eq!(bench.held(), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn a_broken_manifest_is_given_to_nobody() {
    for fault in [Fault::WrongBytes, Fault::CutAfter(100), Fault::CaptivePortal] {
        let bench = Bench::start().await;
        bench.hub.fault(Kind::ManifestGet, fault).await;
        for reference in ["latest", &bench.hub.first().digest] {
            let reply = bench.get(&bench.manifest(reference)).await;
            assert!(reply.status.is_server_error(), "{fault:?}: {reply:?}");
            assert_eq!((reply.header("docker-content-digest"), standing(&reply)), (None, "none"));
        }
        assert_eq!(bench.held(), [] as [&str; 0]);
        bench.hub.clear(Kind::ManifestGet).await;
        assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "changed");
    }
}

#[tokio::test]
async fn a_tag_that_was_removed_is_gone_and_does_not_come_back_in_an_outage() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.hub.untag("library/tide", "latest");
    let reply = bench.get(&bench.manifest("latest")).await;
    assert_refused(&reply, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");

    bench.break_everything(Fault::Unavailable).await;
    let reply = bench.get(&bench.manifest("latest")).await;
    assert!(reply.status.is_client_error() || reply.status.is_server_error(), "{reply:?}");
    assert_eq!((reply.header("docker-content-digest"), standing(&reply)), (None, "none"));

    // Its digest is still good: nobody took that back.
    let by_digest = bench.get(&bench.manifest(&bench.hub.first().digest)).await;
    assert_eq!((by_digest.status, standing(&by_digest)), (StatusCode::OK, "immutable"));
}
