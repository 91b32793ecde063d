//! containerd's differ, as the gRPC service `containerd.services.diff.v1.Diff`: applies layers that the hold has.
//!
//! The contract is that of containerd's own (`plugins/services/diff`, `core/diff/apply`). What is answered with
//! Unimplemented is left to the next differ in containerd's order; any other error ends the unpacking, and containerd
//! throws the snapshot away. Makes no diffs: that is always for the next one.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::content::digest;
use crate::apply::{ApplyError, Mount, Plan};
use crate::clock;
use crate::record::{Front, Record};
use crate::store::{Hold, Reading, blocking};
use api::containerd::services::diff::v1::diff_server::{Diff, DiffServer};
use api::containerd::services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};
use api::containerd::types;

/// What `build.rs` made of containerd's definitions, in modules as the packages lie.
#[expect(clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated from diff.proto")]
mod api {
    pub mod containerd {
        #[allow(dead_code, reason = "the file has messages of other services too")]
        pub mod types {
            tonic::include_proto!("containerd.types");
        }
        pub mod services {
            pub mod diff {
                pub mod v1 {
                    tonic::include_proto!("containerd.services.diff.v1");
                }
            }
        }
    }
}

/// What an applied layer is: an archive without compression.
const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// At least and at most so many layers are applied at a time; between, as many as there are cores. Each takes three
/// threads and a few MiB; a zstd layer with a large window up to 128 MiB more. The others wait.
const AT_A_TIME: (usize, usize) = (2, 8);

/// The differ over a hold. Cheap to clone; all clones share one bound on what they do at a time.
#[derive(Clone)]
pub struct DifferService {
    hold: Hold,
    record: Record,
    places: Arc<Semaphore>,
}

impl DifferService {
    /// A differ for everything that the hold has, which tells the record what it reads.
    pub fn new(hold: Hold, record: Record) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Arc::new(Semaphore::new(cores.clamp(AT_A_TIME.0, AT_A_TIME.1)));
        Self { hold, record, places }
    }

    /// The service, ready to be served.
    pub fn into_server(self) -> DiffServer<impl Diff> {
        DiffServer::new(self)
    }

    async fn applied(&self, request: ApplyRequest) -> Result<ApplyResponse, Status> {
        let layer = request.diff.ok_or_else(|| Status::invalid_argument("a diff to apply is missing"))?;
        if !request.payloads.is_empty() {
            return Err(Status::unimplemented(
                "a layer with payloads for stream processors is not applied here",
            ));
        }
        let digest = digest(&layer.digest)?;
        let mounts: Vec<Mount> = request.mounts.into_iter().map(Mount::from).collect();
        let plan = Plan::new(&layer.media_type, &mounts, request.sync_fs).map_err(status)?;
        // Those who wait hold no file open, and who has gone away keeps the place until the work has ended.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| Status::unavailable("the daemon is stopping"))?;
        let blob = match self.hold.reading(&digest).await {
            Ok(Reading::Open(blob)) => blob,
            // Whoever reads it by way of the content store has it fetched again.
            Ok(Reading::Lost { .. } | Reading::No) => {
                return Err(Status::unimplemented(format!(
                    "the hold does not have {digest}: not applied here"
                )));
            }
            Err(error) => return Err(Status::internal(error.to_string())),
        };
        let cancel = CancellationToken::new();
        // A request whose client has gone is dropped, which the threads that work for it have to be told.
        let gone = cancel.clone().drop_guard();
        let (compressed, began) = (blob.size(), clock::instant());
        let applied = blocking(move || {
            let _place = place;
            plan.apply(blob, cancel)
        });
        let applied = applied.await;
        drop(gone);
        let took = began.elapsed();
        let applied = applied.map_err(|error| {
            tracing::warn!(%digest, %error, "a layer was not applied");
            status(error)
        })?;
        self.record.read(Front::Content, &digest, compressed);
        tracing::info!(%digest, compressed, uncompressed = applied.size, ?took, "applied a layer");
        let descriptor = types::Descriptor {
            media_type: MEDIA_TYPE.to_owned(),
            digest: applied.digest.to_string(),
            size: i64::try_from(applied.size).unwrap_or(i64::MAX),
            ..types::Descriptor::default()
        };
        Ok(ApplyResponse { applied: Some(descriptor) })
    }
}

#[tonic::async_trait]
impl Diff for DifferService {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        self.applied(request.into_inner()).await.map(Response::new)
    }

    async fn diff(&self, _: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        Err(Status::unimplemented("no diffs are made here"))
    }
}

impl From<types::Mount> for Mount {
    fn from(mount: types::Mount) -> Self {
        let types::Mount { r#type: kind, source, target, options } = mount;
        Self { kind, source, target, options }
    }
}

fn status(error: ApplyError) -> Status {
    let text = error.to_string();
    match error {
        ApplyError::Unsupported(_) => Status::unimplemented(text),
        ApplyError::ReadOnly => Status::failed_precondition(text),
        ApplyError::Damaged(_) => Status::invalid_argument(text),
        ApplyError::Full(_) => Status::resource_exhausted(text),
        ApplyError::Cancelled => Status::cancelled(text),
        ApplyError::Target(..) | ApplyError::Disk(_) | ApplyError::Unreadable(_) => Status::internal(text),
        ApplyError::Thread(_) => Status::unavailable(text),
    }
}
