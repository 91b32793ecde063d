//! The readers of others, built from the Go module beside this.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::go::{Go, Unbuilt};

const PACKAGES: [&str; 2] = ["./check", "github.com/rhysd/actionlint/cmd/actionlint"];

/// The programs, in a folder that goes with them.
#[derive(Debug)]
pub(crate) struct Checks {
    folder: TempDir,
}

/// That they can be had.
pub(crate) fn available() -> Result<(), Unbuilt> {
    Checks::once().map(|_| ())
}

/// What `check` makes of it: `kubernetes`, `containerfile` or `yaml`.
pub(crate) fn check(what: &str, path: &Path) -> Value {
    let output = Command::new(program("check")).arg(what).arg(path).output().expect("the check runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", path.display());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub(crate) fn program(name: &str) -> PathBuf {
    Checks::once().expect("what was found to be available").folder.path().join(name)
}

impl Checks {
    /// Builds them for whoever asks first.
    fn once() -> Result<Arc<Self>, Unbuilt> {
        static BUILT: OnceLock<Result<Arc<Checks>, Unbuilt>> = OnceLock::new();
        BUILT.get_or_init(|| Self::build().map(Arc::new)).clone()
    }

    fn build() -> Result<Self, Unbuilt> {
        let go = Go::find()?;
        let module = crate::top().join("tests/deploy");
        let folder = TempDir::new().expect("a folder for the programs");
        let to = format!("{}/", folder.path().display());
        go.fetch(&module, &[&["list", "-mod=readonly", "-deps", "-f", ""], &PACKAGES[..]].concat())?;
        go.build(&module, &[&["build", "-mod=readonly", "-p", "2", "-o", &to], &PACKAGES[..]].concat())?;
        Ok(Self { folder })
    }
}
