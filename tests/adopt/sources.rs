//! Where blobs came from, as the daemon is told and the command asks. What containerds tell, `tests/node/adopt.rs` sees.

use tidehold::proto::v1;
use tidehold::proto::v1::adoption_client::AdoptionClient;
use tonic::{Code, Status};

use crate::node::Node;
use crate::support::hub::digest_of;

/// Tells the daemon that these came from a repository.
#[tokio::main(flavor = "current_thread")]
async fn tell(node: &Node, repository: &str, digests: &[String]) -> Result<u64, Status> {
    let channel = containerd_client::connect(node.daemon.control()).await.unwrap();
    let request = v1::NoteSourceRequest {
        containerd: String::new(),
        repository: repository.to_owned(),
        digests: digests.to_vec(),
    };
    AdoptionClient::new(channel).note_source(request).await.map(|answer| answer.into_inner().noted)
}

#[test]
fn it_is_noted_once_of_what_the_containerd_relies_on() {
    let node = Node::start(&[b"one", b"two"]);
    let digests = [digest_of(b"one"), digest_of(b"two"), digest_of(b"never seen")];
    let tell = |repository| tell(&node, repository, &digests).unwrap();
    assert_eq!(tell("docker.io/library/nginx"), 0, "nothing is relied on yet");
    node.adopt(&[]).done();
    assert_eq!(tell("docker.io/library/nginx"), 2);
    assert_eq!(tell("docker.io/library/nginx"), 0);
    assert_eq!(tell("docker.io/team/nginx"), 0, "another repository of that registry");
    assert_eq!(tell("quay.io/team/nginx"), 0, "another registry");
}

#[test]
fn what_is_no_repository_or_no_digest_is_refused() {
    let node = Node::start(&[b"one"]);
    node.adopt(&[]).done();
    let digests = [digest_of(b"one")];
    for repository in ["", "docker.io", "docker.io/", "docker.io/../x", "a b/c", "docker.io/library/nginx:1"]
    {
        assert_eq!(
            tell(&node, repository, &digests).unwrap_err().code(),
            Code::InvalidArgument,
            "{repository}"
        );
    }
    let refused = |digests: &[String]| tell(&node, "docker.io/a/b", digests).unwrap_err().code();
    assert_eq!(refused(&["sha256:short".to_owned()]), Code::InvalidArgument);
    let many: Vec<String> = (0..4097).map(|number: u32| digest_of(&number.to_be_bytes())).collect();
    assert_eq!(refused(&many), Code::InvalidArgument);
}

#[test]
fn where_the_containerd_does_not_answer_all_is_taken_over_and_what_is_missing_is_said() {
    let node = Node::start(&[b"one"]);
    for number in 0..2 {
        let ran = node.adopt(&[]).done();
        ran.said(&[
            "where they came from is not known",
            "nobody answers there",
            "again while containerd runs",
        ]);
        assert_eq!(node.relied_on().len(), 1, "{number}");
    }
    assert!(node.word().is_some());
    let ran = node.adopt(&["--json"]).done();
    assert_eq!(ran.event("summary")["sources"]["noted"], 0);
    assert!(ran.event("summary")["sources"]["unanswered"].as_str().unwrap().contains("containerd.sock"));
}
