//! What a process has used: CPU time and memory, as the kernel counts them.

use std::fs;

/// The CPU time of a process, with that of its children that have ended, in seconds.
pub(crate) fn of(pid: i32) -> f64 {
    ticks(&format!("/proc/{pid}/stat"), 11..15)
}

/// The CPU time of the children of this process that have ended, in seconds.
pub(crate) fn of_own_children() -> f64 {
    ticks("/proc/self/stat", 13..15)
}

/// A figure of `/proc/PID/status` in MiB, `VmHWM` for one.
pub(crate) fn memory(pid: i32, figure: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).expect("a figure of that name");
    kib.parse::<f64>().expect("a number") / 1024.0
}

/// The sum of some of the fields behind the program's name, which may itself hold blanks.
fn ticks(file: &str, fields: std::ops::Range<usize>) -> f64 {
    /// USER_HZ, which is the same on every Linux.
    const A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(file).expect("a process that runs");
    let (_, behind) = stat.rsplit_once(") ").expect("a name in brackets");
    let fields = behind.split(' ').skip(fields.start).take(fields.len());
    fields.map(|field| field.parse::<f64>().expect("a number")).sum::<f64>() / A_SECOND
}
