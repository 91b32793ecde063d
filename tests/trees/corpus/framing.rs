//! Where an archive ends, and where it ought to.

use super::{Case, applied, base, plain, raw, refused};
use crate::archive::{BLOCK, file, folder, tar, unended};

pub(super) fn cases() -> Vec<Case> {
    vec![
        applied("no bytes at all", |_| vec![raw([])]),
        applied("nothing but the end", |_| vec![raw([0; 2 * BLOCK])]),
        applied("nothing but half of the end", |_| vec![raw([0; BLOCK])]),
        applied("an end of many blocks", |_| {
            vec![raw([tar([file("file", "")]), vec![0; 20 * BLOCK]].concat())]
        }),
        applied("no end", |_| vec![raw(unended([file("file", "12"), folder("folder")]))]),
        applied("half of an end", |_| vec![raw([unended([file("file", "12")]), vec![0; BLOCK]].concat())]),
        applied("no end, and a last file that fills its block", |_| {
            vec![raw(unended([file("file", [b'x'; BLOCK])]))]
        }),
        applied("bytes after the end, which count for the digest", |_| {
            vec![raw([tar([file("file", "")]), b"whatever follows".repeat(100)].concat())]
        }),
        applied("an archive after the end, which is not read", |_| {
            vec![raw([tar([file("first", "")]), tar([file("second", "")])].concat())]
        }),
        refused("an archive after half of an end", |_| {
            vec![raw([unended([file("first", "")]), vec![0; BLOCK], tar([file("second", "")])].concat())]
        }),
        refused("garbage after half of an end", |_| {
            vec![raw([unended([file("first", "")]), vec![0; BLOCK], vec![b'x'; BLOCK]].concat())]
        }),
        refused("less than a block", |_| vec![raw(&tar([file("file", "")])[..100])]),
        refused("a header cut short after an entry", |_| {
            let bytes = unended([file("first", "1"), file("second", "")]);
            vec![raw(&bytes[..2 * BLOCK + 300])]
        }),
        refused("an end cut short", |_| vec![raw([unended([file("file", "")]), vec![0; 100]].concat())]),
        refused("an end whose second half is cut short", |_| {
            vec![raw([unended([file("file", "")]), vec![0; BLOCK + 100]].concat())]
        }),
        refused("a file cut short", |_| vec![raw(&unended([file("file", vec![b'x'; 3000])])[..2000])]),
        refused("a file cut off before its first byte", |_| {
            vec![raw(&unended([file("file", vec![b'x'; 3000])])[..BLOCK])]
        }),
        refused("a large file cut short", |_| {
            vec![raw(&unended([file("file", vec![b'x'; 3 << 20])])[..2 << 20])]
        }),
        applied("a last file without its padding", |_| {
            vec![raw(&unended([file("file", "12345")])[..BLOCK + 5])]
        }),
        applied("a last file with part of its padding", |_| {
            vec![raw(&unended([file("file", "12345")])[..BLOCK + 100])]
        }),
        refused("an extended header cut short", |_| {
            vec![raw(&unended([file("file", "").record("comment", "c".repeat(2000))])[..BLOCK + 900])]
        }),
        refused("an entry of no archive's", |_| vec![raw([b'x'; 4 * BLOCK])]),
        refused("text", |_| vec![raw("this is no archive\n")]),
        refused("the second of three layers is cut short", |_| {
            vec![base(), raw(&tar([file("file", vec![b'x'; 3000])])[..1500]), plain([file("never", "")])]
        }),
        applied("an archive of many entries", |_| {
            vec![plain((0..3000).map(|at| {
                let name = format!("f{}/g{}/file-{at}", at % 7, at % 31);
                file(name, format!("{at}").repeat(at % 50))
                    .modified(1_000_000 + i64::from(i32::try_from(at).unwrap()))
            }))]
        }),
    ]
}
