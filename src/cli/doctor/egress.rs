//! The way out by a proxy: others on the node go by one, and Tidehold, which uses none, asks registries directly.

use tidehold::config::Proxy;
use tidehold::node::containerd::SOCKET;
use tidehold::node::unit;

use super::containerds::Containerd;
use super::finding::{Finding, ok, warn};
use super::look::Node;
use crate::cli::words::plain;
use std::path::Path;

/// Who is told of a proxy, and of which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) who: String,
    pub(super) proxy: String,
}

/// All of them; what the daemon says of its own environment is handed in.
pub(super) fn told(node: &Node, containerds: &[Containerd], daemons: &str) -> Vec<Told> {
    let of_containerds = containerds.iter().filter_map(|containerd| {
        let running = &containerd.running;
        // What it was started with is what it goes by.
        let environment = match (running.started, containerd.socket == Path::new(SOCKET)) {
            (None, true) => unit::environment(&node.root, "containerd.service").unwrap_or_default(),
            (Some(_), _) | (None, false) => running.environment.clone(),
        };
        let proxy = of(&environment)?;
        Some(Told { who: format!("the containerd at {}", containerd.socket.display()), proxy })
    });
    let own = match daemons {
        "" => unit::environment(&node.root, "tidehold.service").ok().and_then(|environment| of(&environment)),
        told => Some(plain(told)),
    };
    let own = own.map(|proxy| Told { who: "the daemon itself".to_owned(), proxy });
    of_containerds.chain(own).collect()
}

fn of(environment: &[(String, String)]) -> Option<String> {
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Proxy::named_by(environment).map(|proxy| proxy.to_string())
}

/// What that means, by whether all registries that were asked directly could be; none where none was asked.
pub(super) fn judge(told: &[Told], reached: Option<bool>, file: &str) -> Option<Finding> {
    if told.is_empty() {
        return None;
    }
    let all: Vec<_> = told.iter().map(|Told { who, proxy }| format!("{who} ({proxy})")).collect();
    let all = all.join(" and ");
    if reached == Some(true) {
        return Some(ok(
            "upstream.proxy",
            format!(
                "{all} is told of a proxy; Tidehold uses none, and asks registries directly, which works here"
            ),
        ));
    }
    Some(warn(
        "upstream.proxy",
        format!(
            "{all} is told of a proxy; Tidehold uses none: it asks registries directly. Where the node is not let out to them, \
             containerd goes on by its proxy, after some seconds where the way out only hangs: pulls work, and nothing is cached"
        ),
        format!(
            "let the daemon out to the registries (firewall, route, name server), or name a registry or mirror that it can reach \
             in {file}, and: systemctl restart tidehold\n  [registries.\"docker.io\"]\n  upstream = \"https://mirror.example\""
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn a_proxy_matters_where_the_registries_cannot_be_reached_without_it() {
        let told = vec![Told { who: "the daemon".into(), proxy: "HTTPS_PROXY=p:1".into() }];
        let level = |told: &[Told], reached| judge(told, reached, "/c.toml").map(|finding| finding.level);
        assert_eq!(level(&[], Some(false)), None);
        assert_eq!(level(&told, Some(true)), Some(Level::Ok));
        assert_eq!(level(&told, Some(false)), Some(Level::Warn));
        assert_eq!(level(&told, None), Some(Level::Warn));
        let found = judge(&told, None, "/c.toml").unwrap();
        let words = ["HTTPS_PROXY=p:1", "directly", "nothing is cached"];
        assert!(words.iter().all(|word| found.what.contains(word)), "{found:?}");
        assert!(found.mend.contains("/c.toml") && found.mend.contains("upstream ="), "{found:?}");
    }
}
