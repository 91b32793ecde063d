//! The files with the hold's own logins, and the helpers that they name. What proves a login is looked at and never told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::finding::{Finding, bad, ok, warn};
use crate::cli::words::quoted_path;

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
