//! What someone who writes a configuration file sees: the values it gives, and the faults it is told.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tidehold::config::{Access, Config, Fault, Fetch, LoadError, Reserve};

fn faults(text: &str) -> Vec<Fault> {
    Config::parse(text, "t.toml").expect_err("the text is faulty").iter().cloned().collect()
}

/// `line key` of every fault.
fn places(text: &str) -> Vec<String> {
    faults(text).iter().map(|fault| format!("{} {}", fault.line, fault.key)).collect()
}

/// The problem and the advice of the only fault.
fn only(text: &str) -> (String, String) {
    let mut faults = faults(text);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    let fault = faults.remove(0);
    (fault.problem, fault.instead)
}

fn sound(text: &str) -> Config {
    Config::parse(text, "t.toml").unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn an_empty_file_gives_the_defaults_and_no_warning() {
    let config = sound("");
    assert_eq!(config, Config::default());
    assert_eq!(config.warnings(), [""; 0]);
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/tidehold"));
    let [containerd] = &config.containerds[..] else { panic!("one containerd") };
    assert_eq!(containerd.name, "system");
    assert_eq!(containerd.socket, PathBuf::from("/run/tidehold/content.sock"));
    assert!(containerd.handover);
    assert_eq!(config.mirror.listen.to_string(), "127.0.0.1:789");
    assert_eq!(config.control.socket, PathBuf::from("/run/tidehold/control.sock"));
    assert_eq!(config.web.listen.to_string(), "127.0.0.1:7890");
    assert_eq!(config.cache.max_size_bytes, 100 << 30);
    assert_eq!(config.cache.reserve_free.bytes_of(1000), 50);
    assert_eq!(config.tags.default.fresh_for, Duration::from_secs(1));
    assert_eq!(config.tags.default.stale_for, Duration::from_secs(30 * 86_400));
    assert_eq!(config.access.fresh_for, Duration::from_secs(5 * 60));
    assert_eq!(config.access.stale_for, Duration::from_secs(3600));
    assert!(config.registries.allow_any);
}

#[test]
fn every_key_is_read() {
    let config = sound(
        r#"
data_dir = "/srv/hold"

[[containerd]]
name = "k3s"
socket = "/run/k3s.sock"
handover = false

[[containerd]]
name = "ci"
socket = "/run/ci.sock"

[mirror]
listen = "[::1]:79"

[control]
socket = "/run/control.sock"

[web]
listen = "0.0.0.0:80"

[cache]
max_size = "1TB"
reserve_free = "20GiB"

[fetch]
ahead = false
parallel = 8
connections = 1
bandwidth = "50MiB/s"

[tags]
fresh_for = "10s"
stale_for = "7d"

[[tags.rules]]
match = '^v\d'
fresh_for = "1d"

[[tags.rules]]
match = "nightly"
stale_for = "1h"

[access]
fresh_for = "1m"
stale_for = "2h"

[registries]
allow_any = false

[registries."docker.io"]
credentials = "/etc/hub.json"
share_private = true

[registries."localhost:5000"]
upstream = "http://127.0.0.1:5000"

[registries."ghcr.io"]
upstream = ["http://10.0.0.1/ghcr/", "https://ghcr.io"]
"#,
    );
    assert_eq!(config.data_dir, PathBuf::from("/srv/hold"));
    let containerds: Vec<_> =
        config.containerds.iter().map(|one| (one.name.as_str(), one.handover)).collect();
    assert_eq!(containerds, [("k3s", false), ("ci", true)]);
    assert_eq!(config.containerds[1].socket, PathBuf::from("/run/ci.sock"));
    assert_eq!(config.mirror.listen.to_string(), "[::1]:79");
    assert_eq!(config.control.socket, PathBuf::from("/run/control.sock"));
    assert_eq!(config.web.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.cache.max_size_bytes, 1_000_000_000_000);
    assert_eq!(config.cache.reserve_free, Reserve::Bytes(20 << 30));
    assert_eq!(config.fetch, Fetch { ahead: false, parallel: 8, connections: 1, bandwidth: Some(50 << 20) });
    assert_eq!(
        config.access,
        Access { fresh_for: Duration::from_secs(60), stale_for: Duration::from_secs(7200) }
    );
    let upstreams = |name: &str| -> Vec<String> {
        config.registries.listed[name].upstreams.iter().map(ToString::to_string).collect()
    };
    let hub = &config.registries.listed["docker.io"];
    assert_eq!(upstreams("docker.io"), ["https://registry-1.docker.io/"]);
    assert_eq!(hub.credentials, Some(PathBuf::from("/etc/hub.json")));
    assert!(hub.share_private);
    assert_eq!(upstreams("localhost:5000"), ["http://127.0.0.1:5000/"]);
    assert_eq!(upstreams("ghcr.io"), ["http://10.0.0.1/ghcr", "https://ghcr.io/"]);
}

#[test]
fn what_is_fetched_is_bounded_by_numbers_that_make_sense() {
    for (text, problem, instead) in [
        ("parallel = 0", "0 is not from 1 to 64", "write a number from 1 to 64, without quotes"),
        ("connections = 17", "17 is not from 1 to 16", "write a number from 1 to 16, without quotes"),
        ("parallel = '3'", "expected a number, found text", "write a number from 1 to 64, without quotes"),
        ("bandwidth = '10MB'", "\"10MB\" is no rate", "write \"10MB/s\""),
        ("ahead = 1", "expected true or false, found a whole number", "write true or false"),
    ] {
        assert_eq!(only(&format!("[fetch]\n{text}\n")), (problem.to_owned(), instead.to_owned()), "{text}");
    }
    assert_eq!(sound("").fetch, Fetch { ahead: true, parallel: 3, connections: 4, bandwidth: None });
}

#[test]
fn a_rule_takes_from_the_default_what_it_leaves_out() {
    let config = sound(
        "[tags]\nfresh_for = '10s'\nstale_for = '7d'\n[[tags.rules]]\nmatch = '^v'\nfresh_for = '1d'\n\
         [[tags.rules]]\nmatch = '1'\nstale_for = '1h'\n",
    );
    let rules = config.tags.rules.iter().map(|rule| {
        let ages = rule.ages;
        (rule.pattern.as_str(), ages.fresh_for.as_secs(), ages.stale_for.as_secs())
    });
    assert_eq!(rules.collect::<Vec<_>>(), [("^v", 86_400, 7 * 86_400), ("1", 10, 3600)]);
}

#[test]
fn a_file_with_ten_faults_gives_ten_messages_each_with_its_line() {
    let text = r#"data_dir = "var/lib/tidehold"

[[containerd]]
name = "System"
sockt = "/run/tidehold/content.sock"

[mirror]
listen = "localhost:789"

[cache]
max_size = "100"
reserve_free = "200%"

[tags]
fresh_for = "30"
stale_for = 30

[registries."docker.io"]
upstream = "https://me:secret@registry-1.docker.io"
share_private = "true"
"#;
    let report = Config::parse(text, "/etc/tidehold/config.toml").unwrap_err().to_string();
    let expected = r#"/etc/tidehold/config.toml:1:12: data_dir: "var/lib/tidehold" is no absolute path
    write the whole path, from "/" on

/etc/tidehold/config.toml:4:8: containerd[0].name: "System" can't name a containerd
    write 1 to 64 of the characters a-z, 0-9 and -

/etc/tidehold/config.toml:5:1: containerd[0].sockt: unknown key
    write socket

/etc/tidehold/config.toml:8:10: mirror.listen: "localhost:789" is no address: names are not looked up
    write "127.0.0.1:789"

/etc/tidehold/config.toml:11:12: cache.max_size: the size "100" has no unit
    write "100GiB" or another of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB

/etc/tidehold/config.toml:12:16: cache.reserve_free: "200%" is more than the whole disk
    write a share from "0%" to "100%"

/etc/tidehold/config.toml:15:13: tags.fresh_for: "30" has no unit of time
    write "30s"

/etc/tidehold/config.toml:16:13: tags.stale_for: expected text in quotes, found a whole number
    write "30s"

/etc/tidehold/config.toml:19:12: registries."docker.io".upstream: the address holds credentials
    write it without them, and name a file with the key credentials

/etc/tidehold/config.toml:20:17: registries."docker.io".share_private: expected true or false, found text
    write true without quotes

10 faults in /etc/tidehold/config.toml"#;
    assert_eq!(report, expected);
}

#[test]
fn text_that_is_no_toml_is_reported_line_by_line_and_the_rest_is_still_read() {
    let text = "data_dir = /var/lib/x\n[cache\n[mirror]\nlisten = 127.0.0.1:789\n[web]\nlisten = 80\n[web]\n";
    assert_eq!(places(text), ["1 ", "2 ", "4 ", "6 web.listen", "7 "]);
    let faults = faults(text);
    assert_eq!(faults[0].instead, "put quotes around it");
    assert_eq!(faults[1].problem, "unclosed table, expected `]`");
    assert_eq!(faults[2].instead, "put text in quotes: times, sizes and addresses too");
    assert_eq!(faults[4].problem, "this key or table was given before");
}

#[test]
fn an_unknown_key_names_its_table_or_the_nearest_key() {
    let instead = |text| only(text).1;
    assert_eq!(instead("dat_dir = '/x'"), "write data_dir");
    assert_eq!(instead("[cache]\nmax-size = '1GiB'"), "write max_size");
    assert_eq!(instead("max_size = '1GiB'"), "move it: max_size belongs in [cache]");
    assert_eq!(instead("[cache]\ncolour = 1"), "write one of max_size, reserve_free");
    assert_eq!(instead("[cashe]\nmax_size = '1GiB'"), "write cache");
    assert_eq!(
        instead("[registries]\nupstream = 'https://a.test'"),
        "move it: upstream belongs in [registries.\"NAME\"]"
    );
}

#[test]
fn a_table_of_the_wrong_kind_is_told_its_header() {
    assert_eq!(
        only("[containerd]\nname = 'x'"),
        ("expected an array of tables, found a table".to_owned(), "write it under [[containerd]]".to_owned())
    );
    assert_eq!(only("cache = '1GiB'").1, "write its keys under [cache]");
    assert_eq!(only("containerd = ['x']").1, "write its keys under [[containerd]]");
    assert_eq!(only("registries.'ghcr.io' = 1").0, "unknown key");
}

#[test]
fn a_registry_without_quotes_is_recognised() {
    let (problem, instead) = only("[registries.registry.k8s.io]\nshare_private = true\n");
    assert_eq!(problem, "a name with a dot was written without quotes, so TOML reads tables in tables");
    assert_eq!(instead, "write [registries.\"registry.k8s.io\"]");
}

#[test]
fn containerds_share_no_name_and_no_socket() {
    let text =
        "[[containerd]]\nname = 'a'\nsocket = '/run/a'\n[[containerd]]\nname = 'a'\nsocket = '/run//a'\n";
    assert_eq!(places(text), ["5 containerd[1].name", "6 containerd[1].socket"]);
    assert_eq!(faults(text)[0].problem, "\"a\" is taken by containerd[0].name on line 2");

    assert_eq!(
        places("[[containerd]]\n[[containerd]]\n"),
        ["2 containerd[1].name", "2 containerd[1].socket"],
        "two take the default"
    );
    let text = "[[containerd]]\nsocket = '/run/tidehold/control.sock'\n";
    assert_eq!(only(text).0, "\"/run/tidehold/control.sock\" is taken by control.socket, by default");
    let text = "[control]\nsocket = '/run/tidehold/content.sock'\n";
    assert_eq!(only(text).0, "\"/run/tidehold/content.sock\" is taken by containerd[0].socket, by default");
    assert_eq!(sound("containerd = []"), Config::default());
}

#[test]
fn mirror_and_web_need_two_addresses() {
    assert_eq!(places("[mirror]\nlisten = '127.0.0.1:7890'"), ["2 mirror.listen"]);
    assert_eq!(places("[mirror]\nlisten = '127.0.0.1:80'\n[web]\nlisten = '0.0.0.0:80'"), ["4 web.listen"]);
    assert_eq!(places("[web]\nlisten = '[::]:80'\n[mirror]\nlisten = '127.0.0.1:80'"), ["4 mirror.listen"]);
    sound("[mirror]\nlisten = '127.0.0.1:0'\n[web]\nlisten = '127.0.0.1:0'");
    sound("[mirror]\nlisten = '127.0.0.1:80'\n[web]\nlisten = '127.0.0.2:80'");
}

#[test]
fn a_tag_is_not_stale_before_it_stops_being_fresh() {
    assert_eq!(only("[tags]\nfresh_for = '2h'\nstale_for = '1h'").0, "1h is shorter than fresh_for, 2h");
    let (problem, instead) = only("[[tags.rules]]\nmatch = 'x'\nfresh_for = '60d'");
    assert!(problem.contains("is longer than stale_for"), "{problem}");
    assert!(instead.starts_with("write stale_for = "), "{instead}");
    assert_eq!(
        places("[tags]\nstale_for = 'x'\n[[tags.rules]]\nmatch = 'x'\nfresh_for = '60d'"),
        ["2 tags.stale_for"],
        "nothing is compared with what could not be read"
    );
    assert_eq!(places("[[tags.rules]]\nfresh_for = '1d'"), ["1 tags.rules[0].match"]);
}

#[test]
fn a_proof_of_access_is_honoured_in_an_outage_no_shorter_than_it_is_fresh() {
    assert_eq!(
        only("[access]\nfresh_for = '2h'\nstale_for = '90m'").0,
        "1h 30m is shorter than fresh_for, 2h"
    );
    let (problem, instead) = only("[access]\nfresh_for = '2h'");
    assert_eq!(problem, "2h is longer than stale_for, which is 1h unless written here");
    assert_eq!(instead, "write stale_for = \"2h\" or longer beside it");
    assert_eq!(only("[access]\nfresh_for = true").1, "write \"5m\"");
}

#[test]
fn every_fault_in_an_array_of_upstreams_is_told_at_its_own_line() {
    let text = r#"[registries."a.test"]
upstream = [
  "http://m.test",
  5000,
  "https://me:secret@a.test",
  "http://m.test/",
  "https://a.test",
]
[registries."b.test"]
upstream = []
[registries."c.test"]
upstream = 5
[registries."d.test"]
upstream = [["https://d.test"]]
"#;
    let said = faults(text).into_iter().map(|fault| (fault.line, fault.key, fault.problem));
    let said: Vec<_> = said.map(|(line, key, problem)| format!("{line} {key}: {problem}")).collect();
    assert_eq!(
        said,
        [
            r#"4 registries."a.test".upstream[1]: expected text in quotes, found a whole number"#,
            r#"5 registries."a.test".upstream[2]: the address holds credentials"#,
            r#"6 registries."a.test".upstream[3]: this is the same as registries."a.test".upstream[0]"#,
            r#"10 registries."b.test".upstream: the array is empty"#,
            r#"12 registries."c.test".upstream: expected text in quotes, found a whole number"#,
            r#"14 registries."d.test".upstream[0]: expected text in quotes, found an array"#,
        ]
    );
}

#[test]
fn one_mistake_gives_one_message() {
    assert_eq!(places("[mirror]\nlisten = 'nowhere'"), ["2 mirror.listen"]);
    assert_eq!(
        places("[[containerd]]\nname = 'A'\n[[containerd]]\nname = 'A'\nsocket = '/x'"),
        ["2 containerd[0].name", "4 containerd[1].name"]
    );
}

#[test]
fn risky_settings_are_warned_of() {
    let warnings = |text| sound(text).warnings();
    let has = |text, part: &str| {
        let warnings = warnings(text);
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}");
    };
    has("[mirror]\nlisten = '0.0.0.0:789'", "whoever reaches it can pull");
    has("[mirror]\nlisten = '127.0.0.1:5000'", "below 1024");
    has("[mirror]\nlisten = '127.0.0.1:0'", "port 0");
    has("[web]\nlisten = '[::]:7890'", "see what this node pulls");
    has("[registries]\nallow_any = false", "nothing can be pulled");
    has("[registries.'ghcr.io']\nshare_private = true", "without credentials");
    has("[registries.'a.test']\nupstream = 'http://a.test'\ncredentials = '/x'", "clear text");
    has(
        "[registries.'a.test']\nupstream = ['http://m.test', 'https://a.test']\ncredentials = '/x'",
        "clear text",
    );
    for upstream in ["http://127.0.0.1:5000", "http://[::1]", "http://localhost", "https://a.test"] {
        let text = format!("[registries.'a.test']\nupstream = '{upstream}'\ncredentials = '/x'");
        assert_eq!(sound(&text).warnings(), [""; 0]);
    }
}

