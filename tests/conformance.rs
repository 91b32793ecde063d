//! containerd's own tests of a content store, run against the built daemon: `tests/conformance`, a Go module, is
//! built once, and each of its tests is one here. Ignored, with the reason, where there is no Go to build it with.
//!
//! `TIDEHOLD_CONFORMANCE_CONTAINERD=v2.3.7` runs the tests of that release of containerd instead of the pinned
//! one.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test a panic is how it fails")]

#[path = "support/go.rs"]
mod go;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use go::{Go, Unbuilt, text};
use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

/// The tests of the Go module, and what they say of the daemon.
const TESTS: &[(&str, &str)] = &[
    ("TestBare", "the store alone"),
    ("TestUnderMetadataShared", "under containerd's metadata store, policy shared"),
    ("TestUnderMetadataIsolated", "under containerd's metadata store, policy isolated"),
    ("TestAcrossNamespacesShared", "across namespaces, policy shared"),
    ("TestAcrossNamespacesIsolated", "across namespaces, policy isolated"),
    ("TestSharedNamespaceUnderIsolated", "a namespace labelled shared, policy isolated"),
];

/// How long one of them may take.
const TIME_LIMIT: &str = "-test.timeout=10m";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let wanted = |name: &str| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter));
    let names = TESTS.iter().map(|(test, about)| (*test, format!("containerd's content suite: {about}")));
    let names: Vec<_> = names.collect();
    // Nothing is fetched or built for a list, or for tests that are not asked for.
    let runs = !arguments.list && names.iter().any(|(_, name)| wanted(name));
    let suite = runs.then(|| Suite::build().map(Arc::new));

    let trials = names.into_iter().map(|(test, name)| match &suite {
        Some(Ok(suite)) => {
            let suite = Arc::clone(suite);
            Trial::test(name, move || suite.run(test))
        }
        Some(Err(Unbuilt::NotHere(reason))) => {
            eprintln!("skipped: {name}: {reason}");
            let reason = reason.clone();
            Trial::test(name, move || Err(reason.into())).with_ignored_flag(true)
        }
        Some(Err(Unbuilt::Broken(output))) => {
            let output = output.clone();
            Trial::test(name, move || Err(output.into()))
        }
        None => Trial::test(name, || Ok(())),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The built test program, in a folder that goes with it.
struct Suite {
    program: PathBuf,
    _folder: TempDir,
}

impl Suite {
    fn build() -> Result<Self, Unbuilt> {
        let go = Go::find()?;
        let folder = TempDir::new().expect("a folder for the test program");
        let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
        let module = match std::env::var("TIDEHOLD_CONFORMANCE_CONTAINERD") {
            Ok(release) if !release.is_empty() => module_at(&go, &release, &pinned, folder.path())?,
            Ok(_) | Err(_) => pinned,
        };
        go.fetch(&module, &["list", "-mod=readonly", "-deps", "-test", "-f", "", "."])?;
        let program = folder.path().join("suite");
        go.build(&module, &["test", "-mod=readonly", "-c", "-o", &program.to_string_lossy(), "."])?;
        Ok(Self { program, _folder: folder })
    }

    fn run(&self, test: &str) -> Result<(), Failed> {
        let output = Command::new(&self.program)
            .args(["-test.v", TIME_LIMIT, "-test.run", &format!("^{test}$")])
            .env("TIDEHOLD", env!("CARGO_BIN_EXE_tidehold"))
            .output()?;
        let said = text(&output);
        // A suite that was renamed, or that leaves something out, must not pass for one that ran.
        let ran = said.contains(&format!("--- PASS: {test}/")) && !said.contains("--- SKIP: ");
        if output.status.success() && ran { Ok(()) } else { Err(said.into()) }
    }
}

/// A copy of the module that wants another release of containerd.
fn module_at(go: &Go, release: &str, pinned: &Path, folder: &Path) -> Result<PathBuf, Unbuilt> {
    let module = folder.join("module");
    fs::create_dir(&module).expect("a folder for the module");
    for entry in fs::read_dir(pinned).expect("the module") {
        let path = entry.expect("the module's files").path();
        let name: OsString = path.file_name().expect("a file's name").to_owned();
        fs::copy(&path, module.join(name)).expect("a copy of the module");
    }
    go.fetch(&module, &["get", &format!("github.com/containerd/containerd/v2@{release}")])?;
    go.fetch(&module, &["mod", "tidy"])?;
    Ok(module)
}
