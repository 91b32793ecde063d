//! A client of the content service, as containerd's own: one message, one answer.

use std::path::Path;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// A connection to a content service, with a runtime of its own.
#[derive(Debug)]
pub(crate) struct Content {
    runtime: Runtime,
    client: ContentClient<Channel>,
}

impl Content {
    pub(crate) fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let channel = runtime.block_on(containerd_client::connect(socket)).expect("a socket that listens");
        Self { runtime, client: ContentClient::new(channel) }
    }

    /// Whether it has the blob.
    pub(crate) fn has(&mut self, digest: &str) -> bool {
        let request = spoken(api::InfoRequest { digest: digest.to_owned() });
        match self.runtime.block_on(self.client.info(request)) {
            Ok(_) => true,
            Err(status) if status.code() == Code::NotFound => false,
            Err(status) => panic!("info: {status}"),
        }
    }

    /// How many blobs it lists.
    pub(crate) fn count(&mut self) -> usize {
        self.runtime.block_on(async {
            let request = spoken(api::ListContentRequest::default());
            let mut listed = self.client.list(request).await.expect("a list").into_inner();
            let mut count = 0;
            while let Some(page) = listed.message().await.expect("a list") {
                count += page.info.len();
            }
            count
        })
    }

    /// Opens a writer on this ref for a blob of this size.
    pub(crate) fn write(&mut self, reference: &str, total: u64) -> Writer<'_> {
        let (sender, receiver) = mpsc::channel(1);
        let first = api::WriteContentRequest {
            action: api::WriteAction::Stat as i32,
            r#ref: reference.to_owned(),
            total: total.cast_signed(),
            ..Default::default()
        };
        let answers = self.runtime.block_on(async {
            sender.send(first).await.expect("a stream that was just made");
            let request = spoken(ReceiverStream::new(receiver));
            let mut answers = self.client.write(request).await?.into_inner();
            answers.message().await?;
            Ok::<_, Status>(answers)
        });
        let answers = answers.unwrap_or_else(|status| panic!("write: {status}"));
        Writer { runtime: &self.runtime, sender, answers, total, offset: 0 }
    }
}

/// A blob on its way in.
pub(crate) struct Writer<'a> {
    runtime: &'a Runtime,
    sender: mpsc::Sender<api::WriteContentRequest>,
    answers: Streaming<api::WriteContentResponse>,
    total: u64,
    offset: u64,
}

impl Writer<'_> {
    /// Sends a piece and waits until it was taken.
    pub(crate) fn piece(&mut self, data: Vec<u8>) {
        let length = data.len() as u64;
        let request = self.request(api::WriteAction::Write, data);
        self.say(request);
        self.offset += length;
    }

    /// Commits what was written.
    pub(crate) fn commit(mut self, digest: &str) {
        let mut request = self.request(api::WriteAction::Commit, Vec::new());
        request.expected = digest.to_owned();
        self.say(request);
    }

    fn request(&self, action: api::WriteAction, data: Vec<u8>) -> api::WriteContentRequest {
        api::WriteContentRequest {
            action: action as i32,
            total: self.total.cast_signed(),
            offset: self.offset.cast_signed(),
            data,
            ..Default::default()
        }
    }

    fn say(&mut self, request: api::WriteContentRequest) {
        let answer = self.runtime.block_on(async {
            self.sender.send(request).await.expect("a stream that is open");
            self.answers.message().await
        });
        answer.unwrap_or_else(|status| panic!("write: {status}")).expect("an answer to each message");
    }
}

/// containerd wants to know the namespace.
fn spoken<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "bench".parse().expect("plain text"));
    request
}
