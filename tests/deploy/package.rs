//! The Debian package: built, and in a small Debian of its own installed, used, removed and purged.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use tidehold::config::Config;

use crate::support::go::Unbuilt;
use crate::support::parts::part;
use crate::support::script::script;
use crate::{Scenario, TIDEHOLD, deploy, everything, failed, nothing, program, root, succeeded};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "the package is built twice alike", needs: dpkg, run: it_is_built_twice_alike },
    Scenario {
        name: "lintian finds nothing wrong with the package",
        needs: lintian,
        run: lintian_finds_nothing,
    },
    Scenario {
        name: "every link of the package's pages leads to what is in the package",
        needs: dpkg,
        run: every_link_leads_somewhere,
    },
    Scenario {
        name: "the package is installed, removed and purged without a trace",
        needs: debian,
        run: it_leaves_no_trace,
    },
    Scenario {
        name: "the package stays while a containerd relies on it",
        needs: debian,
        run: it_stays_while_needed,
    },
    Scenario {
        name: "the package stays while images are in the hold alone",
        needs: debian,
        run: it_stays_while_images_are_owed,
    },
    Scenario {
        name: "the package goes where nothing relies on it, whatever is broken beside it",
        needs: debian,
        run: it_goes_beside_what_is_broken,
    },
    Scenario {
        name: "units that are not loaded any more, or whose files are gone, keep nothing from being taken back",
        needs: debian,
        run: units_that_are_gone,
    },
    Scenario {
        name: "the package's configuration says every default",
        needs: nothing,
        run: it_says_every_default,
    },
];

fn dpkg() -> Result<(), Unbuilt> {
    program("dpkg-deb")
}

fn lintian() -> Result<(), Unbuilt> {
    dpkg()?;
    program("lintian")
}

fn debian() -> Result<(), Unbuilt> {
    dpkg()?;
    root()?;
    part("chroot").map(|_| ()).map_err(Unbuilt::NotHere)
}

/// Builds it into the folder, from the program under test.
fn build(folder: &Path) -> PathBuf {
    let mut command = Command::new(deploy("debian/build.sh"));
    command.args(["--binary", TIDEHOLD, "--output"]).arg(folder).env("SOURCE_DATE_EPOCH", "1700000000");
    let said = succeeded(&mut command);
    PathBuf::from(said.trim().lines().last().expect("the package's path"))
}

/// The one that most scenarios look at.
fn package() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, package) = BUILT.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let package = build(folder.path());
        (folder, package)
    });
    package
}

fn it_is_built_twice_alike() {
    let again = TempDir::new().unwrap();
    let again = build(again.path());
    assert_eq!(again.file_name(), package().file_name());
    let name = format!("tidehold_{}_", env!("CARGO_PKG_VERSION").replace('-', "~"));
    assert!(again.file_name().unwrap().to_str().unwrap().starts_with(&name));
    let digest = |path: &Path| crate::support::hub::digest_of(&fs::read(path).unwrap());
    assert_eq!(digest(&again), digest(package()));
}

fn lintian_finds_nothing() {
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--fail-on", "error,warning", "--no-tag-display-limit"]).arg(package());
    succeeded(&mut command);
}

