//! The proxy that an environment names for what goes out over https, as Go's programs take it, containerd among them.
//! Tidehold uses none: this is for saying so.

use std::fmt;

/// Where it is asked for, the stronger first (Go's `http.ProxyFromEnvironment`).
const VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];

/// A proxy, and what names it. Whoever reads it learns nothing that proves a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    variable: &'static str,
    address: String,
}

impl Proxy {
    /// The one that these variables name.
    pub fn named_by<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut found: Option<(usize, &str)> = None;
        for (name, value) in environment {
            let value = value.trim();
            if matches!(name, "NO_PROXY" | "no_proxy") && value == "*" {
                return None;
            }
            if let Some(place) = VARIABLES.iter().position(|variable| *variable == name)
                && !value.is_empty()
                && found.is_none_or(|(before, _)| place <= before)
            {
                found = Some((place, value));
            }
        }
        let (place, value) = found?;
        Some(Self { variable: VARIABLES.get(place)?, address: without_login(value) })
    }
}

/// `HTTPS_PROXY=http://proxy.example:3128`.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.variable, self.address)
    }
}

/// Its address without a user and a password.
fn without_login(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}").chars().filter(|char| !char.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_told_without_its_login() {
        let told = |environment: &[(&'static str, &'static str)]| {
            Proxy::named_by(environment.iter().copied()).map(|proxy| proxy.to_string())
        };
        for (environment, expected) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", "")], None),
            (&[("HTTP_PROXY", "http://p:1")], None),
            (&[("HTTPS_PROXY", "http://p:1"), ("no_proxy", "*")], None),
            (&[("https_proxy", "p:1")], Some("https_proxy=p:1")),
            (
                &[("https_proxy", "p:1"), ("HTTPS_PROXY", "q:1"), ("NO_PROXY", "a.test")],
                Some("HTTPS_PROXY=q:1"),
            ),
            (&[("HTTPS_PROXY", "q:1"), ("https_proxy", "p:1")], Some("HTTPS_PROXY=q:1")),
            (&[("HTTPS_PROXY", "http://me:s3c@ret@p:1/")], Some("HTTPS_PROXY=http://p:1/")),
            (&[("HTTPS_PROXY", "me:s3cret@p:1")], Some("HTTPS_PROXY=p:1")),
        ] {
            assert_eq!(told(environment).as_deref(), expected, "{environment:?}");
        }
    }
}
