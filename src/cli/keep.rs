//! `tidehold pin`, `unpin` and `forget`: what is to stay whatever comes, and what is to go.

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tidehold::oci::ImageName;
use tidehold::proto::v1;
use tonic::Status;

use super::control::Control;
use super::failed::Refused;
use super::{Failed, print, words};

/// A reference, and how to answer.
#[derive(Args)]
pub(crate) struct Of {
    /// An image, such as nginx, ghcr.io/a/b:1.2 or nginx@sha256:…
    #[arg(value_name = "REF")]
    reference: ImageName,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

#[derive(Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
pub(crate) struct Unpin {
    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    of: Of,
}

impl Pin {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let request = v1::PinRequest { reference: self.of.reference.to_string() };
            let pinned = self.of.answered(self.of.control.hold().await?.pin(request).await)?;
            self.of.show(&pinned, || {
                let v1::PinResponse { reference, held_bytes } = &pinned;
                format!("{reference} is pinned: {} are held of it and stay", words::size(*held_bytes))
            })
        })
    }
}

impl Unpin {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let request = v1::UnpinRequest { reference: self.of.reference.to_string() };
            let unpinned = self.of.answered(self.of.control.hold().await?.unpin(request).await)?;
            self.of.show(&unpinned, || format!("{} is no longer pinned", unpinned.reference))
        })
    }
}

impl Forget {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let request = v1::ForgetRequest { reference: self.of.reference.to_string() };
            let forgotten = self.of.answered(self.of.control.hold().await?.forget(request).await)?;
            self.of.show(&forgotten, || told(&forgotten))
        })
    }
}

impl Of {
    fn answered<T>(&self, answered: Result<tonic::Response<T>, Status>) -> Result<T, Failed> {
        let refused = |status| Refused::about(&status, &self.reference).into();
        answered.map(tonic::Response::into_inner).map_err(refused)
    }

    fn show(&self, answer: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failed> {
        match self.json {
            true => print(&serde_json::to_string(answer).context("write JSON")?),
            false => print(&words::plain(&text())),
        }
    }
}

fn told(forgotten: &v1::ForgetResponse) -> String {
    let v1::ForgetResponse { reference, removed_blobs, removed_bytes, .. } = forgotten;
    let blobs = |number, bytes| format!("{}, {}", words::count(number, "blob"), words::size(bytes));
    let mut told = format!("{reference} is forgotten: {} removed", blobs(*removed_blobs, *removed_bytes));
    if forgotten.kept_blobs > 0 {
        told.push_str(&format!("; {} stay", blobs(forgotten.kept_blobs, forgotten.kept_bytes)));
        let whose =
            |who: &[String], what: &str| (!who.is_empty()).then(|| format!("{what} {}", who.join(", ")));
        let why = [
            whose(&forgotten.adopted_by, "relied on by the containerd"),
            whose(&forgotten.needed_by, "needed by"),
        ];
        let why: Vec<_> = why.into_iter().flatten().collect();
        if !why.is_empty() {
            told.push_str(&format!(", {}", why.join(" and ")));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_said_with_the_reason() {
        let forgotten = v1::ForgetResponse {
            reference: "docker.io/library/nginx:latest".to_owned(),
            removed_blobs: 1,
            removed_bytes: 2048,
            ..Default::default()
        };
        assert_eq!(told(&forgotten), "docker.io/library/nginx:latest is forgotten: 1 blob, 2.0 KiB removed");
        let kept = v1::ForgetResponse {
            kept_blobs: 2,
            kept_bytes: 10,
            adopted_by: vec!["system".to_owned()],
            needed_by: vec!["a".to_owned(), "b".to_owned()],
            ..forgotten
        };
        let end = "; 2 blobs, 10 B stay, relied on by the containerd system and needed by a, b";
        assert!(told(&kept).ends_with(end), "{}", told(&kept));
    }
}
