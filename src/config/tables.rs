//! The keys: which table each lives in, what it takes, and the rules between them.
//!
//! Reads every table whatever was wrong with the ones before. Where a fault was reported a default stands
//! in, and rules between keys stay silent about it: one mistake, one message.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::ops::Range;

use toml::de::DeTable;

use super::faults::{Sink, Wrong};
use super::types::{
    Access, Ages, Cache, Config, Containerd, Control, Fetch, Mirror, Registries, Registry, TagRule, Tags, Web,
};
use super::values;
use super::walk::{ANY_KEY, Homes, Other, Read, Section, hint, short};

const ROOT: &[&str] =
    &["data_dir", "containerd", "mirror", "control", "web", "cache", "fetch", "tags", "access", "registries"];
const CONTAINERD: &[&str] = &["name", "socket", "handover"];
const MIRROR: &[&str] = &["listen"];
const CONTROL: &[&str] = &["socket"];
const WEB: &[&str] = &["listen"];
const CACHE: &[&str] = &["max_size", "reserve_free"];
const FETCH: &[&str] = &["ahead", "parallel", "connections", "bandwidth"];
const TAGS: &[&str] = &["fresh_for", "stale_for", "rules"];
const TAG_RULE: &[&str] = &["match", "fresh_for", "stale_for"];
const ACCESS: &[&str] = &["fresh_for", "stale_for"];
const REGISTRIES: &[&str] = &["allow_any", ANY_KEY];
const REGISTRY: &[&str] = &["upstream", "credentials", "share_private"];

/// No registry likes more than this from one node, and no link needs it.
const MOST_PARALLEL: usize = 64;
const MOST_CONNECTIONS: usize = 16;

const HOMES: Homes = &[
    ("at the top of the file", ROOT),
    ("in [[containerd]]", CONTAINERD),
    ("in [mirror]", MIRROR),
    ("in [control]", CONTROL),
    ("in [web]", WEB),
    ("in [cache]", CACHE),
    ("in [fetch]", FETCH),
    ("in [tags]", TAGS),
    ("in [[tags.rules]]", TAG_RULE),
    ("in [access]", ACCESS),
    ("in [registries]", &["allow_any"]),
    ("in [registries.\"NAME\"]", REGISTRY),
];

/// Reads a whole document. What it returns may be used only if nothing was reported to `sink`.
pub(super) fn read(document: &DeTable, sink: &mut Sink) -> Config {
    let root = Section::root(document, ROOT, HOMES, sink);
    let defaults = Config::default();

    let data_dir = root.text("data_dir", "/var/lib/tidehold", values::absolute_path, sink);
    let mirror = listen(&root.table("mirror", MIRROR, sink), defaults.mirror.listen, sink);
    let web = listen(&root.table("web", WEB, sink), defaults.web.listen, sink);
    check_listeners(&mirror, defaults.mirror.listen, &web, defaults.web.listen, sink);
    let (containerds, control) = sockets(&root, sink);

    Config {
        data_dir: data_dir.or(defaults.data_dir),
        containerds,
        mirror: Mirror { listen: mirror.or(defaults.mirror.listen) },
        control,
        web: Web { listen: web.or(defaults.web.listen) },
        cache: cache(&root.table("cache", CACHE, sink), sink),
        fetch: fetch(&root.table("fetch", FETCH, sink), sink),
        tags: tags(&root.table("tags", TAGS, sink), sink),
        access: access(&root.table("access", ACCESS, sink), sink),
        registries: registries(&root.table("registries", REGISTRIES, sink), sink),
    }
}

fn listen(section: &Section, default: SocketAddr, sink: &mut Sink) -> Read<SocketAddr> {
    section.text("listen", &default.to_string(), values::listen(default), sink)
}

/// Mirror and web can't both have an address.
fn check_listeners(
    mirror: &Read<SocketAddr>,
    mirror_default: SocketAddr,
    web: &Read<SocketAddr>,
    web_default: SocketAddr,
    sink: &mut Sink,
) {
    let both = (mirror.certain_or(mirror_default), web.certain_or(web_default));
    let (Some(mirror_at), Some(web_at)) = both else { return };
    if !overlap(mirror_at, web_at) {
        return;
    }
    // One of them was given, because the defaults differ: the later one is the one to mend.
    let places = [("mirror.listen", mirror.place()), ("web.listen", web.place())];
    let given = places.into_iter().filter_map(|(key, place)| place.map(|place| (key, place)));
    if let Some((key, place)) = given.max_by_key(|(_, place)| place.start) {
        let (own, other, other_at) =
            if key == "web.listen" { (web_at, "mirror", mirror_at) } else { (mirror_at, "web", web_at) };
        let problem = format!("{own} is taken: {other} listens on {other_at}");
        sink.fault(place, key, Wrong::new(problem, "write another port for one of them"));
    }
}

