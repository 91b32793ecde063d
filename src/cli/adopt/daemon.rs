//! The hold's side: the daemon, or where there is none the hold itself, opened for as long as this takes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use tidehold::app::HoldAlone;
use tidehold::oci::{Digest, Repository};
use tidehold::proto::v1;
use tidehold::proto::v1::adoption_client::AdoptionClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::super::Failed;
use super::super::control::{Control, soon};
use super::super::refused::said;

/// How many digests are asked for at a time.
const ASKED_AT_ONCE: usize = 1000;

pub(super) struct Daemon {
    client: AdoptionClient<Channel>,
    alone: Option<HoldAlone>,
    /// The containerd's name.
    pub(super) containerd: String,
    /// The hold's folder, as it is seen from here.
    pub(super) data_dir: PathBuf,
}

/// A call that takes over what is put into its place.
pub(super) struct TakingOver {
    /// The folder to put files into, and what their names begin with.
    pub(super) begin: PathBuf,
    pub(super) prefix: String,
    pub(super) requests: mpsc::Sender<v1::TakeOverRequest>,
    pub(super) answers: Streaming<v1::TakeOverResponse>,
}

impl Daemon {
    pub(super) async fn connect(
        control: &Control,
        containerd: String,
        data_dir: Option<&Path>,
        offline: bool,
    ) -> Result<Self, Failed> {
        let (channel, alone) = match offline {
            true => control.alone().await.map(|(channel, alone)| (channel, Some(alone)))?,
            false => (control.channel().await?, None),
        };
        let mut client = AdoptionClient::new(channel);
        let request = v1::LookRequest { containerd, digests: Vec::new() };
        let looked = client.look(soon(request)).await.map_err(|status| refused(&status))?.into_inner();
        let seen = data_dir.map_or_else(|| PathBuf::from(&looked.data_dir), Path::to_owned);
        is_the_same(&seen, &looked)?;
        Ok(Self { client, alone, containerd: looked.containerd, data_dir: seen })
    }

    /// What the hold has of these, in their order.
    pub(super) async fn look(&mut self, digests: Vec<String>) -> Result<Vec<v1::Known>, Failed> {
        let mut known = Vec::with_capacity(digests.len());
        for some in digests.chunks(ASKED_AT_ONCE) {
            let request = v1::LookRequest { containerd: self.containerd.clone(), digests: some.to_vec() };
            let looked = self.client.look(request).await.map_err(|status| refused(&status))?.into_inner();
            known.extend(looked.known().take(some.len()));
        }
        Ok(known)
    }

    pub(super) async fn take_over(&mut self) -> Result<TakingOver, Failed> {
        // One that waits, so that the next is linked while others are hashed.
        let (requests, sent) = mpsc::channel(1);
        let begin = v1::TakeOverRequest { containerd: self.containerd.clone(), digests: Vec::new() };
        // There is room for one.
        let _ = requests.send(begin).await;
        let call = self.client.take_over(ReceiverStream::new(sent)).await;
        let mut answers = call.map_err(|status| refused(&status))?.into_inner();
        match answers.message().await.map_err(|status| refused(&status))?.and_then(|first| first.answer) {
            Some(v1::take_over_response::Answer::Place(place)) => {
                let begin = self.data_dir.join(place.folder);
                Ok(TakingOver { begin, prefix: place.prefix, requests, answers })
            }
            _ => {
                Err(anyhow!("the daemon does not say where files are to be put: is it of this version?")
                    .into())
            }
        }
    }

    /// All that the containerd relies on.
    pub(super) async fn relied_on(&mut self) -> Result<Vec<v1::ReliedOnBlob>, Failed> {
        let request = v1::ReliedOnRequest { containerd: self.containerd.clone() };
        let pages = self.client.relied_on(request).await.map_err(|status| refused(&status))?;
        let (mut pages, mut blobs) = (pages.into_inner(), Vec::new());
        while let Some(page) = pages.message().await.map_err(|status| refused(&status))? {
            blobs.extend(page.blobs);
        }
        Ok(blobs)
    }

