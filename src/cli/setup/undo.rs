//! `tidehold setup --undo`: what setup has changed is restored, and whoever relied on the hold is let go of it.
//!
//! The files come back first, and then the containerds go on with stores of their own. One that has not been started
//! again since still puts into the hold what it pulls: so the journal is kept until each was seen without it, or is
//! stopped, and is owed nothing. The journal is what goes last: a run that was cut short is gone on with by the next one.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tidehold::node::containerd::BUILTIN_STORE;
use tidehold::node::discover::{held, lacking};
use tidehold::node::files::seen;
use tidehold::node::journal::{Conflict, Journal, Link, Swap};

use super::super::doctor::Presence;
use super::super::relied::{socket, told_owed};
use super::super::words::{count, size};
use super::super::{Failed, print};
use super::running::{self, State};
use super::units::Units;
use super::{Setup, next, ready, shown, writable};

/// What is so where the files are restored and something is left to be done.
const REMEMBERED: &str = "what was changed is remembered until then";

impl Setup {
    pub(super) fn take_out(&self) -> Result<(), Failed> {
        self.can_restart()?;
        let mut journal = Journal::open(&self.root, &self.journal).context("read what was changed")?;
        if journal.is_empty() {
            if !self.dry_run {
                // Of a run that was cut short before it changed anything.
                journal.close().context("tidy up")?;
            }
            return print("nothing to take back: no setup has changed anything here");
        }
        let (restorations, conflicts) = journal.undo_plan(self.force).context("look at what was changed")?;
        refuse(&conflicts)?;
        let links: Vec<Link> = journal.links().cloned().collect();
        let files = shown::files(restorations.len() + links.len());
        for link in &links {
            shown::link(link, "-", "\x1b[31m")?;
        }
        for restoration in &restorations {
            if restoration.merged {
                let path = restoration.path.display();
                print(&format!("{path} was changed by others since: that stays, what is Tidehold's goes"))?;
            }
            shown::bytes(&restoration.path, restoration.now.as_deref(), restoration.then.as_deref())?;
        }
        if journal.is_restored() {
            print("the files are restored; what is left is to see containerd with a store of its own")?;
        }
        let swaps: Vec<Swap> = journal.swaps().cloned().collect();
        if self.dry_run {
            for swap in &swaps {
                let owed = self.owed(swap)?;
                if owed > 0 {
                    let owed = count(owed as u64, "blob");
                    print(&format!("{owed} would be given back to {} first", swap.root.display()))?;
                }
            }
            return print(&format!("{files} would be restored"));
        }
        let places = restorations.iter().map(|restoration| restoration.path.as_path());
        let places = places.chain(links.iter().filter_map(|link| link.path.parent()));
        writable::all(self, places.chain([writable::journal(self).as_path()]), "nothing was restored")?;
        self.confirm(&match journal.is_restored() {
            true => "go on".to_owned(),
            false => format!("restore {files}"),
        })?;
        journal.lock().context("take back")?;
        let of_containerd = journal.paths().any(|path| path == self.containerd_config);
        let changed: Vec<PathBuf> = journal.paths().map(Path::to_owned).collect();
        // What it is about to be restarted with must be there by then.
        for swap in &swaps {
            let so = if journal.is_restored() { REMEMBERED } else { "nothing was restored" };
            self.give_back(swap, so)?;
        }
        if !journal.is_restored() {
            let wrote_units = journal.paths().any(Units::is_one);
            if wrote_units {
                Units::of(self).disable()?;
            }
            journal.restore(&restorations, self.force, wrote_units).context(
                "not all is restored: mend what follows and run this again, which goes on with what is left",
            )?;
            print(&format!("{files} restored"))?;
        }
        self.let_go(journal, &swaps, of_containerd)?;
        for line in next::after_undo(&changed) {
            print(line)?;
        }
        Ok(())
    }

    /// What comes after the files.
    fn let_go(&self, journal: Journal, swaps: &[Swap], of_containerd: bool) -> Result<(), Failed> {
        let had_units = journal.had_units();
        let mut on_hold = self.on_hold(swaps)?;
        if self.wants_restart() && (of_containerd || !on_hold.is_empty()) {
            self.restart_containerd(
                "then run tidehold setup --undo --restart again: what is left to be done is remembered",
            )?;
            on_hold = self.on_hold(swaps)?;
        }
        // What it pulled until just now.
        for swap in swaps {
            self.give_back(swap, REMEMBERED)?;
        }
        if let Some((swap, state)) = on_hold.first() {
            let why = match state {
                State::OnHold => "still runs with Tidehold as its content store",
                State::Own | State::Stopped | State::Silent => "does not say which content store it has",
            };
            let what = format!("the containerd at {} {why}", socket(swap).display());
            let next = "systemctl restart containerd, and then tidehold setup --undo again, which looks after what it \
                        has pulled until then; Tidehold must stay for as long";
            if self.wants_restart() {
                return Err(anyhow!(
                    "{what}, although it was restarted: look at its log, and then run {next}"
                )
                .into());
            }
            print(&what)?;
            return print(&format!("next: {next}"));
        }
        if had_units {
            match self.wants_restart() {
                true => Units::of(self).stop()?,
                false => print(&format!("next: {}", Units::stopping()))?,
            }
        } else if !self.wants_restart() {
            print("next: stop tidehold, if nobody else here uses it")?;
        }
        if of_containerd && swaps.is_empty() && !self.wants_restart() {
            print("and: systemctl restart containerd, so that it reads its configuration again")?;
        }
        journal.close().context("remove what was kept")?;
        self.tell_of_the_hold(swaps)
    }

