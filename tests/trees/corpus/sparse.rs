//! Sparse files in every form that GNU tar ever wrote.

use super::{Case, applied, plain, raw, refused};
use crate::archive::{BLOCK, Dialect, Entry, GNU_SPARSE, file, tar};

/// Where a piece of the data goes: its offset and its length.
type Piece = (usize, usize);

pub(super) fn cases() -> Vec<Case> {
    let many: Vec<Piece> = (0..60).map(|at| (at * 1024, 512)).collect();
    let mut cases = vec![
        refused("an old sparse file", |_| vec![old(&[(0, 512), (4096, 512)], 10_000)]),
        refused("an old sparse file that begins with a hole", |_| vec![old(&[(8192, 700)], 8892)]),
        refused("an old sparse file that ends with a hole", |_| vec![old(&[(0, 5), (100_000, 0)], 100_000)]),
        refused("an old sparse file of nothing but a hole", |_| vec![old(&[], 50_000)]),
        refused("an old sparse file of nothing at all", |_| vec![old(&[], 0)]),
        applied("a sparse file of the form 0.0", |_| vec![form_0_0(&[(0, 512), (4096, 100)], 10_000)]),
        applied("a sparse file of the form 0.1", |_| vec![form_0_1(&[(512, 512), (4096, 100)], 10_000)]),
        applied("a sparse file of the form 0.1 of nothing but a hole", |_| {
            vec![form_0_1(&[(9000, 0)], 9000)]
        }),
        applied("a sparse file of the form 1.0", |_| vec![form_1_0(&[(512, 512), (4096, 100)], 10_000)]),
        applied("a sparse file of the form 1.0 of nothing but a hole", |_| {
            vec![form_1_0(&[(9000, 0)], 9000)]
        }),
        applied("a large hole", |_| vec![form_1_0(&[(0, 10), (1 << 30, 10)], (1 << 30) + 10)]),
        applied("a sparse file with metadata, and a file after it", |_| {
            let (entry, data) = one_0(&[(0, 10), (5000, 10)], 6000);
            let sparse = entry
                .data(data)
                .mode(0o4755)
                .owner(3, 4)
                .record("mtime", "1234567890.5")
                .xattr("user.x", "1");
            vec![plain([sparse, file("after", "it")])]
        }),
        refused("a sparse file whose pieces overlap", |_| vec![form_0_1(&[(0, 512), (256, 512)], 1000)]),
        refused("a sparse file whose pieces are out of order", |_| {
            vec![form_1_0(&[(4096, 512), (0, 512)], 10_000)]
        }),
        refused("a sparse file whose pieces end beyond it", |_| {
            vec![form_1_0(&[(0, 512), (4096, 512)], 4100)]
        }),
        refused("a sparse file with fewer bytes than pieces", |_| {
            let (entry, mut data) = one_0(&[(0, 512), (4096, 512)], 10_000);
            data.truncate(BLOCK + 700);
            vec![plain([entry.data(data), file("after", "")])]
        }),
        refused("a sparse file with more bytes than pieces", |_| {
            let (entry, mut data) = one_0(&[(0, 512), (4096, 512)], 10_000);
            data.extend([b'x'; 2000]);
            vec![plain([entry.data(data), file("after", "")])]
        }),
        refused("a sparse map that isn't numbers", |_| {
            vec![plain([file("x", "data")
                .record("GNU.sparse.map", "0,a")
                .record("GNU.sparse.size", "10")
                .record("GNU.sparse.numblocks", "1")])]
        }),
        refused("a sparse map of an odd length", |_| {
            vec![plain([file("x", "data")
                .record("GNU.sparse.map", "0,4,8")
                .record("GNU.sparse.size", "10")
                .record("GNU.sparse.numblocks", "1")])]
        }),
        refused("a sparse map with another count than it says", |_| {
            vec![plain([file("x", "data")
                .record("GNU.sparse.map", "0,4")
                .record("GNU.sparse.size", "10")
                .record("GNU.sparse.numblocks", "2")])]
        }),
        refused("a sparse file of the form 1.0 without its map", |_| {
            let entry = file("x", "no map").record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0");
            vec![plain([entry.record("GNU.sparse.realsize", "10").record("GNU.sparse.name", "sparse")])]
        }),
        refused("a sparse file of the form 1.0 whose map claims too much", |_| {
            let mut data = b"99999999999\n0\n5\n".to_vec();
            data.resize(BLOCK, 0);
            let entry = file("x", data).record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0");
            vec![plain([entry.record("GNU.sparse.realsize", "10").record("GNU.sparse.name", "sparse")])]
        }),
        applied("a sparse file of an unknown form is a plain one", |_| {
            let entry = file("x", "as it is").record("GNU.sparse.major", "2").record("GNU.sparse.minor", "0");
            vec![plain([entry.record("GNU.sparse.realsize", "10").record("GNU.sparse.name", "sparse")])]
        }),
        refused("a sparse record on what isn't a file", |_| {
            let folder =
                Entry::new(b'5', "x").record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0");
            vec![plain([folder.record("GNU.sparse.realsize", "10")])]
        }),
        refused("an old sparse file with a negative size", |_| {
            let mut bytes = tar([sparse_header(&[(0, 4)], 4, false)]);
            // The field of the real size, in base 256.
            bytes[483..495].fill(0xff);
            vec![raw(resummed(bytes))]
        }),
    ];
    let (first, second) = (many.clone(), many.clone());
    cases.push(refused("an old sparse file with more pieces than its header has room for", move |_| {
        vec![old(&first, 70_000)]
    }));
    cases.push(applied("a sparse file of the form 0.0 with many pieces", move |_| {
        vec![form_0_0(&second, 70_000)]
    }));
    cases.push(applied("a sparse file of the form 1.0 whose map takes several blocks", |_| {
        let pieces: Vec<Piece> = (0..300).map(|at| (at * 1_000_000, 7)).collect();
        vec![form_1_0(&pieces, 300_000_000)]
    }));
    let pieces: Vec<Piece> = many.into_iter().take(20).collect();
    cases.push(refused("an old sparse file that ends where more of its map should be", move |_| {
        let bytes = tar([sparse_header(&pieces[..4], 70_000, true)]);
        vec![raw(&bytes[..BLOCK])]
    }));
    cases
}

