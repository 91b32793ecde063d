//! The hold's own logins: for a larger limit on what anyone may read, and for others only where that is said.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::{ASKS_ALWAYS, Bench, assert_gives};
use crate::people::{
    ADA, BOB, SECRET, adas, assert_challenged, assert_gets, assert_kept_from, others, push_secret,
    with_private,
};
use crate::support::hub::{Fault, Hub, HubConfig, Image, REPOSITORY};
use crate::support::script::script;

/// A registry with ada's private repository, and a daemon with this file of logins for it.
struct Hold {
    bench: Bench,
    image: Image,
    logins: TempDir,
}

impl Hold {
    async fn with(logins: &Value, share_private: bool) -> Self {
        Self::before(with_private(SECRET), logins, share_private).await
    }

    async fn before(registry: HubConfig, logins: &Value, share_private: bool) -> Self {
        let hub = Hub::start(registry).await;
        let folder = tempfile::Builder::new().prefix("tidehold-logins-").tempdir().unwrap();
        let file = folder.path().join("config.json");
        fs::write(&file, logins.to_string()).unwrap();
        let rest = format!(
            "[tags]\n{ASKS_ALWAYS}\n[registries.\"docker.io\"]\nupstream = \"{}\"\ncredentials = \"{}\"\n\
             share_private = {share_private}\n",
            hub.registry_url(),
            file.display()
        );
        let bench = Bench::with(hub, &rest);
        let image = push_secret(&bench);
        bench.hub.reset_counters();
        Self { bench, image, logins: folder }
    }

    /// As whom its token service was asked for a repository.
    fn logins_for(&self, repository: &str) -> Vec<String> {
        let log = self.bench.hub.log().into_iter();
        let tokens = log.filter(|entry| entry.listener == "token" && entry.status == Some(200));
        let scope = format!("repository:{repository}:");
        let path = |path: &str| path.replace("%3A", ":").replace("%2F", "/").contains(&scope);
        tokens.filter(|entry| path(&entry.path)).map(|entry| entry.credentials.unwrap_or_default()).collect()
    }
}

fn login((name, password): (&str, &str)) -> Value {
    json!({ "auth": STANDARD.encode(format!("{name}:{password}")) })
}

fn adas_file() -> Value {
    json!({ "auths": { "docker.io": login(ADA) } })
}

