//! What is asked of a registry, and what its answers are taken for.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::site::{Site, anyone, latest, repository, response, some_digest};
use crate::oci::{ACCEPT_MANIFESTS, Digest};
use crate::upstream::Failure;

#[tokio::test]
async fn a_manifests_head_tells_its_digest_and_size() {
    let site = Site::serve(async |_| {
        let digest = some_digest().to_string();
        response(200, &[("docker-content-digest", &digest), ("content-length", "1234")], "")
    })
    .await;
    let described = site.upstreams().head_manifest(&anyone(), &repository("a/b"), &latest()).await.unwrap();
    assert_eq!((described.digest, described.size), (Some(some_digest()), Some(1234)));

    let [seen] = &site.seen()[..] else { panic!("asked more than once") };
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("HEAD", "/v2/a/b/manifests/latest"));
    assert_eq!(seen.header("accept"), Some(ACCEPT_MANIFESTS));
    assert_eq!(seen.header("user-agent"), Some(concat!("tidehold/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen.header("accept-encoding"), None);
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn a_head_without_a_digest_or_with_a_malformed_one_tells_none() {
    for digest in ["", "sha256:short", "latest", "md5:00"] {
        let site = Site::serve(move |_| async move {
            response(200, &[("docker-content-digest", digest), ("content-length", "7")], "")
        })
        .await;
        let described = site.upstreams().head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap();
        assert_eq!(described.digest, None, "{digest}");
    }
}

#[tokio::test]
async fn a_manifest_comes_whole() {
    let site = Site::serve(async |_| response(200, &[], "{}")).await;
    let upstreams = site.upstreams();
    assert_eq!(upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap(), "{}");
    let by_digest = Digest::of(b"{}").to_string().parse().unwrap();
    assert_eq!(upstreams.get_manifest(&anyone(), &repository("a"), &by_digest).await.unwrap(), "{}");
    assert_eq!(site.seen()[1].target, format!("/v2/a/manifests/{by_digest}"));
}

#[tokio::test]
async fn a_blobs_head_tells_its_size() {
    let site = Site::serve(async |_| response(200, &[("content-length", "99")], "")).await;
    let size = site.upstreams().head_blob(&anyone(), &repository("a"), &some_digest(), None).await.unwrap();
    assert_eq!(size, Some(99));
    assert_eq!(site.seen()[0].target, format!("/v2/a/blobs/{}", some_digest()));
}

#[tokio::test]
async fn a_status_becomes_what_can_be_done_about_it() {
    let site = Site::serve(async |seen| {
        let status = seen.target.rsplit('/').next().unwrap().trim_start_matches('t').parse().unwrap();
        response(status, &[("retry-after", "30")], "")
    })
    .await;
    let wait = Some(Duration::from_secs(30));
    for (status, expected) in [
        (404, "Missing"),
        (401, "Denied { status: 401, challenge: None }"),
        (403, "Denied { status: 403, challenge: None }"),
        (405, "NoHead { status: 405 }"),
        (501, "NoHead { status: 501 }"),
        (429, &*format!("Limited {{ retry_after: {wait:?} }}")),
        (503, &*format!("Unavailable {{ status: 503, retry_after: {wait:?} }}")),
        (418, "Unusable(\"status 418\")"),
        (206, "Unusable(\"status 206\")"),
    ] {
        let reference = format!("t{status}").parse().unwrap();
        // With gates of its own each time.
        let failure = site.upstreams().head_manifest(&anyone(), &repository("a"), &reference).await;
        let failure = failure.unwrap_err();
        assert_eq!(format!("{failure:?}"), expected);
    }
}

#[tokio::test]
async fn a_web_page_is_no_manifest() {
    let site = Site::serve(async |_| {
        response(200, &[("content-type", "Text/HTML; charset=utf-8")], "<html>Please log in</html>")
    })
    .await;
    let upstreams = site.upstreams();
    let head = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await;
    assert!(matches!(head, Err(Failure::Unusable(_))), "{head:?}");
    let get = upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await;
    assert!(matches!(get, Err(Failure::Unusable(_))), "{get:?}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_request_leaves_one_line_without_secrets() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG);
    // With a single subscriber alive, a line that another thread reaches first is judged by that thread's (none)
    // and lost here too; with two, all of them are asked.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let site = Site::serve(async |seen| {
        if seen.target.starts_with("/v2/a/blobs") {
            return response(307, &[("location", "/cdn?signature=verysecret")], "");
        }
        if seen.target.starts_with("/token") {
            return response(200, &[], r#"{"token":"verysecret"}"#);
        }
        if seen.header("authorization").is_none() {
            let challenge = format!("Bearer realm=\"{}/token\"", seen.site());
            return response(401, &[("www-authenticate", &challenge)], "");
        }
        response(200, &[("ratelimit-remaining", "96;w=21600")], "{}")
    })
    .await;
    let upstreams = site.upstreams();
    upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap();
    upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap();
    upstreams.get_blob(&anyone(), &repository("a"), &some_digest(), 0, None).await.unwrap();

    let text = log.text();
    assert!(!text.contains("verysecret"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("asked upstream")).collect();
    let expected: [&[&str]; 6] = [
        &["INFO", "method=GET", "kind=\"manifest\"", "status=401", "counted=false"],
        &["INFO", "method=GET", "kind=\"token\"", "status=200", "counted=false"],
        &[
            "INFO",
            "method=GET",
            "registry=reg.test",
            "repository=\"a\"",
            "what=latest",
            "counted=true",
            "remaining=96",
        ],
        &["INFO", "method=HEAD", "kind=\"manifest\"", "counted=false", "remaining=96", "milliseconds="],
        &["INFO", "kind=\"blob\"", "status=307"],
        &["INFO", "kind=\"blob\"", "status=200"],
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} are not all in {line}");
    }
}
