//! Who on this machine listens at a TCP address, as `/proc` tells: `ss -ltnp` without `ss`.
//!
//! Whose process it is, only root sees of those of others.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::finding::RESTART;
use crate::cli::words::plain;

/// TCP_LISTEN, as proc_pid_net(5) has states.
const LISTEN: &str = "0A";

/// Whoever listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// What its program is called.
    pub(super) program: String,
    /// systemd's service, where it is one.
    pub(super) service: Option<String>,
}

impl Holder {
    /// Whether it is the daemon itself, or the service manager, which listens for it.
    pub(super) fn is_ours(&self) -> bool {
        self.program == "tidehold" || self.pid == 1
    }

    /// How it is started again, where it is the daemon and answers nobody.
    pub(super) fn restarted(&self) -> String {
        let Self { pid, service, .. } = self;
        match service {
            _ if *pid == 1 => RESTART.to_owned(),
            Some(service) => {
                format!("systemctl restart {service}, and look at: journalctl -u {service} -n 50")
            }
            None => {
                format!("kill {pid}    # or kill -9 {pid}\nstart it again, and look at what it has logged")
            }
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
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| has_one(*pid, &sockets))
        .collect();
    // The service manager has the sockets of its services too; a program that was started by another one may have that's.
    pids.sort_unstable();
    let pid = pids.iter().copied().find(|pid| *pid != 1).or(pids.first().copied())?;
    let about = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    Some(Holder { pid, program: plain(about("comm").trim()), service: service(&about("cgroup")) })
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

/// The service in whose group of processes it is.
fn service(groups: &str) -> Option<String> {
    let names = groups.lines().filter_map(|line| line.rsplit('/').next());
    names.filter(|name| name.ends_with(".service")).map(plain).next()
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
    fn a_service_is_the_last_part_of_its_group() {
        assert_eq!(service("0::/system.slice/nginx.service\n").as_deref(), Some("nginx.service"));
        assert_eq!(service("12:cpu:/x\n0::/user.slice/user-0.slice/session-1.scope\n"), None);
    }
}
