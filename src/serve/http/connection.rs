//! One connection: a request, its answer, the next request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Response, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::head::{self, After, MOST_HEAD_BYTES};
use super::repeats::Repeats;
use super::{Body, Request};

/// How long a connection is kept until it has brought the whole head of its next request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection that is not being answered stays when the daemon stops, and how long one that is closed is
/// read on: a request, or the rest of one, may be on its way, and what nobody reads would cut off the answer.
const PARTING: Duration = Duration::from_millis(500);

/// How much is made room for at a time, in bytes: more than most heads have.
const READ_BYTES: usize = 2 << 10;

pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// What has come and was not read yet.
    came: Vec<u8>,
    repeats: Arc<Repeats>,
    /// Fires when a silence may have lasted too long. It is set anew only then, not at each request.
    timer: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: bool,
}

/// A request that came.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Came {
    /// One to be looked at.
    New {
        request: Request,
        after: After,
        /// Its head, where the answer may be kept.
        key: Option<Box<[u8]>>,
    },
    /// One that was answered before, and all of the answer.
    Again(Vec<u8>),
}

/// What came instead of a request.
enum NoRequest {
    /// Nothing, for too long, or nothing any more.
    End,
    /// What is none.
    Refused(StatusCode),
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        repeats: Arc<Repeats>,
        stop: CancellationToken,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(HEAD_WITHIN));
        let stop = Box::pin(stop.cancelled_owned());
        Self { stream, peer, came: Vec::new(), repeats, timer, stop, stopping: false }
    }

    /// Answers requests until one side wants no more.
    pub(super) async fn serve<A, F>(mut self, answer: A) -> io::Result<()>
    where
        A: Fn(Request) -> F,
        F: Future<Output = Response<Body>>,
    {
        self.stream.set_nodelay(true)?;
        loop {
            let (request, mut after, key) = match self.request().await? {
                Ok(Came::New { request, after, key }) => (request, after, key),
                Ok(Came::Again(answer)) => {
                    self.stream.write_all(&answer).await?;
                    continue;
                }
                Err(NoRequest::End) => return Ok(()),
                Err(NoRequest::Refused(status)) => {
                    let mut refusal = Response::new(());
                    *refusal.status_mut() = status;
                    let head = head::written(&refusal, Some(0), After::Close);
                    self.stream.write_all(&head).await?;
                    return self.part().await;
                }
            };
            let head_alone = request.method == Method::HEAD;
            let mut response = tokio::select! {
                biased;
                response = answer(request) => response,
                () = gone(&mut self.stream, &mut self.came) => return Ok(()),
            };
            if self.stopping {
                after = After::Close;
            }
            if let Some(key) = key {
                self.repeats.keep(key, &mut response, head_alone);
            }
            let length = length(&response, head_alone);
            let head = head::written(&response, length, after);
            let body = if head_alone { Body::empty() } else { response.into_body() };
            body.send(head, &mut self.stream).await?;
            match after {
                After::Next => {}
                After::Close => return self.part().await,
            }
        }
    }

    /// The next request, once all of its head is here.
    async fn request(&mut self) -> io::Result<Result<Came, NoRequest>> {
        let mut until = Instant::now() + HEAD_WITHIN;
        let mut looked_at = 0;
        loop {
            let empty = head::empty_lines(&self.came);
            if empty > 0 {
                // Else each byte that comes would have all of them looked at again.
                self.came.drain(..empty);
                looked_at = 0;
            }
            if !self.stopping
                && let Some(answer) = self.repeats.answer(&self.came, self.peer)
            {
                self.came.clear();
                return Ok(Ok(Came::Again(answer)));
            }
            if head::may_end(&self.came, looked_at) {
                match head::read(&self.came, self.peer) {
                    Ok(Some((request, after, length))) => {
                        let head = self.came.get(..length).unwrap_or_default();
                        let key = Repeats::key(head, &request.headers, after);
                        self.came.drain(..length);
                        return Ok(Ok(Came::New { request, after, key }));
                    }
                    Ok(None) => {}
                    Err(status) => return Ok(Err(NoRequest::Refused(status))),
                }
            }
            looked_at = self.came.len();
            if looked_at >= MOST_HEAD_BYTES {
                return Ok(Err(NoRequest::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
            }
            tokio::select! {
                biased;
                read = read(&mut self.stream, &mut self.came) => {
                    if read? == 0 {
                        return Ok(Err(NoRequest::End));
                    }
                }
                () = self.stop.as_mut(), if !self.stopping => {
                    self.stopping = true;
                    until = until.min(Instant::now() + PARTING);
                    self.timer.as_mut().reset(until);
                }
                () = self.timer.as_mut() => {
                    if until <= Instant::now() {
                        return Ok(Err(NoRequest::End));
                    }
                    self.timer.as_mut().reset(until);
                }
            }
        }
    }

    /// Ends the connection so that the client gets all of the last answer, whatever it is still sending.
    async fn part(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let rest = async {
            loop {
                self.came.clear();
                match read(&mut self.stream, &mut self.came).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        };
        // Whoever has not hung up by then is cut off.
        let _ = tokio::time::timeout(PARTING, rest).await;
        Ok(())
    }
}

/// Reads on; 0 bytes are the end.
async fn read(stream: &mut TcpStream, came: &mut Vec<u8>) -> io::Result<usize> {
    came.reserve(READ_BYTES);
    stream.read_buf(came).await
}

/// Waits until the client has gone. What it sends meanwhile is for later.
async fn gone(stream: &mut TcpStream, came: &mut Vec<u8>) {
    while came.len() < MOST_HEAD_BYTES {
        match read(stream, came).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}

/// The length that an answer announces.
pub(super) fn length(response: &Response<Body>, head_alone: bool) -> Option<u64> {
    match response.body().len() {
        // Of what a HEAD did not fetch, the header tells the length, if anybody can.
        0 if head_alone => announced(response),
        length => Some(length),
    }
}

fn announced(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
