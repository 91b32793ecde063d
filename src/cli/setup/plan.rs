//! What setup would change: found out and worked out here, written nowhere.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use tidehold::config::{Config, Containerd};
use tidehold::node::containerd::{File, HOSTS, Settings, Version};
use tidehold::node::discover::{Client, distributions, has_containerd, nerdctl_hosts, program};
use tidehold::node::edits::{
    DIFFER, Differ, Refusal, Store, WALKING, Wanted, buildkit, configure, docker, podman, transfer_differs,
};
use tidehold::node::files::{seen, text};
use tidehold::node::journal::{Change, Debt, Journal, Link, Swap};
use tidehold::oci::{Platform, Registry};

use super::super::Failed;
use super::super::relied::told_behind;
use super::Setup;
use super::egress;
use super::next::{Known, Restart};
use super::refusals::{may_have_config_path, may_swap, may_tell_podman, refused, swap};
use super::registries::{self, Folder, Hidden};
use super::running::{self, Found, Running};
use super::units::Units;

/// Docker Hub, as people and podman name it.
pub(super) const HUB: &str = "docker.io";

/// podman's file of ours.
pub(super) const PODMAN: &str = "/etc/containers/registries.conf.d/tidehold.conf";

/// The changes, and what to say beside them.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// Made before the files are changed.
    pub(super) links: Vec<Link>,
    pub(super) notes: Vec<String>,
    pub(super) swap: Option<Swap>,
    /// How many blobs a containerd that has the hold already relies on that are in its former store alone.
    pub(super) left: Option<(Swap, usize)>,
    /// How many blobs came into it since it was taken over, and are still to be.
    pub(super) came_since: u64,
    pub(super) restart: Restart,
    /// What it is owed from when its files are written until it was started since.
    pub(super) debt: Option<Debt>,
    pub(super) has_containerd: bool,
    /// Whether it runs.
    pub(super) runs: bool,
}

impl Plan {
    pub(super) fn make(setup: &Setup, config: &Config) -> Result<Self, Failed> {
        let mirror = mirror(config)?;
        let registries = registries(setup)?;
        let has_containerd = has_containerd(&setup.root, &setup.containerd_config);
        let mut plan = Self { has_containerd, ..Self::default() };
        let mut folders: Vec<Folder> = Vec::new();
        if has_containerd {
            folders.push(plan.containerd(setup, config)?);
        }
        plan.distributions(setup, &mirror);
        if Client::Nerdctl.is_there(&setup.root) {
            let looks = nerdctl_hosts(&setup.root).context("read nerdctl's configuration")?;
            plan.notes.push(registries::of_nerdctl(&mut folders, &looks, &registries));
        }
        for folder in &folders {
            plan.hosts(setup, folder, &registries, &mirror)?;
        }
        plan.others(setup, &registries, &mirror)?;
        if !has_containerd && plan.changes.is_empty() && folders.is_empty() {
            let told: String = plan.notes.iter().map(|note| format!("{note}; ")).collect();
            return Err(anyhow!(
                "{told}no containerd was found at {}: name its configuration with --containerd-config, or the clients to tell of \
                 Tidehold with --podman, --docker or --buildkit",
                setup.root.display()
            )
            .into());
        }
        let units = Units::of(setup).wanted(config, setup, &program_path(setup)?)?;
        for (path, after) in units {
            plan.change(setup, &path, |_| Ok(after))?;
        }
        Ok(plan)
    }

    /// The changes of systemd's units alone.
    pub(super) fn units(&self) -> Vec<Change> {
        self.changes.iter().filter(|change| Units::is_one(&change.path)).cloned().collect()
    }

    /// How many files, and links, it comes to.
    pub(super) fn count(&self) -> usize {
        self.changes.len() + self.links.len()
    }

    /// Where it is written: files, and folders in which links are made.
    pub(super) fn places(&self) -> impl Iterator<Item = &Path> {
        let folders = self.links.iter().filter_map(|link| link.path.parent());
        self.changes.iter().map(|change| change.path.as_path()).chain(folders)
    }

