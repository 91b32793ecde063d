//! The listeners beside the content sockets: had at once, or as soon as they can be.
//!
//! containerd cannot do without its store. So nothing that keeps one of these from listening ends the daemon, neither a port
//! that somebody else has nor an address that this machine has not got yet: it is said what is wrong, and tried again until
//! the listener is there. Where each of them is, or why it is nowhere, is told by a [`Place`].

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listen::{self, ListenError, Socket};

/// How often it is tried to have a listener that could not be had.
pub const TRY_EVERY: Duration = Duration::from_secs(2);

/// What can be listened at.
pub trait Address: fmt::Display + Send + Sync {
    /// What listens there.
    type Listener: Send;

    /// Listens there.
    fn listen(&self) -> impl Future<Output = Result<Self::Listener, ListenError>> + Send;

    /// Where that really is: another port each time, where the address is of port 0.
    fn of(&self, listener: &Self::Listener) -> String;
}

impl Address for SocketAddr {
    type Listener = TcpListener;

    fn listen(&self) -> impl Future<Output = Result<TcpListener, ListenError>> + Send {
        listen::tcp(*self)
    }

    fn of(&self, listener: &TcpListener) -> String {
        listener.local_addr().unwrap_or(*self).to_string()
    }
}

/// The path of a unix socket.
#[derive(Debug, Clone)]
pub struct SocketPath(pub PathBuf);

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Address for SocketPath {
    type Listener = Socket;

    fn listen(&self) -> impl Future<Output = Result<Socket, ListenError>> + Send {
        listen::unix(&self.0)
    }

    fn of(&self, _: &Socket) -> String {
        self.to_string()
    }
}

/// What is told of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Where it is, or is to be.
    pub address: String,
    /// Why it is not there yet.
    pub missing: Option<String>,
}

/// A listener that may come late.
pub struct Beside<A: Address> {
    address: A,
    first: Result<A::Listener, ListenError>,
    place: watch::Sender<Place>,
}

impl<A: Address> Beside<A> {
    /// The listener of this name as it came out at first; where it did not, `without` says what does not work meanwhile.
    pub fn new(
        name: &'static str,
        address: A,
        first: Result<A::Listener, ListenError>,
        without: &str,
    ) -> Self {
        let place = match &first {
            Ok(listener) => Place { name, address: address.of(listener), missing: None },
            Err(error) => {
                tracing::error!(listener = name, %error, "{without}; it is tried again every few seconds");
                Place { name, address: address.to_string(), missing: Some(error.to_string()) }
            }
        };
        Self { address, first, place: watch::Sender::new(place) }
    }

    /// What is told of it, now and from then on.
    pub fn place(&self) -> watch::Receiver<Place> {
        self.place.subscribe()
    }

    /// The listener, once it can be had: it is tried `every` so often. None where we stop before.
    pub async fn had(self, every: Duration, stop: &CancellationToken) -> Option<A::Listener> {
        let Self { address, first, place } = self;
        let first = match first {
            Ok(listener) => return Some(listener),
            Err(error) => error.to_string(),
        };
        stop.run_until_cancelled(async {
            let mut said = first;
            loop {
                tokio::time::sleep(every).await;
                match address.listen().await {
                    Ok(listener) => {
                        // Told to whoever asks before it is said in the log: who reads that may ask at once.
                        place.send_modify(|place| {
                            place.address = address.of(&listener);
                            place.missing = None;
                        });
                        let Place { name, address, .. } = place.borrow().clone();
                        tracing::info!(listener = name, address, "listening after all");
                        break listener;
                    }
                    Err(error) => {
                        let why = error.to_string();
                        if why == said {
                            continue;
                        }
                        tracing::error!(listener = place.borrow().name, %error, "still not listening");
                        place.send_modify(|place| place.missing = Some(why.clone()));
                        said = why;
                    }
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_listens_at_once_is_had_at_once() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let beside = Beside::new("mirror", any, any.listen().await, "");
        let place = beside.place().borrow().clone();
        let listener = beside.had(Duration::MAX, &CancellationToken::new()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(place, Place { name: "mirror", address, missing: None });
    }

    #[tokio::test]
    async fn a_port_that_somebody_else_has_is_had_once_that_ends_and_told_of_meanwhile() {
        let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = somebody.local_addr().unwrap();
        let beside = Beside::new("mirror", address, address.listen().await, "");
        let mut place = beside.place();
        let missing = place.borrow_and_update().missing.clone().unwrap();
        assert!(missing.contains(&address.to_string()) && missing.contains("ss -ltnp"), "{missing}");
        let had = tokio::spawn(async move { beside.had(SOON, &CancellationToken::new()).await });
        drop(somebody);
        place.changed().await.unwrap();
        assert_eq!(place.borrow().missing, None);
        assert_eq!(had.await.unwrap().unwrap().local_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn a_socket_whose_place_something_else_has_is_had_once_that_is_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        std::fs::create_dir(&path).unwrap();
        let address = SocketPath(path.clone());
        let beside = Beside::new("control", address.clone(), address.listen().await, "");
        let mut place = beside.place();
        assert!(place.borrow_and_update().missing.as_ref().unwrap().contains("is no socket"));
        let had = tokio::spawn(async move { beside.had(SOON, &CancellationToken::new()).await });
        std::fs::remove_dir(&path).unwrap();
        place.changed().await.unwrap();
        assert_eq!(place.borrow().missing, None);
        let _socket = had.await.unwrap().unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_a_listener_at_a_stop() {
        let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = somebody.local_addr().unwrap();
        let beside = Beside::new("web", address, address.listen().await, "");
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(beside.had(Duration::MAX, &stop).await.is_none());
    }
}
