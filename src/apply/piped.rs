//! The layer that a pipe carries, found in the hold.
//!
//! containerd 1.6 has no proxied differs, but it lets a program take the place of the decompression: that is handed the
//! compressed layer through a pipe, 32 KiB at a time, each a request to the content store, and is not told which layer
//! it is. Read from its file the layer comes many times as fast. So what the pipe begins with is compared with the
//! layers that containerd is reading.
//!
//! Invariant: at any doubt the pipe is read to its end. What was taken from it to compare is given back first, so no
//! byte is lost either way.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Chain, Cursor, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::packing::Packing;

/// What is taken from the pipe before anybody is asked, in bytes: as much as containerd puts into it at once.
const HEAD_BYTES: usize = 32 << 10;

/// How much of the pipe may be read to tell layers apart that begin alike, in bytes.
const MOST_HEAD_BYTES: usize = 4 << 20;

/// How much is decompressed and written at a time, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// A held layer that the pipe may be carrying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its file.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
}

/// Where the layer is read from.
#[derive(Debug)]
pub enum Source<P> {
    /// Its own file, from the start.
    Held(File, PathBuf),
    /// The pipe, with what was taken from it.
    Piped(Chain<Cursor<Vec<u8>>, P>),
}

/// Finds where to read the layer from that a pipe carries. `candidates` is asked once, with the layer's first bytes,
/// for the layers that begin with them and one of which it must be, if there are any.
///
/// # Errors
/// When the pipe cannot be read.
pub fn source<P: Read>(
    mut pipe: P,
    candidates: impl FnOnce(&[u8]) -> Vec<Candidate>,
) -> io::Result<Source<P>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let more = extend(&mut head, &mut pipe, HEAD_BYTES)?;
    if more && let Some((file, path)) = the_one(&mut head, &mut pipe, candidates)? {
        return Ok(Source::Held(file, path));
    }
    Ok(Source::Piped(Cursor::new(head).chain(pipe)))
}

/// The file of the only candidate that goes on as the pipe does.
fn the_one(
    head: &mut Vec<u8>,
    pipe: &mut impl Read,
    candidates: impl FnOnce(&[u8]) -> Vec<Candidate>,
) -> io::Result<Option<(File, PathBuf)>> {
    let mut alike: Vec<Rival> = candidates(head).into_iter().filter_map(Rival::open).collect();
    let mut compared = 0;
    loop {
        let new = head.get(compared..).unwrap_or_default();
        alike.retain(|rival| rival.goes_on_with(compared as u64, new));
        compared = head.len();
        if alike.len() < 2 || compared >= MOST_HEAD_BYTES {
            break;
        }
        if !extend(head, pipe, HEAD_BYTES)? {
            // All of it is here already.
            return Ok(None);
        }
    }
    let one = if alike.len() == 1 { alike.pop() } else { None };
    Ok(one.map(|rival| (rival.file, rival.path)))
}

/// A candidate whose file is open.
struct Rival {
    file: File,
    path: PathBuf,
}

impl Rival {
    /// Nothing where the file cannot be had from here, or is not what was said.
    fn open(Candidate { path, size }: Candidate) -> Option<Self> {
        let file = File::open(&path).ok()?;
        let same = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size);
        same.then_some(Self { file, path })
    }

    fn goes_on_with(&self, at: u64, bytes: &[u8]) -> bool {
        let mut own = vec![0; bytes.len()];
        self.file.read_exact_at(&mut own, at).is_ok() && own == bytes
    }
}

/// Takes so many more bytes from the pipe; no, where it ends before that.
fn extend(head: &mut Vec<u8>, pipe: &mut impl Read, by: usize) -> io::Result<bool> {
    let taken = pipe.take(by as u64).read_to_end(head)?;
    Ok(taken == by)
}

