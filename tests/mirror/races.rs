//! Many at once, where what one of them is told must not be what another gets.

use futures_util::future::join_all;
use http::StatusCode;

use crate::bench::{ASKS_ALWAYS, Bench, soon};
use crate::people::{SECRET, adas, assert_challenge, others, parts, push_secret, with_private};
use crate::support::hub::client::{ALL_MANIFESTS, Client};
use crate::support::hub::digest_of;

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
