//! Where the unpacked programs are (`tests/support/packages.sh` fetches them), and why one is not there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A part that this machine has, or the reason in words why it has not.
pub(crate) type Available<T> = Result<T, String>;

/// The folder of a fetched part, `containerd-1.7` for one, that holds its package's tree.
pub(crate) fn part(name: &str) -> Available<PathBuf> {
    let cache = cache();
    let folder = cache.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(match std::fs::read_to_string(cache.join(format!("{name}.missing"))) {
        Ok(reason) => reason.trim().to_owned(),
        Err(_) => format!("{name} was not fetched (tests/run.sh does it)"),
    })
}

/// The folder that a part has its programs in.
pub(crate) fn programs(part: &Path) -> PathBuf {
    ["usr/bin", "usr/sbin"].iter().map(|place| part.join(place)).find(|place| place.is_dir()).unwrap_or_else(
        || panic!("{} holds no programs: remove it, and tests/run.sh fetches it again", part.display()),
    )
}

/// Whether a program can be run privately here, in namespaces of its own.
pub(crate) fn namespaces() -> Available<()> {
    static TRIED: OnceLock<Available<()>> = OnceLock::new();
    TRIED
        .get_or_init(|| {
            if !nix::unistd::geteuid().is_root() {
                return Err("it takes root (tests/run.sh asks sudo for it)".to_owned());
            }
            let tried = Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "mount", "-t", "proc", "proc", "/proc"])
                .output()
                .map_err(|error| format!("unshare does not run: {error}"))?;
            if tried.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&tried.stderr);
            Err(format!("no mount and process namespaces here: {}", said.trim()))
        })
        .clone()
}

fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("TIDEHOLD_TEST_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("tidehold-tests")))
        .or_else(|| Some(from("HOME")?.join(".cache/tidehold-tests")))
        .unwrap_or_else(|| PathBuf::from("/var/cache/tidehold-tests"))
}
