//! The composition: a configuration becomes parts, parts become listeners, and at the end everything drains.

mod disk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::clock;
use crate::config::{Config, Registry};
use crate::evict::{Keeper, Limits};
use crate::record::Record;
use crate::resolve::{Access, Ages, Fetch, Freshness, Resolver};
use crate::serve::beside::{Beside, SocketPath, TRY_EVERY};
use crate::serve::content::{self, Calls, ContentService, Pending};
use crate::serve::control::{self, AdoptionService, ControlService, HoldService};
use crate::serve::differ::DifferService;
use crate::serve::listen::{ListenError, Listeners, Socket, SocketFile};
use crate::serve::overview::{Facts, Overview, Places};
use crate::serve::web::{self, Phase};
use crate::serve::{http, mirror};
use crate::store::{Hold, Owner, Recovered, StoreError, blocking};
use crate::upstream::{Listed, Settings, SettingsError, Timeouts, Upstreams};
use disk::{lost_until_the_disk_is_well, mind_the_disk};

pub use crate::serve::mirror::GIVEN_AGAIN;

/// How long what runs may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

/// How long after a call of a pull its next one comes at the latest, and how long it is waited for that at most.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_WITHIN: Duration = Duration::from_secs(20);

/// A daemon that is listening.
pub struct App {
    /// The hold, its keeper and the resolver over it, with what is told of them.
    overview: Overview,
    mirror: Beside<SocketAddr>,
    control: Beside<SocketPath>,
    /// What is answered at the control socket.
    operator: Routes,
    /// What the web listener, which serves already, says that we are at.
    phase: watch::Sender<Phase>,
    /// The content listeners serve already.
    servers: TaskTracker,
    /// The streams of writes of each containerd, and all that they call.
    writers: Vec<TaskTracker>,
    calls: Calls,
    stop: CancellationToken,
}

