//! What the three listeners share, and the seal on what one of them hands out and another checks. Its one lock is
//! held for a few statements at a time and never across an await.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::budget::Budgets;
use super::clock::Clock;
use super::config::{HubConfig, Private};
use super::contents::Contents;
use super::door::Latch;
use super::fault::{Faults, Kind, Script};
use super::image::hex;
use super::ledger::{Counters, Ledger};
use super::target::Role;

pub(super) struct Shared {
    pub(super) config: HubConfig,
    pub(super) clock: Clock,
    pub(super) addresses: Addresses,
    pub(super) seal: Seal,
    pub(super) faults: Faults,
    latches: Latches,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Latches {
    registry: Latch,
    token: Latch,
    cdn: Latch,
}

/// What changes as requests come.
#[derive(Default)]
pub(super) struct State {
    pub(super) contents: Contents,
    pub(super) budgets: Budgets,
    pub(super) ledger: Ledger,
    /// Who alone may read what.
    pub(super) private: Vec<Private>,
}

impl Shared {
    pub(super) fn new(config: HubConfig, addresses: Addresses) -> Self {
        let clock = Clock::start();
        let seal = Seal::new(&format!("{addresses:?} {:?}", clock.wall()));
        let state = State { private: config.private.clone(), ..State::default() };
        Self {
            config,
            clock,
            addresses,
            seal,
            faults: Faults::default(),
            latches: Latches::default(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn latch(&self, role: Role) -> &Latch {
        match role {
            Role::Registry => &self.latches.registry,
            Role::Token => &self.latches.token,
            Role::Cdn => &self.latches.cdn,
        }
    }

    /// Puts a fault in force.
    pub(super) async fn fault(&self, kind: Kind, script: Script) {
        self.faults.set(kind, script);
        self.open_or_close(Role::of(kind)).await;
    }

    /// Ends a fault.
    pub(super) async fn clear(&self, kind: Kind) {
        self.faults.clear(kind);
        self.open_or_close(Role::of(kind)).await;
    }

    async fn open_or_close(&self, role: Role) {
        let refused = Kind::ALL.into_iter().any(|kind| Role::of(kind) == role && self.faults.refused(kind));
        self.latch(role).set_open(!refused).await;
    }

    /// A short look at the state.
    pub(super) fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes into the ledger and wakes who waits for the counters.
    pub(super) fn record<R>(&self, write: impl FnOnce(&mut Ledger) -> R) -> R {
        let written = self.with(|state| write(&mut state.ledger));
        self.changed.send_modify(|changes| *changes += 1);
        written
    }

    /// Returns once the counters are as wished.
    pub(super) async fn counted(&self, wished: impl Fn(&Counters) -> bool) -> Counters {
        let mut changed = self.changed.subscribe();
        loop {
            let counters = self.with(|state| state.ledger.counters());
            if wished(&counters) {
                return counters;
            }
            changed.changed().await.expect("the sender lives as long as self");
        }
    }
}

/// Where the three listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) registry: SocketAddr,
    pub(super) token: SocketAddr,
    pub(super) cdn: SocketAddr,
}

impl Addresses {
    pub(super) fn of(&self, role: Role) -> SocketAddr {
        match role {
            Role::Registry => self.registry,
            Role::Token => self.token,
            Role::Cdn => self.cdn,
        }
    }

    /// A listener's address as its client can reach it: where it listens on every address, by the host that the
    /// client already uses.
    pub(super) fn url(&self, role: Role, host: Option<&str>) -> String {
        let address = self.of(role);
        let host = host.filter(|_| address.ip().is_unspecified()).map(without_port);
        match host {
            Some(host) => format!("http://{host}:{}", address.port()),
            None => format!("http://{address}"),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Signs tokens and addresses. No cryptography worth the name: it keeps a client honest, not an attacker out.
pub(super) struct Seal {
    key: String,
    tokens: AtomicU64,
    addresses: AtomicU64,
}

impl Seal {
    fn new(key: &str) -> Self {
        Self { key: key.to_owned(), tokens: AtomicU64::new(0), addresses: AtomicU64::new(0) }
    }

    pub(super) fn token(&self, text: &str) -> String {
        self.sign("token", self.tokens.load(Ordering::Relaxed), text)
    }

    pub(super) fn address(&self, digest: &str, expires: &str) -> String {
        self.sign("address", self.addresses.load(Ordering::Relaxed), &format!("{digest} {expires}"))
    }

    /// No token signed before is good any more.
    pub(super) fn revoke_tokens(&self) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// No address signed before is good any more.
    pub(super) fn expire_addresses(&self) {
        self.addresses.fetch_add(1, Ordering::Relaxed);
    }

    fn sign(&self, purpose: &str, epoch: u64, text: &str) -> String {
        hex(&Sha256::digest(format!("{} {purpose} {epoch} {text}", self.key)))
    }
}
