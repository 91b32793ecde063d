//! Readers of single values: text in, a checked value or what to write instead out.
//!
//! Each is a pure function of its text; none touches the disk, the network or a clock. Units are required
//! wherever a bare number would leave the reader guessing.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use regex::Regex;
use url::{Host, Url};

use super::faults::Wrong;
use super::walk::short;
use super::{Registry, Reserve, Share};

/// The longest time a key may name: beyond it, adding to a clock could overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The longest path a unix socket can have on Linux: `sun_path` holds 108 bytes, one of them the final NUL.
const SOCKET_PATH_BYTES: usize = 107;

/// The least bytes a second that a limit may leave.
const SLOWEST: u64 = 64 << 10;

const SIZE_UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "kB", "MB", "GB", "TB"];

/// A size in bytes, such as `100GiB` or `1.5TB`.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    let (number, unit) = number_and_unit(text);
    if !is_number(number) {
        return Err(Wrong::new(format!("{:?} is no size", short(text)), "write a size such as \"100GiB\""));
    }
    if unit.is_empty() {
        let problem = format!("the size {number:?} has no unit");
        return Err(Wrong::new(
            problem,
            format!("write {:?} or another of {}", format!("{number}GiB"), units()),
        ));
    }
    if !SIZE_UNITS.contains(&unit) {
        let near = SIZE_UNITS.iter().find(|known| {
            let spelled = known.to_ascii_lowercase();
            let given = unit.to_ascii_lowercase();
            spelled == given || spelled.strip_suffix("b") == Some(&given) && !given.is_empty()
        });
        let instead = match near {
            Some(unit) => format!("write {:?}", format!("{number}{unit}")),
            None => format!("write one of the units {}", units()),
        };
        return Err(Wrong::new(format!("{:?} is no unit of size", short(unit)), instead));
    }
    // The crate clamps what is too large, so a clamped answer is no answer.
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes < u64::MAX => Ok(bytes),
        _ => Err(Wrong::new(format!("the size {:?} is too large", short(text)), "write a size below 16 EiB")),
    }
}

/// Bytes a second, such as `50MiB/s`.
pub(super) fn rate(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    let Some(amount) = text.strip_suffix("/s") else {
        let instead = match size(text) {
            Ok(_) => format!("write {:?}", format!("{}/s", short(text))),
            Err(_) => "write a rate such as \"50MiB/s\"".to_owned(),
        };
        return Err(Wrong::new(format!("{:?} is no rate", short(text)), instead));
    };
    match size(amount) {
        Ok(bytes) if bytes >= SLOWEST => Ok(bytes),
        Ok(_) => Err(Wrong::new(
            format!("{:?} is too slow: whoever waits for a blob would give up", short(text)),
            "write at least \"64KiB/s\"",
        )),
        Err(Wrong { problem, .. }) => Err(Wrong::new(problem, "write a rate such as \"50MiB/s\"")),
    }
}

/// A part of the disk: a share such as `5%`, or a size.
pub(super) fn reserve(text: &str) -> Result<Reserve, Wrong> {
    let text = text.trim();
    let Some(percent) = text.strip_suffix('%').map(str::trim_end) else {
        let (number, unit) = number_and_unit(text);
        if !is_number(number) {
            let problem = format!("{:?} is neither a share nor a size", short(text));
            return Err(Wrong::new(problem, "write \"5%\" or \"50GiB\""));
        }
        if unit.is_empty() {
            let instead = format!("write {:?} or {:?}", format!("{number}%"), format!("{number}GiB"));
            return Err(Wrong::new(format!("{number:?} is neither a share nor a size"), instead));
        }
        return size(text).map(Reserve::Bytes);
    };
    let wrong = |problem: &str| {
        Wrong::new(format!("{:?} {problem}", short(text)), "write a share from \"0%\" to \"100%\"")
    };
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || percent.ends_with('.') {
        return Err(wrong("is no share"));
    }
    if fraction.len() > 2 {
        return Err(wrong("has more than two decimals"));
    }
    let hundredths = format!("{whole}{fraction:0<2}").parse().ok();
    let share = hundredths.and_then(Share::from_hundredths_of_a_percent);
    share.map(Reserve::Share).ok_or_else(|| wrong("is more than the whole disk"))
}

