//! What the page shows, and how it goes on.

use crate::bench::{ASKS_ALWAYS, Bench, images_only};
use crate::driver::{Browser, ENTER, TAB};
use crate::support::hub::{Account, Fault, Hub, HubConfig, Kind};
use crate::{Scenario, Seen, scenarios};

pub(crate) const SCENARIOS: &[Scenario] = scenarios![
    the_gauge_shows_what_the_registry_said_and_changes_with_a_pull,
    the_repositories_beside_the_dearest_are_told_in_sum,
    what_was_warmed_is_told_apart_from_what_pulls_cost,
    a_shut_gate_says_why_and_until_when,
    what_is_amiss_is_told_with_what_to_do,
    the_standings_of_the_day_are_counted_drawn_and_listed,
    a_request_appears_when_it_is_sent_the_newest_first,
    the_flight_record_is_filtered_and_held_still,
    of_a_long_flight_record_the_last_is_shown_and_said_to_be_that_until_all_is_wanted,
    a_tag_is_found_sorted_and_explained,
    the_hold_and_the_table_count_the_same_tags_and_digests,
    all_of_it_is_reached_by_keyboard_alone,
    what_others_say_is_text,
    it_asks_nobody_but_its_daemon,
    a_daemon_that_goes_and_comes_back_is_told_of,
    that_it_is_gone_is_in_sight_wherever_one_reads_and_said_aloud_once,
    the_title_of_a_page_that_nobody_looks_at_says_that_the_daemon_is_gone,
];

const GAUGE: &str = "document.querySelector('#registries [role=meter]')";
const ROWS: &str = "document.querySelectorAll('#requests tbody tr')";

/// A command of the operator's that ends well.
async fn run(bench: &Bench, command: &[&str]) {
    let mut tidehold = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidehold"));
    let ran = tidehold.args(command).arg("--socket").arg(bench.daemon.control()).output().await.unwrap();
    assert!(ran.status.success(), "{command:?}: {ran:?}");
}

async fn the_gauge_shows_what_the_registry_said_and_changes_with_a_pull(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    browser.shows("!document.querySelector('#no-budget').hidden").await;
    browser.run("window.first = true").await;
    bench.pull("latest").await;
    let left = |left: i64| format!("{GAUGE}?.getAttribute('aria-valuenow') === '{left}'");
    browser.shows(&left(98)).await;
    assert_eq!(
        browser.text(&format!("{GAUGE}.getAttribute('aria-valuetext')")).await,
        "98 of 100 pulls left"
    );
    assert_eq!(browser.text("document.title").await, "98 of 100 left at docker.io – Tidehold");
    bench.point_latest_at(bench.hub.second());
    bench.pull("latest").await;
    browser.shows(&left(96)).await;
    // What was given is told after what was asked for, so a page may have been drawn in between.
    let lead = "document.querySelector('#lead').textContent";
    let counted = "In the last day registries counted 4 pulls; without Tidehold it would have been 4";
    browser.shows(&format!("{lead}.startsWith('{counted}')")).await;
    bench.pull("latest").await;
    browser.shows("document.querySelector('#lead').textContent.includes('would have been 6')").await;
    assert_eq!(browser.text("window.first").await, "true", "the page was never loaded anew");
    seen.quiet().await;
}

async fn the_repositories_beside_the_dearest_are_told_in_sum(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    for number in 0..52 {
        bench.get(&bench.manifest_of(&format!("library/none-{number}"), "latest")).await;
    }
    let last = "document.querySelector('#registries tbody tr:last-child')";
    browser
        .shows(&format!(
            "{last}?.textContent.startsWith('and 2 more named by tidehold budget --all docker.io0')"
        ))
        .await;
    assert_eq!(browser.text("document.querySelectorAll('#registries tbody tr').length").await, "51");
    seen.quiet().await;
}

