//! One header block: its fields by format, its numbers in octal or base 256, its checksum.

use super::{BLOCK, TarError, Time};

/// A block as it was read.
pub(super) type Block = [u8; BLOCK];

/// What a header block says, before the records in front of it are applied.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub(super) flag: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) modified_at: Time,
    /// Before all time where the header has none.
    pub(super) read_at: Time,
    pub(super) major: i64,
    pub(super) minor: i64,
}

/// The dialects that put different things behind the first 257 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Header {
    /// Reads a block that is not all zeros.
    ///
    /// # Errors
    /// When its checksum or one of its numbers is wrong.
    pub(super) fn read(block: &Block) -> Result<Self, TarError> {
        let format = format(block)?;
        let mut header = Self {
            flag: byte(block, 156),
            name: text(field(block, 0, 100)),
            link: text(field(block, 157, 100)),
            size: number(field(block, 124, 12))?,
            mode: number(field(block, 100, 8))?,
            uid: number(field(block, 108, 8))?,
            gid: number(field(block, 116, 8))?,
            modified_at: Time::since_1970(number(field(block, 136, 12))?, 0),
            ..Self::default()
        };
        if format == Format::V7 {
            return Ok(header);
        }
        header.major = number(field(block, 329, 8))?;
        header.minor = number(field(block, 337, 8))?;
        let prefix = match format {
            Format::V7 => Vec::new(),
            Format::Ustar => text(field(block, 345, 155)),
            Format::Star => {
                header.read_at = Time::since_1970(number(field(block, 476, 12))?, 0);
                number(field(block, 488, 12))?;
                text(field(block, 345, 131))
            }
            Format::Gnu => match gnu_read_at(block) {
                Ok(read_at) => {
                    header.read_at = read_at;
                    Vec::new()
                }
                // Early writers in Go put a prefix where this format has times.
                Err(_) => {
                    Some(text(field(block, 345, 155))).filter(|text| text.is_ascii()).unwrap_or_default()
                }
            },
        };
        if !prefix.is_empty() {
            header.name = [prefix.as_slice(), &header.name].join(&b'/');
        }
        Ok(header)
    }
}

fn gnu_read_at(block: &Block) -> Result<Time, TarError> {
    // Both have to be numbers for either to count.
    let time = |field: &[u8]| match field.first() {
        None | Some(0) => Ok(Time::default()),
        Some(_) => Ok::<_, TarError>(Time::since_1970(number(field)?, 0)),
    };
    let read_at = time(field(block, 345, 12))?;
    time(field(block, 357, 12))?;
    Ok(read_at)
}

fn format(block: &Block) -> Result<Format, TarError> {
    let told = octal(field(block, 148, 8)).map_err(|_| TarError::Header("checksum"))?;
    let counted = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for byte in block.iter().enumerate().map(counted) {
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if told != unsigned && told != signed {
        return Err(TarError::Header("checksum"));
    }
    Ok(match (field(block, 257, 6), field(block, 263, 2), field(block, 508, 4)) {
        (b"ustar\0", _, b"tar\0") => Format::Star,
        (b"ustar\0", _, _) => Format::Ustar,
        (b"ustar ", b" \0", _) => Format::Gnu,
        _ => Format::V7,
    })
}

fn field(block: &Block, at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

fn byte(block: &Block, at: usize) -> u8 {
    block.get(at).copied().unwrap_or_default()
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// In base 256 where the first bit is set, else in octal.
fn number(field: &[u8]) -> Result<i64, TarError> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field, *first),
        _ => octal(field),
    }
}

/// Two's complement, the highest byte first; its highest bit only says that it is of this kind.
fn base_256(field: &[u8], first: u8) -> Result<i64, TarError> {
    let too_large = || TarError::Header("a number is too large");
    let inverted = if first & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0_u64;
    for (at, byte) in field.iter().enumerate() {
        let byte = byte ^ inverted;
        if value >> 56 > 0 {
            return Err(too_large());
        }
        value = value << 8 | u64::from(if at == 0 { byte & 0x7f } else { byte });
    }
    let value = i64::try_from(value).map_err(|_| too_large())?;
    Ok(if inverted == 0 { value } else { !value })
}

/// Among blanks and NULs; nothing is 0.
fn octal(field: &[u8]) -> Result<i64, TarError> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let from = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let to = field.iter().rposition(|byte| !blank(byte)).map_or(from, |last| last + 1);
    let digits = field.get(from..to).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let not_octal = || TarError::Header("a number is not one");
    if from == to {
        return Ok(0);
    }
    if digits.is_empty() || digits.first() == Some(&b'+') {
        return Err(not_octal());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| not_octal())?;
    // More bits than fit come round, and are found out as a negative length.
    u64::from_str_radix(digits, 8).map(u64::cast_signed).map_err(|_| not_octal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_octal_and_in_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"  644 \0\0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]).unwrap(), -16);
        assert!(number(&[0x80, 0x7f, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]).is_err());
        assert!(number(b"0000648\0").is_err());
        assert!(number(b"+000644\0").is_err());
        assert!(number(b"-000644\0").is_err());
    }

    #[test]
    fn a_wrong_checksum_is_no_header() {
        let mut header = ::tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_cksum();
        let mut block = *header.as_bytes();
        assert_eq!(Header::read(&block).unwrap().name, b"a");
        block[0] = b'b';
        assert!(Header::read(&block).is_err());
    }
}
