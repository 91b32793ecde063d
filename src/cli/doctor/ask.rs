//! Asks who can be asked: containerd, the daemon, the mirror, a registry, a credential helper. Waits for none of them
//! for long, and judges nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use containerd_client::services::v1::Plugin;
use containerd_client::services::v1::version_client::VersionClient;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidehold::node::journal::Swap;
use tidehold::proto::v1::hold_client::HoldClient;
use tidehold::proto::v1::resolver_client::ResolverClient;
use tidehold::proto::v1::{ResolveRequest, StatusRequest, StatusResponse, TriedLogin, TryLoginsRequest};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tonic::{Code, Status};

use super::super::relied;
use super::daemon::Answerer;
use super::logins::Helper;
use super::upstream::{Ended, Head};

/// How long anybody on this node may take to answer, and a registry that is asked directly.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a registry may take, asked by the daemon.
const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// The most that is read of an answer, in bytes.
const MOST_BYTES: usize = 64 * 1024;

/// What a manifest may be.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// What a containerd answered.
#[derive(Debug)]
pub(super) struct Containerd {
    pub(super) version: String,
    pub(super) plugins: Vec<Plugin>,
    /// The process behind the socket, where it can be seen.
    pub(super) pid: Option<i32>,
}

/// Asks a containerd for its version and its plugins.
pub(super) async fn containerd(socket: &Path) -> Result<Containerd, String> {
    let asked = async {
        let pid = UnixStream::connect(socket)
            .await
            .ok()
            .and_then(|stream| stream.peer_cred().ok())
            .and_then(|peer| peer.pid());
        let channel = containerd_client::connect(socket).await.map_err(|error| chain(&error))?;
        let version = VersionClient::new(channel.clone()).version(()).await.map_err(said)?.into_inner();
        let plugins = crate::cli::plugins::plugins(channel).await.map_err(said)?;
        Ok(Containerd { version: version.version, plugins, pid })
    };
    within(PATIENCE, asked).await
}

/// How many of these blobs a containerd relies on.
pub(super) async fn relied_on(socket: &Path, digests: &[String]) -> Result<usize, String> {
    let asked = async { relied::on(socket, digests).await.map_err(|error| alternate(&error)) };
    within(PATIENCE, asked).await
}

/// How many blobs of its former store one relies on that has the hold in its place.
pub(super) async fn left_behind(root: &Path, swap: &Swap) -> Result<usize, String> {
    let asked = async { relied::left_behind(root, swap).await.map_err(|error| alternate(&error)) };
    within(PATIENCE, asked).await
}

/// Asks the daemon what it does.
pub(super) async fn status(socket: &Path) -> Result<StatusResponse, String> {
    let asked = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let channel = crate::cli::control::channel(stream).await.map_err(|error| chain(&error))?;
        let answer = HoldClient::new(channel).status(StatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| crate::cli::refused::said(&status))
    };
    within(PATIENCE, asked).await
}

/// Has the daemon try its own logins.
pub(super) async fn try_logins(socket: &Path) -> Result<Vec<TriedLogin>, String> {
    let asked = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let channel = crate::cli::control::channel(stream).await.map_err(|error| chain(&error))?;
        let answer = HoldClient::new(channel).try_logins(TryLoginsRequest {}).await;
        answer.map(|tried| tried.into_inner().logins).map_err(|status| match status.code() {
            Code::Unimplemented => "the daemon is of an older version, and knows nothing of that".to_owned(),
            _ => crate::cli::refused::said(&status),
        })
    };
    within(LONG_PATIENCE, asked).await
}

/// Has the daemon look for an image, with its own logins.
pub(super) async fn resolve(socket: &Path, reference: &str) -> Result<(), Status> {
    let asked = async {
        let unavailable = |why: String| Status::unavailable(why);
        let stream = UnixStream::connect(socket).await.map_err(|error| unavailable(error.to_string()))?;
        let channel =
            crate::cli::control::channel(stream).await.map_err(|error| unavailable(chain(&error)))?;
        let request =
            ResolveRequest { reference: reference.to_owned(), look_only: true, ..Default::default() };
        ResolverClient::new(channel).resolve(request).await.map(|_| ())
    };
    let asked = tokio::time::timeout(LONG_PATIENCE, asked).await;
    asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("the daemon took too long")))
}

/// Sees who is at the mirror's address.
pub(super) async fn mirror(address: SocketAddr) -> Answerer {
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
    match connected {
        Ok(Ok(stream)) => drop(stream),
        Ok(Err(error)) => return Answerer::Nobody(error.to_string()),
        Err(_) => return Answerer::Nobody("it took too long".to_owned()),
    }
    let asked = tokio::time::timeout(PATIENCE, http(address, Method::GET, "/v2/")).await;
    match asked {
        Err(_) => Answerer::Mute(unanswered(PATIENCE)),
        Ok(Ok(answer)) => {
            let server = answer.header("server").unwrap_or_default();
            if server == "tidehold" {
                return Answerer::Ours;
            }
            let who = if server.is_empty() { "it does not say what it is".to_owned() } else { server };
            Answerer::Other(format!("it answers {} ({who})", answer.status))
        }
        Ok(Err(why)) => Answerer::Other(format!("it does not speak http: {why}")),
    }
}

