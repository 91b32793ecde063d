//! Listening sockets.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

/// Listens on a unix socket that only the daemon's user can open. What a daemon that died left behind is
/// replaced; a socket that somebody answers at is not.
///
/// # Errors
/// When the socket is in use or its folder is.
pub fn unix(path: &Path) -> Result<UnixListener, ListenError> {
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
    let bound = UnixListener::bind(&unnamed).map_err(failed)?;
    fs::set_permissions(&unnamed, Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&unnamed, path).map_err(failed)?;
    Ok(bound)
}

/// Listens on a TCP address.
///
/// # Errors
/// When the address cannot be had.
pub async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Tcp { address, source })
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers there.
    #[error("{0} is in use: another daemon answers there; stop it, or give this one another socket")]
    InUse(PathBuf),
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
