//! The way to the daemon: which socket, and what is wrong where nobody answers.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use tidehold::app::HoldAlone;
use tidehold::proto::v1::hold_client::HoldClient;
use tidehold::proto::v1::resolver_client::ResolverClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use super::Failed;
use super::refused::{PATIENCE, Refused};

/// Which daemon is meant.
#[derive(Args)]
pub(super) struct Control {
    /// The daemon's control socket; without it, the one that the configuration names
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's configuration; without one, /etc/tidehold/config.toml where it is there, else the defaults
    #[arg(long, env = "TIDEHOLD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Control {
    /// Its resolver.
    pub(super) async fn connect(&self) -> Result<ResolverClient<Channel>, Failed> {
        Ok(ResolverClient::new(self.channel().await?))
    }

    /// Its hold.
    pub(super) async fn hold(&self) -> Result<HoldClient<Channel>, Failed> {
        Ok(HoldClient::new(self.channel().await?))
    }

    /// A connection to a daemon's hold without the daemon: it is opened for as long as this takes.
    pub(super) async fn alone(&self) -> Result<(Channel, HoldAlone), Failed> {
        let config = super::load(self.config.as_deref())?;
        let (data_dir, own) = (&config.data_dir, geteuid());
        // What another user made in it, the daemon could not use.
        if std::fs::metadata(data_dir).is_ok_and(|folder| folder.uid() != own.as_raw()) {
            return Err(anyhow!("{} is another user's: run this as that user", data_dir.display()).into());
        }
        let (alone, stream) = HoldAlone::open(&config).await.context("open the hold")?;
        Ok((channel(stream).await.context("talk to the hold")?, alone))
    }

    /// A connection to it.
    pub(super) async fn channel(&self) -> Result<Channel, Failed> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => super::load(self.config.as_deref())?.control.socket,
        };
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(error) => return Err(unanswered(&socket.display().to_string(), &error)),
        };
        let channel = channel(stream).await.with_context(|| format!("talk to {}", socket.display()))?;
        Ok(channel)
    }
}

/// gRPC over a connection.
pub(super) async fn channel(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    // One connection is all there is: where it ends, so does the command.
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
        std::future::ready(stream.map_err(io::Error::from))
    });
    // The name is never looked up; HTTP asks for one.
    Endpoint::from_static("http://tidehold.invalid").connect_with_connector(connector).await
}

fn unanswered(socket: &str, error: &io::Error) -> Failed {
    let (code, reason) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => (
            Code::Unavailable,
            format!(
                "nobody answers at {socket} ({error}): is `tidehold serve` running, and is this its control socket? \
                 Name another with --socket, or the daemon's configuration with --config"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            Code::PermissionDenied,
            format!(
                "{socket} is only for the daemon's own user ({error}): run this as that user, or as root (sudo)"
            ),
        ),
        _ => (Code::Unavailable, format!("connect to {socket}: {error}")),
    };
    Refused::unasked(code, reason).into()
}

/// A question that the daemon answers from what it knows: where it takes long over it, something is wrong with it.
pub(super) fn soon<T>(question: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(question);
    request.set_timeout(PATIENCE);
    request
}

/// The answer to a call.
pub(super) fn answered<T>(answer: Result<tonic::Response<T>, Status>) -> Result<T, Failed> {
    answer.map(tonic::Response::into_inner).map_err(|status| Refused::from(&status).into())
}
