//! Redirects: followed a little way, without the token, and never remembered.

use futures_util::TryStreamExt;

use super::site::{Seen, Site, anyone, latest, repository, response, some_digest, upstreams_at};
use crate::upstream::{Failure, Timeouts};

/// A registry that wants a token and redirects all else to this address.
async fn registry_that_redirects(status: u16, to: String) -> Site {
    Site::serve(move |seen: Seen| {
        let to = to.clone();
        async move {
            if seen.target.starts_with("/token") {
                return response(200, &[], r#"{"token":"secret"}"#);
            }
            if seen.header("authorization").is_none() {
                let challenge = format!("Bearer realm=\"{}/token\"", seen.site());
                return response(401, &[("www-authenticate", &challenge)], "");
            }
            response(status, &[("location", &to)], "")
        }
    })
    .await
}

#[tokio::test]
async fn a_blob_is_fetched_where_its_registry_redirects_without_the_token() {
    for status in [301, 302, 303, 307, 308] {
        let cdn = Site::serve(async |_| response(200, &[], "some blob")).await;
        let registry = registry_that_redirects(status, format!("{}/data?sig=a%2Fb", cdn.url())).await;
        let upstreams = registry.upstreams();
        let blob = upstreams.get_blob(&anyone(), &repository("a"), &some_digest(), 0, None).await.unwrap();
        assert_eq!((blob.total, blob.starts_at), (Some(9), 0));
        let bytes: Vec<_> = blob.body.try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"some blob");

        let [seen] = &cdn.seen()[..] else { panic!("the CDN was not asked once") };
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/data?sig=a%2Fb"));
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(registry.seen().last().unwrap().header("authorization"), Some("Bearer secret"));
    }
}

#[tokio::test]
async fn a_redirect_is_asked_for_anew_each_time() {
    let cdn = Site::serve(async |_| response(200, &[], "some blob")).await;
    let registry = registry_that_redirects(301, cdn.url()).await;
    let upstreams = registry.upstreams();
    for _ in 0..2 {
        upstreams.get_blob(&anyone(), &repository("a"), &some_digest(), 0, None).await.unwrap();
    }
    assert_eq!(registry.count("/v2/a/blobs/"), 3);
}

#[tokio::test]
async fn the_rest_of_a_blob_is_asked_for_behind_the_redirect_too() {
    let cdn = Site::serve(async |seen| {
        assert_eq!(seen.header("range"), Some("bytes=5-"));
        response(206, &[("content-range", "bytes 5-8/9")], "blob")
    })
    .await;
    let registry = registry_that_redirects(307, cdn.url()).await;
    let blob =
        registry.upstreams().get_blob(&anyone(), &repository("a"), &some_digest(), 5, None).await.unwrap();
    assert_eq!((blob.total, blob.starts_at), (Some(9), 5));
}

#[tokio::test]
async fn a_redirect_within_the_registry_keeps_the_token() {
    let site = Site::serve(async |seen| {
        if seen.target.starts_with("/token") {
            return response(200, &[], r#"{"token":"secret"}"#);
        }
        if seen.header("authorization").is_none() {
            let challenge = format!("Bearer realm=\"{}/token\"", seen.site());
            return response(401, &[("www-authenticate", &challenge)], "");
        }
        if seen.target.starts_with("/v2/a/") {
            return response(307, &[("location", "/elsewhere")], "");
        }
        response(200, &[], "{}")
    })
    .await;
    assert_eq!(site.upstreams().get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap(), "{}");
    assert_eq!(site.count("/elsewhere"), 1);
}

#[tokio::test]
async fn a_challenge_behind_a_redirect_gets_no_answer() {
    let cdn = Site::serve(async |seen| {
        let challenge = format!("Bearer realm=\"{}/token\"", seen.site());
        response(401, &[("www-authenticate", &challenge)], "")
    })
    .await;
    let registry = registry_that_redirects(307, cdn.url()).await;
    let failure = registry
        .upstreams()
        .get_blob(&anyone(), &repository("a"), &some_digest(), 0, None)
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Unavailable { status: 401, .. }), "{failure:?}");
    assert_eq!(cdn.seen().len(), 1);
}

#[tokio::test]
async fn redirects_end() {
    let site = Site::serve(async |_| response(302, &[("location", "/again")], "")).await;
    let failure =
        site.upstreams().get_blob(&anyone(), &repository("a"), &some_digest(), 0, None).await.unwrap_err();
    assert!(matches!(failure, Failure::Unusable(_)), "{failure:?}");
    assert_eq!(site.seen().len(), 6);
}

#[tokio::test]
async fn a_head_that_storage_refuses_is_no_denial() {
    let cdn = Site::serve(async |_| response(403, &[], "")).await;
    let registry = registry_that_redirects(307, cdn.url()).await;
    let failure =
        registry.upstreams().head_blob(&anyone(), &repository("a"), &some_digest(), None).await.unwrap_err();
    assert!(matches!(failure, Failure::NoHead { status: 403 }), "{failure:?}");
}

#[tokio::test]
async fn a_manifest_may_be_redirected_too() {
    let mirror = Site::serve(async |seen| {
        assert!(seen.header("accept").is_some());
        response(200, &[("content-length", "2")], "{}")
    })
    .await;
    let registry = registry_that_redirects(307, mirror.url()).await;
    let upstreams = upstreams_at(&registry.url(), Timeouts::default());
    assert_eq!(upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap().size, Some(2));
    assert_eq!(upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap(), "{}");
}
