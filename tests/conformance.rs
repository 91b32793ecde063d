//! containerd's own tests of a content store, run against the built daemon: `tests/conformance`, a Go module, is
//! built once, and each of its tests is one here. Ignored, with the reason, where there is no Go to build it with.
//!
//! `TIDEHOLD_CONFORMANCE_CONTAINERD=v2.3.7` runs the tests of that release of containerd instead of the pinned
//! one.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test a panic is how it fails")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;

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

/// Why there is no test program.
enum Unbuilt {
    /// What it takes is not on this machine: the reason, and how to get it.
    NotHere(String),
    /// It does not compile: the compiler's words.
    Broken(String),
}

impl Suite {
    fn build() -> Result<Self, Unbuilt> {
        let go = Go::find()?;
        let folder = TempDir::new().expect("a folder for the test program");
        let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
        let module = match std::env::var("TIDEHOLD_CONFORMANCE_CONTAINERD") {
            Ok(release) if !release.is_empty() => go.module_at(&release, &pinned, folder.path())?,
            Ok(_) | Err(_) => pinned,
        };
        go.fetch(&module, &["list", "-mod=readonly", "-deps", "-test", "-f", "", "."])?;
        let program = folder.path().join("suite");
        let built = go.run(&module, &["test", "-mod=readonly", "-c", "-o", &program.to_string_lossy(), "."]);
        if built.status.success() {
            Ok(Self { program, _folder: folder })
        } else {
            Err(Unbuilt::Broken(text(&built)))
        }
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

/// The Go toolchain.
struct Go {
    program: PathBuf,
}

impl Go {
    fn find() -> Result<Self, Unbuilt> {
        // Under sudo the search path may lack the place that Go's own instructions install to.
        ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"]
            .into_iter()
            .find(|program| {
                Command::new(program).arg("version").output().is_ok_and(|output| output.status.success())
            })
            .map(|program| Self { program: program.into() })
            .ok_or_else(|| {
                Unbuilt::NotHere(
                    "no Go toolchain: install Go 1.25 or later from https://go.dev/dl, or a distribution's \
                     golang package of Go 1.21 or later, which then fetches the later one itself"
                        .to_owned(),
                )
            })
    }

    /// A copy of the module that wants another release of containerd.
    fn module_at(&self, release: &str, pinned: &Path, folder: &Path) -> Result<PathBuf, Unbuilt> {
        let module = folder.join("module");
        fs::create_dir(&module).expect("a folder for the module");
        for entry in fs::read_dir(pinned).expect("the module") {
            let path = entry.expect("the module's files").path();
            let name: OsString = path.file_name().expect("a file's name").to_owned();
            fs::copy(&path, module.join(name)).expect("a copy of the module");
        }
        self.fetch(&module, &["get", &format!("github.com/containerd/containerd/v2@{release}")])?;
        self.fetch(&module, &["mod", "tidy"])?;
        Ok(module)
    }

    /// Runs something that may fetch modules. That it fails says more of the machine than of the suite.
    fn fetch(&self, module: &Path, arguments: &[&str]) -> Result<(), Unbuilt> {
        let output = self.run(module, arguments);
        if output.status.success() {
            return Ok(());
        }
        let said = text(&output);
        let why = said.trim().lines().last().unwrap_or("it said nothing");
        Err(Unbuilt::NotHere(format!(
            "Go's modules cannot be had, and it takes a Go module proxy that can be reached (GOPROXY), or modules \
             that were fetched before: {why}"
        )))
    }

    fn run(&self, module: &Path, arguments: &[&str]) -> Output {
        Command::new(&self.program).args(arguments).current_dir(module).output().expect("go runs")
    }
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