impl App {
    /// Takes the listeners and makes the parts. Clients can connect as soon as the first is done, and wait for the
    /// second. A listener beside the content sockets may come later.
    ///
    /// # Errors
    /// When a content socket cannot be had, or a part cannot be made.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let record = Record::new(clock::now());
        let listed = config.registries.listed.keys().map(String::as_str);
        record.name(listed.chain([crate::config::DOCKER_HUB]));
        let upstreams = Upstreams::new(upstream_settings(&config)?, record.clone())?;
        // Sockets first: a second daemon finds out before it touches the first one's hold.
        let mut listeners = Listeners::from_environment();
        let sockets = config.containerds.iter().map(|containerd| containerd.socket.as_path());
        let known: Vec<_> = sockets.chain([config.control.socket.as_path()]).collect();
        listeners.close_unknown(&known, &[config.mirror.listen, config.web.listen]);
        let mut sockets = Vec::new();
        for containerd in &config.containerds {
            sockets.push(listeners.unix(&containerd.socket).await?);
        }
        let (mirror, control, web) = beside(&mut listeners, &config).await;
        let places = Places { mirror: mirror.place(), control: control.place(), web: web.place() };
        let (servers, calls, stop) = (TaskTracker::new(), Calls::default(), CancellationToken::new());
        let (phase, phases) = watch::channel(Phase::Opening);
        servers.spawn(serve_web(web, phases, stop.clone()));
        let mut openings = Vec::new();
        for socket in sockets {
            let (opened, opening) = oneshot::channel();
            servers.spawn(serve_content(socket, opening, calls.clone(), stop.clone()));
            openings.push(opened);
        }
        let data_dir = config.data_dir.clone();
        let (hold, recovered) = blocking(move || Hold::open(&data_dir, clock::now())).await?;
        report(&config, &recovered);
        let (kept, folder) = (record.clone(), config.data_dir.join("record"));
        blocking(move || kept.keep_in(&folder)).await;
        let (ages, fetch) = (freshness(&config), fetch(&config));
        let resolver = Resolver::new(hold.clone(), upstreams, ages, access(&config)?, fetch, record);
        let keeper = Keeper::new(hold.clone(), limits(&config, &hold)?);
        let mut writers = Vec::new();
        let differ = DifferService::new(hold.clone(), resolver.record().clone());
        for (containerd, opened) in config.containerds.iter().zip(openings) {
            let (hold, resolver) = (hold.clone(), resolver.clone());
            let (owner, handover) = (Owner::new(&containerd.name), containerd.handover);
            let service = blocking(move || ContentService::open(hold, owner, resolver, handover)).await?;
            writers.push(service.writers());
            // Its server ends only with us.
            let _ = opened.send((service, differ.clone()));
        }
        let overview = Overview::new(resolver.clone(), keeper, facts(&config, places));
        let operator = Routes::default()
            .add_service(ControlService::new(resolver.clone(), stop.clone()).into_server())
            .add_service(HoldService::new(overview.clone(), stop.clone()).into_server())
            .add_service(adoption(&config, &hold, &stop).into_server());
        Ok(Self { overview, mirror, control, operator, phase, servers, writers, calls, stop })
    }

    /// Serves until SIGTERM or SIGINT, then lets what runs end. Ends as well, to be started anew, where the index
    /// could not be written and the disk has got well since.
    ///
    /// # Errors
    /// When the signals cannot be had, the hold cannot be brought to the disk at the end, or the index was lost.
    pub async fn run(self) -> Result<(), RunError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let Self { overview, mirror, control, operator, phase, servers, writers, calls, stop } = self;
        let (hold, resolver) = (overview.hold().clone(), overview.resolver().clone());
        servers.spawn(serve_mirror(mirror, resolver.clone(), stop.clone()));
        servers.spawn(serve_control(control, operator, stop.clone()));
        servers.close();
        let sweeping = tokio::task::spawn_blocking({
            let (hold, stop) = (hold.clone(), stop.clone());
            move || sweep(&hold, &stop)
        });
        servers.spawn(mind_the_disk(hold.clone(), stop.clone()));
        let evicting = tokio::spawn(overview.keeper().clone().watch(stop.clone()));
        phase.send_replace(Phase::Serving(overview.clone()));
        notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!("ready");

        let mut lost = false;
        let index_lost = lost_until_the_disk_is_well(&hold);
        tokio::pin!(index_lost);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = &mut index_lost => {
                    lost = true;
                    break;
                }
                _ = hangup.recv() => {
                    tracing::warn!("the configuration is read at the start only: restart to apply a change");
                }
            }
        }
        tracing::info!("stopping: what runs may end");
        phase.send_replace(Phase::Stopping(overview));
        notify(&[sd_notify::NotifyState::Stopping]);
        if !lost {
            // Most of what is to be flushed, while everybody is still served.
            let hold = hold.clone();
            blocking(move || hold.flush()).await?;
        }
        let drained = tokio::time::timeout(DRAIN, async {
            // Whoever writes may yet have to ask the mirror, and containerd fails what waits for a second at its
            // store: until the pulls that run are done, both go on listening.
            let pulling = calls.are_running() || writers.iter().any(|writers| !writers.is_empty());
            for writers in &writers {
                writers.close();
                writers.wait().await;
            }
            if pulling {
                // What was written last is unpacked after that, a layer after the other. Where it never gets quiet, it is
                // somebody else who calls.
                let _ = tokio::time::timeout(QUIET_WITHIN, calls.quiet_for(QUIET)).await;
            }
            stop.cancel();
            servers.wait().await;
            resolver.drain().await;
        });
        if drained.await.is_err() {
            stop.cancel();
            tracing::warn!(seconds = DRAIN.as_secs(), "some requests did not end in time and are cut off");
        }
        if lost {
            return Err(RunError::IndexLost);
        }
        let _ = sweeping.await;
        let _ = evicting.await;
        let (last, record) = (hold.clone(), resolver.record().clone());
        blocking(move || {
            record.close();
            last.close(clock::now())
        })
        .await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// What containerd speaks to on its socket.
type Fronts = (ContentService, DifferService);

async fn serve_content(
    socket: Socket,
    opening: oneshot::Receiver<Fronts>,
    calls: Calls,
    stop: CancellationToken,
) {
    let Socket { listener, file } = socket;
    let opened = async { opening.await.ok() }.boxed().shared();
    let differ = opened.clone().map(|fronts| fronts.map(|(_, differ)| differ.into_server()));
    let layers = opened.clone().map(|fronts| fronts.map(|(content, _)| content.layers()));
    let beside = Routes::default().add_service(Pending::new(differ)).add_service(Pending::new(layers));
    let content = opened.map(|fronts| fronts.map(|(content, _)| content));
    content::serve(listener, content, beside, calls, stopped(stop, file)).await;
}

