//! The stand-in behaves as Docker Hub does: what counts, what is told, what is refused, and what breaks on request.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[path = "support/hub/mod.rs"]
mod hub;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use hub::client::{ALL_MANIFESTS, Client, Reply};
use hub::{
    Account, BlobStyle, Drops, Fault, HeadStyle, HeaderStyle, Hub, HubConfig, Image, ImageSpec, Kind,
    MediaTypes, Private, Refusal, RetryAfter, Rootfs, WithoutAccept, digest_of,
};

const REMAINING: &str = "ratelimit-remaining";

// What counts

#[tokio::test]
async fn a_get_of_a_manifest_counts_and_a_head_does_not() {
    let (hub, client) = start(open()).await;
    let head = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
    assert_eq!(head.header(REMAINING), Some("100;w=21600"));
    let get = client.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!(get.header(REMAINING), Some("99;w=21600"));

    let counters = hub.counters();
    assert_eq!((counters.manifest_heads, counters.manifest_gets), (1, 1));
    assert_eq!(counters.manifest_gets_by_reference.get("library/tide:latest"), Some(&1));
}

#[tokio::test]
async fn a_get_by_digest_counts_as_one_by_tag_does() {
    let (hub, client) = start(open()).await;
    let platform = &hub.first().own().manifest;
    let reply = client.pull(Method::GET, &manifest(&hub, platform)).await;
    assert_eq!(digest_of(&reply.body), *platform);
    assert_eq!(hub.counters().manifest_gets_by_reference.get(&format!("library/tide@{platform}")), Some(&1));
}

#[tokio::test]
async fn a_conditional_get_answered_304_still_counts() {
    let (hub, client) = start(open()).await;
    let tag = client.pull(Method::HEAD, &manifest(&hub, "latest")).await.header("etag").unwrap().to_owned();
    let headers = [("accept", ALL_MANIFESTS), ("if-none-match", tag.as_str())];
    let reply = client.get(&manifest(&hub, "latest"), &headers).await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!((hub.counters().not_modified, hub.counters().manifest_gets), (1, 1));
}

#[tokio::test]
async fn blobs_do_not_count() {
    let (hub, client) = start(open()).await;
    hub.set_remaining(0);
    let reply = fetch_blob(&client, &hub, &hub.first().own().config, &[]).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!((hub.counters().blob_gets, hub.counters().cdn_gets, hub.counters().manifest_gets), (1, 1, 0));
    assert_eq!(hub.counters().cdn_bytes, reply.body.len() as u64);
}

#[tokio::test]
async fn each_address_has_a_limit_of_its_own() {
    let (hub, client) = start(HubConfig { limit: Some(1), ..open() }).await;
    let neighbour = Client::from_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)));
    assert_eq!(client.pull(Method::GET, &manifest(&hub, "latest")).await.status, StatusCode::OK);
    assert_eq!(
        client.pull(Method::GET, &manifest(&hub, "latest")).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let reply = neighbour.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!((reply.status, reply.header("docker-ratelimit-source")), (StatusCode::OK, Some("127.0.0.3")));
}

#[tokio::test]
async fn a_window_fills_up_again_when_its_time_is_over() {
    let (hub, client) = start(HubConfig { limit: Some(1), ..open() }).await;
    client.pull(Method::GET, &manifest(&hub, "latest")).await;
    // Its clock goes on by itself too.
    hub.advance(Duration::from_secs(21_000));
    assert_eq!(remaining(&client, &hub).await, "0;w=21600");
    hub.advance(Duration::from_secs(600));
    assert_eq!(remaining(&client, &hub).await, "1;w=21600");
}

