//! `Fetch`: the bytes behind a descriptor, also while they are still coming in.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tonic::Status;

use super::problem::Problem;
use super::{Replies, image_name};
use crate::oci::{ACCEPT_MANIFESTS, Digest, DigestError, Reference};
use crate::proto::v1;
use crate::resolve::{BlobBytes, Caller, Resolver};
use crate::store::blocking;

/// How much is read at a time, in bytes: one of these is in memory for each call.
const CHUNK_BYTES: u64 = 256 << 10;

/// Where the bytes come from.
enum Source {
    Manifest(Bytes),
    Blob(BlobBytes),
}

pub(super) async fn answer(
    resolver: &Resolver,
    request: v1::FetchRequest,
) -> Result<Replies<v1::FetchResponse>, Problem> {
    let repository = image_name(&request.reference)?.repository;
    let target = request.target.unwrap_or_default();
    let malformed = |error: DigestError| Problem::malformed(error.to_string());
    let digest: Digest = target.digest.parse().map_err(malformed)?;
    let caller = Caller::operator("fetch");
    let source = if is_manifest(&target.media_type) {
        let reference = Reference::Digest(digest.clone());
        Source::Manifest(resolver.manifest(&caller, &repository, &reference).await?.bytes)
    } else {
        Source::Blob(resolver.blob(&caller, &repository, &digest).await?)
    };
    let mut source = source;
    let total = source.total().await?;
    if request.offset > total {
        let problem = format!("{} is past the end of {digest}, which has {total} bytes", request.offset);
        return Err(Problem::past_the_end(problem));
    }
    let end = match request.length {
        0 => total,
        length => total.min(request.offset.saturating_add(length)),
    };
    tracing::info!(target: "tidehold::control", %repository, %digest, "fetched from");
    Ok(chunks(source, request.offset, end).map(|chunk| chunk.map_err(Status::from)).boxed())
}

/// A manifest is asked for in another place than a blob.
fn is_manifest(media_type: &str) -> bool {
    ACCEPT_MANIFESTS.split(',').any(|known| known.trim() == media_type)
}

fn chunks(source: Source, from: u64, end: u64) -> impl Stream<Item = Result<v1::FetchResponse, Problem>> {
    stream::try_unfold((source, from), move |(mut source, at)| async move {
        if at >= end {
            return Ok(None);
        }
        let data = source.read(at, CHUNK_BYTES.min(end - at)).await?;
        if data.is_empty() {
            return Err(Problem::unreadable(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        let next = at + data.len() as u64;
        Ok(Some((v1::FetchResponse { offset: at, data }, (source, next))))
    })
}

impl Source {
    /// How many bytes there are in all; waits for the end of a download that did not say.
    async fn total(&mut self) -> Result<u64, Problem> {
        Ok(match self {
            Self::Manifest(bytes) => bytes.len() as u64,
            Self::Blob(BlobBytes::Held(blob)) => blob.size(),
            Self::Blob(BlobBytes::Coming(follower)) => follower.total().await?,
        })
    }

    /// At most so many bytes from a place before the end.
    async fn read(&mut self, at: u64, length: u64) -> Result<Bytes, Problem> {
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        match self {
            Self::Manifest(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(from..from.saturating_add(size).min(bytes.len())))
            }
            Self::Blob(BlobBytes::Held(blob)) => {
                let blob = blob.clone();
                blocking(move || blob.read_at(at, size)).await.map_err(|error| Problem::unreadable(&error))
            }
            Self::Blob(BlobBytes::Coming(follower)) => Ok(follower.read_at(at, size).await?),
        }
    }
}
