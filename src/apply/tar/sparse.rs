//! The maps of sparse files in GNU's extended records, versions 0.0, 0.1 and 1.0.
//!
//! The old form, with a type flag of its own, is not here: containerd's applier refuses it.

use super::pax::{Records, decimal};
use super::{BLOCK, MOST_SPECIAL, TarError};

const WRONG: TarError = TarError::Header("the map of a sparse file");

/// Where in a file data stands; between are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) struct Extent {
    pub(in crate::apply) offset: u64,
    pub(in crate::apply) length: u64,
}

/// Where the map of an entry is to be found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// The file is not sparse.
    None,
    /// In the records.
    InRecords,
    /// In front of the data.
    InData,
}

impl Map {
    pub(super) fn of(records: &Records) -> Self {
        match (records.find("GNU.sparse.major"), records.find("GNU.sparse.minor")) {
            (b"0", b"0" | b"1") => Self::InRecords,
            (b"1", b"0") => Self::InData,
            (b"", b"") if !records.find("GNU.sparse.map").is_empty() => Self::InRecords,
            // Of a version that nobody knows: the data as it stands.
            _ => Self::None,
        }
    }
}

/// The length of the whole file, holes included, if the records have one.
pub(super) fn real_size(records: &Records) -> Result<Option<i64>, TarError> {
    let size = [records.find("GNU.sparse.size"), records.find("GNU.sparse.realsize")];
    size.into_iter().find(|text| !text.is_empty()).map(decimal).transpose()
}

/// The map in the records.
pub(super) fn in_records(records: &Records) -> Result<Vec<Extent>, TarError> {
    let count = decimal(records.find("GNU.sparse.numblocks"))?;
    let map = records.find("GNU.sparse.map");
    let numbers: Vec<&[u8]> = match map {
        b"" => Vec::new(),
        map => map.split(|byte| *byte == b',').collect(),
    };
    if count.checked_mul(2) != i64::try_from(numbers.len()).ok() {
        return Err(WRONG);
    }
    numbers.chunks_exact(2).map(extent).collect()
}

/// The map in front of the data: blocks of numbers, a line each. `next` answers with one block more.
pub(super) fn in_data(
    mut next: impl FnMut(&mut [u8; BLOCK]) -> Result<(), TarError>,
) -> Result<Vec<Extent>, TarError> {
    let (mut text, mut lines, mut read_to) = (Vec::new(), 0_u64, 0);
    let mut feed = |text: &mut Vec<u8>, lines: &mut u64, wanted: u64| {
        while *lines < wanted {
            if text.len() as u64 + BLOCK as u64 > MOST_SPECIAL {
                return Err(WRONG);
            }
            let mut block = [0; BLOCK];
            next(&mut block)?;
            *lines += block.iter().filter(|byte| **byte == b'\n').count() as u64;
            text.extend_from_slice(&block);
        }
        Ok(())
    };
    let line = |text: &[u8], from: &mut usize| {
        let rest = text.get(*from..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        *from += end + 1;
        decimal(rest.get(..end).unwrap_or_default())
    };
    feed(&mut text, &mut lines, 1)?;
    let count = line(&text, &mut read_to)?;
    let count = u64::try_from(count).ok().filter(|count| *count <= MOST_SPECIAL).ok_or(WRONG)?;
    feed(&mut text, &mut lines, 1 + 2 * count)?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let (offset, length) = (line(&text, &mut read_to)?, line(&text, &mut read_to)?);
        extents.push(new(offset, length)?);
    }
    Ok(extents)
}

/// # Errors
/// When they overlap, are out of order or beyond the file, or are not what the archive has data for.
pub(super) fn check(extents: &[Extent], size: u64, data: u64) -> Result<(), TarError> {
    let (mut end, mut told) = (0_u64, 0_u64);
    for extent in extents {
        let next = extent.offset.checked_add(extent.length).ok_or(WRONG)?;
        if extent.offset < end || next > size {
            return Err(WRONG);
        }
        end = next;
        told += extent.length;
    }
    if told == data { Ok(()) } else { Err(WRONG) }
}

fn extent(pair: &[&[u8]]) -> Result<Extent, TarError> {
    match pair {
        [offset, length] => new(decimal(offset)?, decimal(length)?),
        _ => Err(WRONG),
    }
}

fn new(offset: i64, length: i64) -> Result<Extent, TarError> {
    let positive = |number: i64| u64::try_from(number).map_err(|_| WRONG);
    Ok(Extent { offset: positive(offset)?, length: positive(length)? })
}
