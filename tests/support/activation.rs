//! Listening sockets that are held for a daemon and handed to each one that starts, as systemd does with a socket
//! unit. Who connects while none runs waits in the socket's queue.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use command_fds::{CommandFdExt as _, FdMapping};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST: i32 = 3;

const CONNECTED_WITHIN_MS: u16 = 30_000;

/// One of the sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door<'a> {
    Mirror,
    /// The content listener of a containerd.
    Content(&'a str),
}

/// The sockets, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Activation {
    addresses: Vec<TcpListener>,
    sockets: Vec<(String, UnixListener)>,
}

impl Activation {
    /// Listens on these ports, the mirror's first, and on each named socket.
    pub(crate) fn listen(ports: &[u16], sockets: impl Iterator<Item = (String, PathBuf)>) -> Self {
        let unix = |path| UnixListener::bind(path).expect("a socket's path that is free");
        Self {
            addresses: ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap()).collect(),
            sockets: sockets.map(|(name, path)| (name, unix(path))).collect(),
        }
    }

    /// A command that runs this program with the sockets.
    pub(crate) fn command(&self, program: &str) -> Command {
        // Only the process itself knows the id that it has to be told.
        let mut command = Command::new("sh");
        command.args(["-c", r#"LISTEN_PID=$$ exec "$0" "$@""#, program]);
        let sockets = self.sockets.iter().map(|(_, socket)| socket.as_fd());
        let sockets: Vec<_> = self.addresses.iter().map(AsFd::as_fd).chain(sockets).collect();
        command.env("LISTEN_FDS", sockets.len().to_string());
        let own = |socket: BorrowedFd<'_>| -> OwnedFd { socket.try_clone_to_owned().unwrap() };
        let mappings =
            (FIRST..).zip(sockets).map(|(child_fd, socket)| FdMapping { parent_fd: own(socket), child_fd });
        command.fd_mappings(mappings.collect()).expect("each number once");
        command
    }

    /// Returns once somebody has connected that no daemon has taken in yet.
    pub(crate) fn await_connection(&self, door: Door<'_>) {
        let socket = match door {
            Door::Mirror => self.addresses[0].as_fd(),
            Door::Content(wished) => {
                let found = self.sockets.iter().find(|(name, _)| name == wished);
                found.expect("a containerd of this daemon").1.as_fd()
            }
        };
        let mut looked = [PollFd::new(socket, PollFlags::POLLIN)];
        let ready = poll(&mut looked, PollTimeout::from(CONNECTED_WITHIN_MS)).unwrap();
        assert_eq!(ready, 1, "nobody connected to {door:?}");
    }
}
