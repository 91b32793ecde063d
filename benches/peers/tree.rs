//! A tree of thousands of files as images have them: sources, texts and binaries of all sizes, which compress
//! about as well as a distribution's do. The same on every machine and in every run.

use std::io::Cursor;

use tar::{Builder, EntryType, Header};

/// 2026-01-01.
const CREATED_UNIX: u64 = 1_767_225_600;

/// Numbers that look random and are not (splitmix64).
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes that no compression shortens.
    pub(crate) fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A layer's tar with a single file of noise.
pub(crate) fn of_noise(length: usize, seed: u64) -> Vec<u8> {
    let mut layer = Layer::new();
    layer.directory("opt/");
    layer.file("opt/noise", 0o644, &Numbers(seed).noise(length));
    layer.done()
}

/// The tars of the layers of a tree with about this many files.
pub(crate) fn of_files(files: u64) -> Vec<Vec<u8>> {
    /// What share of the files each layer brings, in tenths: a base, two layers of packages, an application.
    const TENTHS: [u64; 4] = [4, 3, 2, 1];
    let vocabulary = Vocabulary::new();
    let layers = TENTHS.iter().zip(0..).map(|(tenths, number)| {
        let mut layer = Layer::new();
        let mut numbers = Numbers(0x7469_6465 + number);
        let count = files * tenths / 10;
        for at in 0..count {
            // As in a real tree, a few dozen files share a folder.
            if at % 24 == 0 {
                layer.directory(&format!("usr/part{number}/d{}/", at / 24));
            }
            let path = format!("usr/part{number}/d{}/{}-{at}", at / 24, vocabulary.word(&mut numbers));
            layer.any_file(&path, &vocabulary, &mut numbers);
        }
        if number > 0 {
            // An upgrade in the layer below: some files are replaced, some are gone.
            let below = number - 1;
            layer.directory(&format!("usr/part{below}/d0/"));
            for at in 0..40 {
                layer.any_file(&format!("usr/part{below}/d0/later-{at}"), &vocabulary, &mut numbers);
            }
            layer.file(&format!("usr/part{below}/.wh.d1"), 0o644, b"");
        }
        layer.done()
    });
    layers.collect()
}

struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn directory(&mut self, path: &str) {
        self.0
            .append_data(&mut header(EntryType::Directory, 0o755, 0), path, std::io::empty())
            .expect("memory");
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
        self.0.append_data(&mut header, path, Cursor::new(bytes)).expect("memory");
    }

    /// A file of some kind and size; now and then a symbolic link instead.
    fn any_file(&mut self, path: &str, vocabulary: &Vocabulary, numbers: &mut Numbers) {
        if numbers.below(25) == 0 {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            self.0.append_link(&mut header, path, "../d0/target").expect("memory");
            return;
        }
        let size = size(numbers);
        if numbers.below(10) < 6 {
            self.file(path, 0o644, &vocabulary.text(size, numbers));
        } else {
            self.file(path, 0o755, &binary(size, numbers));
        }
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}

/// Most files are of a few KiB, few are large, and those make up most of the bytes.
fn size(numbers: &mut Numbers) -> usize {
    let doublings = match numbers.below(1000) {
        0..2 => 21,
        2..40 => 17,
        40..250 => 14,
        250..700 => 12,
        _ => 9,
    };
    let least = 1_u64 << doublings;
    usize::try_from(least + numbers.below(least * 2)).expect("a few MiB")
}

/// What machine code and tables look like to a compressor: short pieces that come again with changes.
fn binary(size: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = numbers.noise(512.min(size));
    while bytes.len() < size {
        // No further back than any compressor sees.
        let back = 1 + numbers.below(bytes.len().min(24 << 10) as u64);
        let start = bytes.len() - usize::try_from(back).expect("within the file");
        let end = bytes.len().min(start + 6 + usize::try_from(numbers.below(30)).expect("small"));
        bytes.extend_from_within(start..end);
        let changed = numbers.next().to_le_bytes();
        bytes.extend_from_slice(&changed[..3]);
    }
    bytes.truncate(size);
    bytes
}

/// Words that texts are made of; some are far more frequent than others.
struct Vocabulary(Vec<String>);

impl Vocabulary {
    fn new() -> Self {
        const SYLLABLES: [&str; 16] = [
            "ta", "re", "in", "to", "con", "er", "al", "fi", "le", "mo", "ver", "sk", "un", "pre", "ad", "os",
        ];
        let mut numbers = Numbers(1);
        let word = |_| {
            let length = 1 + numbers.below(4);
            (0..length).map(|_| SYLLABLES[(numbers.next() % 16) as usize]).collect::<String>()
        };
        Self((0..8192).map(word).collect())
    }

    fn word(&self, numbers: &mut Numbers) -> &str {
        // A product of two even chances makes low numbers frequent.
        let (one, other) = (numbers.below(8192), numbers.below(8192));
        &self.0[(one * other / 8192) as usize]
    }

    fn text(&self, size: usize, numbers: &mut Numbers) -> Vec<u8> {
        const BETWEEN: [&str; 8] = [" ", " ", " ", " ", "(", ") ", ";\n    ", " = "];
        let mut text = String::with_capacity(size + 32);
        while text.len() < size {
            text.push_str(self.word(numbers));
            text.push_str(BETWEEN[(numbers.next() % 8) as usize]);
        }
        text.truncate(size);
        text.into_bytes()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(CREATED_UNIX);
    header
}
