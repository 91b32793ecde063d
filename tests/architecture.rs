//! Who may import whom, held by reading the sources.
//!
//! Reads every file below `src` as words and signs, without comments, strings and test code, and follows the
//! paths that begin with `crate`, `self`, `super` or the crate's own name. It sees `use` declarations and
//! paths in the middle of code alike; it does not expand macros.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What a part may import beside itself and [`SHARED`]. A new part needs a line here.
const RULES: &[(&str, &[&str])] = &[
    ("main", &["cli", "app", "config"]),
    ("cli", &["app", "apply", "config", "node"]),
    (
        "app",
        &["config", "serve", "resolve", "upstream", "access", "store", "apply", "evict", "tier", "record"],
    ),
    ("serve", &["resolve", "store", "apply", "access", "evict", "record"]),
    ("apply", &["store"]),
    ("resolve", &["upstream", "store", "tier", "access", "record"]),
    ("evict", &["store"]),
    ("store", &[]),
    ("upstream", &["record"]),
    ("node", &[]),
    ("record", &[]),
    ("tier", &[]),
    ("access", &[]),
    ("config", &[]),
    ("oci", &[]),
    ("clock", &[]),
    ("proto", &[]),
];

/// Values that any part but `config`, `oci` and each other may import.
const SHARED: &[&str] = &["oci", "clock", "proto"];

/// Parts that stand on nothing of the crate, the shared values included.
const ALONE: &[&str] = &["main", "config", "oci", "clock", "proto"];

/// The only file that names the database.
const INDEX: &str = "src/store/index.rs";

/// The only file that reads the system's clock.
const CLOCK: &str = "src/clock.rs";

/// Most lines of a file, without its tests.
const MOST_LINES: usize = 500;

#[test]
fn every_part_imports_only_what_its_layer_may() {
    report(sources().iter().flat_map(forbidden_imports));
}

#[test]
fn the_database_is_named_by_the_index_alone() {
    let sources = sources();
    let naming = sources.iter().filter(|source| source.name != INDEX).flat_map(|source| {
        let sled = source.all.iter().filter(|token| token.text == "sled");
        sled.map(|token| {
            format!("{}:{}: sled is named; only {INDEX} may know the database", source.name, token.line)
        })
    });
    report(naming);
}

#[test]
fn the_system_clock_is_read_in_one_file() {
    let sources = sources();
    let reading = sources.iter().filter(|source| source.name != CLOCK).flat_map(|source| {
        let calls = source
            .code
            .windows(3)
            .filter(|three| three[0].text == "SystemTime" && three[1].text == "::" && three[2].text == "now");
        calls.map(|three| {
            let line = three[0].line;
            format!(
                "{}:{line}: SystemTime::now is called; only {CLOCK} may, all others are handed the time",
                source.name
            )
        })
    });
    report(reading);
}

#[test]
fn a_test_with_a_main_of_its_own_has_no_harness_that_would_run_none_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let tests = manifest["test"].as_array().unwrap();
    report(tests.iter().filter_map(|test| {
        let name = test["name"].as_str().unwrap();
        let default = format!("tests/{name}.rs");
        let path = test.get("path").map_or(default.as_str(), |path| path.as_str().unwrap());
        let has_main = fs::read_to_string(root.join(path)).unwrap().contains("\nfn main()");
        let has_harness = test.get("harness").is_none_or(|harness| harness.as_bool() != Some(false));
        (has_main == has_harness).then(|| format!("Cargo.toml: the test {name}: harness does not fit {path}"))
    }));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| !source.text.trim_start().starts_with("//!"));
    report(
        silent.map(|source| {
            format!("{}:1: opens without //!: say what it owns and refuses to know", source.name)
        }),
    );
}

#[test]
fn no_file_outgrows_its_reader() {
    let sources = sources();
    let long = sources.iter().filter(|source| source.lines > MOST_LINES);
    report(long.map(|source| {
        format!("{}: {} lines without tests, more than {MOST_LINES}: split it", source.name, source.lines)
    }));
}

/// Fails with one line for each breach.
fn report(breaches: impl Iterator<Item = String>) {
    let mut said = String::new();
    for breach in breaches {
        writeln!(said, "  {breach}").expect("a string takes any text");
    }
    assert!(said.is_empty(), "the layering is broken:\n{said}");
}