    /// The hold is nobody's to remove by the way: it may be what the next setup begins with.
    fn tell_of_the_hold(&self, swaps: &[Swap]) -> Result<(), Failed> {
        let folder = match swaps.first() {
            Some(swap) => swap.data_dir.clone(),
            None => match self.tidehold_config() {
                Ok(config) => config.data_dir,
                // What is wrong with it, its own commands say.
                Err(_) => return Ok(()),
            },
        };
        let bytes = held(&self.root, &folder);
        if bytes == 0 {
            return Ok(());
        }
        let (folder, size) = (folder.display(), size(bytes));
        print(&format!(
            "what was held stays in {folder}, {size}: once Tidehold does not run any more, rm -r {folder} removes it"
        ))
    }

    /// The containerds that may still put into the hold what they pull.
    fn on_hold<'s>(&self, swaps: &'s [Swap]) -> Result<Vec<(&'s Swap, State)>, Failed> {
        let mut left = Vec::new();
        for swap in swaps {
            match running::state(&seen(&self.root, socket(swap)))? {
                State::Own | State::Stopped => {}
                state @ (State::OnHold | State::Silent) => left.push((swap, state)),
            }
        }
        Ok(left)
    }

    /// How many blobs a containerd relies on that are not in its own store.
    fn owed(&self, swap: &Swap) -> Result<usize, Failed> {
        let blobs = swap.root.join(BUILTIN_STORE).join("blobs");
        let lacking = lacking(&self.root, &swap.data_dir, &swap.containerd, &blobs)
            .with_context(|| format!("look at {}", swap.data_dir.display()))?;
        let at = seen(&self.root, socket(swap));
        match lacking.is_empty() || running::state(&at)? != State::Own {
            true => Ok(lacking.len()),
            // What it has removed since is owed to nobody, and of that Tidehold is not told.
            false => running::relied_on(&at, &lacking),
        }
    }

    /// Has all that a containerd relies on in its own store again.
    fn give_back(&self, swap: &Swap, so: &str) -> Result<(), Failed> {
        let owed = self.owed(swap)?;
        if owed == 0 {
            return Ok(());
        }
        print(&format!("giving {} back to {}", count(owed as u64, "blob"), swap.root.display()))?;
        let mut options = vec!["--undo"];
        if !self.daemon_answers(so)? {
            print("the daemon does not run, so the hold is opened without it")?;
            options.push("--offline");
        }
        let ended = self.adopt(swap, &options)?;
        if ended.success() && self.owed(swap)? == 0 {
            return Ok(());
        }
        Err(anyhow!(
            "{}: run `tidehold adopt --undo` (with --offline where the daemon cannot run) until it succeeds, and then this \
             again; {so}",
            told_owed("containerd", owed)
        )
        .into())
    }

    fn daemon_answers(&self, so: &str) -> Result<bool, Failed> {
        let config = self.tidehold_config()?;
        match ready::presence(self, &config)? {
            Presence::Silent { what, mend } => Err(ready::silent(&what, &mend, so)),
            Presence::Since(_) => Ok(true),
            // Without its configuration the hold can only be opened where it is.
            Presence::NotYet => {
                let socket = seen(&self.root, &config.control.socket);
                Ok(self.root != Path::new("/") || UnixStream::connect(socket).is_ok())
            }
        }
    }
}

fn refuse(conflicts: &[Conflict]) -> Result<(), Failed> {
    for conflict in conflicts {
        print(&format!("{} was changed since setup wrote it:", conflict.path.display()))?;
        shown::bytes(&conflict.path, Some(&conflict.written), conflict.now.as_deref())?;
    }
    let Some(first) = conflicts.first() else { return Ok(()) };
    Err(anyhow!(
        "{} cannot be taken back without losing that change: take it out yourself and run this again, or \
         restore the file as it was before setup with --force, which keeps what it has now as {}.changed; nothing \
         was changed",
        first.path.display(),
        first.path.display()
    )
    .into())
}