/// A stretch of time such as `30d`, `1s` or `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let text = text.trim();
    let problem = |what: &str| format!("{:?} {what}", short(text));
    // The crate's sums overflow in `Duration::new` for some numbers of twenty digits; none of those is sane.
    if text.bytes().filter(u8::is_ascii_digit).count() > 12 {
        return Err(Wrong::new(problem("is too long a time"), "write at most \"100years\""));
    }
    match humantime::parse_duration(text) {
        // The crate takes a lone zero; here a unit is always written.
        Ok(_) if is_number(text) => {
            Err(Wrong::new(problem("has no unit of time"), format!("write {:?}", format!("{text}s"))))
        }
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => {
            Err(Wrong::new(problem("is too long a time"), "write at most \"100years\""))
        }
        Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
            Err(Wrong::new(problem("has no unit of time"), format!("write {:?}", short(text) + "s")))
        }
        Err(humantime::DurationError::UnknownUnit { unit, .. }) => {
            let wrong = format!("{:?} is no unit of time", short(&unit));
            Err(Wrong::new(wrong, "write one of the units ms, s, m, h, d, w, months, years"))
        }
        Err(_) => {
            Err(Wrong::new(problem("is no length of time"), "write a time such as \"30s\" or \"1h 30m\""))
        }
    }
}

/// An address and port to listen at, such as `127.0.0.1:789` or `[::1]:789`.
pub(super) fn listen(default: SocketAddr) -> impl Fn(&str) -> Result<SocketAddr, Wrong> {
    move |text| {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let (problem, instead) = match (bare, port) {
            (Ok(address), _) => ("has no port", SocketAddr::new(address, default.port())),
            (_, Some(port)) => {
                ("is no address: names are not looked up", SocketAddr::new(default.ip(), port))
            }
            _ => ("is no address with a port", default),
        };
        let problem = format!("{:?} {problem}", short(text));
        Err(Wrong::new(problem, format!("write {:?}", instead.to_string())))
    }
}

/// An absolute path below the root. What is there is not looked at.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Wrong> {
    let path = Path::new(text);
    let problem = |what: &str| format!("{:?} {what}", short(text));
    if text.contains('\0') {
        return Err(Wrong::new(problem("holds a NUL byte"), "write a path without it"));
    }
    if !path.is_absolute() {
        return Err(Wrong::new(problem("is no absolute path"), "write the whole path, from \"/\" on"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Wrong::new(problem("goes back up with \"..\""), "write the path that it ends up at"));
    }
    if path.file_name().is_none() {
        return Err(Wrong::new("the root directory is not for this", "write a path of its own below it"));
    }
    Ok(path.to_owned())
}

/// The path of a unix socket: absolute, and short enough for the kernel.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = format!("/{}", path.trim_start_matches('/'));
        let problem = format!("{:?} is a URL, where the path alone is wanted", short(text));
        return Err(Wrong::new(problem, format!("write {:?}", short(&path))));
    }
    let path = absolute_path(text)?;
    if text.len() > SOCKET_PATH_BYTES {
        let problem = format!("a path of {} bytes is too long for a socket", text.len());
        return Err(Wrong::new(problem, format!("write a path of at most {SOCKET_PATH_BYTES} bytes")));
    }
    if text.ends_with('/') {
        return Err(Wrong::new(
            format!("{:?} is a directory", short(text)),
            "write the path of the socket itself",
        ));
    }
    Ok(path)
}

/// A name that can stand in a directory's name and in a key: `[a-z0-9-]`, 1 to 64 of them.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(sound) {
        return Ok(text.to_owned());
    }
    let problem = format!("{:?} can't name a containerd", short(text));
    Err(Wrong::new(problem, "write 1 to 64 of the characters a-z, 0-9 and -"))
}

/// A pattern in the syntax of the `regex` crate, unanchored unless it says otherwise.
pub(super) fn pattern(text: &str) -> Result<Regex, Wrong> {
    Regex::new(text).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => Wrong::new("the pattern is too large", "write a smaller one"),
        _ => {
            // The crate draws several lines with a caret; its last one says what is wrong.
            let said = error.to_string();
            let said = said.lines().last().unwrap_or_default();
            let problem = format!("{:?} is no pattern: {}", short(text), said.trim_start_matches("error: "));
            Wrong::new(problem, "write a regular expression in single quotes, such as '^v\\d+$'")
        }
    })
}

