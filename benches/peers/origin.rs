//! The registry that every side pulls from: files in folders, sent by the kernel from its page cache, so that it is
//! not what is measured. It counts the bytes of blobs that leave it.
//!
//! A repository is a folder with `blobs/<hex>` and `tags/<tag>`, a file that holds a digest.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The prefix of every repository, as Docker Hub has it.
pub(crate) const PREFIX: &str = "library/";

/// A running registry. Its threads end with the process.
#[derive(Debug)]
pub(crate) struct Origin {
    address: String,
    counts: Arc<Counts>,
}

/// What it sent, and how fast it may.
#[derive(Debug, Default)]
struct Counts {
    blob_bytes: AtomicU64,
    /// Bytes a second on each connection; 0 is as fast as can be.
    pace: AtomicU64,
}

impl Origin {
    /// Serves the repositories in a folder.
    pub(crate) fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its own address").to_string();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (folder, counts) = (folder.clone(), Arc::clone(&shared));
                // A client that goes away in the middle is no concern of anybody's.
                std::thread::spawn(move || drop(serve(&client, &folder, &counts)));
            }
        });
        Self { address, counts }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bytes of blobs that were sent since it was last asked.
    pub(crate) fn take_blob_bytes(&self) -> u64 {
        self.counts.blob_bytes.swap(0, Ordering::Relaxed)
    }

    /// Sends blobs at this many bytes a second on each connection, or (0) as fast as can be.
    pub(crate) fn pace(&self, bytes_a_second: u64) {
        self.counts.pace.store(bytes_a_second, Ordering::Relaxed);
    }
}

/// What is asked for.
struct Asked {
    head: bool,
    path: String,
    range: Option<(u64, Option<u64>)>,
}

/// What there is to answer with.
struct Found {
    file: PathBuf,
    media_type: String,
    digest: String,
    is_blob: bool,
}

fn serve(client: &TcpStream, folder: &Path, counts: &Counts) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client.try_clone()?);
    while let Some(asked) = read_request(&mut reader)? {
        match find(&asked.path, folder) {
            Some(found) => send(client, &asked, &found, counts)?,
            None => {
                let status = if asked.path == "/v2/" { "200 OK" } else { "404 Not Found" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
                );
                let body = if asked.head { "" } else { "{}" };
                (&mut &*client).write_all(format!("{head}{body}").as_bytes())?;
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let head = words.next() == Some("HEAD");
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut range = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        if header.trim_end().is_empty() {
            return Ok(Some(Asked { head, path, range }));
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("range")
            && let Some((first, last)) =
                value.trim().strip_prefix("bytes=").and_then(|bytes| bytes.split_once('-'))
            && let Ok(first) = first.parse()
        {
            range = Some((first, last.parse().ok()));
        }
    }
}

fn find(path: &str, folder: &Path) -> Option<Found> {
    let rest = path.strip_prefix("/v2/")?.strip_prefix(PREFIX)?;
    let mut words = rest.split('/');
    let (name, kind, reference) = (words.next()?, words.next()?, words.next()?);
    let repository = folder.join(name);
    let digest = if reference.starts_with("sha256:") {
        reference.to_owned()
    } else {
        fs::read_to_string(repository.join("tags").join(reference)).ok()?
    };
    let file = repository.join("blobs").join(digest.strip_prefix("sha256:")?);
    let is_blob = kind == "blobs";
    let media_type = if is_blob {
        "application/octet-stream".to_owned()
    } else {
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        manifest["mediaType"].as_str()?.to_owned()
    };
    file.is_file().then_some(Found { file, media_type, digest, is_blob })
}

fn send(client: &TcpStream, asked: &Asked, found: &Found, counts: &Counts) -> std::io::Result<()> {
    let file = File::open(&found.file)?;
    let size = file.metadata()?.len();
    let (first, end) = asked
        .range
        .map_or((0, size), |(first, last)| (first.min(size), last.map_or(size, |last| size.min(last + 1))));
    let status = if asked.range.is_some() { "206 Partial Content" } else { "200 OK" };
    let range = asked.range.map_or_else(String::new, |_| {
        format!("Content-Range: bytes {first}-{}/{size}\r\n", end.saturating_sub(1))
    });
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nDocker-Content-Digest: {}\r\nAccept-Ranges: bytes\r\n\
         {range}Content-Length: {}\r\n\r\n",
        found.media_type,
        found.digest,
        end - first
    );
    (&mut &*client).write_all(head.as_bytes())?;
    if asked.head {
        return Ok(());
    }
    /// Twenty pieces a second where it is paced.
    const TICK: Duration = Duration::from_millis(50);
    const PIECE: u64 = 1 << 24;
    let mut at = first;
    while at < end {
        let pace = if found.is_blob { counts.pace.load(Ordering::Relaxed) } else { 0 };
        let piece = if pace == 0 { PIECE } else { (pace / 20).clamp(1, PIECE) };
        let wanted = usize::try_from(piece.min(end - at)).expect("a piece");
        let sent = rustix::fs::sendfile(client, &file, Some(&mut at), wanted)?;
        if found.is_blob {
            counts.blob_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        }
        if pace > 0 {
            std::thread::sleep(TICK);
        }
    }
    Ok(())
}
