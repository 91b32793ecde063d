//! The files with the hold's own logins, and the helpers that they name. What proves a login is looked at and never told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use tidehold::proto::v1::{LoginOutcome, TriedLogin};

use super::finding::{Finding, bad, ok, warn};
use crate::cli::words::{plain, quoted, quoted_path};

/// A file with logins, and the registries of the configuration that name it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) path: PathBuf,
    pub(super) registries: Vec<String>,
    /// Its rights and its text, or why it cannot be read.
    pub(super) file: Result<(u32, String), String>,
    /// What came of running each helper that it names.
    pub(super) helpers: Vec<(String, Helper)>,
}

/// How a helper did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Helper {
    /// It answered, if only that it has no login.
    Runs,
    /// It is in none of the folders.
    Missing(String),
    /// It failed.
    Fails(String),
}

/// A helper's program, and whom it is to be asked for.
pub(super) type Asked = (String, String);

/// The helpers that a file names.
///
/// # Errors
/// What is wrong with the file, in words that hold nothing of it.
pub(super) fn helpers(text: &str) -> Result<Vec<Asked>, String> {
    let read: Value = serde_json::from_str(text)
        .map_err(|error| format!("not JSON, at line {} column {}", error.line(), error.column()))?;
    let object = read.as_object().ok_or("not docker's format: it is no object")?;
    let mut helpers = BTreeMap::new();
    let first = object.get("auths").and_then(Value::as_object).and_then(|auths| auths.keys().next().cloned());
    if let Some(store) = object.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        let server = first.unwrap_or_else(|| "https://index.docker.io/v1/".to_owned());
        helpers.insert(program(store), server);
    }
    for (server, helper) in object.get("credHelpers").and_then(Value::as_object).into_iter().flatten() {
        if let Some(name) = helper.as_str().filter(|name| !name.is_empty()) {
            helpers.insert(program(name), server.clone());
        }
    }
    for (entry, login) in object.get("auths").and_then(Value::as_object).into_iter().flatten() {
        if !login.is_object() {
            return Err(format!("not docker's format: auths.{entry:?} is no object"));
        }
    }
    Ok(helpers.into_iter().collect())
}

fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Whether each file can be used, and by whom.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let (quoted, shown) = (quoted_path(&facts.path), facts.path.display());
    let who = facts.registries.join(", ");
    let (mode, text) = match &facts.file {
        Ok((mode, text)) => (*mode, text),
        Err(why) => {
            return vec![bad(
                "logins.file",
                format!(
                    "the credentials of {who} cannot be read, so it is asked without a login: {shown}: {why}"
                ),
                format!(
                    "put a file there as docker login writes it (chmod 600 {quoted}), or take the line out of the configuration"
                ),
            )];
        }
    };
    let mut findings = Vec::new();
    if mode & 0o007 != 0 {
        findings.push(bad(
            "logins.rights",
            format!("any user of this node can read the credentials of {who} ({shown}, mode {mode:03o})"),
            format!("chmod 600 {quoted}"),
        ));
    }
    if let Err(why) = helpers(text) {
        findings.push(bad(
            "logins.file",
            format!("the credentials of {who} cannot be used: {shown}: {why}"),
            format!("mend {shown}: docker login --help says how such a file is made"),
        ));
        return findings;
    }
    for (program, helper) in &facts.helpers {
        match helper {
            Helper::Runs => {}
            Helper::Missing(searched) => findings.push(bad(
                "logins.helper",
                format!("{shown} names {program}, which is in no folder of PATH ({searched})"),
                format!("install it, for one as /usr/local/bin/{program}"),
            )),
            Helper::Fails(why) => findings.push(warn(
                "logins.helper",
                format!("{program}, which {shown} names, fails: {why}"),
                format!(
                    "run it by hand, as the daemon's user, to see what it says: echo REGISTRY | {program} get"
                ),
            )),
        }
    }
    if findings.is_empty() {
        findings.push(ok("logins.file", format!("the credentials of {who} can be read: {shown}")));
    }
    findings
}

/// What came of trying each login; the files are by the registries that have them.
pub(super) fn tried(files: &BTreeMap<&str, &Path>, all: &[TriedLogin]) -> Vec<Finding> {
    all.iter().map(|tried| one(files, tried)).collect()
}

fn one(files: &BTreeMap<&str, &Path>, tried: &TriedLogin) -> Finding {
    let [registry, host, entry, why] =
        [&tried.registry, &tried.host, &tried.entry, &tried.why].map(|text| plain(text));
    let named = files.get(tried.registry.as_str()).map(|file| file.display().to_string()).unwrap_or_default();
    let file = if tried.file.is_empty() { named } else { plain(&tried.file) };
    let login = match entry.is_empty() {
        true => format!("the login for {registry} in {file}"),
        false => format!("the login for {entry} in {file}"),
    };
    match tried.outcome() {
        LoginOutcome::Accepted => ok("logins.work", format!("{login} is accepted by {host}")),
        LoginOutcome::Refused => bad(
            "logins.refused",
            format!(
                "{login} is refused by {host} (status {}): what everybody may have is pulled without it, by the limit of this \
                 node's address, and private images are not to be had with it",
                tried.status
            ),
            renewed(&registry, &file),
        ),
        LoginOutcome::Absent => warn(
            "logins.none",
            format!("{file} has no login for {registry}, so it is asked as by anybody"),
            renewed(&registry, &file),
        ),
        LoginOutcome::Untried => warn(
            "logins.untried",
            format!("whether {login} is good could not be seen at {host}: {why}"),
            format!(
                "when that is mended: tidehold doctor; what was answered: tidehold log --registry {registry}"
            ),
        ),
    }
}

