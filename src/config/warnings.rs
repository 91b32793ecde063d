//! What is allowed and yet worth a line in the log.

use std::net::IpAddr;

use url::{Host, Url};

use super::Config;

impl Config {
    /// A sentence for each setting that works but that its author may not have meant; the default has none.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mirror = self.mirror.listen;
        if !is_loopback(mirror.ip()) {
            warnings.push(format!(
                "mirror.listen is {mirror}: whoever reaches it can pull what the hold has, unencrypted"
            ));
        } else if mirror.port() >= 1024 {
            warnings.push(format!(
                "mirror.listen has port {}: any user of this node can take it while the daemon is down and ask \
                 clients for their credentials; a port below 1024 prevents that",
                mirror.port()
            ));
        }
        if mirror.port() == 0 {
            warnings
                .push("mirror.listen has port 0: it changes with every start, so no client finds it".into());
        }
        if !is_loopback(self.web.listen.ip()) {
            warnings.push(format!(
                "web.listen is {}: whoever reaches it can see what this node pulls",
                self.web.listen
            ));
        }
        if !self.registries.allow_any && self.registries.listed.is_empty() {
            warnings.push(
                "registries.allow_any is false and no registry is listed: nothing can be pulled".into(),
            );
        }
        for (name, registry) in &self.registries.listed {
            if registry.share_private && registry.credentials.is_none() {
                warnings.push(format!("registries.{name:?}: share_private does nothing without credentials"));
            }
            if registry.share_private && registry.credentials.is_some() && !is_loopback(mirror.ip()) {
                warnings.push(format!(
                    "registries.{name:?}: share_private hands private images to whoever reaches {mirror}"
                ));
            }
            let in_clear = registry.upstreams.iter().find(|upstream| is_plain_network(upstream));
            if let (Some(_), Some(upstream)) = (&registry.credentials, in_clear) {
                warnings.push(format!(
                    "registries.{name:?}: {upstream} is http and not on loopback, so no password is shown to it: \
                     only a token service on https can be asked with these credentials, and its tokens go on in \
                     clear text"
                ));
            }
        }
        warnings
    }
}

/// Whether what is sent there can be read on the way.
fn is_plain_network(upstream: &Url) -> bool {
    let on_loopback = match upstream.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    };
    upstream.scheme() == "http" && !on_loopback
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
