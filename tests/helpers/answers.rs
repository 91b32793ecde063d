//! What is kept of a helper's answers, and which source is asked after it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::credentials::{Credentials, Sought};
use super::helper::{HelperName, Helpers, Question};
use super::login::Login;
use super::login::LoginName;
use super::login_file::{Heard, LOGIN_KEPT, LoginFile, NO_LOGIN_KEPT};
use crate::clock;
use crate::oci::Repository;
use crate::script::script;

fn home() -> url::Origin {
    url::Url::parse("https://reg.test").unwrap().origin()
}

/// A helper that hands out numbered secrets: how often it ran.
fn counting(folder: &TempDir) -> (Helpers, Question) {
    let tally = folder.path().join("tally");
    let body =
        format!(r#"echo x >> {0}; echo '{{"Username":"u","Secret":"'$(wc -l < {0})'"}}'"#, tally.display());
    script(&folder.path().join("docker-credential-fake"), &body);
    let name = LoginName { file: Path::new("/f").into(), entry: "reg.test".into() };
    let question = Question { helper: HelperName::new("fake").unwrap(), server: "reg.test".to_owned(), name };
    (Helpers { search: folder.path().into(), within: Duration::from_secs(60) }, question)
}

#[tokio::test]
async fn a_helper_runs_once_for_all_who_ask_and_again_after_a_while() {
    let folder = TempDir::new().unwrap();
    let (helpers, question) = counting(&folder);
    let (file, now) = (LoginFile::new(Path::new("/f")), clock::instant());
    let numbered = |number: &str| Heard::Login(Login::of_user(question.name.clone(), "u", number));
    let ask = |now| file.hear(question.clone(), &helpers, now);

    let all = join_all((0..20).map(|_| ask(now))).await;
    assert!(all.iter().all(|heard| *heard == numbered("1")), "{all:?}");
    assert_eq!(ask(now + LOGIN_KEPT - Duration::from_secs(1)).await, numbered("1"));
    assert_eq!(ask(now + LOGIN_KEPT).await, numbered("2"));

    let Heard::Login(login) = numbered("1") else { panic!("a login") };
    file.refused(&login);
    assert_eq!(ask(now + LOGIN_KEPT).await, numbered("2"), "another one was refused");
    let Heard::Login(login) = numbered("2") else { panic!("a login") };
    file.refused(&login);
    assert_eq!(ask(now + LOGIN_KEPT).await, numbered("3"));
}

#[tokio::test]
async fn a_helper_that_failed_is_left_alone_for_a_while() {
    let folder = TempDir::new().unwrap();
    let (helpers, question) = counting(&folder);
    let (file, now) = (LoginFile::new(Path::new("/f")), clock::instant());
    let nowhere = Helpers { search: "/nowhere".into(), ..helpers.clone() };
    assert_eq!(file.hear(question.clone(), &nowhere, now).await, Heard::Failed);
    assert_eq!(file.hear(question.clone(), &helpers, now).await, Heard::Failed);
    let heard = file.hear(question, &helpers, now + NO_LOGIN_KEPT).await;
    assert!(matches!(heard, Heard::Login(_)));
}

#[tokio::test]
async fn the_next_source_is_asked_where_a_helper_has_none_but_not_where_it_fails() {
    let folder = TempDir::new().unwrap();
    script(
        &folder.path().join("docker-credential-none"),
        "echo 'credentials not found in native keychain'; exit 1",
    );
    script(&folder.path().join("docker-credential-bad"), "exit 2");
    let path = folder.path().join("logins.json");
    let logins = r#"{"auths":{"reg.test":{"username":"u","password":"p"}},
        "credHelpers":{"reg.test/none":"none","reg.test/bad":"bad","reg.test/missing":"missing"}}"#;
    fs::write(&path, logins).unwrap();
    let credentials = Credentials::new([("reg.test".parse().unwrap(), home(), path)], folder.path().into());
    for (name, found) in [("none/a", true), ("bad/a", false), ("missing/a", false)] {
        let repository = Repository::new("reg.test".parse().unwrap(), name).unwrap();
        let sought = Sought { repository: &repository, upstream: "reg.test", stands_for_registry: true };
        assert_eq!(credentials.login(sought, clock::instant()).await.is_some(), found, "{name}");
    }
}

#[tokio::test]
async fn a_helper_is_asked_anew_once_its_login_was_refused() {
    let folder = TempDir::new().unwrap();
    let (helpers, _) = counting(&folder);
    let path = folder.path().join("logins.json");
    fs::write(&path, r#"{"credHelpers":{"reg.test":"fake"}}"#).unwrap();
    let repository = Repository::new("reg.test".parse().unwrap(), "a").unwrap();
    let credentials = Credentials::new([(repository.registry().clone(), home(), path)], helpers.search);
    let sought = Sought { repository: &repository, upstream: "reg.test", stands_for_registry: true };
    let now = clock::instant();
    let first = credentials.login(sought, now).await.unwrap();
    assert!(credentials.login(sought, now).await.unwrap() == first);
    credentials.refused(repository.registry(), &first);
    assert!(credentials.login(sought, now).await.unwrap() != first);
}
