//! `tidehold prune`: removes what is only cache.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use tidehold::clock;
use tidehold::proto::v1;

use super::control::{Control, answered};
use super::paint::{Table, bad, faint, left, right};
use super::{Failed, print, words};

#[derive(Args)]
pub(crate) struct Prune {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Down to so much cache, such as 10GiB or 0; without it, to the bounds of the configuration
    #[arg(long, value_name = "SIZE", value_parser = size)]
    to: Option<ByteSize>,
    /// Also what was not used for so long, such as 7d or 12h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unused_for: Option<Duration>,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

/// A size as the configuration takes it.
fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| {
        "write a number and B, kB, MB, GB or TB, or KiB, MiB, GiB or TiB, as in 500MiB, or 0 for none"
            .to_owned()
    })
}

impl Prune {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let unused_for = self.unused_for.map(prost_types::Duration::try_from).transpose();
            let request = v1::PruneRequest {
                dry_run: self.dry_run,
                to_bytes: self.to.map(|size| size.as_u64()),
                unused_for: unused_for.map_err(|_| Failed::Usage("--unused-for is too long".to_owned()))?,
            };
            let pruned = self.control.hold().await?.prune(request).await;
            let pruned = answered(pruned)?;
            match self.json {
                true => print(&serde_json::to_string(&pruned).context("write JSON")?),
                false => print(&text(&pruned, self.dry_run, clock::now())),
            }
        })
    }
}

fn text(pruned: &v1::PruneResponse, dry_run: bool, now: SystemTime) -> String {
    let mut text = String::new();
    if !pruned.removed.is_empty() {
        let mut table = Table::new([left("DIGEST"), right("SIZE"), left("LAST USED"), left("IMAGE")]);
        for removed in &pruned.removed {
            table.row([
                words::short(&removed.digest).into(),
                words::size(removed.size).into(),
                words::ago(removed.used_at, now).into(),
                if removed.reference.is_empty() { faint("-") } else { removed.reference.as_str().into() },
            ]);
        }
        text.push_str(&table.shown());
        text.push('\n');
        let told = pruned.removed.len() as u64;
        if pruned.removed_blobs > told {
            text.push_str(&format!("and {} more\n", pruned.removed_blobs - told));
        }
    }
    let blobs =
        format!("{}, {}", words::count(pruned.removed_blobs, "blob"), words::size(pruned.removed_bytes));
    let (removed, cached) =
        (if dry_run { "would be removed" } else { "removed" }, words::size(pruned.cached_bytes));
    let (is, still) = if dry_run { ("would be", "then") } else { ("is", "now") };
    text.push_str(&format!("{blobs} {removed}; {cached} {is} cached {still}"));
    if pruned.kept_bytes > 0 {
        let kept = words::size(pruned.kept_bytes);
        let kept = bad(format!("{kept} more should leave and cannot: it is pinned or in use"));
        text.push_str(&format!("\n{kept}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_and_a_run_say_so() {
        let removed = v1::Pruned {
            digest: "sha256:0123456789abcdef".to_owned(),
            size: 1024,
            used_at: None,
            reference: "docker.io/library/nginx:latest".to_owned(),
        };
        let pruned = v1::PruneResponse {
            removed: vec![removed],
            removed_bytes: 1024,
            cached_bytes: 0,
            kept_bytes: 5,
            removed_blobs: 2,
        };
        let now = SystemTime::UNIX_EPOCH;
        let said = text(&pruned, true, now);
        assert!(said.contains("0123456789ab") && said.contains("and 1 more"), "{said}");
        assert!(said.contains("2 blobs, 1.0 KiB would be removed; 0 B would be cached then"), "{said}");
        assert!(said.contains("5 B more should leave and cannot: it is pinned or in use"), "{said}");
        assert!(text(&pruned, false, now).contains("2 blobs, 1.0 KiB removed; 0 B is cached now"));
    }
}
