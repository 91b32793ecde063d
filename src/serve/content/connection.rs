//! The connections of a content socket: HTTP/2, with a short way for small reads past everything else.
//!
//! containerd has one connection for all its calls, and unpacking a layer makes thousands of small reads over it.
//! Each of those is answered by the task that reads the socket, without a task, a route or a codec of its own, and
//! leaves in one piece. All other calls, and every read that cannot be answered at once, go to the gRPC library.
//!
//! Invariant: the short way answers with what the long one would answer, or not at all.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::ServiceExt;

use super::super::listen::ACCEPT_PAUSE;
use super::corked::Corked;
use super::{Calls, ContentService, Pending};

/// HTTP/2 windows, in bytes: containerd writes 1 MiB at a time, on one connection for all its streams.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The longest head of a request, in bytes.
const MOST_HEAD_BYTES: u32 = 16 << 10;

/// How many calls may be broken off before they were looked at. Beyond it the whole connection is cut, with all
/// that runs on it; the library's 20 are meant for strangers, and here the one client is the node's containerd.
const UNSEEN_RESETS: usize = 1 << 16;

/// How many calls a connection may have at a time; its client keeps the rest to itself. Each may hold an answer that is
/// not read. More than all ingests that there may be, so that writers never leave others without room.
const MOST_CALLS: u32 = 16 << 10;

const READ: &str = "/containerd.services.content.v1.Content/Read";

/// The service, once the hold is open.
type Opening = Shared<BoxFuture<'static, Option<ContentService>>>;

/// Serves the content store at a socket, and beside it what else is to be had there, until it is told to stop and
/// the last call has ended. Calls wait for the store to be open; where that comes to nothing, for their end.
pub async fn serve(
    listener: UnixListener,
    opening: impl Future<Output = Option<ContentService>> + Send + 'static,
    beside: Routes,
    calls: Calls,
    stop: impl Future<Output = ()>,
) {
    let opening = opening.boxed().shared();
    let content = Pending::new(opening.clone().map(|service| service.map(ContentService::into_server)));
    let shared = Arc::new(Served {
        opening,
        routes: beside.add_service(content).prepare(),
        calls,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                shared.tasks.spawn(Arc::clone(&shared).connection(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = &mut stop => break,
                }
            }
        }
    }
    drop(listener);
    shared.stop.cancel();
    shared.tasks.close();
    shared.tasks.wait().await;
}

/// What all connections of a socket share.
struct Served {
    opening: Opening,
    routes: Routes,
    /// Those of every socket.
    calls: Calls,
    stop: CancellationToken,
    /// The connections and their calls.
    tasks: TaskTracker,
}

