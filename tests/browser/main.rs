//! The status page in a real browser, against a running daemon with a stand-in for Docker Hub behind it.
//!
//! A scenario has a browser, a daemon and a registry of its own. On a machine without Chromium each is ignored, and says
//! why.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a scenario fails"
)]

#[path = "../mirror/bench.rs"]
#[allow(dead_code, reason = "the mirror's tests use the rest of it")]
mod bench;
#[path = "../support/mod.rs"]
mod support;

mod axe;
mod driver;
mod page;
mod readable;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use bench::Bench;
use driver::Browser;
use libtest_mimic::{Arguments, Trial};
use support::parts::Available;

/// What a scenario works with.
struct Seen {
    browser: Browser,
    bench: Bench,
}

impl Seen {
    /// The page of a daemon that nobody has asked for anything.
    async fn open(browser: Browser) -> Self {
        Self::of(browser, Bench::start().await).await
    }

    async fn of(browser: Browser, bench: Bench) -> Self {
        browser.open(&format!("{}/", bench.daemon.web())).await;
        browser.shows("document.querySelector('#state').textContent.includes('live')").await;
        Self { browser, bench }
    }

    /// A request that names its client.
    async fn ask_as(&self, agent: &str, url: &str) {
        self.bench.ask(http::Method::GET, url, &[("user-agent", agent)]).await;
    }

    /// Nothing was said on the console: no script failed, nothing was refused by the page's own policy.
    async fn quiet(&self) {
        assert_eq!(self.browser.console().await, [""; 0]);
    }
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

struct Scenario {
    name: &'static str,
    run: fn(Browser) -> Running,
}

/// Names a scenario by its function.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        &[$($crate::Scenario { name: stringify!($name), run: |browser| Box::pin($name(browser)) }),+]
    };
}
use scenarios;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let programs = driver::programs();
    let wanted = |name: &str| {
        !arguments.list && arguments.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    };
    let trials = page::SCENARIOS.iter().chain(readable::SCENARIOS).map(|one| trial(one, programs.clone()));
    let with_axe = axe::SCENARIOS.iter().map(|one| {
        // What is fetched is so only where it is asked for.
        let both = programs.clone().and_then(|programs| match wanted(one.name) {
            true => axe::script().map(|_| programs),
            false => Ok(programs),
        });
        trial(one, both)
    });
    libtest_mimic::run(&arguments, trials.chain(with_axe).collect()).exit_code()
}

fn trial(scenario: &'static Scenario, programs: Available<PathBuf>) -> Trial {
    match programs {
        Ok(programs) => Trial::test(scenario.name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.unwrap().block_on(async {
                let browser = Browser::start(&programs).await;
                (scenario.run)(browser).await;
            });
            Ok(())
        }),
        Err(reason) => {
            eprintln!("skipped: {}: {reason}", scenario.name);
            Trial::test(scenario.name, move || Err(reason.into())).with_ignored_flag(true)
        }
    }
}
