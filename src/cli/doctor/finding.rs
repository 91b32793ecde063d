//! What was found, and how it is told: to a person in groups, to a program as one JSON object.
//!
//! A finding's name stays the same from one version to the next: `docs/troubleshooting.md` has them all.

use serde::Serialize;
use serde_json::json;

use crate::cli::paint::{Painted, bad as red, faint, good, odd, strong};
use crate::cli::words;

/// How one starts the daemon, the mend of more than one finding.
pub(super) const START: &str =
    "systemctl enable --now tidehold.socket tidehold.service    # no such units: tidehold setup";

/// What may help where it does not answer.
pub(super) const RESTART: &str = "systemctl restart tidehold, and look at: journalctl -u tidehold -n 50";

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Works, and could be better, or may have been meant otherwise.
    Warn,
    /// Has to be mended.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How much it matters.
    pub(super) level: Level,
    /// What kind of finding, for programs and for the documentation.
    pub(super) name: &'static str,
    /// What is so.
    pub(super) what: String,
    /// What to do: a command, or the lines to put where. Empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) mend: String,
}

/// It is as it should be.
pub(super) fn ok(name: &'static str, what: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, name, what: what.into(), mend: String::new() }
}

/// It works, and this would be better.
pub(super) fn warn(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { level: Level::Warn, name, what: what.into(), mend: mend.into() }
}

/// It has to be mended.
pub(super) fn bad(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { level: Level::Bad, name, what: what.into(), mend: mend.into() }
}

/// Findings about one part of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    /// Which part.
    pub(super) about: String,
    /// In the order in which they are told.
    pub(super) findings: Vec<Finding>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Report {
    groups: Vec<Group>,
}

impl Report {
    /// What was found about one part; nothing is told of a part about which there is nothing to say.
    pub(super) fn add(&mut self, about: impl Into<String>, findings: Vec<Finding>) {
        if !findings.is_empty() {
            self.groups.push(Group { about: about.into(), findings });
        }
    }

    /// How many there are of a level.
    pub(super) fn count(&self, level: Level) -> usize {
        let all = self.groups.iter().flat_map(|group| &group.findings);
        all.filter(|finding| finding.level == level).count()
    }

    /// One JSON object.
    pub(super) fn as_json(&self) -> anyhow::Result<String> {
        words::json(&json!({
            "ok": self.count(Level::Bad) == 0,
            "bad": self.count(Level::Bad),
            "warnings": self.count(Level::Warn),
            "groups": self.groups,
        }))
    }

    /// For a person.
    pub(super) fn as_text(&self) -> String {
        let mut lines = Vec::new();
        for group in &self.groups {
            lines.push(strong(&group.about).to_string());
            group.findings.iter().for_each(|finding| tell(finding, &mut lines));
            lines.push(String::new());
        }
        let (bads, warnings) = (self.count(Level::Bad), self.count(Level::Warn));
        let warned = if warnings == 0 {
            String::new()
        } else {
            format!(", {}", odd(words::count(warnings as u64, "warning")))
        };
        lines.push(match bads {
            0 => format!("{}{warned}", good("nothing to mend")),
            bads => format!("{}{warned}", red(format!("{bads} to mend"))),
        });
        lines.join("\n")
    }
}

fn tell(finding: &Finding, lines: &mut Vec<String>) {
    let mark = match finding.level {
        Level::Ok => good("ok  "),
        Level::Warn => odd("warn"),
        Level::Bad => red("bad "),
    };
    let mut what = finding.what.lines();
    let first = what.next().unwrap_or_default();
    lines.push(format!("  {mark}  {}  {}", Painted::from(first), faint(finding.name)));
    lines.extend(what.map(|line| format!("        {}", Painted::from(line))));
    lines.extend(finding.mend.lines().map(|line| format!("        {}", strong(line))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_is_wrong_and_the_mend_beneath_it() {
        let mut report = Report::default();
        report.add("one", vec![ok("a", "fine"), bad("b", "broken\nbadly", "put here:\n  x = 1")]);
        report.add("none", Vec::new());
        report.add("two", vec![warn("c", "odd", "look")]);
        let text = anstream::adapter::strip_str(&report.as_text()).to_string();
        let expected = "one\n  ok    fine  a\n  bad   broken  b\n        badly\n        put here:\n          x = 1\n\
                        \ntwo\n  warn  odd  c\n        look\n\n1 to mend, 1 warning";
        assert_eq!(text, expected);
        let json: serde_json::Value = serde_json::from_str(&report.as_json().unwrap()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["groups"][1]["findings"][0]["level"], "warn");
    }
}
