//! Names and links that are after what is outside of the root.

use std::path::Path;

use super::{Case, applied, base, plain, refused};
use crate::archive::{CHARACTER, Entry, FIFO, file, folder, hard_link, opaque, symlink, whiteout};

/// More steps up than there are folders above any root.
const UP: &str = "../../../../../../../../../../../..";

pub(super) fn cases() -> Vec<Case> {
    vec![
        applied("names that begin with a dot and a slash", |_| {
            vec![plain([
                folder("./"),
                folder("./a/").mode(0o700),
                file("./a/b", ""),
                file(".//c", ""),
                hard_link("./d", "./c"),
            ])]
        }),
        applied("the root itself is left as it is", |_| {
            vec![plain([
                folder("./").mode(0o700).owner(5, 5),
                folder(".").mode(0o711),
                folder("/").modified(5),
                file("x", ""),
            ])]
        }),
        applied("a file in the root's place is left out", |_| {
            vec![plain([file(".", "data"), file("/", "data"), symlink("./", "x"), file("x", "")])]
        }),
        applied("slashes in plenty", |_| {
            vec![plain([folder("a//b///"), file("a//b//c", ""), file("//d", "")])]
        }),
        applied("absolute names", |_| {
            vec![plain([
                folder("/a").mode(0o711),
                file("/a/b", ""),
                symlink("/l", "/a"),
                hard_link("/t", "/a/b"),
                file("/etc/passwd", "ours"),
            ])]
        }),
        applied("names that step up within the root", |_| {
            vec![plain([folder("a"), file("a/../b", ""), folder("x/../y"), file("a/./c/../d", "")])]
        }),
        applied("names that step up beyond the root", |_| {
            vec![plain([
                file("../a", ""),
                folder("../b"),
                file("../../b/c", ""),
                file("/../d", ""),
                file("a/../../../e", ""),
            ])]
        }),
        applied("names that step up beyond the root, to what is outside by its name", |outside| {
            vec![plain([
                file(format!("{UP}{}/new", text(outside)), ""),
                file(format!("{UP}{}/file", text(outside)), ""),
            ])]
        }),
        applied("names that end in two dots", |_| {
            vec![plain([
                folder("a"),
                folder("a/b"),
                folder("a/b/..").mode(0o711),
                file("a/..", ""),
                folder("..").mode(0o700),
            ])]
        }),
        applied("whiteouts of what is beyond the root", |outside| {
            vec![
                base(),
                plain([
                    file("../.wh.outside", ""),
                    file(format!("{UP}{}/.wh.file", text(outside)), ""),
                    file("../../.wh..wh..opq", ""),
                ]),
            ]
        }),
        applied("a file through a symlink out of the root", |outside| {
            vec![plain([
                symlink("out", outside.as_os_str().as_encoded_bytes()),
                file("out/file", "ours"),
                file("out/new", ""),
            ])]
        }),
        applied("a file through a lower layer's symlink out of the root", |outside| {
            vec![
                plain([symlink("out", outside.as_os_str().as_encoded_bytes())]),
                plain([file("out/file", "ours"), file("out/folder/new", "")]),
            ]
        }),
        applied("a file through a symlink that steps up out of the root", |outside| {
            let target = format!("{UP}{}", text(outside));
            vec![plain([symlink("out", target), file("out/file", "ours"), folder("out/folder").mode(0o711)])]
        }),
        applied("a file through a symlink beside the root", |_| {
            vec![plain([
                symlink("out", "../../../outside"),
                file("out/file", "ours"),
                symlink("near", "../../.."),
                file("near/outside/new", ""),
            ])]
        }),
        applied("a file in a symlink's place, out of the root", |outside| {
            let file_outside = outside.join("file");
            vec![
                plain([symlink("out", text(&file_outside)), file("out", "ours")]),
                plain([symlink("again", text(&file_outside))]),
                plain([file("again", "ours")]),
            ]
        }),
        applied("a folder in a symlink's place, out of the root", |outside| {
            vec![plain([
                symlink("out", text(outside)),
                folder("out").mode(0o700).owner(9, 9),
                file("out/file", "ours"),
            ])]
        }),
        refused("a folder's time through a symlink out of the root", |outside| {
            vec![plain([folder("out").modified(5), symlink("out", text(outside)).modified(6)])]
        }),
        applied("metadata for a symlink out of the root is its own", |outside| {
            vec![plain([symlink("out", text(&outside.join("file")))
                .mode(0o4777)
                .owner(66, 66)
                .modified(5)
                .xattr("security.mine", "1")])]
        }),
        applied("devices and fifos through a symlink out of the root", |outside| {
            vec![plain([
                symlink("out", text(outside)),
                Entry::new(CHARACTER, "out/null").device(1, 3),
                Entry::new(FIFO, "out/fifo"),
            ])]
        }),
        applied("a symlink through a symlink out of the root", |outside| {
            vec![plain([symlink("out", text(outside)), symlink("out/more", "/etc"), file("out/more/x", "")])]
        }),
        applied("a whiteout through a symlink out of the root", |outside| {
            vec![
                plain([symlink("out", text(outside))]),
                plain([whiteout("out/file"), whiteout("out/folder")]),
            ]
        }),
        applied("an opaque mark through a symlink out of the root", |outside| {
            vec![plain([symlink("out", text(outside))]), plain([opaque("out"), file("x", "")])]
        }),
        applied("an opaque folder over a symlink out of the root", |outside| {
            vec![
                plain([
                    folder("a"),
                    symlink("a/out", text(outside)),
                    folder("a/in"),
                    symlink("a/in/out", text(outside)),
                ]),
                plain([folder("a"), opaque("a")]),
            ]
        }),
        applied("a full folder with a symlink out of the root is replaced", |outside| {
            vec![plain([
                folder("a"),
                symlink("a/out", text(outside)),
                symlink("a/up", "../../../../outside"),
                file("a", "gone"),
            ])]
        }),
        applied("a folder with a symlink out of the root is whited out", |outside| {
            vec![plain([folder("a"), symlink("a/out", text(outside))]), plain([whiteout("a")])]
        }),
        refused("a hard link to what is outside of the root", |outside| {
            vec![plain([hard_link("stolen", text(&outside.join("file")))])]
        }),
        refused("a hard link that steps up out of the root", |outside| {
            vec![plain([hard_link("stolen", format!("{UP}{}", text(&outside.join("file"))))])]
        }),
        refused("a hard link to what is beside the root", |_| {
            vec![plain([hard_link("stolen", "../../../outside/file")])]
        }),
        refused("a hard link through a symlink out of the root", |outside| {
            vec![plain([symlink("out", text(outside)), hard_link("stolen", "out/file")])]
        }),
        refused("a hard link through a symlink that steps up out of the root", |_| {
            vec![plain([symlink("out", "../../../outside"), hard_link("stolen", "out/file")])]
        }),
        applied("a hard link to a symlink out of the root is to the symlink", |outside| {
            let file_outside = text(&outside.join("file"));
            vec![plain([
                symlink("out", file_outside),
                hard_link("twin", "out").mode(0o4777).owner(66, 66).modified(9),
            ])]
        }),
        applied("a file in the place of a hard link to a symlink out of the root", |outside| {
            let file_outside = text(&outside.join("file"));
            vec![plain([symlink("out", file_outside), hard_link("twin", "out"), file("twin", "ours")])]
        }),
        applied("parents of a lower layer that are symlinks out of the root", |outside| {
            vec![
                plain([folder("a"), symlink("a/out", text(outside))]),
                plain([folder("a"), folder("a/out"), file("a/out/folder/new", "")]),
            ]
        }),
        refused("parents of a lower layer that are files", |_| {
            vec![plain([file("a", "")]), plain([file("a/b/c", "")])]
        }),
        applied("a symlink to the process's own folders", |_| {
            vec![plain([
                symlink("root", "/proc/self/root"),
                file("root/x", ""),
                symlink("cwd", "/proc/self/cwd"),
                file("cwd/x", ""),
            ])]
        }),
        applied("names of the kernel's own", |_| {
            vec![plain([folder("proc"), file("proc/self", ""), file("dev/null", "not a device")])]
        }),
    ]
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
