//! The gates of every upstream, and the layer that no request passes while its gate is shut.
//!
//! Each upstream has one that its failures shut, and two more for everybody that it is asked as, which its limits shut:
//! one for pulls, which are all that a pull limit counts, and one for everything. Owns what an answer means for them.
//! Where a redirect leads has none: it is somebody else's trouble. Invariant: no request goes to an upstream through a shut gate.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Method, StatusCode, Uri};
use lru::LruCache;
use tower::{Service, ServiceExt};
use url::Url;

use super::asked::{Answer, Asked, Kind, Place, Request};
use super::asker::Credential;
use super::body;
use super::failure::Failure;
use super::gate::{Gate, Outcome, Pass, Shut};
use super::limits::Left;
use super::record::Tally;
use super::retry_after;
use crate::clock;
use crate::oci::{Digest, Repository};

/// How many upstreams' gates are remembered, counted for everybody that they are asked as.
const MOST_GATES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// How many repositories without a limit are remembered, and for how long.
const MOST_UNLIMITED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const UNLIMITED_FOR: Duration = Duration::from_secs(60 * 60);

/// The longest that an upstream is left alone altogether because it wants to be.
const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// How much is read of a refusal, and for how long, to learn what was refused.
const REFUSAL_BYTES: u64 = 16 << 10;
const REFUSAL_WAIT: Duration = Duration::from_secs(2);

/// A request that was waited for this long when it was given up has timed out: less than a mirror is given.
const PATIENCE: Duration = Duration::from_millis(3500);

/// All gates. Clones share them.
#[derive(Clone)]
pub(super) struct Gates(Arc<Mutex<Inner>>);

struct Inner {
    /// Repositories that were refused a pull although the registry says that some are left: a limit of their own.
    /// With what was left then.
    apart: LruCache<(Key, Repository), (Gate, i64)>,
    /// By the upstream alone: who asks makes no difference to a failure.
    failing: LruCache<String, Gate>,
    pairs: LruCache<Key, Pair>,
    unlimited: LruCache<(Key, Repository), Instant>,
}

/// An upstream as somebody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: String,
    who: Who,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Anonymous,
    Own,
    Client(Digest),
}

/// What limits shut.
#[derive(Debug, Default)]
struct Pair {
    all: Gate,
    pulls: Gate,
    /// What was left by the latest answer that said so, and by the one that shut the gate.
    left: Option<i64>,
    left_when_shut: Option<i64>,
}

/// Which requests would be let through.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) all: Result<(), Shut>,
    /// Pulls need both.
    pub(super) pulls: Result<(), Shut>,
}

impl Default for Gates {
    fn default() -> Self {
        let (failing, pairs) = (LruCache::new(MOST_GATES), LruCache::new(MOST_GATES));
        let (unlimited, apart) = (LruCache::new(MOST_UNLIMITED), LruCache::new(MOST_UNLIMITED));
        Self(Arc::new(Mutex::new(Inner { apart, failing, pairs, unlimited })))
    }
}

impl Gates {
    /// Which requests for a repository would be let through to an upstream.
    pub(super) fn view(
        &self,
        base: &Url,
        credential: &Credential,
        repository: &Repository,
        now: Instant,
    ) -> View {
        let origin = base.as_str().parse().map(|uri: Uri| origin(&uri)).unwrap_or_default();
        let key = Key::new(origin, credential);
        let inner = self.lock();
        let well = inner.failing.peek(&key.origin).map_or(Ok(()), |gate| gate.state(now).map(drop));
        let Some(pair) = inner.pairs.peek(&key) else { return View { all: well, pulls: well } };
        let all = well.and(pair.all.state(now).map(drop));
        let pulls = match inner.is_unlimited(&key, repository, now) {
            true => Ok(()),
            false => pair.pulls.state(now).map(drop),
        };
        let own = inner
            .apart
            .peek(&(key, repository.clone()))
            .map_or(Ok(()), |(gate, _)| gate.state(now).map(drop));
        View { all, pulls: all.and(pulls).and(own) }
    }

