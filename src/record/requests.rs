//! The flight record: the requests that were sent upstream, the last some thousands of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::oci::{NameError, Registry};
use crate::proto::v1::UpstreamRequest;

/// How many are remembered.
pub const MOST_REMEMBERED: usize = 4096;

/// How far somebody who follows may be behind; who is further misses some and is told how many.
const MOST_BEHIND: usize = 1024;

/// Which requests somebody wants to see. Empty is any.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// Of this registry.
    pub registry: String,
    /// Of repositories that contain this.
    pub repository: String,
    /// Only those that a registry with a pull limit counts.
    pub counted: bool,
    /// Only those with a greater number.
    pub after: u64,
}

impl Which {
    /// The name by which a registry is recorded, however it is written; empty, which is any, stays so.
    ///
    /// # Errors
    /// That it names none.
    pub fn registry_of(written: &str) -> Result<String, NameError> {
        if written.is_empty() {
            return Ok(String::new());
        }
        written.parse::<Registry>().map(|registry| registry.as_str().to_owned())
    }

    /// Whether a request is one of these.
    pub fn fits(&self, request: &UpstreamRequest) -> bool {
        (self.registry.is_empty() || self.registry == request.registry)
            && request.repository.contains(&self.repository)
            && (request.counted || !self.counted)
            && request.number > self.after
    }
}

pub(super) struct Requests {
    remembered: Mutex<Remembered>,
    news: broadcast::Sender<Arc<UpstreamRequest>>,
}

#[derive(Default)]
struct Remembered {
    last_number: u64,
    requests: VecDeque<Arc<UpstreamRequest>>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { remembered: Mutex::default(), news: broadcast::Sender::new(MOST_BEHIND) }
    }
}

impl Requests {
    /// Remembers one, with the next number; or the one that it had before, where that is later.
    pub(super) fn push(&self, mut request: UpstreamRequest) -> Arc<UpstreamRequest> {
        let mut remembered = self.lock();
        remembered.last_number = request.number.max(remembered.last_number + 1);
        request.number = remembered.last_number;
        let request = Arc::new(request);
        if remembered.requests.len() == MOST_REMEMBERED {
            remembered.requests.pop_front();
        }
        remembered.requests.push_back(Arc::clone(&request));
        // Under the lock: who follows sees them in their order. Nobody need be there to see.
        let _ = self.news.send(Arc::clone(&request));
        request
    }

    pub(super) fn last(&self, which: &Which, last: usize) -> Vec<Arc<UpstreamRequest>> {
        self.lock().last(which, last)
    }

    pub(super) fn follow(&self, which: Which, last: usize) -> Following {
        let remembered = self.lock();
        let before = remembered.last(&which, last).into();
        Following { which, before, news: self.news.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn last(&self, which: &Which, last: usize) -> Vec<Arc<UpstreamRequest>> {
        let fitting = self.requests.iter().rev().filter(|request| which.fits(request)).take(last);
        let mut fitting: Vec<_> = fitting.cloned().collect();
        fitting.reverse();
        fitting
    }
}

/// Requests as they come.
pub struct Following {
    which: Which,
    before: VecDeque<Arc<UpstreamRequest>>,
    news: broadcast::Receiver<Arc<UpstreamRequest>>,
}

impl Following {
    /// The next one; never the end, while its record is there. Who is too slow goes on with what is still remembered.
    pub async fn next(&mut self) -> Option<Arc<UpstreamRequest>> {
        if let Some(request) = self.before.pop_front() {
            return Some(request);
        }
        loop {
            match self.news.recv().await {
                Ok(request) if self.which.fits(&request) => return Some(request),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "somebody who follows the record is too slow for it");
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