fn every_link_leads_somewhere() {
    let tree = TempDir::new().unwrap();
    succeeded(Command::new("dpkg-deb").arg("--extract").arg(package()).arg(tree.path()));
    let mut pages = everything(tree.path()).into_keys().collect::<Vec<_>>();
    pages.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    let (mut links, mut dead) = (0, Vec::new());
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|(target, _)| !target.contains("://")) {
            links += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let is_there = match heading {
                "" => file.exists(),
                heading => fs::read_to_string(&file).is_ok_and(|text| headings(&text).contains(heading)),
            };
            if !is_there {
                dead.push(format!("{}: {target}", page.strip_prefix(tree.path()).unwrap().display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(links > 30, "{links} links in {pages:?}");
    // What is spoken of without a link is there too, ready to be used.
    let doc = tree.path().join("usr/share/doc/tidehold");
    for path in ["deploy/kubernetes/kustomization.yaml", "deploy/github-action/save/action.yml"] {
        assert!(doc.join(path).is_file(), "{path}");
    }
    let start = fs::metadata(doc.join("deploy/github-action/start.sh")).unwrap();
    assert_eq!(start.permissions().mode() & 0o777, 0o755);
}

/// What a page's headings are called in links.
fn headings(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || "-_ ".contains(*letter);
    lines
        .map(|line| {
            line.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>()
        })
        .map(|name| name.replace(' ', "-"))
        .collect()
}

/// A Debian that goes when this does.
struct Debian {
    folder: TempDir,
}

impl Debian {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-debian-").tempdir_in("/tmp").unwrap();
        let chroot = part("chroot").expect("what was found to be available");
        succeeded(Command::new("cp").args(["-a", "--reflink=auto", "-T"]).arg(chroot).arg(folder.path()));
        fs::copy(package(), folder.path().join("tmp/tidehold.deb")).unwrap();
        Self { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.folder.path()).args(words).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    }

    fn run(&self, words: &[&str]) -> String {
        succeeded(&mut self.command(words))
    }

    /// Every file and folder but dpkg's own and what nobody owns.
    fn everything(&self) -> BTreeSet<String> {
        const NOT: &str =
            "-path ./var/lib/dpkg -o -path ./var/log -o -path ./tmp -o -path ./proc -o -path ./sys";
        let list = format!("find . \\( {NOT} \\) -prune -o -print");
        let mut find = Command::new("sh");
        find.args(["-c", &list]).current_dir(self.folder.path());
        succeeded(&mut find).lines().map(str::to_owned).collect()
    }
}

fn it_leaves_no_trace() {
    let debian = Debian::new();
    let before = debian.everything();
    debian.run(&["dpkg", "--install", "/tmp/tidehold.deb"]);

    let version = debian.run(&["tidehold", "--version"]);
    assert_eq!(version.trim(), format!("tidehold {}", env!("CARGO_PKG_VERSION")));
    assert!(debian.run(&["tidehold", "serve", "--check"]).contains("the configuration is good"));
    let expected = [
        ("usr/bin/tidehold", 0o755),
        ("etc/tidehold/config.toml", 0o644),
        ("usr/lib/systemd/system/tidehold.service", 0o644),
        ("usr/lib/systemd/system/tidehold.socket", 0o644),
        ("usr/lib/systemd/system/tidehold-mirror.socket", 0o644),
        ("usr/lib/systemd/system/tidehold-web.socket", 0o644),
        ("usr/share/man/man1/tidehold.1.gz", 0o644),
        ("usr/share/man/man1/tidehold-serve.1.gz", 0o644),
        ("usr/share/bash-completion/completions/tidehold", 0o644),
        ("usr/share/doc/tidehold/copyright", 0o644),
    ];
    for (path, mode) in expected {
        let there = fs::symlink_metadata(debian.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!((there.permissions().mode() & 0o7777, there.uid(), there.gid()), (mode, 0, 0), "{path}");
    }
    for enabled in [
        "sockets.target.wants/tidehold.socket",
        "sockets.target.wants/tidehold-mirror.socket",
        "sockets.target.wants/tidehold-web.socket",
        "multi-user.target.wants/tidehold.service",
    ] {
        let link = debian.at("etc/systemd/system").join(enabled);
        assert!(fs::symlink_metadata(&link).is_ok(), "{} is not enabled", link.display());
    }
    let verified = debian.run(&["dpkg", "--verify", "tidehold"]);
    assert_eq!(verified, "");

    // What the daemon would have made.
    fs::create_dir_all(debian.at("var/lib/tidehold/blobs/sha256")).unwrap();
    debian.run(&["dpkg", "--remove", "tidehold"]);
    assert!(debian.at("var/lib/tidehold/blobs").is_dir(), "what is held stays until it is purged");
    assert!(debian.at("etc/tidehold/config.toml").is_file());
    assert!(!debian.at("usr/bin/tidehold").exists());
    debian.run(&["dpkg", "--purge", "tidehold"]);
    let left: Vec<_> = debian.everything().symmetric_difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:#?}");
}

fn it_stays_while_needed() {
    let debian = Debian::new();
    debian.run(&["dpkg", "--install", "/tmp/tidehold.deb"]);
    fs::create_dir_all(debian.at("etc/containerd/certs.d/_default")).unwrap();
    let uses = [
        ("etc/containerd/config.toml", "[proxy_plugins.tidehold]\n  type = \"content\"\n"),
        (
            "etc/containerd/config.toml",
            "[proxy_plugins]\n[proxy_plugins.x]\naddress = '/run/tidehold/content.sock'\n",
        ),
        ("etc/containerd/certs.d/_default/hosts.toml", "[host.\"http://127.0.0.1:789\"]\n"),
    ];
    for (path, text) in uses {
        fs::write(debian.at(path), text).unwrap();
        let said = failed(&mut debian.command(&["dpkg", "--remove", "tidehold"]));
        assert!(said.contains(&format!("/{path}")) && said.contains("tidehold setup --undo"), "{said}");
        assert!(debian.run(&["tidehold", "--version"]).starts_with("tidehold "));
        fs::remove_file(debian.at(path)).unwrap();
    }
    // What setup remembers says it too, whatever it has changed.
    let journaled = r#"{"entries":[{"path":"/etc/x","original":null,"written":["00"],"copy":0}],"folders":[],"swaps":[]}"#;
    let journal = debian.at("var/lib/tidehold-setup/journal.json");
    fs::create_dir_all(journal.parent().unwrap()).unwrap();
    fs::write(&journal, journaled).unwrap();
    let said = failed(&mut debian.command(&["dpkg", "--remove", "tidehold"]));
    assert!(said.contains("/var/lib/tidehold-setup"), "{said}");
    fs::remove_file(&journal).unwrap();
    // An upgrade asks for nothing.
    fs::write(debian.at(uses[0].0), uses[0].1).unwrap();
    debian.run(&["dpkg", "--install", "/tmp/tidehold.deb"]);
    // Nor does what is only written about it.
    fs::write(debian.at(uses[0].0), "# not any more: [proxy_plugins.tidehold]\n").unwrap();
    debian.run(&["dpkg", "--remove", "tidehold"]);

    // Somebody may write it there while the package is away, or force the removal.
    fs::create_dir_all(debian.at("var/lib/tidehold/blobs")).unwrap();
    fs::write(debian.at(uses[0].0), uses[0].1).unwrap();
    let said = failed(&mut debian.command(&["dpkg", "--purge", "tidehold"]));
    assert!(said.contains("/etc/containerd/config.toml"), "{said}");
    assert!(debian.at("var/lib/tidehold/blobs").is_dir(), "a containerd's store was removed");
    fs::remove_file(debian.at(uses[0].0)).unwrap();
    debian.run(&["dpkg", "--purge", "tidehold"]);
    assert!(!debian.at("var/lib/tidehold").exists());
}

/// Nothing names Tidehold any more, and images are in the hold alone, as after an undo without a restart.
fn it_stays_while_images_are_owed() {
    let debian = Debian::new();
    debian.run(&["dpkg", "--install", "/tmp/tidehold.deb"]);
    let hex = "ab".repeat(32);
    let mark = debian.at(&format!("var/lib/tidehold/adopted/node/sha256-{hex}-3"));
    fs::create_dir_all(mark.parent().unwrap()).unwrap();
    fs::write(&mark, "").unwrap();
    fs::create_dir_all(debian.at("etc/containerd")).unwrap();
    fs::write(debian.at("etc/containerd/config.toml"), "version = 2\n").unwrap();
    for how in ["--remove", "--purge"] {
        let said = failed(&mut debian.command(&["dpkg", how, "tidehold"]));
        assert!(said.contains("adopt --undo --containerd node"), "{said}");
        assert!(mark.exists() && debian.run(&["tidehold", "--version"]).starts_with("tidehold "));
    }
    // Forced out with the program that could tell.
    script(&debian.at("usr/bin/tidehold"), "");
    debian.run(&["dpkg", "--remove", "tidehold"]);
    fs::remove_file(debian.at("var/lib/tidehold/.may-be-purged")).unwrap();
    let said = failed(&mut debian.command(&["dpkg", "--purge", "tidehold"]));
    assert!(said.contains("/var/lib/tidehold alone"), "{said}");
    assert!(mark.exists(), "what a containerd relies on was removed");

    // Once containerd has it in its own store, all may go.
    debian.run(&["dpkg", "--install", "/tmp/tidehold.deb"]);
    let own = debian.at("var/lib/containerd/io.containerd.content.v1.content/blobs/sha256").join(&hex);
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "abc").unwrap();
    debian.run(&["dpkg", "--purge", "tidehold"]);
    assert!(!debian.at("var/lib/tidehold").exists() && own.exists());
}

/// Nothing of it names Tidehold, nor is anything in the hold.
fn it_goes_beside_what_is_broken() {
    let debian = Debian::new();
    let write = |path: &str, bytes: &[u8]| {
        fs::create_dir_all(debian.at(path).parent().unwrap()).unwrap();
        fs::write(debian.at(path), bytes).unwrap();
    };
    debian.run(&["dpkg", "--install", "/tmp/tidehold.deb"]);
    write(
        "etc/systemd/system/containerd.service",
        b"[Service]\nExecStart=/usr/bin/containerd -c /srv/c.toml\n",
    );
    write("srv/c.toml", b"version = \xff\n[proxy_plugins.tidehold]\n");
    write("etc/containerd/config.toml", b"version = = 2\n");
    write("etc/containerd/certs.d/latin/hosts.toml", b"# caf\xe9\n[host.\"http://127.0.0.1:789\"]\n");
    fs::create_dir_all(debian.at("etc/containerd/certs.d/folder/hosts.toml")).unwrap();
    write("etc/tidehold/config.toml", b"[mirror]\nlisten = 5\n");
    let said = failed(&mut debian.command(&["dpkg", "--remove", "tidehold"]));
    assert!(
        said.contains("/srv/c.toml names Tidehold") && said.contains("/latin/hosts.toml names"),
        "{said}"
    );
    assert!(!said.contains("/etc/containerd/config.toml"), "{said}");
    write("srv/c.toml", b"version = \xff\n");
    write("etc/containerd/certs.d/latin/hosts.toml", b"# caf\xe9\n");
    // What stands against it is said, and not what would not mend it.
    let journal = "var/lib/tidehold-setup/journal.json";
    write(journal, b"{");
    let said = failed(&mut debian.command(&["dpkg", "--remove", "tidehold"]));
    assert!(said.contains("journal.json is damaged") && !said.contains("--undo"), "{said}");
    fs::remove_file(debian.at(journal)).unwrap();
    debian.run(&["dpkg", "--remove", "tidehold"]);
    assert!(!debian.at("usr/bin/tidehold").exists());
}

fn units_that_are_gone() {
    let debian = Debian::new();
    succeeded(Command::new("cp").arg(TIDEHOLD).arg(debian.at("usr/local/bin/tidehold")));
    fs::create_dir_all(debian.at("etc/containerd")).unwrap();
    fs::write(debian.at("etc/containerd/config.toml"), "version = 2\n").unwrap();
    fs::create_dir_all(debian.at("run/systemd/system")).unwrap();
    // systemctl where these of its words fail with these codes; of what is asked whether it runs, nothing does.
    let systemctl = |failing: &[(&str, i32)]| {
        let cases: String =
            failing.iter().map(|(words, code)| format!("  \"{words}\"*) exit {code} ;;\n")).collect();
        script(
            &debian.at("usr/local/bin/systemctl"),
            &format!("echo \"$*\" >>/systemctl.log\ncase $* in\n{cases}  *is-active*) exit 3 ;;\nesac\n"),
        );
    };
    let set_up = || {
        debian.run(&["tidehold", "setup", "--yes", "--mirror-only", "--program", "/usr/local/bin/tidehold"])
    };
    let take_back = || debian.command(&["tidehold", "setup", "--undo", "--yes", "--restart"]);
    let record = debian.at("var/lib/tidehold-setup");

    // Its containerd did not start, and then the machine was started again: what does not run is as good as stopped.
    set_up();
    systemctl(&[("restart", 1)]);
    let said = failed(&mut take_back());
    assert!(said.contains("containerd was not restarted") && record.exists(), "{said}");
    assert!(!debian.at("etc/systemd/system/tidehold.service").exists());
    systemctl(&[("stop", 5)]);
    succeeded(&mut take_back());
    assert!(!record.exists());

    // Somebody removed the files, and not what enabled them: systemctl would know no such unit.
    set_up();
    let link = debian.at("etc/systemd/system/sockets.target.wants/tidehold.socket");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/etc/systemd/system/tidehold.socket", &link).unwrap();
    for unit in ["tidehold.service", "tidehold.socket", "tidehold-mirror.socket", "tidehold-web.socket"] {
        fs::remove_file(debian.at("etc/systemd/system").join(unit)).unwrap();
    }
    systemctl(&[("stop", 5), ("disable", 1)]);
    succeeded(&mut take_back());
    assert!(!record.exists() && !link.is_symlink());

    // One that runs has to stop.
    set_up();
    systemctl(&[("stop", 5), ("--quiet is-active", 0)]);
    let said = failed(&mut take_back());
    assert!(said.contains("systemctl stop tidehold.socket") && record.exists(), "{said}");
    systemctl(&[("stop", 5)]);
    succeeded(&mut take_back());
    assert!(!record.exists());
}

fn it_says_every_default() {
    let text = fs::read_to_string(deploy("config.toml")).unwrap();
    assert_eq!(Config::parse(&text, "config.toml").unwrap(), Config::default(), "as it is installed");
    // A sign and a space begin a sentence, or an example; a sign alone a key or a table with its default.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '#']) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = Config::parse(&uncommented, "config.toml").unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config, Config::default());
    // With the examples as well every key stands in it.
    let examples: String = uncommented
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with('[')
                    || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    // `bandwidth` ends up beneath [fetch], as it would by hand.
    let config = Config::parse(&examples, "config.toml").unwrap_or_else(|faults| panic!("{faults}"));
    assert!(config.fetch.bandwidth.is_some() && config.tags.rules.len() == 1);
    assert!(config.registries.listed["docker.io"].credentials.is_some());
}
