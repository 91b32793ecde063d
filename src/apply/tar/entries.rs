//! The entries of an archive, one after another, each with the headers in front of it taken in.

use super::header::{Block, Header, text};
use super::pax::Records;
use super::sparse::{self, Extent, Map};
use super::{BLOCK, MOST_SPECIAL, TarError, Time};
use crate::apply::stream::Stream;

/// What an entry is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::apply) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Character,
    Block,
    Fifo,
    /// Records for all that follow, which containerd ignores, though not that it has a name.
    Global,
    /// A type flag that containerd refuses.
    Unknown(u8),
}

/// One entry; its data is read from [`Entries`].
#[derive(Debug, Clone)]
pub(in crate::apply) struct Entry {
    pub(in crate::apply) kind: Kind,
    /// As the archive says it.
    pub(in crate::apply) name: Vec<u8>,
    pub(in crate::apply) link: Vec<u8>,
    pub(in crate::apply) mode: i64,
    pub(in crate::apply) uid: i64,
    pub(in crate::apply) gid: i64,
    pub(in crate::apply) modified_at: Time,
    /// Not before `modified_at`.
    pub(in crate::apply) read_at: Time,
    pub(in crate::apply) major: i64,
    pub(in crate::apply) minor: i64,
    pub(in crate::apply) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The length of a file, holes included.
    pub(in crate::apply) size: u64,
    /// Where a sparse file has data.
    pub(in crate::apply) extents: Option<Vec<Extent>>,
}

/// An archive that is being read.
pub(in crate::apply) struct Entries<'a> {
    stream: &'a mut Stream,
    /// What is left of the entry's data, and the padding behind it.
    left: u64,
    padding: u64,
}

impl<'a> Entries<'a> {
    pub(in crate::apply) fn new(stream: &'a mut Stream) -> Self {
        Self { stream, left: 0, padding: 0 }
    }

    /// The next entry; nothing at the end. What was not read of the last one's data is passed over.
    ///
    /// # Errors
    /// When the archive is not one, or cut off.
    pub(in crate::apply) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (Vec::new(), Vec::new());
        loop {
            while !self.data(usize::MAX)?.is_empty() {}
            if !self.pass_padding()? {
                return Ok(None);
            }
            let Some(mut header) = self.header()? else { return Ok(None) };
            self.expect(&header)?;
            match header.flag {
                b'x' => records = Records::read(&self.special()?)?,
                b'g' => {
                    let global = Records::read(&self.special()?)?;
                    // What its records say of itself counts as far as it goes.
                    let _ = global.apply_to(&mut header);
                    return Ok(Some(entry(header, Kind::Global, Vec::new(), 0, None)));
                }
                b'L' => long_name = text(&self.special()?),
                b'K' => long_link = text(&self.special()?),
                _ => {
                    records.apply_to(&mut header)?;
                    if !long_name.is_empty() {
                        header.name = long_name;
                    }
                    if !long_link.is_empty() {
                        header.link = long_link;
                    }
                    if header.flag == 0 {
                        header.flag = if header.name.ends_with(b"/") { b'5' } else { b'0' };
                    }
                    // The records may have changed the length.
                    self.expect(&header)?;
                    return self.complete(header, records).map(Some);
                }
            }
        }
    }

    /// The next bytes of the entry's data, at most so many; none at its end.
    ///
    /// # Errors
    /// When the archive is cut off.
    pub(in crate::apply) fn data(&mut self, most: usize) -> Result<&[u8], TarError> {
        let most = most.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(&[]);
        }
        let bytes = self.stream.some(most)?;
        if bytes.is_empty() {
            return Err(TarError::CutOff);
        }
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }

    fn complete(&mut self, mut header: Header, records: Records) -> Result<Entry, TarError> {
        let kind = match header.flag {
            b'0' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        };
        let map = Map::of(&records);
        let mut extents = None;
        if map != Map::None {
            let name = records.find("GNU.sparse.name");
            if !name.is_empty() {
                header.name = name.to_vec();
            }
            header.size = sparse::real_size(&records)?.unwrap_or(header.size);
            let found = match map {
                Map::InRecords => sparse::in_records(&records)?,
                Map::InData | Map::None => sparse::in_data(|block| self.exactly(block))?,
            };
            let size = u64::try_from(header.size).map_err(|_| TarError::Header("a negative length"))?;
            if without_data(header.flag) {
                return Err(TarError::Header("a sparse file that is no file"));
            }
            sparse::check(&found, size, self.left)?;
            extents = Some(found);
        }
        let size = u64::try_from(header.size).unwrap_or(0);
        Ok(entry(header, kind, records.into_xattrs(), size, extents))
    }

    /// Sets up for the data behind this header.
    fn expect(&mut self, header: &Header) -> Result<(), TarError> {
        let size = if without_data(header.flag) { 0 } else { header.size };
        self.left = u64::try_from(size).map_err(|_| TarError::Header("a negative length"))?;
        self.padding = self.left.wrapping_neg() & (BLOCK as u64 - 1);
        Ok(())
    }

    /// The next header; nothing at the end marker, or where the archive ends without one.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if !is_zero(&block) {
            return Header::read(&block).map(Some);
        }
        match self.block()? {
            Some(second) if !is_zero(&second) => Err(TarError::Header("half an end marker")),
            Some(_) | None => Ok(None),
        }
    }

    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK];
        match self.stream.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(TarError::CutOff),
        }
    }

    /// Whether there was any: an archive may end in the padding.
    fn pass_padding(&mut self) -> Result<bool, TarError> {
        while self.padding > 0 {
            let passed = self.stream.some(usize::try_from(self.padding).unwrap_or(BLOCK))?.len();
            if passed == 0 {
                return Ok(false);
            }
            self.padding -= passed as u64;
        }
        Ok(true)
    }

    /// All of an extended header.
    fn special(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > MOST_SPECIAL {
            return Err(TarError::Header("an extended header is longer than 1 MiB"));
        }
        let mut bytes = Vec::new();
        loop {
            let more = self.data(usize::MAX)?;
            if more.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(more);
        }
    }

    /// One block of the entry's data.
    fn exactly(&mut self, block: &mut Block) -> Result<(), TarError> {
        let mut rest = block.as_mut_slice();
        while !rest.is_empty() {
            let bytes = self.data(rest.len())?;
            if bytes.is_empty() {
                return Err(TarError::CutOff);
            }
            let (now, later) = rest.split_at_mut(bytes.len());
            now.copy_from_slice(bytes);
            rest = later;
        }
        Ok(())
    }
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Whether an entry has no data, whatever length its header tells.
fn without_data(flag: u8) -> bool {
    matches!(flag, b'1'..=b'6')
}

fn entry(
    header: Header,
    kind: Kind,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    size: u64,
    extents: Option<Vec<Extent>>,
) -> Entry {
    let Header { name, link, mode, uid, gid, modified_at, read_at, major, minor, .. } = header;
    let read_at = read_at.max(modified_at);
    Entry { kind, name, link, mode, uid, gid, modified_at, read_at, major, minor, xattrs, size, extents }
}
