//! Extended records (`x` and `g` headers): `length key=value`, one after another.

use super::header::Header;
use super::{TarError, Time};

/// In front of the names of extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The map of a sparse file of version 0.0, which repeats two keys, and of 0.1, which has both in one.
const OFFSET: &[u8] = b"GNU.sparse.offset";
const BYTES: &[u8] = b"GNU.sparse.numbytes";
const MAP: &[u8] = b"GNU.sparse.map";

/// The records in front of one entry. The last of each key counts.
#[derive(Debug, Default, Clone)]
pub(super) struct Records {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// # Errors
    /// When they are not records.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, TarError> {
        let (mut records, mut map) = (std::collections::BTreeMap::new(), Vec::new());
        let mut in_map = 0_usize;
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(TarError::Header("an extended record"))?;
            bytes = rest;
            if key == OFFSET || key == BYTES {
                // They come in turns.
                let expected = if in_map.is_multiple_of(2) { OFFSET } else { BYTES };
                if key != expected || value.contains(&b',') {
                    return Err(TarError::Header("the map of a sparse file"));
                }
                if in_map > 0 {
                    map.push(b',');
                }
                map.extend_from_slice(value);
                in_map += 1;
            } else {
                records.insert(key.to_vec(), value.to_vec());
            }
        }
        if in_map > 0 {
            records.insert(MAP.to_vec(), map);
        }
        Ok(Self { records: records.into_iter().collect() })
    }

    /// What a key says; nothing where it says nothing.
    pub(super) fn find(&self, key: &str) -> &[u8] {
        let found = self.records.binary_search_by(|(known, _)| known.as_slice().cmp(key.as_bytes()));
        found.ok().and_then(|at| self.records.get(at)).map(|(_, value)| value.as_slice()).unwrap_or_default()
    }

    /// Lets them have their say over the header's own fields.
    ///
    /// # Errors
    /// When one that should be a number is none.
    pub(super) fn apply_to(&self, header: &mut Header) -> Result<(), TarError> {
        for (key, value) in self.records.iter().filter(|(_, value)| !value.is_empty()) {
            match key.as_slice() {
                b"path" => header.name.clone_from(value),
                b"linkpath" => header.link.clone_from(value),
                b"uid" => header.uid = decimal(value)?,
                b"gid" => header.gid = decimal(value)?,
                b"size" => header.size = decimal(value)?,
                b"atime" => header.read_at = time(value)?,
                b"mtime" => header.modified_at = time(value)?,
                b"ctime" => {
                    time(value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Extended attributes and their values.
    pub(super) fn into_xattrs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named = |(key, value): (Vec<u8>, _)| Some((key.strip_prefix(XATTR)?.to_vec(), value));
        self.records.into_iter().filter_map(named).collect()
    }
}

/// The first record's key and value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..blank)?).ok()?).ok()?;
    if length < 5 || length <= blank + 1 {
        return None;
    }
    let (record, rest) = (bytes.get(blank + 1..length)?, bytes.get(length..)?);
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
    let strings = [b"path".as_slice(), b"linkpath", b"uname", b"gname"];
    let has_nul = if strings.contains(&key) { value.contains(&0) } else { key.contains(&0) };
    (!key.is_empty() && !has_nul).then_some((key, value, rest))
}

/// A decimal number, with a sign if need be.
pub(super) fn decimal(text: &[u8]) -> Result<i64, TarError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or(TarError::Header("a number in an extended record"))
}

fn time(text: &[u8]) -> Result<Time, TarError> {
    Time::of_record(text).ok_or(TarError::Header("a time in an extended record"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let records = Records::read(b"12 path=a\nb\n19 SCHILY.xattr.x=\n13 path=last\n").unwrap();
        assert_eq!(records.find("path"), b"last");
        assert_eq!(records.into_xattrs(), [(b"x".to_vec(), Vec::new())]);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for bytes in
            ["9 path=a", "100 path=a\n", "x path=a\n", "8 pathab\n", "9 =aaaab\n", "-9 path=a\n", "4 =\n"]
        {
            assert!(Records::read(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(Records::read(b"11 path=a\0b\n").is_err());
    }

    #[test]
    fn the_old_map_of_a_sparse_file_becomes_the_newer() {
        let bytes = b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=7\n23 GNU.sparse.offset=9\n25 GNU.sparse.numbytes=1\n";
        let records = Records::read(bytes).unwrap();
        assert_eq!(records.find("GNU.sparse.map"), b"0,7,9,1");
        assert!(Records::read(b"25 GNU.sparse.numbytes=7\n").is_err());
    }
}
