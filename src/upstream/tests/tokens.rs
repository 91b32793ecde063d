//! Tokens: one request however many ask, shown to the upstream alone.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::Response;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::site::{Seen, Site, anyone, latest, repository, response, upstreams_at};
use crate::upstream::{Failure, Forbidden, Timeouts, Upstreams};

/// A registry that lets nobody in without the token of its service, which hands them out numbered.
struct Guarded {
    site: Site,
    /// Tokens that are handed out; none are while there are no permits.
    gate: Arc<Semaphore>,
    /// Gets a permit for each request for a token.
    arrived: Arc<Semaphore>,
}

impl Guarded {
    async fn serve(token: impl Fn(usize) -> Response + Clone + Send + Sync + 'static) -> Self {
        let (gate, arrived) = (Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), Arc::new(Semaphore::new(0)));
        let (door, bell, number) = (gate.clone(), arrived.clone(), Arc::new(AtomicUsize::new(0)));
        let site = Site::serve(move |seen| {
            let (door, bell, number, token) = (door.clone(), bell.clone(), number.clone(), token.clone());
            async move {
                if !seen.target.starts_with("/token") {
                    return guard(&seen);
                }
                bell.add_permits(1);
                let _open = door.acquire().await.unwrap();
                token(number.fetch_add(1, Ordering::Relaxed))
            }
        })
        .await;
        Self { site, gate, arrived }
    }

    fn shut(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
        self.arrived.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open(&self) {
        self.gate.add_permits(1000);
    }
}

/// Lets in `Bearer good…` and challenges everyone else.
fn guard(seen: &Seen) -> Response {
    if seen.header("authorization").is_some_and(|shown| shown.starts_with("Bearer good")) {
        return response(200, &[("content-length", "2")], "{}");
    }
    challenge(seen)
}

fn challenge(seen: &Seen) -> Response {
    let name = seen.target.trim_start_matches("/v2/").split("/manifests").next().unwrap();
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"registry.test\",scope=\"repository:{name}:pull\"",
        seen.site()
    );
    response(401, &[("www-authenticate", &challenge)], "")
}

fn good(number: usize) -> Response {
    response(200, &[], format!(r#"{{"token":"good{number}","expires_in":300}}"#))
}

async fn head(upstreams: &Upstreams, name: &str) -> Result<(), Failure> {
    upstreams.head_manifest(&anyone(), &repository(name), &latest()).await.map(drop)
}

#[tokio::test]
async fn a_challenge_is_answered_once_and_its_token_kept() {
    let guarded = Guarded::serve(good).await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "a/b").await.unwrap();
    head(&upstreams, "a/b").await.unwrap();
    upstreams.get_manifest(&anyone(), &repository("a/b"), &latest()).await.unwrap();

    let seen = guarded.site.seen();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    let manifest = "/v2/a/b/manifests/latest";
    let token = "/token?service=registry.test&scope=repository%3Aa%2Fb%3Apull";
    assert_eq!(targets, [manifest, token, manifest, manifest, manifest]);
    let shown: Vec<_> = seen.iter().map(|seen| seen.header("authorization")).collect();
    assert_eq!(shown, [None, None, Some("Bearer good0"), Some("Bearer good0"), Some("Bearer good0")]);
}

#[tokio::test]
async fn a_registry_that_is_known_costs_no_second_challenge() {
    let guarded = Guarded::serve(good).await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "a").await.unwrap();
    head(&upstreams, "b").await.unwrap();
    assert_eq!(guarded.site.count("/v2/a/"), 2);
    assert_eq!(guarded.site.count("/v2/b/"), 1);
    assert_eq!(guarded.site.count("/token?service=registry.test&scope=repository%3Ab%3Apull"), 1);
}

