//! A file in docker's format, read: which login or helper there is for a repository.
//!
//! Takes docker's keys (`host`, `https://host/v1/`, `host:port`) and those of podman's auth.json (`host/team/app`,
//! the longest prefix first). Opens no file, runs no helper. Invariant: no error holds anything but keys and places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

use super::helper::{HelperName, Question};
use super::login::{Login, LoginName};

/// Under which name docker asks credential helpers for Docker Hub's login.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// What Docker Hub is called here.
const HUB: &str = "docker.io";

/// With and without padding, since both are found.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file's logins and helpers, by host and repository prefix.
#[derive(Debug)]
pub(super) struct DockerConfig {
    file: Arc<Path>,
    auths: HashMap<String, Auth>,
    helpers: HashMap<String, (String, HelperName)>,
    store: Option<HelperName>,
}

/// An entry of `auths`. One without a login says that the store has it.
#[derive(Debug)]
struct Auth {
    written: String,
    login: Option<Login>,
}

/// Where a login is to be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the file.
    Login(Login),
    /// By asking a helper, which may have none.
    Helper(Question),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    auths: Option<BTreeMap<String, Value>>,
    cred_helpers: Option<BTreeMap<String, Value>>,
    creds_store: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads a file's bytes. What is wrong with single entries comes beside the rest, which stands.
    ///
    /// # Errors
    /// What is wrong with the whole, in words that hold nothing of it.
    pub(super) fn parse(bytes: &[u8], file: &Arc<Path>) -> Result<(Self, Vec<String>), String> {
        let raw: RawFile = serde_json::from_slice(bytes).map_err(|error| {
            // Its own words may hold a value.
            let what = if error.is_data() { "not docker's format" } else { "not JSON" };
            format!("{what}, at line {} column {}", error.line(), error.column())
        })?;
        let mut faults = Vec::new();
        let mut config =
            Self { file: Arc::clone(file), auths: HashMap::new(), helpers: HashMap::new(), store: None };
        for (written, value) in raw.auths.unwrap_or_default() {
            let key = normalized(&written);
            let name = LoginName { file: Arc::clone(file), entry: written.as_str().into() };
            match login(value, name) {
                Ok(login) => config.enter(key, Auth { written, login }),
                Err(why) => faults.push(format!("auths.{written:?}: {why}")),
            }
        }
        for (written, value) in raw.cred_helpers.unwrap_or_default() {
            match helper(&value) {
                Ok(None) => {}
                Ok(Some(helper)) => {
                    config.helpers.insert(normalized(&written), (written, helper));
                }
                Err(why) => faults.push(format!("credHelpers.{written:?}: {why}")),
            }
        }
        match raw.creds_store.as_ref().map(helper) {
            None => {}
            Some(Ok(store)) => config.store = store,
            Some(Err(why)) => faults.push(format!("credsStore: {why}")),
        }
        Ok((config, faults))
    }

    /// Of two spellings of one key the one with a login is kept, and of two with one the plainer.
    fn enter(&mut self, key: String, auth: Auth) {
        let kept = self.auths.get(&key);
        let keeps =
            kept.is_some_and(|kept| kept.login.is_some() && (auth.login.is_none() || kept.written == key));
        if !keeps {
            self.auths.insert(key, auth);
        }
    }

    /// Where the login for a repository is to be had under the first of these hosts (with their ports) that has one,
    /// in the order in which to try: helpers may turn out to have none. For each prefix, the longest first, a helper
    /// of its own comes before a login; the helper for all that is left comes last.
    pub(super) fn sources(&self, hosts: &[&str], repository: &str) -> Vec<Source> {
        let mut sources = Vec::new();
        for host in hosts {
            let host = normalized_host(host);
            let whole = format!("{host}/{repository}");
            let mut key = whole.as_str();
            loop {
                if let Some((written, helper)) = self.helpers.get(key) {
                    let server = if key == HUB { HUB_SERVER } else { written };
                    sources.push(Source::Helper(self.question(helper, server, written)));
                }
                if let Some(Auth { login: Some(login), .. }) = self.auths.get(key) {
                    sources.push(Source::Login(login.clone()));
                    // Nothing after it will be tried.
                    return sources;
                }
                match key.rsplit_once('/') {
                    Some((shorter, _)) => key = shorter,
                    None => break,
                }
            }
            if let Some(store) = &self.store {
                let server = match self.auths.get(&host) {
                    Some(auth) => &auth.written,
                    None if host == HUB => HUB_SERVER,
                    None => &host,
                };
                sources.push(Source::Helper(self.question(store, server, server)));
            }
        }
        sources
    }

    /// The beginnings of repositories' names that the file tells apart under one of these hosts, the empty one, which
    /// is of all of them, among them.
    pub(super) fn prefixes(&self, hosts: &[&str]) -> BTreeSet<String> {
        let hosts: Vec<String> = hosts.iter().map(|host| normalized_host(host)).collect();
        let with_logins = self.auths.iter().filter(|(_, auth)| auth.login.is_some()).map(|(key, _)| key);
        let beneath = with_logins.chain(self.helpers.keys()).filter_map(|key| {
            let mut rests = hosts.iter().filter_map(|host| key.strip_prefix(host)?.strip_prefix('/'));
            rests.next().map(str::to_owned)
        });
        beneath.chain([String::new()]).collect()
    }

    fn question(&self, helper: &HelperName, server: &str, entry: &str) -> Question {
        let name = LoginName { file: Arc::clone(&self.file), entry: entry.into() };
        Question { helper: helper.clone(), server: server.to_owned(), name }
    }
}

