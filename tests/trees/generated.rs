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
    /// To one of those before it in the layer.
    HardLink(prop::sample::Index),
    Fifo,
    Device,
    Whiteout,
    Opaque,
}

impl Changes {
    fn layer(&self) -> Layer {
        Layer { bytes: tar((0..self.0.len()).map(|at| self.entry(at))), media_type: PLAIN }
    }
}

impl Changes {
    fn entry(&self, at: usize) -> Entry {
        let Change { path, kind, mode, owner, modified, xattr } = &self.0[at];
        let entry = match kind {
            Kind::File(data) => file(path, data),
            Kind::Folder => folder(path),
            Kind::Symlink(target) => symlink(path, target),
            Kind::HardLink(which) => match self.linkable(at, which) {
                Some(target) => hard_link(path, target),
                None => file(path, "nothing to link to"),
            },
            Kind::Fifo => Entry::new(FIFO, path),
            Kind::Device => Entry::new(CHARACTER, path).device(1, 3),
            Kind::Whiteout => whiteout(path),
            Kind::Opaque => opaque(path),
        };
        let entry = entry.mode(*mode).owner(*owner, *owner).modified(LONG_AGO + modified);
        match xattr {
            Some(name) => entry.xattr(name, "value"),
            None => entry,
        }
    }

    fn linkable(&self, at: usize, which: &prop::sample::Index) -> Option<&str> {
        let others = |change: &&Change| {
            matches!(change.kind, Kind::File(_) | Kind::Symlink(_)) && change.path != self.0[at].path
        };
        let before: Vec<&Change> = self.0[..at].iter().filter(others).collect();
        (!before.is_empty()).then(|| which.get(&before).path.as_str())
    }
}

fn stacks() -> impl Strategy<Value = Vec<Changes>> {
    let change = (
        paths().prop_flat_map(|path| (kinds(&path), Just(path))),
        select(&[0o644, 0o755, 0o4755, 0o1777, 0o600, 0][..]),
        select(&[0, 0, 0, 5, 70_000][..]),
        0..1000_i64,
        prop_oneof![4 => Just(None), 1 => select(&["user.x", "user.y", "trusted.x"][..]).prop_map(Some)],
    );
    let change = change.prop_map(|((kind, path), mode, owner, modified, xattr)| Change {
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

/// Few names, at most four deep; what is in the middle of a path is mostly a folder.
fn paths() -> impl Strategy<Value = String> {
    let within = prop::collection::vec(select(&["a", "a", "b"][..]), 0..=3);
    (within, select(&["a", "b", "x", "y", "z"][..])).prop_map(|(mut names, last)| {
        names.push(last);
        names.join("/")
    })
}

/// What stands at a path. A name that others are beneath is mostly a folder: few layers else are applied at all.
fn kinds(path: &str) -> BoxedStrategy<Kind> {
    let leads_on = path.ends_with('a') || path.ends_with('b');
    let leaf: u32 = if leads_on { 1 } else { 12 };
    let folder: u32 = if leads_on { 16 } else { 2 };
    let kinds = prop_oneof![
        leaf => select(&["", "data", "other data"][..]).prop_map(Kind::File),
        folder => Just(Kind::Folder),
        2 => targets().prop_map(Kind::Symlink),
        leaf.div_ceil(4) => any::<prop::sample::Index>().prop_map(Kind::HardLink),
        leaf.div_ceil(6) => Just(Kind::Fifo),
        leaf.div_ceil(6) => Just(Kind::Device),
        2 => Just(Kind::Whiteout),
        2 => Just(Kind::Opaque),
    ];
    kinds.boxed()
}

fn targets() -> impl Strategy<Value = String> {
    let up = select(&["", "", "../", "/", "../../../../../outside/"][..]);
    (up, paths()).prop_map(|(up, path)| format!("{up}{path}"))
}
