//! `tidehold resolve`: what a reference stands for now.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};
use tidehold::oci::{ImageName, Platform};
use tidehold::proto::v1;

use super::control::Control;
use super::refused::Refused;
use super::{Failed, print, words};

#[derive(Args)]
pub(crate) struct Resolve {
    /// An image, such as nginx, ghcr.io/a/b:1.2 or nginx@sha256:…
    #[arg(value_name = "REF")]
    reference: ImageName,
    /// Also the manifest for this platform (os/architecture[/variant])
    #[arg(long)]
    platform: Option<Platform>,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Resolve {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let request = v1::ResolveRequest {
                reference: self.reference.to_string(),
                platform: self.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
                look_only: false,
            };
            let resolved = self.control.connect().await?.resolve(request).await;
            let resolved = resolved.map_err(|status| Refused::about(&status, &self.reference))?.into_inner();
            print(&if self.json { as_json(&resolved).to_string() } else { as_text(&resolved) })
        })
    }
}

fn as_text(resolved: &v1::ResolveResponse) -> String {
    let target = resolved.target.clone().unwrap_or_default();
    let confirmed = match words::seconds(resolved.age) {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", words::length(seconds)),
    };
    let mut lines = vec![
        ("digest", target.digest),
        ("type", target.media_type),
        ("size", words::size(target.size)),
        ("standing", words::standing(resolved.standing()).to_owned()),
        ("confirmed", confirmed),
        ("cost", words::cost(resolved.cost.unwrap_or_default())),
    ];
    if let Some(manifest) = &resolved.manifest {
        let v1::Descriptor { digest, platform, size, .. } = manifest;
        lines.push(("manifest", format!("{digest} for {platform}, {}", words::size(*size))));
    }
    let mut text = resolved.reference.clone();
    for (name, value) in lines {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {name:<10} {}", words::plain(&value));
    }
    text
}

fn as_json(resolved: &v1::ResolveResponse) -> Value {
    let target = resolved.target.clone().unwrap_or_default();
    let mut object = json!({
        "reference": resolved.reference,
        "digest": target.digest,
        "media_type": target.media_type,
        "size": target.size,
        "standing": words::standing(resolved.standing()),
        "age_seconds": words::seconds(resolved.age),
        "cost": words::cost_json(resolved.cost),
    });
    if let (Some(manifest), Some(object)) = (&resolved.manifest, object.as_object_mut()) {
        let v1::Descriptor { media_type, digest, size, platform } = manifest;
        let manifest =
            json!({ "digest": digest, "media_type": media_type, "size": size, "platform": platform });
        object.insert("manifest".to_owned(), manifest);
    }
    object
}
