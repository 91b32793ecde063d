//! What stands against a setup, said with what to do about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use rustix::process::geteuid;
use serde::Deserialize;
use tidehold::config::{Config, Containerd};
use tidehold::node::containerd::{BUILTIN_STORE, HOSTS, METADATA, Settings, Version};
use tidehold::node::discover::{Blobs, Client, blobs, program};
use tidehold::node::edits::Refusal;
use tidehold::node::files::{seen, text};
use tidehold::node::journal::{Journal, Swap};
use tidehold::node::unit::flags;

use super::super::Failed;
use super::Setup;
use super::plan::PODMAN;
use super::running::Running;

/// What is to be known of the setup before this one; none may leave behind what one that was taken back still owes.
pub(super) fn before(setup: &Setup, journal: &Journal) -> Result<Option<&'static str>, Failed> {
    if journal.swaps().next().is_none() {
        return Ok(None);
    }
    match (journal.is_restored(), setup.mirror_only) {
        (true, true) => Err(anyhow!(
            "what an earlier setup had changed was taken back, and that has not come to its end: containerd may rely on \
             blobs that Tidehold alone has, and could not use their images. End it with `tidehold setup --undo --yes \
             --restart` first, and then run this again; nothing was changed"
        )
        .into()),
        (true, false) => Ok(Some(
            "an earlier setup was taken back, and that has not come to its end: this one takes its place",
        )),
        (false, true) => Ok(Some(
            "the content store stays Tidehold, as an earlier setup made it: `tidehold setup --undo` gives containerd its own \
             again",
        )),
        (false, false) => Ok(None),
    }
}

/// That a containerd can have another content store without losing what it has, and what it has: of which something may be
/// left to be taken over only where that is done before.
pub(super) fn may_swap(
    setup: &Setup,
    config: &Config,
    of: &Containerd,
    settings: &Settings,
    running: Option<&Running>,
    since: Option<SystemTime>,
) -> Result<(Swap, Blobs), Failed> {
    let store = running.and_then(|running| running.store.clone());
    let store = store.unwrap_or_else(|| settings.root.join(BUILTIN_STORE));
    if running.is_none() {
        root_is_known(setup, settings)?;
    }
    let folder = store.join("blobs");
    let found = blobs(&setup.root, &folder, &config.data_dir, &of.name, since)
        .with_context(|| format!("look at {}", folder.display()))?;
    let root = store.parent().map_or_else(|| settings.root.clone(), Path::to_owned);
    if found.not_taken == 0 || setup.wants_restart() && was_taken_over(setup, config, of, &root) {
        return Ok((swap(config, of, settings, root), found));
    }
    Err(anyhow!(
        "containerd is in use: {} of its {} blobs in {} are not in Tidehold, and with another content store it would lose \
         them. Have them taken over with `tidehold adopt` while Tidehold runs (`tidehold setup --mirror-only --yes \
         --restart` starts it), then run this again: of what it has to leave out it says how to be rid of that. Or leave the \
         content store alone with --mirror-only; nothing was changed",
        found.not_taken,
        found.count,
        folder.display()
    )
    .into())
}

pub(super) fn swap(config: &Config, of: &Containerd, settings: &Settings, root: PathBuf) -> Swap {
    let (data_dir, socket) = (config.data_dir.clone(), settings.socket.clone());
    Swap { containerd: of.name.clone(), root, data_dir, socket }
}

/// Whether all of a root was taken over once, by the word that `adopt` leaves.
fn was_taken_over(setup: &Setup, config: &Config, of: &Containerd, root: &Path) -> bool {
    #[derive(Deserialize)]
    struct Word {
        root: PathBuf,
    }
    let word = config.data_dir.join("adopted-from").join(&of.name);
    let word = fs::read(seen(&setup.root, &word)).ok();
    let word = word.and_then(|word| serde_json::from_slice::<Word>(&word).ok());
    let real = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
    word.is_some_and(|word| word.root == root || word.root == real(seen(&setup.root, root)))
}

/// Where a containerd that does not run keeps things may be said on a command line that nobody sees.
fn root_is_known(setup: &Setup, settings: &Settings) -> Result<(), Failed> {
    let told = setup.containerd_root.is_some()
        || flags(&setup.root).context("read containerd's unit")?.is_some_and(|flags| !flags.variables);
    let database = seen(&setup.root, &settings.root.join(METADATA).join("meta.db"));
    if told || database.exists() || program(&setup.root, "containerd").is_none() {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(anyhow!(
            "whether containerd runs, and what it has, is for root alone to see: run this as root; nothing was changed"
        )
        .into());
    }
    Err(anyhow!(
        "containerd does not run, and nothing says for sure where it keeps things: there is nothing of it in {}. Start it, or say the folder with --containerd-root; nothing was changed",
        settings.root.display()
    )
    .into())
}

pub(super) fn refused(path: &Path, refusal: &Refusal) -> anyhow::Error {
    anyhow!("{} is left alone: {refusal}; nothing was changed", path.display())
}

/// containerd's CRI refuses to start with both.
pub(super) fn may_have_config_path(
    main: &Path,
    settings: &Settings,
    version: Option<Version>,
) -> Result<(), Failed> {
    if let Some(registry) = settings.mirrors.first() {
        return Err(anyhow!(
            "{} has a mirror for {registry} under registry.mirrors, and containerd takes no config_path beside that: write it \
             as a host into {HOSTS}/{registry}/hosts.toml, remove the table, and run this again; nothing was changed",
            main.display()
        )
        .into());
    }
    if let Some(registry) = settings.tls.first().filter(|_| !version.is_some_and(Version::is_2)) {
        return Err(anyhow!(
            "{} has TLS settings for {registry} under registry.configs, and containerd before 2.0 takes no config_path beside \
             that: write them into {HOSTS}/{registry}/hosts.toml, remove the table, and run this again; nothing was changed",
            main.display()
        )
        .into());
    }
    Ok(())
}

/// podman takes a registry from one file alone, the last one that has it.
pub(super) fn may_tell_podman(setup: &Setup, registries: &[&str]) -> Result<(), Failed> {
    let main = Path::new(Client::Podman.config());
    let folder = Path::new(PODMAN).parent().unwrap_or(main);
    let entries = fs::read_dir(seen(&setup.root, folder)).into_iter().flatten().flatten();
    let parts = entries.map(|entry| folder.join(entry.file_name()));
    for path in parts.chain([main.to_owned()]).filter(|path| path != Path::new(PODMAN)) {
        let text = text(&setup.root, &path).with_context(|| format!("read {}", path.display()))?;
        let Ok(table) = text.unwrap_or_default().parse::<toml::Table>() else { continue };
        if table.contains_key("registries") {
            let refusal = Refusal::new(
                "it has the form of version 1, which bears no other beside it",
                "bring it to version 2",
            );
            return Err(refused(&path, &refusal).into());
        }
        let entries = table.get("registry").and_then(toml::Value::as_array).into_iter().flatten();
        for entry in entries {
            let text = |key| entry.get(key).and_then(toml::Value::as_str);
            let prefix = text("prefix").or_else(|| text("location")).unwrap_or_default();
            if registries.contains(&prefix) {
                let problem = format!("it has an entry for {prefix} already");
                let refusal =
                    Refusal::new(problem, "add the mirror there, or remove that entry and run this again");
                return Err(refused(&path, &refusal).into());
            }
        }
    }
    Ok(())
}