/// Every source file below `src`, in the order of their names; files of test code alone are left out.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no sources below {}", root.display());
    let read = |path: &PathBuf| {
        let name =
            path.strip_prefix(root).expect("src is below the root").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Source::read(&name, text)
    };
    let sources: Vec<Source> = paths.iter().map(read).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(|source| source.test_files.clone()).collect();
    let in_tests = |name: &str| {
        tests.iter().any(|stem| {
            name.strip_prefix(stem.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    sources.into_iter().filter(|source| !in_tests(&source.name)).collect()
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.expect("the directory can be listed").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// One file, read.
struct Source {
    /// From the crate's root, with `/`.
    name: String,
    text: String,
    /// All of its words and signs.
    all: Vec<Token>,
    /// Those outside test code.
    code: Vec<Token>,
    /// How many lines it has outside test code.
    lines: usize,
    /// The files of its test modules, without `.rs`.
    test_files: Vec<String>,
}

impl Source {
    fn read(name: &str, text: String) -> Self {
        let all = tokens(&text);
        let (code, cut, test_modules) = without_tests(&all);
        let directory = match name.rsplit_once('/') {
            Some((directory, "mod.rs" | "lib.rs" | "main.rs")) => directory.to_owned(),
            _ => name.trim_end_matches(".rs").to_owned(),
        };
        let test_files = test_modules.iter().map(|module| format!("{directory}/{module}")).collect();
        let lines = text.lines().count().saturating_sub(cut);
        Self { name: name.to_owned(), text, all, code, lines, test_files }
    }

    /// The file's module, from the crate's root: `store`, `index` for `src/store/index.rs`.
    fn module(&self) -> Vec<String> {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
    }
}

/// A word or a sign, `::` being one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// The words and signs of a source; comments and all kinds of literal text are skipped.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let (mut index, mut line, mut tokens) = (0, 1, Vec::new());
    while index < chars.len() {
        let start = index;
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < chars.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => (depth, index) = (depth + 1, index + 2),
                        ('*', '/') => (depth, index) = (depth - 1, index + 2),
                        _ => index += 1,
                    }
                    if depth == 0 || index >= chars.len() {
                        break;
                    }
                }
            }
            '"' => index = after_quotes(&chars, index, '"'),
            // A character, unless it is a lifetime: those close nothing.
            '\'' if at(index + 1) == '\\' || at(index + 2) == '\'' => {
                index = after_quotes(&chars, index, '\'')
            }
            '\'' => index += 1,
            char if is_word(char) => {
                while is_word(at(index)) {
                    index += 1;
                }
                let word: String = chars[start..index].iter().collect();
                let hashes = chars[index..].iter().take_while(|char| **char == '#').count();
                match (word.as_str(), at(index + hashes)) {
                    ("r" | "br" | "cr", '"') => index = after_raw(&chars, index, hashes),
                    // `r#type` is a word.
                    ("r", next) if hashes == 1 && is_word(next) => index += 1,
                    ("b" | "c", '"' | '\'') if hashes == 0 => {}
                    _ => tokens.push(Token { text: word, line }),
                }
            }
            ':' if at(index + 1) == ':' => {
                index += 2;
                tokens.push(Token { text: "::".to_owned(), line });
            }
            char => {
                index += 1;
                if !char.is_whitespace() {
                    tokens.push(Token { text: char.to_string(), line });
                }
            }
        }
        line += chars[start..index.min(chars.len())].iter().filter(|char| **char == '\n').count();
    }
    tokens
}

/// The index behind a text that opens at `index` and knows backslashes.
fn after_quotes(chars: &[char], mut index: usize, quote: char) -> usize {
    index += 1;
    while let Some(char) = chars.get(index) {
        match char {
            '\\' => index += 2,
            char if *char == quote => return index + 1,
            _ => index += 1,
        }
    }
    chars.len()
}

/// The index behind a raw text whose hashes begin at `index`.
fn after_raw(chars: &[char], index: usize, hashes: usize) -> usize {
    let mut end = index + hashes + 1;
    while end < chars.len() {
        let closes = chars[end] == '"'
            && chars[end + 1..].iter().take(hashes).filter(|char| **char == '#').count() == hashes;
        end += 1;
        if closes {
            return end + hashes;
        }
    }
    chars.len()
}