#[tokio::test]
async fn any_number_of_askers_share_one_request_for_a_token() {
    let guarded = Guarded::serve(good).await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "known").await.unwrap();
    guarded.shut();
    let opening = async {
        guarded.arrived.acquire().await.unwrap().forget();
        guarded.open();
    };
    let askers = join_all((0..100).map(|_| head(&upstreams, "a")));
    let (answers, ()) = tokio::join!(askers, opening);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(guarded.site.count("/token"), 2);
    assert_eq!(guarded.site.count("/v2/a/"), 100);
}

#[tokio::test]
async fn a_leader_that_leaves_strands_nobody() {
    let guarded = Guarded::serve(good).await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "known").await.unwrap();
    guarded.shut();
    let mut follower = pin!(head(&upstreams, "a"));
    {
        let mut leader = pin!(head(&upstreams, "a"));
        tokio::select! {
            biased;
            _ = &mut leader => panic!("the gate is shut"),
            _ = &mut follower => panic!("the gate is shut"),
            permit = guarded.arrived.acquire() => permit.unwrap().forget(),
        }
    }
    guarded.open();
    follower.await.unwrap();
    assert_eq!(guarded.site.count("/token"), 2);
}

#[tokio::test]
async fn a_request_that_everyone_left_is_started_anew() {
    let guarded = Guarded::serve(good).await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "known").await.unwrap();
    guarded.shut();
    {
        let mut only = pin!(head(&upstreams, "a"));
        tokio::select! {
            biased;
            _ = &mut only => panic!("the gate is shut"),
            permit = guarded.arrived.acquire() => permit.unwrap().forget(),
        }
    }
    guarded.open();
    head(&upstreams, "a").await.unwrap();
}

#[tokio::test]
async fn a_failure_is_shared_and_not_kept() {
    let guarded = Guarded::serve(|number| match number {
        1 => response(503, &[], ""),
        _ => good(number),
    })
    .await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "known").await.unwrap();
    guarded.shut();
    let opening = async {
        guarded.arrived.acquire().await.unwrap().forget();
        guarded.open();
    };
    let askers = join_all((0..10).map(|_| head(&upstreams, "a")));
    let (answers, ()) = tokio::join!(askers, opening);
    assert!(answers.iter().all(|answer| matches!(answer, Err(Failure::Unavailable { status: 503, .. }))));
    assert_eq!(guarded.site.count("/token"), 2);
    head(&upstreams, "a").await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let served = Arc::new(AtomicUsize::new(0));
    let site = Site::serve(move |seen| {
        let served = served.clone();
        async move {
            if seen.target.starts_with("/token") {
                return good(served.fetch_add(1, Ordering::Relaxed));
            }
            // The first token is good for a HEAD alone.
            if seen.header("authorization") == Some("Bearer good0") && seen.method == http::Method::GET {
                return challenge(&seen);
            }
            guard(&seen)
        }
    })
    .await;
    let upstreams = site.upstreams();
    head(&upstreams, "a").await.unwrap();
    upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap();
    assert_eq!(site.count("/token"), 2);
    assert_eq!(site.seen().last().unwrap().header("authorization"), Some("Bearer good1"));
}

#[tokio::test]
async fn a_repository_that_no_token_opens_is_denied_after_one() {
    let guarded = Guarded::serve(|number| match number {
        0 => good(0),
        _ => response(200, &[], r#"{"token":"bad"}"#),
    })
    .await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "known").await.unwrap();
    for asked in 1..=2 {
        assert!(matches!(head(&upstreams, "a").await, Err(Failure::Denied { status: 401, .. })));
        assert_eq!(guarded.site.count("/v2/a/"), asked);
        assert_eq!(guarded.site.count("/token"), 1 + asked);
    }
}

