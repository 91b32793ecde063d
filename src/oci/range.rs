//! One byte range of an HTTP request (RFC 9110, section 14), the only kind that registries' clients send.

/// What a `Range` header asks for, before the length of the blob is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-` or `bytes=first-last`, both inclusive.
    From {
        /// The first byte, counted from 0.
        first: u64,
        /// The last byte; without it, to the end.
        last: Option<u64>,
    },
    /// `bytes=-length`: the last so many bytes.
    Suffix {
        /// How many bytes, counted from the end.
        length: u64,
    },
}

impl ByteRange {
    /// Reads a `Range` header. `None` where it is to be ignored, as the RFC has it for other units, several
    /// ranges and malformed ones: the answer is then the whole blob.
    pub fn parse(header: &str) -> Option<Self> {
        let spec = header.trim().strip_prefix("bytes=")?;
        let (first, last) = spec.split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        match (first.trim(), last.trim()) {
            ("", length) => Some(Self::Suffix { length: number(length)? }),
            (first, "") => Some(Self::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    /// The range as half-open offsets into a blob of `total` bytes, clamped to its end.
    ///
    /// # Errors
    /// When no byte of the blob is asked for: the answer is then 416.
    pub fn within(self, total: u64) -> Result<std::ops::Range<u64>, RangeError> {
        let range = match self {
            Self::From { first, last } => first..last.map_or(total, |last| total.min(last.saturating_add(1))),
            Self::Suffix { length } => total.saturating_sub(length)..total,
        };
        if range.start >= range.end { Err(RangeError { total }) } else { Ok(range) }
    }
}

/// The range lies outside the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range asked for is outside the blob, which has {total} bytes")]
pub struct RangeError {
    /// The blob's length in bytes.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_clamped_to_the_blob() {
        for (header, expected) in [
            ("bytes=0-", Ok(0..10)),
            ("bytes=3-", Ok(3..10)),
            ("bytes=3-3", Ok(3..4)),
            ("bytes=3-99", Ok(3..10)),
            ("bytes=-4", Ok(6..10)),
            ("bytes=-99", Ok(0..10)),
            ("bytes=10-", Err(RangeError { total: 10 })),
            ("bytes=-0", Err(RangeError { total: 10 })),
            ("bytes=99999999999999999999-", Err(RangeError { total: 10 })),
            ("bytes=0-99999999999999999999", Ok(0..10)),
        ] {
            assert_eq!(ByteRange::parse(header).unwrap().within(10), expected, "{header}");
        }
    }

    #[test]
    fn what_is_no_single_byte_range_is_ignored() {
        for header in
            ["", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-3", "bytes=0-1,3-4", "lines=0-1", "bytes=+1-2"]
        {
            assert_eq!(ByteRange::parse(header), None, "{header}");
        }
    }
}