/// The base address of a registry: `http` or `https`, a host, perhaps a path that `/v2/…` is appended to.
///
/// The answer's path has no slash at its end, save where it is only a slash.
pub(super) fn upstream(text: &str) -> Result<Url, Wrong> {
    let example = "write an address such as \"https://registry-1.docker.io\"";
    // Nothing here quotes the text: it may hold a password.
    let mut url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Err(Wrong::new(format!("this is no address: {error}"), example)),
    };
    if !matches!(url.scheme(), "http" | "https") {
        let problem = "the address must begin with https:// or http://";
        return Err(Wrong::new(problem, example));
    }
    // `https:host` and `https:///host` parse, but nobody means them.
    if url.host_str().is_none_or(str::is_empty) || !text.contains("://") || text.contains(":///") {
        return Err(Wrong::new("the address names no host", example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let instead = "write it without them, and name a file with the key credentials";
        return Err(Wrong::new("the address holds credentials", instead));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("the address has a query or a fragment", "write only what comes before it"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path == "/v2" || path.ends_with("/v2") {
        return Err(Wrong::new("the address ends with /v2, which is added to it", "leave /v2 out"));
    }
    url.set_path(&path);
    Ok(url)
}

/// The registry that goes by this name in image references (`host` or `host:port`), as it is by default.
pub(super) fn registry_name(text: &str) -> Result<Registry, Wrong> {
    let problem = |what: &str| format!("{:?} {what}", short(text));
    if matches!(text, "index.docker.io" | "registry-1.docker.io") {
        let problem = problem("is an address of Docker Hub, whose name is docker.io");
        return Err(Wrong::new(problem, "write [registries.\"docker.io\"]"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let instead = format!("write [registries.{:?}] and give the address as its upstream", short(host));
        return Err(Wrong::new(problem("is an address, where a registry's name is wanted"), instead));
    }
    if let Some((host, _)) = text.split_once('/') {
        let instead = format!("write [registries.{:?}]: rules hold for a whole registry", short(host));
        return Err(Wrong::new(problem("holds a path"), instead));
    }
    let lower = text.to_ascii_lowercase();
    match Registry::unlisted(&lower) {
        Some(registry) if lower == text => return Ok(registry),
        Some(_) => {
            let instead = format!("write [registries.{:?}]", short(&lower));
            return Err(Wrong::new(problem("has capital letters"), instead));
        }
        None => {}
    }
    let instead = "write a host as it stands in references, such as \"ghcr.io\" or \"localhost:5000\"";
    Err(Wrong::new(problem("is no registry's name"), instead))
}

/// Whether a reference could begin with this: a host that has a dot, a port, or is `localhost`, which is how
/// a reference tells a registry from a repository.
pub(super) fn is_registry_name(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_sound = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_sound = match Host::parse(host) {
        Ok(Host::Domain(domain)) => domain == host && host.len() <= 253 && host.split('.').all(is_label),
        Ok(Host::Ipv4(address)) => address.to_string() == host,
        Ok(Host::Ipv6(_)) => true,
        Err(_) => false,
    };
    let told_apart = host.contains(['.', '[']) || port.is_some() || host == "localhost";
    host_sound && port_sound && told_apart
}

fn is_label(label: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(sound)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// Digits, perhaps with a decimal point between two of them.
fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

fn units() -> String {
    SIZE_UNITS.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader's objection tells its author to do.
    fn advice<T: std::fmt::Debug>(read: Result<T, Wrong>) -> String {
        read.unwrap_err().instead
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("1024B", 1024),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("1.5MiB", 3 << 19),
            ("2MB", 2_000_000),
            ("100GiB", 100 << 30),
            ("100 GB", 100_000_000_000),
            (" 3TiB ", 3 << 40),
            ("1TB", 1_000_000_000_000),
            ("9007199254740993B", 9_007_199_254_740_993),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_faulty_size_is_answered_with_the_nearest_right_one() {
        let units = "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB";
        for (text, instead) in [
            ("100", format!("write \"100GiB\" or another of {units}")),
            ("100gib", "write \"100GiB\"".to_owned()),
            ("100G", "write \"100GB\"".to_owned()),
            ("100Gi", "write \"100GiB\"".to_owned()),
            ("1KB", "write \"1kB\"".to_owned()),
            ("1EiB", format!("write one of the units {units}")),
            ("much", "write a size such as \"100GiB\"".to_owned()),
            ("", "write a size such as \"100GiB\"".to_owned()),
            ("-1GiB", "write a size such as \"100GiB\"".to_owned()),
            (".5GiB", "write a size such as \"100GiB\"".to_owned()),
            ("1.2.3GiB", "write a size such as \"100GiB\"".to_owned()),
            ("99999999999999999999B", "write a size below 16 EiB".to_owned()),
            ("99999999999TiB", "write a size below 16 EiB".to_owned()),
        ] {
            assert_eq!(advice(size(text)), instead, "{text}");
        }
    }

    #[test]
    fn a_reserve_is_a_share_or_a_size() {
        assert_eq!(reserve("50GiB"), Ok(Reserve::Bytes(50 << 30)));
        for (text, of_a_thousand) in [("0%", 0), ("5%", 50), ("2.5 %", 25), ("0.01%", 0), ("100%", 1000)] {
            assert_eq!(reserve(text).map(|reserve| reserve.bytes_of(1000)), Ok(of_a_thousand), "{text}");
        }
        assert_eq!(reserve("100.00%").unwrap().bytes_of(u64::MAX), u64::MAX);
        assert_eq!(reserve("12.34%").unwrap().bytes_of(10_000), 1234);
    }

    #[test]
    fn a_faulty_reserve_is_told_both_ways() {
        let range = "write a share from \"0%\" to \"100%\"";
        for (text, instead) in [
            ("5", "write \"5%\" or \"5GiB\""),
            ("some", "write \"5%\" or \"50GiB\""),
            ("100.01%", range),
            ("101%", range),
            ("99999999999999999999%", range),
            ("0.001%", range),
            ("-1%", range),
            ("5.%", range),
            (".5%", range),
            ("%", range),
            ("5g", "write \"5GB\""),
        ] {
            assert_eq!(advice(reserve(text)), instead, "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_size_a_second() {
        assert_eq!((rate("50MiB/s"), rate(" 1.5MB/s ")), (Ok(50 << 20), Ok(1_500_000)));
        for (text, instead) in [
            ("50MiB", "write \"50MiB/s\""),
            ("50/s", "write a rate such as \"50MiB/s\""),
            ("fast", "write a rate such as \"50MiB/s\""),
            ("0B/s", "write at least \"64KiB/s\""),
        ] {
            assert_eq!(advice(rate(text)), instead, "{text}");
        }
    }

    #[test]
    fn times_need_units() {
        for (text, seconds) in [("0s", 0), ("1s", 1), ("1h 30m", 5400), ("1.5h", 5400), ("30d", 2_592_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for (text, instead) in [
            ("30", "write \"30s\""),
            ("0", "write \"0s\""),
            ("1.5", "write \"1.5s\""),
            ("1h 30", "write \"1h 30s\""),
            ("3 fortnights", "write one of the units ms, s, m, h, d, w, months, years"),
            ("", "write a time such as \"30s\" or \"1h 30m\""),
            ("-1s", "write a time such as \"30s\" or \"1h 30m\""),
            ("soon", "write a time such as \"30s\" or \"1h 30m\""),
            ("1000years", "write at most \"100years\""),
            ("18446744073709551615s 1000000000ns", "write at most \"100years\""),
        ] {
            assert_eq!(advice(duration(text)), instead, "{text}");
        }
    }

    #[test]
    fn listeners_are_addresses_with_ports() {
        let listen = listen("127.0.0.1:789".parse().unwrap());
        for text in ["127.0.0.1:789", "[::1]:789", "0.0.0.0:0"] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
        for (text, instead) in [
            ("127.0.0.2", "write \"127.0.0.2:789\""),
            ("::1", "write \"[::1]:789\""),
            ("[::1]", "write \"[::1]:789\""),
            ("localhost:80", "write \"127.0.0.1:80\""),
            (":80", "write \"127.0.0.1:80\""),
            ("789", "write \"127.0.0.1:789\""),
            ("127.0.0.1:99999", "write \"127.0.0.1:789\""),
            ("", "write \"127.0.0.1:789\""),
        ] {
            assert_eq!(advice(listen(text)), instead, "{text}");
        }
    }

    #[test]
    fn paths_are_absolute_and_sockets_are_short() {
        assert_eq!(absolute_path("/var/lib/x"), Ok(PathBuf::from("/var/lib/x")));
        for text in ["", "var", "~/x", "./x", "/", "/a/../b", "/a\0b"] {
            assert!(absolute_path(text).is_err(), "{text:?}");
        }
        let longest = format!("/{}", "x".repeat(106));
        assert_eq!(socket_path(&longest), Ok(PathBuf::from(&longest)));
        assert_eq!(advice(socket_path(&format!("{longest}x"))), "write a path of at most 107 bytes");
        assert_eq!(advice(socket_path("unix:/run/x")), "write \"/run/x\"");
        assert_eq!(advice(socket_path("unix:///run/x")), "write \"/run/x\"");
        assert_eq!(advice(socket_path("/run/x/")), "write the path of the socket itself");
    }

    #[test]
    fn names_can_stand_in_a_path() {
        assert_eq!(name("k3s-2"), Ok("k3s-2".to_owned()));
        assert!(name(&"x".repeat(64)).is_ok());
        for text in ["", "K3s", "a/b", "..", "a_b", "é", &"x".repeat(65)] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_say_what_the_matter_is() {
        assert!(pattern(r"^v?\d+$").unwrap().is_match("v12"));
        assert_eq!(pattern("v(1").unwrap_err().problem, "\"v(1\" is no pattern: unclosed group");
        assert_eq!(pattern(r"\w{1000}{1000}").unwrap_err().problem, "the pattern is too large");
    }

    #[test]
    fn upstreams_are_bases_of_http_addresses() {
        for (text, base) in [
            ("https://registry-1.docker.io", "https://registry-1.docker.io/"),
            ("http://10.0.0.1:5000/", "http://10.0.0.1:5000/"),
            ("https://harbor.test/hub/", "https://harbor.test/hub"),
        ] {
            assert_eq!(upstream(text).unwrap().as_str(), base);
        }
        for (text, problem) in [
            ("registry-1.docker.io", "this is no address: relative URL without a base"),
            ("ftp://a.test", "the address must begin with https:// or http://"),
            ("a.test:5000", "the address must begin with https:// or http://"),
            ("https:///a.test", "the address names no host"),
            ("https:a.test", "the address names no host"),
            ("https://", "this is no address: empty host"),
            ("https://me@a.test", "the address holds credentials"),
            ("https://me:secret@a.test", "the address holds credentials"),
            ("https://a.test?x=1", "the address has a query or a fragment"),
            ("https://a.test#x", "the address has a query or a fragment"),
            ("https://a.test/v2/", "the address ends with /v2, which is added to it"),
        ] {
            assert_eq!(upstream(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn registry_names_are_what_references_begin_with() {
        for text in
            ["docker.io", "ghcr.io", "localhost", "localhost:5000", "reg:443", "10.0.0.1:5000", "[::1]:5000"]
        {
            assert!(registry_name(text).is_ok(), "{text}");
        }
        for (text, instead) in [
            ("index.docker.io", "write [registries.\"docker.io\"]"),
            ("registry-1.docker.io", "write [registries.\"docker.io\"]"),
            ("https://ghcr.io/", "write [registries.\"ghcr.io\"] and give the address as its upstream"),
            ("ghcr.io/acme", "write [registries.\"ghcr.io\"]: rules hold for a whole registry"),
            ("GHCR.io", "write [registries.\"ghcr.io\"]"),
        ] {
            assert_eq!(advice(registry_name(text)), instead, "{text}");
        }
        for text in [
            "",
            "docker",
            "a_b.test",
            "-a.test",
            "a..test",
            "a.test:",
            "a.test:0",
            "a.test:99999",
            "a b.test",
            "1.2",
        ] {
            assert!(registry_name(text).is_err(), "{text:?}");
        }
    }
}
