//! Bodies that are as announced, and bodies that aren't.

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::site::{
    Site, anyone, impatient_for_bodies, latest, raw, repository, response, some_digest, upstreams_at,
};
use crate::oci::MAX_MANIFEST_BYTES;
use crate::upstream::{Failure, Timeouts, Wait};

fn chunks(bytes: u64) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    stream::iter((0..bytes.div_ceil(65536)).map(move |chunk| {
        let length = (bytes - chunk * 65536).min(65536);
        Ok(Bytes::from(vec![b'x'; usize::try_from(length).unwrap()]))
    }))
}

#[tokio::test]
async fn a_manifest_may_be_as_long_as_the_bound_and_no_longer() {
    let site = Site::serve(async |seen| {
        let length = if seen.target.ends_with("fits") { MAX_MANIFEST_BYTES } else { MAX_MANIFEST_BYTES + 1 };
        // With a length announced, or without.
        match seen.target.contains("/announced/") {
            true => {
                response(200, &[("content-length", &length.to_string())], Body::from_stream(chunks(length)))
            }
            false => response(200, &[], Body::from_stream(chunks(length))),
        }
    })
    .await;
    let upstreams = site.upstreams();
    for name in ["announced", "chunked"] {
        let fits =
            upstreams.get_manifest(&anyone(), &repository(name), &"fits".parse().unwrap()).await.unwrap();
        assert_eq!(fits.len() as u64, MAX_MANIFEST_BYTES);
        let exceeds = upstreams.get_manifest(&anyone(), &repository(name), &"exceeds".parse().unwrap()).await;
        assert!(matches!(exceeds, Err(Failure::TooLarge { .. })), "{name}");
    }
}

#[tokio::test]
async fn the_rest_of_a_blob_is_asked_for_by_a_range() {
    let site = Site::serve(async |seen| match seen.header("range") {
        None => response(200, &[], "some blob"),
        Some(range) => {
            assert_eq!(range, "bytes=5-");
            response(206, &[("content-range", "bytes 5-8/9")], "blob")
        }
    })
    .await;
    let upstreams = site.upstreams();
    let whole = upstreams.get_blob(&anyone(), &repository("a"), &some_digest(), 0, None).await.unwrap();
    assert_eq!((whole.total, whole.starts_at), (Some(9), 0));
    let rest = upstreams.get_blob(&anyone(), &repository("a"), &some_digest(), 5, None).await.unwrap();
    assert_eq!((rest.total, rest.starts_at), (Some(9), 5));
    let bytes: Vec<_> = rest.body.try_collect().await.unwrap();
    assert_eq!(bytes.concat(), b"blob");
}

#[tokio::test]
async fn a_registry_without_ranges_starts_at_the_beginning() {
    let site = Site::serve(async |_| response(200, &[], "some blob")).await;
    let blob = site.upstreams().get_blob(&anyone(), &repository("a"), &some_digest(), 5, None).await.unwrap();
    assert_eq!((blob.total, blob.starts_at), (Some(9), 0));
}

#[tokio::test]
async fn another_part_than_the_wanted_one_is_refused() {
    for range in ["bytes 0-8/9", "bytes 4-8/9", "bytes 5-9/9", "nonsense"] {
        let site =
            Site::serve(move |_| async move { response(206, &[("content-range", range)], "blob") }).await;
        let blob = site.upstreams().get_blob(&anyone(), &repository("a"), &some_digest(), 5, None).await;
        assert!(matches!(blob, Err(Failure::Unusable(_))), "{range}: {blob:?}");
    }
}

async fn outcome(url: String, from: u64) -> (Vec<u8>, Option<Failure>) {
    outcome_within(url, from, Timeouts::default()).await
}

async fn outcome_within(url: String, from: u64, timeouts: Timeouts) -> (Vec<u8>, Option<Failure>) {
    let upstreams = upstreams_at(&url, timeouts);
    let mut blob = upstreams.get_blob(&anyone(), &repository("a"), &some_digest(), from, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(failure) => {
                assert!(blob.body.next().await.is_none(), "a body went on after its failure");
                return (bytes, Some(failure));
            }
        }
    }
    (bytes, None)
}

#[tokio::test]
async fn a_body_that_is_cut_is_broken() {
    let (address, _) = raw(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome"]).await;
    let (bytes, failure) = outcome(format!("http://{address}"), 0).await;
    assert_eq!(bytes, b"some");
    assert!(matches!(failure, Some(Failure::Broken(_))), "{failure:?}");
}

#[tokio::test]
async fn a_part_that_ends_before_its_blob_does_is_broken() {
    let site = Site::serve(async |_| response(206, &[("content-range", "bytes 2-5/9")], "me b")).await;
    let (bytes, failure) = outcome(site.url(), 2).await;
    assert_eq!(bytes, b"me b");
    assert!(matches!(failure, Some(Failure::Broken(_))), "{failure:?}");
}

#[tokio::test]
async fn a_part_that_goes_on_after_its_blob_ended_is_unusable() {
    let site = Site::serve(async |_| {
        response(206, &[("content-range", "bytes 5-8/9")], Body::from_stream(chunks(100)))
    })
    .await;
    let (bytes, failure) = outcome(site.url(), 5).await;
    assert_eq!(bytes, b"");
    assert!(matches!(failure, Some(Failure::Unusable(_))), "{failure:?}");
}

#[tokio::test]
async fn a_body_that_stalls_times_out() {
    let (address, _) = raw(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome\0"]).await;
    let (bytes, failure) = outcome_within(format!("http://{address}"), 0, impatient_for_bodies()).await;
    assert_eq!(bytes, b"some");
    assert!(matches!(failure, Some(Failure::TimedOut(Wait::Body))), "{failure:?}");
}

#[tokio::test]
async fn a_manifest_that_stalls_times_out() {
    let (address, _) = raw(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\0"]).await;
    let upstreams = upstreams_at(&format!("http://{address}"), impatient_for_bodies());
    let failure = upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(matches!(failure, Failure::TimedOut(Wait::Body)), "{failure:?}");
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let site = Site::serve(async |_| response(200, &[("content-length", "0")], "")).await;
    let (bytes, failure) = outcome(site.url(), 0).await;
    assert!(bytes.is_empty() && failure.is_none());
}