async fn what_was_warmed_is_told_apart_from_what_pulls_cost(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    run(bench, &["warm", "library/tide"]).await;
    let lead = "document.querySelector('#lead').textContent";
    let told = "In the last day registries counted 2 pulls, 2 of them by commands such as tidehold warm; \
                without Tidehold it would have been 0.";
    browser.shows(&format!("{lead} === '{told}'")).await;
    let compared = "document.querySelector('.compare').textContent";
    browser
        .shows(&format!(
            "{compared} === 'counted in 6 h22 of them by commands such as tidehold warmwithout Tidehold0'"
        ))
        .await;
    seen.quiet().await;
}

async fn a_shut_gate_says_why_and_until_when(browser: Browser) {
    let registry = HubConfig { limit: Some(2), ..images_only() };
    let seen = Seen::of(browser, Bench::before(registry, ASKS_ALWAYS).await).await;
    let Seen { browser, bench } = &seen;
    bench.pull("latest").await;
    // Nothing else would do, so it is asked for although nothing is left.
    bench.get(&bench.manifest(&bench.hub.second().digest)).await;
    let budget = "document.querySelector('#registries').textContent";
    browser.shows(&format!("{budget}.includes('pulls are held back')")).await;
    browser.shows(&format!("{budget}.includes('the next is tried in')")).await;
    browser.shows(&format!("{budget}.includes('used up')")).await;
    browser
        .shows(&format!("{ROWS}.length && [...{ROWS}].some((row) => row.textContent.includes('429'))"))
        .await;
    seen.quiet().await;
}

async fn what_is_amiss_is_told_with_what_to_do(browser: Browser) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logins.json");
    std::fs::write(&file, r#"{"auths":{"docker.io":{"username":"ada","password":"wr0ng"}}}"#).unwrap();
    let hub = Hub::start(HubConfig { accounts: vec![Account::free("ada", "s3cret")], ..images_only() }).await;
    let rest = format!(
        "[tags]\n{ASKS_ALWAYS}\n[registries.\"docker.io\"]\nupstream = \"{}\"\ncredentials = {file:?}\n",
        hub.registry_url()
    );
    let seen = Seen::of(browser, Bench::with(hub, &rest)).await;
    let Seen { browser, bench } = &seen;
    bench.pull("latest").await;
    let shows =
        async |part: &str, said: &str| browser.shows(&format!("{part}.textContent.includes('{said}')")).await;
    let budget = "document.querySelector('#registries')";
    shows(budget, &format!("a login was refused: the one for docker.io in {}", file.display())).await;
    shows(budget, "pulls go on without it").await;

    bench.get(&format!("{}/v2/team/app/manifests/latest?ns=10.11.12.13:5000", bench.daemon.mirror())).await;
    let hold = "document.querySelector('#hold')";
    shows(hold, "10.11.12.13:5000: it is at").await;
    shows(hold, "not listed under [registries]").await;

    let (data, aside) = (bench.daemon.data(), bench.daemon.data().with_extension("aside"));
    std::fs::rename(&data, &aside).unwrap();
    shows(hold, "systemctl restart tidehold").await;
    shows("document.querySelector('#hold-gist')", "nothing new can be written").await;
    std::fs::rename(&aside, &data).unwrap();
    browser.shows(&format!("!{hold}.textContent.includes('systemctl restart')")).await;
    seen.quiet().await;
}

async fn the_standings_of_the_day_are_counted_drawn_and_listed(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    browser.shows("!document.querySelector('#no-answers').hidden").await;
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest("latest")).await;
    bench.break_everything(Fault::Unavailable).await;
    bench.get(&bench.manifest("latest")).await;
    bench.get(&bench.manifest("1.0")).await;
    for standing in ["changed", "unchanged", "stale", "refused"] {
        let key = format!(
            "[...document.querySelectorAll('#keys li')].some((key) => key.textContent.startsWith('{standing} 1 '))"
        );
        browser.shows(&key).await;
        browser.shows(&format!("document.querySelector('#standings-plot rect.{standing}')")).await;
    }
    let label = browser.text("document.querySelector('#standings-plot').getAttribute('aria-label')").await;
    assert!(label.contains("1 unchanged") && label.contains("1 stale"), "{label}");
    let row = "[...document.querySelectorAll('#history tr')].map((row) => row.cells.length)";
    assert!(browser.text(row).await.starts_with("10"), "a time, seven standings, counted and without");
    seen.quiet().await;
}

