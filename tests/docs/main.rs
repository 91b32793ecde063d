//! The pages under `docs/` say nothing that does not work: each is followed from its first command to its last, on a
//! machine that seems to have a containerd and nothing else, before a stand-in for every registry.
//!
//! What a page can tell this test, in comments that nobody else sees, is in `page.rs`; how the machine is made in `world`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a page fails"
)]

mod page;
#[path = "../node/programs.rs"]
mod programs;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use page::{Node, Page, Use};
use support::containerd::Version;
use support::go::text;
use support::hub::{Account, Hub, HubConfig, Image, ImageSpec, Private};
use support::parts::{Available, part};
use support::ran::plainly;
use support::script::script;

/// Pages whose commands are followed elsewhere, or not yet, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("docs/containerd.md", "its blocks are parts of files"),
    ("docs/performance.md", "its commands are the benchmark's"),
];

/// The images that the pages speak of; all registries have all of them.
const IMAGES: &[(&str, &str)] = &[
    ("library/alpine", "latest"),
    ("library/alpine", "3.20"),
    ("library/busybox", "latest"),
    ("library/nginx", "latest"),
    ("library/nginx", "1.27"),
    ("acme/app", "v3"),
];

/// An image for those who log in as `me` with the password `secret`.
const PRIVATE: &str = "team/app";

/// How a containerd comes to have an image.
const IN_USE: &str = "systemctl start containerd\nmkdir -p former/docker.io\n\
    echo '[host.\"http://127.0.0.1:5000\"]' >former/docker.io/hosts.toml\n\
    ctr images pull --hosts-dir former docker.io/library/alpine:latest\n";

/// The most time that a page takes, in seconds.
const WITHIN: &str = "300";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("stand-in") {
        stand_in();
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = fs::read_dir(root.join("docs"))
        .expect("the folder of the pages")
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .chain(["README.md".to_owned()])
        .collect();
    names.sort();
    let pages = names.into_iter().flat_map(|name| [form(&name), followed(name, &arguments)]);
    let pages = pages.chain([Trial::test("docs/configuration.md: it has every key", every_key)]);
    let trials = pages.chain(Version::ALL.map(|version| from_nothing(version, &arguments)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What the pages promise as a whole: set up by one command, of use, and taken out without a trace.
fn from_nothing(version: Version, arguments: &Arguments) -> Trial {
    let title =
        format!("containerd {version}: one command sets it up, one takes it out, and nothing is left");
    trial(
        title,
        arguments,
        || needs(version),
        move || run(version, &(before(Node::Bare) + include_str!("from-nothing"))),
    )
}

/// Every command that is not tried is at least one, to the shell and to Tidehold; and what is linked to is there.
fn form(name: &str) -> Trial {
    let name = name.to_owned();
    Trial::test(format!("{name}: its commands, options and links are there"), move || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        let folder = folder.parent().expect("the folder of the page");
        let written = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&name))?;
        let links = written.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let own = |link: &&str| !link.is_empty() && !link.contains("://");
        if let Some(link) = links.filter(own).find(|link| !folder.join(link).exists()) {
            return Err(format!("it links to {link}, which is not there").into());
        }
        let page = read(&name)?;
        for block in page.blocks.iter().filter(|block| !matches!(block.how, Use::File(_))) {
            let mut shell = Command::new("bash").args(["-n", "-c", &block.text]).output()?;
            shell.stdout.clear();
            if !shell.status.success() {
                return Err(format!("line {}: {}", block.line, text(&shell)).into());
            }
            for command in commands_in(&block.text) {
                command.check().map_err(|why| format!("line {}: {why}", block.line))?;
            }
        }
        Ok(())
    })
}

