//! What proves a login is left out of what is shown: a diff ends up in terminals, tickets and the logs of pods.
//!
//! TOML and JSON are read, and the values below certain keys are hidden, however they are written. What is neither, or is
//! broken, goes by its lines, and so do comments; that hides rather too much. All headers of a host are hidden, since any of
//! them may be one that lets somebody in.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::de::IgnoredAny;
use toml_edit::{Document, Item, TableLike, Value};

/// What stands in the place of a secret.
const HIDDEN: &str = "…";

/// What a key is called that tells of a secret; it stands for that in the patterns below.
const SECRET: &str =
    r"[\w-]*(?:password|passwd|passphrase|secret|token|cookie|authorization|api[_-]?key)[\w-]*";

/// A key that tells of a secret, as TOML, JSON and YAML write it, and its value: strings, several of them, or the rest of the
/// line. The value of a table is gone into.
const KEYED: &str = r#"(?x)
    (?P<key>
        (?:^|[\s{,."'\#])
        (?i:
            SECRET
            | (?:[\w-]*[_-])? auth
            | headers? ["']? [\x20\t]* (?: \. [\x20\t]* (?: [\w-]+ | "[^"\n]*" | '[^'\n]*' ) [\x20\t]* )+
        )
        ["']? [\x20\t]* [=:] [\x20\t]*
    )
    (?P<value>
        """ (?s:.)*? """ | ''' (?s:.)*? '''
        | \[ (?: [^\]"'] | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )* \]
        | "(?:[^"\\\n]|\\.)*" | '[^'\n]*'
        | [^\s{\[][^\n]*
    )"#;

/// A key below which everything is hidden: the same, and the headers that are sent.
const WHOLE: &str = r#"(?xi) ^ (?:
    SECRET
    | (?:http[_-]?)? headers?
) $"#;

/// A key of a login: its value is hidden, and of a table what is secret in there.
const LOGIN: &str = r"^(?i:(?:[\w-]*[_-])?auth)$";

/// A login within a URL.
const IN_URL: &str = r#"(?P<before>:(?://|\\/\\/))[^/\s"'\\]*@"#;

/// The table of the headers that a host is sent, where the whole is no TOML.
const TABLE: &str = r#"(?xm)
    (?P<head> ^ [\x20\t]* \[ (?:[^\n]*\.)? [\x20\t]* ['"]? (?i:(?:http)?headers?) ['"]? [\x20\t]* \] [^\n]* \n )
    (?P<body>
        (?: [\x20\t]* (?: [^\[\s] (?: """ (?s:.)*? """ | ''' (?s:.)*? ''' | [^\n] )* )? (?:\n|\z) )*
    )"#;

/// The same in a comment.
const TABLE_IN_COMMENT: &str = r#"(?xm)
    (?P<head>
        ^ [\x20\t]* \# [\x20\t\#]* \[ (?:[^\n]*\.)? [\x20\t]* ['"]? (?i:(?:http)?headers?) ['"]? [\x20\t]* \] [^\n]* \n
    )
    (?P<body> (?: [\x20\t]* \# [\x20\t\#]* (?: [^\[\s\#] [^\n]* )? (?:\n|\z) )* )"#;

/// What is in it: keys with their values, and lines that are neither.
const WITHIN: &str = r#"(?xm)
    ^ (?P<key> [\x20\t\#]* ["']? [\w.-]+ ["']? [\x20\t]* = [\x20\t]* )
    (?P<value>
        """ (?s:.)*? """ | ''' (?s:.)*? '''
        | \[ (?: [^\]"'] | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )* \]
        | [^\s\[][^\n]*
    )
    | ^ (?P<before> [\x20\t\#]* ) (?P<line> [^\s\#][^\n]* )"#;

/// An inline table of what is secret, as far as it goes.
const INLINE: &str = r#"(?x)
    (?P<key> \b (?i: SECRET | (?:http)?headers? ) ["']? [\x20\t]* [=:] \s* )
    (?P<value>
        \{ (?: """ (?s:.)*? """ | ''' (?s:.)*? ''' | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' | [^}] )* \}?
    )"#;

const COMMENT: &str = "#[^\n]*";

/// The parts of JSON.
const JSON: &str = r#"(?s)"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+"#;

struct Patterns {
    keyed: Regex,
    secret: Regex,
    login: Regex,
    in_url: Regex,
    table: Regex,
    table_in_comment: Regex,
    within: Regex,
    inline: Regex,
    comment: Regex,
    json: Regex,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| {
    let of = |pattern: &str| Regex::new(&pattern.replace("SECRET", SECRET)).ok();
    Some(Patterns {
        keyed: of(KEYED)?,
        secret: of(WHOLE)?,
        login: of(LOGIN)?,
        in_url: of(IN_URL)?,
        table: of(TABLE)?,
        table_in_comment: of(TABLE_IN_COMMENT)?,
        within: of(WITHIN)?,
        inline: of(INLINE)?,
        comment: of(COMMENT)?,
        json: of(JSON)?,
    })
});

/// A text without what proves a login.
pub(super) fn hidden(text: &str) -> Cow<'_, str> {
    // These are constant, and a test tries them.
    let Some(patterns) = PATTERNS.as_ref() else { return HIDDEN.into() };
    let text = patterns.read(text).unwrap_or_else(|| {
        let text = patterns.table.replace_all(text, |table: &Captures<'_>| patterns.emptied(table));
        patterns.by_lines(&text)
    });
    let text = patterns.table_in_comment.replace_all(&text, |table: &Captures<'_>| patterns.emptied(table));
    patterns.in_url.replace_all(&text, format!("${{before}}{HIDDEN}@")).into_owned().into()
}

/// What of a key's value is hidden.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hides {
    Nothing,
    /// What it is, or its members are; not what a table has.
    Value,
    /// Whatever is below it.
    All,
}

impl Hides {
    fn values(self) -> bool {
        self != Self::Nothing
    }

    /// What of a key within its table is.
    fn within(self, key: Self) -> Self {
        if self == Self::All { self } else { key }
    }
}

/// Where one is in JSON.
enum Level {
    /// What of it is hidden by what it is within, and by the key that stands before the next value.
    Object {
        above: Hides,
        key: Option<Hides>,
    },
    Array(Hides),
}

impl Level {
    /// What of the next value is hidden.
    fn hides(&self) -> Hides {
        match self {
            Self::Object { above, key } => key.unwrap_or(*above),
            Self::Array(hides) => *hides,
        }
    }
}

impl Patterns {
    /// A text that is TOML or JSON; none where it is neither.
    fn read(&self, text: &str) -> Option<String> {
        if let Some(secrets) = self.in_toml(text) {
            let text = without(text, secrets)?;
            let comments =
                |comment: &Captures<'_>| self.by_lines(comment.get(0).map_or("", |all| all.as_str()));
            return Some(self.comment.replace_all(&text, comments).into_owned());
        }
        without(text, self.in_json(text)?)
    }

    /// A text of any kind.
    fn by_lines(&self, text: &str) -> String {
        let text = self.inline.replace_all(text, value_hidden);
        self.keyed.replace_all(&text, value_hidden).into_owned()
    }

    /// Whether a value is hidden, as it is written. `TOKEN=…` tells of itself.
    fn hides(&self, value: &str, by_key: Hides) -> bool {
        by_key.values() || value.starts_with(['"', '\'']) && self.keyed.is_match(value)
    }

    fn key(&self, key: &str) -> Hides {
        match (self.secret.is_match(key), self.login.is_match(key)) {
            (true, _) => Hides::All,
            (false, true) => Hides::Value,
            (false, false) => Hides::Nothing,
        }
    }

    /// Where the secrets of a TOML file are; none where it is no TOML.
    fn in_toml(&self, text: &str) -> Option<Vec<Range<usize>>> {
        let document = Document::parse(text).ok()?;
        let mut secrets = Vec::new();
        self.in_table(document.as_table(), Hides::Nothing, &mut |value, by_key| {
            let span = value.span();
            secrets
                .extend(span.filter(|span| self.hides(text.get(span.clone()).unwrap_or_default(), by_key)));
        });
        Some(secrets)
    }

    fn in_table(&self, table: &dyn TableLike, above: Hides, found: &mut dyn FnMut(&Value, Hides)) {
        for (key, item) in table.iter() {
            let hides = above.within(self.key(key));
            match item {
                Item::None => {}
                Item::Value(value) => self.in_value(value, hides, found),
                Item::Table(table) => self.in_table(table, hides, found),
                Item::ArrayOfTables(tables) => {
                    tables.iter().for_each(|table| self.in_table(table, hides, found));
                }
            }
        }
    }

    fn in_value(&self, value: &Value, hides: Hides, found: &mut dyn FnMut(&Value, Hides)) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.in_value(value, hides, found)),
            Value::InlineTable(table) => self.in_table(table, hides, found),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {
                found(value, hides);
            }
        }
    }

    /// Where the secrets of a JSON file are; none where it is no JSON.
    fn in_json(&self, text: &str) -> Option<Vec<Range<usize>>> {
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        let mut secrets = Vec::new();
        let mut open: Vec<Level> = Vec::new();
        for token in self.json.find_iter(text) {
            let hides = open.last().map_or(Hides::Nothing, Level::hides);
            match (token.as_str(), open.last_mut()) {
                ("{", _) => open.push(Level::Object { above: hides, key: None }),
                ("[", _) => open.push(Level::Array(hides)),
                ("}" | "]", _) => drop(open.pop()),
                (",", Some(Level::Object { key, .. })) => *key = None,
                ("," | ":", _) => {}
                (name, Some(Level::Object { above, key: key @ None })) => {
                    let name = serde_json::from_str::<String>(name).unwrap_or_default();
                    *key = Some(above.within(self.key(&name)));
                }
                (value, Some(_) | None) => {
                    secrets.extend(self.hides(value, hides).then(|| token.range()));
                }
            }
        }
        Some(secrets)
    }

    /// A table of headers without their values.
    fn emptied(&self, table: &Captures<'_>) -> String {
        let body =
            self.within.replace_all(named(table, "body"), |found: &Captures<'_>| match found.name("line") {
                Some(_) => format!("{}{HIDDEN}", named(found, "before")),
                None => value_hidden(found),
            });
        format!("{}{body}", named(table, "head"))
    }
}

/// A text with something else in those places; none where they are not in it.
fn without(text: &str, mut secrets: Vec<Range<usize>>) -> Option<String> {
    secrets.sort_unstable_by_key(|secret| secret.start);
    let (mut shown, mut end) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        shown += text.get(end..secret.start)?;
        shown += &instead(text.get(secret.clone())?);
        end = secret.end;
    }
    Some(shown + text.get(end..)?)
}

fn value_hidden(found: &Captures<'_>) -> String {
    format!("{}{}", named(found, "key"), instead(named(found, "value")))
}

/// What is shown of a value that may be a secret.
fn instead(value: &str) -> String {
    match value.trim_end_matches([',', '\r', ' ']) {
        "true" | "false" | "null" | "\"\"" | "''" | "[]" => value.to_owned(),
        // Whatever follows stays on the line where it is.
        _ => format!("\"{HIDDEN}\"{}", "\n".repeat(value.matches('\n').count())),
    }
}

fn named<'a>(found: &'a Captures<'_>, name: &str) -> &'a str {
    found.name(name).map_or("", |part| part.as_str())
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
        hides("Authorization = [\n  \"Basic x\",\n]\n", "Authorization = [\n  \"…\",\n]\n");
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
    fn headers_are_hidden_however_they_are_written() {
        let host = "[host.\"https://r.test\"]\n";
        for (written, shown) in [
            ("header.X-Key = \"s3cret\"\n", "header.X-Key = \"…\"\n"),
            ("header . 'X Key' = [ \"s3cret\", 's3cret' ]\n", "header . 'X Key' = [ \"…\", \"…\" ]\n"),
            ("\"header\".X = \"s3cret\" # mine\n", "\"header\".X = \"…\" # mine\n"),
            ("\"\\u0068eader\".X = \"s3cret\"\n", "\"\\u0068eader\".X = \"…\"\n"),
            ("header = { A = \"s3cret\", B = ['s3cret'] }\n", "header = { A = \"…\", B = [\"…\"] }\n"),
            ("header = {\n  A = \"s3cret\",\n}\nca = \"/a\"\n", "header = {\n  A = \"…\",\n}\nca = \"/a\"\n"),
            (
                "header.A = \"\"\"\n[s3cret]\ns3cret\"\"\"\nca = \"/a\"\n",
                "header.A = \"…\"\n\n\nca = \"/a\"\n",
            ),
            ("header.A = '''\n# s3cret\n'''\nca = \"/a\"\n", "header.A = \"…\"\n\n\nca = \"/a\"\n"),
            ("header.A = 53\nheader.B = \"\"\n", "header.A = \"…\"\nheader.B = \"\"\n"),
            ("# header.A = \"s3cret\"\n", "# header.A = \"…\"\n"),
            ("n = 1 # password=s3cret\n", "n = 1 # password=\"…\"\n"),
            ("env = [\"A=b\", \"A_TOKEN=s3cret\"]\n", "env = [\"A=b\", \"…\"]\n"),
            ("# header = { A = \"s3cret\" }\n", "# header = \"…\"\n"),
            ("\"pass\\u0077ord\" = \"s3cret\"\n", "\"pass\\u0077ord\" = \"…\"\n"),
            (
                "tokens = { a = \"s3cret\", b = { c = [5] } }\n",
                "tokens = { a = \"…\", b = { c = [\"…\"] } }\n",
            ),
        ] {
            hides(&format!("{host}{written}"), &format!("{host}{shown}"));
            // Its lines tell nothing of what an escape stands for.
            let broken = hidden(&format!("{host}{written}broken = = 1\n")).into_owned();
            assert!(written.contains("\\u") || !broken.contains("s3cret"), "{broken}");
        }
        for (written, shown) in [
            (
                "[host.\"r\".header]\nA = \"\"\"\n[s3cret]\n\"\"\"\nB = '''s3cret'''\n[x]\nn = \"1\"\n",
                "[host.\"r\".header]\nA = \"…\"\n\n\nB = \"…\"\n[x]\nn = \"1\"\n",
            ),
            (
                "#[host.\"r\".header]\n#  A = [\"s3cret\"]\n#  s3cret\n# [x]\n# n = \"1\"\nm = \"1\"\n",
                "#[host.\"r\".header]\n#  A = \"…\"\n#  …\n# [x]\n# n = \"1\"\nm = \"1\"\n",
            ),
            ("[[x.header]]\nA = \"s3cret\"\n", "[[x.header]]\nA = \"…\"\n"),
        ] {
            hides(written, shown);
            assert!(!hidden(&format!("= 1\n{written}")).contains("s3cret"), "broken: {written}");
        }
    }

    #[test]
    fn secrets_in_json_are_hidden() {
        for (written, shown) in [
            (
                "{\"HttpHeaders\": {\"X\": \"s3cret\", \"Y\": [\"s3cret\", {\"z\": 1}]}, \"n\": [1]}",
                "{\"HttpHeaders\": {\"X\": \"…\", \"Y\": [\"…\", {\"z\": \"…\"}]}, \"n\": [1]}",
            ),
            (
                "{\"auths\": {\"r\": {\"auth\": \"s3cret\",\n \"email\": \"a\", \"identitytoken\":\n  \"s3cret\"}}}",
                "{\"auths\": {\"r\": {\"auth\": \"…\",\n \"email\": \"a\", \"identitytoken\":\n  \"…\"}}}",
            ),
            (
                "{\"p\\u0061ssword\" : \"s3\\\"c,ret\", \"token\": null, \"b\": \"}\", \"auth\": {\"user\": \"u\"}}",
                "{\"p\\u0061ssword\" : \"…\", \"token\": null, \"b\": \"}\", \"auth\": {\"user\": \"u\"}}",
            ),
            ("[{\"secrets\": [[\"s3cret\"]], \"x\": \"y\"}]", "[{\"secrets\": [[\"…\"]], \"x\": \"y\"}]"),
            ("{\"log-opts\": {\"splunk-token\": \"s3cret\"}}", "{\"log-opts\": {\"splunk-token\": \"…\"}}"),
        ] {
            hides(written, shown);
        }
        assert!(!hidden("{\"HttpHeaders\": {\n\"X\": \"s3cret\"},, \"auth\": \"s3cret\"").contains("s3cret"));
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
