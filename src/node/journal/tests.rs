//! Whatever is set up is taken back byte for byte, and nothing of others is lost on the way.

use proptest::prelude::*;
use tempfile::TempDir;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;
use crate::node::files::{beneath, text};

const FOLDER: &str = "/var/lib/tidehold-setup";

struct Node {
    root: TempDir,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Self { root: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            node.write(path, text);
        }
        node
    }

    fn write(&self, path: &str, text: &str) {
        let at = beneath(self.root.path(), Path::new(path));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    fn text(&self, path: &str) -> Option<String> {
        text(self.root.path(), Path::new(path)).unwrap()
    }

    fn journal(&self) -> Journal {
        Journal::open(self.root.path(), Path::new(FOLDER)).unwrap()
    }

    fn change(&self, path: &str, after: &str) -> Change {
        Change { path: path.into(), before: self.text(path), after: after.to_owned(), mode: None }
    }

    fn apply(&self, changes: &[(&str, &str)]) {
        let changes: Vec<_> = changes.iter().map(|(path, after)| self.change(path, after)).collect();
        self.journal().apply(&changes, None).unwrap();
    }

    fn undo(&self) -> Vec<Conflict> {
        let mut journal = self.journal();
        let (restorations, conflicts) = journal.undo_plan(false).unwrap();
        if conflicts.is_empty() {
            journal.restore(&restorations, false, false).unwrap();
            journal.close().unwrap();
        }
        conflicts
    }

    /// Every file and folder, with its rights and what is in it.
    fn all(&self) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![self.root.path().to_owned()];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let about = entry.metadata().unwrap();
                let (bytes, modified) = if about.is_dir() {
                    pending.push(entry.path());
                    (Vec::new(), 0)
                } else {
                    (fs::read(entry.path()).unwrap(), about.mtime_nsec())
                };
                found.push((entry.path(), about.mode(), modified, bytes));
            }
        }
        found.sort();
        found
    }
}

const LINES: &str = "a = 1\nb = 2\nc = 3\nd = 4\ne = 5\nf = 6\n";

#[test]
fn what_was_changed_is_taken_back_with_its_rights_and_its_time() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/var/lib/x", "")]);
    let at = node.root.path().join("etc/a.toml");
    fs::set_permissions(&at, Permissions::from_mode(0o640)).unwrap();
    let before = node.all();
    node.apply(&[("/etc/a.toml", "x = 1\n"), ("/etc/certs.d/_default/hosts.toml", "y")]);
    assert_eq!(node.text("/etc/a.toml").unwrap(), "x = 1\n");
    assert_eq!(fs::metadata(&at).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(node.journal().paths().count(), 2);
    assert_eq!(node.undo(), []);
    assert_eq!(node.all(), before);
    assert!(node.journal().is_empty());
}

#[test]
fn a_second_change_keeps_the_first_original() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/var/lib/x", "")]);
    let before = node.all();
    node.apply(&[("/etc/a.toml", "x = 1\n")]);
    node.apply(&[("/etc/a.toml", "x = 2\n"), ("/etc/new", "z")]);
    assert_eq!(node.undo(), []);
    assert_eq!(node.all(), before);
}

#[test]
fn a_run_that_was_cut_short_is_taken_back_or_finished() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/etc/b", "b"), ("/var/lib/x", "")]);
    let before = node.all();
    let changes = [node.change("/etc/a.toml", "x = 1\n"), node.change("/etc/b", "c")];
    node.journal().apply(&changes, None).unwrap();
    // As if it had ended before the second file was renamed.
    node.write("/etc/b", "b");
    let modified = before.iter().find(|(path, ..)| path.ends_with("etc/b")).unwrap().2;
    let file = File::options().write(true).open(node.root.path().join("etc/b")).unwrap();
    let second = fs::metadata(node.root.path().join("etc/b")).unwrap().mtime();
    let at = Duration::new(u64::try_from(second).unwrap(), u32::try_from(modified).unwrap());
    file.set_modified(SystemTime::UNIX_EPOCH + at).unwrap();
    node.write("/etc/b.tidehold-new", "half");
    assert_eq!(node.undo(), []);
    assert_eq!(node.all(), before);

    node.apply(&[("/etc/a.toml", "x = 1\n"), ("/etc/b", "c")]);
    node.write("/etc/b", "b");
    node.apply(&[("/etc/b", "c")]);
    assert_eq!(node.text("/etc/b").unwrap(), "c");
    assert_eq!(node.undo(), []);
    assert_eq!(node.text("/etc/b").unwrap(), "b");
}

