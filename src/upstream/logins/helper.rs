//! Credential helpers: docker's `docker-credential-NAME get`, run once for each question.
//!
//! Knows nothing of files and keeps no answer. Invariants: no shell and no path out of the folders that are searched;
//! a helper that is slow, or says too much, is killed with all that it started; what it says on failing is shown to
//! nobody, since it may be a secret.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{env, fmt, io};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::login::{Login, LoginName};

/// The most that is read of what a helper says, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// How long a helper may take: some ask a cloud's API.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The part of a helper's name that files hold: no path, nothing for a shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HelperName(String);

impl HelperName {
    /// A name of letters, digits, `.`, `_` and `-`.
    pub(super) fn new(name: &str) -> Option<Self> {
        let sound = !name.is_empty()
            && name.len() <= 100
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        sound.then(|| Self(name.to_owned()))
    }
}

/// The program's name.
impl fmt::Display for HelperName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker-credential-{}", self.0)
    }
}

/// What a helper is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The helper.
    pub(super) helper: HelperName,
    /// Whose login, in the spelling that the helper knows.
    pub(super) server: String,
    /// What its answer is called.
    pub(super) name: LoginName,
}

/// Where helpers are found, and how long they may take.
#[derive(Clone, Debug)]
pub(super) struct Helpers {
    /// Folders, as in `PATH`.
    pub(super) search: OsString,
    /// From the start to the end.
    pub(super) within: Duration,
}

/// Why a helper gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperFault {
    #[error("it is in no folder of PATH")]
    NotFound,
    #[error("it cannot be run: {0}")]
    Io(#[from] io::Error),
    #[error("it took longer than {0:?}")]
    TooSlow(Duration),
    #[error("it said more than {MOST_BYTES} bytes")]
    TooLong,
    #[error("it ended with {0}; run it by hand to see what it says")]
    Ended(ExitStatus),
    #[error("what it says is not docker's format")]
    Unusable,
}

impl Helpers {
    /// Asks; no login is an answer too.
    pub(super) async fn ask(&self, question: &Question) -> Result<Option<Login>, HelperFault> {
        let running = self.start(question.helper.to_string()).await?;
        let asked = tokio::time::timeout(self.within, running.ask(&question.server)).await;
        // One that is given up on is dropped, and so killed.
        let (status, said) = asked.map_err(|_| HelperFault::TooSlow(self.within))??;
        if !status.success() {
            let words = String::from_utf8_lossy(&said).to_ascii_lowercase();
            return if words.contains("credentials not found") {
                Ok(None)
            } else {
                Err(HelperFault::Ended(status))
            };
        }
        read(&said, &question.name)
    }

    /// Finding and starting a program blocks.
    async fn start(&self, program: String) -> Result<Running, HelperFault> {
        let search = self.search.clone();
        let started = tokio::task::spawn_blocking(move || {
            let path = env::split_paths(&search)
                // A relative folder would be one of whoever chose where we run.
                .filter(|folder| folder.is_absolute())
                .map(|folder| folder.join(&program))
                .find(|path| is_program(path))
                .ok_or(HelperFault::NotFound)?;
            let child = Command::new(path)
                .arg("get")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()?;
            Ok(Running(child))
        });
        started.await.map_err(|error| HelperFault::Io(io::Error::other(error)))?
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// A helper that runs. Dropping it kills it with whatever it started, unless it has ended.
struct Running(Child);

impl Running {
    async fn ask(mut self, server: &str) -> Result<(ExitStatus, Vec<u8>), HelperFault> {
        if let Some(mut stdin) = self.0.stdin.take() {
            // One that does not care to read may answer all the same.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut said = Vec::new();
        if let Some(stdout) = self.0.stdout.take() {
            stdout.take(MOST_BYTES + 1).read_to_end(&mut said).await?;
        }
        if said.len() as u64 > MOST_BYTES {
            return Err(HelperFault::TooLong);
        }
        Ok((self.0.wait().await?, said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // None once it was waited for; until then its number is nobody else's.
        if let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

fn read(said: &[u8], name: &LoginName) -> Result<Option<Login>, HelperFault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Said {
        username: String,
        secret: String,
    }
    // The error's own words may hold the secret.
    let said: Said = serde_json::from_slice(said).map_err(|_| HelperFault::Unusable)?;
    if said.username.is_empty() && said.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Login::of_user(name.clone(), &said.username, &said.secret)))
}

/// What takes a program to test is in `tests/helpers`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helpers_name_holds_no_path_and_nothing_for_a_shell() {
        for name in ["ecr-login", "gcloud", "osx.keychain_2"] {
            assert_eq!(HelperName::new(name).unwrap().to_string(), format!("docker-credential-{name}"));
        }
        for name in ["", "/bin/sh", "../x", "a/b", "a b", "a;b", "$(x)", "a\\b", "a\0b", "ä"] {
            assert_eq!(HelperName::new(name), None, "{name:?}");
        }
    }
}
