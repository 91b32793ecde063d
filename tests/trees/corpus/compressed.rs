//! Compressions, and the media types that announce them.

use std::io::Write as _;

use flate2::{Compression, GzBuilder};

use super::{Case, Fate, GZIP, PLAIN, ZSTD, base};
use crate::applier::Layer;
use crate::archive::{file, folder, tar};

const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const FOREIGN_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const FOREIGN_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";

pub(super) fn cases() -> Vec<Case> {
    use Fate::{Applied, Refused};
    let bytes = archive();
    let (zipped, framed) = (gzip(&bytes), zstd(&bytes));
    let half = bytes.len() / 2;
    let mut cases = Vec::new();
    let mut case = |name: String, fate, media_type: &'static str, bytes: Vec<u8>| {
        let layers = move |_: &std::path::Path| vec![base(), Layer { bytes: bytes.clone(), media_type }];
        cases.push(Case { name, fate, layers: Box::new(layers) });
    };

    for (media_type, plain, gzipped, zstd) in [
        (PLAIN, Applied, Refused, Refused),
        (GZIP, Applied, Applied, Applied),
        (ZSTD, Applied, Applied, Applied),
        (DOCKER, Applied, Applied, Applied),
        (DOCKER_GZIP, Applied, Applied, Applied),
        (DOCKER_ZSTD, Applied, Applied, Applied),
        (DOCKER_FOREIGN, Applied, Applied, Applied),
        (DOCKER_FOREIGN_GZIP, Applied, Applied, Applied),
        (FOREIGN, Applied, Refused, Refused),
        (FOREIGN_GZIP, Applied, Applied, Applied),
        (FOREIGN_ZSTD, Applied, Applied, Applied),
    ] {
        case(format!("a plain tar as {media_type}"), plain, media_type, bytes.clone());
        case(format!("a gzip as {media_type}"), gzipped, media_type, zipped.clone());
        case(format!("a zstd as {media_type}"), zstd, media_type, framed.clone());
    }

    let mut gz = |name: &str, fate, bytes: Vec<u8>| case(format!("gzip: {name}"), fate, GZIP, bytes);
    gz("nothing", Applied, Vec::new());
    gz("of nothing", Applied, gzip(&[]));
    gz("several members", Applied, [gzip(&bytes[..half]), gzip(&bytes[half..])].concat());
    gz(
        "members that split a header",
        Applied,
        [gzip(&bytes[..700]), gzip(&bytes[700..701]), gzip(&bytes[701..])].concat(),
    );
    gz("an empty member between", Applied, [gzip(&bytes[..half]), gzip(&[]), gzip(&bytes[half..])].concat());
    gz("a member for each of many blocks", Applied, bytes.chunks(512).flat_map(gzip).collect());
    gz(
        "bytes after the tar's end in a member of their own",
        Applied,
        [zipped.clone(), gzip(b"after the end")].concat(),
    );
    gz("with a name, a comment and an extra field", Applied, {
        let builder =
            GzBuilder::new().filename("layer.tar").comment("a comment").extra(vec![7; 300]).mtime(5);
        written(builder.write(Vec::new(), Compression::best()), &bytes)
    });
    gz("stored", Applied, written(GzBuilder::new().write(Vec::new(), Compression::none()), &bytes));
    gz("zeros after it", Refused, [zipped.clone(), vec![0; 512]].concat());
    gz("garbage after it", Refused, [zipped.clone(), b"garbage after it".to_vec()].concat());
    gz("one byte after it", Refused, [zipped.clone(), vec![0x1f]].concat());
    gz("a second member that is cut short", Refused, [gzip(&bytes), gzip(b"more")[..12].to_vec()].concat());
    gz("cut short", Refused, zipped[..zipped.len() / 2].to_vec());
    gz("cut off in its trailer", Refused, zipped[..zipped.len() - 3].to_vec());
    gz("cut off before its trailer", Refused, zipped[..zipped.len() - 8].to_vec());
    gz("cut off in its header", Refused, zipped[..7].to_vec());
    gz("cut off after two bytes", Refused, zipped[..2].to_vec());
    gz("a wrong sum", Refused, changed(&zipped, zipped.len() - 8));
    gz("a wrong length", Refused, changed(&zipped, zipped.len() - 1));
    gz("a wrong sum of its first member", Refused, {
        let first = gzip(&bytes[..half]);
        [changed(&first, first.len() - 6), gzip(&bytes[half..])].concat()
    });
    gz("a changed byte in the middle", Refused, changed(&zipped, zipped.len() / 2));
    gz("an unknown method", Refused, changed(&zipped, 2));
    // RFC 1952 asks for an error, since such a member may be more than it seems. Go looks away.
    gz("reserved flags", Fate::RefusedByUs, {
        let mut bytes = zipped.clone();
        bytes[3] |= 0x80;
        bytes
    });
    gz("a tar that is cut short, well compressed", Refused, gzip(&bytes[..700]));
    gz("twice", Refused, gzip(&zipped));

    let mut zst = |name: &str, fate, bytes: Vec<u8>| case(format!("zstd: {name}"), fate, ZSTD, bytes);
    let skippable = |length: u8| {
        [&[0x5a, 0x2a, 0x4d, 0x18, length, 0, 0, 0], &vec![b's'; usize::from(length)][..]].concat()
    };
    zst("of nothing", Applied, zstd(&[]));
    zst("several frames", Applied, [zstd(&bytes[..half]), zstd(&bytes[half..])].concat());
    zst("a skippable frame before", Applied, [skippable(20), framed.clone()].concat());
    zst("a skippable frame after", Applied, [framed.clone(), skippable(4)].concat());
    zst("skippable frames between", Applied, {
        [zstd(&bytes[..half]), skippable(0), skippable(200), zstd(&bytes[half..])].concat()
    });
    zst("nothing but a skippable frame", Applied, skippable(10));
    zst("an empty frame between", Applied, [zstd(&bytes[..half]), zstd(&[]), zstd(&bytes[half..])].concat());
    zst("blocks of one byte repeated", Applied, {
        let data = file("zeros", vec![0; 300_000]);
        zstd_of_runs(&tar([data]))
    });
    zst("a size that is told and wrong", Refused, {
        let mut wrong = framed.clone();
        wrong[5] ^= 1;
        wrong
    });
    zst("cut short", Refused, framed[..framed.len() / 2].to_vec());
    zst("cut off in its last block's header", Refused, framed[..framed.len() - 1].to_vec());
    zst("garbage after it", Refused, [framed.clone(), b"garbage after it".to_vec()].concat());
    zst("zeros after it", Refused, [framed.clone(), vec![0; 512]].concat());
    zst(
        "a skippable frame that is cut short",
        Refused,
        [framed.clone(), skippable(20)[..12].to_vec()].concat(),
    );
    zst("a reserved kind of block", Refused, {
        let mut wrong = framed.clone();
        wrong[9] |= 0b110;
        wrong
    });
    cases
}