/// The packaged configuration has every key, each with its default; so has the page.
fn every_key() -> Result<(), libtest_mimic::Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/configuration.md"))?;
    for line in fs::read_to_string(root.join("deploy/config.toml"))?.lines() {
        let Some((key, value)) = line.trim_start_matches(['#', ' ']).split_once(" = ") else { continue };
        if key.contains(' ') {
            continue;
        }
        if !page.contains(&format!("`{key}`")) {
            return Err(format!("there is nothing on {key}").into());
        }
        let default = value.split(" #").next().unwrap_or(value).trim();
        // The others have no default.
        if line.starts_with('#') && !line.starts_with("# ") && !page.contains(&format!("`{default}`")) {
            return Err(format!("it does not say that {key} is {default} by default").into());
        }
    }
    Ok(())
}

/// A use of Tidehold's command line.
struct Asked {
    command: String,
    options: BTreeSet<String>,
}

impl Asked {
    fn check(&self) -> Result<(), String> {
        let mut help = Command::new(env!("CARGO_BIN_EXE_tidehold"));
        let output = help.args([&self.command, "--help"]).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("there is no `tidehold {}`", self.command));
        }
        let help = text(&output);
        let words: BTreeSet<&str> = help.split([' ', ',', '\n', '[', ']', '=', '<']).collect();
        match self.options.iter().find(|option| !words.contains(option.as_str())) {
            Some(option) => Err(format!("`tidehold {}` has no {option}", self.command)),
            None => Ok(()),
        }
    }
}

fn commands_in(block: &str) -> Vec<Asked> {
    let lines = block.replace("\\\n", " ");
    let parts = lines.split(['\n', '|', ';', '&', '(', ')', '`']);
    parts
        .filter_map(|part| {
            let words = part.split_whitespace().take_while(|word| !word.starts_with('#'));
            // It may also be the name of something else, such as a name space.
            let mut before = "sudo";
            let mut words = words.skip_while(|word| {
                let begins = matches!(before, "sudo" | "--") || before.contains('=');
                before = word;
                !(begins && (*word == "tidehold" || word.ends_with("/bin/tidehold")))
            });
            words.next()?;
            let command =
                words.next().filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))?.to_owned();
            let options = words.filter(|word| word.starts_with('-') && word.len() > 1);
            let name = |word: &str| word.split('=').next().unwrap_or(word).to_owned();
            Some(Asked { command, options: options.map(name).collect() })
        })
        .collect()
}

fn followed(name: String, arguments: &Arguments) -> Trial {
    let title = format!("{name}: what it says is so");
    let left_out = LEFT_OUT.iter().find(|(page, _)| *page == name).map(|(_, why)| Err((*why).to_owned()));
    trial(title, arguments, || left_out.unwrap_or_else(|| needs(Version::V2)), move || follow(&name))
}

/// A trial that is skipped, with the reason, where something is missing; that is looked for only where it is wanted.
fn trial(
    title: String,
    arguments: &Arguments,
    needs: impl FnOnce() -> Available<()>,
    run: impl FnOnce() -> Result<(), libtest_mimic::Failed> + Send + 'static,
) -> Trial {
    let wanted = !arguments.list && arguments.filter.as_ref().is_none_or(|filter| title.contains(filter));
    match if wanted { needs() } else { Ok(()) } {
        Ok(()) => Trial::test(title, run),
        Err(reason) => {
            if wanted {
                eprintln!("skipped: {title}: {reason}");
            }
            Trial::test(title, move || Err(reason.into())).with_ignored_flag(true)
        }
    }
}

fn needs(version: Version) -> Available<()> {
    version.available()?;
    let lacks = |_| "no ip (Debian's iproute2) to bring up a private machine's loopback".to_owned();
    Command::new("ip").arg("-V").output().map_err(lacks)?;
    programs::available(version)?;
    part("skopeo").and(part("podman")).map(drop)
}

fn follow(name: &str) -> Result<(), libtest_mimic::Failed> {
    let page = read(name)?;
    run(Version::V2, &(before(page.node) + &page.script(name)))
}

