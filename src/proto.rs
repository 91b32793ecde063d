//! What `build.rs` made of our own definitions in `proto/tidehold/`: the messages that the daemon and the commands
//! exchange over the control socket, with both ends of the service. The definitions say what they mean.

/// `tidehold.v1`.
#[expect(clippy::allow_attributes_without_reason, missing_docs, reason = "generated from proto/tidehold/v1")]
pub mod v1 {
    tonic::include_proto!("tidehold.v1");
}

/// How what is told of the hold is written as JSON.
mod json {
    use std::time::SystemTime;

    use prost_types::{Duration, Timestamp};
    use serde::Serializer;

    /// RFC 3339 in UTC, to the millisecond; null where there is none.
    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn time<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match time.as_ref().map(|time| SystemTime::try_from(*time)) {
            Some(Ok(time)) => to.collect_str(&humantime::format_rfc3339_millis(time)),
            Some(Err(_)) | None => to.serialize_none(),
        }
    }

    /// Seconds; null where there is none.
    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn length<S: Serializer>(length: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match length.as_ref().map(|length| std::time::Duration::try_from(*length)) {
            Some(Ok(length)) => to.serialize_f64(length.as_secs_f64()),
            Some(Err(_)) | None => to.serialize_none(),
        }
    }
}

/// The most references that one `Warm` takes.
pub const MOST_REFERENCES: usize = 1024;

/// The most platforms that one `Warm` takes.
pub const MOST_PLATFORMS: usize = 32;
