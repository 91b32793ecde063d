//! Stacks of layers that nobody would think of: few names, so that they meet, and every kind of entry.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::applier::{Applier, Layer};
use crate::archive::{
    CHARACTER, Entry, FIFO, LONG_AGO, file, folder, hard_link, opaque, symlink, tar, whiteout,
};
use crate::corpus::PLAIN;
use crate::place::{Mode, Place};

/// How many stacks are tried in each mode; `PROPTEST_CASES` says otherwise.
const STACKS: u32 = 200;

/// Compares both on stacks, and answers with the smallest one found that they differ on.
pub(crate) fn compare(theirs: &dyn Applier, ours: &dyn Applier, mode: Mode) -> Result<(), String> {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { STACKS };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let place = Place::new();
    let outcome = TestRunner::new(config).run(&stacks(), |stack| {
        let layers: Vec<Layer> = stack.iter().map(Changes::layer).collect();
        let differences = place.run(theirs, &layers, mode).differences(&place.run(ours, &layers, mode));
        if differences.is_empty() { Ok(()) } else { Err(TestCaseError::fail(differences)) }
    });
    outcome.map_err(|error| match error {
        TestError::Fail(reason, stack) => format!("{reason}of the layers {stack:#?}"),
        TestError::Abort(reason) => format!("{reason}"),
    })
}

/// A layer as a few words say it, so that a stack that fails can be read.
#[derive(Clone, Debug)]
struct Changes(Vec<Change>);

#[derive(Clone, Debug)]
struct Change {
    path: String,
    kind: Kind,
    mode: u64,
    owner: i64,
    /// Seconds after `LONG_AGO`.
    modified: i64,
    xattr: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Kind {
    File(&'static str),
    Folder,
    Symlink(String),
    HardLink(String),
    Fifo,
    Device,
    Whiteout,
    Opaque,
}

impl Changes {
    fn layer(&self) -> Layer {
        Layer { bytes: tar(self.0.iter().map(Change::entry)), media_type: PLAIN }
    }
}

impl Change {
    fn entry(&self) -> Entry {
        let path = &self.path;
        let entry = match &self.kind {
            Kind::File(data) => file(path, data),
            Kind::Folder => folder(path),
            Kind::Symlink(target) => symlink(path, target),
            Kind::HardLink(target) => hard_link(path, target),
            Kind::Fifo => Entry::new(FIFO, path),
            Kind::Device => Entry::new(CHARACTER, path).device(1, 3),
            Kind::Whiteout => whiteout(path),
            Kind::Opaque => opaque(path),
        };
        let entry = entry.mode(self.mode).owner(self.owner, self.owner).modified(LONG_AGO + self.modified);
        match self.xattr {
            Some(name) => entry.xattr(name, "value"),
            None => entry,
        }
    }
}

fn stacks() -> impl Strategy<Value = Vec<Changes>> {
    let change = (
        paths(),
        kinds(),
        select(&[0o644, 0o755, 0o4755, 0o1777, 0o600, 0][..]),
        select(&[0, 0, 0, 5, 70_000][..]),
        0..1000_i64,
        prop_oneof![4 => Just(None), 1 => select(&["user.x", "user.y", "trusted.x"][..]).prop_map(Some)],
    );
    let change = change.prop_map(|(path, kind, mode, owner, modified, xattr)| Change {
        path,
        kind,
        mode,
        owner,
        modified,
        xattr,
    });
    // Long enough for entries to meet, short enough for most layers to be applied.
    prop::collection::vec(prop::collection::vec(change, 0..7).prop_map(Changes), 3..=4)
}

/// Few names, at most four deep.
fn paths() -> impl Strategy<Value = String> {
    let name = select(&["a", "a", "b", "c", "d"][..]);
    prop::collection::vec(name, 1..=4).prop_map(|names| names.join("/"))
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => select(&["", "data", "other data"][..]).prop_map(Kind::File),
        6 => Just(Kind::Folder),
        3 => targets().prop_map(Kind::Symlink),
        2 => paths().prop_map(Kind::HardLink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Device),
        3 => Just(Kind::Whiteout),
        2 => Just(Kind::Opaque),
    ]
}

fn targets() -> impl Strategy<Value = String> {
    let up = select(&["", "", "../", "/", "../../../../../outside/"][..]);
    (up, paths()).prop_map(|(up, path)| format!("{up}{path}"))
}
