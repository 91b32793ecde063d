//! The daemon's log on its way to standard error.
//!
//! A line is written at once and by itself: a lock around that, as the standard library has, would make all workers wait
//! for each other. Lines that come by the ten thousand a second, those of answers that are given again, may wait some
//! milliseconds for each other and are written together, by a thread of their own. None is lost: where too many wait,
//! so does whoever brings another, and at the end the rest is written.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// How long lines wait for others at most, how many bytes of them are written before that, and how many there may be.
const GATHER_FOR: Duration = Duration::from_millis(10);
const MANY_BYTES: usize = 64 << 10;
const MOST_BYTES: usize = 256 << 10;

/// The most that is written at once, unless a line is longer, in bytes: what a pipe takes as one piece, so that lines
/// never mix.
const PIECE_BYTES: usize = 4 << 10;

/// Where lines are written to.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Writes what is left when it is dropped; from then on no line waits.
pub(super) struct Rest {
    lines: Lines,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    out: File,
    waiting: Mutex<Waiting>,
    /// There is something to write.
    news: Condvar,
    /// There is room again.
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// The writer sleeps until it is told of a line.
    idle: bool,
    ended: bool,
}

impl Lines {
    /// To standard error, and what writes the rest at the end.
    pub(super) fn to_stderr() -> io::Result<(Self, Rest)> {
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn to(out: File) -> io::Result<(Self, Rest)> {
        let (waiting, news, room) = (Mutex::default(), Condvar::new(), Condvar::new());
        let lines = Self(Arc::new(Shared { out, waiting, news, room }));
        let writer = Arc::clone(&lines.0);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_on())?;
        Ok((lines.clone(), Rest { lines, writer: Some(writer) }))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Lines(shared) = &self.lines;
        shared.waiting().ended = true;
        shared.news.notify_all();
        shared.room.notify_all();
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

impl Shared {
    /// The work of the thread.
    fn write_on(&self) {
        let mut lines = Vec::new();
        let mut waiting = self.waiting();
        while !waiting.ended || !waiting.lines.is_empty() {
            if waiting.lines.is_empty() {
                waiting.idle = true;
                waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                waiting.idle = false;
                continue;
            }
            std::mem::swap(&mut lines, &mut waiting.lines);
            self.room.notify_all();
            drop(waiting);
            // Nobody can be told that the log cannot be written.
            let _ = self.write(&lines);
            lines.clear();
            let few = |waiting: &mut Waiting| waiting.lines.len() < MANY_BYTES && !waiting.ended;
            let gathered = self.news.wait_timeout_while(self.waiting(), GATHER_FOR, few);
            waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn gather(&self, line: &[u8]) -> io::Result<()> {
        let full = |waiting: &mut Waiting| {
            waiting.lines.len() + line.len() > MOST_BYTES && !waiting.lines.is_empty() && !waiting.ended
        };
        let mut waiting = self.room.wait_while(self.waiting(), full).unwrap_or_else(PoisonError::into_inner);
        if waiting.ended {
            drop(waiting);
            return self.write(line);
        }
        let before = waiting.lines.len();
        waiting.lines.extend_from_slice(line);
        if waiting.idle || (before < MANY_BYTES && waiting.lines.len() >= MANY_BYTES) {
            waiting.idle = false;
            self.news.notify_one();
        }
        Ok(())
    }

    /// Writes a line now, after those that wait.
    fn write_now(&self, line: &[u8]) -> io::Result<()> {
        let before = std::mem::take(&mut self.waiting().lines);
        self.room.notify_all();
        self.write(&before)?;
        self.write(line)
    }

    /// Writes whole lines, in pieces.
    fn write(&self, mut lines: &[u8]) -> io::Result<()> {
        while !lines.is_empty() {
            let piece = lines.get(..PIECE_BYTES).unwrap_or(lines);
            let is_end = |byte: &u8| *byte == b'\n';
            let end = if piece.len() == lines.len() { Some(lines.len()) } else { None };
            let end = end.or_else(|| piece.iter().rposition(is_end).map(|at| at + 1));
            let end = end.or_else(|| lines.iter().position(is_end).map(|at| at + 1));
            let (piece, rest) = lines.split_at(end.unwrap_or(lines.len()));
            (&self.out).write_all(piece)?;
            lines = rest;
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one line is written to.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    may_wait: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.may_wait {
            self.shared.gather(line)?
        } else {
            self.shared.write_now(line)?
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { shared: &self.0, may_wait: false }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { shared: &self.0, may_wait: of.name() == tidehold::app::GIVEN_AGAIN }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn no_line_is_lost_or_torn() {
        let mut read = tempfile::tempfile().unwrap();
        let (lines, rest) = Lines::to(read.try_clone().unwrap()).unwrap();
        let line = |number: u32| format!("{number} {}\n", "x".repeat(number as usize % 6000));
        for number in 0..2000 {
            let may_wait = number % 50 != 49;
            let text = line(number);
            Line { shared: &lines.0, may_wait }.write_all(text.as_bytes()).unwrap();
        }
        drop(rest);
        let mut last = Line { shared: &lines.0, may_wait: true };
        last.write_all(b"the last\n").unwrap();
        let mut written = String::new();
        io::Seek::rewind(&mut read).unwrap();
        read.read_to_string(&mut written).unwrap();
        let mut came: Vec<&str> = written.lines().collect();
        assert_eq!((came.len(), came.pop()), (2001, Some("the last")));
        came.sort_by_key(|text| text.split(' ').next().unwrap().parse::<u32>().unwrap());
        for (number, text) in (0..2000).zip(came) {
            assert_eq!(format!("{text}\n"), line(number));
        }
    }
}