/// An entry's login; none where it is empty, which docker writes where a store holds it.
fn login(value: Value, name: LoginName) -> Result<Option<Login>, &'static str> {
    let raw: RawAuth = serde_json::from_value(value).map_err(|_| "not an entry of docker's format")?;
    let filled = |field: Option<String>| field.filter(|text| !text.is_empty());
    if let Some(token) = filled(raw.registrytoken) {
        let login = Login::of_registry_token(name, &token);
        return login.map(Some).ok_or("registrytoken cannot be sent in a header");
    }
    if let Some(token) = filled(raw.identitytoken) {
        return Ok(Some(Login::of_identity(name, &token)));
    }
    if let Some(auth) = filled(raw.auth) {
        let decoded = BASE64.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or("auth is not base64 of user:password")?;
        let (user, password) = decoded.split_once(':').ok_or("auth is not base64 of user:password")?;
        // docker pads it so.
        return Ok(Some(Login::of_user(name, user, password.trim_matches('\0'))));
    }
    match (filled(raw.username), filled(raw.password)) {
        (None, None) => Ok(None),
        (user, password) => {
            Ok(Some(Login::of_user(name, &user.unwrap_or_default(), &password.unwrap_or_default())))
        }
    }
}

fn helper(value: &Value) -> Result<Option<HelperName>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) => HelperName::new(name).map(Some).ok_or("not the name of a helper"),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err("not the name of a helper")
        }
    }
}

/// A key as it is looked up: `host`, `host:port` or either with a repository prefix.
fn normalized(written: &str) -> String {
    let lower = written.trim().to_ascii_lowercase();
    let bare = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    // What follows the host in an address is the API's path, and names no repository.
    let (key, address) = (bare.unwrap_or(&lower), bare.is_some());
    let Some((host, path)) = key.split_once('/') else { return normalized_host(key) };
    let prefix = path.trim_matches('/');
    if address || prefix.is_empty() || matches!(path, "v1/" | "v2/") {
        return normalized_host(host);
    }
    format!("{}/{prefix}", normalized_host(host))
}

