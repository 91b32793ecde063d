//! Layers applied to folders of their own, as root: what is left is looked at from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use ::tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::store::{Hold, Reading};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// An archive in the making.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn with(mut self, kind: EntryType, name: &str, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        // By hand: the builder refuses names that a layer may well have.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.with(EntryType::Regular, name, 0o644, "", data.as_bytes())
    }

    fn folder(self, name: &str) -> Self {
        self.with(EntryType::Directory, name, 0o755, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.with(EntryType::Symlink, name, 0o777, target, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.with(EntryType::Link, name, 0o644, target, b"")
    }

    /// Records for the next entry.
    fn records(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A hold, and a folder for a snapshot beside a file that nobody may touch.
struct Bench {
    folder: TempDir,
    hold: Hold,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::open(&folder.path().join("hold"), clock::now()).unwrap().0;
        fs::create_dir_all(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("canary"), "untouched").unwrap();
        Self { folder, hold }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn bind(&self) -> Vec<Mount> {
        let (kind, source) = ("bind".to_owned(), self.root().to_str().unwrap().to_owned());
        vec![Mount { kind, source, options: vec!["rbind".to_owned()], ..Mount::default() }]
    }

    fn overlay(&self, lower: &Path) -> Vec<Mount> {
        let root = self.root();
        let options = vec![format!("upperdir={}", root.display()), format!("lowerdir={}", lower.display())];
        vec![Mount { kind: "overlay".to_owned(), options, ..Mount::default() }]
    }

    fn apply(&self, layer: &[u8], media_type: &str, mounts: &[Mount]) -> Result<Applied, ApplyError> {
        let plan = Plan::new(media_type, mounts, true)?;
        let digest = Digest::of(layer);
        self.hold.keep(layer, &digest, clock::now()).unwrap();
        let Reading::Open(blob) = self.hold.read(&digest).unwrap() else { panic!("it was just kept") };
        let applied = plan.apply(blob, CancellationToken::new());
        assert_eq!(fs::read(self.folder.path().join("canary")).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 3, "nothing beside the root");
        applied
    }

    fn bound(&self, layer: Layer) -> Result<Applied, ApplyError> {
        self.apply(&layer.bytes(), TAR, &self.bind())
    }

    /// Every path beneath the root, with its content or target.
    fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        walk(&self.root(), &self.root(), &mut tree);
        tree
    }
}

fn walk(root: &Path, at: &Path, tree: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let what = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_dir() {
            walk(root, &path, tree);
            "/".to_owned()
        } else if kind.is_file() {
            fs::read_to_string(&path).unwrap()
        } else if kind.is_char_device() {
            "char".to_owned()
        } else {
            "other".to_owned()
        };
        tree.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), what);
    }
}

fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect()
}