fn archive() -> Vec<u8> {
    let noise: Vec<u8> =
        (0..200_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    tar([
        folder("etc").mode(0o711),
        file("etc/text", "some text that compresses ".repeat(2000)),
        file("etc/noise", noise),
        file("last", "one"),
    ])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    written(GzBuilder::new().write(Vec::new(), Compression::default()), bytes)
}

fn written(mut encoder: flate2::write::GzEncoder<Vec<u8>>, bytes: &[u8]) -> Vec<u8> {
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn changed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x55;
    bytes
}

/// One frame of raw blocks, its size told.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    // Single segment, and four bytes for the size.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    let blocks: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(100_000).collect() };
    for (at, block) in blocks.iter().enumerate() {
        frame.extend(block_header(at + 1 == blocks.len(), 0, block.len()));
        frame.extend(*block);
    }
    frame
}

/// One frame that tells no size, in blocks of 512 bytes: those of one byte alone are its runs.
fn zstd_of_runs(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let blocks: Vec<&[u8]> = bytes.chunks(512).collect();
    for (at, block) in blocks.iter().enumerate() {
        let run = block.iter().all(|byte| *byte == block[0]);
        frame.extend(block_header(at + 1 == blocks.len(), u32::from(run), block.len()));
        frame.extend(if run { &block[..1] } else { *block });
    }
    frame
}

/// A frame that decompresses to this many runs of 128 KiB of zeros, after these bytes.
pub(crate) fn zstd_bomb(first: &[u8], runs: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    frame.extend(block_header(false, 0, first.len()));
    frame.extend(first);
    for at in 0..runs {
        frame.extend(block_header(at + 1 == runs, 1, 128 << 10));
        frame.push(0);
    }
    frame
}

/// Raw is 0, a run is 1.
fn block_header(last: bool, kind: u32, size: usize) -> [u8; 3] {
    let header = u32::from(last) | kind << 1 | u32::try_from(size).unwrap() << 3;
    let bytes = header.to_le_bytes();
    [bytes[0], bytes[1], bytes[2]]
}
