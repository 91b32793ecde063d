//! containerd's content store, as the gRPC service `containerd.services.content.v1.Content`.
//!
//! One service for each containerd on the node, told apart by the socket it comes in at. The contract is that of
//! containerd's own server (`plugins/services/content/contentserver`), which its proxy plugin expects to meet.
//!
//! Invariant: `Info`, `List`, `Delete` and the statuses wait for no network and no other request, since containerd
//! calls them while it holds its own lock.

mod begun;
mod calls;
mod connection;
mod corked;
mod filter;
mod handover;
mod info;
mod pending;
mod read;
mod status;
mod write;

use std::pin::Pin;

use futures_util::Stream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::oci::Digest;
use crate::record::Record;
use crate::resolve::Resolver;
use crate::store::{Hold, Ingests, Owner, StoreError};
use api::content_server::{Content, ContentServer};
use begun::Begun;
pub use calls::Calls;
pub use connection::serve;
use filter::Filters;
use handover::HandOver;
pub use pending::Pending;

/// What `build.rs` made of containerd's definition.
#[expect(clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated from content.proto")]
mod api {
    tonic::include_proto!("containerd.services.content.v1");
}

/// The largest message that containerd sends or takes, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A stream of replies.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The content store of one containerd.
#[derive(Clone)]
pub struct ContentService {
    hold: Hold,
    owner: Owner,
    record: Record,
    ingests: Ingests,
    resolver: Resolver,
    /// Where hand-over is switched on.
    handover: Option<HandOver>,
    /// The streams of writes that are open.
    writers: TaskTracker,
    /// What its containerd began to read.
    begun: Begun,
}

impl ContentService {
    /// The store as that containerd sees it: its own adoptions and ingests over the one hold. Blobs that it lost
    /// come through the resolver, and with `handover` those too that it is about to fetch. *Blocking.*
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn open(hold: Hold, owner: Owner, resolver: Resolver, handover: bool) -> Result<Self, StoreError> {
        let ingests = Ingests::open(&hold, owner.clone())?;
        let handover = handover
            .then(|| HandOver::new(hold.clone(), resolver.clone(), format!("containerd {owner}").into()));
        let record = resolver.record().clone();
        let (writers, begun) = (TaskTracker::new(), Begun::default());
        Ok(Self { hold, owner, record, ingests, resolver, handover, writers, begun })
    }

    /// What can be waited for until no stream of writes is open.
    pub fn writers(&self) -> TaskTracker {
        self.writers.clone()
    }

    /// The service, ready to be served.
    pub fn into_server(self) -> ContentServer<impl Content> {
        ContentServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Content for ContentService {
    async fn info(&self, request: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        self.info_of(&request.into_inner()).await.map(Response::new)
    }

    async fn update(
        &self,
        request: Request<api::UpdateRequest>,
    ) -> Result<Response<api::UpdateResponse>, Status> {
        self.updated(request.into_inner()).await.map(Response::new)
    }

    type ListStream = Replies<api::ListContentResponse>;

    async fn list(
        &self,
        request: Request<api::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        self.listed(&request.into_inner()).map(Response::new)
    }

    async fn delete(&self, request: Request<api::DeleteContentRequest>) -> Result<Response<()>, Status> {
        self.deleted(&request.into_inner()).map(Response::new)
    }

    type ReadStream = Replies<api::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<api::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.bytes_of(&request.into_inner()).await.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<api::StatusRequest>,
    ) -> Result<Response<api::StatusResponse>, Status> {
        self.status_of(&request.into_inner()).map(Response::new)
    }

    async fn list_statuses(
        &self,
        request: Request<api::ListStatusesRequest>,
    ) -> Result<Response<api::ListStatusesResponse>, Status> {
        self.statuses(&request.into_inner()).map(Response::new)
    }

    type WriteStream = Replies<api::WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<api::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Ok(Response::new(self.write_session(request.into_inner())))
    }

    async fn abort(&self, request: Request<api::AbortRequest>) -> Result<Response<()>, Status> {
        self.aborted(request.into_inner()).await.map(Response::new)
    }
}

pub(super) fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error: crate::oci::DigestError| Status::invalid_argument(error.to_string()))
}

/// The way in for the fuzz target: reads filters and asks them about one label.
#[cfg(fuzzing)]
pub fn fuzz_filters(texts: &[String], value: &str) {
    if let Ok(filters) = Filters::parse(texts) {
        let _ = filters.matches(|path| path.starts_with(&["labels"]).then_some(value));
    }
}

/// A pattern that cannot be read matches nothing, as with containerd's own store: the log is all that tells.
fn filters(texts: &[String]) -> Result<Filters, Status> {
    let filters = Filters::parse(texts).map_err(|error| Status::invalid_argument(error.to_string()))?;
    for pattern in filters.unreadable_patterns() {
        tracing::warn!(pattern, "a filter has a pattern that cannot be read: it matches nothing");
    }
    Ok(filters)
}

fn not_found(digest: &Digest) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}

/// The disk or the index failed: nothing that the client could do otherwise.
fn failed(error: StoreError) -> Status {
    tracing::error!(%error, "the content store failed");
    if error.is_for_want_of_room() {
        return Status::resource_exhausted(error.to_string());
    }
    if error.is_of_writing() {
        // Not unavailable: containerd would try again until somebody ends its pull.
        let mend = error.mend().unwrap_or_default();
        return Status::failed_precondition(format!("the hold cannot be written: {error}: {mend}"));
    }
    Status::internal(error.to_string())
}