    fn enter(&self, way: &Way, now: Instant) -> Result<Passes, Failure> {
        let mut inner = self.lock();
        let unlimited = inner.is_unlimited(&way.key, &way.repository, now);
        let limited = way.pull && !unlimited;
        let Inner { apart, failing, pairs, .. } = &mut *inner;
        let failing = failing.get_or_insert_mut(way.key.origin.clone(), Gate::default);
        let pair = pairs.get_or_insert_mut(way.key.clone(), Pair::default);
        let mut apart = apart.get_mut(&(way.key.clone(), way.repository.clone())).filter(|_| way.pull);
        // All are looked at first: a place that one gives must not be lost to another.
        let open = failing.state(now).and(pair.all.state(now)).and_then(|_| match limited {
            true => pair.pulls.state(now).map(drop),
            false => Ok(()),
        });
        let open = open.and_then(|()| apart.as_ref().map_or(Ok(()), |(gate, _)| gate.state(now).map(drop)));
        let passed = open.and_then(|()| {
            let failing = failing.enter(now)?;
            let all = pair.all.enter(now)?;
            let pulls = if limited { Some(pair.pulls.enter(now)?) } else { None };
            let apart = apart.as_mut().map(|(gate, _)| gate.enter(now)).transpose()?;
            Ok(Passes { failing, all, pulls, apart })
        });
        passed.map_err(|Shut { because, opens_in }| {
            tracing::debug!(upstream = way.key.origin, repository = %way.repository, ?because, "not asked upstream");
            Failure::Shut { because, opens_in }
        })
    }

    fn settle(&self, way: &Way, passes: Passes, all: Outcome, mut pulls: Outcome, began: Instant) {
        let now = clock::instant();
        let mut inner = self.lock();
        let Inner { apart, failing, pairs, .. } = &mut *inner;
        let failing = failing.get_or_insert_mut(way.key.origin.clone(), Gate::default);
        let pair = pairs.get_or_insert_mut(way.key.clone(), Pair::default);
        let place = (way.key.clone(), way.repository.clone());
        match (pulls, passes.apart, pair.left) {
            // A limit of this repository's own, as of one that is refused to everybody for ever.
            (Outcome::Limited(_), pass, Some(left)) if left > 0 => {
                let (gate, then) = apart.get_or_insert_mut(place, || (Gate::default(), left));
                gate.learn(pass.unwrap_or(Pass::Open), pulls, began, now);
                *then = left;
                pulls = Outcome::Dropped;
            }
            (outcome, Some(pass), _) => {
                if let Some((gate, _)) = apart.get_mut(&place) {
                    gate.learn(pass, outcome, began, now);
                }
            }
            (_, None, _) => {}
        }
        let before = [*failing, pair.all, pair.pulls];
        let (of_failing, of_all) = match all {
            // A list may take a registry longer than anything else.
            Outcome::TimedOut if way.list => (Outcome::Dropped, Outcome::Dropped),
            Outcome::Failed(_) | Outcome::TimedOut => (all, Outcome::Dropped),
            // It lives.
            Outcome::Limited(_) => (Outcome::Answered, all),
            Outcome::Answered | Outcome::Dropped => (all, all),
        };
        failing.learn(passes.failing, of_failing, began, now);
        pair.all.learn(passes.all, of_all, began, now);
        if let Some(pass) = passes.pulls {
            pair.pulls.learn(pass, pulls, began, now);
        }
        let after = [*failing, pair.all, pair.pulls];
        if let Outcome::Limited(_) = pulls {
            pair.left_when_shut = pair.left;
            inner.unlimited.pop(&(way.key.clone(), way.repository.clone()));
        }
        drop(inner);
        for (kind, (before, after)) in
            ["failing", "everything", "pulls"].into_iter().zip(before.into_iter().zip(after))
        {
            told(way, kind, before, after, now);
        }
    }

    /// Notes what was left when a pull was refused, so that only more than that opens the gate early.
    fn note_left(&self, way: &Way, remaining: i64) {
        let mut inner = self.lock();
        inner.pairs.get_or_insert_mut(way.key.clone(), Pair::default).left = Some(remaining);
    }

