//! Listening sockets: handed over by systemd, or made here.
//!
//! A socket that was handed over outlives the daemon: whoever connects while it restarts waits in the socket's
//! queue and is answered by the next one. The file of a socket that was made here goes when its daemon stops to
//! listen, or never comes to: containerd waits for a missing socket and gives up on one where nobody answers.

use std::fs::{self, Permissions};
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{self as unix_net, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

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
    /// Takes what the service manager handed over (`LISTEN_FDS`), if anything.
    ///
    /// # Errors
    /// When one of them is no listening stream socket.
    pub fn from_environment() -> Result<Self, ListenError> {
        let mut handed_over = ListenFd::from_env();
        let inherited = (0..handed_over.len()).filter_map(|index| {
            let unix = handed_over.take_unix_listener(index).map(|socket| socket.map(Inherited::Unix));
            let taken = unix
                .or_else(|_| handed_over.take_tcp_listener(index).map(|socket| socket.map(Inherited::Tcp)));
            taken.map_err(ListenError::HandedOver).transpose()
        });
        Ok(Self { inherited: inherited.collect::<Result<_, _>>()? })
    }

    /// The listener of a unix socket.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn unix(&mut self, path: &Path) -> Result<Socket, ListenError> {
        let is_it = |inherited: &Inherited| match inherited {
            Inherited::Unix(socket) => {
                socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
            }
            Inherited::Tcp(_) => false,
        };
        match self.take(is_it) {
            Some(Inherited::Unix(socket)) => {
                let listener = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
                let listener =
                    listener.map_err(|source| ListenError::Unix { path: path.to_owned(), source })?;
                Ok(Socket { listener, file: None })
            }
            Some(Inherited::Tcp(_)) | None => unix(path),
        }
    }

    /// The listener of a TCP address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn tcp(&mut self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        let is_it = |inherited: &Inherited| match inherited {
            Inherited::Tcp(socket) => socket.local_addr().is_ok_and(|local| local == address),
            Inherited::Unix(_) => false,
        };
        match self.take(is_it) {
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

    /// To be called when every listener was taken: what is left is a unit file at odds with the configuration, and
    /// clients at that socket would wait for ever.
    ///
    /// # Errors
    /// When something is left.
    pub fn all_taken(self) -> Result<(), ListenError> {
        let shown = |inherited: &Inherited| match inherited {
            Inherited::Unix(socket) => format!("{:?}", socket.local_addr()),
            Inherited::Tcp(socket) => format!("{:?}", socket.local_addr()),
        };
        match self.inherited.first() {
            None => Ok(()),
            Some(left) => Err(ListenError::Unknown(shown(left))),
        }
    }
}

/// Listens on a unix socket that only the daemon's user can open. What a daemon that died left behind is
/// replaced; a socket that somebody answers at, or a file of another kind, is not.
fn unix(path: &Path) -> Result<Socket, ListenError> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(ListenError::NoSocket(path.to_owned()));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
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

async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Tcp { address, source })
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something else than a listening stream socket was handed over.
    #[error("the service manager handed over what is no listening stream socket: {0}")]
    HandedOver(#[source] io::Error),
    /// A socket was handed over that the configuration does not know.
    #[error("the service manager handed over a socket at {0}, which no listener of the configuration has")]
    Unknown(String),
    /// Another daemon answers there.
    #[error("{0} is in use: another daemon answers there; stop it, or give this one another socket")]
    InUse(PathBuf),
    /// Something else than a socket stands there.
    #[error("{0} is there and is no socket: move it away, or give this listener another path")]
    NoSocket(PathBuf),
    /// The socket could not be made.
    #[error("listen on {path}: {source}")]
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

    fn listen(path: &Path) -> Result<Socket, ListenError> {
        Listeners { inherited: Vec::new() }.unix(path)
    }

    #[tokio::test]
    async fn a_socket_goes_with_its_listener_and_one_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.sock");
        let socket = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(ListenError::InUse(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        std::mem::forget(listen(&path).unwrap().file);
        assert!(path.exists());
        let _socket = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_whoever_came_after_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.sock");
        let Socket { listener, file } = listen(&path).unwrap();
        drop(listener);
        let _next = listen(&path).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.sock");
        fs::write(&path, "somebody's").unwrap();
        assert!(matches!(listen(&path), Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
