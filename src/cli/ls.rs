//! `tidehold ls`: the tags that are known, the digests that are pinned by themselves, and what is held of each.

use std::collections::HashMap;

use anyhow::Context;
use clap::Args;
use tidehold::clock;
use tidehold::proto::v1;

use super::control::{Control, soon};
use super::paint::{Painted, Table, faint, good, left, long, odd, rare, right};
use super::refused::Refused;
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
            let mut hold = self.control.hold().await?;
            let mut tags = hold.list(request).await.map_err(failed)?.into_inner();
            let mut table = table();
            let (mut any, mut named) = (false, HashMap::new());
            while let Some(tag) = tags.message().await.map_err(failed)? {
                any = true;
                for containerd in &tag.adopted_by {
                    *named.entry(containerd.clone()).or_insert(0_u64) += tag.held_bytes;
                }
                match self.json {
                    true => print(&serde_json::to_string(&tag).context("write JSON")?)?,
                    false => table.row(row(&tag)),
                }
            }
            match (self.json, any, self.filter.as_str()) {
                (true, ..) => return Ok(()),
                (false, true, _) => print(&table.shown())?,
                (false, false, "") => print("no tag is known yet: pull something, or `tidehold warm` it")?,
                (false, false, filter) => print(&words::plain(&format!("no reference contains {filter}")))?,
            }
            if self.filter.is_empty() {
                let status = hold.status(soon(v1::StatusRequest {})).await.map_err(failed)?.into_inner();
                for line in status.containerds.iter().filter_map(|one| untold(one, &named)) {
                    print(&line)?;
                }
            }
            Ok(())
        })
    }
}

/// What a containerd relies on beside what the tags stand for that it relies on, of which some share blobs: by its size that
/// is so much at least. No tag is known of what was taken over from it.
fn untold(containerd: &v1::ContainerdStatus, named: &HashMap<String, u64>) -> Option<String> {
    let v1::ContainerdStatus { name, adopted_blobs, adopted_bytes, .. } = containerd;
    let told = named.get(name).copied().unwrap_or_default();
    let rest = adopted_bytes.checked_sub(told).filter(|rest| *rest > 0)?;
    let (all, relies) = (words::size(*adopted_bytes), words::count(*adopted_blobs, "blob"));
    let name = words::plain(name);
    let how_much = if told == 0 { ",".to_owned() } else { format!(", at least {} of it", words::size(rest)) };
    Some(format!(
        "containerd {name:?} relies on {relies}, {all}{how_much} without a tag that is known here: `ctr namespaces ls` and \
         `ctr -n NAMESPACE images ls` name its images"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_containerd_relies_on_without_a_tag_is_told_of_in_sum() {
        let containerd = v1::ContainerdStatus {
            name: "system".to_owned(),
            adopted_blobs: 3,
            adopted_bytes: 4096,
            ..Default::default()
        };
        let told = |bytes| untold(&containerd, &HashMap::from([("system".to_owned(), bytes)]));
        let all = told(0).unwrap();
        assert!(all.starts_with("containerd \"system\" relies on 3 blobs, 4.0 KiB, without a tag"), "{all}");
        assert!(told(1024).unwrap().contains("4.0 KiB, at least 3.0 KiB of it without a tag"));
        assert_eq!(told(4096), None);
        assert_eq!(told(5000), None, "its tags share blobs");
        assert_eq!(untold(&v1::ContainerdStatus::default(), &HashMap::new()), None);
    }
}
