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
mod repeats;

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{HeaderMap, Method, Response, Uri};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::listen;
pub use body::Body;
use connection::Connection;
use repeats::Repeats;
pub use repeats::{Again, Repeat};

/// How many connections are served at a time. Those beyond wait in the listener's queue.
const MOST_CONNECTIONS: usize = 1024;

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
    let repeats = Arc::new(Repeats::default());
    let serve = |stream, peer| {
        let connection = Connection::new(stream, peer, Arc::clone(&repeats), stop.clone());
        let answer = answer.clone();
        async move {
            if let Err(error) = connection.serve(answer).await {
                tracing::debug!(%error, "a connection ended early");
            }
        }
    };
    listen::connections(listener, MOST_CONNECTIONS, &stop, serve).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn a_stop_waits_for_answers_and_not_for_those_who_ask_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (finish, finished) = watch::channel(false);
        let (asked, mut slow_asked) = watch::channel(false);
        let asked = Arc::new(asked);
        let answer = move |request: Request| {
            let (mut finished, asked) = (finished.clone(), Arc::clone(&asked));
            async move {
                if request.uri.path() == "/slow" {
                    asked.send_replace(true);
                    finished.wait_for(|finished| *finished).await.unwrap();
                }
                Response::new(Body::Bytes(Bytes::from_static(b"soon")))
            }
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, answer, stop.clone()));

        let _silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HT").await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_until(&mut idle, "soon").await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        slow_asked.wait_for(|asked| *asked).await.unwrap();

        stop.cancel();
        let mut rest = Vec::new();
        half.read_to_end(&mut rest).await.unwrap();
        idle.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        assert!(!server.is_finished());
        finish.send(true).unwrap();
        read_until(&mut slow, "soon").await;
        server.await.unwrap();
    }

    #[tokio::test]
    async fn requests_that_come_at_once_are_answered_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = async |request: Request| Response::new(Body::Bytes(request.uri.path().to_owned().into()));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, echo, stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "HEAD /first HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\n\r\nGET /third HTTP/1.0\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut came = String::new();
        stream.read_to_string(&mut came).await.unwrap();
        let ends: Vec<&str> = came.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
        assert!(ends[0].contains("content-length: 6\r\n") && ends[0].ends_with("\r\n\r\n"), "{came}");
        assert!(ends[1].ends_with("\r\n\r\n/second"), "{came}");
        assert!(ends[2].contains("connection: close\r\n") && ends[2].ends_with("\r\n\r\n/third"), "{came}");
        drop(stream);
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_in_gives_up_its_place_at_last() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // More than both sides' sockets have room for.
        let large = async |_: Request| Response::new(Body::Bytes(vec![7; 64 << 20].into()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, large, stop.clone()));
        stream.readable().await.unwrap();
        stop.cancel();
        server.await.unwrap();
        drop(stream);
    }

    async fn read_until(stream: &mut TcpStream, end: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "it ended early");
        }
    }
}
