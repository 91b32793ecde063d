//! Tidehold: a node's one image cache, plugged into containerd as its content store and as its resolver.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic"))]

pub mod access;
pub mod app;
pub mod apply;
pub mod clock;
pub mod config;
pub mod evict;
pub mod node;
pub mod oci;
pub mod proto;
pub mod record;
pub mod resolve;
pub mod serve;
pub mod store;
pub mod upstream;
