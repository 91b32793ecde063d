//! What is kept of the record across restarts: a file that grows, and the one before it.
//!
//! A line is a protobuf message with its length in front. Nobody waits for it to be written, and it is never synced: after
//! a crash the last of it may be missing or torn, and what is torn is cut off. Losing all of it costs nothing but the
//! memory of what was.
//!
//! Sums are asked for every second, by the thread that writes, and written as what has come since. A file that
//! follows another one begins with all of them, so that they outlast the lines of which they are the sums.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message as _;

use crate::clock;
use crate::proto::v1;

/// How large the file may grow before it becomes the one before.
const MOST_BYTES: u64 = 4 << 20;

/// The longest line, and the most that all sums take, in bytes.
const MOST_LINE_BYTES: u64 = 64 << 10;
const MOST_SUMS_BYTES: u64 = 4 << 20;

/// How many lines may wait to be written: more are lost.
const MOST_WAITING: usize = 4096;

/// How long a line may wait before it is handed to the system, and with it what has come to the sums.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// How long after something could not be written that is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// One thing that happened.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Line {
    #[prost(oneof = "What", tags = "1, 2, 5, 6")]
    pub(super) what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    #[prost(message, tag = "1")]
    Sent(v1::UpstreamRequest),
    #[prost(message, tag = "2")]
    Decided(DecidedLine),
    #[prost(message, tag = "5")]
    Arrived(ArrivedLine),
    #[prost(message, tag = "6")]
    Sums(SumsLine),
}

/// How a blob came: from which repository, when, in how many bytes, and for how many counted requests.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ArrivedLine {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(string, tag = "2")]
    pub(super) repository: String,
    #[prost(message, optional, tag = "3")]
    pub(super) at: Option<prost_types::Timestamp>,
    #[prost(uint64, tag = "4")]
    pub(super) bytes: u64,
    #[prost(uint32, tag = "5")]
    pub(super) counted: u32,
}

/// A decision, and what it was about.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DecidedLine {
    #[prost(string, tag = "1")]
    pub(super) reference: String,
    #[prost(message, optional, tag = "2")]
    pub(super) decision: Option<v1::Decision>,
}

/// Sums by spans of time: all that they come to, or what has come to them since the line before.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SumsLine {
    /// What lines before this one say is part of it.
    #[prost(bool, tag = "1")]
    pub(super) all: bool,
    #[prost(message, repeated, tag = "2")]
    pub(super) spent: Vec<SpentSpan>,
    #[prost(message, repeated, tag = "3")]
    pub(super) answered: Vec<v1::AnsweredSpan>,
}

/// What was spent in a span of time that began then.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SpentSpan {
    #[prost(message, optional, tag = "1")]
    pub(super) at: Option<prost_types::Timestamp>,
    #[prost(message, repeated, tag = "2")]
    pub(super) on: Vec<SpentOn>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct SpentOn {
    #[prost(string, tag = "1")]
    pub(super) registry: String,
    #[prost(string, tag = "2")]
    pub(super) repository: String,
    #[prost(uint64, tag = "3")]
    pub(super) requests: u64,
    #[prost(uint64, tag = "4")]
    pub(super) counted: u64,
    #[prost(uint64, tag = "5")]
    pub(super) given: u64,
    #[prost(uint64, tag = "6")]
    pub(super) downloaded_bytes: u64,
    #[prost(uint64, tag = "7")]
    pub(super) by_operator: u64,
}

/// Who knows the sums. Asked by one thread alone.
pub(super) trait Sums: Send + 'static {
    /// All of it, or what has come since it was asked last.
    fn sums(&self, all: bool) -> SumsLine;
}

impl Line {
    pub(super) fn sent(request: &v1::UpstreamRequest) -> Self {
        Self { what: Some(What::Sent(request.clone())) }
    }

    pub(super) fn decided(line: DecidedLine) -> Self {
        Self { what: Some(What::Decided(line)) }
    }

    pub(super) fn arrived(line: ArrivedLine) -> Self {
        Self { what: Some(What::Arrived(line)) }
    }

    fn sums(line: SumsLine) -> Self {
        Self { what: Some(What::Sums(line)) }
    }
}

/// A file that is ready to be written to.
pub(super) struct Opened {
    file: File,
    length: u64,
    now: PathBuf,
    before: PathBuf,
}

/// A file that is written by a thread of its own.
pub(super) struct Journal {
    writing: Mutex<Option<Writing>>,
}

struct Writing {
    lines: SyncSender<Line>,
    thread: JoinHandle<()>,
}

impl Opened {
    /// Opens the journal in a folder, making that where it is missing, with what was written before.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Line>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (now, before) = (folder.join("journal"), folder.join("journal.before"));
        let (mut lines, _) = read(&before)?;
        let (newer, whole) = read(&now)?;
        lines.extend(newer);
        let file = opened(&now)?;
        // What was torn off by a crash would make what comes after it unreadable.
        file.set_len(whole)?;
        Ok((Self { file, length: whole, now, before }, lines))
    }

    /// Begins to write, the lines that it is given and these sums.
    pub(super) fn start(self, sums: impl Sums) -> io::Result<Journal> {
        let Self { file, length, now, before } = self;
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let writer = Writer { file: BufWriter::new(file), length, flushed: length, now, before, sums };
        let thread =
            std::thread::Builder::new().name("record".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Journal { writing: Mutex::new(Some(Writing { lines: sender, thread })) })
    }
}

