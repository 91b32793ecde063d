//! What is said where containerd goes out by a proxy, which Tidehold does not.

use tidehold::config::Proxy;
use tidehold::node::containerd::CONFIG;
use tidehold::node::unit;

use super::Setup;
use super::running::Running;
use std::path::Path;

/// By the environment of its process, or else of its unit.
pub(super) fn note(setup: &Setup, running: Option<&Running>) -> Option<String> {
    let environment = match running.and_then(|running| running.environment.clone()) {
        Some(environment) => environment,
        None if setup.containerd_config == Path::new(CONFIG) => {
            unit::environment(&setup.root, "containerd.service").ok()?
        }
        None => return None,
    };
    let proxy = Proxy::named_by(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    Some(format!(
        "containerd is told of a proxy ({proxy}); Tidehold uses none, and asks registries directly: where the node is not let out \
         to them, pulls go on by containerd's proxy, after some seconds where the way out only hangs, and nothing is cached. Let \
         it out to them, or name an upstream that it can reach under [registries]; tidehold doctor says whether it gets there"
    ))
}
