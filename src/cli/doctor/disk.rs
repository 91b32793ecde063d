//! The disk under the hold, and the clock.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tidehold::proto::v1::Unwritable;

use super::finding::{Finding, bad, ok, warn};
use crate::cli::words;

/// More than this between our clock and another's, and tokens and certificates are not valid yet, or no longer.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Fewer free entries than this, and commits fail soon.
const LEAST_INODES: u64 = 10_000;

/// What was seen of the hold's folder.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) data_dir: PathBuf,
    /// Whether it has to be there: the daemon runs.
    pub(super) expected: bool,
    /// Why the daemon cannot write there, as it says itself.
    pub(super) unwritable: Option<Unwritable>,
    /// What the file system says, or why it says nothing.
    pub(super) disk: Result<Disk, String>,
    /// What `[cache] reserve_free` comes to there, in bytes.
    pub(super) reserve: u64,
}

/// What a file system says of itself.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) total: u64,
    pub(super) free: u64,
    /// Free entries; none where it has no bound.
    pub(super) inodes: Option<u64>,
    /// Its kind, as statfs(2) numbers it.
    pub(super) kind: i64,
    /// What of the hold can only be read: all of it, or the first folder that is mounted so.
    pub(super) read_only: Option<PathBuf>,
    /// The folder's rights.
    pub(super) mode: u32,
}

/// Whether there is room, and whether it is a place for a hold at all.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let (quoted, shown) = (words::quoted_path(&facts.data_dir), facts.data_dir.display());
    let disk = match &facts.disk {
        Ok(disk) => disk,
        // The daemon makes it when it first starts.
        Err(_) if !facts.expected => return Vec::new(),
        Err(why) => {
            return vec![bad(
                "disk.folder",
                format!("the hold's folder {shown} cannot be looked at: {why}"),
                format!("install -d -m 0700 {quoted}; systemctl restart tidehold"),
            )];
        }
    };
    let mut findings = Vec::new();
    match disk.kind {
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 | 0x517b | 0x0102_1997 => findings.push(bad(
            "disk.network",
            format!("{shown} is on a network file system, which keeps neither locks nor what was synced"),
            "give data_dir a folder on a local disk",
        )),
        0x794c_7630 => findings.push(warn(
            "disk.overlay",
            format!("{shown} is in a container's own layer: it goes with the container"),
            format!("mount a folder of the node at {shown}"),
        )),
        0x0102_1994 | 0x8584_58f6 => findings.push(warn(
            "disk.memory",
            format!(
                "{shown} is in memory: it is empty after a restart, and containerd relies on what was there"
            ),
            "give data_dir a folder on a disk",
        )),
        _ => {}
    }
    if let Some(folder) = &disk.read_only {
        let (quoted, shown) = (words::quoted_path(folder), folder.display());
        findings.push(bad(
            "disk.read-only",
            format!("{shown} is on a file system that is mounted read-only"),
            format!("see why (dmesg | tail), then: mount -o remount,rw $(findmnt -n -o TARGET -T {quoted})"),
        ));
    } else if let Some(Unwritable { why, mend }) = &facts.unwritable {
        findings.push(bad(
            "disk.unwritable",
            format!("the daemon cannot write, so that it keeps nothing new: {why}"),
            mend.clone(),
        ));
    }
    if disk.mode & 0o022 != 0 {
        findings.push(bad(
            "disk.rights",
            format!("others than the daemon's user can write into {shown} (mode {:03o})", disk.mode),
            format!("chmod 700 {quoted}"),
        ));
    }
    let room = format!("{} of {} free", words::size(disk.free), words::size(disk.total));
    if disk.free < facts.reserve {
        findings.push(bad(
            "disk.full",
            format!(
                "{shown}: {room}, less than the reserve of {}: blobs are streamed and not stored",
                words::size(facts.reserve)
            ),
            "tidehold prune, or make the disk larger, or lower reserve_free and max_size under [cache]",
        ));
    } else if disk.inodes.is_some_and(|inodes| inodes < LEAST_INODES) {
        findings.push(bad(
            "disk.inodes",
            format!("{shown}: only {} files more can be made there", disk.inodes.unwrap_or_default()),
            "see what has so many: du --inodes -xd2 / | sort -n | tail",
        ));
    } else {
        findings.push(ok("disk.room", format!("{shown}: {room}, {} in reserve", words::size(facts.reserve))));
    }
    findings
}

