//! The HTTP/1 server of a TCP listener, for those who only read: how many connections there may be, how long each
//! may be silent, and how they end when the daemon stops.
//!
//! It is our own, over [`httparse`], because the large bodies are files: they go from the page cache to the socket
//! without passing through this process (`body.rs`), which no server library lets through. What makes HTTP/1 hard is
//! left out: no body of a request is read, and an answer knows its length before it begins.
//!
//! Knows no route. Invariant: whoever connects and says nothing costs a place for some seconds and never holds up a
//! stop; an answer that has begun may end; one that cannot be ended breaks the connection off.

mod body;
mod connection;
mod head;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Response, Uri};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use body::Body;
use connection::Connection;

/// How many connections are served at a time. Those beyond wait in the listener's queue.
const MOST_CONNECTIONS: usize = 1024;

/// How long nothing is accepted after the system refused to, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A request. A body that came with it means nothing and is not read.
#[derive(Debug)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub uri: Uri,
    /// What was said beside.
    pub headers: HeaderMap,
    /// Who sent it.
    pub peer: SocketAddr,
}

/// Serves until it is told to stop and the last answer has ended. `answer` is asked once a request, and dropped where
/// its client goes away before it is done.
pub async fn serve<A, F>(listener: TcpListener, answer: A, stop: CancellationToken)
where
    A: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection::new(stream, peer, stop.clone());
                let answer = answer.clone();
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = connection.serve(answer).await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}