/// Runs a script on a machine with this containerd.
fn run(version: Version, steps: &str) -> Result<(), libtest_mimic::Failed> {
    let folder = tempfile::Builder::new().prefix("tidehold-docs-").tempdir_in("/tmp")?;
    let installed = folder.path().join("programs");
    install(&installed, version)?;
    let script = folder.path().join("script");
    fs::write(&script, steps)?;
    let world = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docs/world");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", WITHIN, world]).args([folder.path(), &installed, &script]);
    let output = plainly(&mut command).output()?;
    if output.status.success() { Ok(()) } else { Err(text(&output).into()) }
}

/// What is there before the first command of a page.
fn before(node: Node) -> String {
    let own = std::env::current_exe().expect("the path of this test");
    let mut script = format!(
        "set -eu\nmkdir -p /run/stand-in\n'{}' stand-in >/run/stand-in/registry.log 2>&1 &\n\
         for ((try = 0; try < 1200; try++)); do grep -q ready /run/stand-in/registry.log && break; sleep 0.1; done\n",
        own.display()
    );
    script += "mkdir -p /run/systemd/system\n";
    // podman and nerdctl would ask systemd for things that the stand-in does not do.
    script
        + match node {
            Node::Bare => "systemctl start containerd\n",
            Node::InUse => IN_USE,
            Node::WithTidehold => {
                "tidehold setup --yes --restart --containerd-root /var/lib/containerd\nrm -r /run/systemd\n"
            }
        }
}

/// Puts there what the machine is to have on its search path.
fn install(folder: &Path, version: Version) -> Result<(), libtest_mimic::Failed> {
    fs::create_dir_all(folder)?;
    let containerd = version.program().parent().expect("the folder of the programs").to_owned();
    for place in [containerd, support::parts::programs(&part("runc")?)] {
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            symlink(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    for name in ["crictl", "nerdctl"] {
        symlink(programs::program(name), folder.join(name))?;
    }
    symlink(env!("CARGO_BIN_EXE_tidehold"), folder.join("tidehold"))?;
    symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docs/systemctl"), folder.join("systemctl"))?;
    script(&folder.join("sudo"), "exec \"$@\"");
    for name in ["skopeo", "podman"] {
        let tree = part(name).unwrap();
        let tree = tree.display();
        let own = format!(
            "PATH='{tree}/usr/bin:{tree}/usr/sbin':$PATH LD_LIBRARY_PATH=$(printf %s: '{tree}'/usr/lib/*-linux-gnu* \
             '{tree}'/lib/*-linux-gnu*) exec '{tree}/usr/bin/{name}' \"$@\""
        );
        script(&folder.join(name), &own);
    }
    Ok(())
}

fn read(name: &str) -> Result<Page, String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
    Page::read(&text.map_err(|error| error.to_string())?)
}

/// The registry of that machine, for as long as it runs.
fn stand_in() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let me = Account::free("me", "secret");
    let private = Private { repository: PRIVATE.to_owned(), account: me.name.clone() };
    let registry = "127.0.0.1:5000".parse().unwrap();
    let hub = HubConfig { registry, accounts: vec![me], private: vec![private], ..HubConfig::default() };
    let hub = runtime.block_on(Hub::start(hub));
    let pause = ImageSpec { command: &["/bin/sleep", "1000000"], ..ImageSpec::default() };
    let usual = |(repository, tag): &(&str, &str)| {
        ((*repository).to_owned(), (*tag).to_owned(), ImageSpec::default())
    };
    let kept = [(PRIVATE, "latest", ImageSpec::default()), ("pause", "3.10", pause)];
    let kept = kept.map(|(repository, tag, spec)| (repository.to_owned(), tag.to_owned(), spec));
    for (repository, tag, spec) in IMAGES.iter().map(usual).chain(kept) {
        let image = Image::build(&ImageSpec { marker: repository.clone(), ..spec }).unwrap();
        hub.push(&repository, &image);
        hub.tag(&repository, &tag, &image.digest);
    }
    println!("ready");
    runtime.block_on(std::future::pending::<()>());
}
