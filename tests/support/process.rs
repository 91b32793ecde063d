//! A server under test: started, awaited until it says that it is ready, ended by its own process id, and
//! its log shown when the test that owns it fails.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketType, sockopt};

/// Far more than anything here takes, on a slow machine too: they turn a wait that never ends into a test that fails.
const READY_WITHIN: Duration = Duration::from_secs(120);
const STOPPED_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the command and waits for its word to systemd that it is ready (sd_notify(3)).
    pub(crate) fn start_notifying(name: &str, command: &mut Command, folder: &Path) -> Self {
        Self::start_notifying_within(READY_WITHIN, name, command, folder)
    }

    /// As `start_notifying`, for one that may have more to do first.
    pub(crate) fn start_notifying_within(
        within: Duration,
        name: &str,
        command: &mut Command,
        folder: &Path,
    ) -> Self {
        let socket = folder.join("notify.sock");
        std::fs::remove_file(&socket).or_else(absent_is_fine).unwrap();
        let notices = UnixDatagram::bind(&socket).expect("a notify socket");
        notices.set_read_timeout(Some(LOOK_EVERY)).unwrap();

        let mut process = Self::spawn(name, command.env("NOTIFY_SOCKET", &socket), folder);
        let mut notice = [0; 4096];
        process.await_ready(within, || match notices.recv(&mut notice) {
            Ok(length) => notice[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("the notify socket of {name}: {error}"),
        });
        process
    }

    /// Starts the command and waits until it accepts connections on the address.
    pub(crate) fn start_listening(name: &str, command: &mut Command, folder: &Path, address: &str) -> Self {
        let mut process = Self::spawn(name, command, folder);
        process.await_ready(READY_WITHIN, || {
            let accepted = std::net::TcpStream::connect(address).is_ok();
            if !accepted {
                std::thread::sleep(LOOK_EVERY);
            }
            accepted
        });
        process
    }

    fn spawn(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        Self { name: name.to_owned(), child, log }
    }

    fn await_ready(&mut self, within: Duration, mut ready: impl FnMut() -> bool) {
        // Each look takes as long as LOOK_EVERY, unless there is something to see.
        for _ in 0..ticks(within) {
            if ready() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status} before it was ready", self.name);
            }
        }
        panic!("{} was not ready within {within:?}", self.name);
    }

    pub(crate) fn pid(&self) -> Pid {
        pid_of(self.child.id())
    }

    /// What it has written so far to its standard output and error.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns once it has written this.
    pub(crate) fn await_log(&mut self, said: &str) {
        self.await_log_times(said, 1);
    }

    /// The same, so often.
    pub(crate) fn await_log_times(&mut self, said: &str, times: usize) {
        for _ in 0..ticks(READY_WITHIN) {
            if self.log().matches(said).count() >= times {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("{} did not say {said:?} within {READY_WITHIN:?}", self.name);
    }

    /// Asks it to end (`pid` may be a process that stands behind the one started) and waits for that.
    pub(crate) fn terminate(&mut self, pid: Pid) -> ExitStatus {
        self.ask_to_end(pid);
        self.await_end()
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&mut self, pid: Pid) {
        // It may have ended already: what counts is the wait.
        let _ = kill(pid, Signal::SIGTERM);
    }

    /// Waits until it has ended.
    pub(crate) fn await_end(&mut self) -> ExitStatus {
        for _ in 0..ticks(STOPPED_WITHIN) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill();
        panic!("{} did not end within {STOPPED_WITHIN:?} of SIGTERM", self.name);
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    pub(crate) fn wait(&mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("loading plugin")).collect();
            let tail = lines[lines.len().saturating_sub(80)..].join("\n");
            eprintln!("--- the end of the log of {}\n{tail}\n---", self.name);
        }
    }
}

/// A loopback port that nobody has. They come from below the range that the kernel gives to outgoing
/// connections, so none is taken between this answer and its use.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own_start = std::process::id().wrapping_mul(61) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((own_start + step) % u32::from(COUNT)).unwrap();
        let port = FIRST + offset;
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Binds to the port and does not listen: another thread may start a program at this moment, which has a copy of this
/// socket until it runs, and a copy that listens would be in the way of whoever comes next.
fn is_free(port: u16) -> bool {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_ok()
}

pub(crate) fn pid_of(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("a process id"))
}

fn ticks(within: Duration) -> u128 {
    within.as_millis() / LOOK_EVERY.as_millis()
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