/// Whether two listeners would meet. An unspecified IPv6 address takes IPv4 connections as well.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |one: SocketAddr, other: SocketAddr| {
        one.ip() == other.ip() || one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4())
    };
    one.port() != 0 && one.port() == other.port() && (takes(one, other) || takes(other, one))
}

/// The containerds and the control socket: no name and no socket twice.
fn sockets(root: &Section, sink: &mut Sink) -> (Vec<Containerd>, Control) {
    let control = root.table("control", CONTROL, sink);
    let default_control = Control::default().socket;
    let control = control.text("socket", "/run/tidehold/control.sock", values::socket_path, sink);

    let sections = root.tables("containerd", CONTAINERD, sink);
    let mut names = Claims::new("name");
    let mut paths = Claims::new("socket");
    if sections.is_empty() {
        paths.claim(Containerd::default().socket, None, "containerd[0].socket", sink);
    }
    if let Some(path) = control.certain_or(default_control.clone()) {
        paths.claim(path, control.place().cloned(), "control.socket", sink);
    }
    let mut containerds = Vec::new();
    for section in sections {
        let default = Containerd::default();
        let name = section.text("name", "system", values::name, sink);
        let socket = section.text("socket", "/run/tidehold/content.sock", values::socket_path, sink);
        if let Some(known) = name.certain_or(default.name.clone()) {
            let place = name.place().unwrap_or(section.place()).clone();
            names.claim(known, Some(place), &section.path_of("name"), sink);
        }
        if let Some(known) = socket.certain_or(default.socket.clone()) {
            let place = socket.place().unwrap_or(section.place()).clone();
            paths.claim(known, Some(place), &section.path_of("socket"), sink);
        }
        containerds.push(Containerd {
            name: name.or(default.name),
            socket: socket.or(default.socket),
            handover: section.switch("handover", sink).or(default.handover),
        });
    }
    if containerds.is_empty() {
        containerds.push(Containerd::default());
    }
    (containerds, Control { socket: control.or(default_control) })
}

/// Values that may be taken once. What a default claims has no place and is never at fault itself.
struct Claims<T> {
    what: &'static str,
    taken: HashMap<T, String>,
}

impl<T: Hash + Eq + std::fmt::Debug> Claims<T> {
    fn new(what: &'static str) -> Self {
        Self { what, taken: HashMap::new() }
    }

    fn claim(&mut self, value: T, place: Option<Range<usize>>, key: &str, sink: &mut Sink) {
        let holder = match &place {
            Some(place) => format!("{key} on line {}", sink.line(place)),
            None => format!("{key}, by default"),
        };
        match (self.taken.get(&value), place) {
            (Some(first), Some(place)) => {
                let problem = format!("{value:?} is taken by {first}");
                let instead = format!("write another {} here or there", self.what);
                sink.fault(&place, key, Wrong::new(problem, instead));
            }
            _ => {
                self.taken.insert(value, holder);
            }
        }
    }
}

fn cache(section: &Section, sink: &mut Sink) -> Cache {
    let default = Cache::default();
    Cache {
        max_size_bytes: section.text("max_size", "100GiB", values::size, sink).or(default.max_size_bytes),
        reserve_free: section.text("reserve_free", "5%", values::reserve, sink).or(default.reserve_free),
    }
}

fn fetch(section: &Section, sink: &mut Sink) -> Fetch {
    let default = Fetch::default();
    let bandwidth = section.text("bandwidth", "50MiB/s", |text| values::rate(text).map(Some), sink);
    Fetch {
        ahead: section.switch("ahead", sink).or(default.ahead),
        parallel: section.count("parallel", 1..=MOST_PARALLEL, sink).or(default.parallel),
        connections: section.count("connections", 1..=MOST_CONNECTIONS, sink).or(default.connections),
        bandwidth: bandwidth.or(default.bandwidth),
    }
}

fn tags(section: &Section, sink: &mut Sink) -> Tags {
    let (default, certain) = ages(section, Some(Ages::default()), sink);
    let mut rules = Vec::new();
    for section in section.tables("rules", TAG_RULE, sink) {
        let example = "^v\\d+$";
        let pattern = section.text("match", example, values::pattern, sink);
        if matches!(pattern, Read::Absent) {
            let wrong = Wrong::new(
                "the rule does not say which tags it is for",
                format!("write match = '{example}'"),
            );
            sink.fault(section.place(), &section.path_of("match"), wrong);
        }
        let (ages, _) = ages(&section, certain.then_some(default), sink);
        if let Read::Set(pattern, _) = pattern {
            rules.push(TagRule { pattern, ages });
        }
    }
    Tags { default, rules }
}