    /// containerd's own configuration. Answers the folder with the hosts of its registries.
    fn containerd(&mut self, setup: &Setup, config: &Config) -> Result<Folder, Failed> {
        let main = &setup.containerd_config;
        let Found { mut files, settings, running, flags } = running::found(setup)?;
        self.runs = running.is_some();
        let version = version(setup, &settings, running.as_ref())?;
        let mut settings = Settings::read(&files, version).map_err(anyhow::Error::from)?;
        running::tell(setup, &mut settings, flags.as_ref());
        let told = version.map_or_else(|| "containerd".to_owned(), |version| format!("containerd {version}"));
        self.notes.push(match files.is_empty() {
            true => format!("found {told}, without a configuration at {}", main.display()),
            false => format!("found {told}, configured by {}", main.display()),
        });
        self.notes.extend(egress::note(setup, running.as_ref()));

        let folder = match (&setup.hosts_dir, settings.hosts_folders().first()) {
            (Some(folder), _) => folder.clone(),
            (None, Some(first)) => PathBuf::from(first),
            (None, None) => PathBuf::from(HOSTS),
        };
        let folder_text = folder.to_str().ok_or_else(|| anyhow!("the folder of the hosts is no UTF-8"))?;
        let mut read_till_now = Vec::new();
        let hosts = if settings.cri_disabled() {
            self.notes.push(format!(
                "its CRI is disabled, so nothing in {} tells of hosts: nerdctl, and ctr with --hosts-dir, look there by themselves",
                main.display()
            ));
            None
        } else {
            may_have_config_path(main, &settings, version)?;
            read_till_now = settings.folders_that_are_read(version).into_iter().map(PathBuf::from).collect();
            (settings.hosts != folder_text).then_some(folder_text)
        };

        let of = own(setup, config)?;
        let journal = Journal::open(&setup.root, &setup.journal).context("read what was changed before")?;
        let ours = settings.stores().any(|(_, proxy)| Path::new(&proxy.address) == of.socket);
        let program = program_path(setup)?;
        let platform = Platform::of_this_machine().to_string();
        let store = if setup.mirror_only {
            None
        } else {
            let version = version.ok_or_else(|| {
                anyhow!(
                    "the version of containerd cannot be found out: say it, as in --containerd-version 1.7"
                )
            })?;
            let since = match running.as_ref().map(|running| running.store.is_some()) {
                _ if !(ours && settings.builtin_disabled()) => Some(None),
                // What its files say, it does only from its next start on: what it has pulled until then is its own.
                Some(true) => Some(None),
                Some(false) => {
                    self.look_behind(setup, config, of, &settings, running.as_ref())?;
                    None
                }
                // What was there before, Tidehold had then.
                None => journal.changed().map(Some),
            };
            if let Some(since) = since {
                let (swap, found) = may_swap(setup, config, of, &settings, running.as_ref(), since)?;
                (self.swap, self.came_since) = (Some(swap), found.not_taken);
                if found.not_taken > 0 {
                    self.notes.push(format!(
                        "{} of its {} blobs came since they were taken over, and are so before its store is swapped",
                        found.not_taken, found.count
                    ));
                }
            }
            let mut differ = Differ::of(version, &platform, &program);
            if let Differ::Proxy { walking_is_chosen, .. } = &mut differ {
                let ours = journal.last_written(main).context("read what was changed before")?;
                *walking_is_chosen =
                    transfer_differs(&ours.unwrap_or_default()).iter().any(|name| name == DIFFER);
            }
            Some(Store { socket: &of.socket, differ })
        };
        if files.is_empty() {
            files.push(File { path: main.clone(), text: String::new() });
        }
        let read_at_start: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
        self.edit(setup, &mut files, hosts, store, version)?;
        let written = read_at_start.iter().filter_map(|path| written(setup, path)).max();
        let on_hold = running.as_ref().is_some_and(|running| running.store.is_none());
        self.restart = Restart::of(&Known {
            changed: self.changes.iter().any(|change| read_at_start.contains(&change.path)),
            runs: running.is_some(),
            on_hold,
            gets_the_hold: self.swap.is_some(),
            started: running.as_ref().and_then(|running| running.started),
            written,
            debt: journal.debt(),
        });
        let shows_by_its_store = self.swap.is_some() && !on_hold;
        let debt = if shows_by_its_store { Debt::Store } else { Debt::Files };
        self.debt = (self.restart == Restart::Changed).then_some(debt);
        Ok(Folder { folder, hidden: vec![Hidden { order: read_till_now, by: Vec::new() }] })
    }

    /// What was pulled between a setup and a restart that nobody made by setup is where containerd looks no more.
    fn look_behind(
        &mut self,
        setup: &Setup,
        config: &Config,
        of: &Containerd,
        settings: &Settings,
        running: Option<&Running>,
    ) -> Result<(), Failed> {
        let root = running.and_then(|running| running.root.clone());
        let swap = swap(config, of, settings, root.unwrap_or_else(|| settings.root.clone()));
        let count = running::left_behind(setup, &swap)?;
        if count > 0 {
            self.notes
                .push(format!("{}; they are to be taken over", told_behind("containerd", count, &swap)));
            self.left = Some((swap, count));
        }
        Ok(())
    }

