//! Where a containerd looks for the hosts of registries: is there one folder that all its parts read?

use std::path::{Path, PathBuf};

use tidehold::node::containerd::{File, HOSTS, Settings, Version, registry_plugin};

use super::finding::{Finding, bad, ok, warn};
use super::lines::Place;

/// What there is to judge by.
pub(super) struct Facts<'a> {
    pub(super) version: Option<Version>,
    pub(super) files: &'a [File],
    pub(super) settings: &'a Settings,
    /// The main file, and what restarts it.
    pub(super) place: Place<'a>,
    /// Drop-in files that are there and that it does not import.
    pub(super) unread: &'a [PathBuf],
    /// Whether it serves Kubernetes, which alone reads these.
    pub(super) cri: bool,
}

/// What its configuration says of registries.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(drop_ins(facts));
    if !facts.cri {
        return findings;
    }
    match inline(facts) {
        Some(finding) => findings.push(finding),
        None => findings.push(folder(facts)),
    }
    findings
}

impl Facts<'_> {
    fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.version.is_some_and(|version| version >= Version { major, minor })
    }

    /// The one folder to be written.
    fn wanted(&self) -> String {
        let folders = self.settings.hosts_folders();
        let unread = self.settings.hosts_unread.first().map(|(_, path)| path.as_str());
        let first = folders.first().copied().or_else(|| unread?.split(':').next());
        first.unwrap_or(HOSTS).to_owned()
    }

    fn mend(&self) -> String {
        self.mend_in(self.place)
    }

    fn mend_in(&self, place: Place<'_>) -> String {
        // Without a version nothing of it would be read: it comes with the line.
        let plugin = registry_plugin(self.settings.file_version.max(2));
        place.put(&format!("  [plugins.{plugin:?}.registry]\n    config_path = \"{}\"", self.wanted()))
    }

    /// The file whose table took the place of an earlier one with a `config_path`.
    fn replaced_by(&self) -> Option<(&Path, String)> {
        let mut had = None;
        for upto in 1..=self.files.len() {
            let settings = Settings::read(self.files.get(..upto)?, self.version).ok()?;
            match (settings.hosts.is_empty(), had.take()) {
                (false, _) => had = Some(settings.hosts),
                (true, Some(hosts)) => return Some((&self.files.get(upto - 1)?.path, hosts)),
                (true, None) => {}
            }
        }
        None
    }
}

/// Settings of registries in containerd's own configuration, which rule out a folder of hosts.
fn inline(facts: &Facts<'_>) -> Option<Finding> {
    let settings = facts.settings;
    let is_2 = facts.version.is_some_and(Version::is_2);
    let mut tables = Vec::new();
    tables.extend(settings.mirrors.iter().map(|name| format!("registry.mirrors.{name:?}")));
    if !is_2 {
        tables.extend(settings.tls.iter().map(|name| format!("registry.configs.{name:?}.tls")));
    }
    let first = tables.first()?;
    // From 2.2 on there is a config_path by default.
    let what = if settings.hosts.is_empty() && !facts.is_at_least(2, 2) {
        format!("{first} is the old way to name mirrors, and with it no hosts.toml is read")
    } else {
        format!("{first} stands beside a config_path: its CRI plugin refuses to start with both")
    };
    Some(bad(
        "registries.inline",
        what,
        format!(
            "take out of {}: {}\n(whom they name goes into {}/<registry>/hosts.toml), and {}",
            facts.place.config.display(),
            tables.join(", "),
            facts.wanted(),
            facts.mend()
        ),
    ))
}

fn folder(facts: &Facts<'_>) -> Finding {
    let settings = facts.settings;
    let folders = settings.hosts_folders();
    match folders.as_slice() {
        [one] => ok("registries.folder", format!("CRI reads the hosts of registries in {one}")),
        [] => empty(facts),
        [_, _, ..] if facts.is_at_least(2, 1) => bad(
            "registries.two-folders",
            format!(
                "config_path is {:?}: from 2.1 on CRI pulls by the transfer service, which takes that for one folder",
                settings.hosts
            ),
            facts.mend(),
        ),
        [_, _, ..] => ok(
            "registries.folder",
            format!(
                "CRI reads the hosts of registries in {}; from containerd 2.1 on it would take a single one only",
                folders.join(" and ")
            ),
        ),
    }
}

fn empty(facts: &Facts<'_>) -> Finding {
    let settings = facts.settings;
    if let Some((file, hosts)) = facts.replaced_by() {
        return bad(
            "registries.replaced",
            format!(
                "config_path = {hosts:?} is lost: before 2.0 {} replaces all that stands under that plugin",
                file.display()
            ),
            format!(
                "repeat it there, or move all into one file: {}",
                facts.mend_in(Place { config: file, ..facts.place })
            ),
        );
    }
    if let Some((plugin, path)) = settings.hosts_unread.first() {
        let why = if settings.file_version <= 1 {
            "without version = 2 at its top".to_owned()
        } else {
            let version =
                facts.version.map_or_else(String::new, |version| format!("containerd {version} and "));
            format!("with {version}a file of version {}", settings.file_version)
        };
        return bad(
            "registries.section",
            format!("config_path = {path:?} stands under [plugins.{plugin:?}], where it is not read {why}"),
            facts.mend(),
        );
    }
    if facts.is_at_least(2, 2) {
        return bad(
            "registries.two-folders",
            "config_path is not set: what 2.2 takes then are two folders, which the transfer service takes for one",
            facts.mend(),
        );
    }
    bad("registries.folder", "config_path is not set, so CRI reads no hosts.toml at all", facts.mend())
}

