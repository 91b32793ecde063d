//! `Read`: the bytes of a blob from an offset on.

use bytes::Bytes;
use futures_util::stream;
use tonic::Status;

use super::{ContentService, Replies, api, digest, failed, not_found};
use crate::oci::Digest;
use crate::store::{OpenBlob, Reading, blocking};

/// What one message of a longer read carries, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Up to this many bytes are read in line: they come from the page cache more often than not, and handing the
/// work to another thread would take longer than the read. Unpacking reads 32 KiB at a time.
const INLINE_BYTES: u64 = 128 << 10;

impl ContentService {
    pub(super) async fn bytes_of(
        &self,
        request: &api::ReadContentRequest,
    ) -> Result<Replies<api::ReadContentResponse>, Status> {
        let digest = digest(&request.digest)?;
        let blob = match self.hold.reading(&digest).await.map_err(failed)? {
            Reading::Open(blob) => blob,
            Reading::Lost { .. } => self.restored(&digest).await?,
            Reading::No => return Err(not_found(&digest)),
        };
        let offset = u64::try_from(request.offset).unwrap_or(0);
        if offset > blob.size() {
            return Err(Status::out_of_range(format!(
                "offset {offset} is past the end of {digest}, which has {} bytes",
                blob.size()
            )));
        }
        let length = u64::try_from(request.size).unwrap_or(0);
        let end = if length == 0 { blob.size() } else { blob.size().min(offset.saturating_add(length)) };
        if end - offset <= CHUNK_BYTES {
            // One message: it leaves together with the end of the stream.
            let (reply, _) = self.chunk(&digest, blob, offset, end).await?;
            return Ok(Box::pin(stream::iter((offset < end).then_some(Ok(reply)))));
        }
        let service = self.clone();
        Ok(Box::pin(stream::try_unfold((offset, blob), move |(at, blob)| {
            let (service, digest) = (service.clone(), digest.clone());
            async move {
                if at == end {
                    return Ok(None);
                }
                let next = end.min(at + CHUNK_BYTES);
                let (reply, blob) = service.chunk(&digest, blob, at, next).await?;
                Ok(Some((reply, (next, blob))))
            }
        })))
    }

    /// Some bytes of a blob, and the blob to read on from: where the disk does not give them back, it is fetched
    /// again.
    async fn chunk(
        &self,
        digest: &Digest,
        blob: OpenBlob,
        from: u64,
        to: u64,
    ) -> Result<(api::ReadContentResponse, OpenBlob), Status> {
        let (data, blob) = match read(&blob, from, to).await {
            Ok(data) => (data, blob),
            Err(error) => {
                tracing::error!(%digest, %error, "reading a blob failed");
                let (hold, of) = (self.hold.clone(), digest.clone());
                let blob = match blocking(move || hold.read_again(&of)).await.map_err(failed)? {
                    Reading::Open(blob) => blob,
                    Reading::Lost { .. } => self.restored(digest).await?,
                    Reading::No => return Err(not_found(digest)),
                };
                let data = read(&blob, from, to).await;
                (data.map_err(|error| Status::data_loss(format!("reading {digest}: {error}")))?, blob)
            }
        };
        Ok((api::ReadContentResponse { offset: i64::try_from(from).unwrap_or(i64::MAX), data }, blob))
    }

    /// Fetches a blob again that containerd relies on and whose file is gone or damaged.
    async fn restored(&self, digest: &Digest) -> Result<OpenBlob, Status> {
        tracing::warn!(%digest, "a blob that was lost is fetched again");
        let restored = self.resolver.bring_in(digest, |_| {}).await;
        restored.map_err(|why| Status::unavailable(format!("content {digest} was lost here: {why}")))?;
        match self.hold.reading(digest).await.map_err(failed)? {
            Reading::Open(blob) => Ok(blob),
            Reading::Lost { .. } | Reading::No => Err(not_found(digest)),
        }
    }
}

async fn read(blob: &OpenBlob, from: u64, to: u64) -> std::io::Result<Bytes> {
    let length = usize::try_from(to - from).unwrap_or(usize::MAX);
    if to - from <= INLINE_BYTES {
        return blob.read_at(from, length);
    }
    let blob = blob.clone();
    blocking(move || blob.read_at(from, length)).await
}
