//! The mirror as a client sees it: what it answers for tags, digests and blobs, what that costs the registry, and
//! what becomes of it when the registry is limited, broken, wrong or gone.
//!
//! Each test has a daemon and a stand-in for Docker Hub of its own. What a test of the mirror can never find, the
//! [`Bench`](bench::Bench) looks for at the end of each: a file in the hold under another's name, and credentials
//! at the CDN.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "in the helpers of tests a panic is how a test fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod ahead;
mod bad_input;
mod bench;
mod blobs;
mod broken;
mod cost;
mod credentials;
mod destinations;
mod limits;
mod lists;
mod names;
mod outages;
mod people;
mod private;
mod races;
mod registries;
mod restart;
mod sending;
mod standings;
mod strangers;