    /// Edits the main file, or the one that it imports and that has the last word.
    fn edit(
        &mut self,
        setup: &Setup,
        files: &mut [File],
        hosts: Option<&str>,
        store: Option<Store<'_>>,
        version: Option<Version>,
    ) -> Result<(), Failed> {
        let before = files.to_vec();
        let is_2 = version.is_some_and(Version::is_2);
        let Some(main) = files.first_mut() else { return Ok(()) };
        main.text = configure(&main.text, &Wanted { hosts, store, is_2 })
            .map_err(|refusal| refused(&main.path, &refusal))?;
        let wanted = hosts.map(str::to_owned);
        let reads = |files: &[File]| Settings::read(files, version).map(|settings| settings.hosts);
        for index in (1..files.len()).rev() {
            let now = reads(files).map_err(anyhow::Error::from)?;
            let (Some(wanted), Some(file)) = (&wanted, files.get_mut(index)) else { break };
            if now == *wanted {
                break;
            }
            let edit = Wanted { hosts: Some(wanted), store: None, is_2 };
            let edited = configure(&file.text, &edit).map_err(|refusal| refused(&file.path, &refusal))?;
            let former = std::mem::replace(&mut file.text, edited);
            if reads(files).map_err(anyhow::Error::from)? != *wanted
                && let Some(file) = files.get_mut(index)
            {
                file.text = former;
            }
        }
        let settings = Settings::read(files, version).map_err(anyhow::Error::from)?;
        if wanted.as_ref().is_some_and(|wanted| settings.hosts != *wanted) {
            let from = settings.hosts_from.unwrap_or_else(|| setup.containerd_config.clone());
            return Err(anyhow!(
                "an imported file has another config_path than the one that is needed: set it to {:?} in {}; nothing was \
                 changed",
                wanted.unwrap_or_default(),
                from.display()
            )
            .into());
        }
        if let Some(store) = store
            && let Some((name, _)) =
                settings.stores().find(|(_, proxy)| Path::new(&proxy.address) != store.socket)
        {
            return Err(anyhow!(
                "an imported file names another content store, [proxy_plugins.{name}]: remove it there, or run this with \
                 --mirror-only; nothing was changed"
            )
            .into());
        }
        if let (Some(store), Some(before), Some(after)) = (store, before.first(), files.first()) {
            self.notes.extend(of_differ(&store, before, after));
        }
        for (file, before) in files.iter().zip(before) {
            let there =
                text(&setup.root, &file.path).with_context(|| format!("read {}", file.path.display()))?;
            if file.text != before.text {
                let (path, after) = (file.path.clone(), file.text.clone());
                self.changes.push(Change { path, before: there, after, mode: None });
            }
        }
        Ok(())
    }

    fn distributions(&mut self, setup: &Setup, mirror: &str) {
        for (name, registries) in distributions(&setup.root) {
            self.notes.push(format!(
                "found {name}, which writes its containerd's configuration itself: give {registries} the lines `mirrors:`, \
                 `  \"*\":`, `    endpoint: [\"{mirror}\"]` and restart {name}"
            ));
        }
    }