#[test]
fn what_others_changed_since_stays_and_ours_goes() {
    let node = Node::new(&[("/etc/a.toml", LINES)]);
    let ours = format!("ours = 0\n{LINES}");
    node.apply(&[("/etc/a.toml", &ours)]);
    node.write("/etc/a.toml", &ours.replace("f = 6", "f = 7\ntheirs = 1"));
    assert_eq!(node.undo(), []);
    assert_eq!(node.text("/etc/a.toml").unwrap(), LINES.replace("f = 6", "f = 7\ntheirs = 1"));
}

#[test]
fn what_others_changed_between_two_setups_stays() {
    let node = Node::new(&[("/etc/a.toml", LINES)]);
    node.apply(&[("/etc/a.toml", &format!("ours = 0\n{LINES}"))]);
    let theirs = LINES.replace("f = 6", "f = 7");
    node.write("/etc/a.toml", &format!("ours = 0\n{theirs}"));
    node.apply(&[("/etc/a.toml", &format!("ours = 1\n{theirs}"))]);
    assert_eq!(node.undo(), []);
    assert_eq!(node.text("/etc/a.toml").unwrap(), theirs);
}

#[test]
fn what_cannot_be_told_apart_is_left_alone_until_it_is_forced_and_even_then_kept() {
    let node = Node::new(&[("/etc/a.toml", "a = 1\n")]);
    node.apply(&[("/etc/a.toml", "a = 2\n")]);
    node.write("/etc/a.toml", "a = 3\n");
    let at = node.root.path().join("etc/a.toml");
    fs::set_permissions(&at, Permissions::from_mode(0o600)).unwrap();
    let conflicts = node.undo();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].written, b"a = 2\n");
    assert_eq!(node.text("/etc/a.toml").unwrap(), "a = 3\n");

    let mut journal = node.journal();
    let (restorations, conflicts) = journal.undo_plan(true).unwrap();
    assert_eq!(conflicts, []);
    journal.restore(&restorations, true, false).unwrap();
    journal.close().unwrap();
    assert_eq!(node.text("/etc/a.toml").unwrap(), "a = 1\n");
    assert_eq!(node.text("/etc/a.toml.changed").unwrap(), "a = 3\n");
    let kept = fs::metadata(at.with_extension("toml.changed")).unwrap();
    assert_eq!(kept.mode() & 0o7777, 0o600, "nobody may read of it who could not before");
}

#[test]
fn a_file_that_others_put_into_our_folder_keeps_the_folder() {
    let node = Node::new(&[("/etc/x", ""), ("/var/lib/x", "")]);
    node.apply(&[("/etc/certs.d/_default/hosts.toml", "y")]);
    node.write("/etc/certs.d/quay.io/hosts.toml", "z");
    assert_eq!(node.undo(), []);
    assert_eq!(node.text("/etc/certs.d/quay.io/hosts.toml").unwrap(), "z");
    assert!(!node.root.path().join("etc/certs.d/_default").exists());
}

#[test]
fn a_link_stays_one() {
    let node = Node::new(&[("/srv/real.toml", "a = 1\n")]);
    fs::create_dir_all(node.root.path().join("etc")).unwrap();
    let link = node.root.path().join("etc/a.toml");
    std::os::unix::fs::symlink("/srv/real.toml", &link).unwrap();
    node.apply(&[("/etc/a.toml", "a = 2\n")]);
    assert_eq!(node.text("/srv/real.toml").unwrap(), "a = 2\n");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(node.undo(), []);
    assert_eq!(node.text("/srv/real.toml").unwrap(), "a = 1\n");
}

#[test]
fn what_changes_between_the_look_and_the_yes_is_not_overwritten() {
    let node = Node::new(&[("/etc/a.toml", "a = 1\n")]);
    let change = node.change("/etc/a.toml", "a = 2\n");
    node.write("/etc/a.toml", "a = 3\n");
    assert!(matches!(node.journal().apply(&[change], None), Err(JournalError::Moved(_))));
    assert_eq!(node.text("/etc/a.toml").unwrap(), "a = 3\n");
}

