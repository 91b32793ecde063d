//! What kind of registry the stand-in is: every point on which Docker Hub has changed, or on which other registries
//! differ from it, is a setting here. It holds no state; the default is Docker Hub as it answers today.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::image::{MediaTypes, Rootfs};

/// The settings of a [`Hub`](super::Hub), fixed for its life.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Where the registry listens. Port 0 takes a free one, here and below.
    pub registry: SocketAddr,
    /// Where the token service listens.
    pub token: SocketAddr,
    /// Where the CDN listens: by default on another loopback address, so that "another host" is true.
    pub cdn: SocketAddr,
    /// Counted GETs that one anonymous source may make in a window. `None`: no limit and no headers.
    pub limit: Option<u64>,
    /// How long a window lasts, from its first counted GET.
    pub window: Duration,
    /// GETs still answered once nothing is left, while the header goes below zero.
    pub enforced_late_by: u64,
    /// How the remaining number falls.
    pub drops: Drops,
    /// Whether a GET of a manifest that isn't there counts.
    pub counts_not_found: bool,
    /// How the headers on the limit are spelt.
    pub headers: HeaderStyle,
    /// What the 429 of the pull limit looks like.
    pub refusal: Refusal,
    /// The form of `Retry-After` on that 429. `None`: as the style of the refusal has it.
    pub retry_after: Option<RetryAfter>,
    /// The `Retry-After` on the 429 of the limit on abuse. `None`: it does not say.
    pub abuse_lasts: Option<Duration>,
    /// Whether public repositories ask for a token.
    pub auth: bool,
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// What a HEAD of a manifest is answered.
    pub head: HeadStyle,
    /// Whether any answer names the digest of what it gives.
    pub names_digests: bool,
    /// What a client gets that accepts no manifest type at all.
    pub without_accept: WithoutAccept,
    /// How a blob is handed out.
    pub blobs: BlobStyle,
    /// How long a signed address at the CDN is good for.
    pub address_lifetime: Duration,
    /// The media types of the images that are there from the start.
    pub media: MediaTypes,
    /// What those images hold.
    pub rootfs: Rootfs,
    /// Who may log in.
    pub accounts: Vec<Account>,
    /// Repositories that only one account may read, at the start.
    pub private: Vec<Private>,
    /// The most entries of a list that are given at once.
    pub page: usize,
    /// Whether it knows the API of referrers.
    pub referrers: bool,
    /// Whether lists are shown to anyone, even of what not anyone may pull.
    pub open_lists: bool,
    /// Repositories whose pulls neither count nor tell the limit.
    pub sponsored: Vec<String>,
    /// Repositories whose every manifest GET is refused, as `ratelimitalways/test` is.
    pub always_limited: Vec<String>,
}

impl Default for HubConfig {
    fn default() -> Self {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            registry: loopback,
            token: loopback,
            cdn: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0),
            limit: Some(100),
            window: Duration::from_secs(21_600),
            enforced_late_by: 0,
            drops: Drops::EveryGet,
            counts_not_found: true,
            headers: HeaderStyle::Lowercase,
            refusal: Refusal::TooManyRequests,
            retry_after: None,
            abuse_lasts: None,
            auth: true,
            token_lifetime: Duration::from_secs(300),
            head: HeadStyle::WithDigest,
            names_digests: true,
            without_accept: WithoutAccept::ManifestUnknown,
            blobs: BlobStyle::Redirect307,
            address_lifetime: Duration::from_secs(300),
            media: MediaTypes::Oci,
            rootfs: Rootfs::Busybox,
            accounts: Vec::new(),
            private: Vec::new(),
            page: 100,
            referrers: true,
            open_lists: false,
            sponsored: Vec::new(),
            always_limited: vec!["ratelimitalways/test".to_owned()],
        }
    }
}

/// Someone who can log in with a name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The password, or an access token in its place.
    pub password: String,
    /// Counted GETs in a window; `None` for a paid account, which has no limit and sees no headers.
    pub limit: Option<u64>,
}

impl Account {
    /// An account without a subscription: 200 GETs in a window.
    pub fn free(name: &str, password: &str) -> Self {
        Self { name: name.to_owned(), password: password.to_owned(), limit: Some(200) }
    }

    /// An account that pays: no limit.
    pub fn paid(name: &str, password: &str) -> Self {
        Self { limit: None, ..Self::free(name, password) }
    }
}

/// A repository that one account alone may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Private {
    /// The repository's full name.
    pub repository: String,
    /// The name of the account.
    pub account: String,
}

/// How the remaining number falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// By one with each GET: a multi-platform pull costs two (measured in 2022).
    EveryGet,
    /// By one with each second GET (what staff described in 2020).
    EverySecondGet,
}

/// How the headers on the limit are spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStyle {
    /// `ratelimit-limit`, as today.
    Lowercase,
    /// Each word capitalised, as every header was in 2020.
    Titlecase,
    /// None at all, as with other registries; the limit still holds.
    Absent,
}

/// What the 429 of the pull limit looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// JSON with the code `TOOMANYREQUESTS`, as today.
    TooManyRequests,
    /// The code `DENIED` with `Retry-After` and `Connection: close`, as in 2020.
    Denied,
}

/// How `Retry-After` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Not at all.
    Absent,
    /// As a number of seconds.
    Seconds,
    /// As an HTTP date.
    HttpDate,
    /// As a Unix timestamp, which a reader would take for decades of seconds.
    UnixTimestamp,
}

/// What a HEAD of a manifest is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadStyle {
    /// 200 with the digest.
    WithDigest,
    /// 200 with neither a digest nor an entity tag.
    WithoutDigest,
    /// 405.
    MethodNotAllowed,
}

/// What a client gets that accepts no manifest type at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutAccept {
    /// 404.
    ManifestUnknown,
    /// A schema 1 manifest with a digest of its own; OCI images stay unknown.
    Schema1,
}

/// How a blob is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobStyle {
    /// 307 to the CDN.
    Redirect307,
    /// 302 to the CDN.
    Redirect302,
    /// By the registry itself.
    Inline,
}
