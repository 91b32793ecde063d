//! What systemd's unit of containerd tells it on its command line, which is stronger than its configuration.
//!
//! Only the files are read, in the order in which systemd reads them (systemd.unit(5)); systemd itself is not asked.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{matching, text};

/// Where units are, the strongest first.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The options of a containerd's command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// Its configuration.
    pub config: Option<PathBuf>,
    /// Where it keeps things.
    pub root: Option<PathBuf>,
    /// Where it listens.
    pub socket: Option<PathBuf>,
    /// Whether there may be more, from variables that only systemd knows.
    pub variables: bool,
}

/// Those of a node's `containerd.service`; none where there is no such unit, or it starts no containerd.
///
/// # Errors
/// That a file of it cannot be read.
pub fn flags(root: &Path) -> io::Result<Option<Flags>> {
    let mut texts = Vec::new();
    for folder in FOLDERS {
        if let Some(unit) = text(root, &Path::new(folder).join("containerd.service"))? {
            texts.push(unit);
            break;
        }
    }
    // Of several with one name the strongest is read, and all in the order of their names.
    let mut parts: BTreeMap<_, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        for part in matching(root, &format!("{folder}/containerd.service.d/*.conf")) {
            parts.entry(part.file_name().map(ToOwned::to_owned)).or_insert(part);
        }
    }
    for part in parts.values() {
        texts.extend(text(root, part)?);
    }
    Ok(command(&texts).map(|command| read(&command)))
}

/// The words of the command that these files come to.
fn command(texts: &[String]) -> Option<Vec<String>> {
    let mut command: Option<&str> = None;
    let texts: Vec<String> = texts.iter().map(|text| text.replace("\\\n", " ")).collect();
    for text in &texts {
        let mut within = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                within = line == "[Service]";
            } else if let Some((key, value)) = line.split_once('=')
                && within
                && key.trim() == "ExecStart"
            {
                command = Some(value.trim()).filter(|value| !value.is_empty());
            }
        }
    }
    let words = command?.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned());
    let words: Vec<String> = words.collect();
    words.iter().any(|word| word.contains("containerd")).then_some(words)
}

fn read(command: &[String]) -> Flags {
    let mut flags = Flags::default();
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        flags.variables |= word.contains('$');
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let option = match name {
            "--config" | "-config" | "-c" => &mut flags.config,
            "--root" | "-root" => &mut flags.root,
            "--address" | "-address" | "-a" => &mut flags.socket,
            _ => continue,
        };
        *option = value.map(PathBuf::from).or_else(|| words.next().map(PathBuf::from));
    }
    flags
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn flags_of(files: &[(&str, &str)]) -> Option<Flags> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let at = root.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        }
        flags(root.path()).unwrap()
    }

    #[test]
    fn the_last_command_counts_with_its_options() {
        let unit = "usr/lib/systemd/system/containerd.service";
        let part = "etc/systemd/system/containerd.service.d/10.conf";
        assert_eq!(flags_of(&[]), None);
        let plain = "[Unit]\nExecStart=no\n[Service]\nExecStart=/usr/bin/containerd\n";
        assert_eq!(flags_of(&[(unit, plain)]), Some(Flags::default()));
        let own = "[Service]\nExecStart=\nExecStart=/usr/bin/containerd \\\n  --root /data/c -a \"/c.sock\" --config=/c.toml\n";
        let found = flags_of(&[(unit, plain), (part, own)]).unwrap();
        assert_eq!(found.root.as_deref(), Some(Path::new("/data/c")));
        assert_eq!(found.socket.as_deref(), Some(Path::new("/c.sock")));
        assert_eq!(found.config.as_deref(), Some(Path::new("/c.toml")));
        assert!(!found.variables);
        let some = flags_of(&[(unit, "[Service]\nExecStart=/usr/bin/containerd $ARGS\n")]).unwrap();
        assert!(some.variables);
    }
}