#[test]
fn a_swap_is_remembered_after_the_files_are_restored_until_it_is_closed() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/var/lib/x", "")]);
    let before = node.all();
    let swap = Swap {
        containerd: "system".into(),
        root: "/c".into(),
        data_dir: "/hold".into(),
        socket: "/c.sock".into(),
    };
    node.journal().apply(&[node.change("/etc/a.toml", "x = 1\n")], Some(swap.clone())).unwrap();
    let mut journal = node.journal();
    assert!(!journal.is_restored());
    let (restorations, _) = journal.undo_plan(false).unwrap();
    journal.restore(&restorations, false, true).unwrap();
    drop(journal);
    assert_eq!(node.text("/etc/a.toml").unwrap(), LINES);

    let journal = node.journal();
    assert!(journal.is_restored() && !journal.is_empty() && journal.had_units());
    assert_eq!(journal.swaps().collect::<Vec<_>>(), [&swap]);
    assert_eq!(journal.undo_plan(false).unwrap(), (vec![], vec![]));
    journal.close().unwrap();
    assert_eq!(node.all(), before);
}

#[test]
fn a_folder_of_others_keeps_its_rights_and_what_is_theirs() {
    let theirs = format!("{FOLDER}/0.txt");
    let node = Node::new(&[("/etc/a.toml", LINES), (&theirs, "theirs"), (&format!("{FOLDER}/original"), "")]);
    let folder = node.root.path().join(FOLDER.trim_start_matches('/'));
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let before = node.all();
    node.apply(&[("/etc/a.toml", "x = 1\n")]);
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(folder.join("0.original")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(node.undo(), []);
    assert_eq!(node.all(), before);
}

#[test]
fn one_run_at_a_time_changes_or_takes_back() {
    let node = Node::new(&[("/etc/a.toml", LINES)]);
    node.apply(&[("/etc/a.toml", "x = 1\n")]);
    let (mut first, mut second) = (node.journal(), node.journal());
    first.lock().unwrap();
    assert!(matches!(second.lock(), Err(JournalError::Busy)));
    let change = node.change("/etc/a.toml", "x = 2\n");
    assert!(matches!(second.apply(&[change], None), Err(JournalError::Busy)));
    let (restorations, _) = first.undo_plan(false).unwrap();
    first.restore(&restorations, false, false).unwrap();
    drop(first);
    assert!(matches!(second.lock(), Err(JournalError::Stale)), "what it has read is no longer so");
    node.journal().close().unwrap();
    assert!(matches!(second.lock(), Err(JournalError::Stale)));
}

#[test]
fn a_run_that_has_begun_keeps_others_out_and_leaves_nothing_where_it_changes_nothing() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/var/lib/x", "")]);
    let before = node.all();
    let mut first = node.journal();
    first.begin().unwrap();
    assert!(matches!(node.journal().begin(), Err(JournalError::Busy)));
    assert!(matches!(node.journal().lock(), Err(JournalError::Busy)));
    drop(first);
    assert_eq!(node.all(), before);

    let mut second = node.journal();
    second.begin().unwrap();
    second.apply(&[node.change("/etc/a.toml", "x = 1\n")], None).unwrap();
    drop(second);
    node.journal().begin().unwrap();
    assert_eq!(node.undo(), []);
    assert_eq!(node.all(), before);
}

#[test]
fn what_a_run_left_that_was_cut_short_before_its_record_goes() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/var/lib/x", "")]);
    let before = node.all();
    let change = Change { before: Some("other".into()), ..node.change("/etc/a.toml", "x = 1\n") };
    assert!(node.journal().apply(&[node.change("/etc/b", "y"), change], None).is_err());
    assert!(node.root.path().join("var/lib/tidehold-setup").exists());
    assert!(node.journal().is_empty());
    node.journal().close().unwrap();
    assert_eq!(node.all(), before);
}

