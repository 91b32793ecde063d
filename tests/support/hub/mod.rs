//! A stand-in for Docker Hub: a registry, its token service and its CDN on loopback, with images that run.
//!
//! It counts what Docker Hub counts and refuses as Docker Hub refuses, so that a test can state what a pull cost
//! and a quickstart can be limited without spending anyone's real limit. It never asks anything of the network and
//! shares no code with the crate under test: what it says about a digest or a range, it worked out on its own.
//!
//! * [`Hub`] starts it and steers it; [`HubConfig`] says what kind of registry it is.
//! * [`Fault`] and [`Kind`] break it, one kind of request at a time.
//! * [`Counters`] and [`LogEntry`] tell what it was asked.
//! * [`Image`] makes what it serves.
//!
//! Everything but faults of the registry's own listener can be had over HTTP as well, under `/_hub/`.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary, and the example, uses its own part of the stand-in"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "included as a module by several binaries, a library to none"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "in test support a broken invariant should end the test; each message states it"
)]

mod admin;
mod body;
mod budget;
mod busybox;
mod cdn;
pub mod client;
mod clock;
mod config;
mod contents;
mod door;
mod exchange;
mod fault;
mod image;
mod ledger;
mod registry;
mod reply;
mod server;
mod shared;
mod target;
mod token;

pub use config::{
    Account, BlobStyle, Drops, HeadStyle, HeaderStyle, HubConfig, Private, Refusal, RetryAfter, WithoutAccept,
};
pub use fault::{Fault, Kind, Script};
pub use image::{Image, ImageError, ImageSpec, MediaTypes, Platform, PlatformImage, Rootfs, digest_of};
pub use ledger::{Counters, LogEntry};
pub use server::{Hub, REPOSITORY, StartError};