/// The tokens outside `#[cfg(test)]` items, how many lines those items take, and the modules among them that
/// are files of their own.
fn without_tests(all: &[Token]) -> (Vec<Token>, usize, Vec<String>) {
    let text = |index: usize| all.get(index).map_or("", |token| token.text.as_str());
    let (mut code, mut cut, mut modules, mut index) = (Vec::new(), 0, Vec::new(), 0);
    while index < all.len() {
        let inner = text(index + 1) == "!";
        let bracket = index + 1 + usize::from(inner);
        if text(index) != "#" || text(bracket) != "[" || !is_test_only(&all[bracket..]) {
            code.push(all[index].clone());
            index += 1;
            continue;
        }
        if inner {
            return (Vec::new(), all.last().map_or(0, |token| token.line), modules);
        }
        let mut end = index;
        while text(end) == "#" {
            end = after_group(all, end + 1);
        }
        if let Some(module) = (end..end + 6).find(|at| text(*at) == "mod" && text(at + 2) == ";") {
            modules.push(text(module + 1).to_owned());
        }
        end = after_item(all, end);
        cut += all[end - 1].line - all[index].line + 1;
        index = end;
    }
    (code, cut, modules)
}

/// Whether an attribute, from its `[` on, is `cfg(test)` or `cfg(all(…, test, …))`.
fn is_test_only(attribute: &[Token]) -> bool {
    let words: Vec<&str> =
        attribute.iter().take(after_group(attribute, 0)).map(|token| token.text.as_str()).collect();
    match words.as_slice() {
        ["[", "cfg", "(", "test", ")", "]"] => true,
        ["[", "cfg", "(", "all", "(", rest @ ..] => {
            rest.contains(&"test") && !rest.contains(&"not") && !rest.contains(&"any")
        }
        _ => false,
    }
}

/// The index behind the group that opens at `index`.
fn after_group(all: &[Token], index: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in all.iter().enumerate().skip(index) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    all.len()
}

