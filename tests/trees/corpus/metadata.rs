//! Modes, owners, times, xattrs and the kinds of files.

use super::{Case, applied, applied_only, base, plain, refused};
use crate::archive::{
    BLOCK_DEVICE, CHARACTER, Dialect, Entry, FIFO, LONG_AGO, base_256, file, folder, hard_link, opaque,
    symlink, whiteout,
};
use crate::place::Mode;

/// `cap_net_raw+ep`, as the kernel keeps it in its second version.
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        applied("setuid, setgid and the sticky bit", |_| {
            vec![plain([
                file("setuid", "").mode(0o4755).owner(10, 20),
                file("setgid", "").mode(0o2711).owner(10, 20),
                file("sticky", "").mode(0o1644),
                folder("all").mode(0o7777).owner(1, 1),
                file("all/within", "").mode(0o6777),
                folder("all/folder"),
            ])]
        }),
        applied("modes that let nobody in", |_| {
            vec![plain([
                folder("shut").mode(0),
                file("shut/file", "").mode(0),
                folder("shut/in").mode(0o111),
                file("open", "").mode(0o777),
            ])]
        }),
        applied("a folder's mode changed by a higher layer", |_| {
            vec![base(), plain([folder("etc").mode(0o711).owner(9, 9).modified(LONG_AGO + 5)])]
        }),
        applied("a folder named twice, the last counts", |_| {
            vec![plain([
                folder("etc").mode(0o711),
                file("etc/x", ""),
                folder("etc").mode(0o700).owner(4, 4).modified(LONG_AGO + 9),
            ])]
        }),
        applied("a folder's xattrs are added to what it had", |_| {
            vec![plain([
                folder("etc").xattr("user.one", "1").xattr("user.same", "old"),
                folder("etc").xattr("user.two", "2").xattr("user.same", "new"),
            ])]
        }),
        applied("devices and fifos", |_| {
            vec![plain([
                Entry::new(CHARACTER, "null").device(1, 3).mode(0o666),
                Entry::new(BLOCK_DEVICE, "loop").device(7, 0).mode(0o660).owner(0, 6),
                Entry::new(CHARACTER, "wide").device(259, 70_000),
                Entry::new(FIFO, "fifo").mode(0o640).owner(3, 3),
                Entry::new(CHARACTER, "gnu").device(5, 1).dialect(Dialect::Gnu),
                Entry::new(FIFO, "setuid").mode(0o6755),
                Entry::new(CHARACTER, "old").dialect(Dialect::V7),
            ])]
        }),
        applied("a device of 0:0, as a whiteout of overlay's", |_| {
            vec![base(), plain([Entry::new(CHARACTER, "etc/passwd").device(0, 0).mode(0)])]
        }),
        applied("a device that is linked to and replaced", |_| {
            vec![plain([
                Entry::new(CHARACTER, "null").device(1, 3),
                hard_link("twin", "null"),
                file("null", "no more"),
            ])]
        }),
        applied("a fifo in a file's place", |_| vec![base(), plain([Entry::new(FIFO, "etc/passwd")])]),
        applied("a file in a fifo's place", |_| {
            vec![plain([Entry::new(FIFO, "pipe")]), plain([file("pipe", "a file")])]
        }),
        applied("a file in a fifo's place, in one layer", |_| {
            vec![plain([Entry::new(FIFO, "pipe"), file("pipe", "a file")])]
        }),
        applied("a fifo of a device's numbers", |_| vec![plain([Entry::new(FIFO, "fifo").device(1, 3)])]),
        applied("empty files", |_| {
            vec![plain([file("empty", ""), folder("folder"), file("folder/empty", "").mode(0o600)])]
        }),
        applied("files about as large as blocks are", |_| {
            vec![plain([1, 511, 512, 513, 4096, 1 << 20, (1 << 20) + 1].map(|size: usize| {
                let data: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
                file(format!("of-{size}"), data)
            }))]
        }),
        applied("a file of zeros", |_| vec![plain([file("zeros", vec![0; 300_000])])]),
        applied("times to the nanosecond", |_| {
            vec![plain([
                file("file", "")
                    .record("mtime", "1234567890.123456789")
                    .record("atime", "1234567891.987654321"),
                folder("folder").record("mtime", "1234567890.5"),
                symlink("link", "file").record("mtime", "1234567890.000000001"),
                file("longer", "").record("mtime", "1234567890.1234567899999"),
                file("dot", "").record("mtime", "1234567890."),
            ])]
        }),
        applied("an access older than the change", |_| {
            vec![plain([
                file("file", "").record("mtime", "1234567890").record("atime", "1000000001"),
                folder("folder").record("atime", "5"),
            ])]
        }),
        applied("an access without a change", |_| {
            vec![plain([file("file", "").modified(0).record("atime", "1200000000.5")])]
        }),
        applied("times before the epoch", |_| {
            vec![plain([
                file("file", "").record("mtime", "-1"),
                file("fraction", "").record("mtime", "-0.5"),
                file("binary", "").modified(-77),
                folder("folder").modified(-77),
                symlink("link", "x").modified(-77),
                file("access", "").record("atime", "-100"),
            ])]
        }),
        applied("times far ahead", |_| {
            vec![plain([
                file("2038", "").modified(1 << 31),
                file("2106", "").modified(1 << 32),
                file("2262", "").record("mtime", "9223372036.854775807"),
                file("later", "").record("mtime", "9223372037"),
                file("last", "").record("mtime", "9223372036.999999999"),
                file("beyond", "").record("mtime", "1000000000000000"),
                folder("folder").record("mtime", "99999999999"),
                file("access", "").record("atime", "99999999999"),
            ])]
        }),
        applied("a time as large as a number gets", |_| {
            let mut field = [0; 12];
            base_256(&mut field, i64::MAX);
            vec![plain([file("file", "").patch(136, field)])]
        }),
        applied("a time of zero", |_| {
            vec![plain([file("file", "").modified(0), folder("folder").modified(0)])]
        }),
        refused("a time that isn't a number", |_| {
            vec![plain([file("file", "").record("mtime", "yesterday")])]
        }),
        refused("a time with a plus", |_| vec![plain([file("file", "").record("mtime", "1.+5")])]),
        refused("a time with two dots", |_| vec![plain([file("file", "").record("mtime", "1.2.3")])]),
        refused("a time beyond 64 bits", |_| {
            vec![plain([file("file", "").record("mtime", "99999999999999999999")])]
        }),
        applied("a time of change, which nobody can set", |_| {
            vec![plain([file("file", "").record("ctime", "1234567890.5")])]
        }),
        applied("a folder's time, though it is filled later", |_| {
            vec![plain([folder("a"), folder("a/b"), file("a/b/c", ""), file("a/d", ""), whiteout("a/e")])]
        }),
        applied("a folder's time, though a mark comes after", |_| {
            vec![plain([folder("a"), opaque("a"), file("a/x", "")])]
        }),
        applied("a folder that comes after what is in it", |_| {
            vec![plain([
                file("a/b/c", "early"),
                folder("a/b").mode(0o700).owner(1, 1),
                folder("a").mode(0o711),
            ])]
        }),
        applied("parents that nobody names", |_| {
            vec![plain([file("a/b/c/file", ""), symlink("d/e/link", "x"), folder("f/g")])]
        }),
        applied("parents that only a lower layer names", |_| {
            vec![base(), plain([file("deep/er/still/more", ""), file("etc/new/file", "")])]
        }),
        applied("parents that only the lowest of three names", |_| {
            vec![base(), plain([file("other", "")]), plain([file("deep/er/still/more", "")])]
        }),
        applied("parents that two lower layers name", |_| {
            let middle = plain([folder("deep/er").mode(0o705).owner(2, 2).xattr("user.middle", "1")]);
            vec![base(), middle, plain([file("deep/er/still/more", "")])]
        }),
        applied_only(Mode::Overlay, "a parent that is a file in the layer below", |_| {
            vec![plain([folder("a").mode(0o700)]), plain([file("a", "")]), plain([file("a/b", "")])]
        }),
        applied_only(Mode::Bind, "a parent that the layer below has taken away", |_| {
            vec![base(), plain([whiteout("deep")]), plain([file("deep/er/file", "")])]
        }),
        applied_only(Mode::Bind, "a parent that the layer itself has taken away", |_| {
            vec![base(), plain([whiteout("deep"), file("other", "")]), plain([file("deep/er/file", "")])]
        }),
        applied("a parent below that is reached through a symlink", |_| {
            vec![
                plain([folder("real").mode(0o710).owner(4, 5), symlink("way", "real")]),
                plain([folder("way"), file("way/file", "")]),
            ]
        }),
        applied("a parent below whose parent is a symlink there", |_| {
            vec![
                plain([folder("real"), folder("real/in").mode(0o710).owner(4, 5), symlink("way", "real")]),
                plain([file("way/in/file", "")]),
            ]
        }),
        applied("a parent below that has a capability's neighbours", |_| {
            let xattrs =
                folder("a").xattr("user.a", "1").xattr("trusted.not", "copied").xattr("security.any", "2");
            vec![plain([xattrs]), plain([file("a/b", "")])]
        }),
        applied("xattrs on files and folders", |_| {
            vec![plain([
                file("file", "")
                    .xattr("user.one", "1")
                    .xattr("user.two", b"\x00\xff\n=")
                    .xattr("user.empty", ""),
                folder("folder").xattr("user.folder", "yes"),
                file("security", "").xattr("security.mine", "kept"),
            ])]
        }),
        applied("a file's capabilities", |_| {
            vec![plain([file("ping", "elf")
                .mode(0o755)
                .owner(5, 5)
                .xattr("security.capability", CAPABILITY)])]
        }),
        applied("capabilities outlive the owner that is set with them", |_| {
            vec![plain([
                file("ping", "elf").mode(0o4755).owner(5, 5).xattr("security.capability", CAPABILITY),
                hard_link("twin", "ping").mode(0o4755).owner(5, 5),
            ])]
        }),
        refused("capabilities that aren't", |_| {
            vec![plain([file("ping", "").xattr("security.capability", "garbage")])]
        }),
        applied("a trusted xattr is left out", |_| {
            vec![plain([
                file("file", "").xattr("trusted.mine", "1").xattr("user.kept", "2"),
                folder("folder").xattr("trusted.overlay.opaque", "y"),
            ])]
        }),
        applied("an xattr of the user's on a symlink is left out", |_| {
            vec![plain([
                symlink("link", "x").xattr("user.lost", "1"),
                Entry::new(FIFO, "fifo").xattr("user.lost", "1"),
            ])]
        }),
        applied("a security xattr on a symlink", |_| {
            vec![plain([symlink("link", "x").xattr("security.mine", "1")])]
        }),
        applied("an xattr of a space that there isn't", |_| {
            vec![plain([file("file", "")
                .xattr("nobody.knows", "1")
                .xattr("com.apple.quarantine", "2")
                .xattr("bare", "3")])]
        }),
        refused("an xattr without a name", |_| vec![plain([file("file", "").xattr("", "1")])]),
        refused("an xattr's name within its space is empty", |_| {
            vec![plain([file("file", "").xattr("user.", "1")])]
        }),
        applied("an access control list", |_| {
            let acl = b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff";
            vec![plain([
                file("file", "").mode(0o664).xattr("system.posix_acl_access", acl),
                folder("folder").xattr("system.posix_acl_default", acl),
                file("folder/inherits", "").mode(0o600),
                folder("folder/too").mode(0o700),
            ])]
        }),
        applied("libarchive's xattrs are not heeded", |_| {
            vec![plain([file("file", "").record("LIBARCHIVE.xattr.user.x", "MQ==")])]
        }),
        applied("an xattr as large as the file system takes", |_| {
            vec![plain([file("file", "").xattr("user.large", vec![b'x'; 3000])])]
        }),
        refused("an xattr larger than a call takes", |_| {
            vec![plain([file("file", "").xattr("user.large", vec![b'x'; 70_000])])]
        }),
        applied("the metadata of a hard link is set on what it links to", |_| {
            vec![plain([
                file("file", "data").mode(0o600).owner(1, 1).modified(LONG_AGO),
                hard_link("twin", "file")
                    .mode(0o4755)
                    .owner(2, 2)
                    .modified(LONG_AGO + 50)
                    .xattr("user.by", "link"),
            ])]
        }),
    ];
    for (name, value) in
        [("no fraction", "1234567890.0"), ("a zero before", "01234567890"), ("a plus", "+1234567890")]
    {
        cases.push(applied(format!("a time with {name}"), move |_| {
            vec![plain([file("file", "").record("mtime", value)])]
        }));
    }
    cases
}
