//! `tidehold explain`: the story of a reference: what was decided, when, why, and what it took.

use clap::Args;
use tidehold::oci::ImageName;
use tidehold::proto::v1;

use super::control::{Control, soon};
use super::failed::Refused;
use super::paint::{faint, odd, strong};
use super::status::painted;
use super::{Failed, print, requests, words};

#[derive(Args)]
pub(crate) struct Explain {
    /// An image, such as nginx, ghcr.io/a/b:1.2 or nginx@sha256:…
    #[arg(value_name = "REF")]
    reference: ImageName,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Explain {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let mut hold = self.control.hold().await?;
            let request = v1::ExplainRequest { reference: self.reference.to_string() };
            let story = hold.explain(soon(request)).await;
            let story = story.map_err(|status| Refused::about(&status, &self.reference))?.into_inner();
            print(&if self.json { words::json(&story)? } else { as_text(&story) })
        })
    }
}

fn as_text(story: &v1::ExplainResponse) -> String {
    let v1::ExplainResponse { reference, summary, history, decisions, pinned, fresh_for, stale_for } = story;
    let mut lines = vec![strong(reference).to_string(), format!("  {}", words::plain(summary))];
    if let (Some(_), Some(_)) = (fresh_for, stale_for) {
        let (fresh_for, stale_for) =
            (words::length(words::seconds(*fresh_for)), words::length(words::seconds(*stale_for)));
        lines.push(format!(
            "  served without asking for {fresh_for}, and for {stale_for} when its registry cannot be asked"
        ));
    }
    if *pinned {
        lines.push("  pinned: what it stands for is not evicted".to_owned());
    }
    if !history.is_empty() {
        lines.push(String::new());
        lines.push(strong("what it pointed at, the latest first").to_string());
    }
    for point in history {
        let confirmed = match point.confirmed_at {
            Some(_) => format!("confirmed {} ago", words::since(point.confirmed_at)),
            None => String::new(),
        };
        let held = if point.held { String::new() } else { odd(" (not held any more)").to_string() };
        lines.push(format!("  {}  {confirmed}{held}", point.digest));
    }
    if !decisions.is_empty() {
        lines.push(String::new());
        lines.push(strong("what was decided, the latest first").to_string());
    }
    for decision in decisions {
        lines.extend(told(decision));
    }
    lines.join("\n")
}

fn told(decision: &v1::Decision) -> Vec<String> {
    let v1::Decision { first_at, last_at, times, standing, digest, reason, asked_by, cost, requests: sent } =
        decision;
    let when = match times {
        1 => format!("{} ago", words::since(*last_at)),
        _ => format!("{times} times, from {} to {} ago", words::since(*first_at), words::since(*last_at)),
    };
    let mut lines = vec![format!("  {} {when}: {}", painted(standing), words::plain(reason))];
    let mut beside = Vec::new();
    if !digest.is_empty() {
        beside.push(digest.clone());
    }
    beside.push(format!("for {}", words::plain(asked_by)));
    beside.push(words::cost(cost.unwrap_or_default()));
    lines.push(format!("      {}", faint(beside.join(", "))));
    lines.extend(sent.iter().map(|request| format!("      → {}", requests::in_short(request))));
    lines
}
