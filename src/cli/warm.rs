//! `tidehold warm`: fetches images ahead of those who will pull them.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use tidehold::clock;
use tidehold::oci::{ImageName, Platform};
use tidehold::proto::v1::resolver_client::ResolverClient;
use tidehold::proto::v1::warm_response::{Step, Summary};
use tidehold::proto::{MOST_REFERENCES, v1};
use tonic::transport::Channel;

use super::Failed;
use super::control::Control;
use super::refused::Refused;
use super::warm_shown::Shown;

#[derive(Args)]
pub(crate) struct Warm {
    /// Images, such as nginx, ghcr.io/a/b:1.2 or nginx@sha256:…
    #[arg(value_name = "REF", required_unless_present = "file")]
    references: Vec<String>,
    /// Read images from a file, one a line, # begins a comment; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What to fetch of images for several platforms (os/architecture[/variant]); this node's, if not given
    #[arg(long, conflicts_with = "all_platforms")]
    platform: Vec<Platform>,
    /// Fetch every platform of such images
    #[arg(long)]
    all_platforms: bool,
    /// Answer as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Warm {
    pub(crate) fn run(self) -> Result<(), Failed> {
        // Whatever is wrong with any of them is told before anything is fetched.
        let references = self.references()?;
        super::runtime()?.block_on(async {
            let begun = clock::instant();
            let mut client = self.control.connect().await?;
            let mut shown = Shown::new(self.json);
            let mut all = Summary::default();
            for some in references.chunks(MOST_REFERENCES) {
                let request = v1::WarmRequest {
                    references: some.to_vec(),
                    platforms: self.platform.iter().map(ToString::to_string).collect(),
                    all_platforms: self.all_platforms,
                };
                let summary = warm(&mut client, request, &mut shown).await?;
                add(&mut all, &summary);
            }
            shown.end(&all, begun.elapsed())?;
            match all.failed {
                0 => Ok(()),
                failed => {
                    Err(Failed::Partly(format!("{failed} of {} images could not be had", references.len())))
                }
            }
        })
    }

    /// All that are named, in full, each once.
    fn references(&self) -> Result<Vec<String>, Failed> {
        let mut taken = Taken::default();
        for reference in &self.references {
            taken.take(reference, "");
        }
        if let Some(file) = &self.file {
            for (number, line) in (1..).zip(read(file)?.lines()) {
                let reference = line.split('#').next().unwrap_or_default().trim();
                if !reference.is_empty() {
                    taken.take(reference, &format!("{}:{number}: ", file.display()));
                }
            }
        }
        if taken.faults.is_empty() {
            Ok(taken.references)
        } else {
            Err(Failed::Usage(taken.faults.join("\n")))
        }
    }
}

fn read(file: &Path) -> Result<String, Failed> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|whole| text = whole)
    };
    read.with_context(|| format!("read {}", file.display()))?;
    Ok(text)
}

/// References as they are read, and what is wrong with others.
#[derive(Default)]
struct Taken {
    references: Vec<String>,
    known: HashSet<String>,
    faults: Vec<String>,
}

impl Taken {
    fn take(&mut self, written: &str, place: &str) {
        match written.parse::<ImageName>() {
            Ok(name) => {
                let name = name.to_string();
                if self.known.insert(name.clone()) {
                    self.references.push(name);
                }
            }
            Err(error) => self.faults.push(format!("{place}{written:?}: {error}")),
        }
    }
}

/// One call, shown as it goes.
async fn warm(
    client: &mut ResolverClient<Channel>,
    request: v1::WarmRequest,
    shown: &mut Shown,
) -> Result<Summary, Failed> {
    let ended = |status: &tonic::Status| Refused::from(status);
    let mut steps = client.warm(request).await.map_err(|status| ended(&status))?.into_inner();
    while let Some(v1::WarmResponse { reference, step }) =
        steps.message().await.map_err(|status| ended(&status))?
    {
        match step {
            Some(Step::Summary(summary)) => return Ok(summary),
            Some(step) => shown.step(&reference, &step)?,
            // A newer daemon's.
            None => {}
        }
    }
    Err(anyhow!("the daemon ended before all was done").into())
}

fn add(all: &mut Summary, one: &Summary) {
    let cost = all.cost.get_or_insert_default();
    let of_one = one.cost.unwrap_or_default();
    cost.requests = cost.requests.saturating_add(of_one.requests);
    cost.counted = cost.counted.saturating_add(of_one.counted);
    all.finished = all.finished.saturating_add(one.finished);
    all.failed = all.failed.saturating_add(one.failed);
    all.fetched_bytes = all.fetched_bytes.saturating_add(one.fetched_bytes);
    all.held_bytes = all.held_bytes.saturating_add(one.held_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_written_in_two_ways_is_taken_once() {
        let mut taken = Taken::default();
        for written in ["nginx", "docker.io/library/nginx:latest", "nginx:1"] {
            taken.take(written, "");
        }
        assert_eq!(taken.references, ["docker.io/library/nginx:latest", "docker.io/library/nginx:1"]);
        taken.take("Nginx", "list:3: ");
        assert!(taken.faults[0].starts_with("list:3: \"Nginx\": "), "{:?}", taken.faults);
    }
}
