//! What a pull brings and costs, and that it works while the registry does not.

use crate::bench::Bench;
use crate::client::{Client, Extent, Programs};
use crate::images::assert_arrived;
use crate::support::hub::{Counters, Fault, REPOSITORY};
use crate::{Scenario, scenario};

const LATEST: &str = ":latest";

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("a cold pull counts the index and one manifest, a warm one nothing", cold_and_warm),
    Scenario {
        clients: Client::COPIERS,
        ..scenario("a pull of every platform counts each manifest once", every_platform)
    },
    scenario("a moved tag counts two more, and no layer that is held", moved_tag),
    scenario("what is held is pulled while the registry is gone", registry_gone),
    scenario("what is held is pulled while the registry answers 429", registry_limited),
    scenario("a tag whose new digest may not be pulled gives the old one", nothing_left),
];

fn cold_and_warm(programs: &Programs, client: Client) {
    let bench = Bench::start(programs, client);
    let cost = bench.cost_of(|| pull(&bench, client, LATEST, Extent::OwnPlatform));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    let blobs = 1 + bench.hub.first().own().layers.len();
    assert_eq!(cost.cdn_gets_by_digest.len(), blobs, "the config and each layer: {cost:?}");
    assert_eq!(cost.cdn_gets, blobs as u64, "each of them once: {cost:?}");
    assert_eq!(cost.cdn_authorizations, 0, "no credentials for the CDN: {cost:?}");

    let by_digest = format!("@{}", bench.hub.first().digest);
    for reference in [LATEST, LATEST, ":1.0", &by_digest] {
        let cost = bench.cost_of(|| pull(&bench, client, reference, Extent::OwnPlatform));
        assert_free(&cost);
        let asked = u64::from(reference.starts_with(':'));
        assert!(cost.manifest_heads >= asked, "a tag is confirmed: {cost:?}");
    }
}

fn every_platform(programs: &Programs, client: Client) {
    let bench = Bench::start(programs, client);
    let cost = bench.cost_of(|| pull(&bench, client, LATEST, Extent::EveryPlatform));
    let manifests = 1 + bench.hub.first().platforms.len() as u64;
    assert_eq!(cost.manifest_gets, manifests, "{cost:?}");
    assert!(cost.cdn_gets_by_digest.values().all(|times| *times == 1), "{cost:?}");
    assert_free(&bench.cost_of(|| pull(&bench, client, LATEST, Extent::EveryPlatform)));
}

fn moved_tag(programs: &Programs, client: Client) {
    let bench = Bench::start(programs, client);
    pull(&bench, client, LATEST, Extent::OwnPlatform);
    let (old, new) = (bench.hub.first().own(), bench.hub.second());
    bench.hub.tag(REPOSITORY, "latest", &new.digest);

    let machine = bench.machine();
    let cost = bench.cost_of(|| machine.pull(LATEST, Extent::OwnPlatform));
    assert_arrived(client, &machine, new, Extent::OwnPlatform);
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    let fresh = new.own().layers.iter().filter(|layer| !old.layers.contains(layer)).count();
    assert_eq!(cost.cdn_gets, 1 + fresh as u64, "the config and what is new: {cost:?}");
}

fn registry_gone(programs: &Programs, client: Client) {
    serves_under(Fault::Refuse, programs, client);
}

fn registry_limited(programs: &Programs, client: Client) {
    serves_under(Fault::PullLimit, programs, client);
}

fn serves_under(fault: Fault, programs: &Programs, client: Client) {
    let bench = Bench::start(programs, client);
    pull(&bench, client, LATEST, Extent::OwnPlatform);
    bench.break_everything(fault);
    let by_digest = format!("@{}", bench.hub.first().digest);
    for reference in [LATEST, &by_digest] {
        let cost = bench.cost_of(|| pull(&bench, client, reference, Extent::OwnPlatform));
        assert_free(&cost);
    }
    assert!(bench.daemon.log().contains("standing=\"stale\""), "{}", bench.daemon.log());
}

fn nothing_left(programs: &Programs, client: Client) {
    let bench = Bench::start(programs, client);
    pull(&bench, client, LATEST, Extent::OwnPlatform);
    bench.hub.tag(REPOSITORY, "latest", &bench.hub.second().digest);
    bench.hub.set_remaining(0);
    pull(&bench, client, LATEST, Extent::OwnPlatform);
    assert!(bench.daemon.log().contains("standing=\"stale\""), "{}", bench.daemon.log());
}

/// Pulls the first image onto a machine that has nothing, and looks at what came.
fn pull(bench: &Bench<'_>, client: Client, reference: &str, extent: Extent) {
    let machine = bench.machine();
    machine.pull(reference, extent);
    assert_arrived(client, &machine, bench.hub.first(), extent);
}

fn assert_free(cost: &Counters) {
    assert_eq!((cost.manifest_gets, cost.blob_gets, cost.cdn_gets), (0, 0, 0), "GETs and blobs: {cost:?}");
}