/// Writes out what a compressed layer holds.
///
/// # Errors
/// When the layer cannot be read or decompressed, or the other side does not take it.
pub fn decompress(layer: impl Read, out: &mut impl Write) -> io::Result<()> {
    let mut bytes = Packing::ByItsBytes.unpacked(BufReader::with_capacity(BUFFER_BYTES, layer))?;
    // Decompressed into this buffer, which leaves whenever it is full.
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    io::copy(&mut bytes, &mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    struct Layers {
        folder: TempDir,
    }

    impl Layers {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn hold(&self, name: &str, bytes: &[u8]) -> Candidate {
            let path = self.folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            Candidate { path, size: bytes.len() as u64 }
        }
    }

    /// Where the layer was found, and what is read there.
    fn found(piped: &[u8], candidates: Vec<Candidate>) -> (Option<String>, Vec<u8>) {
        let mut read = Vec::new();
        match source(piped, |_| candidates).unwrap() {
            Source::Held(mut file, path) => {
                file.read_to_end(&mut read).unwrap();
                (Some(path.file_name().unwrap().to_string_lossy().into_owned()), read)
            }
            Source::Piped(mut pipe) => {
                pipe.read_to_end(&mut read).unwrap();
                (None, read)
            }
        }
    }

    fn layer(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn the_layer_that_begins_like_the_pipe_is_read_from_its_file() {
        let layers = Layers::new();
        let (this, other) = (layer(1, 300_000), layer(2, 300_000));
        let candidates = vec![layers.hold("other", &other), layers.hold("this", &this)];
        assert_eq!(found(&this, candidates), (Some("this".to_owned()), this));
    }

    #[test]
    fn layers_that_begin_alike_are_told_apart_further_on() {
        let layers = Layers::new();
        let this = layer(1, 1 << 20);
        let mut other = this.clone();
        other[500_000] ^= 1;
        let candidates = vec![layers.hold("other", &other), layers.hold("this", &this)];
        assert_eq!(found(&this, candidates), (Some("this".to_owned()), this));
    }

    #[test]
    fn layers_that_are_alike_for_too_long_are_read_from_the_pipe() {
        let layers = Layers::new();
        let this = layer(1, MOST_HEAD_BYTES + 100_000);
        let longer = [&this[..], b"more"].concat();
        let candidates = vec![layers.hold("longer", &longer), layers.hold("this", &this)];
        assert_eq!(found(&this, candidates), (None, this));
    }

    #[test]
    fn a_layer_that_is_another_s_beginning_is_read_from_the_pipe() {
        let layers = Layers::new();
        let this = layer(1, 200_000);
        let longer = [&this[..], b"more"].concat();
        let candidates = vec![layers.hold("longer", &longer), layers.hold("this", &this)];
        assert_eq!(found(&this, candidates), (None, this));
    }

    #[test]
    fn a_file_that_is_not_what_was_said_is_not_read() {
        let layers = Layers::new();
        let this = layer(1, 200_000);
        let cut = Candidate { size: 200_000, ..layers.hold("cut", &this[..100_000]) };
        let gone = Candidate { path: layers.folder.path().join("gone"), size: 200_000 };
        assert_eq!(found(&this, vec![cut, gone]), (None, this));
    }

    #[test]
    fn nobody_is_asked_about_a_layer_that_is_here_already() {
        let small = layer(1, HEAD_BYTES - 1);
        let asked = |_: &[u8]| panic!("there is nothing to gain");
        let Source::Piped(mut pipe) = source(&small[..], asked).unwrap() else { panic!("it has no file") };
        let mut read = Vec::new();
        pipe.read_to_end(&mut read).unwrap();
        assert_eq!(read, small);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_pipe_carried(
            length in 0usize..200_000,
            others in prop::collection::vec((0usize..200_000, 0usize..250_000), 0..4),
            held in any::<bool>(),
        ) {
            let layers = Layers::new();
            let this = layer(7, length);
            let mut candidates = Vec::new();
            for (number, (differs_at, length)) in others.into_iter().enumerate() {
                let mut other = layer(7, length);
                if let Some(byte) = other.get_mut(differs_at) {
                    *byte ^= 1;
                }
                if held || !other.starts_with(&this) {
                    candidates.push(layers.hold(&format!("other-{number}"), &other));
                }
            }
            // As with containerd: the layer itself is among them, or what was asked knows none of it.
            if held {
                candidates.push(layers.hold("this", &this));
            } else {
                candidates.retain(|candidate| {
                    let other = fs::read(&candidate.path).unwrap();
                    let shared = other.len().min(this.len()).min(HEAD_BYTES);
                    other[..shared] != this[..shared]
                });
            }
            prop_assert_eq!(found(&this, candidates).1, this);
        }
    }
}
