//! What setup writes for systemd, and what becomes of the units of an earlier version.

use std::fs;
use std::path::Path;

use tidehold::node::journal::{Change, Journal};

use crate::files::{V1_7, plain};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("units are written where systemd runs, and go again", units),
    ("units of an earlier version become the present ones, with what their service runs", earlier_units),
];

fn units() {
    let node = plain();
    fs::create_dir_all(node.at("/run/systemd/system")).unwrap();
    for program in ["/opt/tidehold", "/tmp/tidehold", "/run/x/tidehold"] {
        node.program(program);
    }
    let before = node.all();
    node.setup(&[V1_7, &["--program", "/opt/tidehold"]].concat())
        .ended_well()
        .said(&["systemctl enable --now tidehold.socket"]);
    assert!(node.text("/etc/systemd/system/tidehold.service").contains("ExecStart=/opt/tidehold serve\n"));
    assert!(
        node.text("/etc/systemd/system/tidehold.socket")
            .contains("ListenStream=/run/tidehold/content.sock\n")
    );
    assert!(node.text("/etc/systemd/system/tidehold-mirror.socket").contains("ListenStream=127.0.0.1:789\n"));
    assert!(node.text("/etc/systemd/system/tidehold-web.socket").contains("ListenStream=127.0.0.1:7890\n"));
    node.setup(V1_7).ended_well().said(&["nothing to change"]);
    node.setup(&["--undo", "--yes"]).ended_well();
    assert_eq!(node.all(), before);

    for hidden in ["/tmp/tidehold", "/run/x/tidehold"] {
        node.setup(&[V1_7, &["--program", hidden]].concat())
            .failed_with(1, &[hidden, "/usr/local/bin/tidehold", "nothing was changed"]);
    }
    assert_eq!(node.all(), before);

    // The sockets go with the configuration, and what others wrote into the units stays.
    node.setup(V1_7).ended_well();
    node.write("/etc/tidehold/config.toml", "[web]\nlisten = \"127.0.0.1:1790\"\n");
    node.setup(V1_7).ended_well().said(&["1 file changed"]);
    assert!(node.text("/etc/systemd/system/tidehold-web.socket").contains("127.0.0.1:1790\n"));
    node.setup(&["--undo", "--yes"]).ended_well();
    fs::remove_dir_all(node.at("/etc/tidehold")).unwrap();
    assert_eq!(node.all(), before);

    node.write("/usr/lib/systemd/system/tidehold.service", "[Unit]\n");
    node.setup(V1_7).ended_well();
    assert!(!node.at("/etc/systemd/system/tidehold.service").exists(), "a package brought them");
}

fn earlier_units() {
    let [socket, web] = [include_str!("former/tidehold.socket"), include_str!("former/tidehold-web.socket")];
    let runs = "ExecStart=/opt/tidehold serve --config /srv/tidehold.toml\n";
    let service = include_str!("former/tidehold.service").replace("ExecStart=tidehold serve\n", runs);
    let all = socket.replace(":789\n", ":789\nListenStream=127.0.0.1:7890\n");
    let unit = |kind: &str| format!("/etc/systemd/system/tidehold{kind}");
    // The status page had no socket unit of its own at first.
    let with_web = vec![(".service", service.as_str()), (".socket", socket), ("-web.socket", web)];
    let without = vec![(".service", service.as_str()), (".socket", all.as_str())];
    for earlier in [with_web, without] {
        let node = plain();
        fs::create_dir_all(node.at("/run/systemd/system")).unwrap();
        let before = node.all();
        let units = earlier.into_iter().map(|(kind, text)| Change {
            path: unit(kind).into(),
            before: None,
            after: text.to_owned(),
            mode: None,
        });
        let units: Vec<Change> = units.collect();
        let mut journal = Journal::open(&node.at("/"), Path::new("/var/lib/tidehold-setup")).unwrap();
        journal.apply(&units, None).unwrap();
        drop(journal);

        let restarts = "systemctl stop tidehold.socket tidehold-mirror.socket tidehold-web.socket tidehold.service && \
                        systemctl enable --now tidehold.socket tidehold.service";
        node.setup(V1_7).ended_well().said(&[restarts]);
        assert!(!node.text(&unit(".socket")).contains("127.0.0.1:"), "{}", node.text(&unit(".socket")));
        assert!(node.text(&unit("-mirror.socket")).contains("ListenStream=127.0.0.1:789\n"));
        assert!(node.text(&unit("-web.socket")).contains("ListenStream=127.0.0.1:7890\n"));
        let service = node.text(&unit(".service"));
        for has in ["CAP_NET_BIND_SERVICE", "Sockets=tidehold.socket tidehold-mirror.socket", runs] {
            assert!(service.contains(has), "{has}: {service}");
        }
        node.setup(V1_7).ended_well().said(&["nothing to change"]);
        node.setup(&["--undo", "--yes"]).ended_well();
        assert_eq!(node.all(), before);
    }
}
