//! Tar archives written by hand, a block at a time: what a well-kept writer would never write is what they are for.

use std::io::Write as _;

/// The unit of a tar archive, in bytes.
pub(crate) const BLOCK: usize = 512;

/// A time that no applier makes up: 2001-09-09.
pub(crate) const LONG_AGO: i64 = 1_000_000_000;

pub(crate) const FILE: u8 = b'0';
pub(crate) const HARD_LINK: u8 = b'1';
pub(crate) const SYMLINK: u8 = b'2';
pub(crate) const CHARACTER: u8 = b'3';
pub(crate) const BLOCK_DEVICE: u8 = b'4';
pub(crate) const FOLDER: u8 = b'5';
pub(crate) const FIFO: u8 = b'6';
pub(crate) const GLOBAL: u8 = b'g';
pub(crate) const EXTENDED: u8 = b'x';
pub(crate) const GNU_NAME: u8 = b'L';
pub(crate) const GNU_LINK: u8 = b'K';
pub(crate) const GNU_SPARSE: u8 = b'S';

/// Whose header it is, by its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// No magic at all.
    V7,
    Ustar,
    Gnu,
    /// Jörg Schilling's: ustar with `tar\0` at its end, which shortens the prefix.
    Star,
}

/// One entry: its header, the headers that go before it, and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) prefix: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) mode: u64,
    pub(crate) owner: (i64, i64),
    pub(crate) modified: i64,
    pub(crate) link: Vec<u8>,
    pub(crate) device: (i64, i64),
    pub(crate) data: Vec<u8>,
    /// What the header says of the size, where that isn't the data's.
    pub(crate) size: Option<i64>,
    pub(crate) dialect: Dialect,
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the header that are put over what it would say, and whether its checksum stands for them.
    patches: Vec<(usize, Vec<u8>)>,
    checked: bool,
}