#[tokio::test]
async fn what_the_holds_own_login_reads_is_for_nobody_else_unless_it_is_shared() {
    let hold = Hold::with(&adas_file(), false).await;
    let people = others(&hold.bench).await;
    for who in &people {
        assert_challenged(&hold.bench, who.as_deref(), &hold.image).await;
    }
    let ada = adas(&hold.bench).await;
    assert_gets(&hold.bench, Some(&ada), SECRET, &hold.image).await;
    for who in &people {
        assert_challenged(&hold.bench, who.as_deref(), &hold.image).await;
    }
    hold.bench.break_everything(Fault::Unavailable).await;
    for who in &people {
        assert_kept_from(&hold.bench, who.as_deref(), SECRET, &hold.image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_for_all_in_an_outage_and_after_a_restart_too() {
    let mut hold = Hold::with(&adas_file(), true).await;
    let people = others(&hold.bench).await;
    for who in &people {
        assert_gets(&hold.bench, who.as_deref(), SECRET, &hold.image).await;
    }
    assert_eq!(hold.bench.hub.counters().manifest_gets, 2);
    // What the login may not read is shared with nobody.
    hold.bench.hub.push("bobs/own", &hold.image);
    hold.bench.hub.tag("bobs/own", "latest", &hold.image.digest);
    hold.bench.hub.make_private("bobs/own", BOB.0);
    for who in &people {
        assert_kept_from(&hold.bench, who.as_deref(), "bobs/own", &hold.image).await;
    }
    hold.bench.break_everything(Fault::Unavailable).await;
    assert_gets(&hold.bench, None, SECRET, &hold.image).await;
    assert!(hold.bench.daemon.terminate().success());
    hold.bench.daemon.start_again();
    assert_gets(&hold.bench, None, SECRET, &hold.image).await;
    assert_kept_from(&hold.bench, None, "bobs/own", &hold.image).await;
}

#[tokio::test]
async fn public_images_are_pulled_by_the_login_whose_limit_is_larger() {
    let hold = Hold::before(HubConfig { limit: Some(0), ..with_private(SECRET) }, &adas_file(), false).await;
    hold.bench.pull("latest").await;
    let log = hold.bench.hub.log();
    let gets: Vec<_> =
        log.iter().filter(|entry| entry.counted).map(|entry| entry.credentials.as_deref()).collect();
    assert_eq!(gets, [Some("Bearer ada"); 2]);
}

#[tokio::test]
async fn the_longest_beginning_of_a_repositorys_name_has_the_say() {
    for (logins, secret, tide) in [
        (json!({ "docker.io": login(BOB), "docker.io/team": login(ADA) }), ADA, BOB),
        (
            json!({ "docker.io": login(BOB), "docker.io/team": login(BOB), "docker.io/team/secret": login(ADA) }),
            ADA,
            BOB,
        ),
        (
            json!({ "docker.io": login(BOB), "docker.io/tea": login(ADA), "docker.io/library": login(ADA) }),
            BOB,
            ADA,
        ),
    ] {
        let hold = Hold::with(&json!({ "auths": logins }), true).await;
        hold.bench.pull("latest").await;
        let reply = hold.bench.get(&hold.bench.manifest_of(SECRET, "latest")).await;
        assert_eq!(reply.status == StatusCode::OK, secret == ADA, "{logins}: {reply:?}");
        for (repository, (name, _)) in [(SECRET, secret), (REPOSITORY, tide)] {
            let asked = hold.logins_for(repository);
            assert!(asked.contains(&format!("Basic {name}")), "{logins}: {repository}: {asked:?}");
            let other = if name == ADA.0 { BOB.0 } else { ADA.0 };
            assert!(!asked.contains(&format!("Basic {other}")), "{logins}: {repository}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn a_credential_helper_is_asked_for_the_registry() {
    let hold = Hold::with(&json!({ "credHelpers": { "docker.io": "stand-in" } }), true).await;
    let asked = hold.logins.path().join("asked");
    let (name, password) = ADA;
    let body = format!(
        "read -r server\necho \"$1 $server\" >> {}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{name}\",\"Secret\":\"{password}\"}}'",
        asked.display()
    );
    let programs = hold.bench.daemon.programs();
    fs::create_dir_all(&programs).unwrap();
    script(&programs.join("docker-credential-stand-in"), &body);

    assert_gets(&hold.bench, None, SECRET, &hold.image).await;
    assert!(hold.logins_for(SECRET).contains(&"Basic ada".to_owned()));
    // Docker's helpers know Docker Hub by its old address.
    assert_eq!(
        fs::read_to_string(&asked).unwrap(),
        "get https://index.docker.io/v1/\n",
        "asked once for all"
    );
}

#[tokio::test]
async fn a_helper_that_is_missing_or_a_file_that_is_none_leaves_public_images_to_be_pulled() {
    for logins in
        [json!({ "credHelpers": { "docker.io": "nowhere" } }), json!("no logins"), json!({ "auths": 1 })]
    {
        let hold = Hold::with(&logins, true).await;
        hold.bench.pull("latest").await;
        assert_kept_from(&hold.bench, None, SECRET, &hold.image).await;
    }
}

#[tokio::test]
async fn a_wrong_password_leaves_public_images_to_be_pulled_as_nobody() {
    with_a_wrong_password(false).await;
}

#[tokio::test]
async fn a_wrong_password_leaves_public_images_to_be_pulled_as_nobody_where_private_ones_are_shared() {
    with_a_wrong_password(true).await;
}

async fn with_a_wrong_password(share_private: bool) {
    let wrong = json!({ "auths": { "docker.io": login((ADA.0, "wrong")) } });
    let hold = Hold::with(&wrong, share_private).await;
    let tide = hold.bench.hub.first().clone();
    assert_gets(&hold.bench, None, REPOSITORY, &tide).await;
    assert_kept_from(&hold.bench, None, SECRET, &hold.image).await;
    let ada = adas(&hold.bench).await;
    assert_gets(&hold.bench, Some(&ada), SECRET, &hold.image).await;
    // It is not tried again with each pull, or the account would be locked.
    let log = hold.bench.hub.log();
    let tried = log.iter().filter(|entry| entry.listener == "token" && entry.status == Some(401)).count();
    assert!((1..=3).contains(&tried), "{tried}");
    assert_gives(&hold.bench.get(&hold.bench.manifest("latest")).await, &tide, "unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holds_passwords_are_in_no_log_and_in_no_file() {
    for logins in [adas_file(), json!({ "auths": { "docker.io": { "username": "ada", "password": ADA.1 } } })]
    {
        let mut hold = Hold::with(&logins, true).await;
        assert_gets(&hold.bench, None, SECRET, &hold.image).await;
        assert!(hold.bench.daemon.terminate().success());
        let mut places = vec![hold.bench.daemon.log().into_bytes()];
        places.extend(hold.bench.daemon.files().iter().map(|file| fs::read(file).unwrap()));
        let secrets = [ADA.1.to_owned(), STANDARD.encode(format!("{}:{}", ADA.0, ADA.1))];
        for secret in &secrets {
            let has = |place: &Vec<u8>| place.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!places.iter().any(has), "{secret}");
        }
        let log = hold.bench.hub.log();
        assert!(
            log.iter()
                .all(|entry| entry.listener == "token" || entry.credentials.as_deref() != Some("Basic ada"))
        );
    }
}
