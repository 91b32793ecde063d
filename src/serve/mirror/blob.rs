//! Blobs: HEAD, and GET of all of one or of a range, also while it is still coming in.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::error::Problem;
use super::{CONTENT_DIGEST, STANDING, ascii};
use crate::oci::{ByteRange, Digest, Repository};
use crate::resolve::{BlobBytes, Caller, Resolver, Standing};
use crate::store::blocking;

/// How much of a blob is read at a time, in bytes: one of these is in memory for each client.
const CHUNK_BYTES: u64 = 256 << 10;

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
    let length = range.end - range.start;
    let partial =
        asked.map(|_| ascii(&format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1))));
    let mut response = Response::new(Body::from_stream(chunks(blob, range)));
    put_headers(&mut response, digest);
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if let Some(content_range) = partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(header::CONTENT_RANGE, content_range);
    }
    Ok(response)
}

fn put_headers(response: &mut Response<Body>, digest: &Digest) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    headers.insert(header::ETAG, ascii(&format!("\"{digest}\"")));
    headers.insert(STANDING, HeaderValue::from_static(Standing::Immutable.as_str()));
}

/// The bytes as they can be had. An error breaks the connection off, which is how a client learns that a body
/// with a length is not complete.
fn chunks(blob: BlobBytes, range: Range<u64>) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::try_unfold((blob, range), |(mut blob, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let length = usize::try_from(CHUNK_BYTES.min(range.end - range.start)).unwrap_or(usize::MAX);
        let bytes = match &mut blob {
            BlobBytes::Held(open) => {
                let (open, at) = (open.clone(), range.start);
                blocking(move || open.read_at(at, length)).await?
            }
            BlobBytes::Coming(follower) => {
                follower.read_at(range.start, length).await.map_err(std::io::Error::other)?
            }
        };
        if bytes.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((bytes, (blob, rest))))
    })
}