async fn a_request_appears_when_it_is_sent_the_newest_first(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    browser.shows("!document.querySelector('#no-requests').hidden").await;
    seen.ask_as("a-client/1", &bench.manifest("latest")).await;
    browser.shows(&format!("{ROWS}.length === 4")).await;
    let answers = browser.text(&format!("[...{ROWS}].map((row) => row.cells[1].textContent).join()")).await;
    assert_eq!(answers, "200 counted,200,200,401", "the GET, the HEAD, the token, the challenge");
    let newest = browser.text(&format!("{ROWS}[0].textContent")).await;
    assert!(
        newest.contains("GET docker.io/library/tide@sha256:") && newest.contains("a-client/1"),
        "{newest}"
    );
    assert_eq!(browser.text(&format!("{ROWS}[0].cells[5].textContent")).await, "99");
    seen.ask_as("a-client/2", &bench.manifest("latest")).await;
    browser.shows(&format!("{ROWS}[0].textContent.includes('a-client/2')")).await;
    browser.shows("document.querySelector('#said').textContent.includes('new upstream request')").await;
    seen.quiet().await;
}

async fn the_flight_record_is_filtered_and_held_still(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    seen.ask_as("one", &bench.manifest("latest")).await;
    seen.ask_as("two", &bench.manifest_of("library/nothing", "latest")).await;
    browser.shows(&format!("{ROWS}.length >= 6")).await;
    let set = |id: &str, value: &str, event: &str| {
        format!(
            "const field = document.querySelector('#{id}'); field.value = '{value}'; field.dispatchEvent(new Event('{event}'))"
        )
    };
    browser.run(&set("by-name", "NOTHING", "input")).await;
    browser
        .shows(&format!(
            "{ROWS}.length > 0 && [...{ROWS}].every((row) => row.textContent.includes('library/nothing'))"
        ))
        .await;
    browser.run(&set("by-name", "", "input")).await;
    browser.run("document.querySelector('#by-counted').click()").await;
    browser.shows(&format!("{ROWS}.length === 1 && {ROWS}[0].textContent.includes('counted')")).await;
    browser.run("document.querySelector('#by-counted').click()").await;
    browser.run(&set("by-status", "401", "change")).await;
    browser
        .shows(&format!(
            "{ROWS}.length > 0 && [...{ROWS}].every((row) => row.cells[1].textContent === '401')"
        ))
        .await;
    browser.run(&set("by-status", "", "change")).await;
    browser.run(&set("by-registry", "docker.io", "change")).await;
    browser.shows(&format!("{ROWS}.length >= 6")).await;

    browser.run("document.querySelector('#pause').click()").await;
    let before = browser.text(&format!("{ROWS}.length")).await;
    seen.ask_as("three", &bench.manifest("latest")).await;
    browser.shows("document.querySelector('#pause').textContent === 'Resume, 1 new'").await;
    assert_eq!(browser.text(&format!("{ROWS}.length")).await, before);
    browser.run("document.querySelector('#pause').click()").await;
    browser.shows(&format!("{ROWS}[0].textContent.includes('three')")).await;
    seen.quiet().await;
}

