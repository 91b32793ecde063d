//! The bounds of a `Warm`, over a hold whose blobs are all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::clock;
use crate::record::Record;
use crate::resolve::{Access, Ages, Fetch, Freshness};
use crate::store::Hold;
use crate::upstream::{Settings, Timeouts, Upstreams};

const REPOSITORY: &str = "registry.test/a";

/// A hold whose blobs are all there is: no registry may be asked.
struct Island {
    hold: Hold,
    resolver: Resolver,
    _folder: tempfile::TempDir,
}

impl Island {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(folder.path(), clock::now()).unwrap().0;
        let settings = Settings {
            allow_any: false,
            listed: BTreeMap::new(),
            timeouts: Timeouts::default(),
            bandwidth: None,
        };
        let ages = Ages { fresh_for: Duration::ZERO, stale_for: Duration::ZERO };
        let freshness = Freshness { default: ages, rules: vec![] };
        let ages = crate::access::Ages { fresh_for: Duration::ZERO, stale_for: Duration::ZERO };
        let access = Access { ages, shared: BTreeSet::new() };
        let record = Record::new(UNIX_EPOCH);
        let upstreams = Upstreams::new(settings, record.clone()).unwrap();
        let resolver = Resolver::new(hold.clone(), upstreams, freshness, access, Fetch::default(), record);
        Self { hold, resolver, _folder: folder }
    }

    fn keep(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.hold.keep(bytes, &digest, clock::now()).unwrap();
        let name: ImageName = REPOSITORY.parse().unwrap();
        self.hold.note_source(&digest, &name.repository).unwrap();
        digest
    }

    /// An index around a manifest or another index.
    fn around(&self, digest: &Digest, times: usize) -> Digest {
        (0..times).fold(digest.clone(), |inner, _| {
            let json = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{inner}","size":1}}]}}"#
            );
            self.keep(json.as_bytes())
        })
    }

    /// An image with so many layers, none of them held.
    fn image(&self, layers: usize) -> Digest {
        let blob = |number: usize| {
            format!(
                r#"{{"mediaType":"a/b","digest":"{}","size":1}}"#,
                Digest::of(number.to_string().as_bytes())
            )
        };
        let layers: Vec<String> = (1..=layers).map(blob).collect();
        let json = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob(0), layers.join(","));
        self.keep(json.as_bytes())
    }

    /// The last step of the one reference.
    async fn end_of(&self, digest: &Digest) -> Step {
        let references = vec![format!("{REPOSITORY}@{digest}")];
        let asked = Asked::parse(v1::WarmRequest { references, ..Default::default() }).unwrap();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let steps = answer(self.resolver.clone(), asked, place, CancellationToken::new());
        let mut steps: Vec<_> = steps.map(|step| step.unwrap().step.unwrap()).collect().await;
        assert!(matches!(steps.pop(), Some(Step::Summary(_))));
        steps.pop().unwrap()
    }
}

fn reason(step: Step) -> String {
    match step {
        Step::Failed(failed) => failed.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_index_may_lie_in_a_few_others_and_not_in_more() {
    let island = Island::new();
    let config = island.keep(b"0");
    let image = island.image(0);
    assert_eq!(config, Digest::of(b"0"));
    let deep = island.around(&image, MOST_NESTED + 1);
    assert!(matches!(island.end_of(&deep).await, Step::Finished(finished) if finished.held_bytes == 1));
    let deeper = island.around(&deep, 1);
    assert!(reason(island.end_of(&deeper).await).ends_with(" lies in too many other indexes"));
}

#[tokio::test]
async fn an_image_of_too_many_parts_is_refused_before_any_of_them_is_fetched() {
    let island = Island::new();
    let most = MOST_PARTS - 2;
    let refused = reason(island.end_of(&island.image(most)).await);
    assert!(refused.contains("is not a listed registry"), "it was begun: {refused}");
    let refused = reason(island.end_of(&island.image(most + 1)).await);
    assert_eq!(refused, "it has more than 4096 parts");
}

#[test]
fn of_many_malformed_references_some_are_named_and_the_rest_counted() {
    let references = (0..30).map(|number| format!("A{number}")).collect();
    let refused = Asked::parse(v1::WarmRequest { references, ..Default::default() }).err().unwrap();
    let said = refused.message();
    assert!(
        said.contains("\"A19\"") && !said.contains("\"A20\"") && said.ends_with("; and 10 more"),
        "{said}"
    );
}
