//! Listening sockets: handed over by systemd, or made here.
//!
//! A socket that was handed over outlives the daemon: whoever connects while it restarts waits in the socket's
//! queue and is answered by the next one. The file of a socket that was made here goes when its daemon stops to
//! listen, or never comes to: containerd waits for a missing socket and gives up on one where nobody answers.
//!
//! The configuration says where we listen. What was handed over beside that is told of and closed: it is no reason to
//! leave containerd without its content store.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net as unix_net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long nothing is accepted after the system refused to, for want of descriptors for instance.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The listeners of this daemon: each as it was handed over, or else made.
pub struct Listeners {
    inherited: Vec<Inherited>,
}

enum Inherited {
    Unix(unix_net::UnixListener),
    Tcp(net::TcpListener),
}

/// A listening unix socket.
pub struct Socket {
    /// Whoever connects arrives here.
    pub listener: UnixListener,
    /// Its file, where it was made here.
    pub file: Option<SocketFile>,
}

/// The file of a socket that was made here. Dropping it removes the file, unless another daemon's has taken its place.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a socket could not be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Listeners {
    /// Takes what the service manager handed over (`LISTEN_FDS`), if anything. What of that is no listening stream socket
    /// is told of and left alone.
    pub fn from_environment() -> Self {
        let mut handed_over = ListenFd::from_env();
        let inherited = (0..handed_over.len()).filter_map(|index| {
            let unix = handed_over.take_unix_listener(index).map(|socket| socket.map(Inherited::Unix));
            let taken = unix
                .or_else(|_| handed_over.take_tcp_listener(index).map(|socket| socket.map(Inherited::Tcp)));
            taken.unwrap_or_else(|error| {
                tracing::warn!(
                    %error,
                    "the service manager handed over what is no listening stream socket, and nobody is answered there: the \
                     socket units may have ListenStream= alone (systemctl cat tidehold.socket)"
                );
                None
            })
        });
        Self { inherited: inherited.collect() }
    }

    /// Closes what was handed over and is none of these, and says so: a socket unit is at odds with the configuration.
    /// To be called first: what stays open keeps its address from being had.
    pub fn close_unknown(&mut self, sockets: &[&Path], addresses: &[SocketAddr]) {
        let known = |inherited: &Inherited| {
            sockets.iter().any(|path| inherited.is_at_path(path))
                || addresses.iter().any(|address| inherited.is_at(*address))
        };
        let (known, unknown): (Vec<_>, Vec<_>) = self.inherited.drain(..).partition(known);
        self.inherited = known;
        for inherited in unknown {
            tracing::warn!(
                "the service manager handed over a socket at {inherited}, which the configuration does not name: nobody \
                 is answered there. Change the socket unit and the configuration together: systemctl edit shows and \
                 changes ListenStream= of tidehold.socket, tidehold-mirror.socket and tidehold-web.socket"
            );
        }
    }

    /// The listener of a unix socket.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn unix(&mut self, path: &Path) -> Result<Socket, ListenError> {
        match self.take(|inherited| inherited.is_at_path(path)) {
            Some(Inherited::Unix(socket)) => {
                let listener = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
                let listener =
                    listener.map_err(|source| ListenError::Unix { path: path.to_owned(), source })?;
                Ok(Socket { listener, file: None })
            }
            Some(Inherited::Tcp(_)) | None => unix(path).await,
        }
    }

    /// The listener of a TCP address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn tcp(&mut self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        match self.take(|inherited| inherited.is_at(address)) {
            Some(Inherited::Tcp(socket)) => {
                let listener = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
                listener.map_err(|source| ListenError::Tcp { address, source })
            }
            Some(Inherited::Unix(_)) | None => tcp(address).await,
        }
    }

    fn take(&mut self, is_it: impl FnMut(&Inherited) -> bool) -> Option<Inherited> {
        let index = self.inherited.iter().position(is_it)?;
        Some(self.inherited.swap_remove(index))
    }
}

impl Inherited {
    fn is_at(&self, address: SocketAddr) -> bool {
        match self {
            Self::Tcp(socket) => socket.local_addr().is_ok_and(|local| local == address),
            Self::Unix(_) => false,
        }
    }

    /// By the same name, or by another way to the same folder, as `/var/run` is one to `/run`.
    fn is_at_path(&self, path: &Path) -> bool {
        let Self::Unix(socket) = self else { return false };
        let Ok(address) = socket.local_addr() else { return false };
        let same = |at: &Path| {
            let folder = |path: &Path| path.parent().and_then(|folder| fs::canonicalize(folder).ok());
            at == path
                || (at.file_name() == path.file_name()
                    && folder(at).is_some_and(|at| folder(path).is_some_and(|other| at == other)))
        };
        address.as_pathname().is_some_and(same)
    }
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unnamed = "an address that is not known";
        match self {
            Self::Tcp(socket) => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str(unnamed),
            },
            Self::Unix(socket) => match socket.local_addr().ok().as_ref().and_then(|at| at.as_pathname()) {
                Some(path) => path.display().fmt(f),
                None => f.write_str(unnamed),
            },
        }
    }
}

