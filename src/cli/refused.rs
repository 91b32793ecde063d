//! What the daemon answers in the place of what it was asked for, as the commands say it.

use std::time::Duration;

use tidehold::oci::ImageName;
use tonic::{Code, Status};

use super::words::plain;

/// How long a daemon that is well may take over a question.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// What the daemon answered in the place of what it was asked for; or nobody did.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) reason: String,
    pub(super) retry_after_seconds: Option<u64>,
    /// The image that it was about.
    pub(super) reference: Option<String>,
}

impl Refused {
    /// Nobody was there to ask.
    pub(super) fn unasked(code: Code, reason: String) -> Self {
        Self { code, reason, retry_after_seconds: None, reference: None }
    }

    /// It was about this image.
    pub(super) fn about(status: &Status, reference: &ImageName) -> Self {
        Self { reference: Some(reference.to_string()), ..Self::from(status) }
    }
}

impl From<&Status> for Refused {
    fn from(status: &Status) -> Self {
        let after = status.metadata().get("retry-after").and_then(|after| after.to_str().ok()?.parse().ok());
        // Of a daemon that hangs it is as of none.
        let code = if took_too_long(status) { Code::Unavailable } else { status.code() };
        Self { code, reason: said(status), retry_after_seconds: after, reference: None }
    }
}

/// Whether it was we who waited no longer.
fn took_too_long(status: &Status) -> bool {
    matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) && status.message().contains("imeout")
}

/// What the daemon says is wrong, for people.
pub(super) fn said(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "this is a socket of another service: is it the control socket?".to_owned(),
        _ if took_too_long(status) => format!(
            "the daemon does not answer within {} s: is it stopped or is the disk stuck? `journalctl -u tidehold` and \
             `tidehold doctor` may tell more",
            PATIENCE.as_secs()
        ),
        _ if status.message().is_empty() => format!("the daemon did not answer ({})", status.code()),
        _ => plain(status.message()),
    }
}
