//! The socket itself, and a client of our own on it.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use containerd_client::services::v1::InfoRequest;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::with_namespace;
use hyper_util::rt::TokioIo;
use tidehold::proto::v1::hold_client::HoldClient;
use tidehold::proto::v1::resolver_client::ResolverClient;
use tidehold::proto::v1::{StatusRequest, StatusResponse};
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::bench::Bench;
use crate::command;
use crate::support::daemon::{Daemon, Plan};
use crate::support::hub::client::Client;
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
    let request = tidehold::proto::v1::ResolveRequest { reference: "Tide".into(), ..Default::default() };
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
    let request = tidehold::proto::v1::ResolveRequest { reference: "Tide".into(), ..Default::default() };
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
    let told = status(&daemon).await;
    assert_eq!(told.web, "");
    assert_eq!(told.missing.iter().map(|missing| missing.name.as_str()).collect::<Vec<_>>(), ["web"]);
    let log = daemon.log();
    assert!(log.contains("there is no status page") && log.contains(&at), "{log}");
    drop(somebody);
    daemon.await_log("listening after all");
    let told = status(&daemon).await;
    assert_eq!((told.web, told.missing), (at.clone(), Vec::new()));
    TcpStream::connect(&at).unwrap();
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mirror_containerd_has_its_store_and_the_mirror_comes_when_its_port_is_free() {
    let mut daemon = Daemon::start("");
    let (mirror, ready) = (format!("{}/v2/", daemon.mirror()), format!("{}/readyz", daemon.web()));
    let at = daemon.mirror().strip_prefix("http://").unwrap().to_owned();
    assert!(daemon.terminate().success());
    let somebody = TcpListener::bind(&at).unwrap();
    daemon.start_again();
    has_its_store(&daemon).await;
    let told = status(&daemon).await;
    let [missing] = &told.missing[..] else { panic!("{told:?}") };
    assert_eq!((told.mirror.as_str(), missing.name.as_str(), &missing.address), ("", "mirror", &at));
    let client = Client::new();
    let reply = client.get(&ready, &[]).await;
    let said = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, 503);
    assert!(said.contains(&format!("no mirror listener: listen on {at}: somebody else does")), "{said}");
    let config = daemon.config();
    let shown = command::run(&["status"], Some(&config), "").await.done();
    shown.said(&["mirror      none: listen on ", &at, "ss -ltnp"]);

    drop(somebody);
    daemon.await_log("listening after all");
    assert_eq!(status(&daemon).await.mirror, at);
    assert_eq!(client.get(&mirror, &[]).await.status, 200);
    assert_eq!(client.get(&ready, &[]).await.status, 200);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beside_the_content_socket_has_to_listen() {
    let mut daemon = Daemon::start("");
    assert!(daemon.terminate().success());
    let ports = [daemon.mirror(), daemon.web()];
    let somebody = ports.map(|url| TcpListener::bind(url.strip_prefix("http://").unwrap()).unwrap());
    std::fs::create_dir(daemon.control()).unwrap();
    daemon.start_again();
    has_its_store(&daemon).await;
    let log = daemon.log();
    assert!(log.contains("no command can ask this daemon") && log.contains("is no socket"), "{log}");

    std::fs::remove_dir(daemon.control()).unwrap();
    daemon.await_log("listening after all");
    assert_eq!(status(&daemon).await.missing.len(), 2);
    drop(somebody);
    assert!(daemon.terminate().success());
    assert!(!daemon.control().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_content_socket_there_is_no_daemon() {
    let mut daemon = Daemon::start("");
    assert!(daemon.terminate().success());
    std::fs::write(daemon.content(), "somebody's").unwrap();
    let config = daemon.config();
    let ran = command::run(&["serve"], Some(&config), "").await;
    ran.failed_with(1, &["is there and is no socket", &daemon.content().display().to_string()]);
    assert_eq!(std::fs::read_to_string(daemon.content()).unwrap(), "somebody's");
}

async fn status(daemon: &Daemon) -> StatusResponse {
    let mut hold = HoldClient::new(channel_to(&daemon.control()).await);
    hold.status(StatusRequest {}).await.unwrap().into_inner()
}

/// As containerd asks.
async fn has_its_store(daemon: &Daemon) {
    let mut content = ContentClient::new(channel_to(&daemon.content()).await);
    let digest = format!("sha256:{:064}", 0);
    let answered = content.info(with_namespace!(InfoRequest { digest }, "default")).await;
    assert_eq!(answered.unwrap_err().code(), tonic::Code::NotFound);
}
