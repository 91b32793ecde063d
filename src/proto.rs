//! What `build.rs` made of our own definitions in `proto/tidehold/`: the messages that the daemon and the commands
//! exchange over the control socket, with both ends of the service. The definitions say what they mean.

/// `tidehold.v1`.
#[expect(clippy::allow_attributes_without_reason, missing_docs, reason = "generated from proto/tidehold/v1")]
pub mod v1 {
    tonic::include_proto!("tidehold.v1");
}

/// The most references that one `Warm` takes.
pub const MOST_REFERENCES: usize = 1024;

/// The most platforms that one `Warm` takes.
pub const MOST_PLATFORMS: usize = 32;
