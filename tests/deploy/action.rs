//! The GitHub actions: what their metadata says, the workflow that the docs give, and their own steps, run in order with
//! the files and variables that a runner gives them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::checks::{available, check, program};
use crate::support::go::{Unbuilt, text};
use crate::support::hub::{Fault, Hub, HubConfig, Kind, REPOSITORY, Rootfs, digest_of};
use crate::support::process::{free_port, pid_of};
use crate::support::script::script;
use crate::{Scenario, TIDEHOLD, deploy, everything, failed, root, sets_up, succeeded, top};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "actionlint finds nothing wrong with the workflow of the docs",
        needs: available,
        run: the_workflow_is_right,
    },
    Scenario {
        name: "the workflow of the docs installs nerdctl out of the release that it names alone",
        needs: available,
        run: nerdctl_is_installed,
    },
    Scenario {
        name: "the action keeps the hold from one run to the next",
        needs: tools,
        run: the_hold_is_kept,
    },
    Scenario { name: "the action says what it was not given", needs: tools, run: what_is_missing_is_said },
    Scenario {
        name: "the action goes on where containerd cannot be told",
        needs: tools,
        run: a_containerd_that_cannot_be_told,
    },
    Scenario {
        name: "each leg of a matrix saves what it holds",
        needs: available,
        run: each_leg_has_its_key,
    },
    Scenario { name: "the action checks what it fetches", needs: tools, run: what_is_fetched_is_checked },
    Scenario {
        name: "the action sets a machine up and leaves it as it was",
        needs: setup,
        run: the_machine_is_left_as_it_was,
    },
];

fn tools() -> Result<(), Unbuilt> {
    crate::program("curl")?;
    available()
}

/// And a machine where a setup can be made in private.
fn setup() -> Result<(), Unbuilt> {
    tools()?;
    root()?;
    sets_up()
}

/// Those that the docs give.
fn workflows() -> Vec<String> {
    let page = fs::read_to_string(top().join("docs/ci.md")).unwrap();
    let rest = page.split("```yaml\n").skip(1);
    let workflows: Vec<_> = rest.map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect();
    assert!(!workflows.is_empty(), "docs/ci.md has no workflow");
    workflows
}

fn the_workflow_is_right() {
    let workflows = workflows();
    // A repository that has the actions as its own, so that their inputs are checked too.
    let repository = TempDir::new().unwrap();
    succeeded(Command::new("git").args(["init", "-q"]).arg(repository.path()));
    let folder = repository.path().join(".github/workflows");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(repository.path().join("deploy")).unwrap();
    succeeded(
        Command::new("cp").arg("-r").arg(deploy("github-action")).arg(repository.path().join("deploy")),
    );
    for (number, workflow) in workflows.iter().enumerate() {
        assert!(workflow.contains("uses: ./"), "an action that is not this repository's cannot be checked");
        fs::write(folder.join(format!("{number}.yml")), workflow).unwrap();
    }
    succeeded(Command::new(program("actionlint")).args(["-no-color", "-pyflakes="]).current_dir(&repository));
}

/// A runner with one job. What it has started ends with it.
struct Runner {
    folder: TempDir,
    env: BTreeMap<String, String>,
    port: u16,
    web_port: u16,
    /// Runs a step's shell out of the machine's sight, where that is asked for.
    private: Option<PathBuf>,
}

