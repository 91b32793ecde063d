//! Whose a process is, as its group of processes (cgroups(7)) tells: a service's, a container's or nobody's.
//!
//! A name is taken for a unit's only where systemd puts it, and only where it can stand in a command: below that place
//! anybody to whom systemd has delegated a group names it as they like.

use std::fs;

/// The services that run what others have asked them to.
const DOCKER: [&str; 2] = ["docker", "snap.docker.dockerd"];
const KUBERNETES: [&str; 10] = [
    "containerd",
    "kubelet",
    "k3s",
    "rke2",
    "k0s",
    "k0scontroller",
    "k0sworker",
    "crio",
    "cri-o",
    "snap.microk8s",
];

/// A unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: String,
    /// The number of the user whose service manager has it; none where it is the system's.
    pub(super) user: Option<u32>,
}

impl Unit {
    /// A command of systemctl on it.
    pub(super) fn systemctl(&self, what: &str) -> String {
        let Self { name, user } = self;
        match user {
            None => format!("systemctl {what} {name}"),
            Some(user) => format!("systemctl --user {what} {name}    # as the user {user}"),
        }
    }
}

/// Whose a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// A service that ends with it: all others of the service were started by it.
    Service(Unit),
    /// One of several in a service, which may be there for something else.
    Part(Unit),
    /// Docker, for one of its containers.
    Docker(Option<Unit>),
    /// What runs pods, for one of them.
    Pods(Option<Unit>),
    /// A container by itself.
    Container {
        /// The command that it was made with, where that is known.
        of: Option<&'static str>,
        /// The first digits of its name.
        id: String,
    },
    /// A process by itself.
    Own,
}

impl Whose {
    /// The service, where there is one.
    pub(super) fn unit(&self) -> Option<&Unit> {
        match self {
            Self::Service(unit) | Self::Part(unit) | Self::Docker(Some(unit)) | Self::Pods(Some(unit)) => {
                Some(unit)
            }
            Self::Docker(None) | Self::Pods(None) | Self::Container { .. } | Self::Own => None,
        }
    }
}

/// A process among all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// The path of its group.
    pub(super) group: String,
}

/// All processes that can be seen.
pub(super) fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.filter_map(|pid: u32| {
        let about = |name: &str| {
            Some(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).ok()?).into_owned())
        };
        // proc(5): field 4. What comes before it in parentheses may hold spaces.
        let parent = about("stat")?.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some(Process { pid, parent, group: group(&about("cgroup")?).to_owned() })
    });
    found.collect()
}

/// The group that systemd has put a process into, of all hierarchies.
fn group(groups: &str) -> &str {
    let mut found = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    });
    found.find(|path| *path != "/").unwrap_or_default()
}

/// Whose a process of this name is.
pub(super) fn whose(pid: u32, program: &str, all: &[Process]) -> Whose {
    let group = all.iter().find(|one| one.pid == pid).map(|one| one.group.as_str()).unwrap_or_default();
    let unit = unit(group);
    if matches!(program, "dockerd" | "docker-proxy")
        || unit.as_ref().is_some_and(|unit| is_one(unit, &DOCKER, &['@']))
    {
        return Whose::Docker(unit);
    }
    if let Some(container) = container(group) {
        return container;
    }
    match unit {
        None => Whose::Own,
        Some(unit) if is_one(&unit, &KUBERNETES, &['@', '-', '.']) => Whose::Pods(Some(unit)),
        Some(unit) if is_first(pid, &unit, all) => Whose::Service(unit),
        Some(unit) => Whose::Part(unit),
    }
}

/// Whether a service has one of these names, or one that goes on after it so: there is a `k3s-agent`, and a `docker-registry`
/// that is not docker's.
fn is_one(unit: &Unit, names: &[&str], after: &[char]) -> bool {
    let name = unit.name.trim_end_matches(".service");
    let rest =
        |one: &&str| name.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with(after));
    names.iter().any(rest)
}

/// Whether a process is the only one of its service that was started from outside of it.
fn is_first(pid: u32, unit: &Unit, all: &[Process]) -> bool {
    let within: Vec<&Process> =
        all.iter().filter(|one| self::unit(&one.group).as_ref() == Some(unit)).collect();
    let mut firsts = within.iter().filter(|one| !within.iter().any(|other| other.pid == one.parent));
    firsts.next().is_some_and(|first| first.pid == pid) && firsts.next().is_none()
}

/// The service that a group is of: the first below the slices (systemd.slice(5)), or that of the user's own manager.
fn unit(group: &str) -> Option<Unit> {
    let mut parts = group.split('/').filter(|part| !matches!(*part, "" | "..") && !part.ends_with(".slice"));
    let first = parts.next()?;
    let user = first.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
    let (name, user) = match user {
        Some(user) => (parts.next()?, Some(user.parse().ok()?)),
        None => (first, None),
    };
    is_name(name).then(|| Unit { name: name.to_owned(), user })
}

/// Whether that is the name of a service that means nothing else to a shell or to systemctl.
fn is_name(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".service") else { return false };
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_@.:-".contains(&byte);
    stem.bytes().all(fine) && stem.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
}

