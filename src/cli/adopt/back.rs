//! Giving back: all that a containerd relies on is put into its own store again, so that this can be its store again.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::fs::statvfs;
use serde_json::json;
use tidehold::clock;
use tidehold::oci::Digest;

use super::super::Failed;
use super::super::words::{length, plain, size};
use super::Adopt;
use super::daemon::Daemon;
use super::put::{PutError, Way, is_put, put};
use super::shown::{Shown, blobs, named};
use super::store::ContentStore;

/// What containerd makes of a blob's mode when it commits it: everybody reads it, nobody writes.
const BLOB_MODE: u32 = 0o444;

/// A blob that is to be given back.
struct Owed {
    digest: Digest,
    size: u64,
    /// The hold's file.
    file: PathBuf,
}

/// What is to be done.
#[derive(Default)]
struct Plan {
    owed: Vec<Owed>,
    /// Are in the store, as the same files or as copies of them.
    there: u64,
    /// Relied on, not held, and not in the store either.
    lost: Vec<(String, u64)>,
    /// All that is relied on.
    digests: Vec<String>,
}

impl Plan {
    fn owed_bytes(&self) -> u64 {
        self.owed.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

pub(super) async fn give_back(daemon: &mut Daemon, asked: &Adopt, mut shown: Shown) -> Result<(), Failed> {
    let begun = clock::instant();
    let store = ContentStore::find(&asked.from)?;
    let plan = plan(daemon, &store).await?;
    let way = match asked.dry_run {
        // The folder that a try would need is not made for that.
        true => None,
        false => way_of(&store, &plan)?,
    };
    show_plan(&mut shown, &store, daemon, &plan, way, asked.dry_run)?;
    for (digest, size) in &plan.lost {
        let reason = format!("{size} bytes that are not held any more, nor in the store");
        shown.problem("lost", digest, &reason)?;
    }
    if asked.dry_run {
        return Ok(());
    }
    if way == Some(Way::Copy) {
        there_is_room(&store, &plan, asked.copy)?;
    }
    let given = tokio::task::block_in_place(|| give(&store, &plan.owed, asked.copy, &mut shown));
    clear_aside(&store);
    let given = given?;
    store.sync().with_context(|| format!("sync {}", store.root.display()))?;
    if !plan.lost.is_empty() {
        return Err(anyhow!(
            "{} are missing: pull their images again while Tidehold is the store (`ctr -n NAMESPACE content ls` shows by \
             the labels which these are), or remove the images, and run this again",
            blobs(plan.lost.len() as u64)
        )
        .into());
    }
    daemon.forget().await?;
    let released = match asked.release {
        true => Some(daemon.release(&plan.digests).await?),
        false => None,
    };
    let json = json!({
        "event": "summary",
        "containerd": daemon.containerd,
        "root": store.root,
        "linked": given.get(&Way::Link).copied().unwrap_or_default(),
        "reflinked": given.get(&Way::Reflink).copied().unwrap_or_default(),
        "copied": given.get(&Way::Copy).copied().unwrap_or_default(),
        "there": plan.there,
        "released": released,
    });
    let ways: Vec<String> = given.iter().map(|(way, count)| format!("{count} as {}", way.plural())).collect();
    let ways = if ways.is_empty() { String::new() } else { format!(" ({})", ways.join(", ")) };
    let mut text = format!(
        "{} given back{ways}, {} there already, in {}",
        blobs(given.values().sum()),
        plan.there,
        length(begun.elapsed().as_secs())
    );
    match released {
        Some(released) => text = format!("{text}; {} let go", blobs(released)),
        None if asked.within_setup => {}
        None => {
            text = format!(
                "{text}\n{} can have its own content store again. If it has run meanwhile, stop it and run this again for \
                 what it has pulled since, before it is given that store",
                named(&daemon.containerd)
            );
        }
    }
    shown.end(&json, &text)
}

async fn plan(daemon: &mut Daemon, store: &ContentStore) -> Result<Plan, Failed> {
    let mut plan = Plan::default();
    for blob in daemon.relied_on().await? {
        let Ok(digest) = blob.digest.parse::<Digest>() else {
            return Err(anyhow!("the daemon names {:?}, which is no digest", plain(&blob.digest)).into());
        };
        let target = fs::symlink_metadata(store.place_of(&digest)).ok().filter(fs::Metadata::is_file);
        plan.digests.push(blob.digest.clone());
        if blob.file.is_empty() {
            match target {
                // containerd's own, which nobody has taken from it.
                Some(there) if there.len() == blob.size => plan.there += 1,
                Some(_) | None => plan.lost.push((blob.digest, blob.size)),
            }
            continue;
        }
        let file = daemon.data_dir.join(&blob.file);
        let held = fs::metadata(&file).with_context(|| format!("look at {}", file.display()))?;
        match target {
            Some(there) if is_put(&held, &there) => plan.there += 1,
            Some(_) | None => plan.owed.push(Owed { digest, size: blob.size, file }),
        }
    }
    Ok(plan)
}

/// In which way the files can be put into the store; `None` where none has to be.
fn way_of(store: &ContentStore, plan: &Plan) -> Result<Option<Way>, Failed> {
    let Some(first) = plan.owed.first() else { return Ok(None) };
    store.make_folders()?;
    clear_aside(store);
    store.make_folders()?;
    let place = store.aside().join(first.digest.hex());
    match put(&first.file, &place, false) {
        Ok(way) => Ok(Some(way)),
        Err(PutError::NeedsCopy) => Ok(Some(Way::Copy)),
        Err(PutError::Full(error)) => Err(full(&place, &error)),
        Err(PutError::Gone) => Err(gone(&first.file)),
        Err(PutError::Other(error)) => {
            let file = first.file.display();
            Err(anyhow!("link {file} to {}: {error}: is this run as root?", place.display()).into())
        }
    }
}

fn there_is_room(store: &ContentStore, plan: &Plan, may_copy: bool) -> Result<(), Failed> {
    let root = store.root.display();
    let disk = statvfs(&store.root).with_context(|| format!("look at the disk of {root}"))?;
    let (free, needed) = (disk.f_bavail.saturating_mul(disk.f_frsize), plan.owed_bytes());
    let space = format!("{} in {root}, and {} is free", size(needed), size(free));
    match (may_copy, free < needed) {
        (false, _) => Err(anyhow!(
            "{} can only be copied: that takes {space}. Run this again with --copy",
            blobs(plan.owed.len() as u64)
        )
        .into()),
        (true, true) => Err(anyhow!("the copies take {space}: make room, and run this again").into()),
        (true, false) => Ok(()),
    }
}

/// Puts each aside first: what stands in the store under a blob's name is that blob, whole, at any moment.
fn give(
    store: &ContentStore,
    owed: &[Owed],
    may_copy: bool,
    shown: &mut Shown,
) -> Result<BTreeMap<Way, u64>, Failed> {
    let mut given = BTreeMap::new();
    let mut folders = HashSet::new();
    for Owed { digest, size, file } in owed {
        let (aside, target) = (store.aside().join(digest.hex()), store.place_of(digest));
        let way = match put(file, &aside, may_copy) {
            Ok(way) => way,
            Err(PutError::Full(error)) => return Err(full(&target, &error)),
            Err(PutError::Gone) => return Err(gone(file)),
            Err(PutError::NeedsCopy) => {
                return Err(anyhow!("{digest} can only be copied: run this again with --copy").into());
            }
            Err(PutError::Other(error)) => return Err(anyhow!("link {}: {error}", file.display()).into()),
        };
        let moved = || {
            let to_sync = File::open(&aside)?;
            if to_sync.metadata()?.permissions().mode() & 0o7777 != BLOB_MODE {
                to_sync.set_permissions(Permissions::from_mode(BLOB_MODE))?;
            }
            if way != Way::Link {
                to_sync.sync_all()?;
            }
            if folders.insert(digest.algorithm()) {
                store.make_folder_for(digest)?;
            }
            fs::rename(&aside, &target)
        };
        let mut moved = moved;
        moved().map_err(|error: io::Error| match PutError::from(error) {
            PutError::Full(error) => full(&target, &error),
            PutError::Other(error) => anyhow!("put {}: {error}", target.display()).into(),
            PutError::Gone | PutError::NeedsCopy => {
                anyhow!("{} was removed meanwhile: run this again", aside.display()).into()
            }
        })?;
        *given.entry(way).or_default() += 1;
        shown.done("returned", digest.as_str(), *size, way.word())?;
    }
    Ok(given)
}

/// What a try that was cut off has left aside, and the folder for it.
fn clear_aside(store: &ContentStore) {
    // It is in nobody's way, and cleared by the next run.
    let _ = fs::remove_dir_all(store.aside());
}

fn full(path: &Path, error: &io::Error) -> Failed {
    anyhow!("write {}: {error}: make room and run this again, it goes on where it was", path.display()).into()
}

fn gone(file: &Path) -> Failed {
    anyhow!("{} is not there any more: run this again", file.display()).into()
}

fn show_plan(
    shown: &mut Shown,
    store: &ContentStore,
    daemon: &Daemon,
    plan: &Plan,
    way: Option<Way>,
    dry_run: bool,
) -> Result<(), Failed> {
    let (owed, bytes) = (plan.owed.len() as u64, plan.owed_bytes());
    let json = json!({
        "event": "planned",
        "containerd": daemon.containerd,
        "root": store.root,
        "dry_run": dry_run,
        "blobs": plan.digests.len(),
        "there": plan.there,
        "owed": owed,
        "owed_bytes": bytes,
        "lost": plan.lost.len(),
        "way": way.map(Way::word),
    });
    let verb = if dry_run { "would be" } else { "are" };
    let mut text = format!(
        "{} relies on {}: {} in {} already, {owed} ({}) {verb} given back",
        daemon.containerd,
        blobs(plan.digests.len() as u64),
        plan.there,
        plain(&store.root.display().to_string()),
        size(bytes),
    );
    if let Some(way) = way {
        text = format!("{text} as {}", way.plural());
    }
    shown.begin(&json, &text, bytes)
}
