//! `List`: the tags that are known.

use futures_util::stream;

use super::super::super::Replies;
use super::super::super::problem::Problem;
use super::super::asked;
use crate::proto::v1;
use crate::serve::overview::Overview;

pub(in super::super) async fn list(
    overview: &Overview,
    request: v1::ListRequest,
) -> Result<Replies<v1::HeldTag>, Problem> {
    let tags = asked(overview, move |overview| overview.tags(&request.contains)).await?;
    Ok(Box::pin(stream::iter(tags.into_iter().map(Ok))))
}
