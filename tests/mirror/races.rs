//! Many at once, where what one of them is told must not be what another gets.

use futures_util::future::join_all;
use http::StatusCode;

use crate::bench::{ASKS_ALWAYS, Bench, assert_refused, images_only, marker, soon};
use crate::people::{SECRET, adas, assert_challenge, others, parts, push_secret, with_private};
use crate::support::hub::client::{ALL_MANIFESTS, Client};
use crate::support::hub::{Fault, Image, Kind, REPOSITORY, digest_of};

#[tokio::test]
async fn owners_and_strangers_at_once_each_get_what_is_theirs() {
    let bench = Bench::before(with_private(SECRET), ASKS_ALWAYS).await;
    let image = push_secret(&bench);
    let ada = adas(&bench).await;
    let mut people = others(&bench).await;
    people.push(Some(ada.clone()));
    let all: Vec<_> = (0..96).map(|number| people[number % people.len()].clone()).collect();
    for (url, digest) in parts(&bench, SECRET, &image) {
        let asked = all.iter().map(async |who| {
            let headers: Vec<_> = who.iter().map(|who| ("authorization", who.as_str())).collect();
            let accept = ("accept", ALL_MANIFESTS);
            let headers: Vec<_> = headers.into_iter().chain([accept]).collect();
            (who, Client::new().get(&url, &headers).await)
        });
        for (who, reply) in soon(join_all(asked)).await {
            match who.as_ref() == Some(&ada) {
                true => {
                    assert_eq!(reply.status, StatusCode::OK, "{url}: {reply:?}");
                    assert_eq!(digest_of(&reply.body), digest, "{url}");
                }
                false => assert_challenge(&bench, SECRET, &reply, &format!("{who:?}: {url}")),
            }
        }
    }
    let counters = bench.hub.counters();
    let blobs = 1 + image.own().layers.len() as u64;
    assert_eq!((counters.manifest_gets, counters.cdn_gets), (2, blobs), "{counters:?}");
}

#[tokio::test]
async fn several_tags_at_once_with_nothing_left_cost_one_get() {
    const TAGS: u64 = 20;
    let bench = Bench::before(images_only(), ASKS_ALWAYS).await;
    let tags: Vec<_> = (0..TAGS).map(|number| format!("2.{number}")).collect();
    for tag in &tags {
        let image = Image::build(&marker(tag)).unwrap();
        bench.hub.push(REPOSITORY, &image);
        bench.hub.tag(REPOSITORY, tag, &image.digest);
    }
    bench.get(&bench.manifest("latest")).await;
    bench.hub.set_remaining(0);
    bench.hub.fault(Kind::ManifestGet, Fault::Hang).await;
    bench.hub.reset_counters();
    let urls: Vec<_> = tags.iter().map(|tag| bench.manifest(tag)).collect();
    let asked = join_all(urls.iter().map(|url| bench.get(url)));
    // All have been told that nothing is left, before the one that tries all the same is.
    let told = async {
        bench.hub.held(Kind::ManifestGet, 1).await;
        bench.hub.counted(|counters| counters.manifest_heads == TAGS).await;
        bench.hub.clear(Kind::ManifestGet).await;
    };
    let (replies, ()) = soon(async { tokio::join!(asked, told) }).await;
    for reply in replies {
        assert_refused(&reply, StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    }
    let gets =
        bench.hub.log().iter().filter(|entry| entry.method == "GET" && entry.listener == "registry").count();
    assert_eq!(gets, 1);
}
