//! Tidehold: a node's one image cache.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic"))]

pub mod clock;
pub mod oci;
pub mod serve;
pub mod store;
pub mod upstream;
