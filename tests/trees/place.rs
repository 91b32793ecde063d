//! Where a stack of layers is applied, beside something that no layer may touch; and both appliers put to it in turn.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::applier::tidehold::bind;
use crate::applier::{Applied, Applier, Layer, Mount};
use crate::archive::LONG_AGO;
use crate::tree::{Began, Tree};

/// What containerd's snapshotters hand with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The overlay snapshotter: the lowest layer onto a folder of its own, each other into an upper folder.
    Overlay,
    /// The native snapshotter: each onto what the ones below have left.
    Bind,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Overlay, Self::Bind];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Bind => "bind",
        }
    }
}

/// A folder with room for the stack and a folder that stands outside of it.
pub(crate) struct Place {
    folder: TempDir,
    began: Began,
}

/// What came of a stack.
pub(crate) struct Run {
    outcomes: Vec<Result<Applied, String>>,
    tree: Tree,
}

const OUTSIDE: &str = "outside";

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-trees-").tempdir().unwrap();
        Self { folder, began: Began::now() }
    }

    /// What no layer may touch.
    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join(OUTSIDE)
    }

    /// Has this one apply the stack, from nothing.
    pub(crate) fn run(&self, applier: &dyn Applier, stack: &[Layer], mode: Mode) -> Run {
        self.empty();
        self.furnish_outside();
        let mounted: Vec<_> =
            stack.iter().enumerate().map(|(at, layer)| (layer, self.mounts(at, stack.len(), mode))).collect();
        let before = Tree::read(&self.outside(), self.began);
        let outcomes = applier.apply(&mounted);
        let tree = Tree::read(self.folder.path(), self.began);
        // Whatever became of the layers.
        let touched = before.differences(&Tree::read(&self.outside(), self.began));
        assert!(touched.is_empty(), "what is outside of the root was changed:\n{touched}");
        Run { outcomes, tree }
    }

    fn empty(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    fn furnish_outside(&self) {
        let outside = self.outside();
        fs::create_dir_all(outside.join("folder")).unwrap();
        for name in ["file", "folder/file"] {
            fs::write(outside.join(name), "not yours").unwrap();
        }
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(LONG_AGO).unwrap());
        let times = FileTimes::new().set_accessed(then).set_modified(then);
        for name in ["file", "folder/file", "folder", ""] {
            File::open(outside.join(name)).unwrap().set_times(times).unwrap();
        }
    }

    fn mounts(&self, at: usize, layers: usize, mode: Mode) -> Vec<Mount> {
        let snapshot = |at: usize| {
            let folder = self.folder.path().join(format!("snapshots/{at}"));
            fs::create_dir_all(folder.join("fs")).unwrap();
            fs::create_dir_all(folder.join("work")).unwrap();
            folder
        };
        match mode {
            Mode::Bind => vec![bind(&snapshot(1).join("fs"))],
            // A single layer is put over an empty one, or this mode would be the other.
            Mode::Overlay if at > 0 || layers == 1 => {
                let upper = snapshot(at + 1);
                let lowest = usize::from(layers > 1);
                let lower: Vec<_> = (lowest..=at).rev().map(|at| text(&snapshot(at).join("fs"))).collect();
                let options = vec![
                    "index=off".to_owned(),
                    format!("workdir={}", text(&upper.join("work"))),
                    format!("upperdir={}", text(&upper.join("fs"))),
                    format!("lowerdir={}", lower.join(":")),
                ];
                let (r#type, source) = ("overlay".to_owned(), "overlay".to_owned());
                vec![Mount { r#type, source, target: String::new(), options }]
            }
            Mode::Overlay => vec![bind(&snapshot(at + 1).join("fs"))],
        }
    }
}

impl Run {
    /// Whether all of it was applied.
    pub(crate) fn applied(&self) -> bool {
        self.outcomes.iter().all(Result::is_ok)
    }

    /// In what the daemon's run differs from containerd's, empty where it is the same.
    pub(crate) fn differences(&self, ours: &Self) -> String {
        let failed = |run: &Self| run.outcomes.iter().position(Result::is_err);
        let same = match (failed(self), failed(ours)) {
            // What a failed layer leaves is containerd's to throw away.
            (Some(theirs), Some(ours)) if theirs == ours => return String::new(),
            (None, None) => self.outcomes == ours.outcomes,
            (Some(_) | None, Some(_) | None) => false,
        };
        let trees = self.tree.differences(&ours.tree);
        if same && trees.is_empty() {
            return String::new();
        }
        let told = |run: &Self| format!("{:#?}", run.outcomes);
        let outcomes = if same {
            String::new()
        } else {
            format!("containerd: {}\ntidehold: {}\n", told(self), told(ours))
        };
        format!("{outcomes}{trees}")
    }

    /// What the applier said.
    pub(crate) fn outcomes(&self) -> &[Result<Applied, String>] {
        &self.outcomes
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
