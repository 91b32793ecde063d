//! Private images: a login of one's own opens them, and what is held opens them to nobody.

use crate::bench::{Node, Upstream, assert_free, release};
use crate::support::containerd::{Login, Version};
use crate::support::hub::{Account, HubConfig, Image, ImageSpec, Private};
use crate::{Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] =
    &[scenario("a private image is for those who may read it at its registry", a_private_image)];

pub(crate) const REPOSITORY: &str = "team/secret";
pub(crate) const SECRET: &str = "docker.io/team/secret:latest";
pub(crate) const ADA: Login = Login { name: "ada", password: "s3cret" };
pub(crate) const BOB: Login = Login { name: "bob", password: "hunter2" };

/// A registry that has an image which ada alone may read.
pub(crate) fn with_a_secret() -> (Upstream, Image) {
    let account = |login: Login| Account::free(login.name, login.password);
    let upstream = Upstream::start_as(HubConfig {
        accounts: vec![account(ADA), account(BOB)],
        private: vec![Private { repository: REPOSITORY.to_owned(), account: ADA.name.to_owned() }],
        ..HubConfig::default()
    });
    let image = Image::build(&ImageSpec { marker: "secret".to_owned(), ..ImageSpec::default() }).unwrap();
    upstream.hub.push(REPOSITORY, &image);
    upstream.hub.tag(REPOSITORY, "latest", &image.digest);
    (upstream, image)
}

fn a_private_image(version: Version) {
    let (upstream, image) = with_a_secret();
    let node = Node::on(version, upstream);
    let pull = |namespace, login| node.containerd.try_pull_as(namespace, SECRET, login).status.success();

    assert!(!pull("default", None), "before anyone has it");
    let cost = node.cost_of(|| assert!(pull("default", Some(ADA)), "its own account"));
    assert_eq!(cost.manifest_gets, 2, "{cost:?}");
    assert_eq!(node.containerd.run("default", SECRET), release(&image));

    let by_digest = format!("docker.io/{REPOSITORY}@{}", image.digest);
    let cost = node.cost_of(|| {
        for (namespace, login) in [("one", None), ("two", Some(BOB))] {
            assert!(!pull(namespace, login), "{login:?}");
            let output = node.containerd.try_pull_as(namespace, &by_digest, login);
            assert!(!output.status.success(), "by digest: {login:?}");
        }
        assert!(pull("three", Some(ADA)), "from another namespace");
    });
    assert_free(&cost);
    assert_eq!(node.containerd.run("three", SECRET), release(&image));
}
