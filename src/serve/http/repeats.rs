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
        if came.len() > MOST_HEAD_BYTES || !came.ends_with(b"\n") {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// So old, in seconds; 0 where the answer is not to be given again.
    struct Old(Arc<AtomicU64>);

    impl Repeat for Old {
        fn repeat(&self, _: SocketAddr) -> Option<Duration> {
            Some(self.0.load(Ordering::Relaxed)).filter(|age| *age > 0).map(Duration::from_secs)
        }
    }

    #[test]
    fn an_answer_is_given_again_with_its_age_for_as_long_as_whoever_gave_it_says_so() {
        let (repeats, peer) = (Repeats::default(), "127.0.0.1:1".parse().unwrap());
        let age = Arc::new(AtomicU64::new(7));
        for (head_alone, body) in [(false, "manifest"), (true, "")] {
            let asked = if head_alone { "HEAD / HTTP/1.1\r\n\r\n" } else { "GET / HTTP/1.1\r\n\r\n" };
            let mut response = Response::new(Body::Bytes(Bytes::from(body)));
            response.headers_mut().insert(header::AGE, 1.into());
            response.headers_mut().insert(header::CONTENT_LENGTH, 8.into());
            response.extensions_mut().insert(Again::new(Old(Arc::clone(&age))));
            let key = Repeats::key(asked.as_bytes(), &HeaderMap::new(), After::Next).unwrap();
            repeats.keep(key, &mut response, head_alone);
            assert_eq!(response.headers()[header::AGE], "1");
            age.store(7, Ordering::Relaxed);
            let again = String::from_utf8(repeats.answer(asked.as_bytes(), peer).unwrap()).unwrap();
            let begun = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nage: 7\r\ndate: ";
            assert!(again.starts_with(begun) && again.ends_with(&format!("\r\n\r\n{body}")), "{again}");
            assert!(repeats.answer(b"GET /other HTTP/1.1\r\n\r\n", peer).is_none());
            age.store(0, Ordering::Relaxed);
            assert!(repeats.answer(asked.as_bytes(), peer).is_none());
        }
    }

    #[test]
    fn what_tells_who_somebody_is_or_ends_the_connection_is_not_kept() {
        for name in ["authorization", "proxy-authorization", "cookie"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "secret".parse().unwrap())]);
            assert!(Repeats::key(b"GET", &headers, After::Next).is_none(), "{name}");
        }
        assert!(Repeats::key(b"GET", &HeaderMap::new(), After::Close).is_none());
        assert!(Repeats::key(&[b'x'; MOST_HEAD_BYTES + 1], &HeaderMap::new(), After::Next).is_none());
        assert!(Repeats::key(b"GET", &HeaderMap::new(), After::Next).is_some());
    }
}