fn access(section: &Section, sink: &mut Sink) -> Access {
    let Access { fresh_for, stale_for } = Access::default();
    let (Ages { fresh_for, stale_for }, _) = ages(section, Some(Ages { fresh_for, stale_for }), sink);
    Access { fresh_for, stale_for }
}

/// Reads both ages. `inherited` completes them; where it is uncertain they are compared only if both are
/// written here. Also answers whether the ages are certain.
fn ages(section: &Section, inherited: Option<Ages>, sink: &mut Sink) -> (Ages, bool) {
    let fallback = inherited.unwrap_or_default();
    let mut age = |key, fallback| {
        let example = humantime::format_duration(fallback).to_string();
        section.text(key, &example, values::duration, sink)
    };
    let fresh_for = age("fresh_for", fallback.fresh_for);
    let stale_for = age("stale_for", fallback.stale_for);
    let sound = |read: &Read<_>, fallback| match read {
        Read::Absent if inherited.is_none() => None,
        other => other.certain_or(fallback),
    };
    let both = (sound(&fresh_for, fallback.fresh_for), sound(&stale_for, fallback.stale_for));
    let mut certain = matches!(both, (Some(_), Some(_)));
    if let (Some(fresh), Some(stale)) = both
        && stale < fresh
    {
        certain = false;
        // At least one is written here: what is inherited was compared where it is written.
        let (key, place) = match (stale_for.place(), fresh_for.place()) {
            (Some(place), _) => ("stale_for", place),
            (None, Some(place)) => ("fresh_for", place),
            (None, None) => ("stale_for", section.place()),
        };
        let fresh = humantime::format_duration(fresh);
        let stale = humantime::format_duration(stale);
        let (problem, instead) = if key == "stale_for" {
            (format!("{stale} is shorter than fresh_for, {fresh}"), format!("write at least \"{fresh}\""))
        } else {
            let problem = format!("{fresh} is longer than stale_for, which is {stale} unless written here");
            (problem, format!("write stale_for = \"{fresh}\" or longer beside it"))
        };
        sink.fault(place, &section.path_of(key), Wrong::new(problem, instead));
    }
    (
        Ages { fresh_for: fresh_for.or(fallback.fresh_for), stale_for: stale_for.or(fallback.stale_for) },
        certain,
    )
}

fn registries(section: &Section, sink: &mut Sink) -> Registries {
    let allow_any = section.switch("allow_any", sink).or(true);
    let mut listed = BTreeMap::new();
    for other in section.others(REGISTRIES) {
        match registry_default(&other) {
            Ok(default) => {
                let section = section.table(other.key, REGISTRY, sink);
                listed.insert(other.key.to_owned(), registry(&section, default, sink));
            }
            Err(wrong) => sink.fault(&other.place, &section.path_of(other.key), wrong),
        }
    }
    Registries { allow_any, listed }
}

/// What holds for the registry that a key under `[registries]` names, before anything is read of it.
fn registry_default(other: &Other) -> Result<Registry, Wrong> {
    let Some(table) = other.table else {
        return Err(Wrong::new("unknown key", hint(other.key, REGISTRIES, HOMES)));
    };
    if let Some(dotted) = dotted(other.key, table) {
        let problem = "a name with a dot was written without quotes, so TOML reads tables in tables";
        return Err(Wrong::new(problem, format!("write [registries.{:?}]", short(&dotted))));
    }
    values::registry_name(other.key)
}

/// The name that was meant where `[registries.ghcr.io]` was read as tables in tables.
fn dotted(key: &str, table: &DeTable) -> Option<String> {
    let inner = table.iter().find_map(|(key, value)| value.get_ref().as_table().map(|table| (key, table)));
    inner.map(|(inner, table)| {
        let inner = inner.get_ref().as_ref();
        format!("{key}.{}", dotted(inner, table).unwrap_or_else(|| inner.to_owned()))
    })
}

fn registry(section: &Section, default: Registry, sink: &mut Sink) -> Registry {
    let upstreams = section.texts("upstream", "https://registry-1.docker.io", values::upstream, sink);
    let example = "/etc/tidehold/docker-config.json";
    let credentials =
        section.text("credentials", example, |text| values::absolute_path(text).map(Some), sink);
    Registry {
        upstreams: upstreams.or(default.upstreams),
        credentials: credentials.or(default.credentials),
        share_private: section.switch("share_private", sink).or(default.share_private),
    }
}
