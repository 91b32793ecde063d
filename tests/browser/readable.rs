//! Whether everybody can read the page: on a phone, in the dark, by a screen reader.

use serde_json::json;

use crate::bench::{ASKS_ALWAYS, Bench, images_only};
use crate::driver::{Browser, ENTER};
use crate::support::hub::{Fault, HubConfig};
use crate::{Scenario, Seen, scenarios};

pub(crate) const SCENARIOS: &[Scenario] = scenarios![
    nothing_is_wider_than_a_phone,
    no_time_is_broken_into_two_lines,
    all_text_stands_out_in_the_light_and_in_the_dark,
    a_screen_reader_is_told_what_everything_is,
    who_wants_less_motion_sees_none,
    a_phone_shows_the_budget_first_and_the_rest_folded_under_what_it_comes_to,
];

/// A page with something in each place, all of it opened.
pub(crate) async fn full(browser: Browser) -> Seen {
    let registry = HubConfig { limit: Some(3), ..images_only() };
    let seen = Seen::of(browser, Bench::before(registry, ASKS_ALWAYS).await).await;
    let Seen { browser, bench } = &seen;
    bench.pull("latest").await;
    let long = "a-client-with-a-very-long-name-and-no-space-in-it/1.2.3+".to_owned() + &"x".repeat(120);
    seen.ask_as(&long, &bench.manifest("latest")).await;
    bench.point_latest_at(bench.hub.second());
    bench.get(&bench.manifest("latest")).await;
    bench
        .get(
            &bench
                .manifest_of(&format!("library/{}", "very-long-name-".repeat(8).trim_end_matches('-')), "1"),
        )
        .await;
    bench.break_everything(Fault::Unavailable).await;
    bench.get(&bench.manifest("latest")).await;
    browser.shows("document.querySelector('#tags tbody button') && document.querySelectorAll('#requests tbody tr').length > 5").await;
    browser.shows("document.querySelector('#keys').textContent.includes('stale 2')").await;
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true })").await;
    browser.run("document.querySelector('#tags tbody button').click()").await;
    browser.shows("document.querySelector('.story')").await;
    seen
}

async fn nothing_is_wider_than_a_phone(browser: Browser) {
    let Seen { browser, .. } = &full(browser).await;
    for width in [320, 390, 768, 1280] {
        browser.look(width, "light").await;
        let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]").await;
        assert!(wide[0].as_u64() <= wide[1].as_u64(), "at {width}: {wide}");
        assert_eq!(wide[1], json!(width));
    }
}

async fn no_time_is_broken_into_two_lines(browser: Browser) {
    let Seen { browser, .. } = &full(browser).await;
    let long =
        "document.querySelector('#tags tbody button').textContent = 'docker.io/library/' + 'x'.repeat(300)";
    browser.run(long).await;
    for width in [390, 1280] {
        browser.look(width, "light").await;
        // As long as any is.
        browser
            .run("for (const one of document.querySelectorAll('time')) one.textContent = '59 min ago'")
            .await;
        let broken =
            "[...document.querySelectorAll('time')].filter((one) => one.getClientRects().length > 1).length";
        assert_eq!(browser.text(broken).await, "0", "at {width}");
    }
}