impl Entry {
    pub(crate) fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            prefix: Vec::new(),
            flag,
            mode: 0o644,
            owner: (0, 0),
            modified: LONG_AGO,
            link: Vec::new(),
            device: (0, 0),
            data: Vec::new(),
            size: None,
            dialect: Dialect::Ustar,
            records: Vec::new(),
            patches: Vec::new(),
            checked: true,
        }
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, user: i64, group: i64) -> Self {
        Self { owner: (user, group), ..self }
    }

    pub(crate) fn modified(self, seconds: i64) -> Self {
        Self { modified: seconds, ..self }
    }

    pub(crate) fn device(self, major: i64, minor: i64) -> Self {
        Self { device: (major, minor), ..self }
    }

    pub(crate) fn data(self, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..self }
    }

    pub(crate) fn link(self, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..self }
    }

    pub(crate) fn claims_size(self, size: i64) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(crate) fn prefix(self, prefix: impl AsRef<[u8]>) -> Self {
        Self { prefix: prefix.as_ref().to_vec(), ..self }
    }

    pub(crate) fn dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// A record of the extended header that goes before it.
    pub(crate) fn record(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.records.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(format!("SCHILY.xattr.{name}"), value)
    }

    /// Puts bytes over the header, at this offset; the checksum counts them.
    pub(crate) fn patch(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((offset, bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn with_a_wrong_checksum(self) -> Self {
        Self { checked: false, ..self }
    }

    fn write(&self, to: &mut Vec<u8>) {
        if !self.records.is_empty() {
            extended(EXTENDED, &records(&self.records)).write(to);
        }
        let start = to.len();
        to.extend_from_slice(&self.header());
        if !self.checked {
            to[start + 148] ^= 1;
        }
        to.extend_from_slice(&self.data);
        pad(to);
    }

    fn header(&self) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        put(&mut header, 0, 100, &self.name);
        number(&mut header[100..108], i64::try_from(self.mode).unwrap());
        number(&mut header[108..116], self.owner.0);
        number(&mut header[116..124], self.owner.1);
        number(&mut header[124..136], self.size.unwrap_or_else(|| i64::try_from(self.data.len()).unwrap()));
        number(&mut header[136..148], self.modified);
        header[156] = self.flag;
        put(&mut header, 157, 100, &self.link);
        match self.dialect {
            Dialect::V7 => {}
            Dialect::Ustar => header[257..265].copy_from_slice(b"ustar\x0000"),
            Dialect::Gnu => header[257..265].copy_from_slice(b"ustar  \x00"),
            Dialect::Star => {
                header[257..265].copy_from_slice(b"ustar\x0000");
                header[508..512].copy_from_slice(b"tar\x00");
            }
        }
        if self.dialect != Dialect::V7 {
            number(&mut header[329..337], self.device.0);
            number(&mut header[337..345], self.device.1);
            let room = match self.dialect {
                Dialect::V7 | Dialect::Gnu => 0,
                Dialect::Ustar => 155,
                Dialect::Star => 131,
            };
            put(&mut header, 345, room, &self.prefix);
        }
        for (offset, bytes) in &self.patches {
            header[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }
}

pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    Entry::new(FILE, name).data(data)
}

pub(crate) fn folder(name: impl AsRef<[u8]>) -> Entry {
    Entry::new(FOLDER, name).mode(0o755)
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry::new(SYMLINK, name).link(target).mode(0o777)
}

pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry::new(HARD_LINK, name).link(target)
}

/// The mark that what is named is not there any more.
pub(crate) fn whiteout(path: &str) -> Entry {
    let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
    let slash = if parent.is_empty() { "" } else { "/" };
    file(format!("{parent}{slash}.wh.{name}"), "")
}

/// The mark that nothing of what is below shows in this folder.
pub(crate) fn opaque(parent: &str) -> Entry {
    let slash = if parent.is_empty() { "" } else { "/" };
    file(format!("{parent}{slash}.wh..wh..opq"), "")
}

/// An entry of records for the next one (`EXTENDED`), or for all that follow (`GLOBAL`).
pub(crate) fn extended(flag: u8, records: &[u8]) -> Entry {
    Entry::new(flag, "PaxHeaders.0/records").data(records)
}

/// An entry that says the next one's name (`GNU_NAME`), or what it links to (`GNU_LINK`).
pub(crate) fn gnu_long(flag: u8, text: impl AsRef<[u8]>) -> Entry {
    let mut data = text.as_ref().to_vec();
    data.push(0);
    Entry::new(flag, "././@LongLink").data(data).dialect(Dialect::Gnu)
}

/// The bytes of records: each is its length, its key and its value.
pub(crate) fn records<K: AsRef<[u8]>, V: AsRef<[u8]>>(records: &[(K, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let (key, value) = (key.as_ref(), value.as_ref());
        // " ", "=" and "\n", and the length's own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        write!(bytes, "{length} ").unwrap();
        bytes.extend_from_slice(key);
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// The archive of these entries, with its end.
pub(crate) fn tar(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = unended(entries);
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// The same without the blocks that end it.
pub(crate) fn unended(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        entry.write(&mut bytes);
    }
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

/// As much of it as there is room for.
fn put(header: &mut [u8; BLOCK], at: usize, room: usize, bytes: &[u8]) {
    let length = bytes.len().min(room);
    header[at..at + length].copy_from_slice(&bytes[..length]);
}

/// Octal where it fits, else base 256.
fn number(field: &mut [u8], value: i64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if value >= 0 && octal.len() == digits {
        field[..digits].copy_from_slice(octal.as_bytes());
        return;
    }
    base_256(field, value);
}

/// The GNU form of numbers that octal has no room for.
pub(crate) fn base_256(field: &mut [u8], value: i64) {
    field.fill(if value < 0 { 0xff } else { 0 });
    let bytes = value.to_be_bytes();
    let kept = field.len().min(bytes.len());
    let start = field.len() - kept;
    field[start..].copy_from_slice(&bytes[bytes.len() - kept..]);
    field[0] |= 0x80;
}
