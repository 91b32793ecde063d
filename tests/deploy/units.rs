//! The systemd units.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;
use tidehold::config::Config;

use crate::{Scenario, deploy, nothing, program, succeeded};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "systemd finds nothing wrong with the units",
        needs: systemd,
        run: systemd_finds_nothing_wrong,
    },
    Scenario {
        name: "the service may do little, by systemd's own figure",
        needs: systemd,
        run: it_may_do_little,
    },
    Scenario {
        name: "the sockets are those of the configuration",
        needs: nothing,
        run: sockets_are_the_configured,
    },
    Scenario {
        name: "the service may do what a layer asks for",
        needs: nothing,
        run: it_may_do_what_a_layer_asks_for,
    },
];

/// What systemd calls the exposure of a service, from 0.0 to 10.0: what may have a network and run as root ends at 9.6.
const MOST_EXPOSURE: f32 = 3.5;

fn systemd() -> Result<(), crate::Unbuilt> {
    program("systemd-analyze")
}

fn unit(name: &str) -> String {
    fs::read_to_string(deploy("systemd").join(name)).unwrap()
}

/// The values of a setting, in the order in which they are given.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(key, _)| *key == setting).map(|(_, value)| value).collect()
}

fn systemd_finds_nothing_wrong() {
    // A machine of its own, that has the program and the targets that the units name and nothing else.
    let machine = TempDir::new().unwrap();
    let programs = machine.path().join("usr/bin");
    let units = machine.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir_all(&units).unwrap();
    let tidehold = programs.join("tidehold");
    fs::write(&tidehold, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&tidehold, fs::Permissions::from_mode(0o755)).unwrap();
    for target in
        ["sysinit", "basic", "shutdown", "sockets", "network", "multi-user", "-.slice", "system.slice"]
    {
        let name = if target.ends_with(".slice") { target.to_owned() } else { format!("{target}.target") };
        fs::write(units.join(name), "[Unit]\nDefaultDependencies=no\n").unwrap();
    }
    let ours = ["tidehold.service", "tidehold.socket", "tidehold-mirror.socket", "tidehold-web.socket"];
    for name in ours {
        fs::copy(deploy("systemd").join(name), units.join(name)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg(format!("--root={}", machine.path().display()));
    verify.arg("--man=no").args(ours);
    let said = succeeded(&mut verify);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("tidehold")).collect();
    assert!(about_ours.is_empty(), "{about_ours:#?}");
}

fn it_may_do_little() {
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager"]).arg(deploy("systemd/tidehold.service"));
    let said = succeeded(&mut security);
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).expect("a figure");
    let figure = overall.split_whitespace().find_map(|word| word.parse::<f32>().ok()).expect("a figure");
    assert!(figure <= MOST_EXPOSURE, "{said}");
}

fn sockets_are_the_configured() {
    let socket = unit("tidehold.socket");
    let given: BTreeSet<&str> = values(&socket, "ListenStream").into_iter().collect();
    let config = Config::default();
    let (mirror, web) = (config.mirror.listen.to_string(), config.web.listen.to_string());
    let sockets = config.containerds.iter().map(|containerd| containerd.socket.to_str().unwrap());
    let configured: BTreeSet<&str> = sockets.chain([config.control.socket.to_str().unwrap()]).collect();
    // At one more nobody is answered, and at one less nobody waits while it restarts.
    assert_eq!(given, configured);
    assert_eq!(values(&socket, "SocketMode"), ["0600"]);
    // A unit has all its sockets or none: a port that somebody else has must not take containerd's content store away.
    for (name, address) in [("tidehold-mirror.socket", mirror), ("tidehold-web.socket", web)] {
        let unit = unit(name);
        assert_eq!(values(&unit, "ListenStream"), [address]);
        assert_eq!(values(&unit, "Service"), ["tidehold.service"]);
    }
    let service = unit("tidehold.service");
    assert_eq!(values(&service, "Sockets"), ["tidehold.socket tidehold-mirror.socket tidehold-web.socket"]);
    assert_eq!(values(&service, "Requires"), ["tidehold.socket"]);
    assert_eq!(values(&service, "Wants"), ["tidehold-mirror.socket tidehold-web.socket"]);
}

fn it_may_do_what_a_layer_asks_for() {
    let service = unit("tidehold.service");
    let may = values(&service, "CapabilityBoundingSet").join(" ");
    let wanted =
        ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN", "NET_BIND_SERVICE"];
    let wanted = wanted.map(|name| format!("CAP_{name}"));
    assert_eq!(may.split(' ').collect::<Vec<_>>(), wanted);
    // Each of these keeps a layer from being unpacked that has a device, a setuid file or a folder for all.
    for setting in ["PrivateDevices", "RestrictSUIDSGID", "PrivateUsers", "UMask"] {
        assert!(values(&service, setting).is_empty(), "{setting}");
    }
    assert!(values(&service, "DeviceAllow").contains(&"char-* m"), "device files cannot be made");
    assert_eq!(values(&service, "RuntimeDirectoryPreserve"), ["yes"], "the sockets go with the daemon");
}