/// The clock, held against what a registry says the time is, or else against when files were written.
pub(super) fn clock(now: SystemTime, registry: Option<SystemTime>, written: Option<SystemTime>) -> Finding {
    let mend = "timedatectl set-ntp true (or mend whatever sets the clock), then look: timedatectl";
    let off = |other: SystemTime| match now.duration_since(other) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if let Some(registry) = registry {
        let (by, way) = off(registry);
        let told = words::length(by.as_secs());
        return if by > SKEW {
            let what =
                format!("this node's clock is {told} {way} the registry's: tokens and certificates fail");
            bad("clock", what, mend)
        } else {
            ok("clock", "the clock agrees with the registry's")
        };
    }
    match written.map(off) {
        Some((by, "behind")) if by > SKEW => {
            let told = words::length(by.as_secs());
            bad("clock", format!("this node's clock is {told} behind files that were written before"), mend)
        }
        _ => ok("clock", "no file is from the future"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    const GIB: u64 = 1 << 30;

    fn disk() -> Disk {
        Disk {
            total: 100 * GIB,
            free: 50 * GIB,
            inodes: Some(1 << 20),
            kind: 0xef53,
            read_only: None,
            mode: 0o700,
        }
    }

    fn judged(disk: Disk) -> Vec<(Level, &'static str)> {
        names(&facts(disk, None))
    }

    fn facts(disk: Disk, unwritable: Option<Unwritable>) -> Facts {
        Facts { data_dir: "/d".into(), expected: true, unwritable, disk: Ok(disk), reserve: 5 * GIB }
    }

    fn names(facts: &Facts) -> Vec<(Level, &'static str)> {
        judge(facts).iter().map(|finding| (finding.level, finding.name)).collect()
    }

    #[test]
    fn a_disk_is_judged_by_its_room_its_kind_and_its_rights() {
        let table = [
            (disk(), Level::Ok, "disk.room"),
            (Disk { free: 4 * GIB, ..disk() }, Level::Bad, "disk.full"),
            (Disk { inodes: Some(9), ..disk() }, Level::Bad, "disk.inodes"),
            (Disk { kind: 0x6969, ..disk() }, Level::Bad, "disk.network"),
            (Disk { kind: 0x794c_7630, ..disk() }, Level::Warn, "disk.overlay"),
            (Disk { kind: 0x0102_1994, ..disk() }, Level::Warn, "disk.memory"),
            (Disk { read_only: Some("/d/blobs".into()), ..disk() }, Level::Bad, "disk.read-only"),
            (Disk { mode: 0o777, ..disk() }, Level::Bad, "disk.rights"),
        ];
        for (disk, level, name) in table {
            assert_eq!(judged(disk).first(), Some(&(level, name)));
        }
        // Once, where the daemon says the same.
        let told = || Some(Unwritable { why: "create /d/1: Read-only".to_owned(), mend: "dmesg".to_owned() });
        let (unwritable, room) = ((Level::Bad, "disk.unwritable"), (Level::Ok, "disk.room"));
        assert_eq!(names(&facts(disk(), told())), [unwritable, room]);
        let read_only = facts(Disk { read_only: Some("/d".into()), ..disk() }, told());
        assert_eq!(names(&read_only), [(Level::Bad, "disk.read-only"), room]);
        let missing = |expected| Facts { expected, disk: Err("gone".into()), ..facts(disk(), None) };
        assert_eq!(judge(&missing(true))[0].name, "disk.folder");
        assert!(judge(&missing(false)).is_empty());
    }

    #[test]
    fn the_clock_may_be_five_minutes_off() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds: i64| {
            now.checked_add(Duration::from_secs(seconds.unsigned_abs()))
                .filter(|_| seconds > 0)
                .unwrap_or_else(|| now - Duration::from_secs(seconds.unsigned_abs()))
        };
        for (off, level) in
            [(0, Level::Ok), (299, Level::Ok), (-299, Level::Ok), (301, Level::Bad), (-301, Level::Bad)]
        {
            assert_eq!(clock(now, Some(at(off)), None).level, level, "{off}");
        }
        assert_eq!(clock(now, None, Some(at(301))).level, Level::Bad);
        assert_eq!(clock(now, None, Some(at(-100_000))).level, Level::Ok);
        assert_eq!(clock(now, None, None).level, Level::Ok);
    }
}
