//! Connecting: the one place where a host becomes an address, and so where the rule of reach is applied.
//!
//! Names are judged by the addresses that are then connected to, so a name server that answers differently the
//! second time gains nothing. Invariant: no connection is opened to an address that is out of reach.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

use super::failure::Forbidden;
use super::reach::{Reach, Standing};

/// How often the kernel asks after a peer that has gone silent.
const KEEPALIVE: Duration = Duration::from_secs(30);

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type BoxError = Box<dyn Error + Send + Sync>;

/// What is spoken with a host that speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    /// What it likes best.
    All,
    /// HTTP/1.1: one request at a time on each connection.
    OnlyHttp1,
}

/// Opens connections to whatever is within its reach.
#[derive(Clone)]
pub(super) struct Dial {
    reach: Reach,
    within: Duration,
    plain: HttpConnector<Resolver>,
    /// Missing on a machine without root certificates.
    tls: Option<HttpsConnector<HttpConnector<Resolver>>>,
}

impl Dial {
    /// A connector for this reach that takes at most `within`, name resolution and TLS included.
    pub(super) fn new(reach: Reach, within: Duration, protocols: Protocols) -> Self {
        let mut plain = HttpConnector::new_with_resolver(Resolver { reach, system: GaiResolver::new() });
        plain.enforce_http(false);
        plain.set_nodelay(true);
        plain.set_keepalive(Some(KEEPALIVE));
        let tls = match HttpsConnectorBuilder::new().with_native_roots() {
            Ok(builder) => {
                let builder = builder.https_only();
                Some(match protocols {
                    Protocols::All => builder.enable_all_versions().wrap_connector(plain.clone()),
                    Protocols::OnlyHttp1 => builder.enable_http1().wrap_connector(plain.clone()),
                })
            }
            Err(error) => {
                tracing::debug!(%error, "no root certificates");
                None
            }
        };
        Self { reach, within, plain, tls }
    }

    /// Whether registries can be asked over https at all.
    pub(super) fn has_roots(&self) -> bool {
        self.tls.is_some()
    }

    async fn open(self, to: Uri) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, BoxError> {
        // An address is not resolved, so it is judged here.
        let host = to.host().unwrap_or_default();
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            allow(self.reach, host, address)?;
        }
        if to.scheme() == Some(&Scheme::HTTP) {
            return Ok(MaybeHttpsStream::Http(self.plain.oneshot(to).await?));
        }
        self.tls.ok_or(NoRoots)?.oneshot(to).await
    }
}

impl Service<Uri> for Dial {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let within = dial.within;
            tokio::time::timeout(within, dial.open(to)).await.unwrap_or_else(|_| Err(TooSlow.into()))
        })
    }
}

/// The system's resolver, whose answers must all be within reach: one that isn't condemns the name.
#[derive(Clone)]
struct Resolver {
    reach: Reach,
    system: GaiResolver,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Connecting<Self::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { reach, system } = self.clone();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = system.oneshot(name.clone()).await?.collect();
            for address in &addresses {
                allow(reach, name.as_str(), address.ip())?;
            }
            Ok(addresses.into_iter())
        })
    }
}

fn allow(reach: Reach, host: &str, address: IpAddr) -> Result<(), Forbidden> {
    let standing = Standing::of(address);
    if reach.includes(standing) {
        return Ok(());
    }
    Err(Forbidden::Address { host: host.to_owned(), address, standing })
}

/// Connecting took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("connecting took too long")]
pub(super) struct TooSlow;

/// There is nothing to check a server's certificate against.
#[derive(Debug, thiserror::Error)]
#[error("this machine has no root certificates: install ca-certificates")]
struct NoRoots;

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(reach: Reach, to: &str) -> Option<Standing> {
        let dial = Dial::new(reach, Duration::from_secs(5), Protocols::All);
        let error = dial.oneshot(to.parse().unwrap()).await.err()?;
        let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
        while let Some(error) = cause {
            if let Some(Forbidden::Address { standing, .. }) = error.downcast_ref() {
                return Some(*standing);
            }
            cause = error.source();
        }
        None
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        for reach in [Reach::Public, Reach::Private] {
            assert_eq!(refused(reach, "http://localhost:1/").await, Some(Standing::Loopback));
            assert_eq!(refused(reach, "https://localhost:1/").await, Some(Standing::Loopback));
        }
        assert_eq!(refused(Reach::Anywhere, "http://localhost:1/").await, None);
    }

    #[tokio::test]
    async fn an_address_is_judged_as_it_stands() {
        for to in ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "http://[::1]:1/"] {
            assert_eq!(refused(Reach::Public, to).await, Some(Standing::Loopback), "{to}");
        }
        assert_eq!(refused(Reach::Public, "http://[::ffff:10.0.0.1]:1/").await, Some(Standing::Private));
        assert_eq!(refused(Reach::Private, "http://169.254.169.254/").await, Some(Standing::Special));
        assert_eq!(refused(Reach::Public, "http://0.0.0.0:1/").await, Some(Standing::Special));
    }
}
