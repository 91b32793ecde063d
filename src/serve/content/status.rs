//! How far ingests are: `Status`, `ListStatuses`, `Abort`.

use tonic::Status;

use super::{ContentService, api, failed, filters};
use crate::store::{IngestStatus, blocking};

impl ContentService {
    pub(super) fn status_of(&self, request: &api::StatusRequest) -> Result<api::StatusResponse, Status> {
        let name = &request.r#ref;
        let status = self.ingests.status(name).ok_or_else(|| unknown(name))?;
        Ok(api::StatusResponse { status: Some(message(name.clone(), &status)) })
    }

    pub(super) fn statuses(
        &self,
        request: &api::ListStatusesRequest,
    ) -> Result<api::ListStatusesResponse, Status> {
        let filters = filters(&request.filters)?;
        let matches = |name: &str| {
            filters.matches(|path| match path {
                ["ref"] => Some(name),
                _ => None,
            })
        };
        let all = self.ingests.statuses().into_iter().filter(|(name, _)| matches(name));
        Ok(api::ListStatusesResponse { statuses: all.map(|(name, status)| message(name, &status)).collect() })
    }

    /// Aborting what is not there is no error, as in containerd's own store: its metadata store would take back
    /// the removal of its own record, and end a collection half-way.
    pub(super) async fn aborted(&self, request: api::AbortRequest) -> Result<(), Status> {
        let ingests = self.ingests.clone();
        blocking(move || ingests.abort(&request.r#ref)).await.map(drop).map_err(failed)
    }
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!("ingest {name:?}: not found"))
}

fn message(name: String, status: &IngestStatus) -> api::Status {
    api::Status {
        started_at: Some(status.started_at.into()),
        updated_at: Some(status.updated_at.into()),
        r#ref: name,
        offset: i64::try_from(status.offset).unwrap_or(i64::MAX),
        total: i64::try_from(status.total).unwrap_or(i64::MAX),
        expected: String::new(),
    }
}