#[tokio::test]
async fn the_number_may_fall_with_every_second_get_and_below_zero() {
    let config = HubConfig { limit: Some(1), drops: Drops::EverySecondGet, enforced_late_by: 1, ..open() };
    let (hub, client) = start(config).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let reply = client.pull(Method::GET, &manifest(&hub, "latest")).await;
        told.push(reply.header(REMAINING).unwrap().split(';').next().unwrap().to_owned());
    }
    assert_eq!(told, ["1", "0", "0", "-1"]);
    assert_eq!(
        client.pull(Method::GET, &manifest(&hub, "latest")).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[tokio::test]
async fn a_sponsored_repository_tells_no_limit_and_costs_nothing() {
    let (hub, client) = start(HubConfig { sponsored: vec!["library/tide".to_owned()], ..open() }).await;
    let reply = client.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!((reply.header(REMAINING), reply.header("ratelimit-limit")), (None, None));
    assert_eq!(hub.counters().manifest_gets, 0);
}

// What is refused

#[tokio::test]
async fn a_head_is_answered_when_nothing_is_left_and_a_get_is_not() {
    let (hub, client) = start(open()).await;
    hub.set_remaining(0);
    let head = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
    assert_eq!((head.status, head.header(REMAINING)), (StatusCode::OK, Some("0;w=21600")));
    assert_eq!(head.header("docker-content-digest"), Some(hub.first().digest.as_str()));
    let get = client.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!((get.status, get.error_code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"));
    assert_eq!((hub.counters().manifest_gets, hub.counters().too_many_requests), (0, 1));
}

#[tokio::test]
async fn the_refusal_of_2020_is_denied_and_says_when_to_come_back() {
    let (hub, client) = start(HubConfig { refusal: Refusal::Denied, ..open() }).await;
    hub.set_remaining(0);
    let reply = client.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "DENIED"));
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((21_590..=21_600).contains(&seconds), "{seconds}");
    assert_eq!(
        (reply.header("cache-control"), reply.header("connection")),
        (Some("no-cache"), Some("close"))
    );
}

#[tokio::test]
async fn when_to_come_back_may_be_a_date_or_a_timestamp() {
    for form in [RetryAfter::HttpDate, RetryAfter::UnixTimestamp] {
        let (hub, client) = start(HubConfig { retry_after: Some(form), ..open() }).await;
        let reply = client
            .pull(Method::GET, &format!("{}/v2/ratelimitalways/test/manifests/latest", hub.registry_url()))
            .await;
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        let text = reply.header("retry-after").unwrap();
        match form {
            RetryAfter::HttpDate => assert!(httpdate::parse_http_date(text).is_ok(), "{text}"),
            _ => assert!(text.parse::<u64>().unwrap() > 1_700_000_000, "{text}"),
        }
    }
}

#[tokio::test]
async fn a_missing_tag_is_unknown_and_the_question_counts() {
    let (hub, client) = start(HubConfig::default()).await;
    let reply = client.pull(Method::GET, &manifest(&hub, "9.9")).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"));
    assert_eq!(hub.counters().manifest_gets, 1);
}

#[tokio::test]
async fn missing_private_and_bare_names_are_not_told_apart() {
    let private = Private { repository: "ratelimitpreview/test".to_owned(), account: "ada".to_owned() };
    let (hub, client) = start(HubConfig { private: vec![private], ..HubConfig::default() }).await;
    for repository in ["library/nothing", "ratelimitpreview/test", "tide"] {
        let url = format!("{}/v2/{repository}/manifests/latest", hub.registry_url());
        let reply = client.pull(Method::GET, &url).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
        assert_eq!(reply.challenge().scope, format!("repository:{repository}:pull"));
        assert_eq!(reply.challenge().error, "insufficient_scope");
    }
    assert_eq!((hub.counters().manifest_gets, hub.counters().unauthorized), (0, 6));
}

// Tokens

#[tokio::test]
async fn a_challenge_names_where_to_get_a_token_and_the_token_lets_in() {
    let (hub, client) = start(HubConfig::default()).await;
    let refused = client.get(&manifest(&hub, "latest"), &[]).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let challenge = refused.challenge();
    assert_eq!(challenge.realm, format!("{}/token", hub.token_url()));
    assert_eq!((challenge.service.as_str(), challenge.error.as_str()), ("registry.docker.io", ""));
    assert_eq!(challenge.scope, "repository:library/tide:pull");
    let reply = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!((hub.counters().token_requests, hub.counters().unauthorized), (1, 2));
}

#[tokio::test]
async fn a_token_tells_the_limit_as_text() {
    let (hub, client) = start(HubConfig::default()).await;
    let token = token_for(&client, &hub, "library/tide").await;
    let claims = claims_of(&token);
    assert_eq!(claims.pointer("/access/0/name"), Some(&Value::from("library/tide")));
    assert_eq!(claims.pointer("/access/0/parameters/pull_limit"), Some(&Value::from("100")));
    assert_eq!(claims.pointer("/access/0/parameters/pull_limit_interval"), Some(&Value::from("21600")));
}

#[tokio::test]
async fn a_token_opens_its_own_repository_alone() {
    let (hub, client) = start(HubConfig::default()).await;
    let token = token_for(&client, &hub, "ratelimitpreview/test").await;
    let reply = with_token(&client, &hub, &token).await;
    assert_eq!(
        (reply.status, reply.challenge().error.as_str()),
        (StatusCode::UNAUTHORIZED, "insufficient_scope")
    );
}

#[tokio::test]
async fn one_token_may_open_several_repositories() {
    let (hub, client) = start(HubConfig::default()).await;
    let scopes = "scope=repository:ratelimitpreview/test:pull&scope=repository:library/tide:pull";
    let url = format!("{}/token?service=registry.docker.io&{scopes}", hub.token_url());
    let granted = client.get(&url, &[]).await.json();
    let token = granted.get("token").and_then(Value::as_str).unwrap();
    assert_eq!(with_token(&client, &hub, token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_a_forged_one_never_began() {
    let (hub, client) = start(HubConfig::default()).await;
    let token = token_for(&client, &hub, "library/tide").await;
    assert_eq!(with_token(&client, &hub, &token).await.status, StatusCode::OK);
    assert_eq!(with_token(&client, &hub, &format!("{token}0")).await.challenge().error, "invalid_token");
    hub.advance(Duration::from_secs(300));
    assert_eq!(with_token(&client, &hub, &token).await.challenge().error, "invalid_token");
}

#[tokio::test]
async fn an_account_has_its_own_limit_and_its_private_repositories() {
    let private = Private { repository: "library/tide".to_owned(), account: "ada".to_owned() };
    let accounts = vec![Account::free("ada", "tide"), Account::paid("bob", "hold")];
    let (hub, client) = start(HubConfig { private: vec![private], accounts, ..HubConfig::default() }).await;
    let ada = login(&client, &hub, "Basic YWRhOnRpZGU=", "library/tide").await;
    let reply = with_token(&client, &hub, &ada).await;
    assert_eq!(reply.header("ratelimit-limit"), Some("200;w=21600"));
    assert_eq!(reply.header("docker-ratelimit-source").map(str::len), Some(36));
    let bob = login(&client, &hub, "Basic Ym9iOmhvbGQ=", "library/tide").await;
    assert_eq!(with_token(&client, &hub, &bob).await.status, StatusCode::UNAUTHORIZED);
    let bob = login(&client, &hub, "Basic Ym9iOmhvbGQ=", "ratelimitpreview/test").await;
    let url = format!("{}/v2/ratelimitpreview/test/manifests/latest", hub.registry_url());
    let bearer = format!("Bearer {bob}");
    let reply = client.get(&url, &[("accept", ALL_MANIFESTS), ("authorization", &bearer)]).await;
    assert_eq!((reply.status, reply.header(REMAINING)), (StatusCode::OK, None));
}

// What a client accepts

#[tokio::test]
async fn an_oci_image_is_unknown_to_whom_does_not_ask_for_oci() {
    let (hub, client) = start(open()).await;
    for accept in ["*/*", MediaTypes::Docker.index(), MediaTypes::Oci.manifest()] {
        let reply = client.get(&manifest(&hub, "latest"), &[("accept", accept)]).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"));
    }
}

#[tokio::test]
async fn a_docker_list_is_given_as_its_amd64_manifest_to_whom_knows_no_lists() {
    let (hub, client) = start(HubConfig { media: MediaTypes::Docker, ..open() }).await;
    let reply = client.get(&manifest(&hub, "latest"), &[("accept", MediaTypes::Docker.manifest())]).await;
    let amd64 = hub.first().platforms.iter().find(|image| image.platform.architecture == "amd64").unwrap();
    assert_eq!(reply.header("docker-content-digest"), Some(amd64.manifest.as_str()));
}

#[tokio::test]
async fn who_accepts_nothing_may_get_schema_1_with_another_digest() {
    let config = HubConfig { media: MediaTypes::Docker, without_accept: WithoutAccept::Schema1, ..open() };
    let (hub, client) = start(config).await;
    let reply = client.head(&manifest(&hub, "latest"), &[]).await;
    assert!(reply.header("content-type").unwrap().ends_with("v1+prettyjws"));
    assert_ne!(reply.header("docker-content-digest"), Some(hub.first().digest.as_str()));
}

// Blobs and the CDN

#[tokio::test]
async fn a_blob_is_a_redirect_to_another_host_that_knows_no_digests() {
    let (hub, client) = start(open()).await;
    let layer = hub.first().own().layers.first().unwrap();
    let redirect = client.get(&blob(&hub, layer), &[]).await;
    assert_eq!((redirect.status, redirect.body.len()), (StatusCode::TEMPORARY_REDIRECT, 0));
    assert!(redirect.location().starts_with("http://127.0.0.2:"), "{}", redirect.location());
    let reply = client.get(&redirect.location(), &[]).await;
    assert_eq!(digest_of(&reply.body), *layer);
    let hex = layer.strip_prefix("sha256:").unwrap();
    assert!(!reply.header("etag").unwrap().contains(hex) && reply.header("docker-content-digest").is_none());
    let head = client.head(&blob(&hub, layer), &[]).await;
    assert_eq!((head.status, head.header("docker-content-digest")), (StatusCode::OK, Some(layer.as_str())));
    assert_eq!(head.header("content-length"), Some(reply.body.len().to_string().as_str()));
}

#[tokio::test]
async fn the_cdn_gives_ranges() {
    let (hub, client) = start(open()).await;
    let config = &hub.first().own().config;
    let whole = hub.first().bytes_of(config).unwrap();
    let last = whole.len() - 1;
    for (range, from, to) in [("bytes=2-5", 2, 5), ("bytes=7-", 7, last), ("bytes=-3", last - 2, last)] {
        let reply = fetch_blob(&client, &hub, config, &[("range", range)]).await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::PARTIAL_CONTENT, &whole[from..=to]));
        let told = format!("bytes {from}-{to}/{}", whole.len());
        assert_eq!(reply.header("content-range"), Some(told.as_str()));
    }
    let beyond = fetch_blob(&client, &hub, config, &[("range", "bytes=1000000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!((hub.counters().range_requests, hub.counters().cdn_gets_by_digest.get(config)), (4, Some(&4)));
}

#[tokio::test]
async fn a_signed_address_expires() {
    let (hub, client) = start(open()).await;
    let address = client.get(&blob(&hub, &hub.first().own().config), &[]).await.location();
    assert_eq!(
        client.get(&address.replace("signature=", "signature=0"), &[]).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(client.get(&address, &[]).await.status, StatusCode::OK);
    hub.advance(Duration::from_secs(300));
    assert_eq!(client.get(&address, &[]).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_token_shown_to_the_cdn_is_refused_and_counted() {
    let (hub, client) = start(open()).await;
    let address = client.get(&blob(&hub, &hub.first().own().config), &[]).await.location();
    let reply = client.get(&address, &[("authorization", "Bearer secret")]).await;
    assert_eq!((reply.status, hub.counters().cdn_authorizations), (StatusCode::BAD_REQUEST, 1));
}

// Other registries

#[tokio::test]
async fn other_registries_answer_a_head_without_a_digest_or_not_at_all() {
    let (hub, client) = start(HubConfig { head: HeadStyle::WithoutDigest, ..open() }).await;
    let head = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
    assert_eq!(
        (head.status, head.header("docker-content-digest"), head.header("etag")),
        (StatusCode::OK, None, None)
    );
    let (hub, client) = start(HubConfig { head: HeadStyle::MethodNotAllowed, ..open() }).await;
    let head = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.pull(Method::GET, &manifest(&hub, "latest")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_registries_redirect_with_302_or_give_the_blob_themselves() {
    let (hub, client) = start(HubConfig { blobs: BlobStyle::Redirect302, ..open() }).await;
    let config = hub.first().own().config.clone();
    assert_eq!(client.get(&blob(&hub, &config), &[]).await.status, StatusCode::FOUND);
    let (hub, client) =
        start(HubConfig { blobs: BlobStyle::Inline, headers: HeaderStyle::Absent, ..open() }).await;
    let reply = client.get(&blob(&hub, &config), &[]).await;
    assert_eq!((reply.status, digest_of(&reply.body)), (StatusCode::OK, config));
    assert_eq!(client.pull(Method::GET, &manifest(&hub, "latest")).await.header(REMAINING), None);
}

// Faults

#[tokio::test]
async fn each_kind_of_request_breaks_by_itself() {
    let (hub, client) = start(open()).await;
    hub.fault(Kind::ManifestGet, Fault::PullLimit).await;
    hub.fault(Kind::ManifestHead, Fault::AbuseLimit).await;
    hub.fault(Kind::Blob, Fault::Unavailable).await;
    hub.fault(Kind::Token, Fault::CaptivePortal).await;
    let get = client.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!((get.status, get.error_code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"));
    assert_eq!(
        client.pull(Method::HEAD, &manifest(&hub, "latest")).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let blob = client.get(&blob(&hub, &hub.first().own().config), &[]).await;
    assert_eq!(blob.status, StatusCode::SERVICE_UNAVAILABLE);
    let portal = client.get(&format!("{}/token", hub.token_url()), &[]).await;
    assert_eq!((portal.status, portal.header("content-type")), (StatusCode::OK, Some("text/html")));
    hub.clear_all().await;
    assert_eq!(client.pull(Method::GET, &manifest(&hub, "latest")).await.status, StatusCode::OK);
    assert_eq!((hub.counters().manifest_gets, hub.counters().too_many_requests), (1, 2));
}

#[tokio::test]
async fn the_limit_on_abuse_is_plain_text() {
    let (hub, client) = start(open()).await;
    hub.fault(Kind::ManifestGet, Fault::AbuseLimit.next(1)).await;
    let reply = client.pull(Method::GET, &manifest(&hub, "latest")).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (StatusCode::TOO_MANY_REQUESTS, Some("text/plain"))
    );
    assert!(reply.body.starts_with(b"Too Many Requests (HAP429)"));
    assert_eq!(client.pull(Method::GET, &manifest(&hub, "latest")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_fault_may_concern_one_tag_alone() {
    let (hub, client) = start(open()).await;
    hub.fault(Kind::ManifestGet, Fault::Unavailable.only("/1.0")).await;
    assert_eq!(client.pull(Method::GET, &manifest(&hub, "latest")).await.status, StatusCode::OK);
    assert_eq!(
        client.pull(Method::GET, &manifest(&hub, "1.0")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn a_reset_connection_gives_no_answer() {
    let (hub, client) = start(open()).await;
    hub.fault(Kind::ManifestGet, Fault::Reset.next(1)).await;
    let error = client.send(Method::GET, &manifest(&hub, "latest"), &[]).await.unwrap_err();
    assert_eq!(io_kind(&error), Some(std::io::ErrorKind::ConnectionReset), "{error:?}");
    assert_eq!(hub.log().last().map(|entry| (entry.status, entry.counted)), Some((None, false)));
}

#[tokio::test]
async fn a_hanging_request_is_answered_once_the_fault_is_cleared() {
    let (hub, client) = start(open()).await;
    hub.fault(Kind::ManifestGet, Fault::Hang).await;
    let url = manifest(&hub, "latest");
    let asking = tokio::spawn(async move { client.pull(Method::GET, &url).await });
    hub.held(Kind::ManifestGet, 1).await;
    assert_eq!(hub.counters().manifest_gets, 0);
    hub.clear(Kind::ManifestGet).await;
    assert_eq!(asking.await.unwrap().status, StatusCode::OK);
    assert_eq!(hub.counters().manifest_gets, 1);
}

#[tokio::test]
async fn a_closed_listener_refuses_until_it_opens_on_the_same_port() {
    let (hub, client) = start(open()).await;
    client.pull(Method::GET, &manifest(&hub, "latest")).await;
    hub.fault(Kind::ManifestGet, Fault::Refuse).await;
    let fresh = Client::new();
    let error = fresh.send(Method::GET, &manifest(&hub, "latest"), &[]).await.unwrap_err();
    assert_eq!(io_kind(&error), Some(std::io::ErrorKind::ConnectionRefused), "{error:?}");
    hub.clear(Kind::ManifestGet).await;
    assert_eq!(fresh.pull(Method::GET, &manifest(&hub, "latest")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_is_cut_off_after_exactly_as_many_bytes() {
    let (hub, client) = start(open()).await;
    let layer = large_layer(&hub);
    for bytes in [0, 1, 100_000] {
        let address = client.get(&blob(&hub, &layer), &[]).await.location();
        hub.fault(Kind::Cdn, Fault::CutAfter(bytes)).await;
        let response = client.send(Method::GET, &address, &[]).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let mut came = 0;
        let end = loop {
            match body.frame().await {
                Some(Ok(frame)) => came += frame.into_data().unwrap().len() as u64,
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(end.is_some(), "a body cut off after {bytes} bytes is not a whole one");
        assert_eq!(came, bytes);
    }
    hub.clear_all().await;
    let rest = fetch_blob(&client, &hub, &layer, &[("range", "bytes=100000-")]).await;
    let size = client
        .head(&blob(&hub, &layer), &[])
        .await
        .header("content-length")
        .unwrap()
        .parse::<usize>()
        .unwrap();
    assert_eq!((rest.status, rest.body.len()), (StatusCode::PARTIAL_CONTENT, size - 100_000));
}

#[tokio::test]
async fn wrong_bytes_have_the_right_length() {
    let (hub, client) = start(open()).await;
    let config = hub.first().own().config.clone();
    hub.fault(Kind::Cdn, Fault::WrongBytes).await;
    let reply = fetch_blob(&client, &hub, &config, &[]).await;
    assert_eq!(reply.body.len(), hub.first().bytes_of(&config).unwrap().len());
    assert_ne!(digest_of(&reply.body), config);
}

#[tokio::test]
async fn a_held_body_stops_at_its_offset_until_it_is_let_go() {
    let (hub, client) = start(open()).await;
    let layer = large_layer(&hub);
    hub.fault(Kind::Cdn, Fault::HoldAt(50_000)).await;
    let address = client.get(&blob(&hub, &layer), &[]).await.location();
    let response = client.send(Method::GET, &address, &[]).await.unwrap();
    hub.held(Kind::Cdn, 1).await;
    assert_eq!(hub.counters().cdn_bytes, 50_000);
    // Whoever asks for the rest gets no further, and has not begun anew.
    let rest = client.send(Method::GET, &address, &[("range", "bytes=40000-")]).await.unwrap();
    hub.held(Kind::Cdn, 2).await;
    assert_eq!(hub.counters().cdn_bytes, 60_000);
    assert_eq!(hub.counters().cdn_wholes_by_digest.get(&layer), Some(&1));
    hub.clear(Kind::Cdn).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(digest_of(&body), layer);
    assert_eq!(rest.into_body().collect().await.unwrap().to_bytes(), body.slice(40_000..));
}

#[tokio::test]
async fn a_dropped_stand_in_listens_no_longer() {
    let (hub, _) = start(open()).await;
    let address = hub.registry_address();
    drop(hub);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

// Moving tags, and steering over HTTP

#[tokio::test]
async fn a_tag_moves_to_whatever_was_pushed() {
    let (hub, client) = start(open()).await;
    let spec = ImageSpec { marker: "v3".to_owned(), rootfs: Rootfs::Marker, ..ImageSpec::default() };
    let third = hub.push("library/tide", &Image::build(&spec).unwrap());
    for digest in [hub.second().digest.clone(), third] {
        hub.tag("library/tide", "latest", &digest);
        let head = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
        assert_eq!(head.header("docker-content-digest"), Some(digest.as_str()));
    }
}

#[tokio::test]
async fn everything_can_be_steered_over_http_and_none_of_it_counts() {
    let (hub, client) = start(open()).await;
    let page = |path: &str| format!("{}/_hub/{path}", hub.registry_url());
    let images = client.get(&page("images"), &[]).await.json();
    let second = images.pointer("/library~1tide/images/v2").and_then(Value::as_str).unwrap().to_owned();
    client.post(&page(&format!("tag?repository=library/tide&tag=latest&digest={second}"))).await;
    client.post(&page("budget?remaining=0")).await;
    client.post(&page("fault?kind=blob&mode=unavailable&times=1")).await;
    assert_eq!(client.get(&page("counters"), &[]).await.json().get("requests"), Some(&Value::from(0)));

    let head = client.pull(Method::HEAD, &manifest(&hub, "latest")).await;
    assert_eq!(
        (head.header("docker-content-digest"), head.header(REMAINING)),
        (Some(&*second), Some("0;w=21600"))
    );
    let refused = client.get(&blob(&hub, &hub.first().own().config), &[]).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let log = client.get(&page("log"), &[]).await.json();
    assert_eq!(log.pointer("/0/method"), Some(&Value::from("HEAD")));
    client.post(&page("reset")).await;
    assert_eq!(hub.counters(), hub::Counters::default());

    let wrong = client.post(&page("fault?kind=nothing&mode=hang")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

// Images

#[tokio::test]
async fn every_part_of_an_image_can_be_fetched_and_is_what_its_digest_says() {
    let (hub, client) = start(open()).await;
    let index = client.pull(Method::GET, &manifest(&hub, "latest")).await.json();
    let entries = index.get("manifests").and_then(Value::as_array).unwrap();
    assert_eq!(entries.len(), hub.first().platforms.len());
    for entry in entries {
        let reply = client.pull(Method::GET, &manifest(&hub, digest_in(entry))).await;
        assert_eq!(digest_of(&reply.body), digest_in(entry));
        let parts = reply.json();
        let config = parts.get("config").unwrap();
        let layers = parts.get("layers").and_then(Value::as_array).unwrap();
        for part in layers.iter().chain([config]) {
            let bytes = fetch_blob(&client, &hub, digest_in(part), &[]).await.body;
            assert_eq!(digest_of(&bytes), digest_in(part));
            assert_eq!(part.get("size"), Some(&Value::from(bytes.len())));
        }
        let config = fetch_blob(&client, &hub, digest_in(config), &[]).await.json();
        let diff_ids = config.pointer("/rootfs/diff_ids").and_then(Value::as_array).unwrap();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let tar = unzip(&hub.first().bytes_of(digest_in(layer)).unwrap());
            assert_eq!(digest_of(&tar), diff_id.as_str().unwrap());
        }
    }
}

#[test]
fn the_same_specification_gives_the_same_bytes_and_another_marker_others() {
    let spec = ImageSpec { extra_layer_bytes: 10_000, rootfs: Rootfs::Marker, ..ImageSpec::default() };
    let other = ImageSpec { marker: "v2".to_owned(), ..spec.clone() };
    let (one, two) = (Image::build(&spec).unwrap(), Image::build(&spec).unwrap());
    assert_eq!((&one.digest, &one.platforms), (&two.digest, &two.platforms));
    let other = Image::build(&other).unwrap();
    let shared: Vec<bool> = one.own().layers.iter().zip(&other.own().layers).map(|(a, b)| a == b).collect();
    assert_eq!(shared, [true, false, false], "only the base is shared");
}

#[test]
fn the_machines_own_platform_has_a_shell() {
    let image = Image::build(&ImageSpec::default()).unwrap();
    let base = image.bytes_of(image.own().layers.first().unwrap()).unwrap();
    let tar = unzip(&base);
    let mut archive = tar::Archive::new(&tar[..]);
    let shell =
        archive.entries().unwrap().map(Result::unwrap).find(|entry| *entry.path_bytes() == b"bin/sh"[..]);
    assert_eq!(shell.unwrap().link_name_bytes().as_deref(), Some(&b"busybox"[..]));
}

// Helpers

/// Docker Hub without tokens, and without a need for anything of the machine's.
fn open() -> HubConfig {
    HubConfig { auth: false, ..HubConfig::default() }
}

async fn start(config: HubConfig) -> (Hub, Client) {
    (Hub::start(HubConfig { rootfs: Rootfs::Marker, ..config }).await, Client::new())
}

fn manifest(hub: &Hub, reference: &str) -> String {
    format!("{}/v2/library/tide/manifests/{reference}", hub.registry_url())
}

fn blob(hub: &Hub, digest: &str) -> String {
    format!("{}/v2/library/tide/blobs/{digest}", hub.registry_url())
}

async fn fetch_blob(client: &Client, hub: &Hub, digest: &str, headers: &[(&str, &str)]) -> Reply {
    let address = client.get(&blob(hub, digest), &[]).await.location();
    client.get(&address, headers).await
}

async fn remaining(client: &Client, hub: &Hub) -> String {
    client.pull(Method::HEAD, &manifest(hub, "latest")).await.header(REMAINING).unwrap().to_owned()
}

/// Pushes a layer of many pieces and gives its digest.
fn large_layer(hub: &Hub) -> String {
    let spec = ImageSpec {
        marker: "large".to_owned(),
        extra_layer_bytes: 300_000,
        rootfs: Rootfs::Marker,
        ..ImageSpec::default()
    };
    let image = Image::build(&spec).unwrap();
    hub.push("library/tide", &image);
    image.own().layers.last().unwrap().clone()
}

async fn token_for(client: &Client, hub: &Hub, repository: &str) -> String {
    let url = format!("{}/v2/{repository}/manifests/latest", hub.registry_url());
    let challenge = client.get(&url, &[]).await.challenge();
    client.token(&challenge, &[]).await
}

async fn login(client: &Client, hub: &Hub, basic: &str, repository: &str) -> String {
    let url = format!("{}/v2/{repository}/manifests/latest", hub.registry_url());
    let challenge = client.get(&url, &[]).await.challenge();
    client.token(&challenge, &[("authorization", basic)]).await
}

async fn with_token(client: &Client, hub: &Hub, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    client.get(&manifest(hub, "latest"), &[("accept", ALL_MANIFESTS), ("authorization", &bearer)]).await
}

fn claims_of(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn digest_in(descriptor: &Value) -> &str {
    descriptor.get("digest").and_then(Value::as_str).unwrap()
}

fn unzip(gzip: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut tar).unwrap();
    tar
}

/// The kind of the I/O error at the root of a failed request.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}
