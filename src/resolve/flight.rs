//! Single flight: however many ask for the same thing at once, it is done once.
//!
//! The work is a task of its own, so it goes on when whoever asked first leaves; the others wait for as long as
//! they like. What it came to is shared by those who asked meanwhile, an error as well, and kept for nobody else.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Work under way, by what it is for.
pub(super) struct Flights<K, V> {
    under_way: Arc<Mutex<HashMap<K, Flight<V>>>>,
    tasks: TaskTracker,
}

type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Tasks are the tracker's, so that they can be waited for when the daemon stops.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { under_way: Arc::default(), tasks }
    }

    /// Joins the flight for this key, or starts it. Where the work panics, one of those who waited starts it anew, once:
    /// `None` only where that one panicked too.
    pub(super) async fn join<F>(&self, key: K, work: impl Fn() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        match self.find_or_start(&key, &work).await {
            Some(landed) => Some(landed),
            None => self.find_or_start(&key, &work).await,
        }
    }

    fn find_or_start<F>(&self, key: &K, work: &impl Fn() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (land, landed) = oneshot::channel();
        let flight = {
            let mut under_way = lock(&self.under_way);
            if let Some(flight) = under_way.get(key) {
                return flight.clone();
            }
            let flight = landed.map(Result::ok).boxed().shared();
            under_way.insert(key.clone(), flight.clone());
            flight
        };
        let landing = Landing { under_way: Arc::clone(&self.under_way), key: key.clone() };
        let work = work();
        // Without the lock, which is wanted as soon as it ends: at the daemon's own end that is at once.
        self.tasks.spawn(async move {
            let landed = work.await;
            drop(landing);
            // Perhaps nobody waits any more.
            let _ = land.send(landed);
        });
        flight
    }
}

/// Takes the flight off the list when its task ends, however it ends.
struct Landing<K: Eq + Hash, V> {
    under_way: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn askers_share_one_flight_and_the_next_one_is_new() {
        let flights = Flights::<&str, usize>::new(TaskTracker::new());
        let (runs, landed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let work = || {
            let (runs, landed) = (Arc::clone(&runs), Arc::clone(&landed));
            async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                landed.acquire().await.unwrap().forget();
                run
            }
        };
        let first = flights.join("tide", work);
        let second = flights.join("tide", work);
        let mut both = Box::pin(futures_util::future::join(first, second));
        assert!(futures_util::poll!(both.as_mut()).is_pending());
        landed.add_permits(1);
        assert_eq!(both.await, (Some(0), Some(0)));
        assert_eq!(flights.join("tide", || async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn a_flight_goes_on_when_the_first_asker_leaves() {
        let flights = Flights::<&str, &str>::new(TaskTracker::new());
        let landed = Arc::new(Semaphore::new(0));
        let mut first = Box::pin(flights.join("tide", || {
            let landed = Arc::clone(&landed);
            async move {
                landed.acquire().await.unwrap().forget();
                "in"
            }
        }));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        drop(first);
        let mut second = Box::pin(flights.join("tide", || async { "anew" }));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        landed.add_permits(1);
        assert_eq!(second.await, Some("in"));
    }

    #[tokio::test]
    async fn a_flight_that_panics_is_taken_up_by_another_and_strands_nobody() {
        let flights = Flights::<&str, &str>::new(TaskTracker::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let work = || {
            let runs = Arc::clone(&runs);
            async move {
                assert!(runs.fetch_add(1, Ordering::SeqCst) > 0, "for the test");
                "in"
            }
        };
        let both = futures_util::future::join(flights.join("tide", work), flights.join("tide", work));
        assert_eq!(both.await, (Some("in"), Some("in")));
        assert_eq!(flights.join("rock", || async { panic!("for the test") }).await, None);
        assert_eq!(flights.join("rock", || async { "in" }).await, Some("in"));
    }
}
