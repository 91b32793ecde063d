//! A tag's answer, and the word that says how it was found to be good.

use http::{Method, StatusCode};

use crate::bench::{
    ASKS_ALWAYS, ASKS_ONCE, Bench, assert_gives, assert_refused, images_only, retry_after, standing,
};
use crate::support::hub::digest_of;

#[tokio::test]
async fn the_head_and_the_get_of_a_tag_say_what_it_points_at_and_how_they_know() {
    let bench = Bench::start().await;
    let image = bench.hub.first();
    let head = bench.head(&bench.manifest("latest")).await;
    let get = bench.get(&bench.manifest("latest")).await;
    for (reply, standing) in [(&head, "changed"), (&get, "unchanged")] {
        assert_gives(reply, image, standing);
        assert_eq!(reply.header("content-type"), Some(image.media_type));
        assert_eq!(reply.header("content-length"), Some(get.body.len().to_string().as_str()));
        assert!(reply.header("age").unwrap().parse::<u64>().is_ok(), "{reply:?}");
        assert_eq!(reply.header("warning"), None);
    }
    assert!(head.body.is_empty());
    assert_eq!(digest_of(&get.body), image.digest);
}

#[tokio::test]
async fn a_tag_is_changed_at_first_and_unchanged_after_at_the_cost_of_one_head() {
    let bench = Bench::start().await;
    let image = bench.hub.first();
    assert_gives(&bench.head(&bench.manifest("latest")).await, image, "changed");
    let (reply, cost) = bench.cost_of(bench.head(&bench.manifest("latest"))).await;
    assert_gives(&reply, image, "unchanged");
    assert_eq!((cost.manifest_heads, cost.manifest_gets, cost.requests), (1, 0, 1), "{cost:?}");
}

#[tokio::test]
async fn a_fresh_tag_asks_nobody_even_when_it_moved() {
    let bench = Bench::before(images_only(), ASKS_ONCE).await;
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "changed");
    bench.point_latest_at(bench.hub.second());
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.first(), "fresh");
    assert_eq!(cost.requests, 0, "{cost:?}");
}

#[tokio::test]
async fn one_tag_may_be_fresh_by_its_own_rule_while_another_asks() {
    let rules = format!("{ASKS_ALWAYS}\n[[tags.rules]]\nmatch = '^\\d+\\.\\d+$'\nfresh_for = \"1d\"\n");
    let bench = Bench::before(images_only(), &rules).await;
    for (tag, second) in [("1.0", "fresh"), ("latest", "unchanged")] {
        assert_gives(&bench.get(&bench.manifest(tag)).await, bench.hub.first(), "changed");
        assert_gives(&bench.get(&bench.manifest(tag)).await, bench.hub.first(), second);
    }
}

#[tokio::test]
async fn a_digest_is_immutable_and_asks_nobody_once_it_is_held() {
    let bench = Bench::start().await;
    let digest = &bench.hub.first().own().manifest;
    let first = bench.get(&bench.manifest(digest)).await;
    assert_eq!(
        (first.status, standing(&first), digest_of(&first.body)),
        (StatusCode::OK, "immutable", digest.clone())
    );
    for method in [Method::HEAD, Method::GET] {
        let (reply, cost) = bench.cost_of(bench.ask(method, &bench.manifest(digest), &[])).await;
        assert_eq!((reply.status, standing(&reply)), (StatusCode::OK, "immutable"));
        assert_eq!(reply.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(reply.header("content-length"), Some(first.body.len().to_string().as_str()));
        assert_eq!(cost.requests, 0, "{cost:?}");
    }
}

#[tokio::test]
async fn a_tag_that_moved_is_changed_and_fetched_by_its_new_digest() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    bench.point_latest_at(bench.hub.second());
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.second(), "changed");
    assert_eq!(digest_of(&reply.body), bench.hub.second().digest);
    let by_digest = format!("library/tide@{}", bench.hub.second().digest);
    assert_eq!(cost.manifest_gets_by_reference.into_iter().collect::<Vec<_>>(), [(by_digest, 1)]);
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.second(), "unchanged");
}

#[tokio::test]
async fn a_tag_that_moved_back_is_changed_and_costs_no_get() {
    let bench = Bench::start().await;
    for image in [bench.hub.first(), bench.hub.second()] {
        bench.point_latest_at(image);
        bench.get(&bench.manifest("latest")).await;
    }
    bench.point_latest_at(bench.hub.first());
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("latest"))).await;
    assert_gives(&reply, bench.hub.first(), "changed");
    assert_eq!(digest_of(&reply.body), bench.hub.first().digest);
    assert_eq!((cost.manifest_heads, cost.manifest_gets), (1, 0), "{cost:?}");
}

#[tokio::test]
async fn another_tag_of_a_held_image_costs_no_get() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    let (reply, cost) = bench.cost_of(bench.get(&bench.manifest("1.0"))).await;
    assert_gives(&reply, bench.hub.first(), "changed");
    assert_eq!((cost.manifest_heads, cost.manifest_gets), (1, 0), "{cost:?}");
}

#[tokio::test]
async fn an_unknown_tag_is_a_404_that_names_itself_so() {
    let bench = Bench::start().await;
    for reference in ["9.9", &digest_of(b"no manifest of this repository")] {
        let get = bench.get(&bench.manifest(reference)).await;
        assert_refused(&get, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        let head = bench.head(&bench.manifest(reference)).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::NOT_FOUND, 0));
    }
}

#[tokio::test]
async fn a_tag_is_confirmed_when_no_pull_is_left_and_a_new_one_is_refused_with_when_to_come_back() {
    let bench = Bench::start().await;
    bench.get(&bench.manifest("latest")).await;
    bench.hub.set_remaining(0);
    assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "unchanged");

    bench.hub.tag("library/tide", "2.0", &bench.hub.second().digest);
    let refused = bench.get(&bench.manifest("2.0")).await;
    assert_refused(&refused, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    assert!((1..=21_600).contains(&retry_after(&refused)));
}
