//! Whose right to read is shown to whom: nobody's, the hold's own login, a client's own token.

use std::fs;

use axum::response::Response;
use http::{HeaderValue, Method};
use tempfile::TempDir;

use super::site::{REGISTRY, Seen, Site, anyone, latest, repository, response, some_digest, upstreams_of};
use crate::upstream::{Account, Asker, ClientToken, Credential, Failure, Forbidden, Timeouts, Upstreams};

/// `me:verysecret`.
const BASIC: &str = "Basic bWU6dmVyeXNlY3JldA==";

/// A site, and upstreams that have one entry of a file for it.
struct Setting {
    site: Site,
    upstreams: Upstreams,
    folder: TempDir,
}

impl Setting {
    fn new(site: Site, entry: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let upstreams = upstreams(&site.url(), &folder, entry);
        Self { site, upstreams, folder }
    }

    async fn head(&self, credential: Credential, name: &str) -> Result<(), Failure> {
        let asker = asker(credential);
        self.upstreams.head_manifest(&asker, &repository(name), &latest()).await.map(drop)
    }

    /// What was shown with each request to this path.
    fn shown(&self, path: &str) -> Vec<Option<String>> {
        let seen = self.site.seen();
        let there = seen.iter().filter(|seen| seen.target.starts_with(path));
        there.map(|seen| seen.header("authorization").map(str::to_owned)).collect()
    }
}

