//! Which blobs a containerd began to read last, for the program that decompresses its layers.
//!
//! containerd tells that program nowhere which layer it is handed the bytes of. But it reads them here, from the first
//! byte on: so the layer is one of those that it began to read a moment ago.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tonic::{Request, Response, Status};

use super::{ContentService, failed};
use crate::oci::Digest;
use crate::proto::v1;
use crate::proto::v1::layers_server::{Layers, LayersServer};
use crate::record::{Front, Record};
use crate::store::{Hold, Reading, StoreError, blocking};

/// How many blobs are remembered: far more than a containerd begins to read between the first read of a layer and
/// the question about it, a moment later.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How many layers with the same beginning are named. More are as good as none: it takes long to tell them apart.
const MOST_NAMED: usize = 8;

/// The longest beginning that is looked for, in bytes.
const MOST_HEAD_BYTES: usize = 1 << 20;

/// The blobs that were read from their first byte on, the last one first. Cheap to clone.
#[derive(Clone)]
pub(super) struct Begun {
    digests: Arc<Mutex<LruCache<Digest, ()>>>,
}

impl Default for Begun {
    fn default() -> Self {
        Self { digests: Arc::new(Mutex::new(LruCache::new(REMEMBERED))) }
    }
}

impl Begun {
    pub(super) fn note(&self, digest: &Digest) {
        self.digests().put(digest.clone(), ());
    }

    fn latest_first(&self) -> Vec<Digest> {
        self.digests().iter().map(|(digest, ())| digest.clone()).collect()
    }

    fn digests(&self) -> MutexGuard<'_, LruCache<Digest, ()>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `tidehold.v1.Layers` of one containerd.
struct LayersService {
    hold: Hold,
    begun: Begun,
    record: Record,
}

impl ContentService {
    /// What its containerd's helpers may ask about the reads that come in here.
    pub fn layers(&self) -> LayersServer<impl Layers + use<>> {
        let (hold, begun, record) = (self.hold.clone(), self.begun.clone(), self.record.clone());
        LayersServer::new(LayersService { hold, begun, record })
    }
}

#[tonic::async_trait]
impl Layers for LayersService {
    async fn reading(
        &self,
        request: Request<v1::ReadingRequest>,
    ) -> Result<Response<v1::ReadingResponse>, Status> {
        let v1::ReadingRequest { head } = request.into_inner();
        if head.is_empty() || head.len() > MOST_HEAD_BYTES {
            let length = head.len();
            return Err(Status::invalid_argument(format!(
                "the beginning of a layer has {length} bytes: send 1 to {MOST_HEAD_BYTES}"
            )));
        }
        let (hold, begun) = (self.hold.clone(), self.begun.latest_first());
        let read = head.len() as u64;
        let layers = blocking(move || beginning_with(&head, &hold, &begun)).await.map_err(failed)?;
        if let [layer] = layers.as_slice()
            && let (Ok(digest), Ok(size)) = (layer.digest.parse(), u64::try_from(layer.size))
        {
            // The rest of it is read past us.
            self.record.read(Front::Content, &digest, size.saturating_sub(read));
        }
        Ok(Response::new(v1::ReadingResponse { layers }))
    }
}

/// Those that are held and begin so; none where there are too many.
fn beginning_with(head: &[u8], hold: &Hold, begun: &[Digest]) -> Result<Vec<v1::HeldLayer>, StoreError> {
    let mut layers = Vec::new();
    for digest in begun {
        let Reading::Open(blob) = hold.read(digest)? else { continue };
        // One that cannot be read just now may be the one: then nobody knows.
        let Ok(own) = blob.read_at(0, head.len()) else { return Ok(Vec::new()) };
        if own == head {
            let path = hold.path_of(digest).to_string_lossy().into_owned();
            let size = i64::try_from(blob.size()).unwrap_or(i64::MAX);
            layers.push(v1::HeldLayer { digest: digest.to_string(), path, size });
        }
    }
    match layers.as_slice() {
        [layer] => {
            tracing::info!(digest = layer.digest, "a layer that is decompressed is read from its file")
        }
        others => {
            tracing::debug!(alike = others.len(), "it is not clear yet which layer is being decompressed");
        }
    }
    if layers.len() > MOST_NAMED {
        layers.clear();
    }
    Ok(layers)
}