    /// Has it note that these came from a repository, and answers of how many that is news.
    pub(super) async fn note_source(
        &mut self,
        repository: &Repository,
        digests: &[Digest],
    ) -> Result<u64, Failed> {
        let mut noted = 0;
        for some in digests.chunks(ASKED_AT_ONCE) {
            let request = v1::NoteSourceRequest {
                containerd: self.containerd.clone(),
                repository: repository.to_string(),
                digests: some.iter().map(Digest::to_string).collect(),
            };
            let answer = self.client.note_source(request).await.map_err(|status| match status.code() {
                Code::Unimplemented => anyhow!(
                    "the daemon is of an earlier version than this command: restart it, and run this again to have it note \
                     where the blobs came from. All else was done"
                )
                .into(),
                _ => refused(&status),
            });
            noted += answer?.into_inner().noted;
        }
        Ok(noted)
    }

    pub(super) async fn release(&mut self, digests: &[String]) -> Result<u64, Failed> {
        let mut released = 0;
        for some in digests.chunks(ASKED_AT_ONCE) {
            let request = v1::ReleaseRequest { containerd: self.containerd.clone(), digests: some.to_vec() };
            released +=
                self.client.release(request).await.map_err(|status| refused(&status))?.into_inner().released;
        }
        Ok(released)
    }

    /// Has it keep the word that all was taken over from a root.
    pub(super) async fn note(&mut self, root: &Path, at: SystemTime, blobs: u64) -> Result<(), Failed> {
        let root = root.display().to_string();
        self.keep(Some(v1::AdoptedFrom { root, at: Some(at.into()), blobs })).await
    }

    /// Has it take that word back.
    pub(super) async fn forget(&mut self) -> Result<(), Failed> {
        self.keep(None).await
    }

    async fn keep(&mut self, adopted_from: Option<v1::AdoptedFrom>) -> Result<(), Failed> {
        let request = v1::NoteRequest { containerd: self.containerd.clone(), adopted_from };
        self.client.note(request).await.map_err(|status| refused(&status))?;
        Ok(())
    }

    pub(super) async fn close(self) -> Result<(), Failed> {
        let Self { client, alone, .. } = self;
        drop(client);
        match alone {
            Some(alone) => Ok(alone.close().await.context("close the hold")?),
            None => Ok(()),
        }
    }
}

impl TakingOver {
    /// Where the file of a blob is to be put.
    pub(super) fn place_of(&self, digest: &str) -> PathBuf {
        Self::place(&self.begin, &self.prefix, digest)
    }

    pub(super) fn place(begin: &Path, prefix: &str, digest: &str) -> PathBuf {
        begin.join(format!("{prefix}{}", digest.replacen(':', "-", 1)))
    }
}

/// What is put into another folder of that name would be looked for in vain.
fn is_the_same(seen: &Path, looked: &v1::LookResponse) -> Result<(), Failed> {
    let metadata = std::fs::metadata(seen);
    match metadata.map(|folder| (folder.dev(), folder.ino())) {
        Ok(found) if found == (looked.device, looked.inode) => Ok(()),
        Ok(_) => Err(anyhow!(
            "{} is another folder here than for the daemon, which has its hold there: run this where the daemon runs, in \
             its container for instance, or say with --data-dir where its folder is here",
            seen.display()
        )
        .into()),
        Err(error) => Err(anyhow!(
            "the daemon's hold in {} cannot be looked at from here ({error}): run this as root where the daemon runs, or \
             say with --data-dir where its folder is here",
            seen.display()
        )
        .into()),
    }
}

/// What the daemon refused, as this command ends with it.
pub(super) fn refused(status: &Status) -> Failed {
    match status.code() {
        Code::InvalidArgument => Failed::Usage(format!("tidehold: --containerd: {}", said(status))),
        Code::Internal | Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
            anyhow!("{}. What was done until then stays: run this again to go on", said(status)).into()
        }
        _ => anyhow!(said(status)).into(),
    }
}
