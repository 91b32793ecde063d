//! A browser: Debian's Chromium without a window, steered over WebDriver by its chromedriver. It has a profile of its
//! own, in a folder that goes with it, and asks nobody for anything but what it is told to open.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::{soon, until};
use crate::support::parts::{Available, part};
use crate::support::process::{Process, free_port};

/// Keys as WebDriver writes them (section 17.4.2).
pub(crate) const TAB: &str = "\u{E004}";
pub(crate) const ENTER: &str = "\u{E007}";

/// Where the programs are, or why there is no browser.
pub(crate) fn programs() -> Available<PathBuf> {
    part("chromedriver")
}

/// How long a browser has to be gone once it is killed.
const ENDED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A page in a browser. Dropping it ends the browser.
pub(crate) struct Browser {
    client: Client<HttpConnector, Full<Bytes>>,
    session: String,
    pid: Pid,
    _driver: Process,
    _folder: TempDir,
}

impl Browser {
    /// An empty page, as wide as on a desk, in the light.
    pub(crate) async fn start(programs: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("tidehold-browser-").tempdir_in("/tmp").unwrap();
        let port = free_port();
        let mut command = Command::new(programs.join("usr/bin/chromedriver"));
        command.arg(format!("--port={port}")).env("LD_LIBRARY_PATH", libraries(programs));
        for home in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env(home, folder.path());
        }
        command.env("FONTCONFIG_FILE", fonts(programs, folder.path()));
        let address = format!("127.0.0.1:{port}");
        let driver = Process::start_listening("chromedriver", &mut command, folder.path(), &address);
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &profile,
        ];
        let chromium = programs.join("usr/lib/chromium/chromium");
        let wished = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
        } } });
        let url = format!("http://{address}/session");
        let begun = ask(&client, Method::POST, &url, &wished).await;
        let pid = begun["capabilities"]["goog:processID"].as_i64().expect("the browser's process id");
        let session = format!("{url}/{}", begun["sessionId"].as_str().unwrap());
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        let browser = Self { client, session, pid, _driver: driver, _folder: folder };
        browser.look(1280, "light").await;
        browser
    }

    /// Shows the page on a screen so wide, with this scheme of colours.
    pub(crate) async fn look(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", scheme).await;
    }

    /// Has the page take whoever sees it for somebody who wants less motion.
    pub(crate) async fn less_motion(&self) {
        let wish = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
        self.devtools("Emulation.setEmulatedMedia", wish).await;
    }

    pub(crate) async fn open(&self, url: &str) {
        self.command("/url", json!({ "url": url })).await;
    }

    /// What a piece of JavaScript returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// What an expression comes to, as text.
    pub(crate) async fn text(&self, expression: &str) -> String {
        let found = self.run(&format!("return String({expression})")).await;
        found.as_str().unwrap().to_owned()
    }

    /// Returns once an expression is true.
    pub(crate) async fn shows(&self, expression: &str) {
        until(async || self.run(&format!("return Boolean({expression})")).await == json!(true)).await;
    }

    /// Presses keys, one after the other.
    pub(crate) async fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keys", "actions": strokes }] });
        self.command("/actions", actions).await;
    }

    /// What was written to the console since this was asked last.
    pub(crate) async fn console(&self) -> Vec<String> {
        let lines = self.command("/se/log", json!({ "type": "browser" })).await;
        lines.as_array().unwrap().iter().map(|line| line["message"].to_string()).collect()
    }

    async fn devtools(&self, what: &str, how: Value) {
        self.command("/goog/cdp/execute", json!({ "cmd": what, "params": how })).await;
    }

    async fn command(&self, what: &str, how: Value) -> Value {
        ask(&self.client, Method::POST, &format!("{}{what}", self.session), &how).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its driver does not outlive us, and would leave it behind. What it has started would write into the folder when
        // it finds it gone, so all of it is killed at once.
        let all = with_descendants(self.pid);
        for pid in &all {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        for _ in 0..ENDED_WITHIN.as_millis() / LOOK_EVERY.as_millis() {
            if !all.iter().any(|pid| runs(*pid)) {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A process, and all that it and its children have started.
fn with_descendants(pid: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    let parents: Vec<_> = pids.filter_map(|pid| Some((pid, stat(pid)?.1))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Whether it has not ended: one that nobody has waited for writes nothing any more.
fn runs(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// The state of a process, and its parent (proc(5)).
fn stat(pid: Pid) -> Option<(String, Pid)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.to_owned(), Pid::from_raw(words.next()?.parse().ok()?)))
}

async fn ask(client: &Client<HttpConnector, Full<Bytes>>, method: Method, url: &str, body: &Value) -> Value {
    let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
    let request = request.body(Full::from(body.to_string())).unwrap();
    let response = soon(client.request(request)).await.expect("chromedriver answers");
    let status = response.status();
    let body = soon(response.into_body().collect()).await.expect("the whole answer").to_bytes();
    let mut told: Value = serde_json::from_slice(&body).expect("WebDriver speaks JSON");
    assert!(status.is_success(), "{url}: {status}: {}", told["value"]["message"]);
    told["value"].take()
}

/// Those of the package and of what it needs.
fn libraries(programs: &Path) -> String {
    let mut found = Vec::new();
    for place in ["usr/lib", "lib"] {
        let entries = std::fs::read_dir(programs.join(place)).into_iter().flatten();
        for folder in entries.map(|entry| entry.unwrap().path()) {
            if folder.to_string_lossy().contains("-linux-gnu") {
                found.extend([folder.display().to_string(), folder.join("pulseaudio").display().to_string()]);
            }
        }
    }
    found.join(":")
}

/// A configuration that finds the machine's fonts and those that came with the browser.
fn fonts(programs: &Path, folder: &Path) -> PathBuf {
    let file = folder.join("fonts.conf");
    let text = format!(
        "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig>\
         <dir>/usr/share/fonts</dir><dir>{}</dir><cachedir>{}</cachedir></fontconfig>",
        programs.join("usr/share/fonts").display(),
        folder.join("fonts").display()
    );
    std::fs::write(&file, text).unwrap();
    file
}
