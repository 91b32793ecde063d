//! containerd's own applier, in a Go program that does nothing else.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::{Applied, Applier, Layer, Mount};
use crate::support::go::{Go, Unbuilt};

/// The running program. Dropping it ends it.
pub(crate) struct Peer {
    running: Mutex<Running>,
    child: Child,
    folder: TempDir,
}

struct Running {
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    error: String,
    #[serde(default)]
    digest: String,
    size: i64,
    #[serde(default)]
    media_type: String,
}

impl Peer {
    pub(crate) fn start() -> Result<Self, Unbuilt> {
        let go = Go::find()?;
        let folder = TempDir::new().unwrap();
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees/peer");
        go.fetch(&module, &["list", "-mod=readonly", "-deps", "-f", "", "."])?;
        let program = folder.path().join("peer");
        go.build(&module, &["build", "-mod=readonly", "-o", &program.to_string_lossy(), "."])?;

        let mut child = Command::new(&program)
            // Whether another program decompresses is not what is compared.
            .env("CONTAINERD_DISABLE_PIGZ", "1")
            .env("CONTAINERD_DISABLE_IGZIP", "1")
            // Where it mounts what it is handed.
            .env("TMPDIR", folder.path())
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let jobs = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Ok(Self { running: Mutex::new(Running { jobs, answers }), child, folder })
    }
}

impl Applier for Peer {
    fn apply(&self, layers: &[(&Layer, Vec<Mount>)]) -> Vec<Result<Applied, String>> {
        // A test that failed while it had the program has not harmed it.
        let mut running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let entries: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(at, (layer, mounts))| {
                let blob = self.folder.path().join(format!("blob-{at}"));
                fs::write(&blob, &layer.bytes).unwrap();
                let descriptor = json!({
                    "mediaType": layer.media_type,
                    "digest": layer.digest(),
                    "size": layer.bytes.len(),
                });
                json!({ "blob": blob, "descriptor": descriptor, "mounts": mounts })
            })
            .collect();
        writeln!(running.jobs, "{}", json!({ "layers": entries })).expect("the peer takes a job");
        let mut line = String::new();
        running.answers.read_line(&mut line).unwrap();
        let outcomes: Vec<Outcome> = serde_json::from_str(&line).expect("an answer of the peer");
        outcomes.into_iter().map(Outcome::into_result).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    fn into_result(self) -> Result<Applied, String> {
        if self.error.is_empty() {
            Ok(Applied { digest: self.digest, size: self.size, media_type: self.media_type })
        } else {
            Err(self.error)
        }
    }
}
