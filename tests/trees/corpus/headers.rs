//! Names and numbers in all the forms that headers have for them.

use super::{Case, applied, plain, raw, refused};
use crate::archive::{
    Dialect, EXTENDED, FILE, FOLDER, GLOBAL, GNU_LINK, GNU_NAME, base_256, extended, file, folder, gnu_long,
    hard_link, records, symlink, tar,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        applied("an archive of nothing", |_| vec![plain([])]),
        applied("a file with the oldest header", |_| {
            vec![plain([file("file", "v7").dialect(Dialect::V7).owner(5, 6)])]
        }),
        applied("a folder of the oldest kind, by its slash alone", |_| {
            let folder = file("folder/", "").dialect(Dialect::V7).mode(0o755).patch(156, [0]);
            vec![plain([folder, file("folder/file", "in it").dialect(Dialect::V7)])]
        }),
        applied("a file whose type flag is a NUL", |_| vec![plain([file("file", "NUL").patch(156, [0])])]),
        applied("a type flag of NUL and a slash at the end", |_| {
            vec![plain([file("folder/", "").patch(156, [0]).mode(0o755)])]
        }),
        applied("a regular file with a slash at the end", |_| vec![plain([file("file/", "a slash")])]),
        applied("a symlink with a slash at the end", |_| vec![plain([symlink("link/", "target")])]),
        refused("a contiguous file", |_| vec![plain([file("file", "contiguous").patch(156, b"7")])]),
        applied("a name of just the field's length", |_| vec![plain([file(component(100), "100")])]),
        applied("a long name in prefix and name", |_| {
            vec![plain([file(component(100), "x").prefix(long(154))])]
        }),
        applied("a prefix in star's dialect", |_| {
            vec![plain([file("file", "star").prefix("from/star").dialect(Dialect::Star)])]
        }),
        applied("a prefix that gnu's dialect has no such field for", |_| {
            vec![plain([file("file", "gnu").dialect(Dialect::Gnu).patch(345, "7654321 ")])]
        }),
        applied("gnu's times of access and change", |_| {
            let times =
                file("file", "gnu").dialect(Dialect::Gnu).patch(345, "07654321000").patch(357, "07654322000");
            vec![plain([times])]
        }),
        applied("gnu's time of access in base 256", |_| {
            let mut field = [0; 12];
            base_256(&mut field, 1_100_000_000);
            vec![plain([file("file", "gnu").dialect(Dialect::Gnu).patch(345, field)])]
        }),
        applied("a gnu name without a header of its own dialect", |_| {
            vec![plain([gnu_long(GNU_NAME, long(250)), file("short", "long")])]
        }),
        applied("a gnu name and a gnu link", |_| {
            let (name, link) = (gnu_long(GNU_NAME, long(180)), gnu_long(GNU_LINK, long(300)));
            vec![plain([name, link, symlink("short", "short").dialect(Dialect::Gnu)])]
        }),
        applied("a gnu link before a gnu name", |_| {
            let (name, link) = (gnu_long(GNU_NAME, long(180)), gnu_long(GNU_LINK, long(300)));
            vec![plain([link, name, symlink("short", "short").dialect(Dialect::Gnu)])]
        }),
        applied("two gnu names, the last counts", |_| {
            vec![plain([gnu_long(GNU_NAME, "first"), gnu_long(GNU_NAME, "second"), file("third", "")])]
        }),
        applied("a gnu name that ends at its first NUL", |_| {
            vec![plain([gnu_long(GNU_NAME, b"cut\0short"), file("x", "")])]
        }),
        applied("an empty gnu name", |_| vec![plain([gnu_long(GNU_NAME, ""), file("kept", "")])]),
        applied("a gnu name for one entry alone", |_| {
            vec![plain([gnu_long(GNU_NAME, "renamed"), file("x", "1"), file("y", "2")])]
        }),
        applied("a gnu name and a pax name", |_| {
            vec![plain([gnu_long(GNU_NAME, "gnu"), file("ustar", "").record("path", "pax")])]
        }),
        applied("a pax name before a gnu name", |_| {
            let pax = extended(EXTENDED, &records(&[("path", "pax")]));
            vec![plain([pax, gnu_long(GNU_NAME, "gnu"), file("ustar", "")])]
        }),
        applied("a gnu folder's name with its slash", |_| {
            vec![plain([gnu_long(GNU_NAME, "from/gnu/"), file("x", "").mode(0o755).patch(156, [0])])]
        }),
        applied("a pax name", |_| vec![plain([file("short", "long").record("path", long(700))])]),
        applied("a pax name with a slash at the end of a regular file", |_| {
            vec![plain([file("short", "").record("path", "folder/")])]
        }),
        applied("a pax link", |_| {
            let target = "t".repeat(300);
            vec![plain([symlink("link", "short").record("linkpath", target)])]
        }),
        applied("a pax name that takes the header's name back", |_| {
            vec![plain([file("kept", "").record("path", "")])]
        }),
        applied("a record twice, the last counts", |_| {
            vec![plain([file("x", "").record("path", "first").record("path", "second")])]
        }),
        applied("two extended headers before one entry", |_| {
            let one = extended(EXTENDED, &records(&[("path", "first"), ("uid", "77")]));
            let other = extended(EXTENDED, &records(&[("path", "second")]));
            vec![plain([one, other, file("x", "")])]
        }),
        applied("a global header is not heeded", |_| {
            let global = extended(GLOBAL, &records(&[("path", "global"), ("uid", "9"), ("mtime", "77")]));
            vec![plain([global, file("file", ""), file("other", "")])]
        }),
        applied("a global header's own name", |_| {
            let records = records(&[("comment", "0123456789")]);
            vec![plain([extended(GLOBAL, &records).patch(0, "pax_global_header\0"), file("file", "")])]
        }),
        applied("an extended header before a global one", |_| {
            let own = extended(EXTENDED, &records(&[("path", "pax")]));
            let global = extended(GLOBAL, &records(&[("comment", "between")]));
            vec![plain([own, global, file("x", "")])]
        }),
        refused("a global header that isn't records", |_| {
            vec![plain([extended(GLOBAL, b"not records"), file("file", "")])]
        }),
        refused("a record longer than it says", |_| {
            vec![plain([extended(EXTENDED, b"9 path=longer\n"), file("x", "")])]
        }),
        refused("a record without an equals sign", |_| {
            vec![plain([extended(EXTENDED, b"8 path\n\n"), file("x", "")])]
        }),
        refused("a record of no length", |_| vec![plain([extended(EXTENDED, b"0 path=x\n"), file("x", "")])]),
        refused("a record with an empty key", |_| vec![plain([file("x", "").record("", "value")])]),
        refused("a record that has a NUL in its path", |_| {
            vec![plain([file("x", "").record("path", b"a\0b")])]
        }),
        applied("a NUL in an xattr's value", |_| vec![plain([file("x", "").xattr("user.nul", b"a\0b")])]),
        refused("a NUL in an xattr's name", |_| vec![plain([file("x", "").xattr("user.a\0b", "c")])]),
        applied("an extended header that no entry follows", |_| {
            vec![plain([file("file", ""), extended(EXTENDED, &records(&[("path", "nobody")]))])]
        }),
        refused("an extended header of more than a mebibyte", |_| {
            let comment = "c".repeat((1 << 20) + 1);
            vec![plain([file("file", "").record("comment", comment)])]
        }),
        refused("a gnu name of more than a mebibyte", |_| {
            vec![plain([gnu_long(GNU_NAME, "n".repeat((1 << 20) + 1)), file("file", "")])]
        }),
        applied("an extended header of nearly a mebibyte", |_| {
            let comment = "c".repeat((1 << 20) - 100);
            vec![plain([file("file", "").record("comment", comment)])]
        }),
        applied("names that are not UTF-8", |_| {
            let pax = file("x", "").record("path", b"pax-\xff\xfe");
            let gnu = gnu_long(GNU_NAME, b"gnu-\xc3\x28");
            vec![plain([
                file(b"latin-\xe9", ""),
                folder(b"f\xf6lder"),
                file(b"f\xf6lder/\x80", ""),
                pax,
                gnu,
                file("y", ""),
            ])]
        }),
        applied("a link's target that is not UTF-8", |_| {
            let target = symlink("pax", "x").record("linkpath", b"\xff/\xfe");
            vec![plain([
                symlink("link", b"\xe9t\xe9"),
                target,
                file(b"\xe9", "1"),
                hard_link("twin", b"\xe9"),
            ])]
        }),
        applied("names with spaces, newlines and the like", |_| {
            vec![plain([
                file("a b", ""),
                file("new\nline", ""),
                file("back\\slash", ""),
                file("tab\t", ""),
                file(" ", ""),
            ])]
        }),
        applied("names of dots that are names", |_| {
            vec![plain([file("...", ""), folder("..folder"), file("..folder/.hidden", ""), file(".x", "")])]
        }),
        applied("a component as long as a file system takes", |_| {
            vec![plain([file("x", "").record("path", component(255))])]
        }),
        refused("a component longer than a file system takes", |_| {
            vec![plain([file("x", "").record("path", component(256))])]
        }),
        refused("a path longer than a call takes", |_| {
            vec![plain([file("x", "").record("path", format!("{}file", "folder/".repeat(700)))])]
        }),
        applied("owners that octal has no room for", |_| {
            vec![plain([
                file("file", "").owner(3_000_000_000, 4_000_000_000),
                file("other", "").owner(0o7777777, 0o7777777),
            ])]
        }),
        applied("owners by records", |_| {
            vec![plain([
                file("file", "").record("uid", "3000000000").record("gid", "70000"),
                file("other", "").owner(1, 1),
            ])]
        }),
        applied("owners by names, which nobody looks up", |_| {
            vec![plain([file("file", "")
                .owner(12, 13)
                .record("uname", "nobody")
                .record("gname", "daemon")
                .patch(265, "bin\0")])]
        }),
        applied("an owner of -1 leaves it as it is", |_| vec![plain([file("file", "").owner(-1, 5)])]),
        applied("an owner beyond 32 bits", |_| vec![plain([file("file", "").record("uid", "4294967301")])]),
        refused("an owner that isn't a number", |_| vec![plain([file("file", "").record("uid", "root")])]),
        applied("a negative owner by a record", |_| vec![plain([file("file", "").record("uid", "-5")])]),
        applied("empty records take the header's word", |_| {
            vec![plain([file("file", "")
                .owner(8, 9)
                .record("uid", "")
                .record("gid", "")
                .record("mtime", "")])]
        }),
        applied("a size in base 256", |_| {
            let mut field = [0; 12];
            base_256(&mut field, 5);
            vec![plain([file("file", "bytes").patch(124, field), file("next", "")])]
        }),
        applied("a size by a record", |_| {
            vec![plain([file("file", "seven b").claims_size(0).record("size", "7"), file("next", "")])]
        }),
        refused("a negative size", |_| vec![plain([file("file", "").claims_size(-1)])]),
        refused("a negative size by a record", |_| vec![plain([file("file", "").record("size", "-1")])]),
        refused("a size beyond 63 bits", |_| {
            vec![plain([file("file", "").patch(124, [0xff; 12]).patch(124, [0x80])])]
        }),
        applied("numbers with spaces before and after", |_| {
            vec![plain([file("file", "12345")
                .patch(124, "         5 \0")
                .patch(108, "   12 \0\0")
                .patch(100, " 644 \0\0\0")])]
        }),
        applied("numbers that fill their fields", |_| {
            vec![plain([file("file", "12345")
                .patch(124, "000000000005")
                .patch(108, "00000012")
                .patch(136, "07654321000\0")])]
        }),
        refused("numbers that aren't", |_| vec![plain([file("file", "").patch(124, "garbage!\0\0\0\0")])]),
        refused("numbers in no octal digits", |_| vec![plain([file("file", "").patch(108, "0000089\0")])]),
        applied("empty numbers", |_| {
            vec![plain([file("file", "")
                .patch(100, [0; 8])
                .patch(108, [0; 16])
                .patch(124, [b' '; 12])
                .patch(136, [0; 12])])]
        }),
        applied("a mode with a file's type in it", |_| {
            vec![plain([file("file", "").mode(0o100_640), folder("folder").mode(0o040_711)])]
        }),
        applied("a mode that speaks of another type than the flag", |_| {
            vec![plain([
                file("file", "").mode(0o040_755),
                folder("folder").mode(0o120_755),
                symlink("link", "x").mode(0o100_600),
            ])]
        }),
        applied("a mode in base 256", |_| {
            let mut field = [0; 8];
            base_256(&mut field, 0o2755);
            vec![plain([file("file", "").patch(100, field)])]
        }),
        applied("a mode beyond its bits", |_| vec![plain([file("file", "").mode(0o7_777_777)])]),
        applied("data on entries that have none", |_| {
            let with = |flag, name: &str| file(name, "").claims_size(700).patch(156, [flag]);
            vec![plain([
                with(FOLDER, "folder").mode(0o755),
                file("after", "1"),
                symlink("link", "x").claims_size(5),
                file("last", "2"),
            ])]
        }),
        applied("a device and a fifo that claim a size", |_| {
            let with = |flag, name: &str| file(name, "").claims_size(900).patch(156, [flag]);
            vec![plain([with(b'3', "device"), with(b'6', "fifo"), file("after", "1")])]
        }),
        refused("a hard link that has data, as pax may", |_| {
            vec![plain([file("file", "one"), hard_link("twin", "file").data("one"), file("after", "2")])]
        }),
        refused("unknown type flags", |_| vec![plain([file("before", ""), file("odd", "").patch(156, "Z")])]),
        refused("solaris' extended header", |_| {
            vec![plain([file("odd", "").patch(156, "X"), file("after", "")])]
        }),
        refused("a volume's label", |_| vec![plain([file("label", "").patch(156, "V"), file("after", "")])]),
        refused("a gnu dump's folder", |_| {
            vec![plain([file("dump", "x\0").patch(156, "D").dialect(Dialect::Gnu)])]
        }),
        refused("a continued volume", |_| {
            vec![plain([file("rest", "x").patch(156, "M").dialect(Dialect::Gnu)])]
        }),
        refused("an unknown type flag on what is ignored otherwise", |_| {
            vec![plain([file("./", "").patch(156, "Z").patch(0, "x")])]
        }),
        refused("a wrong checksum", |_| {
            vec![plain([file("first", ""), file("second", "").with_a_wrong_checksum()])]
        }),
        applied("a checksum of signed bytes", |_| {
            let mut bytes = tar([file(b"sign\xff\xfed", "1")]);
            let sum: i64 =
                (0..512)
                    .map(|at| {
                        if (148..156).contains(&at) { 32 } else { i64::from(i8::from_ne_bytes([bytes[at]])) }
                    })
                    .sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            vec![raw(bytes)]
        }),
        applied("other magic and version", |_| {
            vec![plain([file("unknown", "").patch(257, "magical!"), file("versioned", "").patch(263, "99")])]
        }),
        applied("a name in the header with no NUL, and a link's", |_| {
            let name = file(component(100), "").patch(157, "l".repeat(100));
            vec![plain([name])]
        }),
        applied("file flags as old Go wrote them", |_| {
            vec![plain([file("old", "regular").patch(156, [0]).patch(257, "ustar\x0000")])]
        }),
        applied("an empty name", |_| vec![plain([file("", "nameless"), file("named", "")])]),
        applied("an empty folder's name", |_| vec![plain([folder("").mode(0o711), file("named", "")])]),
        applied("a regular file of the type '0' in a record's size of zero", |_| {
            vec![plain([file("file", "").record("size", "0"), crate::archive::Entry::new(FILE, "other")])]
        }),
    ]
}

/// A path of folders.
fn long(length: usize) -> String {
    "abcdefghi/".repeat(length / 10 + 1)[..length].to_owned()
}

/// One name.
fn component(length: usize) -> String {
    "n".repeat(length)
}
