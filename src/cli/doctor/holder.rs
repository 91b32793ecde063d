//! Who on this machine listens at a TCP address, as `/proc` tells: `ss -ltnp` without `ss`.
//!
//! Whose process it is, only root sees of those of others.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::finding::RESTART;
use super::whose::{Unit, Whose, processes, whose};
use crate::cli::words::{plain, quoted};

/// TCP_LISTEN, as proc_pid_net(5) has states.
const LISTEN: &str = "0A";

/// Whoever listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// What its program is called.
    pub(super) program: String,
    /// Whose process that is, and so how it ends.
    pub(super) whose: Whose,
}

impl Holder {
    /// Whether it is the daemon itself, or the service manager, which listens for it.
    pub(super) fn is_ours(&self) -> bool {
        self.program == "tidehold" || self.pid == 1
    }

    /// How it is started again, where it is the daemon and answers nobody.
    pub(super) fn restarted(&self) -> String {
        let Self { pid, whose, .. } = self;
        match whose {
            _ if *pid == 1 => RESTART.to_owned(),
            Whose::Service(Unit { name, user: None }) => {
                format!("systemctl restart {name}, and look at: journalctl -u {name} -n 50")
            }
            Whose::Service(unit) => unit.systemctl("restart"),
            Whose::Container { of: Some(of), id } => {
                format!("{of} restart {id}, and look at: {of} logs {id}")
            }
            Whose::Part(_) | Whose::Docker(_) | Whose::Pods(_) | Whose::Container { .. } | Whose::Own => {
                format!("kill {pid}    # or kill -9 {pid}\nstart it again, and look at what it has logged")
            }
        }
    }

    /// How the address becomes free.
    pub(super) fn ended(&self, port: u16) -> String {
        let (pid, program) = (self.pid, quoted(&self.program));
        match &self.whose {
            _ if pid == 1 => {
                format!(
                    "see which socket unit that is, and stop it: systemctl list-sockets | grep ':{port} '"
                )
            }
            Whose::Service(unit) => unit.systemctl("disable --now"),
            Whose::Part(unit) => {
                format!(
                    "{}\nsee there what process {pid} is for, and end that alone",
                    unit.systemctl("status")
                )
            }
            Whose::Docker(_) => format!(
                "docker ps --filter publish={port}\ndocker stop what it names; where it names none, dockerd itself listens: \
                 see hosts in /etc/docker/daemon.json"
            ),
            Whose::Pods(unit) => {
                let own = unit
                    .as_ref()
                    .map(|unit| format!(", or {} itself listens: see what it is told to", unit.name));
                format!(
                    "crictl ps\nremove the pod that has hostPort {port} or is on the host's network{}",
                    own.unwrap_or_default()
                )
            }
            Whose::Container { of: Some(of), id } => format!("{of} stop {id}"),
            Whose::Container { of: None, id } => {
                format!("stop the container {id}: nerdctl ps, docker ps or podman ps knows it")
            }
            Whose::Own => format!("kill {pid}    # that is {program}"),
        }
    }
}

/// The process that listens at an address, or at one that stands for all.
pub(super) fn holder(address: SocketAddr) -> Option<Holder> {
    let mut sockets = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        sockets.extend(listening(&fs::read_to_string(table).unwrap_or_default(), address));
    }
    if sockets.is_empty() {
        return None;
    }
    let all = processes();
    let mut holders: Vec<_> = all.iter().filter(|one| has_one(one.pid, &sockets)).collect();
    // The service manager has the sockets of its services too; a program that was started by another one may have that's.
    let pids: HashSet<u32> = holders.iter().map(|one| one.pid).collect();
    let first = |pid: u32, parent: u32| pid != 1 && (parent == 1 || !pids.contains(&parent));
    holders.sort_unstable_by_key(|one| (!first(one.pid, one.parent), one.pid == 1, one.pid));
    let pid = holders.first()?.pid;
    let program =
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/comm")).unwrap_or_default()).into_owned();
    let program = plain(program.trim());
    Some(Holder { pid, whose: whose(pid, &program, &all), program })
}

/// The inodes of the sockets that keep anybody else from listening there.
fn listening(table: &str, address: SocketAddr) -> HashSet<u64> {
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.filter_map(|line| {
        let [_, local, _, state, _, _, _, _, _, inode, ..] = line[..] else { return None };
        let (ip, port) = local.split_once(':')?;
        let there = state == LISTEN && u16::from_str_radix(port, 16).ok()? == address.port();
        let ip = read(ip)?.to_canonical();
        let wanted = address.ip().to_canonical();
        let same = ip == wanted || ip.is_unspecified() || wanted.is_unspecified();
        (there && same).then(|| inode.parse().ok())?
    });
    found.collect()
}

/// An address as the table has it: words of 32 bits as the machine keeps them.
fn read(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..text.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let four = <[u8; 4]>::try_from(&bytes[..]).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    four.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)))).ok()
}

fn has_one(pid: u32, sockets: &HashSet<u64>) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| inode(&fs::read_link(entry.path()).ok()?)).any(|inode| sockets.contains(&inode))
}

fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Others may have copies of it for a moment.
        let inodes = listening(&fs::read_to_string("/proc/net/tcp").unwrap(), address);
        assert_eq!(inodes.len(), 1);
        assert!(has_one(std::process::id(), &inodes));
        assert!(holder(address).is_some());
    }

    #[test]
    fn whoever_listens_at_all_addresses_has_each() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 00000000:0315 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1\n   \
                     1: 0100007F:1ED2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 8 1\n   \
                     2: 0100007F:1ED2 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 9 1\n";
        let of = |address: &str| {
            let mut found: Vec<_> = listening(table, address.parse().unwrap()).into_iter().collect();
            found.sort_unstable();
            found
        };
        // The words are those of a machine that keeps the least byte first.
        if cfg!(target_endian = "little") {
            assert_eq!(of("127.0.0.1:789"), [7]);
            assert_eq!(of("127.0.0.1:7890"), [8]);
            assert!(of("127.0.0.2:7890").is_empty());
            assert_eq!(of("0.0.0.0:7890"), [8]);
        }
        assert!(of("127.0.0.1:80").is_empty());
        assert_eq!(read("0000000000000000FFFF00000100007F").map(|ip| ip.to_canonical()), read("0100007F"));
        assert_eq!(read("0100"), None);
    }

    #[test]
    fn only_what_ends_alone_is_ended() {
        let unit = || Unit { name: "n.service".to_owned(), user: None };
        let ended = |pid, whose| Holder { pid, program: "`x`".to_owned(), whose }.ended(789);
        assert_eq!(ended(7, Whose::Own), "kill 7    # that is '`x`'");
        assert_eq!(ended(7, Whose::Service(unit())), "systemctl disable --now n.service");
        assert!(ended(1, Whose::Service(unit())).contains("systemctl list-sockets"));
        assert!(ended(7, Whose::Docker(Some(unit()))).starts_with("docker ps --filter publish=789\n"));
        let container = |of| Whose::Container { of, id: "0123".to_owned() };
        assert_eq!(ended(7, container(Some("podman"))), "podman stop 0123");
        for whose in [
            Whose::Part(unit()),
            Whose::Docker(Some(unit())),
            Whose::Pods(Some(unit())),
            Whose::Pods(None),
            container(None),
        ] {
            let mend = ended(7, whose);
            assert!(!["disable", "kill"].iter().any(|word| mend.contains(word)), "{mend}");
        }
    }
}
