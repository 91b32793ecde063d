//! Private images in a shared cache: for whom the registry lets read them, by a token of their own, and nobody else.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};

use crate::bench::{ASKS_ALWAYS, Bench, assert_gives, hex_of, marker, soon, until};
use crate::people::{
    ADA, BOB, SECRET, adas, all_ways, ask_as, assert_challenge, assert_challenged, assert_gets, assert_kept,
    assert_kept_from, basic, others, parts, push_secret, token, with_private,
};
use crate::support::hub::client::Client;
use crate::support::hub::{Fault, Hub, Image, Kind, REPOSITORY, digest_of};

/// Ada's repository at a registry, and a daemon whose proofs of access last this long.
async fn with_access(access: &str) -> (Bench, Image) {
    let hub = Hub::start(with_private(SECRET)).await;
    let upstream = hub.registry_url();
    let rest = format!(
        "[tags]\n{ASKS_ALWAYS}\n[access]\n{access}\n[registries.\"docker.io\"]\nupstream = \"{upstream}\"\n"
    );
    let bench = Bench::with(hub, &rest);
    let image = push_secret(&bench);
    (bench, image)
}

async fn start() -> (Bench, Image) {
    with_access("").await
}

#[tokio::test]
async fn whoever_has_no_token_that_the_registry_takes_is_told_where_to_get_one() {
    let (bench, image) = start().await;
    for who in others(&bench).await {
        assert_challenged(&bench, who.as_deref(), &image).await;
    }
    let counters = bench.hub.counters();
    assert_eq!((counters.manifest_gets, counters.cdn_gets), (0, 0), "{counters:?}");
    assert_eq!(bench.held(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_client_that_follows_the_challenge_gets_in() {
    let (bench, image) = start().await;
    let refused = bench.head(&bench.manifest_of(SECRET, "latest")).await;
    let login = basic(ADA);
    let token = Client::new().token(&refused.challenge(), &[("authorization", &login)]).await;
    let ada = format!("Bearer {token}");
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
}

#[tokio::test]
async fn an_owners_pull_costs_what_another_does_and_is_asked_for_as_that_owner() {
    let (bench, image) = start().await;
    let ada = adas(&bench).await;
    let ((), cost) = bench.cost_of(assert_gets(&bench, Some(&ada), SECRET, &image)).await;
    let blobs = 1 + image.own().layers.len() as u64;
    assert_eq!((cost.manifest_gets, cost.cdn_gets), (2, blobs), "{cost:?}");
    let log = bench.hub.log().into_iter();
    for entry in log.filter(|entry| entry.listener == "registry" && entry.status != Some(401)) {
        assert_eq!(entry.credentials.as_deref(), Some("Bearer ada"), "{entry:?}");
    }
}

#[tokio::test]
async fn what_its_owner_pulled_is_given_to_nobody_else() {
    let (bench, image) = start().await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    bench.hub.reset_counters();
    for who in others(&bench).await {
        assert_challenged(&bench, who.as_deref(), &image).await;
    }
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    let counters = bench.hub.counters();
    assert_eq!((counters.manifest_gets, counters.blob_gets, counters.cdn_gets), (0, 0, 0), "{counters:?}");
}

#[tokio::test]
async fn a_proof_spares_the_registry_every_question_but_for_the_tag() {
    let (bench, image) = start().await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    for (url, digest) in &parts(&bench, SECRET, &image)[1..] {
        let (reply, cost) = bench.cost_of(ask_as(&bench, Some(&ada), Method::GET, url)).await;
        assert_eq!((digest_of(&reply.body), cost.requests), (digest.clone(), 0), "{url}: {cost:?}");
    }
    // Another token is another client, even of the same account.
    bench.hub.advance(std::time::Duration::from_secs(1));
    let other = adas(&bench).await;
    assert_ne!(ada, other);
    let (url, digest) = &parts(&bench, SECRET, &image)[3];
    let (reply, cost) = bench.cost_of(ask_as(&bench, Some(&other), Method::GET, url)).await;
    assert_eq!(digest_of(&reply.body), *digest);
    assert_eq!((cost.manifest_gets, cost.blob_gets, cost.cdn_gets), (0, 0, 0), "{cost:?}");
    assert!(cost.manifest_heads + cost.blob_heads > 0, "nobody asked whether it may: {cost:?}");
}

#[tokio::test]
async fn an_owner_is_served_in_an_outage_and_nobody_new_gets_in() {
    for fault in [Fault::Unavailable, Fault::Refuse, Fault::PullLimit, Fault::AbuseLimit, Fault::Reset] {
        let (bench, image) = start().await;
        in_an_outage(&bench, &image, fault).await;
    }
}

/// This one takes as long as the daemon waits for a registry.
#[tokio::test]
async fn an_owner_is_served_while_the_registry_hangs_and_nobody_new_gets_in() {
    let (bench, image) = start().await;
    in_an_outage(&bench, &image, Fault::Hang).await;
}

/// Ada pulls, and then only that one fault is to be had.
async fn in_an_outage(bench: &Bench, image: &Image, fault: Fault) {
    let (ada, others) = (adas(bench).await, others(bench).await);
    let new = token(bench, Some(ADA), REPOSITORY).await;
    assert_gets(bench, Some(&ada), SECRET, image).await;
    assert_challenged(bench, None, image).await;
    bench.break_everything(fault).await;
    let reply = ask_as(bench, Some(&ada), Method::GET, &bench.manifest_of(SECRET, "latest")).await;
    assert_gives(&reply, image, "stale");
    assert_gets(bench, Some(&ada), SECRET, image).await;
    for who in others.iter().chain([&Some(new)]) {
        assert_kept_from(bench, who.as_deref(), SECRET, image).await;
    }
    assert_challenged(bench, None, image).await;
    assert_challenged(bench, Some(&basic(ADA)), image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_outlast_a_restart_even_into_an_outage_and_nothing_else_does() {
    for crash in [false, true] {
        let (mut bench, image) = start().await;
        let (ada, others) = (adas(&bench).await, others(&bench).await);
        assert_gets(&bench, Some(&ada), SECRET, &image).await;
        match crash {
            true => bench.daemon.kill(),
            false => assert!(bench.daemon.terminate().success()),
        }
        bench.break_everything(Fault::Unavailable).await;
        bench.daemon.start_again();
        for who in &others {
            assert_kept_from(&bench, who.as_deref(), SECRET, &image).await;
        }
        assert_gets(&bench, Some(&ada), SECRET, &image).await;
    }
}

#[tokio::test]
async fn a_proof_that_lasts_no_time_is_asked_for_again_and_serves_in_an_outage_alone() {
    let (bench, image) = with_access("fresh_for = \"0s\"\nstale_for = \"1h\"").await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    for (url, digest) in parts(&bench, SECRET, &image) {
        let (reply, cost) = bench.cost_of(ask_as(&bench, Some(&ada), Method::GET, &url)).await;
        assert_eq!(digest_of(&reply.body), digest, "{url}");
        assert!(cost.manifest_heads + cost.blob_heads > 0, "{url}: {cost:?}");
        assert_eq!((cost.manifest_gets, cost.cdn_gets), (0, 0), "{url}: {cost:?}");
    }
    bench.break_everything(Fault::Unavailable).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;

    // Whom the registry turns away is out at once, and in the next outage too.
    bench.hub.clear_all().await;
    bench.hub.make_private(SECRET, BOB.0);
    bench.hub.revoke_tokens();
    bench.hub.fault(Kind::Token, Fault::Unavailable).await;
    // The gate that the outage shut opens again.
    let url = bench.manifest_of(SECRET, "latest");
    until(async || ask_as(&bench, Some(&ada), Method::HEAD, &url).await.status == StatusCode::UNAUTHORIZED)
        .await;
    assert_kept_from(&bench, Some(&ada), SECRET, &image).await;
    bench.break_everything(Fault::Unavailable).await;
    assert_kept_from(&bench, Some(&ada), SECRET, &image).await;
}

#[tokio::test]
async fn a_proof_that_is_no_good_in_an_outage_serves_nobody_there() {
    let (bench, image) = with_access("fresh_for = \"0s\"\nstale_for = \"0s\"").await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    bench.break_everything(Fault::Unavailable).await;
    assert_kept_from(&bench, Some(&ada), SECRET, &image).await;
}

#[tokio::test]
async fn whom_the_registry_turns_away_has_no_proof_any_more() {
    let (bench, image) = start().await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    bench.hub.make_private(SECRET, BOB.0);
    bench.hub.revoke_tokens();
    assert_challenged(&bench, Some(&ada), &image).await;
    let bob = token(&bench, Some(BOB), SECRET).await;
    assert_gets(&bench, Some(&bob), SECRET, &image).await;
    bench.break_everything(Fault::Unavailable).await;
    assert_kept_from(&bench, Some(&ada), SECRET, &image).await;
    assert_gets(&bench, Some(&bob), SECRET, &image).await;
}

#[tokio::test]
async fn a_repository_may_become_private_and_public_again() {
    let (bench, image) = start().await;
    bench.hub.make_public(SECRET);
    assert_gets(&bench, None, SECRET, &image).await;

    bench.hub.make_private(SECRET, ADA.0);
    bench.hub.revoke_tokens();
    assert_challenged(&bench, None, &image).await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    for who in others(&bench).await {
        assert_challenged(&bench, who.as_deref(), &image).await;
    }

    // That it was refused is remembered for a moment.
    bench.hub.make_public(SECRET);
    bench.hub.reset_counters();
    for (url, _) in parts(&bench, SECRET, &image) {
        until(async || bench.head(&url).await.status == StatusCode::OK).await;
    }
    for who in [None, Some("Bearer nonsense"), Some(ada.as_str())] {
        assert_gets(&bench, who, SECRET, &image).await;
    }
    assert_eq!((bench.hub.counters().manifest_gets, bench.hub.counters().cdn_gets), (0, 0));
}

#[tokio::test]
async fn a_repository_that_became_private_stays_so_in_the_outage_after() {
    let (bench, image) = start().await;
    bench.hub.make_public(SECRET);
    assert_gets(&bench, None, SECRET, &image).await;
    bench.hub.make_private(SECRET, ADA.0);
    bench.hub.revoke_tokens();
    assert_challenge(&bench, SECRET, &bench.get(&bench.manifest_of(SECRET, "latest")).await, "nobody");
    bench.break_everything(Fault::Unavailable).await;
    assert_kept_from(&bench, None, SECRET, &image).await;
}

#[tokio::test]
async fn public_images_are_for_all_whatever_the_first_of_them_brings() {
    let (bench, _) = start().await;
    let image = Image::build(&marker("public")).unwrap();
    for (number, who) in others(&bench).await.iter().enumerate() {
        let repository = format!("library/public{number}");
        bench.hub.push(&repository, &image);
        bench.hub.tag(&repository, "latest", &image.digest);
        assert_gets(&bench, who.as_deref(), &repository, &image).await;
    }
}

#[tokio::test]
async fn public_images_are_for_all_in_an_outage_too() {
    let (bench, _) = start().await;
    let tide = bench.hub.first().clone();
    bench.hub.reset_counters();
    let mut people = others(&bench).await;
    people.push(Some(adas(&bench).await));
    for who in &people {
        assert_gets(&bench, who.as_deref(), REPOSITORY, &tide).await;
    }
    assert_eq!(bench.hub.counters().manifest_gets, 2);
    bench.break_everything(Fault::Unavailable).await;
    for who in &people {
        assert_gets(&bench, who.as_deref(), REPOSITORY, &tide).await;
    }
}

#[tokio::test]
async fn a_password_goes_nowhere() {
    let (bench, image) = start().await;
    let login = basic(ADA);
    assert_gets(&bench, Some(&login), REPOSITORY, &bench.hub.first().clone()).await;
    assert_challenged(&bench, Some(&login), &image).await;
    for entry in bench.hub.log() {
        let credentials = entry.credentials.unwrap_or_default();
        assert!(["", "Bearer"].contains(&credentials.as_str()), "{credentials} at {}", entry.path);
    }
}

#[tokio::test]
async fn one_clients_token_is_for_nobody_elses_request() {
    let (bench, image) = start().await;
    let ada = adas(&bench).await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    bench.hub.reset_counters();
    for who in others(&bench).await.iter().filter(|who| who.as_deref().is_none_or(|who| who.len() < 20)) {
        assert_challenged(&bench, who.as_deref(), &image).await;
        bench.get(&bench.manifest("latest")).await;
    }
    let log = bench.hub.log();
    let hers = log.iter().filter(|entry| entry.listener == "registry");
    let hers = hers.filter(|entry| entry.credentials.as_deref() == Some("Bearer ada"));
    assert_eq!(hers.count(), 0);
}

#[tokio::test]
async fn a_digest_is_given_under_the_repositories_that_have_it_and_to_their_readers() {
    let (bench, image) = start().await;
    let (ada, tide) = (adas(&bench).await, bench.hub.first().clone());
    // The private repository has the public image too; the public one lacks the private image.
    bench.hub.push(SECRET, &tide);
    bench.pull("latest").await;
    assert_gets(&bench, Some(&ada), SECRET, &image).await;
    for (url, digest) in &parts(&bench, SECRET, &tide)[1..] {
        assert_challenge(&bench, SECRET, &bench.get(url).await, "nobody");
        let (reply, cost) = bench.cost_of(ask_as(&bench, Some(&ada), Method::GET, url)).await;
        assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, digest.clone()), "{url}");
        assert_eq!((cost.manifest_gets, cost.cdn_gets), (0, 0), "{url}: {cost:?}");
    }
    // A layer that two images have is in both repositories.
    let own = |digest: &str| tide.bytes_of(digest).is_none();
    let people = [None, Some(ada.clone()), Some(token(&bench, Some(ADA), REPOSITORY).await)];
    // That it is not there is remembered for a moment.
    for (fault, expected) in [(None, [404].as_slice()), (Some(Fault::Unavailable), &[404, 503])] {
        if let Some(fault) = fault {
            bench.break_everything(fault).await;
        }
        for (url, digest) in
            parts(&bench, REPOSITORY, &image).into_iter().skip(1).filter(|(_, digest)| own(digest))
        {
            assert!(expected.contains(&bench.get(&url).await.status.as_u16()), "{url}");
            for who in &people {
                assert_kept(&all_ways(&bench, who.as_deref(), &url).await, &digest, &url);
            }
        }
    }
}

#[tokio::test]
async fn a_blob_on_its_way_in_for_its_owner_is_for_no_stranger() {
    let (bench, image) = start().await;
    let ada = adas(&bench).await;
    let layer = image.own().layers.last().unwrap().clone();
    let url = bench.blob_of(SECRET, &layer);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(20).only(hex_of(&layer))).await;
    let own_client = Client::new();
    let headers = [("authorization", ada.as_str())];
    let coming = own_client.get(&url, &headers);
    let strangers = async {
        bench.hub.held(Kind::Cdn, 1).await;
        for who in others(&bench).await {
            for method in [Method::GET, Method::HEAD] {
                assert_challenge(
                    &bench,
                    SECRET,
                    &ask_as(&bench, who.as_deref(), method, &url).await,
                    "other",
                );
            }
            let elsewhere = ask_as(&bench, who.as_deref(), Method::GET, &bench.blob(&layer)).await;
            assert!(elsewhere.status.is_client_error(), "{elsewhere:?}");
        }
        bench.hub.clear(Kind::Cdn).await;
    };
    let (reply, ()) = soon(async { tokio::join!(coming, strangers) }).await;
    assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, layer.clone()));
    assert_eq!(bench.hub.counters().cdn_wholes_by_digest.get(&layer), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_passwords_are_in_no_log_and_in_no_file() {
    let (mut bench, image) = start().await;
    let mut people = others(&bench).await;
    people.push(Some(adas(&bench).await));
    for who in &people {
        ask_as(&bench, who.as_deref(), Method::GET, &bench.manifest_of(SECRET, "latest")).await;
        ask_as(&bench, who.as_deref(), Method::GET, &bench.blob_of(SECRET, &image.own().config)).await;
    }
    bench.break_everything(Fault::Unavailable).await;
    for who in &people {
        ask_as(&bench, who.as_deref(), Method::GET, &bench.manifest_of(SECRET, "latest")).await;
    }
    assert!(bench.daemon.terminate().success());
    let secrets = people.iter().flatten().filter_map(|who| who.split_once(' ')).map(|(_, secret)| secret);
    let mut secrets: Vec<String> = secrets.filter(|secret| secret.len() > 20).map(str::to_owned).collect();
    // The signature alone would do, too.
    secrets.extend(secrets.clone().iter().filter_map(|token| Some(token.rsplit_once('.')?.1.to_owned())));
    secrets.extend([ADA.1.to_owned(), STANDARD.encode(ADA.1)]);
    let mut places: Vec<(String, Vec<u8>)> = vec![("the log".to_owned(), bench.daemon.log().into_bytes())];
    places.extend(
        bench.daemon.files().iter().map(|file| (file.display().to_string(), fs::read(file).unwrap())),
    );
    assert!(has(&places[0].1, SECRET) && places[1..].iter().any(|(_, bytes)| has(bytes, SECRET)));
    for (place, bytes) in &places {
        for secret in &secrets {
            assert!(!has(bytes, secret), "{secret} is in {place}");
        }
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