/// What the daemon's page says of its being ready, or nothing where nobody says any such thing.
pub(super) async fn ready(address: SocketAddr) -> String {
    // systemd may hold its socket for a daemon that does not start.
    let answer = within(PATIENCE, http(address, Method::GET, "/readyz")).await;
    answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()).unwrap_or_default()
}

/// Asks the mirror for an image, as containerd would, but that nothing is to be fetched for it.
pub(super) async fn head(address: SocketAddr, registry: &str, name: &str, reference: &str) -> Head {
    let path = format!("/v2/{name}/manifests/{reference}?ns={registry}");
    match http(address, Method::HEAD, &path).await {
        Ok(answer) if answer.status == 200 => match answer.header("tidehold-held").as_deref() {
            Some("no") => Head::NotHeld,
            Some(_) | None => Head::Answered {
                status: 200,
                standing: answer.header("tidehold-standing"),
                problem: String::new(),
            },
        },
        Ok(answer) => {
            // What is wrong is in the body, which a HEAD has not.
            let said = http(address, Method::GET, &path).await.ok().and_then(|answer| answer.problem());
            let problem = said.unwrap_or_else(|| "it does not say why".to_owned());
            Head::Answered { status: answer.status, standing: None, problem }
        }
        Err(why) => Head::Failed(why),
    }
}

/// An answer over HTTP.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?.to_str().ok()?;
        Some(crate::cli::words::plain(value))
    }

    /// The message of the distribution specification's errors.
    fn problem(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let message = body.get("errors")?.get(0)?.get("message")?.as_str()?;
        Some(crate::cli::words::plain(message))
    }
}

async fn http(address: SocketAddr, method: Method, path: &str) -> Result<Answer, String> {
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::USER_AGENT, concat!("tidehold-doctor/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, ACCEPT)
            .header("tidehold-look-only", "yes")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await.map(|body| body.to_bytes());
        connection.abort();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.unwrap_or_default() })
    };
    within(LONG_PATIENCE, asked).await
}

/// Asks a registry itself whether it is one, which no registry counts.
pub(super) async fn direct(upstream: &url::Url) -> Ended {
    let (host, port) =
        (upstream.host_str().unwrap_or_default(), upstream.port_or_known_default().unwrap_or(443));
    let resolved =
        tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host.trim_matches(['[', ']']), port))).await;
    match resolved {
        Ok(Ok(mut addresses)) => {
            if addresses.next().is_none() {
                return Ended::Unresolved("it has no address".to_owned());
            }
        }
        Ok(Err(error)) => return Ended::Unresolved(error.to_string()),
        Err(_) => return Ended::Unresolved("it took too long".to_owned()),
    }
    let Ok(builder) = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots() else {
        return Ended::Tls("this machine has no root certificates".to_owned());
    };
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    let connector = builder.https_or_http().enable_http1().wrap_connector(plain);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let address = format!("{}/v2/", upstream.as_str().trim_end_matches('/'));
    let request = Request::builder()
        .uri(address)
        .header(header::USER_AGENT, concat!("tidehold-doctor/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new());
    let Ok(request) = request else { return Ended::Unreachable("it is no address to ask".to_owned()) };
    match tokio::time::timeout(PATIENCE, client.request(request)).await {
        Ok(Ok(response)) => {
            let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
            let date: Option<SystemTime> = date.and_then(|date| httpdate::parse_http_date(date).ok());
            Ended::Answered(response.status().as_u16(), date)
        }
        Ok(Err(error)) => {
            let why = chain(&error);
            if why.contains("certificate") || why.contains("TLS") || why.contains("tls") {
                Ended::Tls(why)
            } else {
                Ended::Unreachable(why)
            }
        }
        Err(_) => Ended::Unreachable("it took too long".to_owned()),
    }
}

/// Runs a credential helper as the daemon does. What it answers is seen by nobody.
pub(super) async fn helper(program: &Path, server: &str) -> Helper {
    let run = async {
        let mut child = tokio::process::Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // It need not read what it is asked.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let ended = child.wait_with_output().await.map_err(|error| error.to_string())?;
        let none =
            String::from_utf8_lossy(&ended.stdout).to_ascii_lowercase().contains("credentials not found");
        if ended.status.success() || none { Ok(()) } else { Err(format!("it ended with {}", ended.status)) }
    };
    match within(PATIENCE, run).await {
        Ok(()) => Helper::Runs,
        Err(why) => Helper::Fails(why),
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let done = tokio::time::timeout(patience, work).await;
    done.unwrap_or_else(|_| Err(unanswered(patience)))
}

fn unanswered(patience: Duration) -> String {
    format!("no answer within {} s", patience.as_secs())
}

#[expect(clippy::needless_pass_by_value, reason = "this is how map_err gives it")]
fn said(status: Status) -> String {
    crate::cli::words::plain(status.message())
}

fn alternate(error: &anyhow::Error) -> String {
    crate::cli::words::plain(&format!("{error:#}"))
}

/// An error with what led to it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !told.ends_with(&more) {
            told = format!("{told}: {more}");
        }
        cause = inner.source();
    }
    crate::cli::words::plain(&told)
}

/// An address to connect to, where one is listened at that stands for all.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        match listen {
            SocketAddr::V4(_) => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        }
    }
    address
}
