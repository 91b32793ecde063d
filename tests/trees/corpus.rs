//! Awkward layers, each a case with a name, and what containerd makes of it: that both make the same of it is what
//! is tested, and that it is what the case is there for.

mod compressed;
mod escapes;
mod framing;
mod headers;
mod links;
mod marks;
mod metadata;
mod replaced;
mod sparse;

pub(crate) use compressed::zstd_bomb;

use std::path::Path;

use crate::applier::Layer;
use crate::archive::{Entry, file, folder, hard_link, symlink, tar};
use crate::place::Mode;

pub(crate) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A stack of layers, given the folder outside of the root that some of them are after.
type Layers = Box<dyn Fn(&Path) -> Vec<Layer> + Send + Sync>;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) fate: Fate,
    pub(crate) layers: Layers,
}

/// What containerd makes of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Applied,
    Refused,
    /// Applied in this mode, refused in the other.
    AppliedOnly(Mode),
    /// Applied, and refused by the daemon: the case says why.
    RefusedByUs,
}

impl Fate {
    pub(crate) fn is_applied(self, mode: Mode) -> bool {
        match self {
            Self::Applied | Self::RefusedByUs => true,
            Self::Refused => false,
            Self::AppliedOnly(one) => one == mode,
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    [
        headers::cases(),
        metadata::cases(),
        replaced::cases(),
        marks::cases(),
        links::cases(),
        escapes::cases(),
        sparse::cases(),
        framing::cases(),
        compressed::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn applied(name: impl Into<String>, layers: impl Fn(&Path) -> Vec<Layer> + Send + Sync + 'static) -> Case {
    Case { name: name.into(), fate: Fate::Applied, layers: Box::new(layers) }
}

fn refused(name: impl Into<String>, layers: impl Fn(&Path) -> Vec<Layer> + Send + Sync + 'static) -> Case {
    Case { name: name.into(), fate: Fate::Refused, layers: Box::new(layers) }
}

fn applied_only(
    mode: Mode,
    name: &str,
    layers: impl Fn(&Path) -> Vec<Layer> + Send + Sync + 'static,
) -> Case {
    Case { name: name.to_owned(), fate: Fate::AppliedOnly(mode), layers: Box::new(layers) }
}

/// A layer as it is.
fn raw(bytes: impl Into<Vec<u8>>) -> Layer {
    Layer { bytes: bytes.into(), media_type: PLAIN }
}

/// A layer of these entries.
fn plain(entries: impl IntoIterator<Item = Entry>) -> Layer {
    raw(tar(entries))
}

/// Something for a layer to stand on.
fn base() -> Layer {
    plain([
        folder("etc").mode(0o750).owner(3, 4),
        file("etc/passwd", "root").mode(0o600).owner(1, 2),
        file("etc/shadow", "*").mode(0o000),
        folder("bin"),
        file("bin/tool", "tool").mode(0o4755),
        symlink("sbin", "bin"),
        symlink("absolute", "/etc"),
        folder("deep").mode(0o700),
        folder("deep/er").mode(0o1777).xattr("user.kept", "yes"),
        folder("deep/er/still").owner(7, 7),
        file("deep/er/still/file", "far down"),
        hard_link("deep/twin", "etc/passwd"),
    ])
}
