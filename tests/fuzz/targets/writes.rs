//! Any order of writes, resumes, truncations, commits and aborts of two refs: the ingests stay what a model says.
#![no_main]

use std::collections::HashMap;
use std::time::SystemTime;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidehold::oci::Digest;
use tidehold::store::{Announced, Hold, Ingest, Ingests, Owner};

#[derive(Debug, Arbitrary)]
enum Step {
    Open(bool),
    Write(bool, Vec<u8>),
    Clear(bool),
    Close(bool),
    Commit(bool, Promise),
    Abort(bool),
}

#[derive(Debug, Arbitrary)]
enum Promise {
    Nothing,
    Right,
    WrongSize,
    WrongDigest,
}

fuzz_target!(|steps: Vec<Step>| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(run(steps));
});

async fn run(steps: Vec<Step>) {
    let now = SystemTime::UNIX_EPOCH;
    let folder = tempfile::tempdir().unwrap();
    let hold = Hold::open(folder.path(), now).unwrap().0;
    let ingests = Ingests::open(&hold, Owner::new("fuzz")).unwrap();
    let mut open: HashMap<bool, Ingest> = HashMap::new();
    let mut model: HashMap<bool, Vec<u8>> = HashMap::new();
    for step in steps.into_iter().take(64) {
        match step {
            Step::Open(which) => {
                if let std::collections::hash_map::Entry::Vacant(free) = open.entry(which) {
                    let ingest = ingests.write(&which.to_string(), now).await.unwrap();
                    let bytes = model.entry(which).or_default();
                    assert_eq!(ingest.status().offset, bytes.len() as u64);
                    assert_eq!(ingest.digest(), Digest::of(bytes));
                    free.insert(ingest);
                }
            }
            Step::Write(which, bytes) => {
                if let Some(ingest) = open.get_mut(&which) {
                    ingest.write(&bytes, now).unwrap();
                    model.entry(which).or_default().extend(bytes);
                }
            }
            Step::Clear(which) => {
                if let Some(ingest) = open.get_mut(&which) {
                    ingest.clear(now).unwrap();
                    model.insert(which, Vec::new());
                }
            }
            Step::Close(which) => drop(open.remove(&which)),
            Step::Commit(which, promise) => {
                if let Some(ingest) = open.remove(&which) {
                    let bytes = model.entry(which).or_default().clone();
                    let digest = Digest::of(&bytes);
                    let size = bytes.len() as u64;
                    let (announced, good) = match promise {
                        Promise::Nothing => (Announced::default(), true),
                        Promise::Right => (announce(Some(digest.clone()), Some(size)), true),
                        Promise::WrongSize => (announce(None, Some(size + 1)), false),
                        Promise::WrongDigest => (announce(Some(Digest::of(b"something else")), None), false),
                    };
                    let committed = ingest.commit(announced, now);
                    assert_eq!(committed.is_ok(), good, "{committed:?}");
                    if good {
                        model.remove(&which);
                        assert_eq!(hold.blob(&digest).unwrap().unwrap().size, size);
                    }
                }
            }
            Step::Abort(which) => {
                if !open.contains_key(&which) {
                    assert_eq!(ingests.abort(&which.to_string()).unwrap(), model.remove(&which).is_some());
                }
            }
        }
    }
}

fn announce(digest: Option<Digest>, size: Option<u64>) -> Announced {
    Announced { digest, size, ..Announced::default() }
}
