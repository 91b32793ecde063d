//! A private image is for those who can log in at its registry, and for them the mirror is no obstacle: it passes the
//! registry's challenge on, and they get a token where it says.

use crate::bench::Bench;
use crate::client::{Client, Extent, Machine, Programs};
use crate::images::assert_arrived;
use crate::support::hub::{Account, HubConfig, Image, ImageSpec, Private, Rootfs};
use crate::{Scenario, scenario};

const SECRET: &str = "team/secret:latest";

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    clients: Client::ANSWER_CHALLENGES,
    ..scenario("a private image is had by who logs in, and held for nobody else", own_login)
}];

fn own_login(programs: &Programs, client: Client) {
    let private = Private { repository: "team/secret".to_owned(), account: "ada".to_owned() };
    let registry = HubConfig {
        accounts: vec![Account::free("ada", "s3cret"), Account::free("eve", "sn00p")],
        private: vec![private],
        ..HubConfig::default()
    };
    let bench = Bench::before(programs, client, registry);
    let image = push_secret(&bench);

    let stranger = bench.machine();
    assert_refused(&stranger);

    for times in [2, 0] {
        let machine = bench.machine();
        machine.log_in("ada", "s3cret");
        let cost = bench.cost_of(|| machine.pull_from(SECRET, Extent::OwnPlatform));
        assert_arrived(client, &machine, &image, Extent::OwnPlatform);
        assert_eq!((cost.manifest_gets, cost.cdn_authorizations), (times, 0), "{cost:?}");
    }

    assert_refused(&stranger);
    for (name, password) in [("eve", "sn00p"), ("ada", "guessed")] {
        let machine = bench.machine();
        machine.log_in(name, password);
        assert_refused(&machine);
    }
}

#[track_caller]
fn assert_refused(machine: &Machine<'_>) {
    let output = machine.try_pull(SECRET, Extent::OwnPlatform);
    assert!(!output.status.success(), "a private image was given away");
    let arrived = std::fs::read_dir(machine.image().join("blobs/sha256")).into_iter().flatten().count();
    assert_eq!(arrived, 0, "a part of a private image was given away");
}

fn push_secret(bench: &Bench<'_>) -> Image {
    let spec = ImageSpec { marker: "secret".to_owned(), rootfs: Rootfs::Marker, ..ImageSpec::default() };
    let image = Image::build(&spec).unwrap();
    bench.hub.push("team/secret", &image);
    bench.hub.tag("team/secret", "latest", &image.digest);
    image
}