/// The listeners that containerd can do without for a while.
async fn beside(
    listeners: &mut Listeners,
    config: &Config,
) -> (Beside<SocketAddr>, Beside<SocketPath>, Beside<SocketAddr>) {
    let (mirror, web) = (config.mirror.listen, config.web.listen);
    let control = SocketPath(config.control.socket.clone());
    let had = listeners.tcp(mirror).await;
    let without = "there is no mirror: who asks for images goes on to the registries";
    let mirror = Beside::new("mirror", mirror, had, without);
    let had = listeners.unix(&control.0).await;
    let without = "there is no control socket, so no command can ask this daemon anything";
    let control = Beside::new("control", control, had, without);
    let had = listeners.tcp(web).await;
    let web = Beside::new("web", web, had, "there is no status page and there are no metrics");
    (mirror, control, web)
}

async fn serve_mirror(mirror: Beside<SocketAddr>, resolver: Resolver, stop: CancellationToken) {
    if let Some(listener) = mirror.had(TRY_EVERY, &stop).await {
        let answer = move |request| mirror::answer(resolver.clone(), request);
        http::serve(listener, answer, stop).await;
    }
}

async fn serve_web(web: Beside<SocketAddr>, phases: watch::Receiver<Phase>, stop: CancellationToken) {
    if let Some(listener) = web.had(TRY_EVERY, &stop).await {
        web::serve(listener, phases, stop).await;
    }
}

async fn serve_control(control: Beside<SocketPath>, operator: Routes, stop: CancellationToken) {
    let Some(Socket { listener, file }) = control.had(TRY_EVERY, &stop).await else { return };
    let served = control::server()
        .add_routes(operator)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped(stop, file));
    ended("control", served.await);
}

fn adoption(config: &Config, hold: &Hold, stop: &CancellationToken) -> AdoptionService {
    let names = config.containerds.iter().map(|containerd| containerd.name.clone());
    AdoptionService::new(hold.clone(), names, stop.clone())
}

/// The hold alone, for a command that works on it while no daemon does: it is locked until this is closed.
pub struct HoldAlone {
    hold: Hold,
    serving: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl HoldAlone {
    /// Opens it, and answers with a connection on which it is served as `tidehold.v1.Adoption`.
    ///
    /// # Errors
    /// When it cannot be used, or a daemon has it.
    pub async fn open(config: &Config) -> Result<(Self, UnixStream), BuildError> {
        let data_dir = config.data_dir.clone();
        let (hold, recovered) = blocking(move || Hold::open(&data_dir, clock::now())).await?;
        report(config, &recovered);
        let stop = CancellationToken::new();
        let (own, others) = UnixStream::pair().map_err(BuildError::Connection)?;
        let adoption = adoption(config, &hold, &stop);
        let (incoming, stopped) = (futures_util::stream::iter([Ok::<_, std::io::Error>(own)]), stop.clone());
        let serving = tokio::spawn(async move {
            // The one connection is all that comes; it is served until the end.
            let incoming = incoming.chain(futures_util::stream::pending());
            let server = control::server().add_service(adoption.into_server());
            ended("alone", server.serve_with_incoming_shutdown(incoming, stopped.cancelled_owned()).await);
        });
        Ok((Self { hold, serving, stop }, others))
    }

    /// Brings everything to the disk. Whoever has the connection has dropped it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn close(self) -> Result<(), StoreError> {
        let Self { hold, serving, stop } = self;
        stop.cancel();
        let _ = serving.await;
        blocking(move || hold.close(clock::now())).await
    }
}

/// The end of listening on a unix socket.
async fn stopped(stop: CancellationToken, file: Option<SocketFile>) {
    stop.cancelled().await;
    // Before the drain: whoever connects now is for the next daemon.
    drop(file);
}

fn ended<E: std::fmt::Display>(listener: &str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        tracing::error!(listener, %error, "a listener failed");
    }
}

