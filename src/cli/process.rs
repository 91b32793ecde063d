//! What `/proc` tells of a process behind a socket: a containerd's configuration, environment and start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A process that was seen behind a socket.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The configuration that it was told to read.
    pub(super) config: Option<PathBuf>,
    /// Its environment.
    pub(super) environment: Vec<(String, String)>,
    /// When it was started.
    pub(super) started: Option<SystemTime>,
}

/// What `/proc` tells of a containerd.
pub(super) fn containerd(pid: i32) -> Option<Running> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let words = |name: &str| -> Vec<String> {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let arguments = words("cmdline");
    // systemd, where the socket is its own.
    if !arguments.first()?.contains("containerd") {
        return None;
    }
    let environment = words("environ").into_iter().filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    Some(Running {
        config: config_of(&arguments),
        environment: environment.collect(),
        started: started(&folder),
    })
}

fn config_of(arguments: &[String]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.split_once('=') {
            Some(("--config" | "-config" | "-c", path)) => return Some(path.into()),
            Some(_) => {}
            None if matches!(argument.as_str(), "--config" | "-config" | "-c") => {
                return arguments.next().map(PathBuf::from);
            }
            None => {}
        }
    }
    None
}

/// proc(5): field 22 of `stat`, in ticks since the machine started.
fn started(folder: &Path) -> Option<SystemTime> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // What comes before it in parentheses may hold spaces.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // The kernel tells it in hundredths of a second on every machine that containerd runs on.
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(boot) + Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_process_is_in_its_arguments() {
        let of = |words: &[&str]| config_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["containerd", "-c", "/a"]), Some("/a".into()));
        assert_eq!(of(&["containerd", "--log-level=x", "--config=/b"]), Some("/b".into()));
        assert_eq!(of(&["containerd"]), None);
        assert_eq!(of(&["containerd", "--config"]), None);
    }

    #[test]
    fn when_this_process_started_is_not_long_ago() {
        let own = started(Path::new("/proc/self")).unwrap();
        let age = tidehold::clock::now().duration_since(own).unwrap_or_default();
        assert!(age < Duration::from_secs(24 * 3600), "{age:?}");
    }
}