async fn of_a_long_flight_record_the_last_is_shown_and_said_to_be_that_until_all_is_wanted(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    // As if it were long.
    browser.run("kept = 3").await;
    let count = "document.querySelector('#request-count').textContent";
    let all = "document.querySelector('#all-requests')";
    bench.get(&bench.manifest("latest")).await;
    browser.shows(&format!("{count} === 'the last 3 of 4 requests, 1 counted' && !{all}.hidden")).await;
    seen.ask_as("another", &bench.manifest("latest")).await;
    browser.shows(&format!("{count} === 'the last 3 of 5 requests, 1 counted'")).await;
    assert_eq!(
        browser.text("document.querySelector('#requests-gist').textContent").await,
        browser.text(count).await
    );
    let name = "const field = document.querySelector('#by-name'); field.value = 'another'; field.dispatchEvent(new Event('input'))";
    browser.run(name).await;
    browser.shows(&format!("{count} === '1 among the last 3 of 5 requests, 0 counted'")).await;
    browser.run(&format!("{all}.click()")).await;
    browser.shows(&format!("{count} === '1 of 5 requests, 0 counted' && {all}.hidden")).await;
    seen.quiet().await;
}

async fn a_tag_is_found_sorted_and_explained(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    browser.shows("!document.querySelector('#no-tags').hidden").await;
    for tag in ["latest", "1.0"] {
        bench.get(&bench.manifest(tag)).await;
    }
    let names = "[...document.querySelectorAll('#tags tbody button')].map((name) => name.textContent.split(':')[1]).join()";
    browser.shows(&format!("{names} === '1.0,latest'")).await;
    browser.run("document.querySelector('#tags-head button').click()").await;
    browser.shows(&format!("{names} === 'latest,1.0'")).await;
    assert_eq!(browser.text("document.querySelector('#tags-head th').ariaSort").await, "descending");
    browser.run("document.querySelector('#tags tbody button').click()").await;
    browser.shows("document.querySelector('.story')?.textContent.includes('What was decided')").await;
    let story = browser.text("document.querySelector('.story').textContent").await;
    assert!(story.contains(&bench.hub.first().digest) && story.contains("counted"), "{story}");
    browser.run("document.querySelector('#explain-ref').value = 'never/asked'; document.querySelector('#explain button').click()").await;
    browser.shows("document.querySelector('#explained').textContent.includes('nothing is known of docker.io/never/asked:latest')").await;
    // Its console says that the answer was 404, which it was.
    let console = browser.console().await;
    assert!(console.iter().all(|line| line.contains("404")), "{console:?}");
}

async fn the_hold_and_the_table_count_the_same_tags_and_digests(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    bench.pull("latest").await;
    run(bench, &["pin", &format!("library/tide@{}", bench.hub.first().digest)]).await;
    let card = "[...document.querySelectorAll('#hold dt')].find((one) => one.textContent === 'Tags').nextSibling.textContent";
    browser.shows(&format!("{card} === '1 and 1 digest, 1 pinned'")).await;
    browser.shows("document.querySelector('#tag-count').textContent === '1 tag and 1 digest'").await;
    seen.quiet().await;
}

async fn all_of_it_is_reached_by_keyboard_alone(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    for tag in ["latest", "1.0"] {
        bench.get(&bench.manifest(tag)).await;
    }
    browser.shows("document.querySelectorAll('#tags tbody button').length === 2").await;
    let focus = "document.activeElement";
    browser.press(TAB).await;
    assert_eq!(browser.text(&format!("{focus}.textContent")).await, "Skip to the budget");
    browser.press(ENTER).await;
    browser.shows("location.hash === '#budget'").await;
    tab_to(browser, "document.activeElement.id === 'tag-filter'").await;
    browser.press("1.0").await;
    browser.shows("document.querySelectorAll('#tags tbody button').length === 1").await;
    tab_to(browser, "document.activeElement.className.includes('name')").await;
    let outline = browser.text(&format!("getComputedStyle({focus}).outlineStyle")).await;
    assert_eq!(outline, "solid", "where the focus is can be seen");
    browser.press(ENTER).await;
    browser.shows("document.querySelector('.story')").await;
    assert_eq!(browser.text(&format!("{focus}.ariaExpanded")).await, "true");
    // What comes meanwhile does not take the focus away.
    bench.get(&bench.manifest("latest")).await;
    browser.shows(&format!("[...{ROWS}].length >= 6")).await;
    browser.shows(&format!("{focus}.className.includes('name')")).await;
    tab_to(browser, "document.activeElement.id === 'by-name'").await;
    browser.press("no such thing").await;
    browser.shows(&format!("{ROWS}.length === 0")).await;
    tab_to(browser, "document.activeElement.id === 'pause'").await;
    browser.press(ENTER).await;
    browser.shows("document.querySelector('#pause').textContent.startsWith('Resume')").await;
    tab_to(browser, "document.activeElement.getAttribute('href') === '/metrics'").await;
    seen.quiet().await;
}

