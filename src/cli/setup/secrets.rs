//! What proves a login is left out of what is shown: a diff ends up in terminals, tickets and the logs of pods.
//!
//! A file may be of any kind, and broken: so it goes by the names of keys, not by a grammar, and hides rather too much. The
//! values of all headers of a host are hidden, since any of them may be one that lets somebody in.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands in the place of a secret.
const HIDDEN: &str = "…";

/// A key that tells of a secret, as TOML, JSON and YAML write it, and its value: strings, several of them, or the rest of the
/// line. The value of a table is gone into.
const KEYED: &str = r#"(?x)
    (?P<key>
        (?:^|[\s{,."'])
        (?i:
            [\w-]* (?: password | passwd | passphrase | secret | token | cookie | authorization | api[_-]?key ) [\w-]*
            | (?:[\w-]*[_-])? auth
        )
        ["']? [\x20\t]* [=:] [\x20\t]*
    )
    (?P<value>
        """ (?s:.)*? """ | ''' (?s:.)*? '''
        | \[ (?: [^\]"'] | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )* \]
        | "(?:[^"\\\n]|\\.)*" | '[^'\n]*'
        | [^\s{\[][^\n]*
    )"#;

/// A login within a URL.
const IN_URL: &str = r#"(?P<before>:(?://|\\/\\/))[^/\s"'\\]*@"#;

/// The headers that a host is sent: a table, or an inline one.
const HEADERS: &str = r#"(?m)^[\x20\t]*\[[^\n]*\.['"]?header['"]?\][^\n]*\n(?:[\x20\t]*(?:[^\[\s][^\n]*)?(?:\n|\z))*|\bheader[\x20\t]*=[\x20\t]*\{[^\n]*"#;

/// What is given to a key, as far as it is a string.
const STRING: &str = r#"(?P<key>["']?[\w.-]+["']?[\x20\t]*=)|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'"#;

struct Patterns {
    keyed: Regex,
    in_url: Regex,
    headers: Regex,
    string: Regex,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| {
    let of = |pattern| Regex::new(pattern).ok();
    Some(Patterns { keyed: of(KEYED)?, in_url: of(IN_URL)?, headers: of(HEADERS)?, string: of(STRING)? })
});

/// A text without what proves a login.
pub(super) fn hidden(text: &str) -> Cow<'_, str> {
    // These are constant, and a test tries them.
    let Some(patterns) = PATTERNS.as_ref() else { return HIDDEN.into() };
    let text = patterns.headers.replace_all(text, |table: &Captures<'_>| {
        let table = table.get(0).map_or("", |table| table.as_str());
        let (head, rest) = table.split_at(table.find(['\n', '{']).unwrap_or(0));
        let values = patterns.string.replace_all(rest, |value: &Captures<'_>| match value.name("key") {
            Some(key) => key.as_str().to_owned(),
            None => format!("\"{HIDDEN}\""),
        });
        format!("{head}{values}")
    });
    let text = patterns.keyed.replace_all(&text, |found: &Captures<'_>| {
        let [key, value] = ["key", "value"].map(|name| found.name(name).map_or("", |part| part.as_str()));
        match value.trim_end_matches([',', '\r', ' ']) {
            "true" | "false" | "\"\"" | "''" | "[]" => format!("{key}{value}"),
            // Whatever follows stays on the line where it is.
            _ => format!("{key}\"{HIDDEN}\"{}", "\n".repeat(value.matches('\n').count())),
        }
    });
    patterns.in_url.replace_all(&text, format!("${{before}}{HIDDEN}@")).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn hides(text: &str, shown: &str) {
        assert_eq!(hidden(text), shown);
    }

    #[test]
    fn the_values_of_keys_that_tell_of_secrets_are_hidden() {
        hides("  password = \"s3\\\"cret\" # ours\n", "  password = \"…\" # ours\n");
        hides("password='s3cret'", "password=\"…\"");
        hides(
            "identitytoken = \"a\"\nregistrytoken = \"b\"\n",
            "identitytoken = \"…\"\nregistrytoken = \"…\"\n",
        );
        hides("x.configs.\"r.test\".auth.auth = \"YWRh\"", "x.configs.\"r.test\".auth.auth = \"…\"");
        hides(
            "auth = { username = \"ada\", password = \"p\" }",
            "auth = { username = \"ada\", password = \"…\" }",
        );
        hides("{\"auths\": {\"r\": {\"auth\": \"YWRh\"}}}", "{\"auths\": {\"r\": {\"auth\": \"…\"}}}");
        hides("Authorization = [\n  \"Basic x\",\n]\n", "Authorization = \"…\"\n\n\n");
        hides("secret_key = \"\"\"\na\nb\"\"\"\nn = 1\n", "secret_key = \"…\"\n\n\nn = 1\n");
        hides("# password = \"old\"\npassword: s3 cret\n", "# password = \"…\"\npassword: \"…\"\n");
        hides("password = \"not closed\nn = 1\n", "password = \"…\"\nn = 1\n");
    }

    #[test]
    fn logins_in_urls_and_headers_of_hosts_are_hidden() {
        hides("\"http-proxy\": \"http://ada:p@ss@proxy:1/\"", "\"http-proxy\": \"http://…@proxy:1/\"");
        hides("endpoint = [\"https://ada@r.test\"]", "endpoint = [\"https://…@r.test\"]");
        let table = "[host.\"https://r.test\".header]\n  X-Key = \"k\"\n  \"Y\" = [\"a\",\n    'b']\n\n[host.\"https://s.test\"]\n  ca = \"/a\"\n";
        let shown = "[host.\"https://r.test\".header]\n  X-Key = \"…\"\n  \"Y\" = [\"…\",\n    \"…\"]\n\n[host.\"https://s.test\"]\n  ca = \"/a\"\n";
        hides(table, shown);
        hides("header = { X-Key = \"k\" }\nca = \"/a\"", "header = { X-Key = \"…\" }\nca = \"/a\"");
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for text in [
            "[plugins.\"x\".registry.configs.\"r.test\".auth]\n  username = \"ada\"\n",
            "server = \"https://r.test:5000/a@b\"\n",
            "{\n  \"credsStore\": \"pass\",\n  \"auths\": {}\n}\n",
            "use_token = true\npassword = \"\"\nauthor = \"ada\"\n",
            "[proxy_plugins.tidehold]\n  type = \"content\"\n  address = \"/run/tidehold/content.sock\"\n",
        ] {
            hides(text, text);
        }
    }
}
