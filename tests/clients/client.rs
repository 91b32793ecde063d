//! The clients: where their programs come from, and how each of them pulls.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::support::go::{Go, Unbuilt, text};
use crate::support::hub::{Platform, REPOSITORY};
use crate::support::parts::{namespaces, part};

/// Runs a client of the distribution where the machine's own folders are out of its sight.
const PRIVATELY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-client");

/// How long one run of a client may take, in seconds. None takes a tenth of it.
const WITHIN: &str = "60";

/// A proxy that nobody runs: what a client asks anywhere but on loopback fails at once.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A client, and the way in which it is told of the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// By the mirror's own address, with the registry as the first part of the name. So the next two.
    Crane,
    Oras,
    Skopeo,
    /// By its name at Docker Hub, whose mirror is in `registries.conf`. So the next one.
    SkopeoMirror,
    PodmanMirror,
}

impl Client {
    pub(crate) const ALL: &'static [Self] =
        &[Self::Crane, Self::Oras, Self::Skopeo, Self::SkopeoMirror, Self::PodmanMirror];

    /// Those that can copy an image with all its platforms.
    pub(crate) const COPIERS: &'static [Self] = &[Self::Crane, Self::Oras, Self::Skopeo, Self::SkopeoMirror];

    /// Those that ask without a login first and take a 401 for an answer: the others look for a challenge at `/v2/`
    /// alone, where a mirror of many registries has none to give.
    pub(crate) const ANSWER_CHALLENGES: &'static [Self] = &[Self::Oras];

    /// What is needed to run it.
    pub(crate) fn programs(self) -> Result<Programs, Unbuilt> {
        match self {
            Self::Crane | Self::Oras => Built::once().map(Programs::Built),
            Self::Skopeo | Self::SkopeoMirror => packaged("skopeo"),
            Self::PodmanMirror => packaged("podman"),
        }
    }

    /// What its users would call the image.
    fn reference(self, mirror: &str, image: &str) -> String {
        let address = mirror.strip_prefix("http://").expect("the mirror's URL");
        match self {
            Self::Crane | Self::Oras => format!("{address}/docker.io/{image}"),
            Self::Skopeo => format!("docker://{address}/docker.io/{image}"),
            Self::SkopeoMirror => format!("docker://docker.io/{image}"),
            Self::PodmanMirror => format!("docker.io/{image}"),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::Skopeo => "skopeo",
            Self::SkopeoMirror => "skopeo with registries.conf",
            Self::PodmanMirror => "podman with registries.conf",
        })
    }
}

/// How much of an image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    OwnPlatform,
    EveryPlatform,
}

/// Where the programs of a client are.
#[derive(Clone, Debug, Default)]
pub(crate) enum Programs {
    /// Nowhere: they are not going to be run.
    #[default]
    Unasked,
    Built(Arc<Built>),
    Packaged(PathBuf),
}

/// What was built from the Go module, in a folder that goes with it.
#[derive(Debug)]
pub(crate) struct Built {
    folder: TempDir,
}

impl Built {
    /// Builds it for whoever asks first.
    fn once() -> Result<Arc<Self>, Unbuilt> {
        static BUILT: OnceLock<Result<Arc<Built>, Unbuilt>> = OnceLock::new();
        BUILT.get_or_init(|| Self::build().map(Arc::new)).clone()
    }

    fn build() -> Result<Self, Unbuilt> {
        let go = Go::find()?;
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let folder = TempDir::new().expect("a folder for the programs");
        let to = format!("{}/", folder.path().display());
        go.fetch(&module, &["list", "-mod=readonly", "-deps", "-f", "", "tool"])?;
        go.build(&module, &["build", "-mod=readonly", "-p", "2", "-o", &to, "tool"])?;
        Ok(Self { folder })
    }
}

fn packaged(name: &str) -> Result<Programs, Unbuilt> {
    namespaces().and_then(|()| part(name)).map(Programs::Packaged).map_err(Unbuilt::NotHere)
}

/// A machine with one client on it, that has pulled nothing yet.
pub(crate) struct Machine<'a> {
    programs: &'a Programs,
    client: Client,
    mirror: String,
    folder: TempDir,
}

impl<'a> Machine<'a> {
    /// `mirror` is the URL of the mirror that the client is told of.
    pub(crate) fn new(programs: &'a Programs, client: Client, mirror: String) -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-client-").tempdir_in("/tmp").unwrap();
        let machine = Self { programs, client, mirror, folder };
        machine.configure();
        machine
    }

    /// Pulls `:tag` or `@digest` of the usual repository.
    pub(crate) fn pull(&self, tag: &str, extent: Extent) {
        self.pull_from(&format!("{REPOSITORY}{tag}"), extent);
    }

