//! What can be asked of registries: manifests and blobs, whole or by their heads.
//!
//! Owns the order of things around the stack: where a registry stands, which redirects are followed, how an
//! answer is read. Keeps no bytes and verifies no digest; whoever asked does.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use tower::ServiceExt;

use super::asked::{Answer, Asked, Kind, Place, standing_of};
use super::asker::Asker;
use super::body::{self, BlobBody, Extent};
use super::failure::Failure;
use super::redirect;
use super::settings::{Settings, SettingsError};
use super::stack::{Stack, stack};
use crate::clock;
use crate::oci::{Digest, MAX_MANIFEST_BYTES, Reference, Repository};

/// Every registry there is. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Upstreams {
    settings: Arc<Settings>,
    stack: Stack,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What the head of a manifest tells; a registry may leave out either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its digest (`Docker-Content-Digest`), unverified.
    pub digest: Option<Digest>,
    /// Its length in bytes.
    pub size: Option<u64>,
}

impl Upstreams {
    /// Registries as these settings have them. Asks nothing yet.
    ///
    /// # Errors
    /// When a listed address can't be the base of a registry's API.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let settings = Arc::new(settings.checked()?);
        Ok(Self { stack: stack(settings.timeouts), settings })
    }

    /// What a manifest is right now, at no cost: registries with a pull limit do not count a HEAD.
    ///
    /// # Errors
    /// Any [`Failure`]; [`Failure::NoHead`] where only a GET can tell.
    pub async fn head_manifest(
        &self,
        asker: &Asker,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Described, Failure> {
        let kind = Kind::Manifest(reference.clone());
        let answer = self.ask(asker, Method::HEAD, repository, kind, 0).await?;
        refuse_html(answer.headers())?;
        let digest = answer.headers().get("docker-content-digest");
        let digest = digest.and_then(|digest| digest.to_str().ok()?.trim().parse().ok());
        Ok(Described { digest, size: body::length(answer.headers()) })
    }

    /// A manifest's bytes, [`MAX_MANIFEST_BYTES`] of them at most, unverified. This counts as a pull.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::NoHead`].
    pub async fn get_manifest(
        &self,
        asker: &Asker,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Bytes, Failure> {
        let kind = Kind::Manifest(reference.clone());
        let answer = self.ask(asker, Method::GET, repository, kind, 0).await?;
        refuse_html(answer.headers())?;
        let length = body::length(answer.headers());
        body::whole(answer.into_body(), length, MAX_MANIFEST_BYTES, self.settings.timeouts.idle).await
    }

    /// Whether a blob is there, and its length in bytes where the registry says so.
    ///
    /// # Errors
    /// Any [`Failure`]; [`Failure::NoHead`] where only a GET can tell.
    pub async fn head_blob(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Failure> {
        let answer = self.ask(asker, Method::HEAD, repository, Kind::Blob(digest.clone()), 0).await?;
        Ok(body::length(answer.headers()))
    }

    /// A blob's bytes from this offset on, unverified. A registry that ignores the offset is answered with by a
    /// body that starts at 0.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::NoHead`], from here or from the body.
    pub async fn get_blob(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        from: u64,
    ) -> Result<BlobBody, Failure> {
        let answer = self.ask(asker, Method::GET, repository, Kind::Blob(digest.clone()), from).await?;
        let Extent { total, starts_at } = Extent::of(answer.status(), answer.headers(), from)?;
        let awaited = total.and_then(|total| total.checked_sub(starts_at));
        let body = body::chunks(answer.into_body(), awaited, self.settings.timeouts.idle);
        Ok(BlobBody { total, starts_at, body })
    }

    /// Asks, goes where it is sent, and answers with 200, or with 206 to a request for later bytes.
    async fn ask(
        &self,
        asker: &Asker,
        method: Method,
        repository: &Repository,
        kind: Kind,
        from: u64,
    ) -> Result<Answer, Failure> {
        let upstream = self.settings.upstream(repository.registry())?;
        let mut url = upstream.address(repository, &kind);
        let mut asked = Asked {
            repository: repository.clone(),
            kind,
            place: Place::Upstream,
            reach: upstream.reach,
            asker: asker.clone(),
        };
        for _ in 0..=redirect::MOST {
            let request = asked.request(method.clone(), &url, from)?;
            let answer = self.stack.clone().oneshot(request).await?;
            match redirect::next(&url, answer.status(), answer.headers())? {
                Some(next) => {
                    asked = asked.moved(&url, &next, standing_of(&answer));
                    url = next;
                }
                None => {
                    return match answer.status() {
                        StatusCode::OK => Ok(answer),
                        StatusCode::PARTIAL_CONTENT if from > 0 => Ok(answer),
                        status => Err(Failure::of_status(
                            &method,
                            asked.place,
                            status,
                            answer.headers(),
                            clock::now(),
                        )),
                    };
                }
            }
        }
        Err(Failure::unusable(format!("more than {} redirects", redirect::MOST)))
    }
}

/// A page for people, where a manifest was asked for, comes from a portal or a proxy in between.
fn refuse_html(headers: &HeaderMap) -> Result<(), Failure> {
    let html = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"));
    if html { Err(Failure::unusable("a web page in the place of a manifest")) } else { Ok(()) }
}
