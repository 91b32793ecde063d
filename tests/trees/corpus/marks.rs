//! Whiteouts, opaque folders, and what only looks like them.

use super::{Case, applied, applied_only, base, plain, refused};
use crate::archive::{CHARACTER, Entry, file, folder, hard_link, opaque, symlink, whiteout};
use crate::place::Mode;

pub(super) fn cases() -> Vec<Case> {
    vec![
        applied("a whiteout of a file", |_| vec![base(), plain([whiteout("etc/passwd")])]),
        applied("a whiteout of a folder", |_| vec![base(), plain([whiteout("deep")])]),
        applied("a whiteout of a folder within", |_| vec![base(), plain([whiteout("deep/er/still")])]),
        applied("a whiteout of a symlink", |_| vec![base(), plain([whiteout("sbin"), whiteout("absolute")])]),
        applied("a whiteout of one name of several", |_| vec![base(), plain([whiteout("deep/twin")])]),
        applied("a whiteout of what isn't there", |_| {
            vec![base(), plain([whiteout("nothing"), whiteout("etc/nothing")])]
        }),
        applied("a whiteout in a folder that isn't there", |_| {
            vec![base(), plain([whiteout("no/such/thing")])]
        }),
        applied("a whiteout in the lowest layer", |_| vec![plain([whiteout("thing"), file("other", "")])]),
        applied("a whiteout beneath a whiteout", |_| {
            vec![base(), plain([whiteout("deep/er/still/file"), whiteout("deep/twin")])]
        }),
        applied("a whiteout with an owner, a mode and data", |_| {
            vec![
                base(),
                plain([
                    file("etc/.wh.passwd", "data").owner(5, 6).mode(0o4755).xattr("user.x", "1"),
                    file("after", ""),
                ]),
            ]
        }),
        applied("a whiteout that is a folder", |_| vec![base(), plain([folder("etc/.wh.passwd")])]),
        applied("a whiteout that is a folder with a slash", |_| {
            vec![base(), plain([folder("etc/.wh.passwd/")])]
        }),
        applied("a whiteout that is a symlink", |_| {
            vec![base(), plain([symlink("etc/.wh.passwd", "shadow")])]
        }),
        applied("a whiteout that is a hard link", |_| {
            vec![base(), plain([file("x", ""), hard_link("etc/.wh.passwd", "x")])]
        }),
        applied("a whiteout that is a device", |_| {
            vec![base(), plain([Entry::new(CHARACTER, "etc/.wh.passwd").device(1, 3)])]
        }),
        applied("a whiteout of an unknown kind", |_| {
            vec![
                base(),
                plain([file("etc/.wh.passwd", "").patch(156, "Z")]),
                plain([whiteout("etc/passwd"), file("x", "")]),
            ]
        }),
        applied("a whiteout through a symlinked parent", |_| vec![base(), plain([whiteout("sbin/tool")])]),
        applied("a whiteout through a symlinked parent of the layer", |_| {
            vec![base(), plain([symlink("way", "etc"), folder("etc"), whiteout("way/passwd")])]
        }),
        applied_only(Mode::Bind, "a whiteout before the thing itself", |_| {
            vec![
                base(),
                plain([whiteout("etc/passwd"), file("etc/passwd", "new")]),
                plain([whiteout("a"), whiteout("a")]),
            ]
        }),
        applied("a whiteout and then the thing itself", |_| {
            vec![base(), plain([whiteout("etc/passwd"), file("etc/passwd", "new")])]
        }),
        applied("a whiteout and then a folder in its place", |_| {
            vec![base(), plain([whiteout("deep"), folder("deep").mode(0o711), file("deep/new", "")])]
        }),
        applied_only(Mode::Bind, "a whiteout and then something beneath it", |_| {
            vec![base(), plain([whiteout("deep"), file("deep/new", "")])]
        }),
        applied_only(Mode::Bind, "a whiteout after the thing itself", |_| {
            vec![base(), plain([file("etc/passwd", "new"), whiteout("etc/passwd")])]
        }),
        applied_only(Mode::Bind, "a whiteout after a folder of the layer", |_| {
            vec![
                base(),
                plain([
                    folder("new").modified(3),
                    file("new/file", ""),
                    whiteout("etc/shadow"),
                    file("new2", ""),
                ]),
                plain([file("x/y", ""), whiteout("x")]),
            ]
        }),
        refused("a whiteout after a folder of the layer whose time is still to be set", |_| {
            vec![base(), plain([folder("new"), file("new/file", ""), whiteout("new")])]
        }),
        applied_only(Mode::Bind, "the same whiteout twice", |_| {
            vec![base(), plain([whiteout("etc/passwd"), whiteout("etc/passwd")])]
        }),
        applied_only(Mode::Bind, "whiteouts in two layers", |_| {
            vec![base(), plain([whiteout("etc/passwd")]), plain([whiteout("etc/passwd"), whiteout("etc")])]
        }),
        applied("a thing comes back over a whiteout", |_| {
            vec![base(), plain([whiteout("etc")]), plain([folder("etc").mode(0o711), file("etc/new", "")])]
        }),
        applied("a thing comes back over a whiteout, without its folder", |_| {
            vec![base(), plain([whiteout("etc")]), plain([file("etc/new", "")])]
        }),
        applied("an opaque folder", |_| {
            vec![base(), plain([folder("etc").mode(0o711), opaque("etc"), file("etc/new", "")])]
        }),
        applied("an opaque folder whose mark comes last", |_| {
            vec![
                base(),
                plain([
                    folder("etc"),
                    file("etc/new", ""),
                    folder("etc/in"),
                    file("etc/in/x", ""),
                    opaque("etc"),
                ]),
            ]
        }),
        applied("an opaque folder with children before and after the mark", |_| {
            vec![
                base(),
                plain([folder("deep"), file("deep/before", ""), opaque("deep"), file("deep/after", "")]),
            ]
        }),
        applied("an opaque folder with a child of the same name", |_| {
            vec![base(), plain([folder("etc"), file("etc/passwd", "new"), opaque("etc")])]
        }),
        applied("an opaque folder that keeps a folder it has", |_| {
            vec![
                base(),
                plain([
                    folder("deep"),
                    folder("deep/er").mode(0o711),
                    file("deep/er/new", ""),
                    opaque("deep"),
                ]),
            ]
        }),
        applied("an opaque folder with a child whose parent nobody names", |_| {
            vec![base(), plain([folder("deep"), file("deep/er/new", ""), opaque("deep")])]
        }),
        applied("an opaque folder that nobody names", |_| vec![base(), plain([opaque("deep")])]),
        applied("an opaque folder that isn't there", |_| vec![base(), plain([opaque("no/such/folder")])]),
        applied("an opaque folder within one", |_| {
            vec![
                base(),
                plain([
                    folder("deep"),
                    opaque("deep"),
                    folder("deep/er"),
                    opaque("deep/er"),
                    file("deep/er/new", ""),
                ]),
            ]
        }),
        applied("a folder marked opaque twice", |_| {
            vec![
                base(),
                plain([
                    folder("etc"),
                    opaque("etc"),
                    file("etc/new", ""),
                    opaque("etc"),
                    file("etc/newer", ""),
                ]),
            ]
        }),
        applied("a folder marked opaque twice, with something between", |_| {
            vec![base(), plain([opaque("etc"), whiteout("bin"), file("etc/in/new", ""), opaque("etc")])]
        }),
        applied("an opaque root", |_| vec![base(), plain([opaque(""), file("alone", "")])]),
        applied("an opaque root with what came before", |_| {
            vec![base(), plain([file("early", ""), opaque(""), file("late", "")])]
        }),
        applied("an opaque folder through a symlink", |_| {
            vec![base(), plain([opaque("sbin"), file("other", "")])]
        }),
        applied("an opaque folder through a symlink of the layer", |_| {
            vec![base(), plain([folder("etc"), symlink("way", "etc"), file("etc/new", ""), opaque("way")])]
        }),
        applied("an opaque folder in the lowest layer", |_| {
            vec![plain([folder("etc"), file("etc/x", ""), opaque("etc")])]
        }),
        applied("an opaque mark that is a folder", |_| {
            vec![base(), plain([folder("etc"), folder("etc/.wh..wh..opq")])]
        }),
        applied("an opaque mark that has data and metadata", |_| {
            vec![
                base(),
                plain([
                    folder("etc"),
                    file("etc/.wh..wh..opq", "some").mode(0o777).owner(3, 3),
                    file("x", ""),
                ]),
            ]
        }),
        applied("a folder is opaque and then replaced", |_| {
            vec![base(), plain([folder("etc"), opaque("etc"), file("etc", "a file")])]
        }),
        applied("a folder is opaque and its children are whited out", |_| {
            vec![base(), plain([folder("etc"), opaque("etc"), whiteout("etc/passwd")])]
        }),
        applied("aufs' own folders", |_| {
            vec![
                base(),
                plain([
                    folder(".wh..wh.plnk").mode(0o700),
                    file(".wh..wh.plnk/1.2", "pseudo"),
                    folder(".wh..wh.orph"),
                    file(".wh..wh.aufs", ""),
                    file("after", ""),
                ]),
            ]
        }),
        applied("a hard link to what aufs keeps aside", |_| {
            vec![
                base(),
                plain([
                    folder(".wh..wh.plnk"),
                    file(".wh..wh.plnk/1.2", "kept"),
                    hard_link("name", ".wh..wh.plnk/1.2"),
                ]),
            ]
        }),
        refused("a whiteout of nothing", |_| vec![base(), plain([file("etc/.wh.", "")])]),
        refused("a whiteout of the folder itself", |_| vec![base(), plain([file("etc/.wh..", "")])]),
        refused("a whiteout of the folder above", |_| vec![base(), plain([file("etc/.wh...", "")])]),
        refused("a whiteout of the root", |_| vec![base(), plain([file(".wh..", "")])]),
        refused("a whiteout of what is above the root", |_| vec![base(), plain([file(".wh...", "")])]),
        applied("a whiteout of a name of dots", |_| {
            vec![plain([file("....", "x")]), plain([file(".wh.....", "")])]
        }),
        applied("a whiteout of a whiteout's name", |_| vec![base(), plain([file("etc/.wh..wh.passwd", "")])]),
        applied("a folder with a mark's prefix, and a file in it", |_| {
            vec![base(), plain([file("etc/.wh.x/file", "")])]
        }),
        applied("names that only look like marks", |_| {
            vec![
                base(),
                plain([
                    file("etc/wh.passwd", ""),
                    file("etc/.wh", ""),
                    file("etc/.whpasswd", ""),
                    file("etc/a.wh.passwd", ""),
                ]),
            ]
        }),
        applied("a whiteout whose name is not UTF-8", |_| {
            vec![plain([file(b"\xff\xfe", "")]), plain([file(b".wh.\xff\xfe", "")])]
        }),
        refused("a whiteout beneath a file", |_| {
            vec![base(), plain([file("etc", ""), whiteout("etc/passwd")])]
        }),
        applied_only(Mode::Overlay, "a whiteout beneath a lower layer's file", |_| {
            vec![base(), plain([whiteout("etc/passwd/x")])]
        }),
        refused("an opaque mark beneath a file", |_| vec![base(), plain([file("etc", ""), opaque("etc")])]),
        applied("a symlink to a folder that is whited out", |_| {
            vec![base(), plain([whiteout("bin")]), plain([file("sbin/tool", "again")])]
        }),
        applied("a whiteout of a folder's symlink leaves the folder", |_| {
            vec![base(), plain([whiteout("sbin"), file("bin/x", "")])]
        }),
    ]
}
