//! A file with logins on the disk: read again where it has changed, and what helpers answered for it.
//!
//! Owns what the log says of it: each fault once, until the file changes. Invariants: a file that cannot be used means
//! no login, never the ones it had; a helper is asked by one at a time for each question, and not again at once.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use lru::LruCache;

use super::docker_config::DockerConfig;
use super::helper::{Helpers, Question};
use super::login::Login;

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 1024 * 1024;

/// How many answers of helpers are kept.
const MOST_ANSWERS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How long a helper's login is relied on.
pub(super) const LOGIN_KEPT: Duration = Duration::from_secs(5 * 60);

/// How long a helper that has no login, or fails, is left alone.
pub(super) const NO_LOGIN_KEPT: Duration = Duration::from_secs(30);

/// A file in docker's format.
pub(super) struct LoginFile {
    path: Arc<Path>,
    known: Mutex<Option<Known>>,
    answers: Mutex<LruCache<Question, Answer>>,
}

/// The file as it was last read.
struct Known {
    stamp: Option<Stamp>,
    read: Result<Arc<DockerConfig>, String>,
}

/// What tells a changed file from the one that was read.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    /// Whoever changes the owner or the mode leaves the time of the last change to the bytes alone.
    altered: (i64, i64),
    length: u64,
    inode: (u64, u64),
    mode: u32,
}

/// What a helper was asked, from which moment on.
#[derive(Clone)]
struct Answer {
    since: Instant,
    heard: Shared<BoxFuture<'static, Heard>>,
}

/// What a helper has for a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A login.
    Login(Login),
    /// None: another source may have one.
    Nothing,
    /// It failed. Another source's login might be the wrong one.
    Failed,
}

impl LoginFile {
    /// The file at this path. Reads nothing yet.
    pub(super) fn new(path: &Path) -> Self {
        let answers = Mutex::new(LruCache::new(MOST_ANSWERS));
        Self { path: path.into(), known: Mutex::new(None), answers }
    }

    /// What the file says now; nothing where it cannot be used. Blocks for the disk.
    pub(super) fn read(&self) -> Option<Arc<DockerConfig>> {
        let found = fs::metadata(&self.path).map_err(|error| error.to_string());
        let stamp = found.as_ref().ok().map(Stamp::of);
        if let Some(Known { stamp: known, read: Ok(config) }) = &*lock(&self.known)
            && *known == stamp
        {
            return Some(Arc::clone(config));
        }
        let (read, faults) = match found.and_then(|found| self.parse(&found)) {
            Ok((config, faults)) => (Ok(Arc::new(config)), faults),
            // Tried again the next time: it need not be the file that was at fault.
            Err(why) => (Err(why), Vec::new()),
        };
        let mut known = lock(&self.known);
        let said = known
            .as_ref()
            .is_some_and(|known| known.stamp == stamp && known.read.as_ref().err() == read.as_ref().err());
        if !said {
            self.log(read.as_ref().err(), &faults, stamp.as_ref());
        }
        let config = read.as_ref().ok().cloned();
        *known = Some(Known { stamp, read });
        config
    }

    /// What a helper has: asked now, by somebody else at this moment, or a short while ago.
    pub(super) async fn hear(&self, question: Question, helpers: &Helpers, now: Instant) -> Heard {
        let heard = {
            let mut answers = lock(&self.answers);
            match answers.get(&question) {
                Some(answer) if answer.is_good_at(now) => answer.heard.clone(),
                Some(_) | None => {
                    let heard = hear(question.clone(), helpers.clone()).boxed().shared();
                    answers.put(question, Answer { since: now, heard: heard.clone() });
                    heard
                }
            }
        };
        heard.await
    }

    /// Drops a helper's login that was refused: the helper may have a newer one.
    pub(super) fn refused(&self, login: &Login) {
        let mut answers = lock(&self.answers);
        let refused = answers
            .iter()
            .find(|(_, answer)| matches!(answer.heard.peek(), Some(Heard::Login(heard)) if heard == login));
        if let Some(question) = refused.map(|(question, _)| question.clone()) {
            answers.pop(&question);
        }
    }

