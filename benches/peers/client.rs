//! A client that costs as little as a client can: it has the kernel throw bodies away (`MSG_TRUNC`) instead of
//! copying them out, so that on a machine that server and client share, the server is what is measured.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::stopwatch::Stopwatch;

/// No answer takes longer between two of its bytes.
const SILENCE: Duration = Duration::from_secs(60);

/// One connection, kept open over requests.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    address: String,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    /// Until the first byte of the body, in seconds.
    pub(crate) first_byte: f64,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Self {
        Self::of(TcpStream::connect(address).expect("a server that listens"), address)
    }

    /// One whose kernel takes in only so many bytes ahead of it.
    pub(crate) fn connect_with_buffer(address: &str, bytes: usize) -> Self {
        let stream = TcpStream::connect(address).expect("a server that listens");
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, bytes).expect("a socket");
        Self::of(stream, address)
    }

    fn of(stream: TcpStream, address: &str) -> Self {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(SILENCE)).expect("a socket");
        Self { stream, address: address.to_owned(), buffer: vec![0; 1 << 20] }
    }

    /// Gets this and throws it away. Each of `headers` is a whole line.
    pub(crate) fn get(&mut self, path: &str, headers: &str) -> Answer {
        let watch = Stopwatch::start();
        let (status, mut left) = self.ask(path, headers);
        let mut answer = Answer { status, body_bytes: 0, first_byte: 0.0 };
        if left == 0 {
            answer.first_byte = watch.seconds();
        }
        while left > 0 {
            let wanted = usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let flags = RecvFlags::TRUNC;
            let (_, got) =
                rustix::net::recv(&self.stream, &mut self.buffer[..wanted], flags).expect("a body");
            assert!(got > 0, "{} ended the body of {path} early", self.address);
            if answer.body_bytes == 0 {
                answer.first_byte = watch.seconds();
            }
            answer.body_bytes += got as u64;
            left -= got as u64;
        }
        answer
    }

    /// Gets this at so many bytes a second until told to stop, or to its end.
    pub(crate) fn get_slowly(&mut self, path: &str, bytes_a_second: usize, stop: &AtomicBool) {
        const TICK: Duration = Duration::from_millis(250);
        let (_, mut left) = self.ask(path, "");
        let piece = (bytes_a_second / 4).min(self.buffer.len());
        while left > 0 && !stop.load(Ordering::Relaxed) {
            let got = self.stream.read(&mut self.buffer[..piece]).unwrap_or(0);
            if got == 0 {
                return;
            }
            left = left.saturating_sub(got as u64);
            std::thread::sleep(TICK);
        }
    }

    /// Gets this as fast as it comes until told to stop, or to its end.
    pub(crate) fn get_until(&mut self, path: &str, stop: &AtomicBool) {
        let (_, mut left) = self.ask(path, "");
        while left > 0 && !stop.load(Ordering::Relaxed) {
            let whole = self.buffer.len();
            match rustix::net::recv(&self.stream, &mut self.buffer[..whole], RecvFlags::TRUNC) {
                Ok((_, got)) if got > 0 => left = left.saturating_sub(got as u64),
                _ => return,
            }
        }
    }

    /// Sends a GET and reads the head alone: its status, and how many bytes will follow.
    fn ask(&mut self, path: &str, headers: &str) -> (u16, u64) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        self.stream.write_all(request.as_bytes()).expect("a connection");
        // Looked at before it is taken, so that none of the body comes along.
        let mut seen = vec![0; 16 * 1024];
        let length = loop {
            let got = self.stream.peek(&mut seen).expect("an answer");
            assert!(got > 0, "{} closed the connection instead of answering {path}", self.address);
            if let Some(end) = seen[..got].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            std::thread::yield_now();
        };
        self.stream.read_exact(&mut seen[..length]).expect("what was there already");
        let head = String::from_utf8_lossy(&seen[..length]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        (status, length.unwrap_or_else(|| panic!("{path}: an answer without a length: {head}")))
    }
}
