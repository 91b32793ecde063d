//! The stand-in as its users hold it: started, asked, steered, dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::config::{HubConfig, Private};
use super::door::{Door, bind};
use super::fault::{Kind, Script};
use super::image::{Image, ImageError, ImageSpec};
use super::ledger::{Counters, LogEntry};
use super::shared::{Addresses, Shared};
use super::target::Role;

/// The repository that is there from the start, with the tags `latest` and `1.0`.
pub const REPOSITORY: &str = "library/tide";

/// A running stand-in. Dropping it closes its listeners and cuts their connections.
pub struct Hub {
    shared: Arc<Shared>,
    _doors: [Door; 3],
    first: Image,
    second: Image,
}

/// Why a stand-in did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{role} can't listen on {address}")]
    Listen {
        role: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("there is no image to serve")]
    Image(#[from] ImageError),
}

impl Hub {
    /// Starts a stand-in, for a test.
    ///
    /// # Panics
    /// Where it can't start, with the reason.
    pub async fn start(config: HubConfig) -> Self {
        match Self::try_start(config).await {
            Ok(hub) => hub,
            Err(error) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                panic!("the stand-in for Docker Hub did not start: {error}{}", source.unwrap_or_default());
            }
        }
    }

    /// Builds the first images, takes the ports, and listens: requests are answered once this returns.
    ///
    /// # Errors
    /// Where a port is taken, or there is no busybox to build images from.
    pub async fn try_start(config: HubConfig) -> Result<Self, StartError> {
        let spec = ImageSpec { media: config.media, rootfs: config.rootfs, ..ImageSpec::default() };
        let (first, second) = tokio::task::spawn_blocking(move || {
            let second = ImageSpec { marker: "v2".to_owned(), ..spec.clone() };
            Ok::<_, ImageError>((Image::build(&spec)?, Image::build(&second)?))
        })
        .await
        .expect("building images does not panic")?;

        let take = |role: Role, address| {
            let listen = |source| StartError::Listen { role: role.name(), address, source };
            let socket = bind(address).map_err(listen)?;
            Ok::<_, StartError>((socket.local_addr().map_err(listen)?, socket))
        };
        let (registry, registry_socket) = take(Role::Registry, config.registry)?;
        let (token, token_socket) = take(Role::Token, config.token)?;
        let (cdn, cdn_socket) = take(Role::Cdn, config.cdn)?;

        let shared = Arc::new(Shared::new(config, Addresses { registry, token, cdn }));
        let open = |role: Role, socket| {
            let listen =
                |source| StartError::Listen { role: role.name(), address: shared.addresses.of(role), source };
            Door::open(socket, role, Arc::clone(&shared)).map_err(listen)
        };
        let hub = Self {
            _doors: [
                open(Role::Registry, registry_socket)?,
                open(Role::Token, token_socket)?,
                open(Role::Cdn, cdn_socket)?,
            ],
            shared: Arc::clone(&shared),
            first,
            second,
        };
        hub.furnish();
        Ok(hub)
    }

    /// `http://…` of the registry, without a slash at its end.
    pub fn registry_url(&self) -> String {
        self.shared.addresses.url(Role::Registry, None)
    }

    /// `http://…` of the token service, without its path.
    pub fn token_url(&self) -> String {
        self.shared.addresses.url(Role::Token, None)
    }

    /// `http://…` of the CDN.
    pub fn cdn_url(&self) -> String {
        self.shared.addresses.url(Role::Cdn, None)
    }

    /// Where the registry listens, as `host:port`.
    pub fn registry_address(&self) -> SocketAddr {
        self.shared.addresses.registry
    }

    /// The image behind [`REPOSITORY`]'s tags at the start.
    pub fn first(&self) -> &Image {
        &self.first
    }

    /// An image that is in [`REPOSITORY`] and has no tag yet.
    pub fn second(&self) -> &Image {
        &self.second
    }

    /// What was asked since the start, or since the last reset.
    pub fn counters(&self) -> Counters {
        self.shared.with(|state| state.ledger.counters())
    }

    /// Returns the counters once they are as wished: what a test awaits in place of a sleep.
    pub async fn counted(&self, wished: impl Fn(&Counters) -> bool) -> Counters {
        self.shared.counted(wished).await
    }

    /// Every request since the start or the last reset, in order of arrival.
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.with(|state| state.ledger.log())
    }

    /// Counters to zero, log empty. What each source has spent stays spent.
    pub fn reset_counters(&self) {
        self.shared.record(|ledger| ledger.reset());
    }

    /// From now on every source finds this many GETs left, until its window ends.
    pub fn set_remaining(&self, gets: i64) {
        self.shared.with(|state| state.budgets.preset(gets));
    }

    /// Every source starts a new, full window.
    pub fn refill(&self) {
        self.shared.with(|state| state.budgets.refill());
    }

    /// Adds an image to a repository, which is made where it is missing, and gives back what to tag.
    pub fn push(&self, repository: &str, image: &Image) -> String {
        self.shared.with(|state| state.contents.push(repository, image));
        image.digest.clone()
    }

    /// Points a tag at a digest that was pushed to the repository.
    ///
    /// # Panics
    /// Where the repository or the digest is not there.
    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        let moved = self.shared.with(|state| state.contents.tag(repository, tag, digest));
        moved.expect("a tag moves to a digest that was pushed");
    }

    /// Adds an artifact of this type that refers to a manifest, and gives back its digest.
    ///
    /// # Panics
    /// Where the repository is not there.
    pub fn refer(&self, repository: &str, subject: &str, artifact_type: &str) -> String {
        let referring = self.shared.with(|state| state.contents.refer(repository, subject, artifact_type));
        referring.expect("an artifact is pushed to a repository that is there")
    }

    /// Removes a tag.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.shared.with(|state| state.contents.untag(repository, tag));
    }

    /// From now on only this account may read the repository. A token given out before goes on being good for what
    /// it was given for.
    pub fn make_private(&self, repository: &str, account: &str) {
        self.make_public(repository);
        let private = Private { repository: repository.to_owned(), account: account.to_owned() };
        self.shared.with(|state| state.private.push(private));
    }

    /// From now on anyone may read the repository.
    pub fn make_public(&self, repository: &str) {
        self.shared.with(|state| state.private.retain(|private| private.repository != repository));
    }

    /// Breaks one kind of request until it is cleared, or as often as the script says. A kind has one fault at a
    /// time: the last one stands. What an earlier one holds stays held until the kind is cleared.
    pub async fn fault(&self, kind: Kind, script: impl Into<Script>) {
        self.shared.fault(kind, script.into()).await;
    }

    /// Ends the fault of one kind, and lets go of what it holds.
    pub async fn clear(&self, kind: Kind) {
        self.shared.clear(kind).await;
    }

    /// Ends every fault.
    pub async fn clear_all(&self) {
        for kind in Kind::ALL {
            self.clear(kind).await;
        }
    }

    /// Returns once at least `count` requests of the kind hang or have their bodies held.
    pub async fn held(&self, kind: Kind, count: usize) {
        self.shared.faults.held(kind, count).await;
    }

    /// Moves the stand-in's clock ahead by whole seconds: windows, tokens and signed addresses age.
    pub fn advance(&self, time: Duration) {
        self.shared.clock.advance(time.as_secs());
    }

    /// Ends every token given out so far.
    pub fn revoke_tokens(&self) {
        self.shared.seal.revoke_tokens();
    }

    /// Ends every signed address given out so far.
    pub fn expire_addresses(&self) {
        self.shared.seal.expire_addresses();
    }

    fn furnish(&self) {
        self.push(REPOSITORY, &self.first);
        self.push(REPOSITORY, &self.second);
        let mut tags = vec![(REPOSITORY, "latest"), (REPOSITORY, "1.0")];
        for test in ["ratelimitpreview/test", "ratelimitalways/test"] {
            self.push(test, &self.first);
            tags.push((test, "latest"));
        }
        for (repository, tag) in tags {
            self.tag(repository, tag, &self.first.digest);
        }
    }
}
