//! The control socket: what is held, what was done and why, as the gRPC service `tidehold.v1.Hold`.
//!
//! Puts into messages what the [`Overview`] tells. What the messages mean is said in `proto/tidehold/v1/hold.proto`.

mod keeping;

use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::problem::Problem;
use super::{MAX_REQUEST_BYTES, Replies};
use crate::clock;
use crate::oci::Registry;
use crate::proto::v1;
use crate::proto::v1::hold_server::{Hold as Service, HoldServer};
use crate::record::{Following, Named, Which};
use crate::resolve::{Outcome, Tried};
use crate::serve::overview::Overview;
use crate::store::blocking;

/// The hold, for the operator. Cheap to clone.
#[derive(Clone)]
pub struct HoldService {
    overview: Overview,
    stop: CancellationToken,
}

impl HoldService {
    /// The service over what is told. At `stop`, whoever follows sees the end.
    pub fn new(overview: Overview, stop: CancellationToken) -> Self {
        Self { overview, stop }
    }

    /// The service, ready to be served.
    pub fn into_server(self) -> HoldServer<impl Service> {
        HoldServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

/// Something that waits for the disk.
async fn asked<T: Send + 'static, E: Send + 'static>(
    overview: &Overview,
    ask: impl FnOnce(&Overview) -> Result<T, E> + Send + 'static,
) -> Result<T, Problem>
where
    Problem: From<E>,
{
    let overview = overview.clone();
    Ok(blocking(move || ask(&overview)).await?)
}

#[tonic::async_trait]
impl Service for HoldService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(asked(&self.overview, |overview| overview.status(clock::now())).await?))
    }

    async fn budget(
        &self,
        request: Request<v1::BudgetRequest>,
    ) -> Result<Response<v1::BudgetResponse>, Status> {
        let v1::BudgetRequest { registry, all } = request.into_inner();
        let only = Some(&*registry).filter(|registry| !registry.is_empty());
        let named = if all { Named::All } else { Named::Dearest };
        Ok(Response::new(self.overview.budget(only, named, clock::now()).map_err(Problem::from)?))
    }

    async fn try_logins(
        &self,
        _: Request<v1::TryLoginsRequest>,
    ) -> Result<Response<v1::TryLoginsResponse>, Status> {
        let tried = self.overview.resolver().try_logins().await;
        let logins = tried.into_iter().flat_map(|(registry, all)| {
            all.into_iter().map(move |tried| tried_login(&registry, tried)).collect::<Vec<_>>()
        });
        Ok(Response::new(v1::TryLoginsResponse { logins: logins.collect() }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let reference = request.into_inner().reference;
        Ok(Response::new(asked(&self.overview, move |overview| overview.explain(&reference)).await?))
    }

    type LogStream = Replies<v1::UpstreamRequest>;

    async fn log(&self, request: Request<v1::LogRequest>) -> Result<Response<Self::LogStream>, Status> {
        let v1::LogRequest { follow, last, registry, repository, counted } = request.into_inner();
        let last = last.and_then(|last| usize::try_from(last).ok()).unwrap_or(usize::MAX);
        let registry =
            Which::registry_of(&registry).map_err(|error| Problem::malformed(error.to_string()))?;
        let which = Which { registry, repository, counted, after: 0 };
        let record = self.overview.record();
        if follow {
            return Ok(Response::new(followed(record.follow(which, last), self.stop.clone())));
        }
        let requests = record.requests(&which, last);
        let requests = requests.into_iter().map(|request| Ok((*request).clone()));
        Ok(Response::new(Box::pin(stream::iter(requests))))
    }

    type ListStream = Replies<v1::HeldTag>;

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Ok(Response::new(keeping::list(&self.overview, request.into_inner()).await?))
    }

    async fn pin(&self, request: Request<v1::PinRequest>) -> Result<Response<v1::PinResponse>, Status> {
        Ok(Response::new(keeping::pin(&self.overview, request.into_inner()).await?))
    }

    async fn unpin(&self, request: Request<v1::UnpinRequest>) -> Result<Response<v1::UnpinResponse>, Status> {
        Ok(Response::new(keeping::unpin(&self.overview, request.into_inner()).await?))
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        Ok(Response::new(keeping::forget(&self.overview, request.into_inner()).await?))
    }

    async fn prune(&self, request: Request<v1::PruneRequest>) -> Result<Response<v1::PruneResponse>, Status> {
        Ok(Response::new(keeping::prune(&self.overview, request.into_inner()).await?))
    }
}

fn tried_login(registry: &Registry, Tried { host, login, outcome }: Tried) -> v1::TriedLogin {
    let (entry, file) =
        login.map(|login| (login.entry.to_string(), login.file.display().to_string())).unwrap_or_default();
    let registry = registry.to_string();
    let tried = v1::TriedLogin { registry, host, entry, file, ..v1::TriedLogin::default() };
    let ended = |outcome: v1::LoginOutcome| outcome.into();
    match outcome {
        Outcome::Accepted => v1::TriedLogin { outcome: ended(v1::LoginOutcome::Accepted), ..tried },
        Outcome::Absent => v1::TriedLogin { outcome: ended(v1::LoginOutcome::Absent), ..tried },
        Outcome::Untried { why } => {
            v1::TriedLogin { outcome: ended(v1::LoginOutcome::Untried), why, ..tried }
        }
        Outcome::Refused { status } => {
            v1::TriedLogin { outcome: ended(v1::LoginOutcome::Refused), status: status.into(), ..tried }
        }
    }
}

/// Each request as it comes, until the daemon stops.
fn followed(following: Following, stop: CancellationToken) -> Replies<v1::UpstreamRequest> {
    Box::pin(stream::unfold((following, stop), |(mut following, stop)| async move {
        let next = tokio::select! {
            () = stop.cancelled() => None,
            next = following.next() => next,
        };
        next.map(|request| (Ok((*request).clone()), (following, stop)))
    }))
}