    fn parse(&self, found: &Metadata) -> Result<(DockerConfig, Vec<String>), String> {
        if !found.is_file() {
            return Err("it is no file".to_owned());
        }
        let mut bytes = Vec::new();
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(format!("it is larger than {MOST_BYTES} bytes"));
        }
        DockerConfig::parse(&bytes, &self.path)
    }

    fn log(&self, why: Option<&String>, faults: &[String], stamp: Option<&Stamp>) {
        let file = self.path.display();
        if let Some(why) = why {
            tracing::error!(%file, %why, "the credentials cannot be read: registries are asked without a login");
        }
        for fault in faults {
            tracing::error!(%file, %fault, "an entry of the credentials is left out");
        }
        if let Some(stamp) = stamp
            && stamp.mode & 0o006 != 0
        {
            let mode = format!("{:03o}", stamp.mode & 0o777);
            tracing::warn!(%file, mode, "any user of this node can read or change the credentials: chmod 600");
        }
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            modified: (found.mtime(), found.mtime_nsec()),
            altered: (found.ctime(), found.ctime_nsec()),
            length: found.len(),
            inode: (found.dev(), found.ino()),
            mode: found.mode(),
        }
    }
}

impl Answer {
    /// Whether to rely on it still; on one that is to come in any case.
    fn is_good_at(&self, now: Instant) -> bool {
        let kept = match self.heard.peek() {
            None => return true,
            Some(Heard::Login(_)) => LOGIN_KEPT,
            Some(Heard::Nothing | Heard::Failed) => NO_LOGIN_KEPT,
        };
        now.saturating_duration_since(self.since) < kept
    }
}

async fn hear(question: Question, helpers: Helpers) -> Heard {
    match helpers.ask(&question).await {
        Ok(Some(login)) => Heard::Login(login),
        Ok(None) => Heard::Nothing,
        Err(why) => {
            let (helper, server) = (&question.helper, &question.server);
            let file = question.name.file.display();
            tracing::error!(%helper, server, %file, %why, "a credential helper failed");
            Heard::Failed
        }
    }
}

/// Nothing that is done under these locks can leave what they guard half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What takes a program to test is in `tests/helpers`.
#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::docker_config::Source;
    use super::super::login::LoginName;
    use super::*;

    fn write(path: &Path, user: &str) {
        let text = format!(r#"{{"auths":{{"reg.test":{{"username":"{user}","password":"p"}}}}}}"#);
        // In one step, as those do who write such files.
        let draft = path.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, Permissions::from_mode(0o600)).unwrap();
        fs::rename(draft, path).unwrap();
    }

    fn found(file: &LoginFile) -> Option<Login> {
        match file.read()?.sources(&["reg.test"], "a").pop()? {
            Source::Login(login) => Some(login),
            Source::Helper(_) => panic!("no helper is named"),
        }
    }

    #[test]
    fn a_file_is_read_again_where_it_has_changed() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("logins.json");
        let file = LoginFile::new(&path);
        let name = || LoginName { file: path.as_path().into(), entry: "reg.test".into() };
        assert_eq!(found(&file), None);
        for user in ["a", "b"] {
            write(&path, user);
            assert_eq!(found(&file), Some(Login::of_user(name(), user, "p")));
        }
        assert!(Arc::ptr_eq(&file.read().unwrap(), &file.read().unwrap()));
        fs::write(&path, "{").unwrap();
        assert_eq!(found(&file), None);
        write(&path, "c");
        assert_eq!(found(&file), Some(Login::of_user(name(), "c", "p")));
        fs::remove_file(&path).unwrap();
        assert_eq!(found(&file), None);
        fs::create_dir(&path).unwrap();
        assert_eq!(found(&file), None);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, vec![b' '; MOST_BYTES as usize + 1]).unwrap();
        assert_eq!(found(&file), None);
    }
}
