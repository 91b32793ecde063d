//! The page itself: one file, with its style and its script in it, and a policy by which a browser runs nothing else.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");

pub(super) async fn answer() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy())];
    (headers, PAGE).into_response()
}

/// By which the page's own style and script are known by their hashes, data comes from here alone, and nothing else is
/// loaded, run, sent or framed.
fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let own = |element| STANDARD.encode(Sha256::digest(inside(PAGE, element)));
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            own("script"),
            own("style")
        )
    })
}

/// What stands in the one element of this name.
fn inside<'a>(page: &'a str, element: &str) -> &'a str {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let behind = page.split_once(&begin).map_or("", |(_, behind)| behind);
    behind.split_once(&end).map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_one_script_and_asks_nobody_else() {
        for element in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(inside(PAGE, element).len() > 100, "{element}");
        }
        for outside in ["http:", "https:", "@import", "url(", "innerHTML", "insertAdjacentHTML", "eval("] {
            let namespace = "http://www.w3.org/2000/svg";
            let own = PAGE.replace(namespace, "").replace("url(#", "");
            assert!(!own.contains(outside), "{outside}");
        }
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="), "the policy lets neither through");
    }
}
