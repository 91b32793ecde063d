//! How `tidehold adopt` shows what it does: a bar on a terminal, else lines, or JSON.

use std::io::{IsTerminal, stderr, stdout};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::super::words::{plain, size};
use super::super::{Failed, print};

/// Where lines are all there is, there is one for each such part of the whole.
const PARTS: u64 = 10;

pub(super) struct Shown {
    how: How,
    total: u64,
    /// Bytes that were told as read, and those of the blobs that are done: whichever are more have been read.
    read: u64,
    done: u64,
    told: u64,
}

enum How {
    Lines,
    Json,
    Bar(ProgressBar),
}

impl Shown {
    pub(super) fn new(json: bool) -> Self {
        let how = match json {
            true => How::Json,
            false if stdout().is_terminal() && stderr().is_terminal() => How::Bar(ProgressBar::hidden()),
            false => How::Lines,
        };
        Self { how, total: 0, read: 0, done: 0, told: 0 }
    }

    /// What may be of interest, and is no fault.
    pub(super) fn warn(&self, what: &str) {
        eprintln!("tidehold: {}", plain(what));
    }

    /// What is going to be done, with so many bytes.
    pub(super) fn begin(&mut self, as_json: &Value, text: &str, bytes: u64) -> Result<(), Failed> {
        self.total = bytes;
        match &mut self.how {
            How::Json => return print(&as_json.to_string()),
            How::Lines => {}
            How::Bar(bar) if bytes > 0 => {
                let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
                // The template is sound; one that was not would show as the default one.
                let style =
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                *bar = ProgressBar::new(bytes).with_style(style);
            }
            How::Bar(_) => {}
        }
        print(text)
    }

    /// So many bytes more were read.
    pub(super) fn read(&mut self, bytes: u64) {
        self.read = self.read.saturating_add(bytes);
        self.progress();
    }

    /// A blob is done.
    pub(super) fn done(&mut self, event: &str, digest: &str, size: u64, how: &str) -> Result<(), Failed> {
        self.done = self.done.saturating_add(size);
        self.progress();
        match &self.how {
            How::Json => {
                print(&json!({ "event": event, "digest": digest, "size": size, "how": how }).to_string())
            }
            How::Lines | How::Bar(_) => Ok(()),
        }
    }

    /// A blob is left out.
    pub(super) fn problem(&self, event: &str, digest: &str, reason: &str) -> Result<(), Failed> {
        let say = || eprintln!("tidehold: {}", plain(&format!("{digest}: {reason}")));
        match &self.how {
            How::Json => print(&json!({ "event": event, "digest": digest, "reason": reason }).to_string())?,
            How::Lines => say(),
            How::Bar(bar) => bar.suspend(say),
        }
        Ok(())
    }

    /// How all of it came out.
    pub(super) fn end(self, as_json: &Value, text: &str) -> Result<(), Failed> {
        match self.how {
            How::Json => return print(&as_json.to_string()),
            How::Lines => {}
            How::Bar(bar) => bar.finish_and_clear(),
        }
        print(text)
    }

    fn progress(&mut self) {
        let at = self.read.max(self.done).min(self.total);
        match &self.how {
            How::Json => {}
            How::Lines => {
                let part = (u128::from(at) * u128::from(PARTS)).checked_div(u128::from(self.total));
                let part = part.and_then(|part| u64::try_from(part).ok()).unwrap_or_default();
                if part > self.told && part < PARTS {
                    self.told = part;
                    // Whoever read it may have gone: the work goes on.
                    let _ = print(&format!("{} of {}", size(at), size(self.total)));
                }
            }
            How::Bar(bar) => bar.set_position(at),
        }
    }
}

/// So many blobs.
pub(super) fn blobs(count: u64) -> String {
    if count == 1 { "1 blob".to_owned() } else { format!("{count} blobs") }
}

/// A containerd by its name in Tidehold's configuration, of which most know only the one that is there from the start.
pub(super) fn named(containerd: &str) -> String {
    format!("containerd {containerd:?}")
}
