//! `Read`: the bytes of a blob from an offset on.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use prost::Message;
use tonic::Status;

use super::{ContentService, Replies, api, digest, failed, not_found};
use crate::clock;
use crate::oci::Digest;
use crate::record::{Front, Latency};
use crate::store::{OpenBlob, Reading, blocking};

/// What one message of a longer read carries, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Up to this many bytes are read in line where the page cache has them: handing the work to another thread would
/// take longer than the read. Unpacking reads 32 KiB at a time.
const INLINE_BYTES: u64 = 128 << 10;

/// What stands in front of a message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;

/// What stands in a reply beside its data, at most: the prefix, an offset, the data's tag and length.
const AROUND_BYTES: usize = 32;

/// The tag of `data` in a reply: field 2, of a length that follows.
const DATA_TAG: u8 = 2 << 3 | 2;

impl ContentService {
    /// The reply to a small read, prefix included, where the blob is open and its bytes are in memory. What it is
    /// asked by is a message with its prefix. Never waits, and decides nothing: `None` is for the long way to look
    /// into, errors included.
    pub(super) fn read_at_once(&self, message: &[u8]) -> Option<Bytes> {
        let began = clock::instant();
        let (prefix, message) = message.split_first_chunk::<PREFIX_BYTES>()?;
        let [0, length @ ..] = prefix else { return None };
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(message.len()) {
            return None;
        }
        let request = api::ReadContentRequest::decode(message).ok()?;
        let digest = request.digest.parse().ok()?;
        let blob = self.hold.open_still(&digest)?;
        let offset = u64::try_from(request.offset).ok()?;
        let length = u64::try_from(request.size).ok()?.min(blob.size().checked_sub(offset)?);
        if length == 0 || length > INLINE_BYTES {
            return None;
        }
        let length = usize::try_from(length).ok()?;
        let mut reply = BytesMut::with_capacity(length + AROUND_BYTES);
        reply.put_bytes(0, PREFIX_BYTES);
        api::ReadContentResponse { offset: request.offset, data: Bytes::new() }.encode(&mut reply).ok()?;
        reply.put_u8(DATA_TAG);
        prost::encode_length_delimiter(length, &mut reply).ok()?;
        let data_at = reply.len();
        reply.put_bytes(0, length);
        blob.read_from_memory(offset, reply.get_mut(data_at..)?)?;
        let message_length = u32::try_from(reply.len() - PREFIX_BYTES).ok()?;
        reply.get_mut(1..PREFIX_BYTES)?.copy_from_slice(&message_length.to_be_bytes());
        if offset == 0 {
            self.begun.note(&digest);
        }
        self.tell_read(&digest, length as u64, began);
        Some(reply.freeze())
    }

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
        if offset == 0 {
            self.begun.note(&digest);
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

    fn tell_read(&self, digest: &Digest, bytes: u64, began: Instant) {
        self.record.read(Front::Content, digest, bytes);
        self.record.took(Latency::ContentRead, clock::instant().duration_since(began));
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
        let began = clock::instant();
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
        self.tell_read(digest, to - from, began);
        Ok((api::ReadContentResponse { offset: i64::try_from(from).unwrap_or(i64::MAX), data }, blob))
    }

    /// Fetches a blob again that containerd relies on and whose file is gone or damaged.
    async fn restored(&self, digest: &Digest) -> Result<OpenBlob, Status> {
        tracing::warn!(%digest, "a blob that was lost is fetched again");
        let restored = self.resolver.bring_in(digest, &format!("containerd {}", self.owner), |_| {}).await;
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
        let mut bytes = BytesMut::zeroed(length);
        if blob.read_from_memory(from, &mut bytes).is_some() {
            return Ok(bytes.freeze());
        }
    }
    let blob = blob.clone();
    blocking(move || blob.read_at(from, length)).await
}
