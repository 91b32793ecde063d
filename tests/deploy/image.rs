//! The container image: its file by BuildKit's own parser and linter, its last stage built by podman, what its first
//! stage is sent, and that the commands of that stage make what the last one takes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::checks::{available, check};
use crate::support::go::Unbuilt;
use crate::support::parts::part;
use crate::support::script::script;
use crate::{Scenario, TIDEHOLD, deploy, root, succeeded, top};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "BuildKit finds nothing wrong with the image's file",
        needs: available,
        run: buildkit_finds_nothing,
    },
    Scenario {
        name: "the image is made of what its first stage makes",
        needs: podman_and_debian,
        run: it_is_made,
    },
    Scenario {
        name: "the image's sources are whole and nothing else is sent",
        needs: podman,
        run: sources_are_whole,
    },
];

const PRIVATELY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-client");

fn podman() -> Result<(), Unbuilt> {
    root()?;
    part("podman").map(|_| ()).map_err(Unbuilt::NotHere)
}

fn podman_and_debian() -> Result<(), Unbuilt> {
    available()?;
    podman()?;
    part("chroot").map(|_| ()).map_err(Unbuilt::NotHere)
}

/// A podman that has no images and no network.
struct Podman {
    folder: TempDir,
}

impl Podman {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-podman-").tempdir_in("/tmp").unwrap();
        fs::write(folder.path().join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .unwrap();
        let engine =
            "[engine]\nlock_type = \"file\"\nevents_logger = \"none\"\ncgroup_manager = \"cgroupfs\"\n";
        fs::write(folder.path().join("containers.conf"), engine).unwrap();
        Self { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", "120", PRIVATELY])
            .arg(part("podman").unwrap())
            .arg(self.at("private"));
        fs::create_dir_all(self.at("private")).unwrap();
        command.args(["podman", "--storage-driver", "vfs", "--root"]).arg(self.at("images"));
        command.arg("--runroot").arg(self.at("run")).arg("--tmpdir").arg(self.at("tmp")).args(words);
        command.env("HOME", self.folder.path()).env("TMPDIR", self.folder.path());
        command.env("CONTAINERS_CONF", self.at("containers.conf"));
        command.env("HTTP_PROXY", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9");
        command
    }

    /// Builds with these words and answers where the image's files are.
    fn build(&self, file: &Path, context: &Path, words: &[&str]) -> PathBuf {
        let mut command =
            self.command(&["build", "--isolation", "chroot", "--tag", "made", "--signature-policy"]);
        command.arg(self.at("policy.json")).args(words).arg("--file").arg(file).arg(context);
        succeeded(&mut command);
        let said = succeeded(&mut self.command(&["image", "mount", "made"]));
        PathBuf::from(said.trim().lines().last().expect("a folder"))
    }
}

fn buildkit_finds_nothing() {
    let found = check("containerfile", &deploy("image/Containerfile"));
    let [build, last] = &found["stages"].as_array().unwrap()[..] else { panic!("two stages: {found}") };
    assert_eq!(build["name"], "build");
    let release = |argument: &str| argument.rsplit_once("bookworm").map(|_| ());
    for argument in found["arguments"].as_array().unwrap() {
        release(argument.as_str().unwrap()).expect("both images of one release of Debian, for their libc");
    }
    let instructions: Vec<&str> =
        last["instructions"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(
        !instructions.iter().any(|one| one.starts_with("RUN") || one.starts_with("ADD")),
        "{instructions:?}"
    );
    // As Cargo.toml has it.
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let oldest =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(found["arguments"][0].as_str().unwrap().contains(&format!("/rust:{oldest}-")), "{oldest}");
}

fn it_is_made() {
    let podman = Podman::new();
    // The first stage's commands, in a small Debian, where the compiler hands over the program under test.
    let debian = podman.at("debian");
    succeeded(
        Command::new("cp").args(["-a", "--reflink=auto", "-T"]).arg(part("chroot").unwrap()).arg(&debian),
    );
    let source = debian.join("source");
    fs::create_dir_all(source.join("target/release")).unwrap();
    fs::create_dir_all(source.join("deploy")).unwrap();
    fs::create_dir_all(debian.join("etc/ssl/certs")).unwrap();
    fs::write(debian.join("etc/ssl/certs/ca-certificates.crt"), "certificates").unwrap();
    fs::copy(deploy("config.toml"), source.join("deploy/config.toml")).unwrap();
    fs::copy(TIDEHOLD, source.join("target/release/tidehold")).unwrap();
    let stand_ins = [
        ("apt-get", "case $1 in update | install) ;; *) exit 1 ;; esac"),
        ("cargo", r#"[ "$*" = "build --release --locked --bin tidehold" ]"#),
        ("strip", r#"[ "$1 $2" = "--strip-unneeded -o" ] && cp "$4" "$3""#),
    ];
    for (name, text) in stand_ins {
        script(&debian.join("usr/local/bin").join(name), text);
    }
    let found = check("containerfile", &deploy("image/Containerfile"));
    for run in found["stages"][0]["runs"].as_array().unwrap() {
        let mut chroot = Command::new("chroot");
        chroot.arg(&debian).args(["sh", "-c", &format!("cd /source && {}", run.as_str().unwrap())]);
        succeeded(chroot.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"));
    }

    // The last stage takes what they have left, onto nothing.
    fs::create_dir_all(podman.at("context")).unwrap();
    let from = format!("build={}", debian.display());
    let words = ["--build-arg", "BASE=scratch", "--build-arg", "RUST=scratch", "--build-context", &from];
    let image = podman.build(&deploy("image/Containerfile"), &podman.at("context"), &words);
    let mode = |path: &str| fs::metadata(image.join(path)).map(|there| there.permissions().mode() & 0o7777);
    assert_eq!(mode("usr/local/bin/tidehold").unwrap(), 0o755);
    assert_eq!(mode("etc/tidehold/config.toml").unwrap(), 0o644);
    assert_eq!(mode("etc/ssl/certs/ca-certificates.crt").unwrap(), 0o644);
    let about = succeeded(&mut podman.command(&["image", "inspect", "made"]));
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    let config = &about[0]["Config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/local/bin/tidehold"]));
    assert_eq!(config["Cmd"], serde_json::json!(["serve"]));
}

fn sources_are_whole() {
    let podman = Podman::new();
    let file = podman.at("Containerfile");
    fs::write(&file, "FROM scratch\nCOPY . /source\n").unwrap();
    let ignore = top().join(".containerignore");
    let sent = podman.build(&file, top(), &["--ignorefile", ignore.to_str().unwrap()]).join("source");
    for never in ["target", ".git", "README.md"] {
        assert!(!sent.join(never).exists(), "{never} is sent");
    }
    // Docker and BuildKit look beside the file instead.
    assert_eq!(fs::read(deploy("image/Containerfile.dockerignore")).unwrap(), fs::read(ignore).unwrap());
    // Cargo wants each target of the manifest to be there, whichever is built.
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version=1",
        "--manifest-path",
    ]);
    succeeded(metadata.arg(sent.join("Cargo.toml")));
    for needed in
        ["Cargo.lock", "build.rs", "src/main.rs", "proto/tidehold/v1/hold.proto", "deploy/config.toml"]
    {
        assert!(sent.join(needed).is_file(), "{needed} is not sent");
    }
}