/// The index behind the item, field or statement that begins at `index`.
fn after_item(all: &[Token], mut index: usize) -> usize {
    let begins_use = all[index..].iter().take(6).any(|token| token.text == "use");
    let mut angles = 0_i32;
    while let Some(token) = all.get(index) {
        match token.text.as_str() {
            ";" => return index + 1,
            "," if angles <= 0 => return index + 1,
            "}" => return index,
            "<" => angles += 1,
            ">" if !matches!(all[index - 1].text.as_str(), "-" | "=") => angles -= 1,
            "{" if !begins_use => return after_group(all, index),
            "(" | "[" | "{" => {
                index = after_group(all, index);
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    all.len()
}

/// A breach for each import that the part of a file may not make.
fn forbidden_imports(source: &Source) -> Vec<String> {
    let module = source.module();
    // The library's root only names its modules.
    let Some(part) = module.first() else { return Vec::new() };
    let rule = RULES.iter().find(|(name, _)| name == part);
    let Some((_, may)) = rule else {
        return vec![format!("{}:1: {part} has no line in RULES of tests/architecture.rs", source.name)];
    };
    let shared: &[&str] = if ALONE.contains(&part.as_str()) { &[] } else { SHARED };
    let allowed: Vec<&str> = may.iter().chain(shared).copied().collect();
    let list = if allowed.is_empty() { "nothing of the crate".to_owned() } else { allowed.join(", ") };
    let mut breaches = Vec::new();
    for (path, line) in paths(&source.code, &module) {
        let named = path.first().map_or("", String::as_str);
        let problem = match named {
            "" | "*" => "names the whole crate, so nobody sees what is imported".to_owned(),
            own if own == part => continue,
            other if allowed.contains(&other) => continue,
            other if RULES.iter().any(|(name, _)| *name == other) => format!("{part} may import {list}"),
            other => format!("{other} is no part with a line in RULES of tests/architecture.rs"),
        };
        breaches.push(format!("{}:{line}: crate::{}: {problem}", source.name, path.join("::")));
    }
    breaches
}

/// Every path into the crate, from its root, with its line. `module` is where the tokens stand.
fn paths(code: &[Token], module: &[String]) -> Vec<(Vec<String>, usize)> {
    let text = |index: usize| code.get(index).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    // The modules that were opened in the file, and how deep the braces were.
    let (mut inner, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let mut index = 0;
    while index < code.len() {
        match text(index) {
            "mod" if text(index + 2) == "{" => inner.push((text(index + 1).to_owned(), depth)),
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inner.pop_if(|(_, opened)| *opened == depth);
            }
            start @ ("crate" | "self" | "super" | "tidehold") => {
                // In the library, and behind other words, the crate's name is a name like any other.
                let own_name = start != "tidehold" || module == ["main"] && is_path_start(code, index);
                if own_name && text(index + 1) == "as" && matches!(start, "crate" | "tidehold") {
                    found.push((Vec::new(), code[index].line));
                } else if own_name && text(index + 1) == "::" {
                    let inner = inner.iter().map(|(name, _)| name);
                    let here = match start {
                        "crate" | "tidehold" => Vec::new(),
                        _ => module.iter().chain(inner).cloned().collect(),
                    };
                    let first = if start == "super" { index } else { index + 2 };
                    index = follow(code, first, here, &mut found);
                    continue;
                }
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// Whether no part of a path comes before this one: `::` may, at the very beginning.
fn is_path_start(code: &[Token], index: usize) -> bool {
    let before = |back: usize| {
        index.checked_sub(back).and_then(|at| code.get(at)).map_or("", |token| token.text.as_str())
    };
    before(1) != "::"
        || before(2) == "use"
        || !before(2).ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == '>')
}

/// Follows one path, with its groups, from `index` on; `base` is what it is relative to. Answers the index
/// behind it.
fn follow(
    code: &[Token],
    mut index: usize,
    mut base: Vec<String>,
    found: &mut Vec<(Vec<String>, usize)>,
) -> usize {
    let text = |index: usize| code.get(index).map_or("", |token| token.text.as_str());
    let line = code.get(index).map_or(0, |token| token.line);
    loop {
        match text(index) {
            "self" => {}
            "super" => drop(base.pop()),
            "{" => {
                index += 1;
                while !matches!(text(index), "}" | "") {
                    index = match text(index) {
                        "," | "::" => index + 1,
                        _ => follow(code, index, base.clone(), found),
                    };
                }
                return index + 1;
            }
            other => base.push(other.to_owned()),
        }
        index += 1;
        let goes_on = |next: &str| {
            next == "{" || next == "*" || next.starts_with(|char: char| char.is_alphanumeric() || char == '_')
        };
        if text(index) != "::" || !goes_on(text(index + 1)) {
            break;
        }
        index += 1;
    }
    found.push((base, line));
    if text(index) == "as" { index + 2 } else { index }
}

/// The reader's own tests: what it must see, and what it must not.
mod reader {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source::read(name, text.to_owned())
    }

    /// The forbidden imports of a file, as `line path`.
    fn breaches(name: &str, text: &str) -> Vec<String> {
        let cut = |breach: String| {
            let mut parts = breach.splitn(3, ':').skip(1);
            let line = parts.next().unwrap_or_default().to_owned();
            let path =
                parts.next().unwrap_or_default().split(": ").next().unwrap_or_default().trim().to_owned();
            format!("{line} {path}")
        };
        forbidden_imports(&source(name, text)).into_iter().map(cut).collect()
    }

    #[test]
    fn it_sees_every_way_to_name_another_part() {
        for (text, seen) in [
            ("use crate::upstream::Gate;", &["1 crate::upstream::Gate"][..]),
            ("\n\nfn f() { crate::upstream::go::<u8>(); }", &["3 crate::upstream::go"]),
            (
                "use crate::{oci::Digest, upstream, tier::{a, b as c}};",
                &["1 crate::upstream", "1 crate::tier::a", "1 crate::tier::b"],
            ),
            ("use crate::{\n    oci,\n    upstream::X,\n};", &["3 crate::upstream::X"]),
            ("use super::super::upstream::X;", &["1 crate::upstream::X"]),
            ("use super::{files, index};", &[]),
            ("mod deep { use super::super::super::upstream; }", &["1 crate::upstream"]),
            ("mod deep {} use super::super::upstream;", &["1 crate::upstream"]),
            ("use {crate::upstream as x, super::files};", &["1 crate::upstream"]),
            ("type X = Vec<<crate::upstream::X as Y>::Z>;", &["1 crate::upstream::X"]),
            ("macro_rules! m { () => { $crate::upstream::X } }", &["1 crate::upstream::X"]),
            ("use crate::*;", &["1 crate::*"]),
            ("use crate as all;", &["1 crate::"]),
            ("use crate::{self as all};", &["1 crate::"]),
            ("fn f<'a>(x: &'a str) { crate::upstream::f('\"') }", &["1 crate::upstream::f"]),
            ("use crate::oci::tidehold::v1;", &[]),
            ("use crate::Everything;", &["1 crate::Everything"]),
        ] {
            assert_eq!(breaches("src/store/index.rs", text), seen, "{text}");
        }
    }

    #[test]
    fn it_does_not_see_comments_texts_and_tests() {
        for text in [
            "// crate::upstream",
            "/* a /* crate::upstream */ crate::upstream */",
            "/// [`crate::upstream`]\nfn f() {}",
            "const X: &str = \"crate::upstream \\\" crate::upstream\";",
            "const X: &str = r#\"\" crate::upstream \"#;",
            "const X: &[u8] = b\"crate::upstream\";",
            "#[cfg(test)]\nmod tests { use crate::upstream; fn f() { crate::upstream::x() } }",
            "#[cfg(test)]\n#[expect(x, reason = \"y\")]\npub(crate) mod tests;",
            "#[cfg(test)]\nuse crate::{upstream::a, tier};",
            "#[cfg(all(test, unix))]\nfn f<A, B>(a: A) -> Vec<B> where B: C { crate::upstream::f() }",
            "struct S { #[cfg(test)] probe: Option<(crate::upstream::A, u8)>, own: u8 }",
            "#![cfg(test)]\nuse crate::upstream;",
            "pub(crate) fn f(self) { self.upstream() }",
            "use std::fmt::{self, Display};",
            "use std::fmt::{self as f}; fn g(&self) { self as &dyn X; }",
            "use super::super::oci::tidehold::v1; fn f() { tidehold::v1() }",
        ] {
            assert_eq!(breaches("src/store/index.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn it_goes_on_behind_a_test() {
        let use_behind = "use crate::upstream;";
        for before in [
            "#[cfg(test)] mod tests { fn f() {} }",
            "#[cfg(test)] mod tests;",
            "#[cfg(test)] use a::{b, c};",
            "#[cfg(test)] const X: [u8; 2] = [1, 2];",
            "#[cfg(not(test))] fn f() {}",
            "struct S { #[cfg(test)] x: u8 }",
            "const C: char = '\\'';",
            "const C: char = '\"';",
            "fn f<'a>() {}",
            "fn r#type() {}",
        ] {
            assert_eq!(
                breaches("src/store/index.rs", &format!("{before}\n{use_behind}")),
                ["2 crate::upstream"],
                "{before}"
            );
        }
        let either = "#[cfg(any(test, feature = \"x\"))] use crate::upstream;";
        assert_eq!(
            breaches("src/store/index.rs", either),
            ["1 crate::upstream"],
            "it is not for tests alone"
        );
    }

    #[test]
    fn parts_know_their_place() {
        assert_eq!(breaches("src/oci/digest.rs", "use crate::clock::Now;"), ["1 crate::clock::Now"]);
        assert_eq!(breaches("src/store/mod.rs", "use crate::{clock::Now, oci};"), [""; 0]);
        assert_eq!(breaches("src/store/mod.rs", "use crate::config::Cache;"), ["1 crate::config::Cache"]);
        assert_eq!(
            breaches("src/app.rs", "use crate::{config, serve, evict}; use super::cli;"),
            ["1 crate::cli"]
        );
        assert_eq!(breaches("src/main.rs", "use tidehold::{cli, store};"), ["1 crate::store"]);
        assert_eq!(breaches("src/main.rs", "use ::tidehold::store; use a::tidehold::b;"), ["1 crate::store"]);
        assert_eq!(breaches("src/lib.rs", "pub mod store;"), [""; 0]);
        let unruled = forbidden_imports(&source("src/novel.rs", ""));
        assert_eq!(unruled, ["src/novel.rs:1: novel has no line in RULES of tests/architecture.rs"]);
    }

    #[test]
    fn the_rule_is_told_with_the_breach() {
        assert_eq!(
            forbidden_imports(&source("src/evict/x.rs", "//! x\nuse crate::upstream::Gate;")),
            ["src/evict/x.rs:2: crate::upstream::Gate: evict may import store, oci, clock, proto"]
        );
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        let text = "//! x\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(source("src/x.rs", text).lines, 3);
        assert_eq!(source("src/a/mod.rs", "#[cfg(test)]\nmod tests;").test_files, ["src/a/tests"]);
        assert_eq!(source("src/a/b.rs", "#[cfg(test)]\nmod tests;").test_files, ["src/a/b/tests"]);
    }
}