impl Runner {
    fn new() -> Self {
        // Directly in /tmp: a socket's path has room for 107 bytes.
        let folder = tempfile::Builder::new().prefix("tidehold-run-").tempdir_in("/tmp").unwrap();
        for name in ["home", "temp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, env: BTreeMap::new(), port: free_port(), web_port: free_port(), private: None }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The next job of the same machine: its files are there, its variables are not.
    fn next_job(&mut self) {
        self.env.clear();
        for file in ["env", "output", "summary", "path"] {
            let _ = fs::remove_file(self.at(file));
        }
    }

    /// The steps of an action that run a shell, in order, until one fails. Answers what they said.
    fn run(&mut self, action: &str, inputs: &[(&str, &str)]) -> (bool, String) {
        let folder = deploy(action);
        let metadata = check("yaml", &folder.join("action.yml"));
        let mut said = String::new();
        for step in metadata["runs"]["steps"].as_array().expect("steps") {
            let Some(run) = step["run"].as_str() else { continue };
            assert_eq!(step["shell"], "bash");
            let output = self.step(&folder, step, run, &metadata["inputs"], inputs);
            said.push_str(&text(&output));
            if !output.status.success() {
                return (false, said);
            }
        }
        (true, said)
    }

    fn succeeds(&mut self, action: &str, inputs: &[(&str, &str)]) -> String {
        let (ended_well, said) = self.run(action, inputs);
        assert!(ended_well, "{action}: {said}");
        said
    }

    fn step(
        &mut self,
        folder: &Path,
        step: &Value,
        run: &str,
        known: &Value,
        inputs: &[(&str, &str)],
    ) -> Output {
        let mut command = match &self.private {
            None => Command::new("bash"),
            Some(script) => {
                let mut private = Command::new("unshare");
                private.args(["--mount", "sh"]).arg(script).arg("bash");
                private
            }
        };
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", run]).env_clear();
        let path = format!(
            "{}:/usr/sbin:/usr/bin:/sbin:/bin",
            fs::read_to_string(self.at("path")).unwrap_or_default().trim()
        );
        command.env("PATH", path).env("HOME", self.at("home")).env("RUNNER_TEMP", self.at("temp"));
        command.env("GITHUB_ACTION_PATH", folder).env("TIDEHOLD_PORT", self.port.to_string());
        command.env("TIDEHOLD_WEB_PORT", self.web_port.to_string());
        for (name, file) in
            [("ENV", "env"), ("OUTPUT", "output"), ("PATH", "path"), ("STEP_SUMMARY", "summary")]
        {
            command.env(format!("GITHUB_{name}"), self.at(file));
        }
        command.envs(&self.env);
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            command.env(name, answer(name, value.as_str().expect("text"), known, inputs));
        }
        let output = command.output().expect("bash runs");
        // What a step sets is there from the next one on.
        for line in fs::read_to_string(self.at("env")).unwrap_or_default().lines() {
            let (name, value) = line.split_once('=').expect("NAME=VALUE");
            self.env.insert(name.to_owned(), value.to_owned());
        }
        output
    }

    /// What the steps have put out so far.
    fn output(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.at("output")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned)
    }

    fn mirror(&self, path: &str) -> Output {
        let url = format!("http://127.0.0.1:{}/v2/{path}", self.port);
        Command::new("curl").args(["--fail", "--silent", "--show-error", &url]).output().expect("curl runs")
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.at("temp/tidehold/pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            let _ = kill(pid_of(pid), Signal::SIGKILL);
        }
    }
}

/// What a runner makes of an expression: an input, its default, or what only GitHub knows.
fn answer(name: &str, value: &str, known: &Value, inputs: &[(&str, &str)]) -> String {
    let expression = value.trim().strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
    let expression = expression.unwrap_or_else(|| panic!("{name}: {value}")).trim();
    if name == "TIDEHOLD_CACHE_KEY" {
        return "tidehold-key".to_owned();
    }
    let input = expression.strip_prefix("inputs.").unwrap_or_else(|| panic!("{name}: {value}"));
    let input = known.get(input).map(|known| (input, known)).unwrap_or_else(|| panic!("no input {input}"));
    let given = inputs.iter().find(|(name, _)| *name == input.0).map(|(_, value)| *value);
    given.unwrap_or_else(|| input.1["default"].as_str().expect("a default")).to_owned()
}

/// A program that writes down how it is asked to set up, and is tidehold in all else.
fn recorder(folder: &Path) -> PathBuf {
    let path = folder.join("recorder");
    let body =
        format!("[ \"$1\" = setup ] || exec {TIDEHOLD} \"$@\"\necho \"$*\" >>{}/setups", folder.display());
    script(&path, &body);
    path
}

/// A registry, and what the action is told of it.
struct Registry {
    hub: Hub,
    runtime: Runtime,
    folder: TempDir,
}