fn upstreams(url: &str, folder: &TempDir, entry: &str) -> Upstreams {
    let path = folder.path().join("logins.json");
    fs::write(&path, format!(r#"{{"auths":{{"{REGISTRY}":{entry}}}}}"#)).unwrap();
    upstreams_of(url, Some(path), Timeouts::default())
}

const PASSWORD: &str = r#"{"username":"me","password":"verysecret"}"#;

fn asker(credential: Credential) -> Asker {
    Asker { credential, account: Account::default(), only_registry: false }
}

fn client(token: &str) -> Credential {
    let header = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    Credential::Client(ClientToken::from_authorization(&header).unwrap())
}

/// A registry whose token service hands out `mine` to whoever proves a login and `anyone` to others. The first opens
/// every repository, the second those that begin with `public`.
async fn guarded() -> Site {
    Site::serve(async |seen| {
        if seen.target.starts_with("/token") {
            let proven = match seen.method {
                Method::POST => seen.body.contains("refresh_token=verysecret"),
                _ => seen.header("authorization") == Some(BASIC),
            };
            let token = if proven { "mine" } else { "anyone" };
            return response(200, &[], format!(r#"{{"access_token":"{token}","expires_in":300}}"#));
        }
        match seen.header("authorization") {
            Some("Bearer mine" | "Bearer theirs" | "Bearer verysecret") => response(200, &[], ""),
            Some("Bearer anyone") if seen.target.starts_with("/v2/public") => response(200, &[], ""),
            _ => challenge(&seen),
        }
    })
    .await
}

fn challenge(seen: &Seen) -> Response {
    let challenge =
        format!("Bearer realm=\"{}/token\",service=\"s\",error=\"insufficient_scope\"", seen.site());
    response(401, &[("www-authenticate", &challenge)], "")
}

/// A registry that wants `me:verysecret` itself.
async fn basic() -> Site {
    Site::serve(async |seen| match seen.header("authorization") {
        Some(BASIC) if seen.target.starts_with("/v2/forbidden") => response(403, &[], ""),
        Some(BASIC) if !seen.target.starts_with("/v2/shut") => response(200, &[], ""),
        _ => response(401, &[("www-authenticate", "Basic realm=\"registry\"")], ""),
    })
    .await
}

#[tokio::test]
async fn a_token_had_with_a_login_answers_only_who_asks_with_it() {
    let setting = Setting::new(guarded().await, PASSWORD);
    for _ in 0..2 {
        setting.head(Credential::Own, "private").await.unwrap();
        let anyone = setting.head(Credential::Anonymous, "private").await;
        assert!(matches!(anyone, Err(Failure::Denied { status: 401, .. })), "{anyone:?}");
    }
    let tokens = setting.shown("/token");
    assert_eq!(tokens, [Some(BASIC.to_owned()), None, None], "the one that opens nothing is not kept");
    let shown = setting.shown("/v2/").into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
    let mine = "Bearer mine";
    assert_eq!(shown, ["", mine, "Bearer anyone", mine, "Bearer anyone"]);
}

#[tokio::test]
async fn without_a_login_the_hold_asks_as_anyone() {
    let setting = Setting::new(guarded().await, "{}");
    setting.head(Credential::Anonymous, "public").await.unwrap();
    setting.head(Credential::Own, "public").await.unwrap();
    assert_eq!(setting.shown("/token"), [None]);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_what_anyone_may_have() {
    let setting = Setting::new(guarded().await, "verysecret");
    setting.head(Credential::Own, "public").await.unwrap();
    fs::remove_file(setting.folder.path().join("logins.json")).unwrap();
    setting.head(Credential::Own, "public").await.unwrap();
    assert_eq!(setting.shown("/token"), [None]);
}

#[tokio::test]
async fn an_identity_token_is_sent_as_a_form_and_nowhere_else() {
    let setting = Setting::new(guarded().await, r#"{"auth":"MDAwMDo=","identitytoken":"verysecret"}"#);
    setting.head(Credential::Own, "a/private").await.unwrap();
    let seen = setting.site.seen();
    let [_, token, manifest] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((token.method.as_str(), token.target.as_str()), ("POST", "/token"));
    assert_eq!(token.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(token.header("authorization"), None);
    assert_eq!(
        token.body,
        "grant_type=refresh_token&service=s&client_id=tidehold\
         &scope=repository%3Aa%2Fprivate%3Apull&refresh_token=verysecret"
    );
    assert_eq!(manifest.header("authorization"), Some("Bearer mine"));
}

#[tokio::test]
async fn a_registry_token_is_shown_to_the_registry_alone() {
    let setting = Setting::new(guarded().await, r#"{"registrytoken":"verysecret"}"#);
    setting.head(Credential::Own, "a").await.unwrap();
    setting.head(Credential::Own, "b").await.unwrap();
    assert_eq!(setting.shown("/token").len(), 0);
    let token = Some("Bearer verysecret".to_owned());
    assert_eq!(setting.shown("/v2/"), [None, token.clone(), token]);

    let refused = Setting::new(guarded().await, r#"{"registrytoken":"old"}"#);
    for shown in [2, 1] {
        let before = refused.site.seen().len();
        let failure = refused.head(Credential::Own, "a").await.unwrap_err();
        assert!(matches!(failure, Failure::Denied { status: 401, challenge: Some(_) }), "{failure:?}");
        assert_eq!(refused.site.seen().len() - before, shown);
    }
}

#[tokio::test]
async fn a_clients_token_is_shown_as_it_came_and_nothing_is_had_for_it() {
    let setting = Setting::new(guarded().await, PASSWORD);
    setting.head(client("theirs"), "a").await.unwrap();
    let failure = setting.head(client("old"), "a").await.unwrap_err();
    let Failure::Denied { status: 401, challenge: Some(challenge) } = failure else { panic!("{failure:?}") };
    let realm = format!("{}/token", setting.site.url());
    assert_eq!(
        challenge.to_string(),
        format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a:pull\"")
    );
    assert_eq!(setting.shown("/v2/"), [Some("Bearer theirs".to_owned()), Some("Bearer old".to_owned())]);
    assert_eq!(setting.shown("/token").len(), 0);
}

#[tokio::test]
async fn nothing_is_shown_where_the_upstream_redirects_to() {
    let cdn = Site::serve(async |_| response(200, &[], "some blob")).await;
    let target = cdn.url();
    let site = Site::serve(move |seen| {
        let target = target.clone();
        async move {
            match seen.header("authorization") {
                Some(_) => response(307, &[("location", &target)], ""),
                None => response(401, &[("www-authenticate", "Basic realm=x")], ""),
            }
        }
    })
    .await;
    let setting = Setting::new(site, PASSWORD);
    for credential in [client("theirs"), Credential::Own] {
        let asker = asker(credential);
        setting.upstreams.get_blob(&asker, &repository("a"), &some_digest(), 0, None).await.unwrap();
    }
    assert!(cdn.seen().iter().all(|seen| seen.header("authorization").is_none()));
    assert_eq!(cdn.seen().len(), 2);
}

#[tokio::test]
async fn a_registry_that_wants_a_password_is_challenged_once() {
    let setting = Setting::new(basic().await, PASSWORD);
    setting.head(Credential::Own, "a").await.unwrap();
    setting.head(Credential::Own, "b").await.unwrap();
    let own = Some(BASIC.to_owned());
    assert_eq!(setting.shown("/v2/"), [None, own.clone(), own]);

    for credential in [Credential::Anonymous, client("theirs")] {
        let failure = setting.head(credential, "a").await.unwrap_err();
        assert!(matches!(failure, Failure::Denied { status: 401, challenge: None }), "{failure:?}");
    }
    assert_eq!(setting.shown("/v2/")[3..], [None, Some("Bearer theirs".to_owned())]);
    let failure = setting.head(Credential::Own, "forbidden").await.unwrap_err();
    assert!(matches!(failure, Failure::Denied { status: 403, challenge: None }), "{failure:?}");
}

#[tokio::test]
async fn a_password_that_is_refused_is_named_and_not_shown_again_at_once() {
    let setting = Setting::new(basic().await, r#"{"username":"me","password":"old"}"#);
    for _ in 0..3 {
        let failure = setting.head(Credential::Own, "a").await.unwrap_err();
        let file = setting.folder.path().join("logins.json");
        assert_eq!(
            failure.to_string(),
            format!("the login for reg.test in {} is refused (status 401)", file.display())
        );
        assert!(matches!(failure, Failure::NoToken { status: 401, challenge: None, login: Some(_) }));
    }
    assert_eq!(setting.shown("/v2/").iter().flatten().count(), 1);
    // A new one is tried at once.
    upstreams(&setting.site.url(), &setting.folder, PASSWORD);
    setting.head(Credential::Own, "a").await.unwrap();
}

#[tokio::test]
async fn a_password_that_was_taken_before_is_not_doubted_for_one_repository() {
    let setting = Setting::new(basic().await, PASSWORD);
    setting.head(Credential::Own, "a").await.unwrap();
    let failure = setting.head(Credential::Own, "shut").await.unwrap_err();
    assert!(matches!(failure, Failure::Denied { status: 401, challenge: None }), "{failure:?}");
    setting.head(Credential::Own, "a").await.unwrap();
}

#[tokio::test]
async fn a_secret_is_not_sent_in_clear_text_over_a_network() {
    // Another spelling of loopback stands for an address that only resolves to it.
    for (site, entry) in [
        (basic().await, PASSWORD),
        (guarded().await, PASSWORD),
        (guarded().await, r#"{"identitytoken":"verysecret"}"#),
        (guarded().await, r#"{"registrytoken":"verysecret"}"#),
    ] {
        let folder = TempDir::new().unwrap();
        let url = format!("http://0.0.0.0:{}", site.address.port());
        let upstreams = upstreams(&url, &folder, entry);
        for _ in 0..2 {
            let asker = asker(Credential::Own);
            let failure = upstreams.head_manifest(&asker, &repository("a"), &latest()).await.unwrap_err();
            let told = failure.to_string();
            let stopped = matches!(failure, Failure::Forbidden(Forbidden::ClearText { .. }));
            assert!(stopped && !told.contains("verysecret"), "{told}");
        }
        assert_eq!(site.count("/token"), 0);
        assert!(site.seen().iter().all(|seen| seen.header("authorization").is_none()));
    }
}

/// A token service that refuses the login `me:verysecret` with this status, and lets others have a token.
async fn refusing(status: u16) -> Setting {
    let site = Site::serve(move |seen| async move {
        if !seen.target.starts_with("/token") {
            return match seen.header("authorization") {
                Some("Bearer anyone") => response(200, &[], ""),
                _ => challenge(&seen),
            };
        }
        match seen.header("authorization") {
            Some(BASIC) => {
                response(status, &[("www-authenticate", "Bearer realm=\"https://evil.test\"")], "")
            }
            _ => response(200, &[], r#"{"token":"anyone"}"#),
        }
    })
    .await;
    Setting::new(site, PASSWORD)
}

#[tokio::test]
async fn a_token_service_is_not_asked_again_at_once_with_a_login_that_it_refused() {
    for (status, asked_for_others) in [(401, 1), (403, 2), (429, 1)] {
        let setting = refusing(status).await;
        for name in ["a", "a", "b", "b"] {
            let failure = setting.head(Credential::Own, name).await.unwrap_err();
            match failure {
                Failure::Limited { .. } | Failure::Shut { .. } => assert_eq!(status, 429),
                Failure::NoToken { status: told, challenge: Some(challenge), login: Some(login) } => {
                    assert_eq!(told, status);
                    assert_eq!(&*login.entry, REGISTRY);
                    let scope = format!("scope=\"repository:{name}:pull\"");
                    assert!(challenge.as_str().ends_with(&scope), "{challenge}");
                }
                other => panic!("{status}: {other:?}"),
            }
        }
        assert_eq!(setting.shown("/token").len(), asked_for_others, "{status}");
        setting.head(Credential::Anonymous, "a").await.unwrap();
    }
}

#[tokio::test]
async fn a_token_service_in_trouble_locks_no_login_out() {
    let setting = refusing(503).await;
    for _ in 0..2 {
        let failure = setting.head(Credential::Own, "a").await.unwrap_err();
        assert!(matches!(failure, Failure::Unavailable { status: 503, .. }), "{failure:?}");
    }
    assert_eq!(setting.shown("/token").len(), 2);
}

#[tokio::test]
async fn a_denial_carries_the_challenge_that_leads_to_a_token() {
    // Only the first request is challenged: what it told is remembered.
    let site = Site::serve(async |seen| {
        if seen.target.starts_with("/token") {
            return response(200, &[], r#"{"token":"good"}"#);
        }
        match seen.header("authorization") {
            Some(_) if seen.target.starts_with("/v2/open") => response(200, &[], ""),
            Some(_) => response(403, &[], ""),
            None => challenge(&seen),
        }
    })
    .await;
    let setting = Setting::new(site, "{}");
    let failure = setting.head(client("theirs"), "a").await.unwrap_err();
    assert!(matches!(failure, Failure::Denied { status: 403, challenge: None }), "{failure:?}");
    setting.head(Credential::Anonymous, "open").await.unwrap();
    for credential in [Credential::Anonymous, client("theirs")] {
        let failure = setting.head(credential, "a").await.unwrap_err();
        let Failure::Denied { status: 403, challenge: Some(told) } = failure else { panic!("{failure:?}") };
        assert!(told.as_str().contains("scope=\"repository:a:pull\""), "{told}");
    }
}

#[tokio::test]
async fn a_challenge_that_we_would_not_follow_is_not_handed_on() {
    for challenge in [
        "Bearer realm=\"ftp://t.test/\"",
        "Bearer realm=\"https://me:verysecret@t.test/\"",
        "Basic realm=\"x\"",
        "Negotiate",
        "Bearer realm=\"https://t.test/\",scope=\"\u{e4}\"",
    ] {
        let site =
            Site::serve(move |_| async move { response(401, &[("www-authenticate", challenge)], "") }).await;
        let failure = Setting::new(site, "{}").head(client("theirs"), "a").await.unwrap_err();
        assert!(
            matches!(failure, Failure::Denied { status: 401, challenge: None }),
            "{challenge}: {failure:?}"
        );
    }
    // A storage's own is none of the registry's.
    let site = Site::serve(async |seen| match seen.target.contains("blobs") {
        true => response(307, &[("location", "http://localhost:1/")], ""),
        false => response(451, &[("www-authenticate", "Bearer realm=\"https://t.test/\"")], ""),
    })
    .await;
    let failure = Setting::new(site, "{}").head(Credential::Anonymous, "a").await.unwrap_err();
    assert!(matches!(failure, Failure::Denied { status: 451, challenge: None }), "{failure:?}");
}

#[tokio::test]
async fn what_is_denied_anyone_by_a_token_service_can_be_told_from_a_refused_login() {
    let site = Site::serve(async |seen| match seen.target.starts_with("/token") {
        true => response(401, &[], ""),
        false => challenge(&seen),
    })
    .await;
    let upstreams = site.upstreams();
    let failure = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(
        matches!(failure, Failure::NoToken { status: 401, challenge: Some(_), login: None }),
        "{failure:?}"
    );
    assert_eq!(failure.to_string(), "the registry's token service denies it (status 401)");
}
