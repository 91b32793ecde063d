//! Where a list goes on (`Link: <…>; rel="next"`, RFC 8288). Follows nothing: of the address only the query is told,
//! since the next page is asked for where the first one was, under the same rules.

use http::HeaderMap;
use http::header::LINK;

use super::failure::Failure;

/// The query of the next page's address, where an answer says that there is one.
///
/// A link that cannot be read is a failure rather than the end: a list cut short would look whole.
pub(super) fn next(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    for value in headers.get_all(LINK) {
        let unreadable = || Failure::unusable("a link to a next page that can't be read");
        let mut rest = value.to_str().map_err(|_| unreadable())?.trim();
        while !rest.is_empty() {
            let (target, after) =
                rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(unreadable)?;
            let (parameters, following) = cut(after);
            if parameters.split(';').any(is_next) {
                let target = target.split('#').next().unwrap_or_default();
                let query = target.split_once('?').map(|(_, query)| query).unwrap_or_default();
                return Ok(Some(query.to_owned()));
            }
            rest = following.trim_start();
        }
    }
    Ok(None)
}

/// The parameters of a link, and the links after it: they begin behind a comma that is not in quotes.
fn cut(text: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                return (text.get(..at).unwrap_or(text), text.get(at + 1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (text, "")
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|rel| rel.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Option<String>, Failure> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(LINK, value.parse().unwrap());
        }
        next(&headers)
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        for (values, query) in [
            ([].as_slice(), None),
            (&["</v2/a/tags/list?last=b&n=2>; rel=\"next\""], Some("last=b&n=2")),
            (&["<https://reg.test/v2/a/tags/list?last=b#x>;rel=next"], Some("last=b")),
            (&["</v2/a/tags/list>; rel=\"next\""], Some("")),
            (&["</first>; rel=\"first\", </x?n=1>; title=\"a, b; c\"; REL=\"last NEXT\""], Some("n=1")),
            (&["</first>; rel=first", "</x?n=1>; rel=next"], Some("n=1")),
            (&["</prev?n=1>; rel=\"prev\""], None),
            (&["</x,y?n=1>; rel=next"], Some("n=1")),
        ] {
            assert_eq!(of(values).unwrap().as_deref(), query, "{values:?}");
        }
    }

    #[test]
    fn a_link_that_cannot_be_read_is_no_end_of_the_list() {
        for value in ["next", "</v2/a/tags/list?last=b; rel=next", "rel=next; </x>", "</x>; rel=prev, y"] {
            assert!(of(&[value]).is_err(), "{value}");
        }
    }
}
