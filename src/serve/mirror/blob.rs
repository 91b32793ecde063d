//! Blobs: HEAD, and GET of all of one or of a range, also while it is still coming in.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::error::Problem;
use super::{CONTENT_DIGEST, STANDING, ascii};
use crate::clock;
use crate::oci::{ByteRange, Digest, Repository};
use crate::resolve::{BlobBytes, Caller, Resolver, Standing};
use crate::serve::http::Body;

pub(super) async fn describe(
    resolver: &Resolver,
    caller: &Caller,
    repository: &Repository,
    digest: &Digest,
) -> Result<Response<Body>, Problem> {
    let size = resolver.blob_size(caller, repository, digest).await?;
    let mut response = Response::new(Body::empty());
    put_headers(&mut response, digest);
    if let Some(size) = size {
        response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    }
    Ok(response)
}

pub(super) async fn answer(
    resolver: &Resolver,
    caller: &Caller,
    repository: &Repository,
    digest: &Digest,
    range: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let asked_at = clock::instant();
    let mut blob = resolver.blob(caller, repository, digest).await?;
    let total = match &mut blob {
        BlobBytes::Held(blob) => blob.size(),
        BlobBytes::Coming(follower) => follower.total().await?,
    };
    let asked = range.and_then(ByteRange::parse);
    let range = match asked {
        Some(range) => range.within(total)?,
        None => 0..total,
    };
    let partial =
        asked.map(|_| ascii(&format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1))));
    let sending = resolver.record().sending(digest, range.end - range.start, asked_at);
    let mut response = Response::new(Body::Blob(blob, range, sending));
    put_headers(&mut response, digest);
    if let Some(content_range) = partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(header::CONTENT_RANGE, content_range);
    }
    Ok(response)
}

/// What part of a blob is asked for: all of it too where only another's part would do (RFC 9110, section 13.1.5).
pub(super) fn range<'a>(headers: &'a HeaderMap, digest: &Digest) -> Option<&'a str> {
    let of_this = |only_of: &HeaderValue| *only_of == tag(digest);
    headers.get(header::IF_RANGE).is_none_or(of_this).then_some(())?;
    headers.get(header::RANGE)?.to_str().ok()
}

fn tag(digest: &Digest) -> HeaderValue {
    ascii(&format!("\"{digest}\""))
}

fn put_headers(response: &mut Response<Body>, digest: &Digest) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    headers.insert(header::ETAG, tag(digest));
    headers.insert(STANDING, HeaderValue::from_static(Standing::Immutable.as_str()));
}