fn bytes_of(pieces: &[Piece]) -> Vec<u8> {
    let length = pieces.iter().map(|(_, length)| length).sum();
    (0..length).map(|at: usize| u8::try_from(at % 253 + 1).unwrap()).collect()
}

fn octal(value: usize) -> Vec<u8> {
    format!("{value:011o}\0").into_bytes()
}

/// The old form's header with up to four pieces.
fn sparse_header(pieces: &[Piece], size: usize, more: bool) -> Entry {
    let entry = Entry::new(GNU_SPARSE, "sparse")
        .dialect(Dialect::Gnu)
        .patch(483, octal(size))
        .patch(482, [u8::from(more)]);
    pieces.iter().enumerate().fold(entry, |entry, (at, (offset, length))| {
        entry.patch(386 + at * 24, octal(*offset)).patch(398 + at * 24, octal(*length))
    })
}

fn old(pieces: &[Piece], size: usize) -> crate::applier::Layer {
    let (first, rest) = pieces.split_at(pieces.len().min(4));
    let data = bytes_of(pieces);
    let header = sparse_header(first, size, !rest.is_empty()).claims_size(i64::try_from(data.len()).unwrap());
    // The rest of the map stands between the header and the data.
    let mut body = Vec::new();
    let blocks = rest.chunks(21);
    let count = blocks.len();
    for (at, pieces) in blocks.enumerate() {
        let mut block = Vec::new();
        for (offset, length) in pieces {
            block.extend(octal(*offset));
            block.extend(octal(*length));
        }
        block.resize(504, 0);
        block.push(u8::from(at + 1 < count));
        block.resize(BLOCK, 0);
        body.extend(block);
    }
    body.extend(data);
    plain([header.data(body), file("after", "the sparse one")])
}

fn form_0_0(pieces: &[Piece], size: usize) -> crate::applier::Layer {
    let entry = file("sparse", bytes_of(pieces))
        .record("GNU.sparse.size", size.to_string())
        .record("GNU.sparse.numblocks", pieces.len().to_string());
    let entry = pieces.iter().fold(entry, |entry, (offset, length)| {
        entry
            .record("GNU.sparse.offset", offset.to_string())
            .record("GNU.sparse.numbytes", length.to_string())
    });
    plain([entry, file("after", "the sparse one")])
}

fn form_0_1(pieces: &[Piece], size: usize) -> crate::applier::Layer {
    let map: Vec<String> = pieces.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
    let entry = file("placeholder", bytes_of(pieces))
        .record("GNU.sparse.size", size.to_string())
        .record("GNU.sparse.numblocks", pieces.len().to_string())
        .record("GNU.sparse.map", map.join(","))
        .record("GNU.sparse.name", "sparse");
    plain([entry, file("after", "the sparse one")])
}

fn form_1_0(pieces: &[Piece], size: usize) -> crate::applier::Layer {
    let (entry, data) = one_0(pieces, size);
    plain([entry.data(data), file("after", "the sparse one")])
}

fn one_0(pieces: &[Piece], size: usize) -> (Entry, Vec<u8>) {
    let map: String = pieces.iter().map(|(offset, length)| format!("{offset}\n{length}\n")).collect();
    let mut data = format!("{}\n{map}", pieces.len()).into_bytes();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data.extend(bytes_of(pieces));
    let entry = file("GNUSparseFile.0/sparse", "")
        .record("GNU.sparse.major", "1")
        .record("GNU.sparse.minor", "0")
        .record("GNU.sparse.name", "sparse")
        .record("GNU.sparse.realsize", size.to_string());
    (entry, data)
}

/// The archive with the checksum of its first header made right.
fn resummed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..BLOCK].iter().copied().map(u32::from).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}
