//! `tidehold pin`, `unpin` and `forget`: what is to stay whatever comes, and what is to go.

use std::collections::HashSet;

use clap::Args;
use serde::Serialize;
use tidehold::oci::ImageName;
use tidehold::proto::v1;
use tidehold::proto::v1::hold_client::HoldClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::control::Control;
use super::refused::Refused;
use super::{Failed, print, words};

/// References, and how to answer.
#[derive(Args)]
pub(crate) struct Of {
    /// Images, such as nginx, ghcr.io/a/b:1.2 or nginx@sha256:…
    #[arg(value_name = "REF", required = true)]
    references: Vec<ImageName>,
    /// Answer as JSON, one object a line for each image
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
        let pin = async |mut hold: Hold, reference: String| hold.pin(v1::PinRequest { reference }).await;
        super::runtime()?.block_on(self.of.each(pin, |pinned| {
            let v1::PinResponse { reference, held_bytes } = pinned;
            format!("{reference} is pinned: {} are held of it and stay", words::size(*held_bytes))
        }))
    }
}

impl Unpin {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let unpin =
            async |mut hold: Hold, reference: String| hold.unpin(v1::UnpinRequest { reference }).await;
        let text = |unpinned: &v1::UnpinResponse| format!("{} is no longer pinned", unpinned.reference);
        super::runtime()?.block_on(self.of.each(unpin, text))
    }
}

impl Forget {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let forget =
            async |mut hold: Hold, reference: String| hold.forget(v1::ForgetRequest { reference }).await;
        super::runtime()?.block_on(self.of.each(forget, told))
    }
}

type Hold = HoldClient<Channel>;

impl Of {
    /// Does this to each of them, once, and tells of it. One that fails does not keep the others from being done.
    async fn each<T: Serialize>(
        &self,
        act: impl AsyncFn(Hold, String) -> Result<Response<T>, Status>,
        text: impl Fn(&T) -> String,
    ) -> Result<(), Failed> {
        let hold = self.control.hold().await?;
        let (mut done, mut refused) = (HashSet::new(), 0);
        for reference in &self.references {
            if !done.insert(reference) {
                continue;
            }
            match act(hold.clone(), reference.to_string()).await {
                Ok(answer) => self.show(answer.get_ref(), &text)?,
                Err(status) => {
                    let failed = Failed::from(Refused::about(&status, reference));
                    if self.references.len() == 1 {
                        return Err(failed);
                    }
                    refused += 1;
                    self.complain(&failed)?;
                }
            }
        }
        match refused {
            0 => Ok(()),
            _ => Err(Failed::Partly(format!("{refused} of {} images were left as they are", done.len()))),
        }
    }

    fn show<T: Serialize>(&self, answer: &T, text: impl Fn(&T) -> String) -> Result<(), Failed> {
        match self.json {
            true => print(&words::json(answer)?),
            false => print(&words::plain(&text(answer))),
        }
    }

    fn complain(&self, failed: &Failed) -> Result<(), Failed> {
        if let Some(text) = failed.as_text() {
            super::complain(&text);
        }
        match failed.as_json().filter(|_| self.json) {
            Some(error) => print(&error.to_string()),
            None => Ok(()),
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