fn drop_ins(facts: &Facts<'_>) -> Option<Finding> {
    let first = facts.unread.first()?;
    let folder = first.parent().unwrap_or(Path::new("/")).display();
    Some(warn(
        "containerd.drop-in",
        format!("{} is there, and containerd does not read it", first.display()),
        format!(
            "put at the top of {}, and restart it ({}):\n  imports = [\"{folder}/*.toml\"]",
            facts.place.config.display(),
            facts.place.restart
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;
    use crate::cli::doctor::lines::Names;

    const CRI: &str = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n";

    fn judged(version: &str, texts: &[&str]) -> (Level, &'static str, String) {
        let version = Version::parse(version);
        let file = |(index, text): (usize, &&str)| File {
            path: format!("/{index}.toml").into(),
            text: (*text).into(),
        };
        let files: Vec<_> = texts.iter().enumerate().map(file).collect();
        let settings = Settings::read(&files, version).unwrap();
        let names = Names::of(&files, settings.file_version);
        let place = Place { config: Path::new("/0.toml"), restart: "systemctl restart containerd", names };
        let facts = Facts { version, files: &files, settings: &settings, place, unread: &[], cri: true };
        let mut found = judge(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        let found = found.remove(0);
        (found.level, found.name, format!("{}\n{}", found.what, found.mend))
    }

    #[test]
    fn each_version_reads_its_own_section() {
        let one = format!("version = 2\n{CRI}config_path = \"/a\"\n");
        let unversioned = format!("{CRI}config_path = \"/a\"\n");
        let v3 = format!("version = 3\n{CRI}config_path = \"/a\"\n");
        let new = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/a\"\n";
        for version in ["1.6.20", "1.7.24", "2.1.9", "2.3.0"] {
            assert_eq!(judged(version, &[&one]).0, Level::Ok, "{version}");
            let (level, name, told) = judged(version, &[&unversioned]);
            assert_eq!((level, name), (Level::Bad, "registries.section"), "{version}");
            assert!(told.contains("version = 2 "), "{told}");
        }
        for version in ["2.0.0", "2.2.1"] {
            let (level, name, told) = judged(version, &[&v3]);
            assert_eq!((level, name), (Level::Bad, "registries.section"), "{version}");
            assert!(
                told.contains("[plugins.\"io.containerd.cri.v1.images\".registry]\n    config_path = \"/a\"")
            );
            assert_eq!(judged(version, &[new]).0, Level::Ok);
        }
    }

    #[test]
    fn two_folders_are_one_too_many_from_2_1_on() {
        let two = format!("version = 2\n{CRI}config_path = \"/a:/b\"\n");
        for (version, level) in
            [("1.7.1", Level::Ok), ("2.0.4", Level::Ok), ("2.1.0", Level::Bad), ("2.2.1", Level::Bad)]
        {
            assert_eq!(judged(version, &[&two]).0, level, "{version}");
        }
        assert_eq!(judged("2.2.1", &["version = 2\n"]).1, "registries.two-folders");
        assert_eq!(judged("2.1.1", &["version = 2\n"]).1, "registries.folder");
        assert_eq!(judged("1.7.1", &[]).1, "registries.folder");
    }

    #[test]
    fn the_old_tables_rule_a_folder_out() {
        let mirrors = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n";
        let both = format!("{mirrors}{CRI}config_path = \"/a\"\n");
        for version in ["1.6.1", "2.2.1"] {
            assert_eq!(judged(version, &[&both]).1, "registries.inline");
            let (.., told) = judged(version, &[mirrors]);
            assert_eq!(told.contains("refuses to start"), version == "2.2.1", "{told}");
        }
        let tls = format!(
            "version = 2\n{CRI}config_path = \"/a\"\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"x\".tls]\n"
        );
        assert_eq!(judged("1.7.1", &[&tls]).1, "registries.inline");
        assert_eq!(judged("2.0.1", &[&tls]).0, Level::Ok);
    }

    #[test]
    fn the_file_that_took_the_folder_away_is_named() {
        let main = format!("version = 2\n{CRI}config_path = \"/a\"\n");
        let more = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n";
        let (level, name, told) = judged("1.7.1", &[&main, more]);
        assert_eq!((level, name), (Level::Bad, "registries.replaced"));
        assert!(told.contains("/1.toml replaces") && told.contains("put into /1.toml"), "{told}");
        assert_eq!(judged("2.0.1", &[&main, more]).0, Level::Ok);
    }
}