    /// Pulls an image that has its repository before its tag or digest.
    pub(crate) fn pull_from(&self, image: &str, extent: Extent) {
        let output = self.try_pull(image, extent);
        assert!(output.status.success(), "{} {image}: {}\n{}", self.client, output.status, text(&output));
    }

    pub(crate) fn try_pull(&self, image: &str, extent: Extent) -> Output {
        let source = self.client.reference(&self.mirror, image);
        let platform = Platform::own().to_string();
        let own_only = match extent {
            Extent::OwnPlatform => vec!["--platform", &platform],
            Extent::EveryPlatform => Vec::new(),
        };
        let to = self.image();
        let into = format!("{}:pulled", to.display());
        let mut command = self.command();
        match self.client {
            Client::Crane => {
                command.args(["crane", "pull", "--format", "oci"]).args(own_only).arg(&source).arg(&to);
            }
            Client::Oras => {
                command.args(["oras", "copy", "--no-tty", "--from-plain-http"]).args(own_only);
                command.args([&source, "--to-oci-layout", &into]);
            }
            Client::Skopeo | Client::SkopeoMirror => {
                command.args(["skopeo", "copy"]);
                if self.client == Client::Skopeo {
                    command.arg("--src-tls-verify=false");
                }
                if extent == Extent::EveryPlatform {
                    command.arg("--all");
                }
                command.args([&source, &format!("oci:{into}")]);
            }
            Client::PodmanMirror => {
                assert_eq!(extent, Extent::OwnPlatform, "podman pulls one platform");
                self.podman(&mut command).args(["pull", &source]);
            }
        }
        command.output().expect("the client runs")
    }

    /// Leaves a login for the mirror where `docker login` does.
    pub(crate) fn log_in(&self, name: &str, password: &str) {
        let login = STANDARD.encode(format!("{name}:{password}"));
        let address = self.mirror.strip_prefix("http://").expect("the mirror's URL");
        let config = serde_json::json!({ "auths": { address: { "auth": login } } });
        let folder = self.folder.path().join(".docker");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
    }

    /// Where the pulled image is, in the client's own form.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// What podman says, which must not fail.
    pub(crate) fn ask_podman(&self, arguments: &[&str]) -> String {
        let mut command = self.command();
        let output = self.podman(&mut command).args(arguments).output().expect("podman runs");
        assert!(output.status.success(), "podman {arguments:?}: {}\n{}", output.status, text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn podman<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.args(["podman", "--storage-driver", "vfs", "--root"]).arg(self.image());
        command.arg("--runroot").arg(self.folder.path().join("run"));
        command.arg("--tmpdir").arg(self.folder.path().join("tmp"))
    }

    /// A command with a home of its own and no more of the environment, whose program is still to be named.
    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", WITHIN]).env_clear().env("HOME", self.folder.path());
        command.env("TMPDIR", self.folder.path());
        command.env("HTTP_PROXY", NOWHERE).env("HTTPS_PROXY", NOWHERE);
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        match self.programs {
            Programs::Unasked => unreachable!("a client that was not asked for is not run"),
            Programs::Built(built) => {
                command.env("PATH", format!("{}:{system}", built.folder.path().display()));
            }
            Programs::Packaged(part) => {
                command
                    .env("PATH", system)
                    .env("CONTAINERS_CONF", self.folder.path().join("containers.conf"));
                command.env("CONTAINERS_REGISTRIES_CONF", self.own("registries.conf"));
                command.arg(PRIVATELY).arg(part).arg(self.folder.path());
            }
        }
        command
    }

    /// A file of the client's own configuration.
    fn own(&self, name: &str) -> PathBuf {
        self.folder.path().join(".config/containers").join(name)
    }

    /// Writes what skopeo and podman read.
    fn configure(&self) {
        fs::create_dir_all(self.own("")).unwrap();
        let any = r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#;
        fs::write(self.own("policy.json"), any).unwrap();
        let engine = self.folder.path().join("engine");
        let containers = format!(
            "[engine]\nlock_type = \"file\"\nevents_logger = \"none\"\ncgroup_manager = \"cgroupfs\"\n\
             [network]\nnetwork_config_dir = \"{}\"\n",
            engine.join("networks").display()
        );
        fs::write(self.folder.path().join("containers.conf"), containers).unwrap();
        let registries = match self.client {
            Client::Crane | Client::Oras | Client::Skopeo => String::new(),
            Client::SkopeoMirror | Client::PodmanMirror => format!(
                "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
                 [[registry.mirror]]\nlocation = \"{}/docker.io\"\ninsecure = true\n",
                self.mirror.strip_prefix("http://").expect("the mirror's URL")
            ),
        };
        fs::write(self.own("registries.conf"), registries).unwrap();
    }
}