/// Listens on a unix socket that only the daemon's user can open. What a daemon that died left behind is
/// replaced; a socket that somebody answers at, or a file of another kind, is not.
///
/// # Errors
/// When it cannot be had.
pub async fn unix(path: &Path) -> Result<Socket, ListenError> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(ListenError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Ok(_) => return Err(ListenError::InUse(path.to_owned())),
        // Its queue is full: who connects, waits.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(ListenError::InUse(path.to_owned()));
        }
        Err(_) => {}
    }
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // It gets its name only when its rights are set, so that there is no moment at which others can connect.
    let mut unnamed = path.as_os_str().to_owned();
    unnamed.push(format!(".{}", std::process::id()));
    let unnamed = PathBuf::from(unnamed);
    let listener = UnixListener::bind(&unnamed).map_err(failed)?;
    let mut file = SocketFile::at(&unnamed).map_err(failed)?;
    fs::set_permissions(&unnamed, Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&unnamed, path).map_err(failed)?;
    path.clone_into(&mut file.path);
    Ok(Socket { listener, file: Some(file) })
}

/// Listens on a TCP address.
///
/// # Errors
/// When it cannot be had.
pub async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(address),
        io::ErrorKind::PermissionDenied => ListenError::Denied(address),
        io::ErrorKind::AddrNotAvailable => ListenError::Elsewhere(address),
        _ => ListenError::Tcp { address, source },
    })
}

/// Serves each who connects, `most` at a time, until `stop`; those beyond wait in the listener's queue. Returns once the
/// last of them has ended.
pub(super) async fn connections<F>(
    listener: TcpListener,
    most: usize,
    stop: &CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = serve(stream, peer);
                connections.spawn(async move {
                    let _place = place;
                    serving.await;
                });
            }
            Err(error) => {
                let address = listener.local_addr().ok();
                tracing::warn!(?address, %error, "a connection could not be accepted");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the address.
    #[error(
        "listen on {0}: somebody else does (`ss -ltnp` says who); end that, or give this listener another address in the \
         configuration"
    )]
    Taken(SocketAddr),
    /// The address is not for us to take.
    #[error(
        "listen on {0}: that is not allowed; a port below 1024 takes root's rights, which under systemd the socket unit \
         has: name the address there too (systemctl edit tidehold-mirror.socket), or take a port from 1024 on"
    )]
    Denied(SocketAddr),
    /// This machine has no such address.
    #[error(
        "listen on {0}: no network interface of this machine has that address (`ip address` lists those it has); give this \
         listener one of these in the configuration, or wait until it has"
    )]
    Elsewhere(SocketAddr),
    /// Another daemon answers there.
    #[error("{0} is in use: another daemon answers there; stop it, or give this one another socket")]
    InUse(PathBuf),
    /// Something else than a socket stands there.
    #[error("{0} is there and is no socket: move it away, or give this listener another path")]
    NoSocket(PathBuf),
    /// The socket could not be made.
    #[error(
        "listen on {path}: {source}; see to its folder, or give this listener another path in the configuration"
    )]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address could not be had.
    #[error("listen on {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_goes_with_its_listener_and_one_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.sock");
        let socket = unix(&path).await.unwrap();
        assert!(matches!(unix(&path).await, Err(ListenError::InUse(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        std::mem::forget(unix(&path).await.unwrap().file);
        assert!(path.exists());
        let _socket = unix(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_whoever_came_after_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.sock");
        let Socket { listener, file } = unix(&path).await.unwrap();
        drop(listener);
        let _next = unix(&path).await.unwrap();
        drop(file);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.sock");
        fs::write(&path, "somebody's").unwrap();
        assert!(matches!(unix(&path).await, Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }

    #[tokio::test]
    async fn what_was_handed_over_is_taken_by_its_address_and_the_rest_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("content.sock"), folder.path().join("other.sock"));
        let bound = || net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (wished, moved) = (bound(), bound());
        let [address, unknown] = [&wished, &moved].map(|socket| socket.local_addr().unwrap());
        let unix = |path| Inherited::Unix(unix_net::UnixListener::bind(path).unwrap());
        let inherited = vec![unix(&other), Inherited::Tcp(moved), unix(&path), Inherited::Tcp(wished)];
        let said: Vec<_> = inherited.iter().map(ToString::to_string).collect();
        let paths = [&other, &path].map(|path| path.display().to_string());
        let [first, last] = paths;
        assert_eq!(said, [first, unknown.to_string(), last, address.to_string()]);

        let mut listeners = Listeners { inherited };
        // Another name of the same folder.
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(folder.path(), &linked).unwrap();
        let path = linked.join("content.sock");
        listeners.close_unknown(&[&path], &[address]);
        assert!(net::TcpStream::connect(unknown).is_err(), "who connects there would wait");
        assert!(UnixStream::connect(&other).await.is_err());
        assert!(listeners.unix(&path).await.unwrap().file.is_none(), "it was made anew");
        assert_eq!(listeners.tcp(address).await.unwrap().local_addr().unwrap(), address);
        // Whatever was not handed over is made here.
        assert_eq!(listeners.tcp(unknown).await.unwrap().local_addr().unwrap(), unknown);
    }

    #[tokio::test]
    async fn an_address_that_somebody_has_is_said_to_be_taken() {
        let somebody = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = somebody.local_addr().unwrap();
        let failed = tcp(address).await.unwrap_err();
        assert!(matches!(failed, ListenError::Taken(_)) && failed.to_string().contains(&address.to_string()));
    }
}
