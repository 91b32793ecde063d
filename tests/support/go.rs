//! Programs in Go that a test needs, built from a module of this repository that pins every version. What Go makes
//! on the way is kept in the cache folder of the fetched parts, where there is one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The Go toolchain.
#[derive(Debug)]
pub(crate) struct Go {
    program: PathBuf,
}

/// Why there is no program.
#[derive(Clone, Debug)]
pub(crate) enum Unbuilt {
    /// What it takes is not on this machine: the reason, and how to get it.
    NotHere(String),
    /// It does not compile: the compiler's words.
    Broken(String),
}

impl Go {
    pub(crate) fn find() -> Result<Self, Unbuilt> {
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

    /// Runs something that may fetch modules. That it fails says more of the machine than of what is built.
    pub(crate) fn fetch(&self, module: &Path, arguments: &[&str]) -> Result<(), Unbuilt> {
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

    /// Runs something that needs no more than what was fetched.
    pub(crate) fn build(&self, module: &Path, arguments: &[&str]) -> Result<(), Unbuilt> {
        let output = self.run(module, arguments);
        if output.status.success() { Ok(()) } else { Err(Unbuilt::Broken(text(&output))) }
    }

    fn run(&self, module: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        if let Some(cache) = std::env::var_os("TIDEHOLD_TEST_CACHE").filter(|value| !value.is_empty()) {
            let cache = std::path::absolute(cache).expect("a folder for the cache");
            command.env("GOCACHE", cache.join("go-build"));
        }
        command.args(arguments).current_dir(module).output().expect("go runs")
    }
}

/// What a program said, on both channels.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
