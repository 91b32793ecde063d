//! Small requests at full speed: one thread, many connections, on each of them one request after the other. The
//! machine's other cores are the server's.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::report::quantile;
use crate::stopwatch::Stopwatch;

/// What a server could do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// What 99 of 100 answers did not exceed, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// A request of which many are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) head: bool,
    pub(crate) path: &'a str,
    /// Whole lines.
    pub(crate) headers: &'a str,
}

struct Connection {
    stream: TcpStream,
    /// Of the answer that is on its way.
    got: Vec<u8>,
    asked: Stopwatch,
}

/// Sends this on so many connections for so many seconds, and a tenth of that before anything counts.
pub(crate) fn load(address: &str, request: Request<'_>, connections: u64, seconds: f64) -> Load {
    let Request { head, path, headers } = request;
    let method = if head { "HEAD" } else { "GET" };
    let text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").into_bytes();
    let polled = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    let mut open: Vec<Connection> = (0..connections).map(|_| Connection::to(address)).collect();
    for (connection, number) in open.iter_mut().zip(0..) {
        let data = epoll::EventData::new_u64(number);
        epoll::add(&polled, &connection.stream, data, epoll::EventFlags::IN).expect("epoll");
        connection.ask(&text);
    }
    let mut taken: Vec<f64> = Vec::with_capacity(1 << 20);
    let mut watch = Stopwatch::start();
    let mut counts = false;
    let mut events = Vec::with_capacity(open.len());
    loop {
        events.clear();
        epoll::wait(&polled, spare_capacity(&mut events), None).expect("epoll");
        for event in &events {
            let connection = &mut open[usize::try_from(event.data.u64()).expect("a small number")];
            if connection.answered(head) {
                if counts {
                    taken.push(connection.asked.seconds() * 1000.0);
                }
                connection.ask(&text);
            }
        }
        let passed = watch.seconds();
        if !counts && passed >= seconds / 10.0 {
            counts = true;
            watch = Stopwatch::start();
        } else if counts && passed >= seconds {
            return Load { per_second: taken.len() as f64 / passed, p99_ms: quantile(&taken, 0.99) };
        }
    }
}

impl Connection {
    fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a server that listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_nonblocking(true).expect("a socket");
        Self { stream, got: Vec::with_capacity(1 << 16), asked: Stopwatch::start() }
    }

    fn ask(&mut self, text: &[u8]) {
        self.got.clear();
        self.asked = Stopwatch::start();
        // A few hundred bytes always fit into a socket that is empty.
        self.stream.write_all(text).expect("a connection");
    }

    /// Takes in what is there, and answers whether the answer is whole.
    fn answered(&mut self, head: bool) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => panic!("the server closed a connection"),
            Ok(length) => self.got.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("a connection broke: {error}"),
        }
        let Some(end) = self.got.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
        assert!(self.got.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.got));
        head || self.got.len() - end - 4 >= length(&self.got[..end])
    }
}

fn length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME)).expect("a length");
    let digits = head[at + NAME.len()..].iter().skip_while(|byte| **byte == b' ');
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
