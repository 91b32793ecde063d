//! Where a layer goes: what a snapshotter's mounts come to on the disk.

use std::path::PathBuf;

/// One mount, as containerd tells it.
#[derive(Debug, Clone, Default)]
pub struct Mount {
    /// `bind`, `overlay` and others.
    pub kind: String,
    /// The folder of a `bind`.
    pub source: String,
    /// A place within the mounts before it; empty for the first.
    pub target: String,
    /// As in fstab, one each.
    pub options: Vec<String>,
}

/// The folder that a layer is written to, and how what it removes is said there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) root: PathBuf,
    pub(super) kind: TargetKind,
}

/// What a layer lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetKind {
    /// On nothing, or on what the folder has already: what is removed is removed.
    Whole,
    /// On other folders, by an overlay: what is removed is marked.
    Upper {
        /// The folders beneath, the uppermost first.
        lower: Vec<PathBuf>,
    },
}

/// Why nothing can be written there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoTarget {
    /// Somebody else may know how.
    Unknown(String),
    /// Nobody may.
    ReadOnly,
}

/// Options of a bind mount that change nothing of what is written beneath it.
const OF_NO_EFFECT: &[&str] =
    &["rw", "bind", "rbind", "private", "rprivate", "nodev", "nosuid", "noexec", "noatime"];

impl Target {
    /// # Errors
    /// When these mounts are of a kind that is not known here, or are read-only.
    pub(super) fn of(mounts: &[Mount]) -> Result<Self, NoTarget> {
        let [mount] = mounts else {
            return Err(NoTarget::Unknown(format!("{} mounts instead of one", mounts.len())));
        };
        if !mount.target.is_empty() {
            return Err(NoTarget::Unknown("a mount with a target".to_owned()));
        }
        if let Some(option) = mount.options.iter().find(|option| option.starts_with("X-containerd.")) {
            return Err(NoTarget::Unknown(format!("the mount option {option}")));
        }
        match mount.kind.as_str() {
            "bind" => bind(mount),
            "overlay" => overlay(mount),
            other => Err(NoTarget::Unknown(format!("a mount of type {other:?}"))),
        }
    }
}

fn bind(mount: &Mount) -> Result<Target, NoTarget> {
    let has = |wanted: &str| mount.options.iter().any(|option| option == wanted);
    if has("ro") {
        return Err(NoTarget::ReadOnly);
    }
    if let Some(option) = mount.options.iter().find(|option| !OF_NO_EFFECT.contains(&option.as_str())) {
        return Err(NoTarget::Unknown(format!("the option {option:?} of a bind mount")));
    }
    if !has("bind") && !has("rbind") {
        return Err(NoTarget::Unknown("a bind mount without the option bind".to_owned()));
    }
    Ok(Target { root: absolute(&mount.source)?, kind: TargetKind::Whole })
}

/// Only the upper folder is written to, so that the options of the mount itself do not matter.
fn overlay(mount: &Mount) -> Result<Target, NoTarget> {
    // The last of each counts.
    let value = |key: &str| mount.options.iter().rev().find_map(|option| option.strip_prefix(key));
    let upper = value("upperdir=").filter(|upper| !upper.is_empty());
    let root =
        absolute(upper.ok_or_else(|| NoTarget::Unknown("an overlay without an upperdir".to_owned()))?)?;
    let lower = value("lowerdir=").into_iter().flat_map(|lower| lower.split(':'));
    let lower = lower.filter(|lower| !lower.is_empty()).map(absolute).collect::<Result<_, _>>()?;
    if mount.options.iter().any(|option| option == "userxattr") {
        // Only within a user namespace, where containerd lets the kernel say what is opaque.
        return Err(NoTarget::Unknown("an overlay with userxattr".to_owned()));
    }
    Ok(Target { root, kind: TargetKind::Upper { lower } })
}

fn absolute(path: &str) -> Result<PathBuf, NoTarget> {
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(NoTarget::Unknown(format!("the path {path:?}, which is not absolute"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Mount { kind: kind.to_owned(), source: source.to_owned(), target: String::new(), options }
    }

    #[test]
    fn an_overlay_is_written_to_its_upper_folder() {
        let options = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"];
        let target = Target::of(&[mount("overlay", "overlay", &options)]).unwrap();
        let lower = vec![PathBuf::from("/b"), PathBuf::from("/a")];
        let kind = TargetKind::Upper { lower };
        assert_eq!(target, Target { root: "/u".into(), kind });
    }

    #[test]
    fn a_bind_mount_is_its_source() {
        let target = Target::of(&[mount("bind", "/s", &["rw", "rbind"])]).unwrap();
        assert_eq!(target, Target { root: "/s".into(), kind: TargetKind::Whole });
        let read_only = Target::of(&[mount("bind", "/s", &["ro", "rbind"])]);
        assert_eq!(read_only, Err(NoTarget::ReadOnly));
    }

    #[test]
    fn anything_else_is_for_somebody_else() {
        let overlay = mount("overlay", "overlay", &["lowerdir=/b:/a"]);
        let bind = mount("bind", "/s", &["rbind"]);
        let mapped = mount("bind", "/s", &["rbind", "uidmap=0:1:2"]);
        let inner = Mount { target: "/x".to_owned(), ..bind.clone() };
        let user = mount("overlay", "overlay", &["upperdir=/u", "userxattr"]);
        let cases = [vec![], vec![bind.clone(), bind], vec![overlay], vec![user], vec![mapped], vec![inner]];
        let erofs = vec![mount("erofs", "/x.erofs", &["ro", "loop"])];
        for mounts in cases.into_iter().chain([erofs]) {
            assert!(matches!(Target::of(&mounts), Err(NoTarget::Unknown(_))), "{mounts:?}");
        }
    }
}