    /// Learns from what an answer about a manifest says is left.
    fn budget(&self, way: &Way, left: Option<&Left>, now: Instant) {
        let mut inner = self.lock();
        let place = (way.key.clone(), way.repository.clone());
        let pair = inner.pairs.get_or_insert_mut(way.key.clone(), Pair::default);
        let before = pair.pulls;
        match left {
            Some(left) => {
                pair.left = Some(left.remaining);
                if left.remaining <= 0 {
                    pair.pulls.narrow(now);
                } else if left.remaining > pair.left_when_shut.unwrap_or(0).max(0) {
                    pair.pulls.open();
                }
                let after = pair.pulls;
                if inner.apart.peek(&place).is_some_and(|(_, then)| left.remaining > *then) {
                    inner.apart.pop(&place);
                }
                inner.unlimited.pop(&place);
                drop(inner);
                told(way, "pulls", before, after, now);
            }
            // An upstream that tells it for others has no limit for this one.
            None if pair.left.is_some() => {
                inner.unlimited.put(place, now);
            }
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_unlimited(&self, key: &Key, repository: &Repository, now: Instant) -> bool {
        let noted = self.unlimited.peek(&(key.clone(), repository.clone()));
        noted.is_some_and(|at| now.duration_since(*at) < UNLIMITED_FOR)
    }
}

impl Key {
    fn new(origin: String, credential: &Credential) -> Self {
        let who = match credential {
            Credential::Anonymous => Who::Anonymous,
            Credential::Own => Who::Own,
            Credential::Client(token) => Who::Client(token.hash().clone()),
        };
        Self { origin, who }
    }
}

/// State changes, each told once.
fn told(way: &Way, kind: &str, before: Gate, after: Gate, now: Instant) {
    let upstream = way.key.origin.as_str();
    match (before, after) {
        (Gate::Open { .. }, Gate::Shut { because, until, .. }) if until > now => {
            let seconds = until.saturating_duration_since(now).as_secs();
            tracing::warn!(upstream, gate = kind, ?because, seconds, "a gate shuts: what is held serves");
        }
        (Gate::Shut { pause, .. }, Gate::Open { .. }) if !pause.is_zero() => {
            tracing::info!(upstream, gate = kind, "a gate opens");
        }
        // Narrowed or widened, or as it was.
        (Gate::Open { .. } | Gate::Shut { .. }, Gate::Open { .. } | Gate::Shut { .. }) => {}
    }
}

fn origin(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |host| host.as_str()))
}

/// Which gates a request has to pass.
#[derive(Clone)]
struct Way {
    key: Key,
    repository: Repository,
    manifest: bool,
    list: bool,
    pull: bool,
}

impl Way {
    fn of(request: &Request) -> Self {
        let asked = Asked::of(request);
        let manifest = match asked.kind {
            Kind::Manifest(_) => true,
            Kind::Blob(_) | Kind::List(_) | Kind::Token | Kind::Login => false,
        };
        Self {
            key: Key::new(origin(request.uri()), &asked.asker.credential),
            repository: asked.repository.clone(),
            list: matches!(asked.kind, Kind::List(_)),
            manifest,
            pull: manifest && request.method() == Method::GET,
        }
    }
}

#[derive(Clone, Copy)]
struct Passes {
    apart: Option<Pass>,
    failing: Pass,
    all: Pass,
    pulls: Option<Pass>,
}

/// Keeps requests from shut gates, and tells the gates what came of the others.
#[derive(Clone)]
pub(super) struct Gated<S> {
    inner: S,
    gates: Gates,
}

impl<S> Gated<S> {
    /// Around this service, with these gates.
    pub(super) fn new(inner: S, gates: Gates) -> Self {
        Self { inner, gates }
    }
}

impl<S> Service<Request> for Gated<S>
where
    S: Service<Request, Response = Answer, Error = Failure, Future: Send> + Clone + Send + 'static,
{
    type Response = Answer;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Answer, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { inner, gates } = self.clone();
        match Asked::of(&request).place {
            Place::Upstream => async move { gated(inner, &gates, request).await }.boxed(),
            Place::Redirected => inner.oneshot(request).boxed(),
        }
    }
}

