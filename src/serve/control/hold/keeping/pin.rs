//! `Pin` and `Unpin`.

use super::super::super::image_name;
use super::super::super::problem::Problem;
use super::super::asked;
use crate::clock;
use crate::evict::Unknown;
use crate::proto::v1;
use crate::serve::overview::Overview;

pub(in super::super) async fn pin(
    overview: &Overview,
    request: v1::PinRequest,
) -> Result<v1::PinResponse, Problem> {
    let name = image_name(&request.reference)?;
    let of = name.clone();
    let pinned = asked(overview, move |overview| overview.keeper().pin(&of, clock::now())).await?;
    let held_bytes = pinned.map_err(|unknown| {
        let Unknown { name, nearest } = &unknown;
        match nearest {
            Some(_) => Problem::missing(unknown.to_string()),
            None => Problem::missing(format!(
                "{unknown}: pull it, or `tidehold warm {name}`, before it is pinned"
            )),
        }
    })?;
    tracing::info!(target: "tidehold::control", reference = %name, held_bytes, "pinned");
    Ok(v1::PinResponse { reference: name.to_string(), held_bytes })
}

pub(in super::super) async fn unpin(
    overview: &Overview,
    request: v1::UnpinRequest,
) -> Result<v1::UnpinResponse, Problem> {
    let name = image_name(&request.reference)?;
    let of = name.clone();
    asked(overview, move |overview| overview.keeper().unpin(&of)).await?.map_err(
        |Unknown { name, nearest }| {
            let meant = nearest.map(|near| format!(": is {near} meant?")).unwrap_or_default();
            Problem::missing(format!("{name} is not pinned{meant}"))
        },
    )?;
    tracing::info!(target: "tidehold::control", reference = %name, "unpinned");
    Ok(v1::UnpinResponse { reference: name.to_string() })
}
