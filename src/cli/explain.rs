//! `tidehold explain`: the story of a reference: what came of it, what was decided, when, why, and what it took; and the
//! image behind it, part by part.

use clap::Args;
use tidehold::clock;
use tidehold::oci::ImageName;
use tidehold::proto::v1;

use super::control::{Control, soon};
use super::paint::{Painted, Table, bad, faint, good, left, long, odd, rare, right, strong};
use super::refused::Refused;
use super::status::painted;
use super::{Failed, print, requests, words};

/// How many decisions, and points of a tag's history, are shown where not all are wanted.
const MOST_DECISIONS: usize = 6;
const MOST_POINTS: usize = 4;

#[derive(Args)]
pub(crate) struct Explain {
    /// An image, such as nginx, ghcr.io/a/b:1.2 or nginx@sha256:…
    #[arg(value_name = "REF")]
    reference: ImageName,
    /// Show every decision that is remembered, and all that its tag ever pointed at
    #[arg(long)]
    all: bool,
    /// Answer as one JSON object, which has all of it
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
            print(&if self.json { words::json(&story)? } else { as_text(&story, self.all) })
        })
    }
}

/// The verdict first, then what happened, the parts last.
fn as_text(story: &v1::ExplainResponse, all: bool) -> String {
    let v1::ExplainResponse { reference, summary, history, decisions, pinned, .. } = story;
    let mut lines = vec![strong(reference).to_string(), format!("  {}", words::plain(summary))];
    lines.extend(story.image.iter().flat_map(|image| sum(reference, image)));
    if let (true, Some(_), Some(_)) =
        (history.iter().any(|point| point.held), story.fresh_for, story.stale_for)
    {
        let [fresh_for, stale_for] =
            [story.fresh_for, story.stale_for].map(|age| words::length(words::seconds(age)));
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
    let (shown, more) = some(history, MOST_POINTS, all);
    lines.extend(shown.iter().map(point));
    lines.extend(more);
    if !decisions.is_empty() {
        lines.push(String::new());
        lines.push(strong("what was decided, the latest first").to_string());
    }
    let (shown, more) = some(decisions, MOST_DECISIONS, all);
    lines.extend(shown.iter().flat_map(told));
    lines.extend(more);
    if let Some(image) = &story.image {
        lines.push(String::new());
        lines.push(strong("what it is made of").to_string() + &made_for(image));
        lines.push(parts(reference, image));
    }
    lines.join("\n")
}

/// The first of these, and a line that says how many more there are.
fn some<T>(of: &[T], most: usize, all: bool) -> (&[T], Option<String>) {
    match of.split_at_checked(most) {
        Some((first, rest)) if !all && !rest.is_empty() => {
            (first, Some(format!("  {}", faint(format!("and {} more: --all shows them", rest.len())))))
        }
        Some(_) | None => (of, None),
    }
}

/// How much of an image is here, what that took, and who needs it.
fn sum(reference: &str, image: &v1::ImageStory) -> Vec<String> {
    let v1::ImageStory { parts, held_parts, bytes, held_bytes, counted, downloaded_bytes, answered, .. } =
        image;
    let all = parts.len() as u64;
    let of = format!("{held_parts} of {} held, {}", words::count(all, "blob"), words::size(*held_bytes));
    let held = match (image.complete, *held_parts) {
        (true, held) if held == all => good(of).to_string(),
        (_, 0) => bad("nothing of it is held").to_string(),
        (true, _) => odd(format!("{of} of {}", words::size(*bytes))).to_string(),
        (false, _) => format!("{}; {}", odd(of), lacking(image)),
    };
    let elsewhere =
        parts.iter().filter(|part| !part.came_from.is_empty() && !is_of(reference, &part.came_from));
    let elsewhere = match elsewhere.map(|part| part.downloaded_bytes).sum() {
        0 => String::new(),
        bytes => format!(" ({} of that for other images)", words::size(bytes)),
    };
    let took = format!(
        "{} and {} downloaded{elsewhere}",
        words::count(*counted, "counted GET"),
        words::size(*downloaded_bytes)
    );
    let mut lines =
        vec![format!("  this image: {held}; {took}; answered {}", words::count(*answered, "time"))];
    if !image.adopted_by.is_empty() {
        lines.push(format!("  relied on by {}", words::plain(&image.adopted_by.join(", "))));
    }
    lines
}

/// Why not all parts are known.
fn lacking(image: &v1::ImageStory) -> &'static str {
    match image.parts.last() {
        Some(part) if part.held && part.kind == "index" => "its index has nothing for this node",
        Some(part) if part.held => "it lists what cannot be read here",
        Some(_) | None => "what it lists is not known, since its manifest is not held",
    }
}

