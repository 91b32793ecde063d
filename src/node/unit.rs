//! What systemd's units say: containerd's what it is told on its command line, which is stronger than its configuration; our
//! own what we are told there, and where systemd listens for us.
//!
//! Only the files are read, in the order in which systemd reads them (systemd.unit(5)); systemd itself is not asked.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{any_text, matching};

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
    let command = command(&texts(root, "containerd.service")?);
    Ok(command.filter(|words| words.iter().any(|word| word.contains("containerd"))).map(|words| read(&words)))
}

/// The options of the command that a node's unit of Tidehold runs; none where there is no such unit.
///
/// # Errors
/// That a file of it cannot be read.
pub fn own(root: &Path) -> io::Result<Option<Flags>> {
    Ok(command(&texts(root, "tidehold.service")?).map(|words| read(&words)))
}

/// Where a unit of sockets listens; none where there is no such unit.
///
/// # Errors
/// That a file of it cannot be read.
pub fn listens(root: &Path, unit: &str) -> io::Result<Option<Vec<String>>> {
    let texts = texts(root, unit)?;
    Ok((!texts.is_empty()).then(|| settings(&texts, "[Socket]", "ListenStream")))
}

/// What a unit's files set in the environment of what it starts, the files that these name included. Empty where there is
/// no such unit.
///
/// # Errors
/// That a file of it cannot be read.
pub fn environment(root: &Path, unit: &str) -> io::Result<Vec<(String, String)>> {
    let texts = texts(root, unit)?;
    let mut set: Vec<String> = Vec::new();
    for line in settings(&texts, "[Service]", "Environment") {
        set.extend(words(&line));
    }
    // They are stronger than what the unit says itself (systemd.exec(5)).
    for file in settings(&texts, "[Service]", "EnvironmentFile") {
        let text = any_text(root, Path::new(file.trim_start_matches('-')))?.unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        set.extend(lines.map(|line| line.replace(['"', '\''], "")));
    }
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for one in set {
        if let Some((name, value)) = one.split_once('=') {
            environment.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    Ok(environment.into_iter().collect())
}

/// The words of a line, of which quotes hold some together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut within = None;
    for char in line.chars() {
        match (within, char) {
            (None, '"' | '\'') => within = Some(char),
            (Some(quote), char) if char == quote => within = None,
            (None, char) if char.is_whitespace() => words.push(String::new()),
            (_, char) => {
                if let Some(word) = words.last_mut() {
                    word.push(char);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The texts of a unit, as systemd puts them together. Empty where there is no such unit.
fn texts(root: &Path, unit: &str) -> io::Result<Vec<String>> {
    let mut texts = Vec::new();
    for folder in FOLDERS {
        if let Some(text) = any_text(root, &Path::new(folder).join(unit))? {
            texts.push(text);
            break;
        }
    }
    if texts.is_empty() {
        return Ok(texts);
    }
    // Of several with one name the strongest is read, and all in the order of their names.
    let mut parts: BTreeMap<_, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        for part in matching(root, &format!("{folder}/{unit}.d/*.conf")) {
            parts.entry(part.file_name().map(ToOwned::to_owned)).or_insert(part);
        }
    }
    for part in parts.values() {
        texts.extend(any_text(root, part)?);
    }
    Ok(texts)
}

/// The values of a setting that may be given several times: an empty one takes back those before it.
fn settings(texts: &[String], section: &str, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    for text in texts {
        let mut within = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                within = line == section;
            } else if let Some((key, value)) = line.split_once('=')
                && within
                && key.trim() == name
            {
                match value.trim() {
                    "" => values.clear(),
                    value => values.push(value.to_owned()),
                }
            }
        }
    }
    values
}

/// The words of the command that these files come to.
fn command(texts: &[String]) -> Option<Vec<String>> {
    let command = settings(texts, "[Service]", "ExecStart").pop()?;
    let words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned());
    Some(words.collect())
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
        assert_eq!(flags_of(&[(part, own)]), None, "a part without its unit is nothing");
        let some = flags_of(&[(unit, "[Service]\nExecStart=/usr/bin/containerd $ARGS\n")]).unwrap();
        assert!(some.variables);
    }

    #[test]
    fn an_environment_is_what_the_unit_its_parts_and_its_files_say() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let at = root.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        };
        let found = || environment(root.path(), "c.service").unwrap();
        assert_eq!(found(), []);
        write(
            "usr/lib/systemd/system/c.service",
            "[Service]\nEnvironment=A=1 \"B=2 3\" 'C=4'\nEnvironment=\n",
        );
        assert_eq!(found(), [], "taken back");
        write("etc/systemd/system/c.service.d/p.conf", "[Service]\nEnvironment=\"A=1 2\" B=3 \"\"\n");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found(), [pair("A", "1 2"), pair("B", "3")]);
        write("etc/systemd/system/c.service.d/q.conf", "[Service]\nEnvironmentFile=-/etc/c.env\n");
        assert_eq!(found(), [pair("A", "1 2"), pair("B", "3")]);
        write("etc/c.env", "# B=5\nB=\"4\"\n");
        assert_eq!(found(), [pair("A", "1 2"), pair("B", "4")]);
    }

    #[test]
    fn sockets_are_those_of_the_unit_and_its_parts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let at = root.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        };
        let found = || listens(root.path(), "t.socket").unwrap();
        assert_eq!(found(), None);
        write(
            "usr/lib/systemd/system/t.socket",
            "[Unit]\nListenStream=no\n[Socket]\n#ListenStream=no\nListenStream=/a\nListenStream = 1\n",
        );
        assert_eq!(found().unwrap(), ["/a", "1"]);
        write("run/systemd/system/t.socket.d/b.conf", "[Socket]\nListenStream=/b\n");
        assert_eq!(found().unwrap(), ["/a", "1", "/b"]);
        write("etc/systemd/system/t.socket.d/a.conf", "[Socket]\nListenStream=\nListenStream=/c\n");
        assert_eq!(found().unwrap(), ["/c", "/b"]);
        write("etc/systemd/system/t.socket", "[Socket]\n");
        write("etc/systemd/system/t.socket.d/b.conf", "");
        assert_eq!(found().unwrap(), ["/c"]);
    }
}
