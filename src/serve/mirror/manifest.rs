//! Manifests: HEAD and GET, by tag or digest.

use http::{Response, header};

use super::accept::Accept;
use super::error::Problem;
use super::{CONTENT_DIGEST, HELD, STANDING, ascii, put_standing};
use crate::oci::{Digest, Kind, Manifest, Platform, Reference, Repository};
use crate::resolve::{Caller, Looked, Resolver, Served};
use crate::serve::http::Body;

/// The media types of an image's manifest.
const IMAGES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Answers a HEAD only for what a GET could then have: the manifest is here by then.
pub(super) async fn answer(
    resolver: &Resolver,
    caller: &Caller,
    repository: &Repository,
    reference: &Reference,
    accept: &Accept,
    head: bool,
) -> Result<Response<Body>, Problem> {
    let mut served = resolver.manifest(caller, repository, reference).await?;
    match reference {
        // A digest is its own answer.
        Reference::Digest(_) => {}
        Reference::Tag(_) if accept.takes(&served.media_type) => {}
        Reference::Tag(_) => {
            let refuse = |served: &Served| {
                resolver.not_accepted(caller, repository, reference, served);
                Problem::NotAccepted(served.media_type.clone())
            };
            let child = only_image(&served, accept).ok_or_else(|| refuse(&served))?;
            let image = resolver.manifest(caller, repository, &Reference::Digest(child)).await?;
            if !accept.takes(&image.media_type) {
                return Err(refuse(&image));
            }
            served = Served { standing: served.standing, age: served.age, grounds: None, ..image };
        }
    }
    if !head {
        resolver.fetch_ahead(caller, repository, &served);
    }
    let length = served.bytes.len();
    let body = if head { Body::empty() } else { Body::Bytes(served.bytes) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, ascii(served.digest.as_str()));
    headers.insert(header::ETAG, ascii(&format!("\"{}\"", served.digest)));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, ascii(&served.media_type));
    put_standing(headers, served.standing, served.age);
    if let Some(grounds) = served.grounds {
        response.extensions_mut().insert(grounds);
    }
    Ok(response)
}

/// What would be answered, without a body: nothing is fetched for it.
pub(super) async fn look(
    resolver: &Resolver,
    caller: &Caller,
    repository: &Repository,
    reference: &Reference,
) -> Result<Response<Body>, Problem> {
    let Looked { digest, standing } = resolver.look(caller, repository, reference).await?;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    if let Some(digest) = digest {
        headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    }
    headers.insert(HELD, ascii(if standing.is_some() { "yes" } else { "no" }));
    if let Some(standing) = standing {
        headers.insert(STANDING, ascii(standing.as_str()));
    }
    Ok(response)
}

/// The image that a client means which knows of no indexes: the one for `linux/amd64`, as registries have it.
fn only_image(served: &Served, accept: &Accept) -> Option<Digest> {
    match served.kind {
        Kind::Index if IMAGES.iter().any(|image| accept.takes(image)) => {}
        Kind::Index | Kind::Image => return None,
    }
    let index = Manifest::parse(&served.bytes).ok()?;
    let platform: Platform = "linux/amd64".parse().ok()?;
    let fits = |child: &&crate::oci::Child| child.platform.as_ref() == Some(&platform);
    index.children().iter().find(fits).map(|child| child.digest.clone())
}
