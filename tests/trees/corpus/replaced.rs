//! One path, several things in turn.

use super::{Case, applied, base, plain, refused};
use crate::archive::{file, folder, hard_link, symlink, whiteout};

pub(super) fn cases() -> Vec<Case> {
    vec![
        applied("a file twice", |_| {
            vec![plain([file("file", "longer than").mode(0o4755), file("file", "it")])]
        }),
        applied("a file in two layers", |_| vec![base(), plain([file("etc/passwd", "new").mode(0o640)])]),
        applied("a file replaced loses its xattrs and its other names", |_| {
            vec![plain([
                file("file", "1").xattr("user.x", "1"),
                hard_link("twin", "file"),
                file("file", "2"),
            ])]
        }),
        applied("file, folder, file", |_| {
            vec![plain([file("x", "1"), folder("x"), file("x/in", ""), file("x", "2")])]
        }),
        applied("folder, file, folder", |_| {
            vec![plain([
                folder("x").mode(0o700),
                file("x/in", ""),
                file("x", "2"),
                folder("x"),
                file("x/other", ""),
            ])]
        }),
        applied("folder, file, folder, over three layers", |_| {
            vec![
                plain([folder("x").mode(0o700), file("x/in", "")]),
                plain([file("x", "2")]),
                plain([folder("x").mode(0o711), file("x/other", "")]),
            ]
        }),
        applied("file, folder, file, over three layers", |_| {
            vec![plain([file("x", "1")]), plain([folder("x"), file("x/in", "")]), plain([file("x", "2")])]
        }),
        applied("a folder over a full folder keeps what is in it", |_| {
            vec![plain([folder("x"), file("x/in", ""), folder("x").mode(0o711)])]
        }),
        refused("a symlink to nowhere in the place of a folder whose time is still to be set", |_| {
            vec![plain([folder("x"), folder("x/y"), file("x/y/z", ""), symlink("x", "etc")])]
        }),
        applied("a symlink in a full folder's place", |_| {
            vec![base(), plain([symlink("deep", "etc"), file("deep/new", "")])]
        }),
        applied("a folder in a symlink's place", |_| {
            vec![plain([folder("etc"), symlink("x", "etc"), folder("x").mode(0o700), file("x/in", "")])]
        }),
        applied("a folder in a lower layer's symlink's place", |_| {
            vec![base(), plain([folder("sbin").mode(0o711), file("sbin/new", "")])]
        }),
        applied("a file in a symlink's place leaves what it pointed at", |_| {
            vec![plain([file("target", "kept"), symlink("x", "target"), file("x", "new")])]
        }),
        applied("a file through a symlink of the layer", |_| {
            vec![plain([
                folder("real").mode(0o700),
                symlink("way", "real"),
                file("way/file", "there"),
                folder("way/in"),
            ])]
        }),
        applied("a file through a symlink of a lower layer", |_| {
            vec![base(), plain([file("sbin/new", "there")])]
        }),
        applied("a file through an absolute symlink of a lower layer", |_| {
            vec![base(), plain([file("absolute/new", "there")])]
        }),
        applied("a file through a symlink to what comes later", |_| {
            vec![plain([symlink("way", "later/real"), file("way/file", ""), folder("later").mode(0o700)])]
        }),
        applied("a file through a chain of symlinks", |_| {
            vec![plain([
                folder("end"),
                symlink("c", "end"),
                symlink("b", "./c"),
                symlink("a", "/b/."),
                file("a/file", ""),
            ])]
        }),
        applied("a file through a symlink in a symlink's target", |_| {
            vec![plain([
                folder("x"),
                folder("x/y"),
                symlink("l", "x"),
                symlink("m", "l/y"),
                file("m/file", ""),
            ])]
        }),
        applied("a file through a symlink that steps up", |_| {
            vec![plain([
                folder("a"),
                folder("a/b"),
                folder("c"),
                symlink("a/b/up", "../../c"),
                file("a/b/up/file", ""),
            ])]
        }),
        applied("a symlink that steps up through a symlink", |_| {
            vec![plain([
                folder("x"),
                folder("x/y"),
                symlink("s", "x/y"),
                symlink("t", "s/../z"),
                file("t/file", ""),
            ])]
        }),
        applied("a symlink to the root", |_| {
            vec![plain([symlink("root", "/"), file("root/file", ""), folder("root/in")])]
        }),
        applied("the root through a symlink is left alone", |_| {
            vec![plain([symlink("root", "."), folder("root/").mode(0o700), folder("root/.").mode(0o711)])]
        }),
        applied("a symlink to itself as a name is replaced", |_| {
            vec![plain([symlink("loop", "loop"), file("loop", "straight")])]
        }),
        refused("a file through a symlink to itself", |_| {
            vec![plain([symlink("loop", "loop"), file("loop/file", "")])]
        }),
        refused("a file through symlinks in a circle", |_| {
            vec![plain([symlink("a", "b"), symlink("b", "c"), symlink("c", "a"), file("a/file", "")])]
        }),
        refused("a file through a symlink that goes on and on", |_| {
            vec![plain([symlink("a", "a/a"), file("a/file", "")])]
        }),
        applied("a long chain of symlinks", |_| {
            let links = (0..60).map(|at| symlink(format!("l{at}"), format!("l{}", at + 1)));
            vec![plain(links.chain([folder("l60"), file("l0/file", "")]))]
        }),
        refused("a chain of symlinks that is too long", |_| {
            let links = (0..300).map(|at| symlink(format!("l{at}"), format!("l{}", at + 1)));
            vec![plain(links.chain([folder("l300"), file("l0/file", "")]))]
        }),
        refused("a file beneath a file", |_| vec![plain([file("x", ""), file("x/y", "")])]),
        refused("a file beneath a file through a symlink", |_| {
            vec![plain([file("x", ""), symlink("l", "x"), file("l/y", "")])]
        }),
        applied("a dangling symlink", |_| vec![plain([symlink("x", "no/where"), file("z", "")])]),
        applied("a folder whose symlink is replaced before its time is set", |_| {
            vec![plain([
                folder("x").modified(5),
                folder("y").modified(6),
                file("x", "now a file").modified(7),
            ])]
        }),
        applied("a folder whose place is taken by a symlink before its time is set", |_| {
            vec![plain([folder("x").modified(5), folder("y").modified(6), symlink("x", "y").modified(7)])]
        }),
        refused("a symlink to nothing at all", |_| vec![plain([symlink("y", "")])]),
        refused("a folder that is gone before its time is set", |_| {
            vec![plain([folder("x"), folder("x/y"), file("x", "")])]
        }),
        applied("a hundred files of one folder, and one of others between", |_| {
            let files = (0..100).map(|at| {
                if at % 9 == 0 { file(format!("b/{at}"), "b") } else { file(format!("a/{at}"), "a") }
            });
            vec![plain(files)]
        }),
        applied("a folder that is replaced while others of its files come", |_| {
            vec![plain([
                folder("a"),
                file("a/1", ""),
                file("a", "a file between"),
                folder("a").mode(0o700),
                file("a/2", ""),
                symlink("a", "b"),
                folder("b"),
                file("a/3", "in b"),
            ])]
        }),
        applied("a folder above is replaced by a symlink while files come", |_| {
            vec![plain([
                folder("a"),
                folder("a/b"),
                file("a/b/1", ""),
                folder("other"),
                folder("other/b"),
                symlink("a", "other"),
                file("a/b/2", "in other/b"),
            ])]
        }),
        applied("what a symlink points at is replaced while files come through it", |_| {
            vec![plain([
                folder("a"),
                symlink("l", "a"),
                file("l/1", ""),
                folder("b"),
                symlink("l", "b"),
                file("l/2", "in b"),
            ])]
        }),
        applied("a folder is taken away by a mark and comes again while files come", |_| {
            vec![plain([file("a/1", "")]), plain([whiteout("a"), file("b", "")]), plain([file("a/2", "")])]
        }),
    ]
}
