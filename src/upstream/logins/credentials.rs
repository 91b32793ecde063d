//! The hold's own logins: which one, if any, is for a repository at an upstream.
//!
//! Owns which file is for which registry, and under which names a login is looked up. Refuses to know how a login is
//! shown. Invariant: a registry's login is looked up for an upstream that stands for the registry itself, and for any
//! other only what the file has for that upstream's own host.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use url::{Origin, Position, Url};

use super::docker_config::Source;
use super::helper::{Helpers, PATIENCE};
use super::login::{Login, LoginName};
use super::login_file::{Heard, LoginFile};
use crate::oci::{Registry, Repository};

/// All logins that the configuration names. Cheap to clone; clones share what was read.
#[derive(Clone)]
pub(crate) struct Credentials(Arc<Inner>);

struct Inner {
    named: BTreeMap<Registry, Named>,
    helpers: Helpers,
}

/// What the configuration names for a registry.
struct Named {
    file: Arc<LoginFile>,
    /// Where the registry itself is asked.
    home: Origin,
}

/// A file with logins cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unread;

/// For what a login is sought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<'a> {
    /// The repository, in the registry by whose name it was asked for.
    pub(crate) repository: &'a Repository,
    /// The host that will be asked, with its port where the address has one.
    pub(crate) upstream: &'a str,
    /// Whether it is the registry's own, rather than a mirror of it.
    pub(crate) stands_for_registry: bool,
}

impl Credentials {
    /// The files of these registries, each with where it is asked itself, and helpers in the folders of this search
    /// path.
    pub(crate) fn new(
        files: impl IntoIterator<Item = (Registry, Origin, PathBuf)>,
        search: OsString,
    ) -> Self {
        let mut by_path: BTreeMap<PathBuf, Arc<LoginFile>> = BTreeMap::new();
        let named = files.into_iter().map(|(registry, home, path)| {
            let file = by_path.entry(path).or_insert_with_key(|path| Arc::new(LoginFile::new(path)));
            (registry, Named { file: Arc::clone(file), home })
        });
        Self(Arc::new(Inner { named: named.collect(), helpers: Helpers { search, within: PATIENCE } }))
    }

    /// The login to show to whoever has this address.
    pub(crate) async fn login_at(&self, over: &Url, repository: &Repository, now: Instant) -> Option<Login> {
        let named = self.0.named.get(repository.registry())?;
        let upstream = &over[Position::BeforeHost..Position::AfterPort];
        let stands_for_registry = named.home == over.origin();
        self.login(Sought { repository, upstream, stands_for_registry }, now).await
    }