impl Registry {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hub = runtime.block_on(Hub::start(HubConfig { rootfs: Rootfs::Marker, ..HubConfig::default() }));
        let folder = TempDir::new().unwrap();
        let config = format!("[registries.\"docker.io\"]\nupstream = \"{}\"\n", hub.registry_url());
        fs::write(folder.path().join("more.toml"), config).unwrap();
        Self { hub, runtime, folder }
    }

    fn config(&self) -> String {
        self.folder.path().join("more.toml").to_str().unwrap().to_owned()
    }

    fn goes_away(&self) {
        for kind in Kind::ALL {
            self.runtime.block_on(self.hub.fault(kind, Fault::Refuse));
        }
    }
}

/// With a stand-in for the release's archive, and this folder in the place of `/usr/local`.
fn nerdctl_is_installed() {
    let folder = TempDir::new().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::write(at("workflow.yml"), &workflows()[0]).unwrap();
    let job = check("yaml", &at("workflow.yml"))["jobs"]["test"].clone();
    let steps = job["steps"].as_array().unwrap();
    let runs = |word: &str| {
        let found = steps.iter().position(|step| step["run"].as_str().is_some_and(|run| run.contains(word)));
        found.unwrap_or_else(|| panic!("no step has {word}"))
    };
    assert!(runs("nerdctl-full") < runs("nerdctl run"), "it is used before it is there");
    let step = &steps[runs("nerdctl-full")];
    let version = step["env"]["VERSION"].as_str().expect("one version");
    let sha256 = step["env"]["SHA256"].as_str().expect("what that has to be");
    assert!(sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sha256}");

    for name in ["release/bin", "release/libexec/cni", "bin", "there"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in ["bin/nerdctl", "bin/containerd", "libexec/cni/bridge"] {
        fs::write(at("release").join(name), name).unwrap();
    }
    succeeded(
        Command::new("tar")
            .arg("-czf")
            .arg(at("archive"))
            .arg("-C")
            .arg(at("release"))
            .args(["bin", "libexec"]),
    );
    script(&at("bin/sudo"), "exec \"$@\"");
    let curl = "for word in \"$@\"; do case $before in -o) cp \"${0%/*}/../archive\" \"$word\" ;; esac; before=$word; done\n\
        echo \"$word\" >\"${0%/*}/../asked\"";
    script(&at("bin/curl"), curl);
    let run = step["run"].as_str().unwrap().replace("/usr/local", at("there").to_str().unwrap());
    let install = |sha256: &str| {
        let mut command = Command::new("bash");
        command.args(["-eo", "pipefail", "-c", &run]).env("RUNNER_TEMP", folder.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", at("bin").display()));
        command.env("VERSION", version).env("SHA256", sha256);
        command
    };
    failed(&mut install(sha256));
    assert!(everything(&at("there")).is_empty(), "something else was unpacked");
    succeeded(&mut install(&digest_of(&fs::read(at("archive")).unwrap()).replace("sha256:", "")));
    assert!(at("there/bin/nerdctl").is_file() && at("there/libexec/cni/bridge").is_file());
    assert!(!at("there/bin/containerd").exists(), "the machine's own containerd is hidden");
    let asked = fs::read_to_string(at("asked")).unwrap();
    let release = "https://github.com/containerd/nerdctl/releases/download";
    assert_eq!(asked.trim(), format!("{release}/v{version}/nerdctl-full-{version}-linux-amd64.tar.gz"));
}

fn the_hold_is_kept() {
    let registry = Registry::start();
    let program = recorder(registry.folder.path());
    let (program, config) = (program.to_str().unwrap(), registry.config());
    let manifest = format!("docker.io/{REPOSITORY}/manifests/latest");

    let mut first = Runner::new();
    first.succeeds("github-action", &[("binary", program), ("config", &config)]);
    assert_eq!(first.output("mirror"), Some(format!("http://127.0.0.1:{}", first.port)));
    let setups = fs::read_to_string(registry.folder.path().join("setups")).unwrap();
    assert_eq!(
        setups.trim(),
        format!("setup --mirror-only --no-units --yes --config {}", first.env["TIDEHOLD_CONFIG"])
    );
    let pulled = first.mirror(&manifest);
    assert!(pulled.status.success(), "{}", text(&pulled));
    assert_eq!(digest_of(&pulled.stdout), registry.hub.first().digest);
    // The commands of later steps find the daemon.
    let mut warm = Command::new(TIDEHOLD);
    succeeded(warm.args(["warm", &format!("docker.io/{REPOSITORY}:latest")]).envs(&first.env));
    let data = first.output("data").expect("where the hold is");
    assert!(Path::new(&data).starts_with(first.at("home")), "the runner's user can pack it");
    let said = first.succeeds("github-action/save", &[]);
    assert_eq!(first.output("key").as_deref(), Some("tidehold-key"), "{said}");
    let summary = fs::read_to_string(first.at("summary")).unwrap();
    assert!(summary.starts_with("### What this job's pulls cost\n"), "{summary}");
    let counted = "2 counted (1 of them by commands such as `tidehold warm`) of";
    assert!(summary.contains(counted) && summary.contains("pulls in 6h"), "{summary}");
    assert!(!first.mirror(&manifest).status.success(), "it has ended");

    // The cache: packed and unpacked, by tar as by the action that does it.
    let packed = first.at("cache.tar");
    succeeded(Command::new("tar").args(["--posix", "-cf"]).arg(&packed).arg("-C").arg(&data).arg("."));
    let mut next = Runner::new();
    let restored = next.at("home/.local/share/tidehold/hold");
    fs::create_dir_all(&restored).unwrap();
    succeeded(Command::new("tar").arg("-xf").arg(&packed).arg("-C").arg(&restored));
    registry.goes_away();
    next.succeeds("github-action", &[("binary", program), ("config", &config)]);
    let pulled = next.mirror(&manifest);
    assert!(pulled.status.success(), "what an earlier run pulled is there: {}", text(&pulled));
    for blob in registry.hub.first().own().layers.iter() {
        assert!(next.mirror(&format!("docker.io/{REPOSITORY}/blobs/{blob}")).status.success(), "{blob}");
    }
    next.succeeds("github-action/save", &[]);
    // What the first one spent, and what its address had left, is none of this one's.
    let summary = fs::read_to_string(next.at("summary")).unwrap();
    assert!(summary.contains("0 counted of") && summary.contains("would have been 1 without"), "{summary}");
    assert!(!summary.contains("pulls in 6h"), "{summary}");
}

fn what_is_missing_is_said() {
    let mut runner = Runner::new();
    let (ended_well, said) = runner.run("github-action", &[]);
    assert!(!ended_well && said.contains("::error") && said.contains("binary"), "{said}");
    let (ended_well, said) = runner.run("github-action", &[("binary", "/nowhere")]);
    assert!(!ended_well && said.contains("/nowhere"), "{said}");

    let registry = Registry::start();
    let faulty = registry.folder.path().join("faulty.toml");
    fs::write(&faulty, "[tags]\nfresh_fro = \"1s\"\n").unwrap();
    let program = recorder(registry.folder.path());
    let inputs = [("binary", program.to_str().unwrap()), ("config", faulty.to_str().unwrap())];
    let (ended_well, said) = runner.run("github-action", &inputs);
    assert!(!ended_well && said.contains("fresh_fro"), "{said}");
    // The last step of a job runs whatever happened, and finds that there is nothing to save.
    runner.next_job();
    runner.succeeds("github-action/save", &[]);
    assert_eq!(runner.output("key"), None);
}

fn a_containerd_that_cannot_be_told() {
    let registry = Registry::start();
    let program = recorder(registry.folder.path());
    let body = fs::read_to_string(&program).unwrap() + "echo 'no containerd here' >&2; exit 1";
    script(&program, &body);
    let mut runner = Runner::new();
    runner.env.insert("CONTAINERD_ADDRESS".to_owned(), "unix:///nowhere/containerd.sock".to_owned());
    let inputs = [("binary", program.to_str().unwrap()), ("config", &registry.config())];
    let said = runner.succeeds("github-action", &inputs);
    assert!(said.contains("::warning") && said.contains("no containerd here"), "{said}");
    assert!(said.contains("no containerd listens at /nowhere/containerd.sock"), "{said}");
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let has_nerdctl = folders.iter().any(|folder| Path::new(folder).join("nerdctl").exists());
    assert_eq!(said.contains("there is no nerdctl here"), !has_nerdctl, "{said}");
    // Clients that are told by hand have it.
    let pulled = runner.mirror(&format!("docker.io/{REPOSITORY}/manifests/latest"));
    assert!(pulled.status.success(), "{}", text(&pulled));
    runner.succeeds("github-action/save", &[]);
}

/// A cache is written once under a name: of legs with the same one, all but the first would save nothing.
fn each_leg_has_its_key() {
    let metadata = check("yaml", &deploy("github-action").join("action.yml"));
    let steps = metadata["runs"]["steps"].as_array().unwrap();
    let named = |id: &str| steps.iter().find(|step| step["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    let restored = named("restore")["with"]["key"].as_str().unwrap().replace("}}-${{", ",");
    let restored = restored.trim_matches(['$', '{', '}']);
    let parts = |list: &str| list.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let saved = named("start")["env"]["TIDEHOLD_CACHE_KEY"].as_str().unwrap();
    let (_, saved) = saved.split_once("format(").expect("the same name, put together");
    let mut saved = parts(saved.split_once(')').unwrap().0);
    let format = saved.remove(0);
    let places: Vec<_> = (0..saved.len()).map(|place| format!("{{{place}}}")).collect();
    assert_eq!(format.trim_matches('\''), places.join("-"));
    assert_eq!(saved, parts(restored));
    for part in ["runner.os", "runner.arch", "github.job", "strategy.job-index"] {
        assert!(saved.iter().any(|named| named == part), "{part}: {saved:?}");
    }
}

fn what_is_fetched_is_checked() {
    let registry = Registry::start();
    let program = recorder(registry.folder.path());
    succeeded(
        Command::new("tar")
            .arg("-czf")
            .arg(registry.folder.path().join("release.tar.gz"))
            .arg("-C")
            .arg(registry.folder.path())
            .args(["--transform", "s,^,tidehold-0/,;s,recorder,tidehold,", "recorder"]),
    );
    let config = registry.config();
    for name in ["recorder", "release.tar.gz"] {
        let file = registry.folder.path().join(name);
        let url = format!("file://{}", file.display());
        let right = digest_of(&fs::read(&file).unwrap()).replace("sha256:", "");
        let wrong = "0".repeat(64);
        for (sha256, word) in [("", "sha256 is missing"), (wrong.as_str(), "another SHA-256")] {
            let mut runner = Runner::new();
            let (ended_well, said) = runner.run("github-action", &[("url", &url), ("sha256", sha256)]);
            assert!(!ended_well && said.contains(word), "{said}");
            assert!(!runner.at("home/.local/share/tidehold/bin/tidehold").exists());
        }
        let mut runner = Runner::new();
        runner.succeeds("github-action", &[("url", &url), ("sha256", &right), ("config", &config)]);
        runner.succeeds("github-action/save", &[]);
    }
    assert!(program.is_file());
}

fn the_machine_is_left_as_it_was() {
    let registry = Registry::start();
    let mut runner = Runner::new();
    // What setup reads and writes is a copy of the machine's, with a containerd in it.
    for folder in ["etc/containerd", "lib"] {
        fs::create_dir_all(runner.at(folder)).unwrap();
    }
    for name in ["passwd", "group", "nsswitch.conf", "hosts", "resolv.conf"] {
        let _ = fs::copy(Path::new("/etc").join(name), runner.at("etc").join(name));
    }
    fs::write(runner.at("etc/containerd/config.toml"), "version = 2 # as it came\n").unwrap();
    let private = runner.at("private");
    let script = "mount --bind \"${0%/*}/etc\" /etc && mount --bind \"${0%/*}/lib\" /var/lib && \
        mount -t tmpfs private /run && exec \"$@\"";
    fs::write(&private, script).unwrap();
    runner.private = Some(private);
    let before = [everything(&runner.at("etc")), everything(&runner.at("lib"))];

    let config = registry.config();
    let said = runner.succeeds("github-action", &[("binary", TIDEHOLD), ("config", &config)]);
    let hosts = fs::read_to_string(runner.at("etc/containerd/certs.d/_default/hosts.toml")).expect(&said);
    assert!(hosts.contains(&format!("\"http://127.0.0.1:{}\"", runner.port)), "{hosts}");
    runner.succeeds("github-action/save", &[("undo", "true")]);
    assert_eq!([everything(&runner.at("etc")), everything(&runner.at("lib"))], before);
}