/// Tab after tab, until the focus is there: nothing on the way keeps it.
async fn tab_to(browser: &Browser, there: &str) {
    for _ in 0..60 {
        browser.press(TAB).await;
        if browser.text(there).await == "true" {
            return;
        }
    }
    let at = browser.text("document.activeElement.outerHTML.slice(0, 200)").await;
    panic!("the focus never came to {there}; it is at {at}");
}

async fn what_others_say_is_text(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    let hostile = "<img src=x onerror='window.hostile=1'><script>window.hostile=1</script>";
    seen.ask_as(hostile, &bench.manifest("latest")).await;
    browser.shows(&format!("{ROWS}.length && {ROWS}[0].textContent.includes('<img src=x')")).await;
    browser.shows("document.querySelector('#tags tbody button')").await;
    browser.run("document.querySelector('#tags tbody button').click()").await;
    browser.shows("document.querySelector('.story')?.textContent.includes('<script>window.hostile')").await;
    let field = "const field = document.querySelector('#explain-ref'); field.value = '<img src=x>';";
    browser.run(&format!("{field} document.querySelector('#explain button').click()")).await;
    browser.shows("document.querySelector('#explained').textContent.includes('img')").await;
    assert_eq!(browser.text("document.querySelectorAll('img, main script').length").await, "0");
    assert_eq!(browser.text("window.hostile").await, "undefined");
}

async fn it_asks_nobody_but_its_daemon(browser: Browser) {
    let seen = Seen::open(browser).await;
    let Seen { browser, bench } = &seen;
    bench.pull("latest").await;
    browser.shows(&format!("{ROWS}.length > 0 && {GAUGE}")).await;
    let asked = browser.run("return performance.getEntriesByType('resource').map((one) => one.name)").await;
    let asked: Vec<_> =
        asked.as_array().unwrap().iter().map(|url| url.as_str().unwrap().to_owned()).collect();
    assert!(!asked.is_empty());
    let own = format!("{}/", bench.daemon.web());
    assert!(asked.iter().all(|url| url.starts_with(&own) || url.starts_with("data:")), "{asked:?}");
    seen.quiet().await;
    // And cannot: its own policy stops even a script of its own from that.
    let elsewhere = format!("{}/v2/", bench.daemon.mirror());
    browser
        .run(&format!("fetch('{elsewhere}').then(() => window.went = 'out', () => window.went = 'nowhere')"))
        .await;
    browser.shows("window.went").await;
    assert_eq!(browser.text("window.went").await, "nowhere");
    let console = browser.console().await;
    assert!(console.iter().any(|line| line.contains("Content Security Policy")), "{console:?}");
}

