//! The socket itself, and a client of our own on it.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hyper_util::rt::TokioIo;
use tidehold::proto::v1::StatusRequest;
use tidehold::proto::v1::hold_client::HoldClient;
use tidehold::proto::v1::resolver_client::ResolverClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::bench::Bench;
use crate::support::daemon::{Daemon, Plan};
use crate::support::process::free_port;

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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_over_and_is_not_configured_is_told_of_and_keeps_nobody_from_starting() {
    let port = free_port();
    let beside = Some((port, "moved"));
    let mut daemon = Plan { activated: true, beside, ..Plan::default() }.start();
    let log = daemon.log();
    assert!(log.contains(&format!("127.0.0.1:{port}")) && log.contains("moved.sock"), "{log}");
    assert!(!log.contains("Ok("), "{log}");
    let request = tidehold::proto::v1::ResolveRequest { reference: "Tide".into(), platform: String::new() };
    let answered = connect(&daemon.control()).await.resolve(request).await;
    assert_eq!(answered.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_status_page_all_else_is_served_and_the_page_comes_when_its_port_is_free() {
    let mut daemon = Daemon::start("");
    let at = daemon.web().strip_prefix("http://").unwrap().to_owned();
    assert!(daemon.terminate().success());
    let somebody = TcpListener::bind(&at).unwrap();
    daemon.start_again();
    let status = async |daemon: &Daemon| {
        let mut hold = HoldClient::new(channel_to(&daemon.control()).await);
        hold.status(StatusRequest {}).await.unwrap().into_inner()
    };
    assert_eq!(status(&daemon).await.web, "");
    let log = daemon.log();
    assert!(log.contains("there is no status page") && log.contains(&at), "{log}");
    drop(somebody);
    daemon.await_log("listening after all");
    TcpStream::connect(&at).unwrap();
    assert!(daemon.terminate().success());
}