/// The contrast of each piece of text with what is behind it, where it is too little (WCAG 2.2, 1.4.3: 4.5 to 1; large
/// text is let off nothing here).
const FAINT: &str = r"
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const parts = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([red, green, blue]) => {
        const [r, g, b] = [red, green, blue].map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const colour = parts(getComputedStyle(one).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    let seen = 0;
    while (texts.nextNode()) {
        const text = texts.currentNode, element = text.parentElement;
        if (!text.textContent.trim() || !element.checkVisibility() || element.closest('script, style, svg')) continue;
        const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        seen += 1;
        if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${text.textContent.trim().slice(0, 60)}`);
    }
    return { seen, faint };
";

async fn all_text_stands_out_in_the_light_and_in_the_dark(browser: Browser) {
    let mut seen = full(browser).await;
    seen.bench.daemon.terminate();
    seen.browser.shows("!document.querySelector('#gone').hidden").await;
    for scheme in ["light", "dark"] {
        seen.browser.look(1280, scheme).await;
        let looked = seen.browser.run(FAINT).await;
        assert!(looked["seen"].as_u64() > Some(100), "{looked}");
        assert_eq!(looked["faint"], json!([]), "{scheme}");
        let paper = "getComputedStyle(document.documentElement).backgroundColor";
        let paper = seen.browser.text(paper).await;
        assert_eq!(paper == "rgb(252, 252, 250)", scheme == "light", "{paper}");
    }
}

/// What a reader would not be told, as a list of complaints.
const UNTOLD: &str = r"
    const wrong = [];
    const name = (element) => element.getAttribute('aria-label')
        || document.getElementById(element.getAttribute('aria-labelledby'))?.textContent || '';
    if (!document.documentElement.lang) wrong.push('no language');
    for (const one of ['header', 'main', 'footer', 'h1']) {
        if (document.querySelectorAll(one).length !== 1) wrong.push(`not one ${one}`);
    }
    let level = 0;
    for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
        const next = Number(heading.tagName[1]);
        if (next > level + 1) wrong.push(`${heading.textContent} skips a level`);
        level = next;
    }
    for (const one of document.querySelectorAll('section, figure, [role=region], [role=img]')) {
        if (!name(one)) wrong.push(`no name: ${one.outerHTML.slice(0, 80)}`);
    }
    for (const one of document.querySelectorAll('input, select')) {
        if (!one.labels.length) wrong.push(`no label: ${one.id}`);
    }
    for (const one of document.querySelectorAll('button, a, summary')) {
        if (!one.textContent.trim()) wrong.push(`says nothing: ${one.outerHTML.slice(0, 80)}`);
    }
    for (const one of document.querySelectorAll('table')) {
        if (!one.caption) wrong.push(`no caption: ${one.id}`);
        for (const cell of one.querySelectorAll('th')) if (!cell.scope) wrong.push(`no scope: ${cell.textContent}`);
    }
    for (const one of document.querySelectorAll('[role=meter]')) {
        const said = ['aria-valuemin', 'aria-valuemax', 'aria-valuenow', 'aria-valuetext'];
        if (!name(one) || said.some((what) => !one.hasAttribute(what))) wrong.push(`a meter is mute: ${name(one)}`);
    }
    for (const one of document.querySelectorAll('svg')) {
        if (one.getAttribute('role') !== 'img' && one.ariaHidden !== 'true') wrong.push('a drawing is neither named nor hidden');
    }
    const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`twice: ${id}`);
    if (!document.querySelector('[role=status]') || !document.querySelector('[role=alert]')) wrong.push('nothing is live');
    return wrong;
";

async fn a_screen_reader_is_told_what_everything_is(browser: Browser) {
    let Seen { browser, .. } = &full(browser).await;
    assert_eq!(browser.run(UNTOLD).await, json!([]));
}

async fn who_wants_less_motion_sees_none(browser: Browser) {
    let Seen { browser, .. } = &full(browser).await;
    browser.less_motion().await;
    let moving = "[...document.querySelectorAll('*')].filter((one) => getComputedStyle(one).animationName !== 'none').length";
    assert_eq!(browser.text(moving).await, "0");
}

async fn a_phone_shows_the_budget_first_and_the_rest_folded_under_what_it_comes_to(browser: Browser) {
    let seen = full(browser).await;
    let Seen { browser, bench } = &seen;
    let open = "[...document.querySelectorAll('.fold')].map((one) => one.open).join()";
    assert_eq!(browser.text(open).await, "true,true,true,true", "on a desk all of it is there");
    let gists = "[...document.querySelectorAll('.fold > summary')]";
    assert_eq!(browser.text(&format!("{gists}.some((one) => one.checkVisibility())")).await, "false");
    browser.look(360, "light").await;
    browser.open(&format!("{}/", bench.daemon.web())).await;
    browser.shows("document.querySelector('#requests-gist')?.textContent.includes('counted')").await;
    browser.shows("document.querySelector('#tags-gist')?.textContent.includes('tag')").await;
    assert_eq!(browser.text(open).await, "false,false,false,false");
    let told = browser.text(&format!("{gists}.map((one) => one.textContent).join('; ')")).await;
    for part in ["answers, ", "stale", "held, ", "of the disk free", "1 tag", "requests, "] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let screens = browser.run("return document.documentElement.scrollHeight / innerHeight").await;
    assert!(screens.as_f64() < Some(2.0), "{screens} screens");
    // Each is a stop of the tabulator, and opens by its key; its heading is one still.
    browser.run("document.querySelector('#tags-gist').focus()").await;
    assert_eq!(browser.text("document.activeElement.id").await, "tags-gist");
    browser.press(ENTER).await;
    browser.shows("document.querySelector('#tag-filter').checkVisibility()").await;
    assert_eq!(browser.text("document.querySelectorAll('section > h2').length").await, "5");
    // It stays open, and whoever turns the phone or the window to be wide sees all.
    bench.get(&bench.manifest("1.0")).await;
    assert_eq!(browser.text(open).await, "false,false,true,false");
    browser.look(1000, "light").await;
    browser.shows(&format!("{open} === 'true,true,true,true'")).await;
}
