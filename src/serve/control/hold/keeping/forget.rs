//! `Forget`: a tag with its history, or a manifest by digest.

use super::super::super::image_name;
use super::super::super::problem::Problem;
use super::super::asked;
use crate::evict::ForgetError;
use crate::proto::v1;
use crate::serve::overview::Overview;

pub(in super::super) async fn forget(
    overview: &Overview,
    request: v1::ForgetRequest,
) -> Result<v1::ForgetResponse, Problem> {
    let name = image_name(&request.reference)?;
    let of = name.clone();
    let forgotten = asked(overview, move |overview| overview.keeper().forget(&of)).await?;
    let forgotten = forgotten.map_err(|error| match error {
        ForgetError::Unknown(unknown) => Problem::missing(unknown.to_string()),
        ForgetError::Pinned(_) => Problem::excessive(error.to_string()),
    })?;
    overview.resolver().forget_refusals(&name.repository);
    tracing::info!(
        target: "tidehold::control",
        reference = %name,
        removed_bytes = forgotten.removed_bytes,
        kept_bytes = forgotten.kept_bytes,
        "forgotten"
    );
    Ok(v1::ForgetResponse {
        reference: name.to_string(),
        removed_blobs: forgotten.removed_blobs,
        removed_bytes: forgotten.removed_bytes,
        kept_blobs: forgotten.kept_blobs,
        kept_bytes: forgotten.kept_bytes,
        adopted_by: forgotten.adopted_by,
        needed_by: forgotten.needed_by,
    })
}