/// Docker Hub has several names.
fn normalized_host(host: &str) -> String {
    match host {
        "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> (DockerConfig, Vec<String>) {
        DockerConfig::parse(json.as_bytes(), &Path::new("/f").into()).unwrap()
    }

    fn auth(pair: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, BASE64.encode(pair))
    }

    /// The sources in a line: logins by their entries, helpers with what they are asked.
    fn told(config: &DockerConfig, hosts: &[&str], repository: &str) -> String {
        let sources = config.sources(hosts, repository);
        let words = sources.iter().map(|source| match source {
            Source::Login(login) => login.name().entry.to_string(),
            Source::Helper(question) => {
                let program = question.helper.to_string();
                format!("{} {}", program.trim_start_matches("docker-credential-"), question.server)
            }
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_longest_prefix_wins() {
        let one = auth("u:p");
        let (config, faults) = parse(&format!(
            r#"{{"auths":{{"reg.test":{one},"reg.test/team":{one},"reg.test/team/app":{one},
                "reg.test:5000":{one},"other.test/team":{one},"docker.io/library/nginx":{one}}}}}"#
        ));
        assert_eq!(faults, [""; 0]);
        for (host, repository, entry) in [
            ("reg.test", "a", "reg.test"),
            ("reg.test", "team", "reg.test/team"),
            ("reg.test", "teams/app", "reg.test"),
            ("reg.test", "team/other", "reg.test/team"),
            ("reg.test", "team/app", "reg.test/team/app"),
            ("reg.test", "team/app/deep/er", "reg.test/team/app"),
            ("reg.test", "team/apps", "reg.test/team"),
            ("reg.test:5000", "team/app", "reg.test:5000"),
            ("reg.test:5001", "team/app", ""),
            ("other.test", "a", ""),
            ("other.test", "team/x", "other.test/team"),
            ("docker.io", "library/nginx", "docker.io/library/nginx"),
            ("docker.io", "library/redis", ""),
        ] {
            assert_eq!(told(&config, &[host], repository), entry, "{host}/{repository}");
        }
        assert_eq!(told(&config, &["nobody.test", "reg.test"], "a"), "reg.test");
        assert_eq!(told(&config, &["other.test", "reg.test"], "team/app"), "other.test/team");
    }

    #[test]
    fn a_host_is_found_in_every_spelling() {
        for (written, host) in [
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://index.docker.io/v1", "docker.io"),
            ("index.docker.io/v1/", "registry-1.docker.io"),
            ("https://registry-1.docker.io/v2/", "index.docker.io"),
            ("https://Reg.Test", "reg.test"),
            ("http://reg.test:5000/v2/", "reg.test:5000"),
            ("reg.test/", "reg.test"),
            ("reg.test/v2/", "reg.test"),
            ("[2a00::1]:5000", "[2a00::1]:5000"),
        ] {
            let (config, _) = parse(&format!(r#"{{"auths":{{"{written}":{}}}}}"#, auth("u:p")));
            assert_eq!(told(&config, &[host], "a/b"), written, "{written}");
        }
    }

    #[test]
    fn an_entry_proves_by_the_first_that_it_has() {
        let name = || LoginName { file: Path::new("/f").into(), entry: "r".into() };
        let user = |user, secret| Some(Login::of_user(name(), user, secret));
        let encoded = |pair: &str| BASE64.encode(pair);
        for (entry, login) in [
            ("{}".to_owned(), None),
            (r#"{"auth":"","email":"me@x.test"}"#.to_owned(), None),
            (auth("u:p:q"), user("u", "p:q")),
            (format!(r#"{{"auth":" {} "}}"#, encoded("u:p")), user("u", "p")),
            (format!(r#"{{"auth":"{}"}}"#, encoded("uu:p").trim_end_matches('=')), user("uu", "p")),
            (auth("u:p\0\0"), user("u", "p")),
            (r#"{"username":"u","password":"p"}"#.to_owned(), user("u", "p")),
            (format!(r#"{{"auth":"{}","username":"x","password":"y"}}"#, encoded("u:p")), user("u", "p")),
            (auth("<token>:t"), Some(Login::of_identity(name(), "t"))),
            (
                format!(r#"{{"auth":"{}","identitytoken":"t"}}"#, encoded("0000:")),
                Some(Login::of_identity(name(), "t")),
            ),
            (
                r#"{"registrytoken":"r","identitytoken":"t"}"#.to_owned(),
                Login::of_registry_token(name(), "r"),
            ),
        ] {
            let (config, faults) = parse(&format!(r#"{{"auths":{{"r":{entry}}}}}"#));
            assert_eq!(faults, [""; 0]);
            let found = config.sources(&["r"], "a").pop();
            assert_eq!(found, login.map(Source::Login), "{entry}");
        }
    }

    #[test]
    fn helpers_are_asked_for_their_own_and_the_store_for_what_is_left() {
        let (config, faults) = parse(&format!(
            r#"{{"credHelpers":{{"ecr.test":"ecr","docker.io":"hub","reg.test/team":"team","none.test":""}},
                "credsStore":"all",
                "auths":{{"ecr.test":{one},"https://known.test/v1/":{{}},"reg.test":{one}}}}}"#,
            one = auth("u:p")
        ));
        assert_eq!(faults, [""; 0]);
        for (host, repository, told_of) in [
            ("ecr.test", "a", "ecr ecr.test, ecr.test"),
            ("docker.io", "library/a", "hub https://index.docker.io/v1/, all https://index.docker.io/v1/"),
            ("reg.test", "team/app", "team reg.test/team, reg.test"),
            ("reg.test", "a", "reg.test"),
            ("known.test", "a", "all https://known.test/v1/"),
            ("new.test:5000", "a/b", "all new.test:5000"),
            ("none.test", "a", "all none.test"),
        ] {
            assert_eq!(told(&config, &[host], repository), told_of, "{host}/{repository}");
        }
    }

    #[test]
    fn a_spelling_with_a_login_is_kept_before_one_without() {
        for auths in [
            format!(r#""docker.io":{},"https://index.docker.io/v1/":{{}}"#, auth("u:p")),
            format!(r#""docker.io":{},"https://index.docker.io/v1/":{}"#, auth("u:p"), auth("x:y")),
            format!(r#""aa.docker.io":{{}},"docker.io":{},"index.docker.io":{}"#, auth("u:p"), auth("x:y")),
        ] {
            let (config, _) = parse(&format!(r#"{{"auths":{{{auths}}}}}"#));
            assert_eq!(told(&config, &["docker.io"], "library/a"), "docker.io", "{auths}");
        }
    }

    #[test]
    fn a_faulty_entry_harms_no_other_and_is_told_without_its_secret() {
        let (config, faults) = parse(&format!(
            r#"{{"auths":{{"a.test":{{"auth":"verysecret!"}},"b.test":{{"auth":"{}"}},"c.test":"verysecret",
                "d.test":{{"password":["verysecret"]}},"e.test":{{"registrytoken":"very secret"}},"good.test":{}}},
                "credHelpers":{{"f.test":"../verysecret","g.test":7}},"credsStore":"a b"}}"#,
            BASE64.encode("verysecret"),
            auth("u:p")
        ));
        assert_eq!(faults.len(), 8, "{faults:?}");
        assert!(!faults.concat().contains("very"), "{faults:?}");
        assert_eq!(told(&config, &["good.test"], "a"), "good.test");
        assert_eq!(told(&config, &["a.test"], "a"), "");
    }

    #[test]
    fn a_file_that_is_none_is_told_by_its_place() {
        let fault = |bytes: &[u8]| DockerConfig::parse(bytes, &Path::new("/f").into()).map(drop).unwrap_err();
        assert_eq!(fault(b"{\n\"verysecret\""), "not JSON, at line 2 column 12");
        assert_eq!(fault(br#"{"auths":"verysecret"}"#), "not docker's format, at line 1 column 21");
        for bytes in [&b""[..], b"\xff", b"[]", b"7", b"{}x"] {
            assert!(fault(bytes).starts_with("not "));
        }
        assert!(parse(r#"{"auths":null,"credHelpers":null,"credsStore":null,"proxies":{}}"#).1.is_empty());
    }
}