fn made_for(image: &v1::ImageStory) -> String {
    let v1::ImageStory { platform, other_manifests, other_held, .. } = image;
    let mut text = if platform.is_empty() { String::new() } else { format!(" for {platform}") };
    if *other_manifests > 0 {
        let others = words::count(*other_manifests, "manifest");
        text.push_str(&faint(format!("; beside it {others} for others, {other_held} held")).to_string());
    }
    text
}

fn point(point: &v1::TagPoint) -> String {
    let confirmed = match point.confirmed_at {
        Some(_) => format!("confirmed {} ago", words::since(point.confirmed_at)),
        None => String::new(),
    };
    let held = if point.held { String::new() } else { odd(" (not held any more)").to_string() };
    format!("  {}  {confirmed}{held}", point.digest)
}

fn parts(reference: &str, image: &v1::ImageStory) -> String {
    let mut table = Table::new([
        long("  DIGEST"),
        left("IS"),
        right("SIZE"),
        left("HELD"),
        left("CAME"),
        left("FROM"),
        right("DOWNLOADED"),
        right("COUNTED"),
        rare(left("RELIED ON BY")),
    ]);
    for part in &image.parts {
        table.row(row(reference, part));
    }
    table.shown()
}

fn row(reference: &str, part: &v1::ImagePart) -> [Painted; 9] {
    let held = match (part.held, part.pinned) {
        (true, true) => good("pinned"),
        (true, false) => good("yes"),
        (false, _) if !part.adopted_by.is_empty() => bad("lost"),
        (false, _) => odd("no"),
    };
    let none = || faint("-");
    [
        format!("  {}", part.digest).into(),
        part.kind.as_str().into(),
        words::size(part.size).into(),
        held,
        words::ago(part.came_at, clock::now()).into(),
        match part.came_from.as_str() {
            "" => none(),
            from if is_of(reference, from) => from.split('/').next().unwrap_or(from).into(),
            from => from.into(),
        },
        if part.came_from.is_empty() { none() } else { words::size(part.downloaded_bytes).into() },
        if part.counted == 0 { none() } else { strong(part.counted.to_string()) },
        if part.adopted_by.is_empty() { none() } else { part.adopted_by.join(", ").into() },
    ]
}

/// Whether a reference names something in a repository.
fn is_of(reference: &str, repository: &str) -> bool {
    reference.strip_prefix(repository).is_some_and(|rest| rest.starts_with([':', '@']))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_story_is_cut_with_a_word_of_what_is_left_out() {
        assert_eq!(some(&[1, 2, 3], 3, false), (&[1, 2, 3][..], None));
        let (shown, more) = some(&[1, 2, 3], 1, false);
        assert_eq!((shown, more.unwrap().contains("and 2 more")), (&[1][..], true));
        assert_eq!(some(&[1, 2, 3], 1, true).0.len(), 3);
    }

    #[test]
    fn a_repository_is_told_from_one_whose_name_begins_alike() {
        assert!(is_of("docker.io/library/nginx:1", "docker.io/library/nginx"));
        assert!(!is_of("docker.io/library/nginx-x:1", "docker.io/library/nginx"));
    }
}
