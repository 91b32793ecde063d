//! The folders with the hosts of registries, for containerd and nerdctl: Tidehold as the first of them, and nothing lost of
//! what was found there before.
//!
//! Where several folders were looked through in turn, the first one that has a registry, or `_default`, counted for it. From
//! now on one folder is looked at alone, or first, and has a `_default`, so that the others are never come to. So what they
//! have that counted is linked there: a link to the whole folder of a registry leaves its files, their modes and what is
//! written of them in relation to it as they are, and whoever changes them there changes them for both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tidehold::node::edits::{has_hosts, hosts, with_certificates};
use tidehold::node::files::{seen, text};
use tidehold::node::hosts::{DEFAULT, FILE, leads_out, registry_of};
use tidehold::node::journal::{Change, Link};

use super::super::Failed;
use super::Setup;
use super::plan::{HUB, Plan};
use super::refusals::refused;

/// A folder in which Tidehold is told of.
pub(super) struct Folder {
    pub(super) folder: PathBuf,
    /// What else was looked through, by somebody who will not any more.
    pub(super) hidden: Vec<Hidden>,
}

/// What a client has looked through till now.
pub(super) struct Hidden {
    /// In this order.
    pub(super) order: Vec<PathBuf>,
    /// The registries by which it is hidden; none where it is by all.
    pub(super) by: Vec<String>,
}

/// Adds what nerdctl reads, and says of it what is so.
pub(super) fn of_nerdctl(folders: &mut Vec<Folder>, looks: &[PathBuf], registries: &[String]) -> String {
    let same = folders.iter_mut().find(|folder| looks.contains(&folder.folder));
    let is_same = same.is_some();
    let first = || looks.first().cloned().unwrap_or_default();
    let folder = same.as_ref().map_or_else(first, |folder| folder.folder.clone());
    // What comes before it is asked before it as well.
    let order = looks.iter().skip_while(|look| **look != folder).cloned().collect();
    let hidden = Hidden { order, by: registries.to_vec() };
    let note = match (is_same, folders.is_empty()) {
        (true, _) => "found nerdctl, which reads the same hosts".to_owned(),
        (false, false) => format!(
            "found nerdctl, which reads its hosts in {} and is told of Tidehold there",
            folder.display()
        ),
        (false, true) => format!("found nerdctl, which reads its hosts in {}", folder.display()),
    };
    match folders.iter_mut().find(|known| known.folder == folder) {
        Some(known) => known.hidden.push(hidden),
        None => folders.push(Folder { folder, hidden: vec![hidden] }),
    }
    note
}

impl Plan {
    /// The hosts of registries in one folder.
    pub(super) fn hosts(
        &mut self,
        setup: &Setup,
        of: &Folder,
        named: &[String],
        mirror: &str,
    ) -> Result<(), Failed> {
        let (root, folder) = (&setup.root, &of.folder);
        let carried = carried(root, of);
        self.tell_of_carried(folder, &carried);
        let mut own = names(root, folder);
        own.extend(carried.keys().cloned());
        own.remove(DEFAULT);
        let registries: Vec<String> = if named.is_empty() {
            let hub = own.iter().filter(|name| name.as_str() == HUB).cloned();
            std::iter::once(DEFAULT.to_owned()).chain(hub).collect()
        } else {
            named.iter().map(|registry| folder_of(registry, &own)).collect()
        };
        for registry in &registries {
            self.registry(root, &folder.join(registry), carried.get(registry), mirror)?;
        }
        for (name, from) in carried.iter().filter(|(name, _)| !registries.contains(name)) {
            self.carry(root, &folder.join(name), from)?;
        }
        if named.is_empty() {
            for name in own.iter().filter(|name| !registries.contains(name)) {
                self.notes.push(format!(
                    "{} has a folder of its own and is not asked for at Tidehold: add --registry {name} for that",
                    folder.join(name).display()
                ));
            }
        }
        Ok(())
    }

    fn tell_of_carried(&mut self, folder: &Path, carried: &BTreeMap<String, PathBuf>) {
        let others: BTreeSet<&Path> = carried.values().filter_map(|from| from.parent()).collect();
        for other in others {
            let of_it = carried.iter().filter(|(_, from)| from.parent() == Some(other));
            let names: Vec<&str> = of_it.map(|(name, _)| name.as_str()).collect();
            self.notes.push(format!(
                "{} is not looked into any more, as {} is looked into first, or alone: what it has for {} is linked there",
                other.display(),
                folder.display(),
                names.join(", ")
            ));
        }
    }

