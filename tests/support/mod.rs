//! What the tests run against: real parts, each private to one test and gone when the test ends.

#![allow(dead_code, reason = "every test file compiles this and uses its own part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in the harness a panic is how a test fails"
)]

pub(crate) mod activation;
pub(crate) mod containerd;
pub(crate) mod cri;
pub(crate) mod daemon;
pub(crate) mod disk;
pub(crate) mod go;
pub(crate) mod hub;
pub(crate) mod parts;
pub(crate) mod process;
pub(crate) mod ran;
pub(crate) mod registry;
pub(crate) mod scenario;
pub(crate) mod script;
