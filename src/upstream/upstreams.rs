//! What can be asked of registries: manifests and blobs, whole or by their heads, and lists.
//!
//! Owns the order of things around the stack: where a registry stands, which redirects are followed, how an
//! answer is read. Keeps no bytes and verifies no digest; whoever asked does.

use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::asked::{Answer, Kind};
use super::asker::{Asker, Credential};
use super::body::{self, BlobBody, Extent};
use super::failure::Failure;
use super::gate::Shut;
use super::gates::{Gates, View};
use super::limits::Left;
use super::link;
use super::lockout::RefusedLogin;
use super::pace::Pace;
use super::record::Tally;
use super::settings::{Role, Settings, SettingsError};
use super::span::Span;
use super::stack::{Stack, stack};
use super::trial::{Trials, Tried};
use crate::clock;
use crate::oci::{
    Digest, List, MAX_MANIFEST_BYTES, NameError, Reference, Registry, Repository, filters_applied,
};

/// Every registry there is. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Upstreams {
    pub(super) settings: Arc<Settings>,
    gates: Gates,
    pub(super) stack: Stack,
    trials: Trials,
    pace: Option<Arc<Pace>>,
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
    /// Its media type, as the registry says.
    pub media_type: Option<String>,
    /// What is left to pull, where the registry has a limit.
    pub left: Option<Left>,
}

/// A page of a list, as its registry made it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// All of it: a list of the kind that was asked for.
    pub bytes: Bytes,
    /// The page after it, where the registry says that there is one.
    pub next: Option<List>,
    /// Which filters the registry says to have applied.
    pub filters_applied: Option<String>,
}

/// Whether somebody's requests would be let through, and if not, why.
#[derive(Debug, Clone)]
pub struct Open {
    /// Any at all.
    pub all: Result<(), Failure>,
    /// Pulls: those that a pull limit counts.
    pub pulls: Result<(), Failure>,
}

impl Upstreams {
    /// Registries as these settings have them. Asks nothing yet.
    ///
    /// # Errors
    /// When a listed address can't be the base of a registry's API.
    pub fn new(settings: Settings, record: crate::record::Record) -> Result<Self, SettingsError> {
        let settings = Arc::new(settings.checked()?);
        let gates = Gates::default();
        let (stack, trials) = stack(settings.timeouts, gates.clone(), settings.credentials(), record);
        let pace = settings.bandwidth.map(|bytes_a_second| Arc::new(Pace::new(bytes_a_second)));
        Ok(Self { stack, gates, settings, trials, pace })
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
        self.ask(asker, Method::HEAD, repository, kind, Span::WHOLE, |answer, role| {
            refuse_html(answer.headers())?;
            let digest = named(answer.headers());
            match (reference, &digest, role) {
                (Reference::Digest(asked), Some(digest), _) if digest != asked => {
                    return Err(Failure::unusable(format!("{digest} in the place of {asked}")));
                }
                // The registry itself is asked rather: a GET there counts, and a HEAD does not.
                (Reference::Tag(_), None, Role::Mirror) => {
                    return Err(Failure::unusable("a tag without a digest"));
                }
                _ => {}
            }
            let media_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type =
                media_type.and_then(|value| value.split(';').next()).map(|value| value.trim().to_owned());
            let left = Left::among(answer.headers());
            Ok(ready(Ok(Described { digest, size: body::length(answer.headers()), media_type, left })))
        })
        .await
    }