    /// Puts Tidehold before the hosts of a registry, which it may have in another folder till now.
    fn registry(
        &mut self,
        root: &Path,
        at: &Path,
        from: Option<&PathBuf>,
        mirror: &str,
    ) -> Result<(), Failed> {
        let path = at.join(FILE);
        let source = from.map_or(path.clone(), |from| from.join(FILE));
        let before = text(root, &source).with_context(|| format!("read {}", source.display()))?;
        let base = match before.as_deref().unwrap_or_default() {
            // By itself containerd takes the certificates beside it only where it has nothing in it.
            "" => with_certificates(&files(root, source.parent().unwrap_or(at))),
            written => written.to_owned(),
        };
        let after = hosts(&base, mirror).map_err(|refusal| refused(&source, &refusal))?;
        if has_hosts(&base, mirror) {
            self.notes.push(format!(
                "{} has hosts of its own: they stay, behind Tidehold, which itself asks the registry; where it is to \
                 ask them, name them as its upstream in Tidehold's configuration",
                path.display()
            ));
        }
        let Some(from) = from else {
            if before.as_deref() != Some(after.as_str()) {
                self.changes.push(Change { path, before, after, mode: None });
            }
            return Ok(());
        };
        may_be_carried(root, at, from)?;
        let rights = fs::metadata(seen(root, &source)).ok().map(|about| about.permissions().mode() & 0o7777);
        self.changes.push(Change { path, before: None, after, mode: rights });
        let others = files(root, from).into_iter().filter(|name| name != FILE);
        let links = others.map(|name| Link { path: at.join(&name), to: from.join(&name) });
        self.links.extend(links.filter(|link| !stands(root, link)));
        Ok(())
    }

    /// Links the folder of a registry.
    fn carry(&mut self, root: &Path, at: &Path, from: &Path) -> Result<(), Failed> {
        may_be_carried(root, at, from)?;
        self.links.push(Link { path: at.to_owned(), to: from.to_owned() });
        Ok(())
    }
}

/// What counted till now and would not be come to any more: the names of folders, and where they are.
fn carried(root: &Path, of: &Folder) -> BTreeMap<String, PathBuf> {
    let others: BTreeSet<&PathBuf> = of.hidden.iter().flat_map(|hidden| &hidden.order).collect();
    let is_whole = |name: &String| {
        let mut others =
            others.iter().filter(|other| ***other != of.folder && seen(root, &other.join(name)).is_dir());
        !others.any(|other| is_cut_short(root, &of.folder.join(name), &other.join(name)))
    };
    let whole: BTreeSet<String> = names(root, &of.folder).into_iter().filter(is_whole).collect();
    let own: BTreeSet<String> = whole.iter().map(|name| registry_of(name)).collect();
    let mut carried = BTreeMap::new();
    for hidden in &of.hidden {
        let mut known = own.clone();
        for folder in &hidden.order {
            let names = if *folder == of.folder { whole.clone() } else { names(root, folder) };
            let counts = |name: &&String| {
                !known.contains(&registry_of(name))
                    && (hidden.by.is_empty() || hidden.by.contains(&registry_of(name)))
            };
            for name in names.iter().filter(counts) {
                carried.entry(name.clone()).or_insert_with(|| folder.join(name));
            }
            if names.contains(DEFAULT) {
                break;
            }
            known.extend(names.iter().map(|name| registry_of(name)));
        }
    }
    carried
}

/// Whether a registry's folder has links to what another has for it at most: a run of ours was cut short, and the hosts
/// that go with them are still to come.
fn is_cut_short(root: &Path, at: &Path, from: &Path) -> bool {
    let to = |path: PathBuf, to: PathBuf| stands(root, &Link { path, to });
    let is_folder = seen(root, at).is_dir() && !to(at.to_owned(), from.to_owned());
    is_folder && files(root, at).iter().all(|name| name != FILE && to(at.join(name), from.join(name)))
}

fn stands(root: &Path, link: &Link) -> bool {
    let (above, name) = (link.path.parent().unwrap_or(&link.path), link.path.file_name().unwrap_or_default());
    fs::read_link(seen(root, above).join(name)).is_ok_and(|to| to == link.to)
}

/// That what is linked comes to the same there.
fn may_be_carried(root: &Path, at: &Path, from: &Path) -> Result<(), Failed> {
    let (above, name) = (at.parent().unwrap_or(at), at.file_name().unwrap_or_default());
    if fs::symlink_metadata(seen(root, above).join(name)).is_ok() && !is_cut_short(root, at, from) {
        return Err(anyhow!(
            "{} leads to no folder, and stands where {} is to be linked: remove it; nothing was changed",
            at.display(),
            from.display()
        )
        .into());
    }
    let path = from.join(FILE);
    let told = text(root, &path).with_context(|| format!("read {}", path.display()))?.unwrap_or_default();
    match leads_out(&told) {
        None => Ok(()),
        Some(name) => Err(anyhow!(
            "{} names {name:?}, which leads out of its folder and would be another file once that is found by way of {}: write \
             the whole path, {:?}; nothing was changed",
            path.display(),
            at.display(),
            from.join(&name)
        )
        .into()),
    }
}

/// The registries with folders of their own.
fn names(root: &Path, hosts: &Path) -> BTreeSet<String> {
    files(root, hosts).into_iter().filter(|name| seen(root, &hosts.join(name)).is_dir()).collect()
}

/// All names in a folder, in their order.
fn files(root: &Path, folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(seen(root, folder)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The folder of a registry: containerd takes `host_port_` before `host:port`.
fn folder_of(registry: &str, own: &BTreeSet<String>) -> String {
    let other = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    other.filter(|other| own.contains(other)).unwrap_or_else(|| registry.to_owned())
}
