//! Logins that are tried: what is shown to whom, and what is made of the answer.

use std::fs;

use axum::response::Response;
use tempfile::TempDir;

use super::site::{REGISTRY, Seen, Site, response, upstreams_of};
use crate::upstream::{Outcome, Timeouts, Tried, Upstreams};

/// `me:verysecret`.
const BASIC: &str = "Basic bWU6dmVyeXNlY3JldA==";

const GOOD: &str = r#"{"username":"me","password":"verysecret"}"#;
const BAD: &str = r#"{"username":"me","password":"wrong"}"#;

/// Upstreams with these entries as the file of the site's registry.
fn upstreams(url: &str, folder: &TempDir, auths: &str) -> Upstreams {
    let path = folder.path().join("logins.json");
    fs::write(&path, format!(r#"{{"auths":{auths}}}"#)).unwrap();
    upstreams_of(url, Some(path), Timeouts::default())
}

/// What came of the logins of one registry, each by its entry.
async fn tried(upstreams: &Upstreams) -> Vec<(String, Outcome)> {
    let mut all = upstreams.try_logins().await;
    assert_eq!(all.len(), 1);
    let (registry, tried) = all.remove(0);
    assert_eq!(registry.as_str(), REGISTRY);
    let named =
        |tried: Tried| (tried.login.map(|login| login.entry.to_string()).unwrap_or_default(), tried.outcome);
    tried.into_iter().map(named).collect()
}

async fn of(site: &Site, auths: &str) -> Vec<(String, Outcome)> {
    tried(&upstreams(&site.url(), &TempDir::new().unwrap(), auths)).await
}

fn challenge(seen: &Seen) -> Response {
    let challenge = format!("Bearer realm=\"{}/token\",service=\"s\",scope=\"x\"", seen.site());
    response(401, &[("www-authenticate", &challenge)], "")
}

/// A registry whose token service has a token for whoever shows no login or the right one.
async fn guarded() -> Site {
    Site::serve(async |seen| {
        if seen.target.starts_with("/token") {
            return match (seen.header("authorization"), seen.body.contains("refresh_token=verysecret")) {
                (None | Some(BASIC), false) | (None, true) if !seen.body.contains("wrong") => {
                    response(200, &[], r#"{"token":"verygood"}"#)
                }
                _ => response(401, &[], ""),
            };
        }
        match seen.header("authorization") {
            Some("Bearer verygood" | "Bearer mine") => response(200, &[], ""),
            _ => challenge(&seen),
        }
    })
    .await
}

fn entries(login: &str) -> String {
    format!(r#"{{"{REGISTRY}":{login}}}"#)
}

const REFUSED: Outcome = Outcome::Refused { status: 401 };

#[tokio::test]
async fn a_login_is_told_from_one_that_is_refused_though_a_token_is_there_for_anyone() {
    let site = guarded().await;
    let named = |outcome| vec![(REGISTRY.to_owned(), outcome)];
    assert_eq!(of(&site, &entries(GOOD)).await, named(Outcome::Accepted));
    assert_eq!(of(&site, &entries(BAD)).await, named(REFUSED));
    for (token, outcome) in [("verysecret", Outcome::Accepted), ("wrong", REFUSED)] {
        assert_eq!(of(&site, &entries(&format!(r#"{{"identitytoken":"{token}"}}"#))).await, named(outcome));
    }
    for (token, outcome) in [("mine", Outcome::Accepted), ("wrong", REFUSED)] {
        assert_eq!(of(&site, &entries(&format!(r#"{{"registrytoken":"{token}"}}"#))).await, named(outcome));
    }
    // Nothing is asked for with it.
    let asked = site.seen();
    assert!(asked.iter().all(|seen| seen.target == "/v2/" || seen.target.starts_with("/token")), "{asked:?}");
    assert!(
        !asked.iter().any(|seen| seen.target.contains("scope") || seen.body.contains("scope")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_password_is_tried_where_it_is_shown() {
    let site = Site::serve(async |seen| match seen.header("authorization") {
        Some(BASIC) => response(200, &[], ""),
        _ => response(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await;
    assert_eq!(of(&site, &entries(GOOD)).await, [(REGISTRY.to_owned(), Outcome::Accepted)]);
    assert_eq!(of(&site, &entries(BAD)).await, [(REGISTRY.to_owned(), REFUSED)]);
}

#[tokio::test]
async fn each_login_of_a_registry_is_tried() {
    let site = guarded().await;
    let auths = format!(r#"{{"{REGISTRY}":{GOOD},"{REGISTRY}/team":{BAD},"other.test":{BAD}}}"#);
    let expected = [(REGISTRY.to_owned(), Outcome::Accepted), (format!("{REGISTRY}/team"), REFUSED)];
    assert_eq!(of(&site, &auths).await, expected);
    assert_eq!(of(&site, "{}").await, [(String::new(), Outcome::Absent)]);
}

#[tokio::test]
async fn a_login_that_was_refused_is_not_shown_again_and_is_told_of_until_another_is_accepted() {
    let site = guarded().await;
    let folder = TempDir::new().unwrap();
    let upstreams = upstreams(&site.url(), &folder, &entries(BAD));
    for _ in 0..3 {
        assert_eq!(tried(&upstreams).await, [(REGISTRY.to_owned(), REFUSED)]);
    }
    assert_eq!(site.count("/token"), 1);
    let told = upstreams.refused_logins();
    assert_eq!(
        told.iter().map(|told| (told.registry.as_str(), told.status)).collect::<Vec<_>>(),
        [(REGISTRY, 401)]
    );
    assert!(!format!("{told:?}").contains("wrong"));
    fs::write(folder.path().join("logins.json"), format!(r#"{{"auths":{}}}"#, entries(GOOD))).unwrap();
    assert_eq!(tried(&upstreams).await, [(REGISTRY.to_owned(), Outcome::Accepted)]);
    assert_eq!(upstreams.refused_logins(), []);
}

#[tokio::test]
async fn what_cannot_be_tried_is_said_with_the_reason() {
    let why = |found: Vec<(String, Outcome)>| match &found[..] {
        [(entry, Outcome::Untried { why })] if entry == REGISTRY => why.clone(),
        other => panic!("{other:?}"),
    };
    let open = Site::serve(async |_| response(200, &[], "")).await;
    assert!(why(of(&open, &entries(GOOD)).await).contains("lets everybody in"));
    let broken = Site::serve(async |_| response(503, &[], "")).await;
    assert!(why(of(&broken, &entries(GOOD)).await).contains("503"));
    let busy = Site::serve(async |seen| match seen.target.starts_with("/token") {
        true => response(429, &[], ""),
        false => challenge(&seen),
    })
    .await;
    assert!(why(of(&busy, &entries(GOOD)).await).contains("limit"));
    let folder = TempDir::new().unwrap();
    let gone = upstreams("http://127.0.0.1:1", &folder, &entries(GOOD));
    assert!(why(tried(&gone).await).contains("reached"));
}
