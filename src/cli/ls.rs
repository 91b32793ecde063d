//! `tidehold ls`: the tags that are known, and what is held of each.

use anyhow::Context;
use clap::Args;
use tidehold::clock;
use tidehold::proto::v1;

use super::control::Control;
use super::failed::Refused;
use super::paint::{Painted, Table, faint, good, left, long, odd, rare, right};
use super::{Failed, print, words};

#[derive(Args)]
pub(crate) struct Ls {
    /// Only references that contain this
    #[arg(value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    /// Answer with a JSON object for each, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Ls {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let failed = |status| Failed::from(Refused::from(&status));
            let request = v1::ListRequest { contains: self.filter.clone() };
            let mut tags = self.control.hold().await?.list(request).await.map_err(failed)?.into_inner();
            let mut table = table();
            let mut any = false;
            while let Some(tag) = tags.message().await.map_err(failed)? {
                any = true;
                match self.json {
                    true => print(&serde_json::to_string(&tag).context("write JSON")?)?,
                    false => table.row(row(&tag)),
                }
            }
            match (self.json, any, self.filter.as_str()) {
                (true, ..) => Ok(()),
                (false, true, _) => print(&table.shown()),
                (false, false, "") => print("no tag is known yet: pull something, or `tidehold warm` it"),
                (false, false, filter) => print(&words::plain(&format!("no reference contains {filter}"))),
            }
        })
    }
}

fn table() -> Table<9> {
    Table::new([
        long("REFERENCE"),
        rare(left("DIGEST")),
        right("HELD"),
        rare(right("OWN")),
        left("WHOLE"),
        left("PINNED"),
        left("USED"),
        rare(left("CONFIRMED")),
        rare(left("RELIED ON BY")),
    ])
}

fn row(tag: &v1::HeldTag) -> [Painted; 9] {
    let now = clock::now();
    let whole = match (tag.whole, tag.held_bytes) {
        (true, _) => good("yes"),
        (false, 0) => faint("nothing"),
        (false, _) => odd("in part"),
    };
    [
        tag.reference.as_str().into(),
        faint(words::short(&tag.digest)),
        words::size(tag.held_bytes).into(),
        words::size(tag.own_bytes).into(),
        whole,
        if tag.pinned { good("yes") } else { faint("-") },
        words::ago(tag.used_at, now).into(),
        words::ago(tag.confirmed_at, now).into(),
        if tag.adopted_by.is_empty() { faint("-") } else { tag.adopted_by.join(", ").into() },
    ]
}