async fn a_daemon_that_goes_and_comes_back_is_told_of(browser: Browser) {
    let mut seen = Seen::open(browser).await;
    seen.bench.pull("latest").await;
    seen.browser.shows(&format!("{GAUGE}?.getAttribute('aria-valuenow') === '98'")).await;
    assert!(seen.bench.daemon.terminate().success());
    let gone = "document.querySelector('#gone')";
    seen.browser
        .shows(&format!("!{gone}.hidden && {gone}.textContent.includes('does not answer, last seen')"))
        .await;
    seen.browser.shows("document.querySelector('#state').textContent.includes('not connected')").await;
    assert_eq!(seen.browser.text("document.title").await, "Not connected – Tidehold");
    seen.bench.daemon.start_again();
    seen.browser.shows(&format!("{gone}.hidden")).await;
    seen.browser.shows("document.title === '98 of 100 left at docker.io – Tidehold'").await;
    let before = seen.browser.text(&format!("{ROWS}.length")).await;
    seen.ask_as("afterwards", &seen.bench.manifest("latest")).await;
    seen.browser.shows(&format!("{ROWS}[0].textContent.includes('afterwards')")).await;
    assert_ne!(before, "0", "what was before the restart is still there");
    seen.bench.hub.clear(Kind::Blob).await;
}

async fn that_it_is_gone_is_in_sight_wherever_one_reads_and_said_aloud_once(browser: Browser) {
    let mut seen = Seen::open(browser).await;
    for tag in ["latest", "1.0"] {
        seen.bench.get(&seen.bench.manifest(tag)).await;
    }
    seen.browser.shows(&format!("{ROWS}.length > 4")).await;
    seen.browser.look(360, "light").await;
    seen.browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true })").await;
    seen.browser.run("scrollTo(0, document.body.scrollHeight)").await;
    let aloud = "window.aloud = []; const watched = new MutationObserver((all) => window.aloud.push(...all));
        watched.observe(document.querySelector('[role=alert]'), { childList: true, characterData: true, subtree: true })";
    seen.browser.run(aloud).await;
    assert!(seen.bench.daemon.terminate().success());
    let gone = "document.querySelector('#gone')";
    seen.browser.shows(&format!("!{gone}.hidden")).await;
    let place = seen
        .browser
        .run(&format!(
            "const box = {gone}.getBoundingClientRect(); return [scrollY, box.top, box.bottom, innerHeight]"
        ))
        .await;
    let place: Vec<f64> = place.as_array().unwrap().iter().map(|part| part.as_f64().unwrap()).collect();
    assert!(place[0] > 400.0 && place[1] >= 0.0 && place[2] < 90.0, "{place:?}");
    // What has the focus is not beneath it.
    seen.browser.run("document.querySelector('#by-name').scrollIntoView()").await;
    let top = format!(
        "document.querySelector('#by-name').getBoundingClientRect().top >= {gone}.getBoundingClientRect().bottom"
    );
    assert_eq!(seen.browser.text(&top).await, "true");
    // Nor is it over anything where the page begins.
    seen.browser.run("scrollTo(0, 0)").await;
    let below = format!(
        "document.querySelector('#main').getBoundingClientRect().top >= {gone}.getBoundingClientRect().bottom"
    );
    assert_eq!(seen.browser.text(&below).await, "true");
    let since = "document.querySelector('#gone-since').textContent";
    let first = seen.browser.text(since).await;
    seen.browser.shows(&format!("{since} !== '{first}'")).await;
    assert_eq!(seen.browser.text("window.aloud.length").await, "1", "what counts on is not said again");
    assert_eq!(
        seen.browser.text("document.querySelector('[role=alert]').textContent").await,
        "The daemon does not answer"
    );
}

async fn the_title_of_a_page_that_nobody_looks_at_says_that_the_daemon_is_gone(browser: Browser) {
    let mut seen = Seen::open(browser).await;
    seen.bench.pull("latest").await;
    seen.browser.shows("document.title.startsWith('98 of 100 left')").await;
    let hidden = "Object.defineProperty(document, 'hidden', { get: () => true });
        document.dispatchEvent(new Event('visibilitychange'));";
    seen.browser.run(hidden).await;
    assert!(seen.bench.daemon.terminate().success());
    // It asks seldom now: each look at the clock is a minute later.
    seen.browser.run("let later = 0; const now = Date.now; Date.now = () => now() + (later += 60000)").await;
    seen.browser.shows("document.title === 'Not connected – Tidehold'").await;
}
