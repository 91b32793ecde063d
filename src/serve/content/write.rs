//! `Write`: one stream of requests that fills one ingest.
//!
//! Every reply carries the offset and the digest so far. containerd needs the digest even where the commit then
//! says that the blob exists already.

use std::collections::HashMap;

use futures_util::stream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Status, Streaming};

use super::api::{WriteAction, WriteContentRequest, WriteContentResponse};
use super::handover::{HandOver, Whole};
use super::{ContentService, Replies, digest, failed};
use crate::clock;
use crate::oci::{Algorithm, Digest};
use crate::record::Latency;
use crate::store::{
    Announced, CommitError, Hold, Ingest, IngestStatus, Kept, OpenIngestError, Owner, StoreError, blocking,
};

impl ContentService {
    /// The session lives in the stream of replies: when the client goes away that is dropped, and the ref with
    /// it is free.
    pub(super) fn write_session(
        &self,
        requests: Streaming<WriteContentRequest>,
    ) -> Replies<WriteContentResponse> {
        let open = self.writers.token();
        let session = Session { service: self.clone(), requests, state: State::Opening, _open: open };
        Box::pin(stream::unfold(session, |mut session| async move {
            let reply = session.next().await?;
            Some((reply, session))
        }))
    }
}

struct Session {
    service: ContentService,
    requests: Streaming<WriteContentRequest>,
    state: State,
    _open: TaskTrackerToken,
}

enum State {
    /// The first request names the ref.
    Opening,
    Writing(Box<Writer>),
    /// Committed or failed: nothing more is read.
    Ended,
}

impl Session {
    async fn next(&mut self) -> Option<Result<WriteContentResponse, Status>> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        if matches!(state, State::Ended) {
            return None;
        }
        // A client that closes sends nothing more: the ingest is let go with the state. One that sent what cannot
        // be read, too large a message for one, is told.
        let request = match self.requests.message().await.transpose()? {
            Ok(request) => request,
            Err(status) => return Some(Err(status)),
        };
        let writer = match state {
            State::Opening => Writer::open(&self.service, &request).await,
            State::Writing(writer) => Ok(*writer),
            State::Ended => return None,
        };
        let (began, commits) = (clock::instant(), request.action == i32::from(WriteAction::Commit));
        let outcome = match writer {
            Ok(writer) => writer.handle(request).await,
            Err(status) => Err(status),
        };
        if commits {
            self.service.record.took(Latency::ContentCommit, clock::instant().duration_since(began));
        }
        Some(outcome.map(|(reply, state)| {
            self.state = state;
            reply
        }))
    }
}

/// An ingest and what the client said of it so far.
struct Writer {
    hold: Hold,
    owner: Owner,
    ingest: Ingest,
    announced: Announced,
    handover: Option<HandOver>,
    /// How often the status was asked for in this stream.
    stats: u32,
    /// The blob that was handed over, until bytes are written all the same.
    whole: Option<Whole>,
}