#[test]
fn an_empty_folder_that_a_run_left_goes_and_one_of_others_stays() {
    let node = Node::new(&[("/etc/a.toml", LINES), ("/var/lib/x", "")]);
    let before = node.all();
    let folder = node.root.path().join(FOLDER.trim_start_matches('/'));
    let leave = |mode: u32| {
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    };
    leave(0o700);
    fs::write(folder.join("journal.json.tidehold-new"), "{").unwrap();
    node.journal().close().unwrap();
    assert_eq!(node.all(), before, "nothing was changed yet");
    leave(0o700);
    node.apply(&[("/etc/a.toml", "x = 1\n")]);
    assert_eq!(node.undo(), []);
    assert_eq!(node.all(), before, "the next run makes it its own");
    leave(0o755);
    node.journal().close().unwrap();
    node.apply(&[("/etc/a.toml", "x = 1\n")]);
    assert_eq!(node.undo(), []);
    assert!(folder.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_files_come_back_as_they_were(
        files in prop::collection::btree_map("[a-c]{1,2}", ".{0,20}(\r?\n)?", 0..4),
        first in prop::collection::btree_map("[a-c]{1,2}", ".{0,20}", 1..4),
        second in prop::collection::btree_map("[a-c]{1,2}(/x)?", ".{0,20}", 0..4),
    ) {
        let node = Node::new(&[("/var/lib/x", "")]);
        for (name, text) in &files {
            node.write(&format!("/etc/{name}"), text);
        }
        let before = node.all();
        for changes in [&first, &second] {
            let fits = |name: &str| name.split_once('/').is_none_or(|(folder, _)| {
                !files.contains_key(folder) && !first.contains_key(folder) && !second.contains_key(folder)
            });
            let changes = changes.iter().filter(|(name, _)| fits(name));
            let changes: Vec<_> =
                changes.map(|(name, after)| node.change(&format!("/etc/{name}"), after)).collect();
            node.journal().apply(&changes, None).unwrap();
        }
        prop_assert_eq!(node.undo(), []);
        prop_assert_eq!(node.all(), before);
    }
}

#[test]
fn a_restart_is_owed_from_the_change_until_it_is_settled_or_taken_back() {
    let node = Node::new(&[("/etc/a.toml", "a = 1\n")]);
    let change = |after: &str, debt: Option<Debt>| {
        let mut journal = node.journal();
        debt.into_iter().for_each(|debt| journal.owe(debt));
        journal.apply(&[node.change("/etc/a.toml", after)], None).unwrap();
    };
    node.journal().settle().unwrap();
    assert!(text(node.root.path(), &Path::new(FOLDER).join(RECORD)).unwrap().is_none());
    change("a = 2\n", Some(Debt::Files));
    change("a = 3\n", None);
    assert_eq!(node.journal().debt(), Some(Debt::Files));
    node.journal().settle().unwrap();
    assert_eq!(node.journal().debt(), None);
    change("a = 4\n", Some(Debt::Store));
    let mut journal = node.journal();
    let (restorations, _) = journal.undo_plan(false).unwrap();
    journal.restore(&restorations, false, true).unwrap();
    assert_eq!(node.journal().debt(), None);
    // A record of an earlier version knows of none.
    let path = Path::new(FOLDER).join(RECORD);
    let record = node.text(path.to_str().unwrap()).unwrap();
    node.write(path.to_str().unwrap(), &record.replace("  \"debt\": null,\n", ""));
    assert!(record.contains("\"debt\": null") && node.journal().debt().is_none());
}

#[test]
fn links_go_again_unless_they_are_somebody_elses_by_now() {
    let node = Node::new(&[("/etc/b/r.test/ca.crt", "ca")]);
    let link =
        |name: &str| Link { path: format!("/etc/a/{name}").into(), to: format!("/etc/b/{name}").into() };
    let links = [link("r.test"), link("other.test")];
    node.journal().link(&links).unwrap();
    assert!(!node.journal().is_empty() && !node.journal().is_restored());
    assert_eq!(node.text("/etc/a/r.test/ca.crt").as_deref(), Some("ca"));
    // A second time nothing comes of it.
    node.journal().link(&links).unwrap();
    node.apply(&[("/etc/a/x", "x = 1\n")]);
    assert_eq!(node.undo(), []);
    assert!(!node.root.path().join("etc/a").exists());
    assert_eq!(node.text("/etc/b/r.test/ca.crt").as_deref(), Some("ca"));

    node.journal().link(&links).unwrap();
    let at = node.root.path().join("etc/a/other.test");
    fs::remove_file(&at).unwrap();
    std::os::unix::fs::symlink("/theirs", &at).unwrap();
    assert_eq!(node.journal().links().collect::<Vec<_>>(), [&links[0]]);
    assert_eq!(node.undo(), []);
    assert_eq!(fs::read_link(&at).unwrap(), Path::new("/theirs"));
    assert!(!node.root.path().join("etc/a/r.test").exists());
}
