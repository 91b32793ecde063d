//! Lists: what is asked for, and what is not taken for one.

use super::site::{Site, anyone, repository, response, some_digest};
use crate::oci::{List, MAX_MANIFEST_BYTES};
use crate::upstream::{Asker, Cost, Failure, Listing};

const TAGS: &str = r#"{"name":"a","tags":["1"]}"#;

async fn listed(
    headers: &'static [(&'static str, &'static str)],
    body: String,
    list: &List,
) -> Result<Listing, Failure> {
    let site = Site::serve(move |_| {
        let body = body.clone();
        async move { response(200, headers, body) }
    })
    .await;
    site.upstreams().get_list(&anyone(), &repository("a"), list).await
}

#[tokio::test]
async fn a_list_is_asked_for_with_what_narrows_it_and_costs_nothing() {
    let site = Site::serve(async |_| {
        let link = "<https://elsewhere.test/v2/a/tags/list?last=x%2By&n=3&page=7>; rel=\"next\"";
        response(200, &[("link", link), ("oci-filters-applied", "artifactType")], TAGS)
    })
    .await;
    let asker: Asker = anyone();
    let list = List::tags("last=a%2Fb&ns=x&n=3").unwrap();
    let listing = site.upstreams().get_list(&asker, &repository("a"), &list).await.unwrap();
    assert_eq!(listing.bytes, TAGS);
    assert_eq!(listing.next.unwrap().to_string(), "tags/list?n=3&last=x%2By");
    assert_eq!(listing.filters_applied.as_deref(), Some("artifactType"));
    let [seen] = &site.seen()[..] else { panic!("asked more than once") };
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/v2/a/tags/list?n=3&last=a%2Fb"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(asker.account.cost(), Cost { requests: 1, counted: 0 });
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let site = Site::serve(async |seen| match seen.target.as_str() {
        "/v2/a/tags/list" => response(307, &[("location", "/elsewhere?signature=x")], ""),
        _ => response(200, &[], TAGS),
    })
    .await;
    let list = List::tags("").unwrap();
    assert_eq!(site.upstreams().get_list(&anyone(), &repository("a"), &list).await.unwrap().bytes, TAGS);
}

#[tokio::test]
async fn a_limit_on_a_list_is_one_on_everything() {
    let site = Site::serve(async |_| response(429, &[], r#"{"errors":[]}"#)).await;
    let (upstreams, list) = (site.upstreams(), List::tags("").unwrap());
    for _ in 0..2 {
        let failure = upstreams.get_list(&anyone(), &repository("a"), &list).await.unwrap_err();
        assert!(matches!(failure, Failure::Limited { .. } | Failure::Shut { .. }), "{failure:?}");
    }
    assert_eq!(site.count("/v2/"), 1);
    assert!(upstreams.open(&anyone().credential, &repository("a")).all.is_err());
}

#[tokio::test]
async fn what_is_no_list_is_unusable() {
    let tags = List::tags("last=b").unwrap();
    let referrers = List::referrers(some_digest(), "").unwrap();
    let long =
        format!("{{\"name\":\"a\",\"tags\":[],\"x\":\"{}\"}}", "x".repeat(MAX_MANIFEST_BYTES as usize));
    let image = format!(r#"{{"schemaVersion":2,"config":{{}},"layers":[],"manifests":[]}}{}"#, " ".repeat(9));
    for (headers, body, list) in [
        ([("content-type", "text/html")].as_slice(), TAGS, &tags),
        (&[], "<html>log in</html>", &tags),
        (&[], r#"{"errors":[]}"#, &tags),
        (&[], &long, &tags),
        (&[], &image, &referrers),
        (&[], TAGS, &referrers),
        // Behind each of these the list would seem to end, or never would.
        (&[("link", "</v2/a/tags/list?last=b>; rel=next")], TAGS, &tags),
        (&[("link", "</v2/a/tags/list?page=2>; rel=next")], TAGS, &tags),
        (&[("link", "</v2/a/tags/list?last=c%20d>; rel=next")], TAGS, &tags),
        (&[("link", "gibberish; rel=next")], TAGS, &tags),
    ] {
        let refused = listed(headers, body.to_owned(), list).await;
        assert!(
            matches!(refused, Err(Failure::Unusable(_) | Failure::TooLarge { .. })),
            "{headers:?} {body:.60}: {refused:?}"
        );
    }
    assert!(listed(&[("content-type", "text/plain")], TAGS.to_owned(), &tags).await.is_ok());
}
