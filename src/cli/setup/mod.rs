//! `tidehold setup`: tells what is on this node of Tidehold, and takes that out again.
//!
//! First everything is looked at and the changes are worked out; then they are shown; only then, and after a yes, is
//! anything written.

mod egress;
mod next;
mod plan;
mod ready;
mod refusals;
mod registries;
mod removable;
mod running;
mod secrets;
mod shown;
mod undo;
mod units;
mod writable;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, anyhow};
use clap::Args;
use tidehold::config::Config;
use tidehold::node::containerd::{BUILTIN_STORE, CONFIG};
use tidehold::node::discover::blobs;
use tidehold::node::files::seen;
use tidehold::node::hosts::{DEFAULT, FILE};
use tidehold::node::journal::{Change, Journal, JournalError, Swap};

use super::doctor::Presence;
use super::relied::{adoption, socket};
use super::{DEFAULT_JOURNAL, Failed};
use next::Restart;
use plan::Plan;
use running::State;
use units::{Start, Units};

const NOTHING_CHANGED: &str = "nothing was changed";

#[derive(Args)]
pub(crate) struct Setup {
    /// Show what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take back all that setup has changed, byte for byte
    #[arg(long, conflicts_with_all = ["mirror_only", "registry", "podman", "docker", "buildkit"])]
    undo: bool,
    /// With --undo: also where somebody changed a file since; what it has is kept beside it as FILE.changed
    #[arg(long, requires = "undo")]
    force: bool,
    /// Say whether the hold and the program can be removed without anybody missing them: 0 if so, else 1 and why not
    #[arg(long, conflicts_with_all = ["undo", "dry_run", "restart", "restart_with"])]
    may_remove: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Start Tidehold and restart containerd at the end
    #[arg(long)]
    restart: bool,
    /// How containerd is restarted, where that is not `systemctl restart containerd`
    #[arg(long, value_name = "COMMAND")]
    restart_with: Option<String>,
    /// Have images asked for at Tidehold, and leave the content store alone
    #[arg(long)]
    mirror_only: bool,
    /// For this registry alone (may be repeated); without it for all
    #[arg(long, value_name = "REGISTRY")]
    registry: Vec<String>,
    /// Tell podman too
    #[arg(long)]
    podman: bool,
    /// Tell dockerd too, which asks mirrors for Docker Hub alone
    #[arg(long)]
    docker: bool,
    /// Tell BuildKit too
    #[arg(long)]
    buildkit: bool,
    /// Where the node's file system is seen from here, such as /host in a container
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    containerd_config: PathBuf,
    /// Where containerd keeps things, where it does not run and nothing says so
    #[arg(long, value_name = "DIR")]
    containerd_root: Option<PathBuf>,
    /// containerd's version, such as 1.7, where it cannot be found out
    #[arg(long, value_name = "VERSION")]
    containerd_version: Option<String>,
    /// The containerd, by its name in Tidehold's configuration; without it, the only one there
    #[arg(long, value_name = "NAME")]
    containerd: Option<String>,
    /// The folder with the hosts of registries; without it the one that containerd reads already, or the usual one
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,
    /// The program tidehold, as the node sees it; without it this one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where what was changed is kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_JOURNAL)]
    journal: PathBuf,
    /// Leave systemd alone
    #[arg(long)]
    no_units: bool,
    /// Tidehold's configuration; without one, /etc/tidehold/config.toml where it is there, else the defaults
    #[arg(long, env = "TIDEHOLD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match (self.may_remove, self.undo) {
            (true, _) => self.may_be_removed(),
            (false, true) => self.take_out(),
            (false, false) => self.put_in(),
        }
    }

    fn may_be_removed(&self) -> Result<(), Failed> {
        let reasons = removable::reasons(self)?;
        if reasons.is_empty() {
            return super::print("nothing on this node relies on Tidehold");
        }
        Err(anyhow!("Tidehold is not to be removed yet:\n  {}", reasons.join("\n  ")).into())
    }

    fn put_in(&self) -> Result<(), Failed> {
        let config = self.tidehold_config()?;
        self.can_restart()?;
        self.hosts_dir_is_one_folder()?;
        let mut journal = Journal::open(&self.root, &self.journal).context("read what was changed before")?;
        if let Some(note) = refusals::before(self, &journal)? {
            super::print(note)?;
        }
        if !self.dry_run {
            writable::all(self, [writable::journal(self).as_path()], NOTHING_CHANGED)?;
            journal.begin().map_err(anyhow::Error::from)?;
        }
        let plan = Plan::make(self, &config)?;
        for note in &plan.notes {
            super::print(note)?;
        }
        if plan.count() == 0 {
            if plan.left.is_none() {
                super::print("nothing to change")?;
            }
        } else {
            for link in &plan.links {
                shown::link(link, "+", "\x1b[32m")?;
            }
            for change in &plan.changes {
                shown::change(&change.path, change.before.as_deref(), Some(&change.after))?;
            }
            if self.dry_run {
                return super::print(&format!("{} would be changed", shown::files(plan.count())));
            }
            writable::all(self, plan.places(), NOTHING_CHANGED)?;
            ready::ports_are_free(self, &config)?;
        }
        if self.dry_run {
            return next::owed(plan.restart).map_or(Ok(()), super::print);
        }
        let start = match self.wants_restart() {
            true => Some(self.start_needed(&plan, &config, &journal)?),
            false => None,
        };
        if let Some(what) = next::asked(&plan, self.wants_restart()) {
            self.confirm(&what)?;
        }
        if let Some(start) = start {
            journal = self.start(&plan, &config, journal, start)?;
            if let Some(swap) = plan.swap.as_ref().filter(|_| plan.came_since > 0) {
                // Where that fails containerd is not told of it.
                self.take_the_last(swap).map_err(|failed| {
                    let runs = if Units::of(self).are_here() { "runs and is enabled" } else { "runs" };
                    failed.with(&format!(
                        "Tidehold {runs}, and containerd was not touched: once `{}` succeeds, run this again; \
                         tidehold setup --undo takes Tidehold out",
                        adoption(swap)
                    ))
                })?;
            }
        }
        if let Some(debt) = plan.debt {
            journal.owe(debt);
        }
        // What is written already is so once more.
        let left = |change: &&Change| !self.wants_restart() || !Units::is_one(&change.path);
        let mut left: Vec<Change> = plan.changes.iter().filter(left).cloned().collect();
        // What hides other folders with hosts comes last: whoever goes on after a run that was cut short still finds them.
        let of_default = Path::new(DEFAULT).join(FILE);
        left.sort_by_key(|change| (!change.path.ends_with(FILE), change.path.ends_with(&of_default)));
        journal.link(&plan.links).map_err(stopped)?;
        journal.apply(&left, plan.swap.clone()).map_err(stopped)?;
        if plan.count() > 0 {
            super::print(&format!("{} changed", shown::files(plan.count())))?;
        }
        if let Some((swap, count)) = &plan.left {
            self.take_what_was_left(swap, *count)?;
        }
        if self.wants_restart() {
            self.hand_over(&plan)?;
        }
        if self.wants_restart() || plan.restart == Restart::Needless {
            journal.settle().context("note that containerd was started")?;
        }
        for line in next::steps(&plan, self.wants_restart()) {
            super::print(&line)?;
        }
        Ok(())
    }

    fn take_what_was_left(&self, swap: &Swap, count: usize) -> Result<(), Failed> {
        super::print(&format!("taking over {count} blobs that containerd looks for in Tidehold"))?;
        if self.adopt(swap, &[])?.success() && running::left_behind(self, swap)? == 0 {
            return Ok(());
        }
        Err(anyhow!(
            "containerd relies on blobs that Tidehold has not taken over, and can use none of their images: once Tidehold runs, \
             run {}",
            adoption(swap)
        )
        .into())
    }

    /// What it takes to have Tidehold run; one that answers nobody is no use to wait for.
    fn start_needed(&self, plan: &Plan, config: &Config, journal: &Journal) -> Result<Start, Failed> {
        let presence = ready::presence(self, config)?;
        let since = match presence {
            Presence::Since(since) => Some(since),
            Presence::NotYet | Presence::Silent { .. } => None,
        };
        let needed = Units::of(self).start_needed(journal, &plan.units(), since);
        match presence {
            Presence::Silent { what, mend } if needed != Start::Anew => {
                Err(ready::silent(&what, &mend, "nothing was changed"))
            }
            Presence::Silent { .. } | Presence::Since(_) | Presence::NotYet => Ok(needed),
        }
    }

    /// Starts Tidehold before anybody is told of it. Where that fails nothing is left of it.
    fn start(
        &self,
        plan: &Plan,
        config: &Config,
        mut journal: Journal,
        needed: Start,
    ) -> Result<Journal, Failed> {
        let was_empty = journal.is_empty();
        let units = plan.units();
        journal.apply(&units, None).map_err(stopped)?;
        let of_units = Units::of(self);
        let started =
            of_units.start(needed).and_then(|()| match of_units.are_here() || plan.swap.is_some() {
                true => ready::answers(self, config),
                false => Ok(()),
            });
        let Err(failed) = started else { return Ok(journal) };
        let so = match was_empty && !units.is_empty() {
            true if self.back_out(journal).is_ok() => "all is as it was",
            true => "containerd is as it was; take the units out again with tidehold setup --undo",
            false => "containerd is as it was",
        };
        Err(failed.with(&format!("Tidehold was not started, and {so}")))
    }

    fn back_out(&self, mut journal: Journal) -> Result<(), Failed> {
        let units = Units::of(self);
        units.disable()?;
        let (restorations, _) = journal.undo_plan(false).context("look at the units")?;
        journal.restore(&restorations, false, true).context("take the units out")?;
        units.stop()?;
        Ok(journal.close().context("take the units out")?)
    }

    fn tidehold_config(&self) -> Result<Config, Failed> {
        super::load(self.tidehold_config_file().as_deref())
    }

    fn tidehold_config_file(&self) -> Option<PathBuf> {
        let usual = || Some(seen(&self.root, Path::new(super::DEFAULT_CONFIG))).filter(|file| file.exists());
        self.config.clone().or_else(usual)
    }

    /// That what is asked for at the end can be done, before anything is.
    fn can_restart(&self) -> Result<(), Failed> {
        if self.restart && self.restart_with.is_none() && !self.dry_run {
            Units::of(self).must_run()?;
        }
        Ok(())
    }

    /// That `config_path` can name it: containerd takes it from wherever it was started, and a colon for two.
    fn hosts_dir_is_one_folder(&self) -> Result<(), Failed> {
        match &self.hosts_dir {
            Some(folder) if !folder.is_absolute() => Err(Failed::Usage(format!(
                "tidehold: --hosts-dir {}: containerd needs the whole path, from / on; nothing was changed",
                folder.display()
            ))),
            Some(folder) if folder.to_string_lossy().contains(':') => Err(Failed::Usage(format!(
                "tidehold: --hosts-dir {}: containerd takes a colon for the end of a folder's name: name one folder; \
                 nothing was changed",
                folder.display()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn wants_restart(&self) -> bool {
        self.restart || self.restart_with.is_some()
    }

    /// Asks on a terminal; elsewhere nobody can say yes but by an option.
    fn confirm(&self, what: &str) -> Result<(), Failed> {
        if self.yes {
            return Ok(());
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failed::Usage(format!(
                "tidehold: this is no terminal, so nobody can be asked whether to {what}: add --yes to do it, or --dry-run \
                 to only look; nothing was changed"
            )));
        }
        let mut stdout = std::io::stdout().lock();
        write!(stdout, "{what}? [y/N] ").and_then(|()| stdout.flush()).context("write to standard output")?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).context("read from the terminal")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(anyhow!("nothing was changed").into()),
        }
    }

    fn hand_over(&self, plan: &Plan) -> Result<(), Failed> {
        if let Some(swap) = &plan.swap {
            // It may have pulled since it was looked at.
            self.take_the_last(swap).map_err(|failed| {
                failed.with(&format!(
                    "Tidehold runs, and containerd, which is told of it, was not restarted: once `{}` succeeds, run this again",
                    adoption(swap)
                ))
            })?;
        }
        if plan.restart.is_due() {
            self.restart_containerd("take all back with tidehold setup --undo --restart")?;
        }
        if let Some(swap) = &plan.swap {
            let socket = seen(&self.root, socket(swap));
            let state = running::settled(&socket)?;
            let taken = self.take_the_last(swap);
            self.has_the_hold(swap, state, plan.runs)?;
            taken.map_err(|failed| {
                let so = "Tidehold runs, and containerd has it as its content store";
                failed.with(&format!("{so}: run `{}` until it succeeds", adoption(swap)))
            })?;
        }
        Ok(())
    }

    /// That the restart was one.
    fn has_the_hold(&self, swap: &Swap, state: State, ran: bool) -> Result<(), Failed> {
        let (at, socket) = (self.containerd_config.display(), socket(swap).display());
        let why = match state {
            State::OnHold => return Ok(()),
            State::Stopped if !ran => {
                return super::print(&format!(
                    "no containerd answers at {socket}: once one is started with {at}, Tidehold is its content store"
                ));
            }
            State::Own => {
                format!("still has its own content store: it was not started again, or not with {at}")
            }
            State::Stopped | State::Silent => "does not answer: look at its log".to_owned(),
        };
        Err(anyhow!(
            "the containerd at {socket} was to be restarted and {why}. Owed: start it again (systemctl restart containerd), \
             and then, for what it has pulled until that: {}",
            adoption(swap)
        )
        .into())
    }

    /// What containerd has pulled into its own store until it was restarted.
    fn take_the_last(&self, swap: &Swap) -> Result<(), Failed> {
        let folder = swap.root.join(BUILTIN_STORE).join("blobs");
        let found = blobs(&self.root, &folder, &swap.data_dir, &swap.containerd, None);
        let found = found.with_context(|| format!("look at {}", folder.display()))?;
        if found.not_taken == 0 {
            return Ok(());
        }
        super::print(&format!("taking over {} blobs that came meanwhile", found.not_taken))?;
        if self.adopt(swap, &[])?.success() {
            return Ok(());
        }
        Err(anyhow!("not all that containerd has pulled meanwhile was taken over").into())
    }

    /// Runs `tidehold adopt` for a containerd, with more options.
    fn adopt(&self, swap: &Swap, options: &[&str]) -> Result<ExitStatus, Failed> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg("adopt").args(options).args([
            "--within-setup",
            "--containerd",
            &swap.containerd,
            "--from",
        ]);
        command.arg(seen(&self.root, &swap.root));
        if !swap.socket.as_os_str().is_empty() {
            command.arg("--address").arg(seen(&self.root, &swap.socket));
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if self.root != Path::new("/") {
            command.arg("--data-dir").arg(seen(&self.root, &swap.data_dir));
        }
        Ok(command.status().context("run tidehold adopt")?)
    }

    /// Where it fails, that is said with what else can be done.
    fn restart_containerd(&self, or_else: &str) -> Result<(), Failed> {
        let mut command = match &self.restart_with {
            Some(asked) => {
                let mut command = Command::new("sh");
                command.args(["-c", asked]);
                command
            }
            None => {
                let mut command = Command::new("systemctl");
                command.args(["restart", "containerd"]);
                command
            }
        };
        shown::running(&command)?;
        let ended = command.status().context("restart containerd")?;
        if ended.success() {
            return Ok(());
        }
        Err(anyhow!("containerd was not restarted ({ended}): look at its log, and {or_else}").into())
    }
}

/// What is so where it could not all be written.
fn stopped(error: JournalError) -> anyhow::Error {
    let so = match error {
        JournalError::Io { .. } => {
            "setup has stopped half-way: mend what follows and run it again, which goes on with it, or take back what is done \
             with tidehold setup --undo"
        }
        _ => "write",
    };
    anyhow::Error::from(error).context(so)
}