#[test]
fn a_file_is_read_or_said_to_be_unreadable_or_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    assert!(matches!(Config::load(&path), Err(LoadError::Unreadable { .. })));

    fs::write(&path, "[cache]\nmax_size = '1GiB'\n").unwrap();
    assert_eq!(Config::load(&path).unwrap().cache.max_size_bytes, 1 << 30);

    fs::write(&path, b"[cache]\n# caf\xe9\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    let expected =
        format!("{}:2:6: here are bytes that are no text\n    save the file as UTF-8", path.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_report_shows_no_line_of_the_file() {
    let secret = "hunter2";
    for text in [
        format!("[registries.'a.test']\nupstream = 'https://me:{secret}@a.test'"),
        format!("[registries.'a.test']\nupstream = 'https://a.test?token={secret}'"),
        format!("[registries.'a.test']\npassword = '{secret}'"),
        format!("[registries.'a.test']\nshare_private = '{secret}'"),
        format!("[registries.'a.test']\nupstream = https://me:{secret}@a.test"),
    ] {
        let report = Config::parse(&text, "t.toml").unwrap_err().to_string();
        assert!(!report.contains(secret), "{report}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = Config::parse(&text, "t.toml").map_err(|faults| faults.to_string());
    }

    #[test]
    fn nothing_that_looks_like_a_configuration_makes_it_panic(
        lines in prop::collection::vec(
            ("(\\[?\\[(containerd|mirror|control|web|cache|access|tags(\\.rules)?|registries(\\.('docker\\.io'|ghcr\\.io|a))?)\\]?\\]|[a-z_]{1,9}|name|socket|handover|listen|max_size|reserve_free|match|fresh_for|stale_for|upstream|credentials|share_private|data_dir)",
             "|=| = ",
             "|'|\"",
             "[0-9]{0,22}(%|\\.[0-9]{0,3}%|s|d|y| ns|GiB|B|TB)?|/[a-z/.]{0,9}|https?:/{0,3}[a-z:@?#/\\[\\]]{0,9}|[0-9.:\\[\\]]{0,15}|true|\\[|\\{|\\PC{0,9}",
             "|'|\"|\\]|\\}"),
            0..12,
        )
    ) {
        let text: String = lines.into_iter()
            .map(|(key, equals, open, value, close)| format!("{key}{equals}{open}{value}{close}\n"))
            .collect();
        let _ = Config::parse(&text, "t.toml").map_err(|faults| faults.to_string());
    }

    #[test]
    fn a_report_is_in_the_order_of_the_lines_and_never_empty(text in "([a-z]{1,4} ?= ?[0-9a-z']{1,4}\n){1,8}") {
        if let Err(faults) = Config::parse(&text, "t.toml") {
            let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
            prop_assert!(!lines.is_empty() && lines.is_sorted());
        }
    }
}