impl Served {
    async fn connection(self: Arc<Self>, stream: UnixStream) {
        if let Err(error) = self.calls(stream).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers the calls of a connection until its client closes it, or after a stop the last of them has ended.
    async fn calls(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let wire = Corked::new(stream);
        let mut handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MOST_HEAD_BYTES)
            .max_concurrent_streams(MOST_CALLS)
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            .handshake(wire.clone());
        let mut stopped = pin!(self.stop.cancelled());
        let mut connection = tokio::select! {
            connection = uncorking(&wire, |context| handshake.poll_unpin(context)) => {
                connection?.map_err(io::Error::other)?
            }
            // Whoever has not even said hello has nothing to lose.
            () = &mut stopped => return Ok(()),
        };
        let mut stopping = false;
        loop {
            let accepted = tokio::select! {
                accepted = uncorking(&wire, |context| connection.poll_accept(context)) => accepted?,
                () = &mut stopped, if !stopping => {
                    stopping = true;
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(accepted) = accepted else { return Ok(()) };
            let (request, respond) = accepted.map_err(io::Error::other)?;
            let running = self.calls.begin();
            let call = Call { request: request.map(Incoming::new), respond };
            if let Some(call) = call.answered_at_once(&self.opening) {
                let answered = call.answered(self.opening.clone(), self.routes.clone());
                self.tasks.spawn(answered.map(|()| drop(running)));
            }
        }
    }
}

/// Polls what writes to a wire, and uncorks that before it sleeps.
async fn uncorking<T>(wire: &Corked, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> io::Result<T> {
    poll_fn(|context| match poll(context) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => match wire.poll_uncork(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        },
    })
    .await
}

/// A request and the way to answer it.
struct Call {
    request: Request<Incoming>,
    respond: SendResponse<Bytes>,
}

impl Call {
    /// Answers a small read of what is in memory; any other call is given back.
    fn answered_at_once(mut self, opening: &Opening) -> Option<Self> {
        if self.request.uri().path() != READ {
            return Some(self);
        }
        let Some(Some(service)) = opening.peek() else { return Some(self) };
        let body = self.request.body_mut();
        body.take_in().now_or_never();
        let Some(reply) = body.whole().and_then(|message| service.read_at_once(message)) else {
            return Some(self);
        };
        // That fails only where the client is gone.
        let _ = self.send(reply);
        None
    }

    /// Sends one message and the end.
    fn send(&mut self, reply: Bytes) -> Result<(), h2::Error> {
        let mut response = Response::new(());
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        let mut body = self.respond.send_response(response, false)?;
        body.send_data(reply, false)?;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        body.send_trailers(trailers)
    }

    async fn answered(mut self, opening: Opening, routes: Routes) {
        // The message may come a moment after the head.
        if self.request.uri().path() == READ {
            self.request.body_mut().take_in().await;
            match self.answered_at_once(&opening) {
                Some(call) => self = call,
                None => return,
            }
        }
        if let Err(error) = self.routed(routes).await {
            tracing::debug!(%error, "a call ended early");
        }
    }

    /// Has the gRPC library answer. Its work ends where the client breaks the call off.
    async fn routed(self, routes: Routes) -> Result<(), h2::Error> {
        let Self { request, mut respond } = self;
        let answer = routes.oneshot(request.map(tonic::body::Body::new));
        let answer: Result<_, Infallible> = tokio::select! {
            answer = answer => answer,
            _ = poll_fn(|context| respond.poll_reset(context)) => return Ok(()),
        };
        let Ok(answer) = answer;
        let (head, body) = answer.into_parts();
        let ended = body.is_end_stream();
        let mut stream = respond.send_response(Response::from_parts(head, ()), ended)?;
        if ended { Ok(()) } else { send_body(body, &mut stream).await }
    }
}

async fn send_body(body: tonic::body::Body, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|context| body.as_mut().poll_frame(context)) => frame,
            _ = poll_fn(|context| stream.poll_reset(context)) => return Ok(()),
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => return stream.send_data(Bytes::new(), true),
        };
        match frame.into_data() {
            Ok(data) => send_data(data, stream).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// Sends as the client takes it in.
async fn send_data(mut data: Bytes, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(0)) => {}
            Some(room) => {
                let piece = data.split_to(room?.min(data.len()));
                stream.send_data(piece, false)?;
            }
            None => return Err(Reason::CANCEL.into()),
        }
    }
    Ok(())
}

/// The body of a request, of which some may have been looked at.
struct Incoming {
    seen: Option<Bytes>,
    rest: RecvStream,
}

impl Incoming {
    fn new(rest: RecvStream) -> Self {
        Self { seen: None, rest }
    }

    /// Waits for the first piece.
    async fn take_in(&mut self) {
        if self.seen.is_none()
            && let Some(Ok(piece)) = poll_fn(|context| self.poll_rest(context)).await
        {
            self.seen = Some(piece);
        }
    }

    /// All of it, where it came in one piece.
    fn whole(&self) -> Option<&Bytes> {
        self.seen.as_ref().filter(|_| self.rest.is_end_stream())
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let piece = std::task::ready!(self.rest.poll_data(context));
        if let Some(Ok(piece)) = &piece {
            self.rest.flow_control().release_capacity(piece.len())?;
        }
        Poll::Ready(piece)
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if let Some(seen) = this.seen.take() {
            return Poll::Ready(Some(Ok(Frame::data(seen))));
        }
        match std::task::ready!(this.poll_rest(context)) {
            Some(piece) => Poll::Ready(Some(piece.map(Frame::data))),
            None => this
                .rest
                .poll_trailers(context)
                .map(|end| end.transpose().map(|trailers| trailers.map(Frame::trailers))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.seen.is_none() && self.rest.is_end_stream()
    }
}