#[test]
fn every_packing_comes_to_the_same_tree_and_digest() {
    let tar = Layer::new().folder("a/").file("a/b", "content").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&tar[..700]).unwrap();
    // A second member takes up where the first ends.
    let mut members = gzip.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&tar[700..]).unwrap();
    members.extend(gzip.finish().unwrap());
    let mut frames = zstd::encode_all(&tar[..700], 1).unwrap();
    frames.extend([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x']);
    frames.extend(zstd::encode_all(&tar[700..], 1).unwrap());

    for (layer, media_type) in [(&tar, TAR), (&tar, GZIP), (&members, GZIP), (&frames, ZSTD), (&frames, GZIP)]
    {
        let bench = Bench::new();
        let applied = bench.apply(layer, media_type, &bench.bind()).unwrap();
        assert_eq!(applied, Applied { digest: Digest::of(&tar), size: tar.len() as u64 });
        assert_eq!(bench.tree(), of(&[("a", "/"), ("a/b", "content")]));
    }
}

#[test]
fn bytes_behind_the_end_are_part_of_the_digest() {
    let bench = Bench::new();
    let mut tar = Layer::new().file("a", "1").bytes();
    tar.extend(vec![7; 1 << 20]);
    let applied = bench.apply(&tar, TAR, &bench.bind()).unwrap();
    assert_eq!(applied, Applied { digest: Digest::of(&tar), size: tar.len() as u64 });
}

#[test]
fn what_is_cut_off_or_damaged_is_an_error() {
    let tar = Layer::new().file("a", &"content".repeat(100_000)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut wrong = gzip.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 0xff;
    let mut followed = gzip.clone();
    followed.extend(b"something else");
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    let cases: &[(&[u8], &str)] = &[
        (&tar[..700], TAR),
        (&gzip[..gzip.len() - 9], GZIP),
        (&gzip[..gzip.len() / 2], GZIP),
        (&wrong, GZIP),
        (&followed, GZIP),
        (&zstd[..zstd.len() / 2], ZSTD),
    ];
    for (at, (layer, media_type)) in cases.iter().enumerate() {
        let bench = Bench::new();
        let applied = bench.apply(layer, media_type, &bench.bind());
        assert!(matches!(applied, Err(ApplyError::Damaged(_))), "case {at}: {applied:?}");
    }
}

#[test]
fn nothing_is_left_outside_the_root() {
    let names = ["../canary", "/../../canary", "out/canary", "up/canary", "a/../../canary"];
    for name in names {
        let bench = Bench::new();
        let outside = bench.folder.path().to_str().unwrap().to_owned();
        bench.bound(Layer::new().symlink("out", &outside).symlink("up", "..").file(name, "changed")).unwrap();
    }
    for link in ["../canary", "up/canary", "out/canary"] {
        let bench = Bench::new();
        let outside = bench.folder.path().to_str().unwrap().to_owned();
        let layer = Layer::new().symlink("out", &outside).symlink("up", "..").hard_link("mine", link);
        bench.bound(layer).unwrap_err();
        assert!(!bench.root().join("mine").exists());
    }
    for name in ["up/.wh.canary", "out/.wh.canary", "up/.wh..wh..opq", ".wh...", ".wh.."] {
        let bench = Bench::new();
        let outside = bench.folder.path().to_str().unwrap().to_owned();
        let _ = bench.bound(Layer::new().symlink("out", &outside).symlink("up", "..").file(name, ""));
    }
}

#[test]
fn a_link_within_the_root_is_followed_to_where_it_leads() {
    let bench = Bench::new();
    let layer =
        Layer::new().folder("usr/lib/").symlink("lib", "/usr/lib").file("lib/a", "1").file("lib/b/c", "2");
    bench.bound(layer).unwrap();
    let expected = [
        ("lib", "-> /usr/lib"),
        ("usr", "/"),
        ("usr/lib", "/"),
        ("usr/lib/a", "1"),
        ("usr/lib/b", "/"),
        ("usr/lib/b/c", "2"),
    ];
    assert_eq!(bench.tree(), of(&expected));
}

#[test]
fn later_entries_take_the_place_of_earlier_ones() {
    let bench = Bench::new();
    let layer = Layer::new()
        .file("a", "file")
        .folder("a/")
        .file("a/in", "1")
        .symlink("a", "b")
        .folder("a")
        .file("a/in", "2")
        .file("b", "first")
        .file("b", "second");
    bench.bound(layer).unwrap();
    assert_eq!(bench.tree(), of(&[("a", "/"), ("a/in", "2"), ("b", "second")]));
}

#[test]
fn over_a_lower_folder_removals_are_marked() {
    let bench = Bench::new();
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir_all(lower.path().join("d/e")).unwrap();
    fs::set_permissions(lower.path().join("d"), std::os::unix::fs::PermissionsExt::from_mode(0o2710))
        .unwrap();
    symlink("d", lower.path().join("l")).unwrap();
    let layer = Layer::new().file("d/.wh.gone", "").file("d/e/.wh..wh..opq", "").file("d/e/new", "1").bytes();
    bench.apply(&layer, TAR, &bench.overlay(lower.path())).unwrap();
    let expected = [("d", "/"), ("d/gone", "char"), ("d/e", "/"), ("d/e/new", "1")];
    assert_eq!(bench.tree(), of(&expected));
    assert_eq!(fs::metadata(bench.root().join("d")).unwrap().mode() & 0o7777, 0o2710, "as it is beneath");
    let gone = fs::metadata(bench.root().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = fs::File::open(bench.root().join("d/e")).unwrap().into();
    assert_eq!(xattrs::value(&opaque, b"trusted.overlay.opaque").unwrap(), Some(b"y".to_vec()));
}

#[test]
fn over_nothing_removals_are_made() {
    let bench = Bench::new();
    bench.bound(Layer::new().file("d/a", "1").file("d/old/b", "1").file("c", "1")).unwrap();
    let layer = Layer::new()
        .file("d/new", "2")
        .folder("d/old/")
        .file("d/.wh..wh..opq", "")
        .file("d/between/e", "2")
        .file("d/.wh..wh..opq", "")
        .file(".wh.c", "")
        .file(".wh.never-there", "");
    bench.bound(layer).unwrap();
    let between = [("d/between", "/"), ("d/between/e", "2")];
    let expected = [&[("d", "/"), ("d/new", "2"), ("d/old", "/")], &between[..]].concat();
    assert_eq!(bench.tree(), of(&expected));
}

#[test]
fn owner_mode_attributes_and_times_are_the_entries_own() {
    let bench = Bench::new();
    let records: &[(&str, &[u8])] = &[
        ("uid", b"70000"),
        ("gid", b"4294967294"),
        ("mtime", b"1500000000.123456789"),
        ("SCHILY.xattr.user.note", b"\0binary\n"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    let layer = Layer::new()
        .folder("d/")
        .records(records)
        .with(EntryType::Regular, "d/f", 0o6755, "", b"x")
        .hard_link("d/g", "d/f")
        .with(EntryType::Fifo, "p", 0o622, "", b"");
    bench.bound(layer).unwrap();
    let file = fs::metadata(bench.root().join("d/f")).unwrap();
    // The link's own header counted last.
    assert_eq!((file.mode() & 0o7777, file.uid(), file.nlink()), (0o644, 0, 2));
    assert_eq!(fs::metadata(bench.root().join("d")).unwrap().mtime(), 1_000_000_000);
    let pipe = fs::metadata(bench.root().join("p")).unwrap();
    assert!(pipe.file_type().is_fifo() && pipe.mode() & 0o7777 == 0o622);
    let open = fs::File::open(bench.root().join("d/f")).unwrap().into();
    assert_eq!(xattrs::names(&open).unwrap(), [b"user.note".to_vec()]);

    let bench = Bench::new();
    let layer = Layer::new().records(records).with(EntryType::Regular, "f", 0o6755, "", b"x");
    bench.bound(layer).unwrap();
    let file = fs::metadata(bench.root().join("f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o6755, 70000, u32::MAX - 1));
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_500_000_000, 123_456_789));
    assert_eq!((file.atime(), file.atime_nsec()), (1_500_000_000, 123_456_789));
}

#[test]
fn sparse_files_have_their_holes() {
    let old: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"10"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"1,2,7,1"),
        ("GNU.sparse.name", b"sparse"),
    ];
    let new: &[(&str, &[u8])] =
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"10")];
    let mut in_data = b"2\n1\n2\n7\n1\n".to_vec();
    in_data.resize(512, 0);
    in_data.extend(b"abc");
    let bench = Bench::new();
    let layer = Layer::new()
        .records(old)
        .with(EntryType::Regular, "GNUSparseFile.0/sparse", 0o644, "", b"abc")
        .records(new)
        .with(EntryType::Regular, "newer", 0o644, "", &in_data)
        .file("after", "1");
    bench.bound(layer).unwrap();
    let content = "\0ab\0\0\0\0c\0\0";
    assert_eq!(bench.tree(), of(&[("sparse", content), ("newer", content), ("after", "1")]));
    let missing = Layer::new().records(old).with(EntryType::Regular, "x", 0o644, "", b"ab");
    assert!(matches!(Bench::new().bound(missing), Err(ApplyError::Damaged(_))));
}

#[test]
fn a_request_that_nobody_waits_for_ends() {
    let bench = Bench::new();
    let layer = Layer::new().file("a", "1").bytes();
    let digest = Digest::of(&layer);
    bench.hold.keep(&layer, &digest, clock::now()).unwrap();
    let Reading::Open(blob) = bench.hold.read(&digest).unwrap() else { panic!("it was just kept") };
    let cancel = CancellationToken::new();
    cancel.cancel();
    let applied = Plan::new(TAR, &bench.bind(), false).unwrap().apply(blob, cancel);
    assert!(matches!(applied, Err(ApplyError::Cancelled)), "{applied:?}");
}

#[test]
fn what_is_not_known_here_is_left_to_somebody_else() {
    let bench = Bench::new();
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.erofs.layer.v1",
        "application/vnd.oci.image.layer.v1.tar+lz4",
        "",
    ] {
        let planned = Plan::new(media_type, &bench.bind(), false);
        assert!(matches!(planned, Err(ApplyError::Unsupported(_))), "{media_type}");
    }
}

/// An entry whose name is in the records in front of it.
fn named(layer: Layer, kind: EntryType, name: &str) -> Layer {
    layer.records(&[("path", name.as_bytes())]).with(kind, "x", 0o755, "", b"")
}

#[test]
fn names_longer_than_the_system_s_are_refused_however_they_come_about() {
    let bench = Bench::new();
    let layer = (1..2100).fold(Layer::new(), |layer, depth| {
        named(layer, EntryType::Directory, &["a"; 2100][..depth].join("/"))
    });
    let applied = bench.bound(layer.file("a", "in its place"));
    assert!(matches!(applied, Err(ApplyError::Disk(_))), "{applied:?}");
}

#[test]
fn a_tree_as_deep_as_names_go_is_made_and_removed() {
    let deepest = ["a"; 2047].join("/");
    let bench = Bench::new();
    bench.bound(named(Layer::new(), EntryType::Regular, &deepest)).unwrap();
    bench.bound(Layer::new().file("a", "in its place")).unwrap();
    assert_eq!(bench.tree(), BTreeMap::from([("a".to_owned(), "in its place".to_owned())]));
}