/// None was tried.
pub(super) fn untried(files: &BTreeMap<&str, &Path>, why: &str) -> Finding {
    let registries = files.keys().copied().collect::<Vec<_>>().join(", ");
    warn(
        "logins.untried",
        format!("whether the logins for {registries} are good was not tried: {}", plain(why)),
        "tidehold doctor, with the daemon running and without --offline",
    )
}

/// How a login is made anew. docker calls its own registry by no name.
fn renewed(registry: &str, file: &str) -> String {
    let whose = if registry == tidehold::config::DOCKER_HUB {
        String::new()
    } else {
        format!(" {}", quoted(registry))
    };
    let (registry, file) = (quoted(registry), quoted(file));
    format!(
        "log in anew, into that file: podman login --authfile {file} {registry}\nor: docker login{whose}, and put what is then \
         in ~/.docker/config.json there; where a credential helper has the login, renew it there"
    )
}

/// Where the daemon looks for helpers, where its unit says nothing else.
pub(super) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Whether a path is beneath one of these folders.
pub(super) fn found_in<'a>(folders: impl Iterator<Item = &'a Path>, program: &str) -> Option<PathBuf> {
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    fn judged(mode: u32, text: &str, helper: Helper) -> Vec<(Level, &'static str)> {
        let facts = Facts {
            path: "/l.json".into(),
            registries: vec!["reg.test".into()],
            file: Ok((mode, text.to_owned())),
            helpers: vec![("docker-credential-x".into(), helper)],
        };
        judge(&facts).iter().map(|finding| (finding.level, finding.name)).collect()
    }

    #[test]
    fn a_file_and_its_helpers_are_judged() {
        let good = r#"{"auths":{"reg.test":{}},"credsStore":"x","credHelpers":{"a.test":"y"}}"#;
        assert_eq!(judged(0o600, good, Helper::Runs), [(Level::Ok, "logins.file")]);
        assert_eq!(judged(0o644, good, Helper::Runs), [(Level::Bad, "logins.rights")]);
        assert_eq!(judged(0o600, "{", Helper::Runs), [(Level::Bad, "logins.file")]);
        assert_eq!(judged(0o600, r#"{"auths":{"x":"secret"}}"#, Helper::Runs), [(Level::Bad, "logins.file")]);
        assert_eq!(judged(0o600, good, Helper::Missing(String::new())), [(Level::Bad, "logins.helper")]);
        assert_eq!(judged(0o600, good, Helper::Fails(String::new())), [(Level::Warn, "logins.helper")]);
        let asked = helpers(good).unwrap();
        let expected = [("docker-credential-x", "reg.test"), ("docker-credential-y", "a.test")];
        assert_eq!(asked, expected.map(|(program, server)| (program.to_owned(), server.to_owned())));
    }

    #[test]
    fn each_end_of_a_trial_is_told_with_its_mend() {
        let files = BTreeMap::from([("docker.io", Path::new("/l.json")), ("a.test", Path::new("/o.json"))]);
        let judged = |outcome: LoginOutcome, registry: &str, entry: &str| {
            let tried = TriedLogin {
                registry: registry.to_owned(),
                host: "host.test".to_owned(),
                entry: entry.to_owned(),
                file: if entry.is_empty() { String::new() } else { "/l.json".to_owned() },
                outcome: outcome.into(),
                status: 401,
                why: "it is away".to_owned(),
            };
            let found = tried_one(&files, tried);
            assert_eq!(found.mend.is_empty(), found.level == Level::Ok, "{found:?}");
            (found.level, found.name, format!("{}\n{}", found.what, found.mend))
        };
        let (level, name, told) = judged(LoginOutcome::Refused, "docker.io", "docker.io/me");
        assert_eq!((level, name), (Level::Bad, "logins.refused"));
        let words =
            ["docker.io/me in /l.json", "host.test (status 401)", "address", "--authfile /l.json docker.io"];
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
        assert!(told.contains("docker login,"), "{told}");
        assert_eq!(judged(LoginOutcome::Accepted, "docker.io", "docker.io").0, Level::Ok);
        let (level, name, told) = judged(LoginOutcome::Absent, "a.test", "");
        assert_eq!((level, name), (Level::Warn, "logins.none"));
        assert!(
            told.contains("/o.json has no login for a.test") && told.contains("docker login a.test"),
            "{told}"
        );
        let (level, name, told) = judged(LoginOutcome::Untried, "a.test", "a.test");
        assert_eq!((level, name), (Level::Warn, "logins.untried"));
        assert!(told.contains("it is away"), "{told}");
        assert!(untried(&files, "x").what.contains("a.test, docker.io"));
    }

    fn tried_one(files: &BTreeMap<&str, &Path>, one: TriedLogin) -> Finding {
        tried(files, &[one]).remove(0)
    }

    #[test]
    fn nothing_of_a_file_is_told() {
        let facts = Facts {
            path: "/l.json".into(),
            registries: Vec::new(),
            file: Ok((0o600, r#"{"auths":{"reg.test": secret}}"#.to_owned())),
            helpers: Vec::new(),
        };
        assert!(!format!("{:?}", judge(&facts)).contains("secret"));
    }
}
