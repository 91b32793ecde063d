//! The clients of a node that no distribution packages for all: `crictl` and `nerdctl`, built from the module in
//! `programs/` for whoever asks first. The first time takes minutes; what was made then stays beside cargo's own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::containerd::Version;
use crate::support::go::{Go, Unbuilt};
use crate::support::parts::Available;

/// Whether they can be had. That they do not compile is for the scenario to say, which then fails.
pub(crate) fn available(_: Version) -> Available<()> {
    match built() {
        Err(Unbuilt::NotHere(reason)) => Err(reason.clone()),
        Ok(_) | Err(Unbuilt::Broken(_)) => Ok(()),
    }
}

/// Where this one is.
pub(crate) fn program(name: &str) -> PathBuf {
    match built() {
        Ok(folder) => folder.join(name),
        Err(Unbuilt::NotHere(reason) | Unbuilt::Broken(reason)) => panic!("no {name}: {reason}"),
    }
}

fn built() -> &'static Result<PathBuf, Unbuilt> {
    static BUILT: OnceLock<Result<PathBuf, Unbuilt>> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> Result<PathBuf, Unbuilt> {
    let go = Go::find()?;
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/programs");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-programs");
    let to = format!("{}/", folder.display());
    go.fetch(&module, &["list", "-mod=readonly", "-deps", "-f", "", "tool"])?;
    go.build(&module, &["build", "-mod=readonly", "-trimpath", "-p", "2", "-o", &to, "tool"])?;
    Ok(folder)
}
