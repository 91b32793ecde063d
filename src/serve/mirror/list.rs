//! Lists: HEAD and GET of tags and of referrers, a page at a time.

use http::{HeaderName, HeaderValue, Response, Uri, header};
use url::form_urlencoded;

use super::error::Problem;
use super::{ascii, put_standing};
use crate::oci::{List, Repository};
use crate::resolve::{Caller, Resolver};
use crate::serve::http::Body;

/// Which filters a list has been through (OCI distribution specification, "Listing Referrers").
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) async fn answer(
    resolver: &Resolver,
    caller: &Caller,
    repository: &Repository,
    list: &List,
    asked: &Uri,
    head: bool,
) -> Result<Response<Body>, Problem> {
    let served = resolver.list(caller, repository, list).await?;
    let length = served.bytes.len();
    let body = if head { Body::empty() } else { Body::Bytes(served.bytes) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(list.media_type()));
    if let Some(filters) = &served.filters_applied {
        headers.insert(FILTERS_APPLIED, ascii(filters));
    }
    if let Some(next) = &served.next {
        headers.insert(header::LINK, ascii(&link(asked, next)));
    }
    put_standing(headers, served.standing, served.age);
    Ok(response)
}

/// The next page by the way that this one was asked for: the registry stays in the path, or in `ns=`.
fn link(asked: &Uri, next: &List) -> String {
    let named = form_urlencoded::parse(asked.query().unwrap_or_default().as_bytes());
    let ns = named.filter(|(key, _)| key == "ns").take(1);
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(next.parameters()).extend_pairs(ns);
    format!("<{}?{}>; rel=\"next\"", asked.path(), query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_the_way_in_which_the_registry_was_named() {
        let next = List::tags("n=2&last=a%2Bb").unwrap();
        for (asked, link_to) in [
            ("/v2/a/tags/list?ns=localhost%3A5000&n=2", "/v2/a/tags/list?n=2&last=a%2Bb&ns=localhost%3A5000"),
            ("/v2/ghcr.io/a/tags/list?last=x&y=z", "/v2/ghcr.io/a/tags/list?n=2&last=a%2Bb"),
        ] {
            assert_eq!(link(&asked.parse().unwrap(), &next), format!("<{link_to}>; rel=\"next\""));
        }
    }
}
