//! Answers that were given once and may be given again, to whoever asks in the same words.
//!
//! A head that comes again byte for byte means what it meant before. Where whoever answered it says that it would answer
//! the same now, what was sent then is sent again, but for its age and the date. A head that tells who somebody is is
//! never kept.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, Response, header};
use bytes::Bytes;
use lru::LruCache;

use super::Body;
use super::head::{self, After};

/// How many heads are kept, the longest of them, and the longest body, in bytes.
const MOST_KEPT: NonZeroUsize = NonZeroUsize::new(512).unwrap();
const MOST_HEAD_BYTES: usize = 1 << 10;
const MOST_BODY_BYTES: usize = 8 << 10;

/// Tells of an answer whether it would be given again.
pub trait Repeat: Send + Sync {
    /// How old the answer is, if somebody who asks for the same is to have it now. Waits for nothing.
    fn repeat(&self, peer: SocketAddr) -> Option<Duration>;
}

/// Stands among a response's extensions where it may be given again.
#[derive(Clone)]
pub struct Again(Arc<dyn Repeat>);

impl Again {
    /// For a response that this speaks for.
    pub fn new(repeat: impl Repeat + 'static) -> Self {
        Self(Arc::new(repeat))
    }
}

/// The answers that may be given again.
pub(super) struct Repeats(Mutex<LruCache<Box<[u8]>, Arc<Kept>>>);

struct Kept {
    /// The head of the answer, without age and date.
    head: Vec<u8>,
    body: Bytes,
    again: Again,
}

impl Default for Repeats {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST_KEPT)))
    }
}

impl Repeats {
    /// All of the answer to what has come, if that is the head of a request that may be answered again.
    pub(super) fn answer(&self, came: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
        if came.len() > MOST_HEAD_BYTES {
            return None;
        }
        let kept = Arc::clone(self.kept().get(came)?);
        let age = kept.again.0.repeat(peer)?;
        let mut answer = Vec::with_capacity(kept.head.len() + kept.body.len() + 128);
        answer.extend_from_slice(&kept.head);
        head::put_number(&mut answer, header::AGE.as_str(), age.as_secs());
        head::end(&mut answer);
        answer.extend_from_slice(&kept.body);
        Some(answer)
    }

    /// The head of a request as it may be kept.
    pub(super) fn key(head: &[u8], headers: &HeaderMap, after: After) -> Option<Box<[u8]>> {
        let personal = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];
        let anyones = !personal.iter().any(|name| headers.contains_key(name));
        (anyones && after == After::Next && head.len() <= MOST_HEAD_BYTES).then(|| head.into())
    }

    /// Keeps an answer of which that is wanted.
    pub(super) fn keep(&self, key: Box<[u8]>, response: &mut Response<Body>, head_alone: bool) {
        let Some(again) = response.extensions_mut().remove::<Again>() else { return };
        let length = super::connection::length(response, head_alone);
        let body = match response.body() {
            _ if head_alone => Bytes::new(),
            Body::Bytes(bytes) if bytes.len() <= MOST_BODY_BYTES => bytes.clone(),
            Body::Bytes(_) | Body::Blob(..) => return,
        };
        let age = response.headers_mut().remove(header::AGE);
        let mut head = Vec::new();
        head::begin(&mut head, response, length, After::Next);
        if let Some(age) = age {
            response.headers_mut().insert(header::AGE, age);
        }
        self.kept().put(key, Arc::new(Kept { head, body, again }));
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<Box<[u8]>, Arc<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
