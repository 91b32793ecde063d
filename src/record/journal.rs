//! What is kept of the record across restarts: a file that grows, and the one before it.
//!
//! A line is a protobuf message with its length in front. Nobody waits for it to be written, and it is never synced: after
//! a crash the last of it may be missing or torn, and what is torn is cut off. Losing all of it costs nothing but the
//! memory of what was.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message as _;

use crate::proto::v1;

/// How large the file may grow before it becomes the one before.
const MOST_BYTES: u64 = 4 << 20;

/// The longest line that is read again, in bytes.
const MOST_LINE_BYTES: usize = 64 << 10;

/// How many lines may wait to be written: more are lost.
const MOST_WAITING: usize = 4096;

/// How long a line may wait before it is handed to the system.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// One thing that happened.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Line {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5")]
    pub(super) what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    #[prost(message, tag = "1")]
    Sent(v1::UpstreamRequest),
    #[prost(message, tag = "2")]
    Decided(DecidedLine),
    #[prost(message, tag = "3")]
    Given(GivenLine),
    #[prost(message, tag = "4")]
    Answered(v1::AnsweredSpan),
    #[prost(message, tag = "5")]
    Arrived(ArrivedLine),
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

/// The manifests that were given in a span of time that began then, and the bytes that were downloaded.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GivenLine {
    #[prost(message, optional, tag = "1")]
    pub(super) at: Option<prost_types::Timestamp>,
    #[prost(message, repeated, tag = "2")]
    pub(super) to: Vec<Given>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Given {
    #[prost(string, tag = "1")]
    pub(super) registry: String,
    #[prost(string, tag = "2")]
    pub(super) repository: String,
    #[prost(uint64, tag = "3")]
    pub(super) times: u64,
    #[prost(uint64, tag = "4")]
    pub(super) downloaded_bytes: u64,
}

impl Line {
    pub(super) fn sent(request: &v1::UpstreamRequest) -> Self {
        Self { what: Some(What::Sent(request.clone())) }
    }

    pub(super) fn decided(line: DecidedLine) -> Self {
        Self { what: Some(What::Decided(line)) }
    }

    pub(super) fn answered(span: v1::AnsweredSpan) -> Self {
        Self { what: Some(What::Answered(span)) }
    }

    pub(super) fn arrived(line: ArrivedLine) -> Self {
        Self { what: Some(What::Arrived(line)) }
    }

    pub(super) fn given(line: GivenLine) -> Self {
        Self { what: Some(What::Given(line)) }
    }
}

/// A file that is written by a thread of its own.
pub(super) struct Journal {
    writing: Mutex<Option<Writing>>,
}

struct Writing {
    lines: SyncSender<Line>,
    thread: JoinHandle<()>,
}

impl Journal {
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
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let writer = Writer { file: BufWriter::new(file), length: whole, now, before };
        let thread =
            std::thread::Builder::new().name("record".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok((Self { writing: Mutex::new(Some(Writing { lines: sender, thread })) }, lines))
    }

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

struct Writer {
    file: BufWriter<File>,
    length: u64,
    now: PathBuf,
    before: PathBuf,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Line>) {
        if let Err(error) = self.write_all(lines) {
            let path = self.now.display();
            tracing::warn!(%path, %error, "what happens from now on is not kept across restarts");
        }
    }

    fn write_all(&mut self, lines: &Receiver<Line>) -> io::Result<()> {
        loop {
            match lines.recv_timeout(FLUSH_AFTER) {
                Ok(line) => self.write(&line)?,
                Err(RecvTimeoutError::Timeout) => self.file.flush()?,
                Err(RecvTimeoutError::Disconnected) => return self.file.flush(),
            }
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let bytes = line.encode_length_delimited_to_vec();
        self.file.write_all(&bytes)?;
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length >= MOST_BYTES {
            self.file.flush()?;
            fs::rename(&self.now, &self.before)?;
            self.file = BufWriter::new(opened(&self.now)?);
            self.length = 0;
        }
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
        Ok(file) => file.take(MOST_BYTES + MOST_LINE_BYTES as u64).read_to_end(&mut bytes)?,
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
