//! The control socket: the resolver as the gRPC service `tidehold.v1.Resolver`, for whoever runs this node.
//!
//! Who can open the socket is its operator, so everything here is asked as [`Client::Operator`](crate::resolve::Client).
//! What the messages mean is said in `proto/tidehold/v1/resolver.proto`.
//!
//! Invariant: no call makes anything grow without a bound, and a call whose client has left does nothing more.

mod adopt;
mod choose;
mod fetch;
mod hold;
mod problem;
mod resolve;
mod steps;
mod warm;

pub use adopt::AdoptionService;
pub use hold::HoldService;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::oci::ImageName;
use crate::proto::v1;
use crate::proto::v1::resolver_server::{Resolver as Service, ResolverServer};
use crate::resolve::{Cost, Resolver, Served, Standing};
use problem::Problem;

/// The largest request that is taken, in bytes: as many references as one call may have, at their longest.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// How many calls may run on one connection.
const CALLS_PER_CONNECTION: u32 = 64;

/// How many `Warm` calls may run at a time.
const WARMS_AT_ONCE: usize = 8;

/// A stream of replies.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A server for the control socket.
pub fn server() -> Server {
    Server::builder().max_concurrent_streams(Some(CALLS_PER_CONNECTION))
}

/// The resolver, for the operator.
pub struct ControlService {
    resolver: Resolver,
    warms: Arc<Semaphore>,
    stop: CancellationToken,
}

impl ControlService {
    /// The service over a resolver. At `stop`, `Warm` calls end, however much is left to do; others run to their end.
    pub fn new(resolver: Resolver, stop: CancellationToken) -> Self {
        Self { resolver, warms: Arc::new(Semaphore::new(WARMS_AT_ONCE)), stop }
    }

    /// The service, ready to be served.
    pub fn into_server(self) -> ResolverServer<impl Service> {
        ResolverServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

#[tonic::async_trait]
impl Service for ControlService {
    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        Ok(Response::new(resolve::answer(&self.resolver, &request.into_inner()).await?))
    }

    type FetchStream = Replies<v1::FetchResponse>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Ok(Response::new(fetch::answer(&self.resolver, request.into_inner()).await?))
    }

    type WarmStream = Replies<v1::WarmResponse>;

    async fn warm(&self, request: Request<v1::WarmRequest>) -> Result<Response<Self::WarmStream>, Status> {
        let Ok(place) = Arc::clone(&self.warms).try_acquire_owned() else {
            let problem = Problem::busy(format!("{WARMS_AT_ONCE} calls are warming already"));
            return Err(problem.into());
        };
        let asked = warm::Asked::parse(request.into_inner())?;
        Ok(Response::new(warm::answer(self.resolver.clone(), asked, place, self.stop.clone())))
    }
}

fn image_name(text: &str) -> Result<ImageName, Problem> {
    text.parse().map_err(|error: crate::oci::NameError| Problem::malformed(error.to_string()))
}

/// What a reference was found to stand for.
fn descriptor(served: &Served) -> v1::Descriptor {
    v1::Descriptor {
        media_type: served.media_type.clone(),
        digest: served.digest.to_string(),
        size: served.bytes.len() as u64,
        platform: String::new(),
    }
}

fn standing(standing: Standing) -> v1::Standing {
    match standing {
        Standing::Immutable => v1::Standing::Immutable,
        Standing::Fresh => v1::Standing::Fresh,
        Standing::Unchanged => v1::Standing::Unchanged,
        Standing::Changed => v1::Standing::Changed,
        Standing::Stale => v1::Standing::Stale,
    }
}

fn cost(cost: Cost) -> v1::Cost {
    v1::Cost { requests: cost.requests, counted: cost.counted }
}

/// A length of time as a message; what is too long for one is its longest.
fn duration(duration: std::time::Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}
