//! How a layer is packed, by its media type and its first bytes, and its bytes unpacked.

use std::io::{BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::store::OpenBlob;

/// How much of the file is read at a time, in bytes.
const READ_BYTES: usize = 128 << 10;

/// The largest window of a zstd stream, as a power of two: 128 MiB, what its own tools take without being asked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// What a media type says of how a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// A tar archive as it is, whatever its first bytes look like.
    Plain,
    /// Compressed, or not: the first bytes say, since many a media type is wrong (containerd, `DecompressStream`).
    ByItsBytes,
}

impl Packing {
    /// Of the media types whose meaning is known here; no others, and none that is encrypted.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Self::ByItsBytes,
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Self::Plain,
            _ => return None,
        })
    }

    /// The archive.
    ///
    /// # Errors
    /// When the first bytes cannot be read.
    pub(super) fn unpacked<'a>(self, mut file: impl BufRead + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
        if self == Self::Plain {
            return Ok(Box::new(file));
        }
        Ok(match file.fill_buf()? {
            [0x1f, 0x8b, 0x08, ..] => Box::new(MultiGzDecoder::new(file)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd(file)?),
            // A frame to be skipped, in front of others.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, _, _, _, _, ..] => Box::new(zstd(file)?),
            _ => Box::new(file),
        })
    }
}

fn zstd<R: BufRead>(file: R) -> std::io::Result<impl Read + use<R>> {
    let mut decoder = ::zstd::Decoder::with_buffer(file)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// A blob from its start to its end. Large reads go past the buffer.
pub(super) struct BlobReader {
    blob: OpenBlob,
    offset: u64,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl BlobReader {
    pub(super) fn new(blob: OpenBlob) -> Self {
        Self { blob, offset: 0, buffer: vec![0; READ_BYTES], from: 0, to: 0 }
    }
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.from == self.to && into.len() >= READ_BYTES {
            let read = self.blob.read_into(self.offset, into)?;
            self.offset += read as u64;
            return Ok(read);
        }
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.from == self.to {
            self.from = 0;
            self.to = self.blob.read_into(self.offset, &mut self.buffer)?;
            self.offset += self.to as u64;
        }
        Ok(self.buffer.get(self.from..self.to).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.from = self.to.min(self.from + amount);
    }
}