impl Writer {
    async fn open(service: &ContentService, request: &WriteContentRequest) -> Result<Self, Status> {
        if request.r#ref.is_empty() {
            return Err(Status::invalid_argument("the first message of a write must name a ref"));
        }
        let ingest =
            service.ingests.write(&request.r#ref, clock::now()).await.map_err(|error| match error {
                OpenIngestError::Busy(_) => Status::unavailable(error.to_string()),
                OpenIngestError::TooLong { .. } => Status::invalid_argument(error.to_string()),
                // Not unavailable: containerd would try again until somebody ends its pull.
                OpenIngestError::TooMany => Status::failed_precondition(error.to_string()),
                OpenIngestError::Store(error) => failed(error),
            })?;
        Ok(Self {
            hold: service.hold.clone(),
            owner: service.owner.clone(),
            ingest,
            announced: Announced::default(),
            handover: service.handover.clone(),
            stats: 0,
            whole: None,
        })
    }

    /// Does what a request asks and answers it. On an error the writer is gone, and with it the hold on its ref.
    async fn handle(
        mut self,
        mut request: WriteContentRequest,
    ) -> Result<(WriteContentResponse, State), Status> {
        let action = WriteAction::try_from(request.action)
            .map_err(|_| Status::invalid_argument(format!("{} is no write action", request.action)))?;
        if let (WriteAction::Commit, Some(whole)) = (action, &self.whole)
            && request.expected == whole.digest.as_str()
        {
            let whole = whole.clone();
            return self.commit_whole(whole, request.labels).await;
        }
        if !request.expected.is_empty() {
            let expected = digest(&request.expected)?;
            if action == WriteAction::Commit && self.wrote_something_else(&request, &expected) {
                return Err(self.give_up(&expected).await);
            }
            self = self.unless_held(&expected).await?;
            self.announced.digest = Some(expected);
        }
        if let Some(total) = u64::try_from(request.total).ok().filter(|total| *total > 0) {
            self.announced.size = Some(total);
            // A commit may be refused for its size, and then says nothing of the ingest that stays.
            if action != WriteAction::Commit {
                self.ingest.expect_total(total).map_err(failed)?;
            }
        }
        match action {
            WriteAction::Stat => {
                self.stats += 1;
                // The first comes under containerd's lock, the second does not.
                if let (2, Some(handover)) = (self.stats, &self.handover) {
                    self.whole = handover.bring_in(&self.ingest).await;
                    if let Some(whole) = &self.whole {
                        handover.tell_given(&whole.digest);
                    }
                }
                let reply = self.reply(action);
                Ok((reply, State::Writing(Box::new(self))))
            }
            WriteAction::Write => {
                self.whole = None;
                let writer = self.take(request).await?;
                let reply = writer.reply(action);
                Ok((reply, State::Writing(Box::new(writer))))
            }
            WriteAction::Commit => {
                self.announced.labels = std::mem::take(&mut request.labels);
                let writer = self.take(request).await?;
                let mut reply = writer.reply(action);
                reply.digest = writer.commit().await?.to_string();
                Ok((reply, State::Ended))
            }
        }
    }

    /// Whether all bytes are there and are not the blob. containerd takes *already exists* for a commit, and the last
    /// digest that it was told for the blob's: it must not hear the one while it has the other.
    fn wrote_something_else(&self, request: &WriteContentRequest, expected: &Digest) -> bool {
        let current = self.ingest.status().offset;
        let all_there =
            current > 0 && request.data.is_empty() && u64::try_from(request.offset) == Ok(current);
        all_there && expected.algorithm() == Algorithm::Sha256 && self.ingest.digest() != *expected
    }

    /// Refuses a commit of other bytes than the blob's. Where the blob is held they are of no use to anybody, and the
    /// next writer would go on with them: they are dropped.
    async fn give_up(self, expected: &Digest) -> Status {
        let actual = self.ingest.digest();
        let dropped = match self.hold.blob(expected) {
            Ok(Some(_)) => blocking(move || self.ingest.abort()).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match dropped {
            Ok(()) => Status::failed_precondition(format!(
                "unexpected digest: the bytes written have {actual}, not {expected}"
            )),
            Err(error) => failed(error),
        }
    }

    /// A blob that is held already is adopted, and the ingest is not needed.
    async fn unless_held(self, expected: &Digest) -> Result<Self, Status> {
        if self.hold.blob(expected).map_err(failed)?.is_none() {
            return Ok(self);
        }
        let digest = expected.clone();
        let adopted = blocking(move || -> Result<Option<Self>, StoreError> {
            match self.hold.adopt(&self.owner, &digest, clock::now())? {
                Some(_) => self.ingest.abort().map(|()| None),
                // It was cache, and has been removed meanwhile.
                None => Ok(Some(self)),
            }
        });
        match adopted.await.map_err(failed)? {
            None => Err(Status::already_exists(format!("content {expected}: already exists"))),
            Some(writer) => Ok(writer),
        }
    }

    /// Puts the request's bytes at its offset, which is the end, or the beginning: then what was there goes.
    async fn take(mut self, request: WriteContentRequest) -> Result<Self, Status> {
        let current = self.ingest.status().offset;
        if request.offset != 0 && u64::try_from(request.offset) != Ok(current) {
            return Err(Status::out_of_range(format!(
                "a write at {} where the next byte is {current}",
                request.offset
            )));
        }
        let restarts = request.offset == 0 && current > 0;
        if !restarts && request.data.is_empty() {
            return Ok(self);
        }
        let written = blocking(move || -> Result<Self, StoreError> {
            let now = clock::now();
            if restarts {
                self.ingest.clear(now)?;
            }
            self.ingest.write(&request.data, now)?;
            Ok(self)
        });
        written.await.map_err(failed)
    }

    async fn commit(self) -> Result<Digest, Status> {
        let Self { ingest, announced, .. } = self;
        let kept = blocking(move || ingest.commit(announced, clock::now())).await;
        match kept {
            Ok(Kept::New(blob)) => Ok(blob.digest),
            Ok(Kept::Already(blob)) => {
                Err(Status::already_exists(format!("content {}: already exists", blob.digest)))
            }
            Err(error @ (CommitError::Size { .. } | CommitError::Digest { .. })) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error @ CommitError::NoRoom) => Err(Status::resource_exhausted(error.to_string())),
            Err(CommitError::Store(error)) => Err(failed(error)),
        }
    }

    /// Adopts the blob that was handed over; the ingest has done its part.
    async fn commit_whole(
        self,
        whole: Whole,
        labels: HashMap<String, String>,
    ) -> Result<(WriteContentResponse, State), Status> {
        let Self { hold, owner, ingest, .. } = self;
        let reply = reply(WriteAction::Commit, ingest.status(), whole.size, &whole.digest);
        let adopted = blocking(move || -> Result<(), StoreError> {
            hold.adopt(&owner, &whole.digest, clock::now())?;
            if !labels.is_empty() {
                hold.relabel(&owner, &whole.digest, clock::now(), |held| held.extend(labels))?;
            }
            ingest.abort()
        });
        adopted.await.map_err(failed)?;
        Ok((reply, State::Ended))
    }

    fn reply(&self, action: WriteAction) -> WriteContentResponse {
        let status = self.ingest.status();
        match &self.whole {
            Some(whole) => reply(action, status, whole.size, &whole.digest),
            None => reply(action, status, status.offset, &self.ingest.digest()),
        }
    }
}

fn reply(action: WriteAction, status: &IngestStatus, offset: u64, digest: &Digest) -> WriteContentResponse {
    WriteContentResponse {
        action: action.into(),
        started_at: Some(status.started_at.into()),
        updated_at: Some(status.updated_at.into()),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        total: i64::try_from(status.total).unwrap_or(i64::MAX),
        digest: digest.to_string(),
    }
}
