//! Finds the machine's busybox and lays out a small root around it. It knows where programs and their libraries
//! stand on a Linux machine; it changes nothing there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::Tree;

/// What the image's shell can call without a path.
const APPLETS: [&str; 40] = [
    "ash",
    "base64",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "du",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "printf",
    "ps",
    "pwd",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "tail",
    "test",
    "touch",
    "true",
    "uname",
    "wc",
    "wget",
];

/// Why there is no runnable root.
#[derive(Debug, thiserror::Error)]
pub enum BusyboxError {
    #[error(
        "no busybox on PATH, in /bin or in /usr/bin: install it (on Debian: apt-get install busybox-static)"
    )]
    Missing,
    #[error("{} could not be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the libraries of {} could not be found with ldd (on Debian, busybox-static needs none)", .path.display())]
    Libraries { path: PathBuf },
    #[error("the root could not be packed")]
    Pack(#[from] io::Error),
}

/// Writes a root with busybox, its applets, its libraries and a few files into the tree.
pub(super) fn unpack_into(tree: &mut Tree) -> Result<(), BusyboxError> {
    let path = find()?;
    let program = read(&path)?;
    let libraries = if needs_interpreter(&program) { libraries_of(&path)? } else { BTreeSet::new() };

    let fixed = ["bin", "dev", "etc", "proc", "root", "sys", "usr", "usr/bin", "var"];
    let mut directories: BTreeSet<String> = fixed.into_iter().map(str::to_owned).collect();
    for library in &libraries {
        directories.extend(parents(library));
    }
    for directory in &directories {
        tree.directory(directory, 0o755)?;
    }
    tree.directory("tmp", 0o1777)?;
    tree.file("bin/busybox", 0o755, &program)?;
    for applet in APPLETS {
        tree.link(&format!("bin/{applet}"), "busybox")?;
    }
    for library in &libraries {
        let name = library.strip_prefix("/").unwrap_or(library);
        tree.file(&name.to_string_lossy(), 0o755, &read(library)?)?;
    }
    tree.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    tree.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    Ok(())
}

fn find() -> Result<PathBuf, BusyboxError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [PathBuf::from("/bin"), PathBuf::from("/usr/bin")];
    let mut candidates = std::env::split_paths(&path).chain(usual).map(|directory| directory.join("busybox"));
    candidates.find(|candidate| candidate.is_file()).ok_or(BusyboxError::Missing)
}

fn read(path: &Path) -> Result<Vec<u8>, BusyboxError> {
    std::fs::read(path).map_err(|source| BusyboxError::Read { path: path.to_owned(), source })
}

/// Every directory above a file, without the leading slash.
fn parents(path: &Path) -> Vec<String> {
    let above = path.ancestors().skip(1).filter_map(|ancestor| ancestor.strip_prefix("/").ok());
    above.map(|ancestor| ancestor.to_string_lossy().into_owned()).filter(|name| !name.is_empty()).collect()
}

/// What the loader would map, by the paths under which it looks.
fn libraries_of(path: &Path) -> Result<BTreeSet<PathBuf>, BusyboxError> {
    let missing = || BusyboxError::Libraries { path: path.to_owned() };
    let output = Command::new("ldd").arg(path).output().map_err(|_| missing())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("not found") {
        return Err(missing());
    }
    let found: BTreeSet<PathBuf> = text.lines().filter_map(library_in).collect();
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

/// The path in a line such as `libc.so.6 => /lib/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn library_in(line: &str) -> Option<PathBuf> {
    let last = line.rsplit("=>").next()?.trim();
    let path = last.split_whitespace().next()?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Whether a program has a `PT_INTERP` segment, and so is dynamically linked (elf(5)). Little-endian ELF only, which
/// is what Linux distributions still ship; anything else is taken as static.
fn needs_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    if !elf.starts_with(b"\x7fELF") {
        return false;
    }
    let wide = elf.get(4) == Some(&2);
    let word = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte)))
    };
    let (table, entry_size, count) = if wide {
        (word(0x20, 8), word(0x36, 2), word(0x38, 2))
    } else {
        (word(0x1c, 4), word(0x2a, 2), word(0x2c, 2))
    };
    let (Some(table), Some(entry_size), Some(count)) = (table, entry_size, count) else { return false };
    (0..count).any(|index| {
        let at = index.checked_mul(entry_size).and_then(|offset| table.checked_add(offset));
        at.and_then(|at| word(at, 4)) == Some(PT_INTERP as usize)
    })
}