#[tokio::test]
async fn a_token_that_is_not_to_be_had_is_told_by_its_reason() {
    for (status, expected) in [
        (401, "NoToken { status: 401, challenge: "),
        (403, "NoToken { status: 403, challenge: "),
        (400, "NoToken { status: 400, challenge: "),
        (404, "NoToken { status: 404, challenge: "),
        (429, "Limited { retry_after: None }"),
        (500, "Unavailable { status: 500, retry_after: None }"),
    ] {
        let guarded = Guarded::serve(move |_| response(status, &[], "")).await;
        let failure = head(&guarded.site.upstreams(), "a").await.unwrap_err();
        assert!(format!("{failure:?}").starts_with(expected), "{failure:?}");
    }
    for (status, body) in [(200, "<html>"), (200, "{}")] {
        let guarded = Guarded::serve(move |_| response(status, &[], body)).await;
        assert!(matches!(head(&guarded.site.upstreams(), "a").await, Err(Failure::Unusable(_))));
    }
}

#[tokio::test]
async fn an_endless_token_is_not_read_to_its_end() {
    let guarded = Guarded::serve(|_| {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 8192]));
        response(200, &[], axum::body::Body::from_stream(chunks))
    })
    .await;
    assert!(matches!(head(&guarded.site.upstreams(), "a").await, Err(Failure::TooLarge { .. })));
}

#[tokio::test]
async fn a_token_that_expires_at_once_is_never_shown_twice() {
    let guarded = Guarded::serve(|number| {
        response(200, &[], format!(r#"{{"access_token":"good{number}","expires_in":0}}"#))
    })
    .await;
    let upstreams = guarded.site.upstreams();
    head(&upstreams, "a").await.unwrap();
    head(&upstreams, "a").await.unwrap();
    assert_eq!(guarded.site.count("/token"), 2);
    assert_eq!(guarded.site.seen().last().unwrap().header("authorization"), Some("Bearer good1"));
}

#[tokio::test]
async fn a_token_service_that_moved_is_found_again() {
    let site = Site::serve(async |seen| {
        if seen.target.starts_with("/token") {
            // Only the first repository's tokens are still had here.
            let here = seen.target.contains("first");
            return if here { good(0) } else { response(404, &[], "") };
        }
        if seen.target.starts_with("/moved") {
            return good(1);
        }
        match guard(&seen) {
            refusal if refusal.status() == 401 && !seen.target.contains("first") => {
                let challenge = format!("Bearer realm=\"{}/moved\"", seen.site());
                response(401, &[("www-authenticate", &challenge)], "")
            }
            answer => answer,
        }
    })
    .await;
    let upstreams = site.upstreams();
    head(&upstreams, "first").await.unwrap();
    assert!(head(&upstreams, "second").await.is_err());
    head(&upstreams, "second").await.unwrap();
    assert_eq!(site.count("/moved"), 1);
}

#[tokio::test]
async fn a_challenge_for_a_password_is_not_answered() {
    let site = Site::serve(async |seen| {
        let challenge = format!("Basic realm=\"{}/token\"", seen.site());
        response(401, &[("www-authenticate", &challenge)], "")
    })
    .await;
    assert!(matches!(head(&site.upstreams(), "a").await, Err(Failure::Denied { status: 401, .. })));
    assert_eq!(site.seen().len(), 1);
}

#[tokio::test]
async fn a_token_service_beyond_the_rules_is_not_asked() {
    for realm in ["ftp://127.0.0.1/token", "http://user:password@127.0.0.1/token", "token", "unix:/run/x"] {
        let site = Site::serve(move |_| async move {
            response(401, &[("www-authenticate", &format!("Bearer realm=\"{realm}\""))], "")
        })
        .await;
        let failure = head(&site.upstreams(), "a").await.unwrap_err();
        let refused = matches!(failure, Failure::Unusable(_) | Failure::Forbidden(Forbidden::Realm(_)));
        assert!(refused, "{realm}: {failure:?}");
        assert_eq!(site.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_base_with_a_path_is_challenged_like_any_other() {
    let guarded = Guarded::serve(good).await;
    let upstreams = upstreams_at(&format!("{}/mirror/", guarded.site.url()), Timeouts::default());
    head(&upstreams, "a").await.unwrap();
    assert_eq!(guarded.site.count("/mirror/v2/a/manifests/latest"), 2);
}
