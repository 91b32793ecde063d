//! What is known of blobs: `Info`, `Update`, `List`, `Delete`.

use std::borrow::Cow;
use std::collections::HashMap;

use futures_util::stream;
use tonic::Status;

use super::filter::Filters;
use super::{ContentService, Replies, api, digest, failed, filters, not_found};
use crate::clock;
use crate::oci::Digest;
use crate::record::{Ending, Front, Kind};
use crate::store::{Adopted, blocking};

/// How many blobs stand in one message of a list.
const PAGE: usize = 100;

impl ContentService {
    /// Answering this with OK adopts the blob: containerd relies on it from now on and tells nobody.
    pub(super) async fn info_of(&self, request: &api::InfoRequest) -> Result<api::InfoResponse, Status> {
        let digest = digest(&request.digest)?;
        self.record.called(self.owner.as_str(), clock::now());
        let adopted = match self.hold.adopted(&self.owner, &digest).map_err(failed)? {
            Some(adopted) => Some(adopted),
            // containerd asks before each fetch, under its lock: what is not held is told from memory.
            None if self.hold.blob(&digest).map_err(failed)?.is_none() => None,
            None => {
                let (hold, owner, of) = (self.hold.clone(), self.owner.clone(), digest.clone());
                let adopted =
                    blocking(move || hold.adopt(&owner, &of, clock::now())).await.map_err(failed)?;
                if adopted.is_some() {
                    self.tell_given(&digest);
                }
                adopted
            }
        };
        if let (None, Some(handover)) = (&adopted, &self.handover) {
            handover.note_miss(&digest);
        }
        let info = adopted.map(info_message).ok_or_else(|| not_found(&digest))?;
        Ok(api::InfoResponse { info: Some(info) })
    }

    /// Tells the record that this containerd got by without asking a registry.
    pub(super) fn tell_given(&self, digest: &Digest) {
        let kind = if self.resolver.is_manifest(digest) { Kind::Manifest } else { Kind::Blob };
        if kind == Kind::Manifest {
            self.resolver.spared(digest);
        }
        self.record.answered(Front::Content, kind, Ending::Immutable, clock::now());
    }

    pub(super) async fn updated(&self, request: api::UpdateRequest) -> Result<api::UpdateResponse, Status> {
        let info = request.info.ok_or_else(|| Status::invalid_argument("an update needs an info"))?;
        let digest = digest(&info.digest)?;
        let change = LabelChange::new(request.update_mask, info.labels)?;
        let (hold, owner, of) = (self.hold.clone(), self.owner.clone(), digest.clone());
        let updated =
            blocking(move || hold.relabel(&owner, &of, clock::now(), |labels| change.apply(labels)))
                .await
                .map_err(failed)?
                .ok_or_else(|| not_found(&digest))?;
        Ok(api::UpdateResponse { info: Some(info_message(updated)) })
    }

    /// Only what this containerd adopted: it deletes whatever else it finds here. The walk goes by digest, page by
    /// page, and so bears deletes in between.
    pub(super) fn listed(
        &self,
        request: &api::ListContentRequest,
    ) -> Result<Replies<api::ListContentResponse>, Status> {
        let filters = filters(&request.filters)?;
        let service = self.clone();
        let pages = stream::try_unfold(Some(None), move |cursor: Option<Option<Digest>>| {
            let page = cursor.map(|after| service.page(after.as_ref(), &filters)).transpose();
            async move {
                let Some((info, last)) = page? else { return Ok(None) };
                // Pages of which nothing matches are not sent: without this a long list would hold up the others.
                tokio::task::yield_now().await;
                Ok(Some((api::ListContentResponse { info }, last.map(Some))))
            }
        });
        Ok(Box::pin(futures_util::TryStreamExt::try_filter(pages, |page| {
            std::future::ready(!page.info.is_empty())
        })))
    }

    /// The next blobs that match, and where to go on; `None` at the end.
    fn page(
        &self,
        after: Option<&Digest>,
        filters: &Filters,
    ) -> Result<(Vec<api::Info>, Option<Digest>), Status> {
        let adopted = self.hold.adopted_after(&self.owner, after, PAGE).map_err(failed)?;
        let last = adopted.last().filter(|_| adopted.len() == PAGE).map(|last| last.blob.digest.clone());
        let matching = adopted.into_iter().filter(|adopted| filters.matches(|path| field(adopted, path)));
        Ok((matching.map(info_message).collect(), last))
    }

    /// Ends the adoption; the blob stays as cache. Deleting what is not there is no error: one would end
    /// containerd's collection half-way.
    pub(super) fn deleted(&self, request: &api::DeleteContentRequest) -> Result<(), Status> {
        let digest = digest(&request.digest)?;
        self.hold.release(&self.owner, &digest).map(drop).map_err(failed)
    }
}

fn field<'a>(adopted: &'a Adopted, path: &[&str]) -> Option<Cow<'a, str>> {
    match path {
        ["digest"] => Some(adopted.blob.digest.as_str().into()),
        ["labels", key @ ..] => adopted.labels.get(&key.join(".")).map(|value| value.as_str().into()),
        _ => None,
    }
}

fn info_message(adopted: Adopted) -> api::Info {
    api::Info {
        digest: adopted.blob.digest.to_string(),
        size: i64::try_from(adopted.blob.size).unwrap_or(i64::MAX),
        created_at: Some(adopted.blob.committed_at.into()),
        updated_at: Some(adopted.updated_at.into()),
        labels: adopted.labels,
    }
}

/// What an update's mask makes of the labels.
enum LabelChange {
    /// They become these.
    Replace(HashMap<String, String>),
    /// These are put, or removed where the value is empty.
    Merge(Vec<(String, String)>),
}

impl LabelChange {
    fn new(mask: Option<prost_types::FieldMask>, labels: HashMap<String, String>) -> Result<Self, Status> {
        let paths = mask.unwrap_or_default().paths;
        let mut changes = Vec::new();
        let mut all = paths.is_empty();
        for path in paths {
            match path.strip_prefix("labels.") {
                Some(key) => changes.push((key.to_owned(), labels.get(key).cloned().unwrap_or_default())),
                None if path == "labels" => all = true,
                None => {
                    let refusal = format!("{path:?} cannot be updated: only labels and labels.<key> can");
                    return Err(Status::invalid_argument(refusal));
                }
            }
        }
        Ok(if all { Self::Replace(labels) } else { Self::Merge(changes) })
    }

    fn apply(self, labels: &mut HashMap<String, String>) {
        match self {
            Self::Replace(new) => *labels = new,
            Self::Merge(changes) => {
                for (key, value) in changes {
                    if value.is_empty() {
                        labels.remove(&key);
                    } else {
                        labels.insert(key, value);
                    }
                }
            }
        }
    }
}
