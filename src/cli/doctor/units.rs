//! Whether systemd listens where the configuration says. What it hands over and the daemon does not know is answered by
//! nobody, and what it does not hand over is gone while the daemon restarts.

use super::finding::{Finding, bad, ok, warn};

/// One of our units of sockets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    /// Where it listens. Empty where there is none, or it is masked.
    pub(super) listens: Vec<String>,
    /// Where it should, by the configuration.
    pub(super) wanted: Vec<String>,
}

/// What there is to judge by: our units, and the file that says where the daemon listens.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) units: Vec<Unit>,
    pub(super) file: String,
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let used: Vec<&Unit> = facts.units.iter().filter(|unit| !unit.listens.is_empty()).collect();
    if used.is_empty() {
        return Vec::new();
    }
    let findings: Vec<_> = used.iter().filter_map(|unit| differs(unit, facts)).collect();
    if findings.is_empty() {
        return vec![ok("daemon.units", "systemd listens where the configuration says")];
    }
    findings
}

/// It does not matter which of them has an address.
fn differs(unit: &Unit, facts: &Facts) -> Option<Finding> {
    let Unit { name, listens, wanted } = unit;
    let Facts { units, file } = facts;
    let is_known = |address: &&String| units.iter().any(|unit| unit.wanted.contains(*address));
    let is_had = |address: &&String| units.iter().any(|unit| unit.listens.contains(*address));
    let unknown: Vec<_> = listens.iter().filter(|address| !is_known(address)).cloned().collect();
    let lacking: Vec<_> = wanted.iter().filter(|address| !is_had(address)).cloned().collect();
    if unknown.is_empty() && lacking.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !unknown.is_empty() {
        what.push(format!(
            "{name} listens at {}, which {file} does not name: who connects there is answered by nobody",
            unknown.join(", ")
        ));
    }
    if !lacking.is_empty() {
        what.push(format!(
            "{name} does not listen at {}, as {file} says: nobody does before the daemon has started, nor while it restarts",
            lacking.join(", ")
        ));
    }
    let lines: Vec<_> = wanted.iter().map(|address| format!("  ListenStream={address}")).collect();
    let mend = format!(
        "systemctl edit {name}, and put there:\n  [Socket]\n  ListenStream=\n{}\nand then: systemctl daemon-reload; systemctl \
         stop tidehold.service; systemctl restart {name}; systemctl start tidehold.service\nor write into {file} what the unit \
         says, and then: systemctl restart tidehold.service",
        lines.join("\n")
    );
    let tell = if unknown.is_empty() { warn } else { bad };
    Some(tell("daemon.units", what.join("\n"), mend))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn judged(units: &[(&'static str, &[&str], &[&str])]) -> Vec<Finding> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let unit = |(name, listens, wanted): &(&'static str, &[&str], &[&str])| Unit {
            name,
            listens: texts(listens),
            wanted: texts(wanted),
        };
        judge(&Facts { units: units.iter().map(unit).collect(), file: "/etc/x.toml".to_owned() })
    }

    #[test]
    fn units_that_listen_where_they_should_are_well_whichever_it_is() {
        assert!(judged(&[]).is_empty());
        assert!(
            judged(&[("a.socket", &[], &["/a"])]).is_empty(),
            "a masked one listens nowhere, and is meant so"
        );
        for units in [
            &[("a.socket", &["/a", "127.0.0.1:1"][..], &["/a"][..]), ("b.socket", &[], &["127.0.0.1:1"])][..],
            &[("a.socket", &["/a"], &["/a"]), ("b.socket", &["127.0.0.1:1"], &["127.0.0.1:1"])],
            &[("a.socket", &["127.0.0.1:1"], &["/a"]), ("b.socket", &["/a"], &["127.0.0.1:1"])],
        ] {
            let [found] = &judged(units)[..] else { panic!("{units:?}") };
            assert_eq!(found.level, Level::Ok);
        }
    }

    #[test]
    fn what_differs_is_told_with_the_lines_that_mend_it() {
        let found = judged(&[
            ("a.socket", &["/a"], &["/a", "/b"]),
            ("m.socket", &["127.0.0.1:789"], &["127.0.0.1:5000"]),
        ]);
        let [lacks, moved] = &found[..] else { panic!("{found:?}") };
        assert_eq!((lacks.level, moved.level), (Level::Warn, Level::Bad));
        assert!(lacks.what.contains("does not listen at /b, as /etc/x.toml says"), "{}", lacks.what);
        assert!(
            lacks.mend.contains("  ListenStream=\n  ListenStream=/a\n  ListenStream=/b\n"),
            "{}",
            lacks.mend
        );
        assert!(moved.what.contains("m.socket listens at 127.0.0.1:789, which"), "{}", moved.what);
        assert!(moved.mend.contains("systemctl edit m.socket"), "{}", moved.mend);
    }
}
