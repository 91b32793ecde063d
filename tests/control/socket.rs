//! The socket itself, and a client of our own on it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hyper_util::rt::TokioIo;
use tidehold::proto::v1::resolver_client::ResolverClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::bench::Bench;
use crate::support::daemon::Plan;

/// A client of the bench's daemon.
pub(crate) async fn client(bench: &Bench) -> ResolverClient<Channel> {
    connect(&bench.daemon.control()).await
}

/// A connection to it.
pub(crate) async fn channel(bench: &Bench) -> Channel {
    channel_to(&bench.daemon.control()).await
}

async fn connect(socket: &Path) -> ResolverClient<Channel> {
    ResolverClient::new(channel_to(socket).await)
}

async fn channel_to(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://tidehold.invalid").connect_with_connector(connector).await;
    channel.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_the_daemons_own_user_and_goes_with_the_daemon() {
    let mut bench = Bench::start().await;
    let socket = bench.daemon.control();
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    // Somebody who stays connected and asks nothing keeps nobody from stopping.
    let _idle = client(&bench).await;
    assert!(bench.daemon.terminate().success());
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_handed_over_is_served_and_outlives_the_daemon() {
    let mut daemon = Plan { activated: true, ..Plan::default() }.start();
    let socket = daemon.control();
    let request = tidehold::proto::v1::ResolveRequest { reference: "Tide".into(), platform: String::new() };
    let answered = connect(&socket).await.resolve(request).await;
    assert_eq!(answered.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(daemon.terminate().success());
    assert!(socket.exists());
}
