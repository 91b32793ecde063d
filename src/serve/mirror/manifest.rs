//! Manifests: HEAD and GET, by tag or digest.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

use super::error::Problem;
use super::{CONTENT_DIGEST, STANDING, ascii};
use crate::oci::{Reference, Repository};
use crate::resolve::{Client, Resolver, Standing};

/// Answers a HEAD only for what a GET could then have: the manifest is here by then.
pub(super) async fn answer(
    resolver: &Resolver,
    client: &Client,
    repository: &Repository,
    reference: &Reference,
    head: bool,
) -> Result<Response<Body>, Problem> {
    let served = resolver.manifest(client, repository, reference).await?;
    let length = served.bytes.len();
    let body = if head { Body::empty() } else { Body::from(served.bytes) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, ascii(served.digest.as_str()));
    headers.insert(header::ETAG, ascii(&format!("\"{}\"", served.digest)));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, ascii(&served.media_type));
    headers.insert(header::AGE, served.age.as_secs().into());
    headers.insert(STANDING, HeaderValue::from_static(served.standing.as_str()));
    if served.standing == Standing::Stale {
        // RFC 7234, section 5.5.1; clients that know it show it.
        headers.insert(header::WARNING, HeaderValue::from_static("110 tidehold \"Response is Stale\""));
    }
    Ok(response)
}
