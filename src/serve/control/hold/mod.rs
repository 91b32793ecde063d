//! The control socket: what is held, what was done and why, as the gRPC service `tidehold.v1.Hold`.

use tonic::{Request, Response, Status};

use super::{MAX_REQUEST_BYTES, Replies};
use crate::proto::v1;
use crate::proto::v1::hold_server::{Hold as Service, HoldServer};

/// The hold, for the operator. Cheap to clone.
#[derive(Clone, Default)]
pub struct HoldService {}

impl HoldService {
    /// The service, ready to be served.
    pub fn into_server(self) -> HoldServer<impl Service> {
        HoldServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

#[tonic::async_trait]
impl Service for HoldService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn budget(&self, _: Request<v1::BudgetRequest>) -> Result<Response<v1::BudgetResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type LogStream = Replies<v1::UpstreamRequest>;

    async fn log(&self, _: Request<v1::LogRequest>) -> Result<Response<Self::LogStream>, Status> {
        Err(Status::unimplemented(""))
    }

    type ListStream = Replies<v1::HeldTag>;

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn pin(&self, _: Request<v1::PinRequest>) -> Result<Response<v1::PinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn unpin(&self, _: Request<v1::UnpinRequest>) -> Result<Response<v1::UnpinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn forget(&self, _: Request<v1::ForgetRequest>) -> Result<Response<v1::ForgetResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn prune(&self, _: Request<v1::PruneRequest>) -> Result<Response<v1::PruneResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
