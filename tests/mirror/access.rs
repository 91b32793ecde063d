//! Who is refused: a repository that the registry does not let us read is given to nobody, held or not.

use http::StatusCode;

use crate::bench::{ASKS_ALWAYS, Bench, marker};
use crate::people::{SECRET, adas, ask_as, push_secret, with_private};
use crate::support::hub::client::Reply;
use crate::support::hub::{Fault, Image, Kind, REPOSITORY};

#[tokio::test]
async fn a_private_or_missing_repository_is_never_given() {
    let bench = Bench::before(with_private(SECRET), ASKS_ALWAYS).await;
    let image = push_secret(&bench);
    for repository in [SECRET, "team/nothing"] {
        for reference in ["latest", &image.digest] {
            assert_kept_from(&bench.head(&bench.manifest_of(repository, reference)).await);
            let reply = bench.get(&bench.manifest_of(repository, reference)).await;
            assert_kept_from(&reply);
            // Whoever may read it is told where to get a token, in the registry's own words.
            assert_eq!(reply.error_code(), "UNAUTHORIZED");
            let (told, realm) = (reply.challenge(), format!("{}/token", bench.hub.token_url()));
            assert_eq!((told.realm, told.scope), (realm, format!("repository:{repository}:pull")));
        }
        for method in [http::Method::HEAD, http::Method::GET] {
            assert_kept_from(&bench.ask(method, &bench.blob_of(repository, &image.own().config), &[]).await);
        }
    }
    assert_eq!(bench.hub.counters().manifest_gets, 0);
    assert_eq!(bench.held(), [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_held_from_a_public_repository_is_not_given_under_a_private_one() {
    let bench = Bench::before(with_private(SECRET), ASKS_ALWAYS).await;
    let (image, _) = (bench.hub.first().clone(), push_secret(&bench));
    bench.hub.push(SECRET, &image);
    bench.hub.tag(SECRET, "latest", &image.digest);
    bench.pull("latest").await;
    for fault in [None, Some(Fault::Unavailable)] {
        if let Some(fault) = fault {
            bench.break_everything(fault).await;
        }
        for reference in ["latest", &image.digest] {
            assert_kept_from(&bench.get(&bench.manifest_of(SECRET, reference)).await);
        }
        assert_kept_from(&bench.get(&bench.blob_of(SECRET, &image.own().config)).await);
        assert_kept_from(&bench.head(&bench.blob_of(SECRET, &image.own().config)).await);
    }
}

#[tokio::test]
async fn whoever_only_looks_costs_nothing_and_is_told_no_more_than_whoever_asks() {
    let bench = Bench::before(with_private(SECRET), ASKS_ALWAYS).await;
    let (public, secret) = (bench.hub.first().clone(), push_secret(&bench));
    let look = async |repository: &str, reference: &str| {
        let url = bench.manifest_of(repository, reference);
        let reply = bench.ask(http::Method::GET, &url, &[("tidehold-look-only", "yes")]).await;
        assert!(reply.status != StatusCode::OK || reply.body.is_empty(), "nothing is given: {reply:?}");
        let header = |name: &str| reply.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (reply.status.as_u16(), header("tidehold-held"), header("docker-content-digest"))
    };
    let seen = |status, held: &str, digest: &str| (status, Some(held.to_owned()), Some(digest.to_owned()));
    for reference in ["latest", &public.digest] {
        assert_eq!(look(REPOSITORY, reference).await, seen(200, "no", &public.digest));
    }
    assert_eq!(look(REPOSITORY, "missing").await, (404, None, None));
    assert_eq!((bench.hub.counters().manifest_gets, bench.held()), (0, vec![]));

    bench.pull("latest").await;
    let asked_as_ada = adas(&bench).await;
    let url = bench.manifest_of(SECRET, "latest");
    assert_eq!(ask_as(&bench, Some(&asked_as_ada), http::Method::GET, &url).await.status, StatusCode::OK);
    let pulled = bench.hub.counters().manifest_gets;
    for fault in [None, Some(Fault::Unavailable)] {
        if let Some(fault) = fault {
            bench.break_everything(fault).await;
        }
        assert_eq!(look(REPOSITORY, "latest").await, seen(200, "yes", &public.digest));
        for reference in ["latest", &secret.digest] {
            let (status, held, digest) = look(SECRET, reference).await;
            assert!(status >= 400 && held.is_none() && digest.is_none(), "{status} {held:?} {digest:?}");
        }
    }
    assert_eq!(bench.hub.counters().manifest_gets, pulled);
}

#[tokio::test]
async fn only_a_manifest_is_looked_at_without_being_counted() {
    let bench = Bench::start().await;
    let config = &bench.hub.first().own().config;
    let look = [("tidehold-look-only", "yes")];
    bench.ask(http::Method::GET, &bench.manifest("latest"), &look).await;
    let given = bench.ask(http::Method::GET, &bench.blob(config), &look).await;
    assert_eq!(given.status, StatusCode::OK);
    let metrics = bench.get(&format!("{}/metrics", bench.daemon.web())).await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let counted: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("tidehold_requests_total{front=\"mirror\"")).collect();
    let [blob] = counted[..] else { panic!("{counted:?}") };
    assert!(blob.contains("kind=\"blob\"") && blob.ends_with(" 1"), "{blob}");
}

#[tokio::test]
async fn a_blob_is_not_given_under_a_repository_that_lacks_it() {
    let bench = Bench::start().await;
    let image = Image::build(&marker("elsewhere")).unwrap();
    bench.hub.push("library/other", &image);
    let config = &image.own().config;
    assert_eq!(bench.get(&bench.blob_of("library/other", config)).await.status, StatusCode::OK);
    assert_eq!(bench.get(&bench.blob(config)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_blob_that_two_repositories_have_is_fetched_once() {
    let bench = Bench::start().await;
    let layer = &bench.hub.first().own().layers[0];
    bench.get(&bench.blob(layer)).await;
    let (reply, cost) = bench.cost_of(bench.get(&bench.blob_of("ratelimitpreview/test", layer))).await;
    assert_eq!((reply.status, cost.cdn_gets, cost.blob_gets), (StatusCode::OK, 0, 0), "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_has_become_private_is_not_served_stale() {
    let mut bench = Bench::start().await;
    bench.pull("latest").await;
    bench.replace_registry(with_private(REPOSITORY)).await;
    for _ in 0..2 {
        assert_kept_from(&bench.head(&bench.manifest("latest")).await);
        assert_kept_from(&bench.get(&bench.manifest("latest")).await);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_had_is_an_outage_and_no_denial() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.hub.revoke_tokens();
    bench.hub.fault(Kind::Token, Fault::Unavailable).await;
    crate::bench::assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "stale");
}

#[tokio::test]
async fn a_token_that_is_denied_is_a_denial_and_the_tag_is_not_forgotten() {
    let bench = Bench::start().await;
    bench.pull("latest").await;
    bench.hub.revoke_tokens();
    bench.hub.fault(Kind::Token, Fault::Forbidden).await;
    assert_kept_from(&bench.get(&bench.manifest("latest")).await);
    bench.break_everything(Fault::Unavailable).await;
    crate::bench::assert_gives(&bench.get(&bench.manifest("latest")).await, bench.hub.first(), "stale");
}

/// An error, with nothing of what was asked for about it.
#[track_caller]
fn assert_kept_from(reply: &Reply) {
    assert!(reply.status.is_client_error() || reply.status.is_server_error(), "{reply:?}");
    for header in ["docker-content-digest", "etag", "tidehold-standing"] {
        assert_eq!(reply.header(header), None, "{reply:?}");
    }
}
