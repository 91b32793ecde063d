//! Debian's docker-registry as a second, real upstream, on loopback and with a folder of its own.

use std::fs;
use std::process::Command;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;

use super::hub::Image;
use super::parts::{Available, part, programs};
use super::process::{Process, free_port};

/// A running docker-registry. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct DockerRegistry {
    address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    process: Process,
    _folder: TempDir,
}

impl DockerRegistry {
    /// Whether it can be run here.
    pub(crate) fn available() -> Available<()> {
        part("docker-registry").map(|_| ())
    }

    pub(crate) fn start() -> Self {
        let program = programs(&part("docker-registry").unwrap()).join("docker-registry");
        let folder = tempfile::Builder::new().prefix("tidehold-registry-").tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.path().join("storage").display()
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(file);
        let process = Process::start_listening("docker-registry", &mut command, folder.path(), &address);
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client, process, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log, one line for each request that it answered.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Pushes an image with all its platforms, blobs first, as a registry demands.
    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &Image) {
        for platform in &image.platforms {
            for digest in platform.layers.iter().chain([&platform.config]) {
                self.push_blob(repository, digest, image.bytes_of(digest).unwrap()).await;
            }
            let manifest = image.bytes_of(&platform.manifest).unwrap();
            self.push_manifest(repository, &platform.manifest, manifest).await;
        }
        self.push_manifest(repository, tag, image.bytes_of(&image.digest).unwrap()).await;
    }

    async fn push_blob(&self, repository: &str, digest: &str, bytes: Bytes) {
        let begin = request(Method::POST, &format!("{}/v2/{repository}/blobs/uploads/", self.url()));
        let begun = self.send(begin.body(Full::default()).unwrap(), StatusCode::ACCEPTED).await;
        // It names the place of the upload, with a query of its own.
        let place = begun.headers()[LOCATION].to_str().unwrap();
        let end = request(Method::PUT, &format!("{place}&digest={digest}"));
        let end = end.header(CONTENT_TYPE, "application/octet-stream").body(Full::new(bytes)).unwrap();
        self.send(end, StatusCode::CREATED).await;
    }

    async fn push_manifest(&self, repository: &str, reference: &str, bytes: Bytes) {
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let media_type = manifest["mediaType"].as_str().unwrap();
        let put = request(Method::PUT, &format!("{}/v2/{repository}/manifests/{reference}", self.url()));
        let put = put.header(CONTENT_TYPE, media_type).body(Full::new(bytes)).unwrap();
        self.send(put, StatusCode::CREATED).await;
    }

    async fn send(&self, request: Request<Full<Bytes>>, expected: StatusCode) -> Response<Incoming> {
        let asked = format!("{} {}", request.method(), request.uri());
        let response = self.client.request(request).await.unwrap();
        assert_eq!(response.status(), expected, "{asked}");
        response
    }
}

fn request(method: Method, uri: &str) -> http::request::Builder {
    Request::builder().method(method).uri(uri)
}