    /// The clients that are told only where that is asked for.
    fn others(&mut self, setup: &Setup, named: &[String], mirror: &str) -> Result<(), Failed> {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let registries = if named.is_empty() { vec![HUB] } else { named };
        let asked = [
            (Client::Docker, setup.docker, "--docker"),
            (Client::Podman, setup.podman, "--podman"),
            (Client::BuildKit, setup.buildkit, "--buildkit"),
        ];
        for (client, asked, option) in asked {
            if !asked {
                if client.is_there(&setup.root) {
                    self.notes.push(format!(
                        "found {}, which stays as it is: {option} tells it too",
                        client.name()
                    ));
                }
                continue;
            }
            let config = Path::new(client.config());
            match client {
                Client::Nerdctl => {}
                Client::Docker => {
                    if !registries.contains(&HUB) {
                        self.notes
                            .push("dockerd knows mirrors of docker.io alone, and stays as it is".to_owned());
                        continue;
                    }
                    self.change(setup, config, |before| docker(before, mirror))?;
                }
                Client::Podman => {
                    may_tell_podman(setup, &registries)?;
                    self.change(setup, Path::new(PODMAN), |_| Ok(podman(&registries, mirror)))?;
                }
                Client::BuildKit => {
                    self.change(setup, config, |before| buildkit(before, &registries, mirror))?
                }
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        setup: &Setup,
        path: &Path,
        edit: impl FnOnce(&str) -> Result<String, Refusal>,
    ) -> Result<(), Failed> {
        let before = text(&setup.root, path).with_context(|| format!("read {}", path.display()))?;
        let after = edit(before.as_deref().unwrap_or_default()).map_err(|refusal| refused(path, &refusal))?;
        if before.as_deref() != Some(after.as_str()) {
            self.changes.push(Change { path: path.to_owned(), before, after, mode: None });
        }
        Ok(())
    }
}

/// What becomes of a differ that the transfer service was told of.
fn of_differ(store: &Store<'_>, before: &File, after: &File) -> Option<String> {
    let walks = |file: &File| transfer_differs(&file.text).iter().any(|name| name == WALKING);
    let file = before.path.display();
    match (store.differ, walks(before), walks(after)) {
        (Differ::Proxy { .. }, true, true) => Some(format!(
            "{file} names the differ {WALKING:?} in the unpack_config of the transfer service, and it stays: what is pulled by \
             way of that is unpacked more slowly. Unless this node pulls encrypted images, which need it, write {DIFFER:?} there"
        )),
        (Differ::Proxy { .. }, true, false) => Some(format!(
            "{file} names the differ {WALKING:?} in the unpack_config of the transfer service, as `containerd config default` \
             writes it, and gets {DIFFER:?} there: where this node pulls encrypted images, write {WALKING:?} there again \
             afterwards, and it stays"
        )),
        (Differ::Proxy { .. }, false, _) | (Differ::Processor { .. }, ..) => None,
    }
}

/// The mirror's URL, as clients on this node reach it.
fn mirror(config: &Config) -> Result<String, Failed> {
    let mut at = config.mirror.listen;
    if at.port() == 0 {
        return Err(anyhow!(
            "[mirror] listen has no port that lasts: give it one in Tidehold's configuration"
        )
        .into());
    }
    if at.ip().is_unspecified() {
        at.set_ip(match at.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    Ok(format!("http://{at}"))
}

/// The registries that were named, as containerd names them.
fn registries(setup: &Setup) -> Result<Vec<String>, Failed> {
    let named = setup.registry.iter().map(|name| match name.parse::<Registry>() {
        Ok(registry) => Ok(registry.as_str().to_owned()),
        Err(error) => Err(Failed::Usage(format!("tidehold: --registry {name}: {error}"))),
    });
    named.collect()
}

/// The containerd that is meant, of those that Tidehold's configuration has.
fn own<'c>(setup: &Setup, config: &'c Config) -> Result<&'c Containerd, Failed> {
    let named = |name: &String| config.containerds.iter().find(|containerd| containerd.name == *name);
    let names: Vec<&str> = config.containerds.iter().map(|containerd| containerd.name.as_str()).collect();
    match (&setup.containerd, config.containerds.as_slice()) {
        (Some(name), _) => named(name).ok_or_else(|| {
            Failed::Usage(format!(
                "tidehold: Tidehold's configuration has no containerd {name:?}, but {}",
                names.join(", ")
            ))
        }),
        (None, [one]) => Ok(one),
        (None, _) => Err(Failed::Usage(format!(
            "tidehold: Tidehold's configuration has several containerds: say which this is, with --containerd and one of {}",
            names.join(", ")
        ))),
    }
}

/// When a file of the node was last written.
fn written(setup: &Setup, path: &Path) -> Option<SystemTime> {
    fs::metadata(seen(&setup.root, path)).ok()?.modified().ok()
}

/// The program as the node sees it.
fn program_path(setup: &Setup) -> Result<PathBuf, Failed> {
    match &setup.program {
        Some(program) => named_program(setup, program),
        None if setup.root == Path::new("/") => Ok(std::env::current_exe().context("find this program")?),
        None => Ok(PathBuf::from("/usr/local/bin/tidehold")),
    }
}

/// One that was named, which is to be there by the time that the service is started.
fn named_program(setup: &Setup, program: &Path) -> Result<PathBuf, Failed> {
    let path = Units::of(setup).on_node(program)?;
    let about = fs::metadata(seen(&setup.root, &path));
    match about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0) {
        true => Ok(path),
        false => Err(Failed::Usage(format!(
            "tidehold: --program {}: there is no program on the node at {}; nothing was changed",
            program.display(),
            path.display()
        ))),
    }
}

/// What was said, or what runs, or what would run; or what the configuration gives away.
fn version(setup: &Setup, settings: &Settings, running: Option<&Running>) -> Result<Option<Version>, Failed> {
    if let Some(said) = &setup.containerd_version {
        let version = Version::parse(said).ok_or_else(|| {
            Failed::Usage(format!(
                "tidehold: --containerd-version {said:?} is no version: write it as in 1.7 or 2.1"
            ))
        })?;
        return Ok(Some(version));
    }
    if let Some(version) = running.and_then(|running| running.version) {
        return Ok(Some(version));
    }
    let installed = program(&setup.root, "containerd").and_then(|program| {
        let output = Command::new(seen(&setup.root, &program)).arg("--version").output().ok()?;
        Version::of_program(&String::from_utf8_lossy(&output.stdout))
    });
    Ok(installed.or_else(|| (settings.file_version > 2).then_some(Version { major: 2, minor: 0 })))
}
