//! What a client accepts (RFC 9110, section 12.5.1), as far as it decides which manifest it may be given.

use http::{HeaderMap, header};

/// The media types of a request's `Accept` headers.
pub(super) struct Accept(Option<Vec<String>>);

impl Accept {
    /// Reads them all. None, or none that can be read, accept anything.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<&str> =
            values.flat_map(|value| value.split(',')).filter(|range| !range.trim().is_empty()).collect();
        Self((!ranges.is_empty()).then(|| ranges.into_iter().filter_map(range).collect()))
    }

    /// Whether a client that sent these takes this type.
    pub(super) fn takes(&self, media_type: &str) -> bool {
        let main = media_type.split('/').next().unwrap_or_default();
        let Some(ranges) = &self.0 else { return true };
        ranges.iter().any(|range| {
            range.eq_ignore_ascii_case(media_type)
                || range == "*/*"
                || range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(main))
        })
    }
}

/// A type without its parameters, unless they say that it is not wanted.
fn range(text: &str) -> Option<String> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next()?;
    let refused = parts.any(|parameter| {
        let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0))
    });
    (!refused).then(|| range.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_taken_if_it_or_a_range_around_it_is_named() {
        let index = "application/vnd.oci.image.index.v1+json";
        for (values, taken) in [
            ([].as_slice(), true),
            (&[""], true),
            (&["*/*"], true),
            (&["application/*"], true),
            (&["text/*"], false),
            (&[index], true),
            (&["Application/vnd.OCI.image.index.v1+json; q=0.5"], true),
            (&["application/vnd.oci.image.index.v1+json;q=0"], false),
            (&["application/json", index], true),
            (&["application/json, application/vnd.oci.image.index.v1+json"], true),
            (&["application/vnd.oci.image.manifest.v1+json"], false),
            (&["text/html, */*;q=0.1"], true),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(Accept::of(&headers).takes(index), taken, "{values:?}");
        }
    }
}