async fn gated<S>(inner: S, gates: &Gates, request: Request) -> Result<Answer, Failure>
where
    S: Service<Request, Response = Answer, Error = Failure, Future: Send> + Clone + Send + 'static,
{
    let way = Way::of(&request);
    let began = clock::instant();
    let passes = gates.enter(&way, began)?;
    let visit = Visit { gates, way: &way, passes, began, settled: false };
    match inner.oneshot(request).await {
        Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => Err(limited(visit, answer).await),
        Ok(answer) => {
            let (all, pulls) = outcomes(answer.status(), answer.headers());
            visit.settle(all, pulls);
            if way.manifest && answer.status().is_success() {
                gates.budget(&way, Left::among(answer.headers()).as_ref(), clock::instant());
            }
            Ok(answer)
        }
        Err(failure) => {
            visit.settle(outcome_of(&failure), Outcome::Dropped);
            Err(failure)
        }
    }
}

/// A limit on pulls is told in the registry's own words, as JSON; one on everything by whatever stands in front of it.
async fn limited(visit: Visit<'_>, answer: Answer) -> Failure {
    let (head, incoming) = answer.into_parts();
    let retry_after = retry_after::among(&head.headers, clock::now());
    let left = Left::among(&head.headers);
    let of_pulls = visit.way.pull && {
        let length = body::length(&head.headers);
        let said =
            body::whole(Tally::of(&head.extensions), incoming, length, REFUSAL_BYTES, REFUSAL_WAIT).await;
        let json = said.is_ok_and(|said| serde_json::from_slice::<serde_json::Map<_, _>>(&said).is_ok());
        json || left.is_some()
    };
    if of_pulls {
        if let Some(left) = &left {
            visit.gates.note_left(visit.way, left.remaining);
        }
        visit.settle(Outcome::Answered, Outcome::Limited(retry_after));
    } else {
        let silence = retry_after.map(|said| said.min(LONGEST_SILENCE));
        visit.settle(Outcome::Limited(silence), Outcome::Dropped);
    }
    Failure::Limited { retry_after }
}

/// What a status means for everything, and for pulls.
fn outcomes(status: StatusCode, headers: &HeaderMap) -> (Outcome, Outcome) {
    match status.as_u16() {
        408 | 425 | 500 | 502..=599 => {
            (Outcome::Failed(retry_after::among(headers, clock::now())), Outcome::Dropped)
        }
        401 | 403 => (Outcome::Answered, Outcome::Dropped),
        _ => (Outcome::Answered, Outcome::Answered),
    }
}

fn outcome_of(failure: &Failure) -> Outcome {
    match failure {
        Failure::TimedOut(_) => Outcome::TimedOut,
        Failure::Limited { retry_after } => {
            Outcome::Limited(retry_after.map(|said| said.min(LONGEST_SILENCE)))
        }
        Failure::Unavailable { retry_after, .. } => Outcome::Failed(*retry_after),
        Failure::Unreachable(_) | Failure::Broken(_) | Failure::TooLarge { .. } | Failure::Unusable(_) => {
            Outcome::Failed(None)
        }
        Failure::Missing | Failure::Denied { .. } | Failure::NoToken { .. } | Failure::NoHead { .. } => {
            Outcome::Answered
        }
        Failure::Forbidden(_) | Failure::Shut { .. } => Outcome::Dropped,
    }
}

/// A request that is through. Given up, it says so when it is dropped.
struct Visit<'a> {
    gates: &'a Gates,
    way: &'a Way,
    passes: Passes,
    began: Instant,
    settled: bool,
}

impl Visit<'_> {
    fn settle(mut self, all: Outcome, pulls: Outcome) {
        self.settled = true;
        self.gates.settle(self.way, self.passes, all, pulls, self.began);
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let waited = clock::instant().duration_since(self.began) >= PATIENCE;
            let outcome = if waited { Outcome::TimedOut } else { Outcome::Dropped };
            self.gates.settle(self.way, self.passes, outcome, Outcome::Dropped, self.began);
        }
    }
}