impl Journal {
    /// Writes a line, some time soon; or never, where there are too many.
    pub(super) fn write(&self, line: Line) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Writing { lines, .. }) = &*writing else { return };
        match lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::debug!("the record is written too slowly: a line of it is lost")
            }
            // The thread has said why it ended.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Writes a line once there is room for it: for the end, when there may be many at once.
    pub(super) fn write_in_turn(&self, line: Line) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Writing { lines, .. }) = &*writing {
            // Where the thread has ended it has said why.
            let _ = lines.send(line);
        }
    }

    /// Waits until all is written. What is told after that is not kept.
    pub(super) fn close(&self) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Writing { lines, thread }) = writing {
            drop(lines);
            let _ = thread.join();
        }
    }
}

struct Writer<S> {
    file: BufWriter<File>,
    /// How much was written to it, without the sums that it begins with.
    length: u64,
    /// How much of it the system has, up to the end of a line.
    flushed: u64,
    now: PathBuf,
    before: PathBuf,
    sums: S,
}

impl<S: Sums> Writer<S> {
    fn run(mut self, lines: &Receiver<Line>) {
        while let Err(error) = self.write_all(lines) {
            let path = self.now.display();
            tracing::warn!(%path, %error, "what happens is not kept across restarts until it can be written again");
            self.recover(lines);
        }
    }

    /// Until nobody has anything to write any more.
    fn write_all(&mut self, lines: &Receiver<Line>) -> io::Result<()> {
        let mut flushed_at = clock::instant();
        loop {
            let line = lines.recv_timeout(FLUSH_AFTER);
            let ended = matches!(line, Err(RecvTimeoutError::Disconnected));
            if let Ok(line) = line {
                self.write(&line)?;
            }
            if ended || flushed_at.elapsed() >= FLUSH_AFTER {
                self.write_since()?;
                self.flush()?;
                flushed_at = clock::instant();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Waits until it can be written again, as once there is room on the disk. What comes meanwhile is lost but for the
    /// sums.
    fn recover(&mut self, lines: &Receiver<Line>) {
        let mut tried_at = clock::instant();
        loop {
            let ended = matches!(lines.recv_timeout(FLUSH_AFTER), Err(RecvTimeoutError::Disconnected));
            if ended || tried_at.elapsed() >= AGAIN_AFTER {
                tried_at = clock::instant();
                match self.write_again() {
                    Ok(()) => return tracing::info!("what happens is kept across restarts again"),
                    Err(_) if ended => return,
                    Err(_) => {}
                }
            }
        }
    }

    fn write_again(&mut self) -> io::Result<()> {
        let file = opened(&self.now)?;
        // What the old one still has to write is lost: half of it may be there.
        let _ = std::mem::replace(&mut self.file, BufWriter::new(file)).into_parts();
        self.file.get_ref().set_len(self.flushed)?;
        self.write_sums()
    }

    /// Writes what has come to the sums.
    fn write_since(&mut self) -> io::Result<()> {
        let since = self.sums.sums(false);
        if since == SumsLine::default() { Ok(()) } else { self.write(&Line::sums(since)) }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let bytes = line.encode_length_delimited_to_vec();
        self.file.write_all(&bytes)?;
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length >= MOST_BYTES {
            self.write_on()?;
        }
        Ok(())
    }

    /// Goes on in another file.
    fn write_on(&mut self) -> io::Result<()> {
        self.flush()?;
        fs::rename(&self.now, &self.before)?;
        (self.length, self.flushed) = (0, 0);
        self.file = BufWriter::new(opened(&self.now)?);
        self.write_sums()
    }

    /// Writes all of the sums.
    fn write_sums(&mut self) -> io::Result<()> {
        let all = Line::sums(self.sums.sums(true));
        self.file.write_all(&all.encode_length_delimited_to_vec())?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.flushed = self.file.get_ref().metadata()?.len();
        Ok(())
    }
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The lines of a file, and how many bytes of it they are.
fn read(path: &Path) -> io::Result<(Vec<Line>, u64)> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // One that somebody else made larger is read as far as we would have written it.
        Ok(file) => file.take(MOST_BYTES + MOST_SUMS_BYTES + MOST_LINE_BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let (mut rest, mut lines) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let mut ahead = rest;
        let Ok(line) = Line::decode_length_delimited(&mut ahead) else { break };
        lines.push(line);
        rest = ahead;
    }
    Ok((lines, (bytes.len() - rest.len()) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Sums for Nothing {
        fn sums(&self, all: bool) -> SumsLine {
            SumsLine { all, ..SumsLine::default() }
        }
    }

    #[test]
    fn what_could_not_be_written_leaves_nothing_torn_and_the_sums_are_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (now, before) = (folder.path().join("journal"), folder.path().join("journal.before"));
        let whole =
            Line::sent(&v1::UpstreamRequest { registry: "docker.io".to_owned(), ..Default::default() });
        let bytes = whole.encode_length_delimited_to_vec();
        fs::write(&now, [&bytes[..], b"torn"].concat()).unwrap();
        let full = BufWriter::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let flushed = bytes.len() as u64;
        let writer = Writer {
            file: full,
            length: 0,
            flushed,
            now: now.clone(),
            before: before.clone(),
            sums: Nothing,
        };
        let (sender, lines) = sync_channel(1);
        sender.send(whole.clone()).unwrap();
        drop(sender);
        writer.run(&lines);
        let all = Line::sums(SumsLine { all: true, ..SumsLine::default() });
        assert_eq!(read(&now).unwrap().0, [whole, all]);
    }
}
