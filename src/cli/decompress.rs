//! `tidehold decompress`: what containerd 1.6 runs in the place of its own decompression.
//!
//! It is handed a compressed layer through its standard input and answers with the tar on its standard output. Which
//! layer that is, the daemon may know; then it is read from its file. Otherwise, and wherever anything is in doubt,
//! it is read from the input.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidehold::apply::piped::{Candidate, Source, decompress, source};
use tidehold::proto::v1;
use tidehold::proto::v1::layers_client::LayersClient;
use tokio::net::UnixStream;

use super::Failed;
use super::control::channel;

/// How long the daemon is waited for before the input is read.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What the output's pipe holds, in bytes: the decompression need not wait while the layer is being written.
const PIPE_BYTES: usize = 1 << 20;

#[derive(Args)]
pub(crate) struct Decompress {
    /// The content socket of the containerd that runs this
    #[arg(long, value_name = "PATH", default_value = "/run/tidehold/content.sock")]
    socket: PathBuf,
}

impl Decompress {
    pub(crate) fn run(self) -> Result<(), Failed> {
        // Past the standard library's own buffer, which cuts what is written at the ends of lines.
        let output = io::stdout().as_fd().try_clone_to_owned().context("write to the standard output")?;
        let (input, mut output) = (io::stdin().lock(), File::from(output));
        // Smaller where the system does not let us.
        let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES);
        let found = source(input, |head| candidates(&self.socket, head)).context("read the layer")?;
        let written = match found {
            Source::Held(file, path) => {
                decompress(file, &mut output).with_context(|| format!("decompress {}", path.display()))
            }
            Source::Piped(input) => decompress(input, &mut output).context("decompress the layer"),
        };
        Ok(written?)
    }
}

/// The layers that the daemon holds and that the input may be. None, where it cannot say: the input will do.
fn candidates(socket: &Path, head: &[u8]) -> Vec<Candidate> {
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asking = async {
                let channel = channel(UnixStream::connect(socket).await?).await?;
                let request = v1::ReadingRequest { head: head.to_vec().into() };
                Ok(LayersClient::new(channel).reading(request).await?.into_inner().layers)
            };
            tokio::time::timeout(ANSWERED_WITHIN, asking).await?
        })
    };
    let answered: anyhow::Result<Vec<v1::HeldLayer>> = asked();
    match answered {
        Ok(layers) => layers.into_iter().map(candidate).collect(),
        // Where this fails as a whole, containerd shows what stands here.
        Err(error) => {
            eprintln!("tidehold: {} was not asked which layer this is: {error}", socket.display());
            Vec::new()
        }
    }
}

fn candidate(layer: v1::HeldLayer) -> Candidate {
    Candidate { path: layer.path.into(), size: u64::try_from(layer.size).unwrap_or(0) }
}
