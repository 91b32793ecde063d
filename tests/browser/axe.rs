//! axe-core, the checker that accessibility testing tools share: fetched as its package from the registry of npm, read
//! into the page by the browser's own tools, and kept nowhere.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;
use tempfile::TempDir;

use crate::driver::Browser;
use crate::readable::full;
use crate::support::parts::Available;
use crate::{Scenario, Seen, scenarios};

pub(crate) const SCENARIOS: &[Scenario] = scenarios![axe_finds_nothing_to_complain_of];

const PACKAGE: &str = "axe-core@4.10.3";

/// Its script, fetched by whoever asks first, or why it cannot be had.
pub(crate) fn script() -> Available<String> {
    static FETCHED: OnceLock<Available<String>> = OnceLock::new();
    FETCHED.get_or_init(fetch).clone()
}

fn fetch() -> Available<String> {
    let folder = TempDir::new().expect("a folder");
    let fetched = Command::new("npm")
        .args(["pack", "--silent", "--fetch-retries=0", "--fetch-timeout=30000", PACKAGE])
        .env("npm_config_cache", folder.path().join("cache"))
        .current_dir(folder.path())
        .output()
        .map_err(|error| format!("npm does not run: {error} (Debian has it as npm)"))?;
    if !fetched.status.success() {
        return Err(format!("npm could not fetch {PACKAGE}: it takes its registry, or a mirror of it"));
    }
    let archive = String::from_utf8_lossy(&fetched.stdout).trim().to_owned();
    let unpacked = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file", &archive, "package/axe.min.js"])
        .current_dir(folder.path())
        .output()
        .map_err(|error| format!("tar does not run: {error}"))?;
    String::from_utf8(unpacked.stdout).map_err(|_| format!("{PACKAGE} holds no script"))
}

async fn axe_finds_nothing_to_complain_of(browser: Browser) {
    let axe = script().expect("it was had a moment ago");
    let Seen { browser, .. } = &full(browser).await;
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (320, "light")] {
        browser.look(width, scheme).await;
        browser
            .run(&format!(
                "{axe}; window.found = null;
                 axe.run(document, {{ resultTypes: ['violations'] }}).then((done) => {{
                     window.found = done.violations.map((one) => `${{one.id}}: ${{one.help}}: ${{one.nodes[0].html.slice(0, 200)}}`);
                 }});"
            ))
            .await;
        browser.shows("window.found").await;
        assert_eq!(browser.run("return window.found").await, json!([]), "{width} {scheme}");
    }
}
