//! The listeners that the daemon can do without for a while: is it us at the address of each, and who else where not.

use std::net::SocketAddr;

use tidehold::proto::v1::MissingListener;

use super::daemon::{Answerer, Facts};
use super::finding::{Finding, RESTART, START, bad, ok, warn};
use super::holder::Holder;
use crate::cli::words::plain;

/// What the page tells of listeners that could not be had.
pub(super) fn told(text: &str) -> Vec<MissingListener> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("no ")?.split_once(" listener: "));
    let missing = lines.map(|(name, why)| MissingListener {
        name: name.to_owned(),
        address: String::new(),
        why: plain(why),
    });
    missing.collect()
}

/// Whether it tells that the hold is not open yet.
pub(super) fn opens(text: &str) -> bool {
    text.starts_with("the hold is being opened")
}

/// The mirror, without which nobody asks us for an image.
pub(super) fn mirror(facts: &Facts) -> Finding {
    let url = facts.at.url();
    if let Some(MissingListener { why, .. }) = facts.missing("mirror") {
        let held = facts.mirror_holder.is_some() || !matches!(facts.mirror, Answerer::Nobody(_));
        let listener = Listener { table: "mirror", unit: "tidehold-mirror.socket", at: facts.at.0 };
        return match held {
            true => bad(
                "mirror.other",
                format!(
                    "the daemon has no mirror: {} has its address {url}",
                    who(facts.mirror_holder.as_ref())
                ),
                listener.freed(facts.mirror_holder.as_ref(), facts),
            ),
            false => bad("mirror.down", format!("the daemon has no mirror: {why}"), listener.seen_to(facts)),
        };
    }
    match &facts.mirror {
        Answerer::Ours => ok("mirror.answers", format!("the mirror answers at {url}")),
        Answerer::Other(what) => {
            let listener = Listener { table: "mirror", unit: "tidehold-mirror.socket", at: facts.at.0 };
            let holder = facts.mirror_holder.as_ref();
            bad(
                "mirror.other",
                format!("{} has the mirror's address {url}: {what}", who(holder)),
                listener.freed(holder, facts),
            )
        }
        Answerer::Mute(why) => {
            let holder = facts.mirror_holder.as_ref();
            match holder {
                Some(other) if !other.is_ours() => {
                    let listener =
                        Listener { table: "mirror", unit: "tidehold-mirror.socket", at: facts.at.0 };
                    bad(
                        "mirror.other",
                        format!("{} has the mirror's address {url}: {why}", who(holder)),
                        listener.freed(holder, facts),
                    )
                }
                own => bad(
                    "mirror.silent",
                    format!("{} listens at {url} and does not answer: {why}", who(own)),
                    own.map_or_else(|| RESTART.to_owned(), Holder::restarted),
                ),
            }
        }
        Answerer::Nobody(why) if facts.answers() => bad(
            "mirror.down",
            format!("the daemon runs, and nobody answers at {url}: {why}"),
            "systemctl restart tidehold.service, and look at: journalctl -u tidehold -n 50",
        ),
        Answerer::Nobody(why) => bad("mirror.down", format!("nobody answers at {url}: {why}"), START),
    }
}

/// The status page, without which all else goes on.
pub(super) fn web(facts: &Facts) -> Option<Finding> {
    let listener = Listener { table: "web", unit: "tidehold-web.socket", at: facts.config.web.listen };
    let holder = facts.web_holder.as_ref();
    if let Some(MissingListener { why, .. }) = facts.missing("web") {
        return Some(match holder {
            Some(_) => warn(
                "web.other",
                format!("there is no status page: {} has its address {}", who(holder), listener.at),
                listener.freed(holder, facts),
            ),
            None => warn("web.down", format!("there is no status page: {why}"), listener.seen_to(facts)),
        });
    }
    let Some(Ok(status)) = &facts.status else { return None };
    (!status.web.is_empty())
        .then(|| ok("web.answers", format!("the status page is at http://{}/", status.web)))
}

/// One of them, as the configuration has it.
struct Listener {
    table: &'static str,
    unit: &'static str,
    at: SocketAddr,
}

impl Listener {
    /// How its address becomes free, or it gets another.
    fn freed(&self, holder: Option<&Holder>, facts: &Facts) -> String {
        let Self { table, unit, at } = self;
        let port = at.port();
        let end = holder.map_or_else(
            || format!("see who it is, and stop it: ss -ltnp 'sport = :{port}'    # as root"),
            |holder| holder.ended(port),
        );
        let then = if facts.runs() { "the daemon takes it within seconds then" } else { START };
        format!(
            "{end}\n{then}\nor give Tidehold another address: listen under [{table}] in {}, and in {unit} where systemd listens \
             for it",
            facts.file()
        )
    }

    /// How it comes, where nobody is in its way.
    fn seen_to(&self, facts: &Facts) -> String {
        format!(
            "see to that, and the daemon has it within seconds; or write another address under [{}] in {}, and then: systemctl \
             restart tidehold",
            self.table,
            facts.file()
        )
    }
}

pub(super) fn who(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else { return "something else".to_owned() };
    let Holder { pid, program, whose } = holder;
    match whose.unit() {
        None => format!("{program} (process {pid})"),
        Some(unit) => format!("{} ({program}, process {pid})", unit.name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::whose::{Unit, Whose};
    use super::*;

    #[test]
    fn the_page_tells_what_is_missing() {
        assert!(told("ok\n").is_empty() && told("the hold is being opened\n").is_empty());
        assert!(opens("the hold is being opened\n") && !opens("ok\n") && !opens(""));
        let missing = told("ok\nno control listener: /c is there and is no socket\n");
        let [missing] = &missing[..] else { panic!("{missing:?}") };
        assert_eq!(
            (missing.name.as_str(), missing.why.as_str()),
            ("control", "/c is there and is no socket")
        );
    }

    #[test]
    fn whoever_has_an_address_is_named_as_what_can_be_ended() {
        let unit = |name: &str| Whose::Service(Unit { name: name.to_owned(), user: None });
        let holder = |service: Option<&str>| Holder {
            pid: 7,
            program: "nginx".to_owned(),
            whose: service.map_or(Whose::Own, unit),
        };
        assert_eq!(who(None), "something else");
        assert_eq!(who(Some(&holder(None))), "nginx (process 7)");
        assert_eq!(who(Some(&holder(Some("n.service")))), "n.service (nginx, process 7)");
    }
}
