//! `tidehold setup --may-remove`: whether the hold, and the program, can go without anybody missing them.
//!
//! For the scripts of packages: it changes nothing. A file that is broken stands against it only by what it says: nobody
//! who cannot read it relies on Tidehold by it, and whoever removes a package should not have to mend others' files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tidehold::config::Config;
use tidehold::node::containerd::{BUILTIN_STORE, CONFIG, HOSTS};
use tidehold::node::discover::{Client, lacking, relied_on_by};
use tidehold::node::files::{any_text, seen};
use tidehold::node::journal::Journal;

use super::super::Failed;
use super::Setup;
use super::running::{self, Found};

/// Where files of containerds lie that no configuration may name any more, with wildcards.
const CONFIGS: [&str; 3] = [
    "/etc/containerd/conf.d/*.toml",
    "/var/lib/rancher/*/agent/etc/containerd/*.toml*",
    "/etc/containers/registries.conf.d/*.conf",
];

/// All that stands against it, each with what to do.
pub(super) fn reasons(setup: &Setup) -> Result<Vec<String>, Failed> {
    let config = &config(setup)?;
    let mut reasons = Vec::new();
    let journal = match Journal::open(&setup.root, &setup.journal) {
        Ok(journal) => Some(journal),
        Err(error) => {
            reasons.push(error.to_string());
            None
        }
    };
    if journal.as_ref().is_some_and(|journal| !journal.is_empty()) {
        reasons.push(format!(
            "{} has what setup has changed and is still to be taken back: run tidehold setup --undo --restart",
            setup.journal.display()
        ));
    }
    let found = running::found_anyway(setup)?;
    let files = naming(setup, config, &found).context("look for files that name Tidehold")?;
    reasons.extend(files.iter().map(|file| {
        format!(
            "{} names Tidehold: run tidehold setup --undo --restart, or take it out where you have put it in",
            file.display()
        )
    }));
    let builtin = found.running.as_ref().and_then(|running| running.store.clone());
    if let Some(running) = &found.running
        && builtin.is_none()
        && running.proxies.iter().any(|proxy| is_ours(config, proxy))
    {
        reasons.push(
            "containerd still runs with Tidehold as its content store: restart it (systemctl restart containerd)".to_owned(),
        );
    }
    for name in relied_on_by(&setup.root, &config.data_dir).context("look at the hold")? {
        let swaps = journal.as_ref().map(|journal| journal.swaps().collect::<Vec<_>>()).unwrap_or_default();
        let swapped =
            swaps.iter().find(|swap| swap.containerd == name).map(|swap| swap.root.join(BUILTIN_STORE));
        let store =
            swapped.or_else(|| builtin.clone()).unwrap_or_else(|| found.settings.root.join(BUILTIN_STORE));
        let lacking = lacking(&setup.root, &config.data_dir, &name, &store.join("blobs"))
            .with_context(|| format!("look at {}", store.display()))?;
        let missed = match builtin.as_deref() == Some(store.as_path()) {
            // What was removed since is in no store, and nobody's loss.
            true => running::relied_on(&seen(&setup.root, &found.settings.socket), &lacking)?,
            false => lacking.len(),
        };
        if missed > 0 {
            reasons.push(format!(
                "{missed} blobs that the containerd {name:?} relies on are not in {}: run tidehold adopt --undo \
                 --containerd {name} --from {} (with --offline where the daemon does not run)",
                store.display(),
                store.parent().unwrap_or(&store).display()
            ));
        }
    }
    Ok(reasons)
}

/// Tidehold's configuration, as far as it can be read.
fn config(setup: &Setup) -> Result<Config, Failed> {
    match (setup.tidehold_config(), setup.tidehold_config_file()) {
        (Err(Failed::Configuration(_)), Some(file)) if file.is_dir() => Ok(Config::default()),
        (Err(Failed::Configuration(_)), Some(file)) => {
            Ok(Config::recovered(&file).with_context(|| format!("read {}", file.display()))?)
        }
        (config, _) => config,
    }
}

/// Whether a proxy is one of ours: its name and, where containerd says so, its address.
fn is_ours(config: &Config, (name, address): &(String, String)) -> bool {
    let is_socket = config.containerds.iter().any(|own| own.socket == Path::new(address));
    is_socket || address.is_empty() && name.starts_with("tidehold")
}

/// The files that make somebody on this node use Tidehold.
fn naming(setup: &Setup, config: &Config, found: &Found) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = found.files.iter().map(|file| file.path.clone()).collect();
    paths.push(setup.containerd_config.clone());
    paths.extend([CONFIG, Client::Docker.config(), Client::BuildKit.config()].map(PathBuf::from));
    paths.push(PathBuf::from(Client::Podman.config()));
    let folders = found.settings.hosts_folders();
    let hosts = folders.into_iter().chain([HOSTS]).map(|folder| format!("{folder}/*/hosts.toml"));
    for pattern in hosts.chain(CONFIGS.map(str::to_owned)) {
        paths.extend(tidehold::node::files::matching(&setup.root, &pattern));
    }
    paths.extend(setup.hosts_dir.iter().flat_map(|folder| {
        tidehold::node::files::matching(&setup.root, &format!("{}/*/hosts.toml", folder.display()))
    }));
    paths.sort();
    paths.dedup();
    let words = words(config);
    let mut naming = Vec::new();
    for path in paths {
        let found = any_text(&setup.root, &path).with_context(|| format!("read {}", path.display()))?;
        if found.unwrap_or_default().lines().any(|line| names(line, &words)) {
            naming.push(path);
        }
    }
    Ok(naming)
}

/// What a line has in it that names Tidehold.
fn words(config: &Config) -> Vec<String> {
    let mut words = vec!["/tidehold/content.sock".to_owned()];
    for name in ["tidehold", "\"tidehold", "'tidehold"] {
        words.push(format!("proxy_plugins.{name}"));
        words.push(format!("stream_processors.{name}"));
    }
    words.extend(config.containerds.iter().map(|own| own.socket.display().to_string()));
    let port = config.mirror.listen.port();
    for host in [config.mirror.listen.ip().to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()] {
        words.push(format!("{host}:{port}"));
        words.push(format!("{host}:789"));
    }
    words
}

/// Whether a line that is no comment has one of these words, and not as the beginning of a longer number.
fn names(line: &str, words: &[String]) -> bool {
    if line.trim_start().starts_with('#') {
        return false;
    }
    words.iter().any(|word| {
        line.match_indices(word.as_str()).any(|(at, _)| {
            let follows = line.get(at + word.len()..).and_then(|rest| rest.chars().next());
            !follows.is_some_and(|next| next.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_names_it_is_told_from_others() {
        let words = words(&Config::default());
        for line in [
            "  address = \"/run/tidehold/content.sock\"",
            "[proxy_plugins.\"tidehold\"]",
            "[host.\"http://127.0.0.1:789\"]",
            "\"registry-mirrors\": [\"http://localhost:789\"]",
        ] {
            assert!(names(line, &words), "{line}");
        }
        for line in ["# /run/tidehold/content.sock", "[host.\"http://127.0.0.1:7890\"]", "version = 2"] {
            assert!(!names(line, &words), "{line}");
        }
    }
}