    /// A manifest's bytes, [`MAX_MANIFEST_BYTES`] of them at most, those of its digest where it is asked for by that.
    /// This counts as a pull.
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
        self.ask(asker, Method::GET, repository, kind, Span::WHOLE, |answer, _| {
            refuse_html(answer.headers())?;
            let whole = self.whole(answer);
            Ok(async move {
                let bytes = whole.await?;
                match reference {
                    Reference::Digest(digest) if !digest.matches(&bytes) => {
                        Err(Failure::unusable(format!("other bytes than those of {digest}")))
                    }
                    Reference::Digest(_) | Reference::Tag(_) => Ok(bytes),
                }
            })
        })
        .await
    }

    /// A page of a list, [`MAX_MANIFEST_BYTES`] of it at most. No registry counts it as a pull.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::NoHead`].
    pub async fn get_list(
        &self,
        asker: &Asker,
        repository: &Repository,
        list: &List,
    ) -> Result<Listing, Failure> {
        self.ask(asker, Method::GET, repository, Kind::List(list.clone()), Span::WHOLE, |answer, _| {
            refuse_html(answer.headers())?;
            let unusable = |error: crate::oci::ListError| Failure::unusable(error.to_string());
            let next = match link::next(answer.headers())? {
                Some(query) => Some(list.next(&query).map_err(unusable)?),
                None => None,
            };
            let applied = answer.headers().get("oci-filters-applied").and_then(|said| said.to_str().ok());
            let filters_applied = applied.and_then(filters_applied).map(str::to_owned);
            let whole = self.whole(answer);
            Ok(async move {
                let bytes = whole.await?;
                list.check(&bytes).map_err(unusable)?;
                Ok(Listing { bytes, next, filters_applied })
            })
        })
        .await
    }

    /// Whether a blob is there, and its length in bytes where the registry says so; `size` is what it has to be, where
    /// that is known.
    ///
    /// # Errors
    /// Any [`Failure`]; [`Failure::NoHead`] where only a GET can tell.
    pub async fn head_blob(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        let kind = Kind::Blob(digest.clone());
        self.ask(asker, Method::HEAD, repository, kind, Span::WHOLE, |answer, _| {
            let length = body::length(answer.headers());
            fits(answer.headers(), length, size)?;
            match named(answer.headers()) {
                Some(other) if other != *digest => {
                    Err(Failure::unusable(format!("{other} in the place of {digest}")))
                }
                Some(_) | None => Ok(ready(Ok(length))),
            }
        })
        .await
    }

    /// A blob's bytes from this offset on, unverified but for the length, where that is known. A registry that ignores the
    /// offset is answered with by a body that starts at 0.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::NoHead`], from here or from the body.
    pub async fn get_blob(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        size: Option<u64>,
    ) -> Result<BlobBody, Failure> {
        self.bytes(asker, repository, digest, Span::from_on(from), size).await
    }

    /// These bytes alone of a blob of this length, on a connection of their own. A registry that ignores what was asked
    /// for is answered with by a body that starts at 0.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::NoHead`], from here or from the body.
    pub async fn get_part(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        part: &Range<u64>,
        size: u64,
    ) -> Result<BlobBody, Failure> {
        self.bytes(asker, repository, digest, Span::part(part), Some(size)).await
    }

    async fn bytes(
        &self,
        asker: &Asker,
        repository: &Repository,
        digest: &Digest,
        span: Span,
        size: Option<u64>,
    ) -> Result<BlobBody, Failure> {
        self.ask(asker, Method::GET, repository, Kind::Blob(digest.clone()), span, |answer, _| {
            let Extent { total, starts_at, awaited, ranges } =
                Extent::of(answer.status(), answer.headers(), span)?;
            fits(answer.headers(), total, size)?;
            let tally = Tally::of(answer.extensions());
            let body = body::chunks(tally, answer.into_body(), awaited, self.settings.timeouts.idle);
            let body = match &self.pace {
                None => body,
                Some(pace) => body::paced(body, Arc::clone(pace)),
            };
            let ends_at = awaited.map(|awaited| starts_at.saturating_add(awaited));
            Ok(ready(Ok(BlobBody { total, starts_at, ends_at, ranges, body })))
        })
        .await
    }

    /// The whole body of a small answer.
    fn whole(&self, answer: Answer) -> impl Future<Output = Result<Bytes, Failure>> + Send + use<> {
        let (length, idle) = (body::length(answer.headers()), self.settings.timeouts.idle);
        let tally = Tally::of(answer.extensions());
        body::whole(tally, answer.into_body(), length, MAX_MANIFEST_BYTES, idle)
    }

    /// Whether a registry has mirrors, which may be asked in its place.
    pub fn has_mirrors(&self, registry: &Registry) -> bool {
        self.settings.listed.get(registry).is_some_and(|listed| listed.urls.len() > 1)
    }

    /// Whether the configuration names logins of the hold's own for a registry.
    pub fn has_login(&self, registry: &Registry) -> bool {
        self.settings.listed.get(registry).is_some_and(|listed| listed.credentials.is_some())
    }

    /// Tries the hold's own logins, without asking for anything that a registry counts: what came of each, by the
    /// registries that the configuration names logins for.
    pub async fn try_logins(&self) -> Vec<(Registry, Vec<Tried>)> {
        let registries = self.settings.listed.keys().filter(|registry| self.has_login(registry));
        join_all(registries.map(|registry| async { (registry.clone(), self.try_logins_of(registry).await) }))
            .await
    }

    async fn try_logins_of(&self, registry: &Registry) -> Vec<Tried> {
        let (Ok(any), Ok(upstreams)) = (any_of(registry), self.settings.upstreams(registry)) else {
            return Vec::new();
        };
        let tried = upstreams.iter().map(|upstream| self.trials.at(upstream, &any));
        join_all(tried).await.into_iter().flatten().collect()
    }

    /// The hold's own logins that were refused when they were shown last, within the last hours.
    pub fn refused_logins(&self) -> Vec<RefusedLogin> {
        self.trials.tokens().lockouts().lately(clock::instant())
    }

    /// Why pulls as nobody, or else by the hold's own login, are not let through to any upstream of a registry.
    pub fn gate_of(&self, registry: &Registry) -> Option<Failure> {
        let any = any_of(registry).ok()?;
        let credentials = [Some(Credential::Anonymous), self.has_login(registry).then_some(Credential::Own)];
        let mut open = credentials.into_iter().flatten().map(|credential| self.open(&credential, &any).pulls);
        open.next_back().and_then(Result::err)
    }

    /// Whether requests as somebody for a repository would be let through to one of its upstreams at least.
    pub fn open(&self, credential: &Credential, repository: &Repository) -> Open {
        let Ok(upstreams) = self.settings.upstreams(repository.registry()) else {
            // Asking tells why not.
            return Open { all: Ok(()), pulls: Ok(()) };
        };
        let now = clock::instant();
        let views: Vec<View> = upstreams
            .iter()
            .filter(|upstream| upstream.answers(credential, false))
            .map(|upstream| self.gates.view(&upstream.base, credential, repository, now))
            .collect();
        let any = |of: fn(&View) -> Result<(), Shut>| {
            let mut found = Ok(());
            for view in &views {
                found = of(view);
                if found.is_ok() {
                    break;
                }
            }
            found.map_err(|Shut { because, opens_in }| Failure::Shut { because, opens_in })
        };
        Open { all: any(|view| view.all), pulls: any(|view| view.pulls) }
    }
}

/// No registry has a repository of this name, so none has a limit of its own.
fn any_of(registry: &Registry) -> Result<Repository, NameError> {
    Repository::new(registry.clone(), "any")
}

/// The digest that an answer names.
fn named(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

/// A blob has the length that is known of it. Where nobody knows, a page for people is no blob.
fn fits(headers: &HeaderMap, length: Option<u64>, size: Option<u64>) -> Result<(), Failure> {
    match (length, size) {
        (Some(length), Some(size)) if length == size => Ok(()),
        (Some(length), Some(size)) => {
            Err(Failure::unusable(format!("{length} bytes of a blob that has {size}")))
        }
        (None, _) | (_, None) => refuse_html(headers),
    }
}

/// A page for people, where a manifest or a list was asked for, comes from a portal or a proxy in between.
fn refuse_html(headers: &HeaderMap) -> Result<(), Failure> {
    let html = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"));
    if html { Err(Failure::unusable("a web page in the place of what was asked for")) } else { Ok(()) }
}