    /// The login to show, as files and helpers have it now. What goes wrong is in the log, and means none.
    pub(crate) async fn login(&self, sought: Sought<'_>, now: Instant) -> Option<Login> {
        let registry = sought.repository.registry();
        let file = &self.0.named.get(registry)?.file;
        let config = {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || file.read()).await.ok()??
        };
        let hosts = match sought.stands_for_registry {
            true => &[registry.as_str(), sought.upstream][..],
            false => &[sought.upstream],
        };
        self.first(file, config.sources(hosts, sought.repository.name()), now).await.ok().flatten()
    }

    /// Every login that may be shown to whoever has this address, as files and helpers have them now, each once. Where a
    /// helper fails, which login it was asked for.
    ///
    /// # Errors
    /// That the file cannot be used, as the log says.
    pub(crate) async fn all_at(
        &self,
        over: &Url,
        registry: &Registry,
        now: Instant,
    ) -> Result<Vec<Result<Login, LoginName>>, Unread> {
        let Some(named) = self.0.named.get(registry) else { return Ok(Vec::new()) };
        let upstream = &over[Position::BeforeHost..Position::AfterPort];
        let hosts = match named.home == over.origin() {
            true => &[registry.as_str(), upstream][..],
            false => &[upstream],
        };
        let config = {
            let file = Arc::clone(&named.file);
            tokio::task::spawn_blocking(move || file.read()).await.ok().flatten().ok_or(Unread)?
        };
        let mut all = Vec::new();
        for prefix in config.prefixes(hosts) {
            let found = self.first(&named.file, config.sources(hosts, &prefix), now).await.transpose();
            all.extend(found.filter(|found| !all.contains(found)));
        }
        Ok(all)
    }

    /// The first login of these sources; where a helper fails before, which it was asked for.
    async fn first(
        &self,
        file: &LoginFile,
        sources: Vec<Source>,
        now: Instant,
    ) -> Result<Option<Login>, LoginName> {
        for source in sources {
            match source {
                Source::Login(login) => return Ok(Some(login)),
                Source::Helper(question) => {
                    let name = question.name.clone();
                    match file.hear(question, &self.0.helpers, now).await {
                        Heard::Login(login) => return Ok(Some(login)),
                        Heard::Nothing => {}
                        Heard::Failed => return Err(name),
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes note that a login was refused, so that a helper is asked for a newer one.
    pub(crate) fn refused(&self, registry: &Registry, login: &Login) {
        if let Some(named) = self.0.named.get(registry) {
            named.file.refused(login);
        }
    }
}

/// What takes a program to test is in `tests/helpers`.
#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::clock;

    /// The entry whose login is found, for each of these.
    async fn entries(credentials: &Credentials, sought: &[(&str, &str, &str, bool)]) -> Vec<String> {
        let mut entries = Vec::new();
        for &(registry, name, upstream, stands_for_registry) in sought {
            let repository = Repository::new(registry.parse().unwrap(), name).unwrap();
            let sought = Sought { repository: &repository, upstream, stands_for_registry };
            let login = credentials.login(sought, clock::instant()).await;
            entries.push(login.map(|login| login.name().entry.to_string()).unwrap_or_default());
        }
        entries
    }

    fn written(folder: &TempDir, json: &str) -> PathBuf {
        let path = folder.path().join("logins.json");
        fs::write(&path, json).unwrap();
        path
    }

    fn home() -> Origin {
        Url::parse("https://reg.internal/v2/").unwrap().origin()
    }

    #[tokio::test]
    async fn a_mirror_is_told_from_its_registry_by_its_address() {
        let folder = TempDir::new().unwrap();
        let one = r#"{"username":"u","password":"p"}"#;
        let json = format!(r#"{{"auths":{{"reg.test":{one},"mirror.test:5000":{one}}}}}"#);
        let files = [("reg.test".parse().unwrap(), home(), written(&folder, &json))];
        let credentials = Credentials::new(files, OsString::new());
        let repository = Repository::new("reg.test".parse().unwrap(), "a").unwrap();
        for (over, entry) in [
            ("https://reg.internal/v2/a/manifests/b", Some("reg.test")),
            ("http://reg.internal/v2/a/manifests/b", None),
            ("https://reg.internal:444/v2/a/manifests/b", None),
            ("https://mirror.test:5000/v2/a/manifests/b", Some("mirror.test:5000")),
            ("https://mirror.test/v2/a/manifests/b", None),
        ] {
            let login = credentials.login_at(&over.parse().unwrap(), &repository, clock::instant()).await;
            assert_eq!(login.as_ref().map(|login| &*login.name().entry), entry, "{over}");
        }
    }

    #[tokio::test]
    async fn a_mirror_is_never_shown_its_registrys_login() {
        let folder = TempDir::new().unwrap();
        let one = r#"{"username":"u","password":"p"}"#;
        let path = written(
            &folder,
            &format!(r#"{{"auths":{{"reg.test":{one},"mirror.test:5000":{one},"docker.io/me":{one}}}}}"#),
        );
        let registries = ["reg.test", "docker.io", "bare.test"];
        let files = registries.map(|registry| (registry.parse().unwrap(), home(), path.clone()));
        let credentials = Credentials::new(files, OsString::new());
        let found = entries(
            &credentials,
            &[
                ("reg.test", "a", "reg.internal", true),
                ("reg.test", "a", "mirror.test:5000", true),
                ("reg.test", "a", "mirror.test:5000", false),
                ("reg.test", "a", "mirror.test", false),
                ("bare.test", "a", "mirror.test:5000", true),
                ("bare.test", "a", "bare.test", true),
                ("docker.io", "me/a", "registry-1.docker.io", true),
                ("docker.io", "you/a", "registry-1.docker.io", true),
                ("unlisted.test", "a", "reg.test", true),
            ],
        )
        .await;
        let expected =
            ["reg.test", "reg.test", "mirror.test:5000", "", "mirror.test:5000", "", "docker.io/me", "", ""];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_means_no_login() {
        let files = [("reg.test".parse().unwrap(), home(), Path::new("/nowhere/logins.json").to_owned())];
        let credentials = Credentials::new(files, OsString::new());
        assert_eq!(entries(&credentials, &[("reg.test", "a", "reg.test", true)]).await, [""]);
    }
}
