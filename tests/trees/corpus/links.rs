//! Hard links: to what is in the layer, to what is below, to what is not there.

use super::{Case, applied, applied_only, base, plain, refused};
use crate::archive::{Entry, FIFO, file, folder, hard_link, opaque, symlink, whiteout};
use crate::place::Mode;

pub(super) fn cases() -> Vec<Case> {
    vec![
        applied("hard links within the layer", |_| {
            vec![plain([
                file("a", "one"),
                hard_link("b", "a"),
                folder("c"),
                hard_link("c/d", "a"),
                hard_link("e", "c/d"),
            ])]
        }),
        applied("a hard link whose target is absolute", |_| {
            vec![plain([file("a", ""), hard_link("b", "/a")])]
        }),
        applied("a hard link whose target begins with a dot", |_| {
            vec![plain([file("a", ""), hard_link("b", "./a"), hard_link("c", ".//a")])]
        }),
        applied("a hard link whose target steps up within the root", |_| {
            vec![plain([file("a", ""), folder("x"), hard_link("b", "x/../a")])]
        }),
        applied("a hard link whose target steps up beyond the root", |_| {
            vec![plain([file("a", ""), hard_link("b", "../../../a")])]
        }),
        applied("a hard link whose target has a slash at the end", |_| {
            vec![plain([folder("x"), file("x/a", ""), symlink("l", "x"), hard_link("b", "l//a")])]
        }),
        applied_only(Mode::Bind, "a hard link to a file of a lower layer", |_| {
            vec![base(), plain([hard_link("twin", "etc/passwd")])]
        }),
        applied_only(Mode::Bind, "a hard link to a file of the lowest of three", |_| {
            vec![base(), plain([file("other", "")]), plain([hard_link("etc/twin", "etc/passwd").mode(0o755)])]
        }),
        applied("a hard link to a file that the layer has in a lower one's place", |_| {
            vec![base(), plain([file("etc/passwd", "new"), hard_link("twin", "etc/passwd")])]
        }),
        applied("a hard link over a file of a lower layer", |_| {
            vec![base(), plain([file("new", "new"), hard_link("etc/passwd", "new")])]
        }),
        applied("a hard link over a full folder", |_| {
            vec![plain([folder("x"), file("x/in", ""), file("a", ""), hard_link("x", "a")])]
        }),
        refused("a hard link to what isn't there", |_| vec![plain([hard_link("b", "a")])]),
        refused("a hard link to what comes later", |_| vec![plain([hard_link("b", "a"), file("a", "")])]),
        refused("a hard link to itself, where nothing is", |_| vec![plain([hard_link("a", "a")])]),
        refused("a hard link to itself, where a file is", |_| {
            vec![plain([file("a", "gone"), hard_link("a", "a")])]
        }),
        refused("a hard link to a folder", |_| vec![plain([folder("a"), hard_link("b", "a")])]),
        refused("a hard link to the root", |_| vec![plain([file("a", ""), hard_link("b", "/")])]),
        refused("a hard link to nothing", |_| vec![plain([file("a", ""), hard_link("b", "")])]),
        refused("a hard link to the folder above", |_| vec![plain([file("a", ""), hard_link("b", "..")])]),
        refused("a hard link to the folder that it is in", |_| {
            vec![plain([folder("x"), hard_link("x/y", "x/.")])]
        }),
        applied("a hard link to a symlink is to the symlink", |_| {
            vec![plain([file("a", ""), symlink("l", "a"), hard_link("b", "l")])]
        }),
        applied("a hard link to a dangling symlink", |_| {
            vec![plain([symlink("l", "nowhere"), hard_link("b", "l").mode(0o600)])]
        }),
        applied("a hard link through a symlinked folder", |_| {
            vec![plain([
                folder("x"),
                file("x/a", ""),
                symlink("l", "x"),
                hard_link("b", "l/a"),
                hard_link("l/c", "b"),
            ])]
        }),
        applied_only(Mode::Bind, "a hard link through a lower layer's symlink", |_| {
            vec![base(), plain([folder("bin"), file("bin/new", ""), hard_link("twin", "sbin/new")])]
        }),
        applied("a setuid hard link", |_| {
            vec![plain([
                file("a", "suid").mode(0o4755).owner(5, 5),
                hard_link("b", "a").mode(0o4755).owner(5, 5),
                hard_link("c", "a").mode(0o755).owner(5, 5),
            ])]
        }),
        applied("a hard link of another owner takes the file along", |_| {
            vec![plain([
                file("a", "suid").mode(0o4755),
                hard_link("b", "a").mode(0o4755).owner(9, 9).modified(77),
            ])]
        }),
        applied("a hard link to a file with capabilities takes them away with its owner", |_| {
            let capability =
                b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
            vec![plain([
                file("a", "elf").mode(0o755).xattr("security.capability", capability),
                hard_link("b", "a").mode(0o755),
            ])]
        }),
        applied("a hard link to a fifo", |_| vec![plain([Entry::new(FIFO, "a"), hard_link("b", "a")])]),
        applied("what a hard link names is replaced, the link stays", |_| {
            vec![plain([file("a", "one"), hard_link("b", "a"), file("a", "two"), hard_link("c", "b")])]
        }),
        applied_only(Mode::Bind, "what a hard link names is whited out", |_| {
            vec![
                base(),
                plain([file("a", "one"), hard_link("b", "a"), whiteout("a")]),
                plain([whiteout("b")]),
            ]
        }),
        applied("a hard link's names over two layers", |_| {
            vec![
                plain([file("a", "one"), hard_link("b", "a")]),
                plain([file("a", "two"), hard_link("c", "a")]),
            ]
        }),
        refused("a hard link to a whiteout's name", |_| {
            vec![base(), plain([whiteout("etc/passwd"), hard_link("b", "etc/.wh.passwd")])]
        }),
        applied_only(Mode::Overlay, "a hard link to what a whiteout left", |_| {
            vec![base(), plain([whiteout("etc/passwd"), hard_link("b", "etc/passwd").owner(4, 4)])]
        }),
        applied("a hard link into an opaque folder", |_| {
            vec![
                base(),
                plain([file("new", ""), folder("deep"), hard_link("deep/again", "new"), opaque("deep")]),
            ]
        }),
        applied("a hard link of a name not UTF-8 by a record", |_| {
            vec![plain([file(b"\xff", "x"), hard_link("twin", "x").record("linkpath", b"\xff")])]
        }),
        refused("a hard link beneath a file", |_| vec![plain([file("a", ""), hard_link("a/b", "a")])]),
        applied("a great many names of one file", |_| {
            let links = (0..200).map(|at| hard_link(format!("l{at}"), "a"));
            vec![plain([file("a", "")].into_iter().chain(links))]
        }),
    ]
}