/// Whose a container's group is: the last part with a name as containers have, `docker-<id>.scope` or `docker/<id>`.
fn container(group: &str) -> Option<Whose> {
    if group.contains("kubepods") {
        return Some(Whose::Pods(None));
    }
    let mut above = "";
    let mut found = None;
    for part in group.split('/') {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let (maker, id) = name.rsplit_once(['-', ':']).unwrap_or((above, name));
        if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            found = Some((maker, id));
        }
        above = part;
    }
    let (maker, id) = found?;
    if maker.starts_with("cri") {
        return Some(Whose::Pods(None));
    }
    let makers = [("docker", "docker"), ("libpod", "podman"), ("nerdctl", "nerdctl")];
    let of = makers.iter().find(|(prefix, _)| maker.starts_with(prefix)).map(|(_, command)| *command);
    Some(Whose::Container { of, id: id.get(..12).unwrap_or(id).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn process(pid: u32, parent: u32, group: &str) -> Process {
        Process { pid, parent, group: group.replace("ID", ID) }
    }

    fn of(group: &str) -> Whose {
        whose(7, "x", &[process(7, 1, group)])
    }

    fn system(name: &str) -> Unit {
        Unit { name: name.to_owned(), user: None }
    }

    #[test]
    fn a_group_is_that_of_systemds_hierarchy() {
        assert_eq!(group("0::/system.slice/nginx.service\n"), "/system.slice/nginx.service");
        assert_eq!(group("12:cpu,cpuacct:/x.service\n1:name=systemd:/a.service\n0::/\n"), "/a.service");
        assert_eq!(group("12:cpu:/x\n0::/user.slice/session-1.scope\n"), "/user.slice/session-1.scope");
        assert!(group("nothing\n").is_empty());
    }

    #[test]
    fn a_service_is_where_systemd_puts_it_and_nowhere_below() {
        for (group, name) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/a.slice/a-b.slice/getty@tty1.service", "getty@tty1.service"),
            ("/../../system.slice/nginx.service", "nginx.service"),
            ("/system.slice/mine.service/sshd.service", "mine.service"),
        ] {
            assert_eq!(of(group), Whose::Service(system(name)), "{group}");
        }
        let own = Unit { name: "x.service".to_owned(), user: Some(1000) };
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(of(&format!("{manager}/app.slice/x.service")), Whose::Service(own.clone()));
        assert_eq!(own.systemctl("stop"), "systemctl --user stop x.service    # as the user 1000");
        for group in [
            "",
            "/user.slice/user-0.slice/session-1.scope",
            "/session-1.scope/nginx.service",
            "/system.slice/x;reboot;.service",
            "/system.slice/x y.service",
            "/system.slice/--now.service",
            "/system.slice/$(reboot).service",
            "/system.slice/.service",
            "/user.slice/user-1.slice/user@1.service/x;reboot.service",
            "/user.slice/user-1.slice/user@x.service/x.service",
        ] {
            assert_eq!(of(group), Whose::Own, "{group}");
        }
    }

    #[test]
    fn a_service_ends_with_the_one_process_that_has_started_all_others() {
        let at = "/system.slice/n.service";
        let whole = [process(1, 0, "/init.scope"), process(7, 1, at), process(9, 7, at), process(5, 9, at)];
        assert_eq!(whose(7, "n", &whole), Whose::Service(system("n.service")));
        for pid in [9, 5] {
            assert_eq!(whose(pid, "n", &whole), Whose::Part(system("n.service")), "{pid}");
        }
        // What cron has started, and nobody waits for any more.
        let left = [process(7, 1, at), process(9, 1, at)];
        assert_eq!(whose(9, "n", &left), Whose::Part(system("n.service")));
        assert_eq!(whose(9, "n", &[]), Whose::Own);
    }

    #[test]
    fn what_is_there_for_containers_is_never_a_service_to_be_stopped() {
        let at = "/system.slice/docker.service";
        let all = [process(7, 1, at), process(9, 7, at)];
        for (pid, program) in [(9, "docker-proxy"), (7, "dockerd"), (7, "x")] {
            assert_eq!(whose(pid, program, &all), Whose::Docker(Some(system("docker.service"))));
        }
        assert_eq!(whose(7, "docker-proxy", &[process(7, 1, "")]), Whose::Docker(None));
        for name in ["containerd", "kubelet", "k3s", "k3s-agent", "rke2-server", "k0sworker", "crio"] {
            let unit = system(&format!("{name}.service"));
            assert_eq!(of(&format!("/system.slice/{}", unit.name)), Whose::Pods(Some(unit)));
        }
        for name in ["docker-registry.service", "containerdx.service"] {
            assert_eq!(of(&format!("/system.slice/{name}")), Whose::Service(system(name)));
        }
        for pod in
            ["/kubepods/besteffort/pod1/ID", "/kubepods.slice/a.slice/cri-containerd-ID.scope", "/x/crio-ID"]
        {
            assert_eq!(of(pod), Whose::Pods(None), "{pod}");
        }
        let id = || "0123456789ab".to_owned();
        for (group, of_whom) in [
            ("/system.slice/docker-ID.scope", Some("docker")),
            ("/docker/ID", Some("docker")),
            ("/machine.slice/libpod-ID.scope/container", Some("podman")),
            ("/system.slice/nerdctl-ID.scope", Some("nerdctl")),
            ("/default/ID", None),
        ] {
            assert_eq!(of(group), Whose::Container { of: of_whom, id: id() }, "{group}");
        }
    }

    #[test]
    fn this_process_is_among_all() {
        let all = processes();
        let own = all.iter().find(|one| one.pid == std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }
}
