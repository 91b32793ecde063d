//! dockerd, which reads its configuration when it is started or told to: what it goes by is what it says itself.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Where it listens, unless it is told otherwise.
pub(super) const SOCKET: &str = "/run/docker.sock";

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long its answer may be, in bytes: it tells of plugins, runtimes and devices too.
const MOST_BYTES: u64 = 4 << 20;

/// The mirrors of Docker Hub that it goes by; none where it does not say.
pub(super) async fn mirrors(socket: &Path) -> Option<Vec<String>> {
    tokio::time::timeout(PATIENCE, asked(socket)).await.ok()?
}

async fn asked(socket: &Path) -> Option<Vec<String>> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    // The older version of HTTP, in which an answer ends where the connection does.
    stream.write_all(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await.ok()?;
    told(&answer)
}

/// Pure: what an answer says.
fn told(answer: &[u8]) -> Option<Vec<String>> {
    let (head, body) = str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    if head.split_whitespace().nth(1) != Some("200") {
        return None;
    }
    let info: Value = serde_json::from_str(body).ok()?;
    let mirrors = info.get("RegistryConfig")?.get("Mirrors")?.as_array().cloned().unwrap_or_default();
    Some(mirrors.iter().filter_map(|mirror| mirror.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_mirrors_are_those_that_it_says() {
        let answer = |status, mirrors| {
            let body = format!("{{\"RegistryConfig\":{{\"Mirrors\":{mirrors}}}}}");
            told(format!("HTTP/1.0 {status}\r\nServer: Docker\r\n\r\n{body}").as_bytes())
        };
        let ours = "http://127.0.0.1:789/";
        assert_eq!(answer("200 OK", "[\"http://127.0.0.1:789/\"]"), Some(vec![ours.to_owned()]));
        assert_eq!(answer("200 OK", "null"), Some(vec![]));
        assert_eq!(answer("500 Internal Server Error", "null"), None);
        assert_eq!(answer("200 OK", "[\"cut off"), None);
        assert_eq!(told(b""), None);
    }
}
