//! The containerd of a node: what its files come to, and what it says of itself where it runs.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use containerd_client::services::v1::version_client::VersionClient;
use tidehold::node::containerd::{CONFIG, File, Settings, Version};
use tidehold::node::files::{absent, any_configuration, configuration, seen};
use tidehold::node::journal::Swap;
use tidehold::node::unit::{self, Flags};

use super::super::plugins::{self, BUILTIN};
use super::super::{Failed, process, relied};
use super::Setup;

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often one that was restarted is asked for its store, and how long between two times.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// A containerd that answers.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) version: Option<Version>,
    /// Where its builtin content store is, if that is in use.
    pub(super) store: Option<PathBuf>,
    /// Where it keeps things, as far as its plugins tell.
    pub(super) root: Option<PathBuf>,
    /// Its content stores that are proxies: their names, and their addresses where it tells them.
    pub(super) proxies: Vec<(String, String)>,
    /// When it was started, where its process can be seen.
    pub(super) started: Option<SystemTime>,
    /// What it was started with in its environment, where its process can be seen.
    pub(super) environment: Option<Vec<(String, String)>>,
}

/// Which content store a containerd has at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its own.
    Own,
    /// None of its own.
    OnHold,
    /// None, as it does not run: it will have the one that its files say.
    Stopped,
    /// It does not say.
    Silent,
}

/// Asks the one at a socket.
pub(super) fn state(socket: &Path) -> Result<State, Failed> {
    match UnixStream::connect(socket) {
        Ok(_) => {}
        Err(error) if absent(&error) || error.kind() == io::ErrorKind::ConnectionRefused => {
            return Ok(State::Stopped);
        }
        Err(_) => return Ok(State::Silent),
    }
    Ok(match ask(socket)? {
        Some(running) if running.store.is_some() => State::Own,
        Some(_) => State::OnHold,
        None => State::Silent,
    })
}

/// What is known of the node's containerd.
pub(super) struct Found {
    /// All files of its configuration, in order.
    pub(super) files: Vec<File>,
    /// What they come to, as this version reads them where it is known.
    pub(super) settings: Settings,
    /// What it says, where it answers.
    pub(super) running: Option<Running>,
    /// What its unit tells it beside them.
    pub(super) flags: Option<Flags>,
}

/// Reads its files and asks it.
pub(super) fn found(setup: &Setup) -> Result<Found, Failed> {
    let main = &setup.containerd_config;
    let flags = flags(setup)?;
    if let Some(other) = flags.as_ref().and_then(|flags| flags.config.as_ref()).filter(|other| *other != main)
    {
        return Err(anyhow!(
            "containerd.service reads {}: say so with --containerd-config {}; nothing was changed",
            other.display(),
            other.display()
        )
        .into());
    }
    let files = configuration(&setup.root, main).with_context(|| format!("read {}", main.display()))?;
    let mut settings = Settings::read(&files, None).map_err(anyhow::Error::from)?;
    tell(setup, &mut settings, flags.as_ref());
    let running = ask_if_there(setup, &settings)?;
    Ok(Found { files, settings, running, flags })
}

/// The same of the one that its unit starts, whatever is wrong with its files: nobody can be told by it what to write there,
/// but whether something stands there.
pub(super) fn found_anyway(setup: &Setup) -> Result<Found, Failed> {
    let flags = flags(setup)?;
    let main = flags.as_ref().and_then(|flags| flags.config.as_ref()).unwrap_or(&setup.containerd_config);
    let files = any_configuration(&setup.root, main).with_context(|| format!("read {}", main.display()))?;
    // One that cannot read them does not start, and keeps things where it was told before, or where they usually are.
    let mut settings = Settings::read(&files, None).unwrap_or_default();
    tell(setup, &mut settings, flags.as_ref());
    let running = ask_if_there(setup, &settings)?;
    Ok(Found { files, settings, running, flags })
}

/// Those of its unit, which is that of the usual one.
fn flags(setup: &Setup) -> Result<Option<Flags>, Failed> {
    match setup.containerd_config == Path::new(CONFIG) {
        true => Ok(unit::flags(&setup.root).context("read containerd's unit")?),
        false => Ok(None),
    }
}

fn ask_if_there(setup: &Setup, settings: &Settings) -> Result<Option<Running>, Failed> {
    let socket = seen(&setup.root, &settings.socket);
    if socket.exists() { ask(&socket) } else { Ok(None) }
}

/// Adds what is stronger than the files.
pub(super) fn tell(setup: &Setup, settings: &mut Settings, flags: Option<&Flags>) {
    if let Some(root) = setup.containerd_root.as_ref().or(flags.and_then(|flags| flags.root.as_ref())) {
        settings.root.clone_from(root);
    }
    if let Some(socket) = flags.and_then(|flags| flags.socket.as_ref()) {
        settings.socket.clone_from(socket);
    }
}

/// Asks the one at a socket. None where nobody answers in time.
pub(super) fn ask(socket: &Path) -> Result<Option<Running>, Failed> {
    let asked =
        super::super::runtime()?.block_on(async { tokio::time::timeout(PATIENCE, look(socket)).await });
    Ok(asked.ok().and_then(Result::ok))
}

async fn look(socket: &Path) -> anyhow::Result<Running> {
    let channel = containerd_client::connect(socket).await?;
    let version = VersionClient::new(channel.clone()).version(()).await?.into_inner();
    let plugins = plugins::plugins(channel).await?;
    let builtin = plugins::stores(&plugins).find(|store| store.id == BUILTIN);
    let store = builtin.and_then(|plugin| plugin.exports.get("root")).map(PathBuf::from);
    let root = plugins::root(&plugins);
    let proxies = plugins::stores(&plugins).filter(|store| store.id != BUILTIN);
    let proxies =
        proxies.map(|plugin| (plugin.id.clone(), plugin.exports.get("address").cloned().unwrap_or_default()));
    let proxies = proxies.collect();
    let peer = tokio::net::UnixStream::connect(socket).await?.peer_cred()?;
    let process = peer.pid().and_then(process::containerd);
    let started = process.as_ref().and_then(|process| process.started);
    let environment = process.map(|process| process.environment);
    Ok(Running { version: Version::parse(&version.version), store, root, proxies, started, environment })
}

/// How many of these blobs the containerd at a socket relies on, by its own database.
pub(super) fn relied_on(socket: &Path, digests: &[String]) -> Result<usize, Failed> {
    Ok(super::super::runtime()?.block_on(relied::on(socket, digests))?)
}

/// How many of these blobs in a content store that is not in use any more the containerd at a socket relies on, which has the
/// hold in its place.
pub(super) fn left_behind(setup: &Setup, swap: &Swap) -> Result<usize, Failed> {
    Ok(super::super::runtime()?.block_on(relied::left_behind(&setup.root, swap))?)
}

/// Which store the one at a socket has once it has come up: what restarts it may go on by itself.
pub(super) fn settled(socket: &Path) -> Result<State, Failed> {
    for _ in 0..TRIES {
        if state(socket)? == State::OnHold {
            return Ok(State::OnHold);
        }
        std::thread::sleep(PAUSE);
    }
    state(socket)
}
