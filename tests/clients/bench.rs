//! What a scenario works with: a stand-in for Docker Hub, a daemon before it, and machines with a client.

use tokio::runtime::Runtime;

use crate::client::{Client, Machine, Programs};
use crate::support::daemon::Daemon;
use crate::support::hub::{Counters, Fault, Hub, HubConfig, Kind, Rootfs};

/// The parts of one scenario, dropped in this order.
pub(crate) struct Bench<'a> {
    programs: &'a Programs,
    client: Client,
    pub(crate) daemon: Daemon,
    pub(crate) hub: Hub,
    runtime: Runtime,
}

impl<'a> Bench<'a> {
    /// Docker Hub as it is, with images that need nothing of the machine, and a daemon that asks it each time.
    pub(crate) fn start(programs: &'a Programs, client: Client) -> Self {
        Self::before(programs, client, HubConfig::default())
    }

    /// The same for another registry.
    pub(crate) fn before(programs: &'a Programs, client: Client, registry: HubConfig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hub = runtime.block_on(Hub::start(HubConfig { rootfs: Rootfs::Marker, ..registry }));
        let upstream = hub.registry_url();
        let daemon = Daemon::start(&format!(
            "[tags]\nfresh_for = \"0s\"\n[registries.\"docker.io\"]\nupstream = \"{upstream}\"\n"
        ));
        Self { programs, client, daemon, hub, runtime }
    }

    /// A machine that has nothing yet and is told of the daemon's mirror.
    pub(crate) fn machine(&self) -> Machine<'a> {
        Machine::new(self.programs, self.client, self.daemon.mirror())
    }

    /// What the registry, its CDN and its token service were asked for this.
    pub(crate) fn cost_of(&self, work: impl FnOnce()) -> Counters {
        self.hub.reset_counters();
        work();
        self.hub.counters()
    }

    /// The registry, its token service and its CDN all fail in this way.
    pub(crate) fn break_everything(&self, fault: Fault) {
        for kind in Kind::ALL {
            self.runtime.block_on(self.hub.fault(kind, fault));
        }
    }
}
