//! The steps of a `Warm`, on their way to its client. What they add up to is kept beside.

use tokio::sync::mpsc;

use super::{cost, descriptor, duration, standing};
use crate::oci::Child;
use crate::proto::v1;
use crate::proto::v1::warm_response::{
    BlobDone, BlobProgress, BlobStarted, Finished, Planned, Resolved, Step, Summary,
};
use crate::resolve::{Cost, Served};

/// Where the steps of one reference go. With a slow client, sending waits.
pub(super) struct Steps {
    pub(super) reference: String,
    pub(super) queue: mpsc::Sender<v1::WarmResponse>,
}

impl Steps {
    pub(super) async fn send(&self, step: Step) {
        // The client's stream drives whoever sends: without it nobody gets here.
        let _ =
            self.queue.send(v1::WarmResponse { reference: self.reference.clone(), step: Some(step) }).await;
    }
}

pub(super) fn resolved(served: &Served) -> Step {
    Step::Resolved(Resolved {
        target: Some(descriptor(served)),
        standing: standing(served.standing).into(),
        age: Some(duration(served.age)),
    })
}

pub(super) fn planned(blobs: &[Child]) -> Step {
    let bytes = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    Step::Planned(Planned { blobs: blobs.len() as u64, bytes })
}

pub(super) fn started(blob: &Child) -> Step {
    Step::BlobStarted(BlobStarted { digest: blob.digest.to_string(), size: blob.size })
}

pub(super) fn progress(blob: &Child, received: u64) -> Step {
    Step::BlobProgress(BlobProgress { digest: blob.digest.to_string(), received, size: blob.size })
}

pub(super) fn done(blob: &Child, size: u64, fetched: bool) -> Step {
    Step::BlobDone(BlobDone { digest: blob.digest.to_string(), size, fetched })
}

/// What was taken and what was brought in, by one reference or by all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) cost: Cost,
    pub(super) fetched_bytes: u64,
    pub(super) held_bytes: u64,
}

impl Tally {
    pub(super) fn spend(&mut self, cost: Cost) {
        self.cost.requests = self.cost.requests.saturating_add(cost.requests);
        self.cost.counted = self.cost.counted.saturating_add(cost.counted);
    }

    pub(super) fn blob(&mut self, size: u64, fetched: bool) {
        let bytes = if fetched { &mut self.fetched_bytes } else { &mut self.held_bytes };
        *bytes = bytes.saturating_add(size);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.spend(other.cost);
        self.blob(other.fetched_bytes, true);
        self.blob(other.held_bytes, false);
    }

    pub(super) fn finished(self) -> Step {
        let Self { cost: spent, fetched_bytes, held_bytes } = self;
        Step::Finished(Finished { cost: Some(cost(spent)), fetched_bytes, held_bytes })
    }

    pub(super) fn summary(self, finished: u32, failed: u32) -> Step {
        let Self { cost: spent, fetched_bytes, held_bytes } = self;
        Step::Summary(Summary { finished, failed, cost: Some(cost(spent)), fetched_bytes, held_bytes })
    }
}