/// Tells systemd, where it started us.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

fn report(config: &Config, recovered: &Recovered) {
    let data_dir = config.data_dir.display();
    tracing::info!(%data_dir, adoptions = recovered.adoptions, "opened the hold");
    if recovered.put_right() {
        tracing::warn!(?recovered, "the hold was not as it was left: it has been put right");
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Looks for what a crash or somebody else may have left in the hold, while everybody is served.
fn sweep(hold: &Hold, stop: &CancellationToken) {
    match hold.sweep(clock::now(), || !stop.is_cancelled()) {
        Ok(swept) if swept.put_right() => {
            tracing::warn!(?swept, "some files were not what the index says: that has been put right");
        }
        Ok(swept) => tracing::debug!(?swept, "looked through the hold"),
        Err(error) => tracing::warn!(%error, "could not look through the hold: the next start tries again"),
    }
}

fn upstream_settings(config: &Config) -> Result<Settings, BuildError> {
    let mut listed = BTreeMap::new();
    for (name, registry) in &config.registries.listed {
        let name = name.parse().map_err(BuildError::Registry)?;
        let Registry { upstreams, credentials, .. } = registry.clone();
        listed.insert(name, Listed { urls: upstreams, credentials });
    }
    let (allow_any, bandwidth) = (config.registries.allow_any, config.fetch.bandwidth);
    Ok(Settings { allow_any, listed, timeouts: Timeouts::default(), bandwidth })
}

fn access(config: &Config) -> Result<Access, BuildError> {
    let crate::config::Access { fresh_for, stale_for } = config.access;
    let shared = config.registries.listed.iter().filter(|(_, registry)| registry.share_private);
    let shared = shared.map(|(name, _)| name.parse().map_err(BuildError::Registry));
    let ages = crate::access::Ages { fresh_for, stale_for };
    Ok(Access { ages, shared: shared.collect::<Result<_, _>>()? })
}

/// How much may be cached. A share of the disk is of its size at the start.
fn limits(config: &Config, hold: &Hold) -> Result<Limits, StoreError> {
    let reserve_bytes = config.cache.reserve_free.bytes_of(hold.disk_space()?.total_bytes);
    Ok(Limits { max_cached_bytes: config.cache.max_size_bytes, reserve_bytes })
}

fn facts(config: &Config, places: Places) -> Facts {
    let containerd = |containerd: &crate::config::Containerd| {
        (containerd.name.clone(), containerd.socket.display().to_string())
    };
    Facts {
        data_dir: config.data_dir.clone(),
        containerds: config.containerds.iter().map(containerd).collect(),
        places,
        unused_proxy: unused_proxy(),
    }
}

/// The proxy that our own environment names.
fn unused_proxy() -> Option<String> {
    let own: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let own = own.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let proxy = crate::config::Proxy::named_by(own)?.to_string();
    tracing::warn!(proxy, "a proxy is set, and is not used: registries are asked directly");
    Some(proxy)
}

fn fetch(config: &Config) -> Fetch {
    let crate::config::Fetch { ahead, parallel, connections, .. } = config.fetch;
    Fetch { ahead, parallel, connections }
}

fn freshness(config: &Config) -> Freshness {
    let ages = |ages: crate::config::Ages| Ages { fresh_for: ages.fresh_for, stale_for: ages.stale_for };
    Freshness {
        default: ages(config.tags.default),
        rules: config.tags.rules.iter().map(|rule| (rule.pattern.clone(), ages(rule.ages))).collect(),
    }
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A content socket could not be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The hold could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An upstream cannot be what it is configured as.
    #[error(transparent)]
    Upstream(#[from] SettingsError),
    /// A registry's name is not one.
    #[error(transparent)]
    Registry(crate::oci::NameError),
    /// A connection within this process could not be had.
    #[error("connect to myself: {0}")]
    Connection(std::io::Error),
}

/// Why the daemon did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The signals could not be had.
    #[error("signals: {0}")]
    Signals(#[from] std::io::Error),
    /// The hold could not be brought to the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index had failed and has to be opened anew.
    #[error("the index could not be written and has to be opened anew: start tidehold again")]
    IndexLost,
}
