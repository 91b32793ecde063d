//! What containerd relies on in its content store, beyond what its own tests of one ask (`tests/conformance`): a
//! real client on a private socket, and one hold behind it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::path::PathBuf;
use std::time::Duration;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use prost::Message as _;
use prost_types::{FieldMask, Timestamp};
use sha2::Digest as _;
use tempfile::TempDir;
use tidehold::clock;
use tidehold::oci::Digest;
use tidehold::resolve::{Access, Ages, Fetch, Freshness, Resolver};
use tidehold::serve::content::{self, Calls, ContentService};
use tidehold::store::{Hold, Owner};
use tidehold::upstream::{Settings, Timeouts, Upstreams};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const STAT: i32 = api::WriteAction::Stat as i32;
const WRITE: i32 = api::WriteAction::Write as i32;
const COMMIT: i32 = api::WriteAction::Commit as i32;

const ABSENT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const MALFORMED: [&str; 4] = ["", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "../../etc/passwd"];

#[tokio::test]
async fn a_malformed_digest_is_an_invalid_argument_everywhere() {
    let node = Node::start().await;
    for digest in MALFORMED {
        let digest = digest.to_owned();
        let info = api::Info { digest: digest.clone(), ..Default::default() };
        let update = api::UpdateRequest { info: Some(info), update_mask: None };
        let mut client = node.client();
        let refused = [
            client.info(api::InfoRequest { digest: digest.clone() }).await.map(drop),
            client.update(update).await.map(drop),
            client.delete(api::DeleteContentRequest { digest: digest.clone() }).await.map(drop),
            read(&mut client, &digest, 0, 0).await.map(drop),
        ];
        for refused in refused {
            assert_eq!(code(refused), Code::InvalidArgument, "{digest:?}");
        }
    }
    let update = api::UpdateRequest { info: None, update_mask: None };
    assert_eq!(code(node.client().update(update).await), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_but_its_delete_and_its_abort_are_done() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = ABSENT.to_owned();
    assert_eq!(code(info(&mut client, ABSENT).await), Code::NotFound);
    assert_eq!(code(read(&mut client, ABSENT, 0, 0).await), Code::NotFound);
    assert_eq!(code(update(&mut client, ABSENT, &[], &[]).await), Code::NotFound);
    assert_eq!(code(status(&mut client, "nothing").await), Code::NotFound);
    // An error here would end containerd's garbage collection, or keep its own record of the ingest for good.
    client.delete(api::DeleteContentRequest { digest }).await.unwrap();
    client.abort(api::AbortRequest { r#ref: "nothing".into() }).await.unwrap();
}

#[tokio::test]
async fn a_blob_is_listed_from_the_moment_that_info_told_of_it_until_it_is_deleted() {
    let node = Node::start_for(&["one", "two"]).await;
    let (mut one, mut two) = (node.client_of("one"), node.client_of("two"));
    let digest = node.cache(b"tide");
    assert!(listed(&mut one, &[]).await.is_empty());
    // A read alone is no word that we have it.
    assert_eq!(read(&mut one, &digest, 0, 0).await.unwrap(), b"tide");
    assert!(listed(&mut one, &[]).await.is_empty());

    for client in [&mut one, &mut two] {
        let told = info(client, &digest).await.unwrap();
        assert_eq!((told.size, told.labels.len()), (4, 0));
        assert_eq!(listed(client, &[]).await, [digest.as_str()]);
    }
    delete(&mut one, &digest).await;
    delete(&mut one, &digest).await;
    assert!(listed(&mut one, &[]).await.is_empty());
    assert_eq!(listed(&mut two, &[]).await, [digest.as_str()]);
    assert_eq!(read(&mut two, &digest, 0, 0).await.unwrap(), b"tide");
}

#[tokio::test]
async fn a_read_gives_the_range_that_was_asked_for_clamped_to_the_blob() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(b"0123456789");
    for (offset, size, expected) in [
        (0, 0, "0123456789"),
        (0, -1, "0123456789"),
        (4, 0, "456789"),
        (4, 3, "456"),
        (4, 100, "456789"),
        (9, i64::MAX, "9"),
        (10, 0, ""),
        (10, 5, ""),
        (-3, 2, "01"),
    ] {
        let bytes = read(&mut client, &digest, offset, size).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), expected, "{size} bytes at {offset}");
    }
    for offset in [11, i64::MAX] {
        assert_eq!(code(read(&mut client, &digest, offset, 1).await), Code::OutOfRange);
    }
}

#[tokio::test]
async fn a_long_read_comes_in_messages_that_say_where_they_belong() {
    let node = Node::start().await;
    let bytes = pattern(3_500_000);
    let digest = node.cache(&bytes);
    let request = api::ReadContentRequest { digest, offset: 7, size: 0 };
    let mut messages = node.client().read(request).await.unwrap().into_inner();
    let mut at = 7;
    while let Some(message) = messages.message().await.unwrap() {
        assert_eq!(usize::try_from(message.offset).unwrap(), at);
        assert_eq!(message.data[..], bytes[at..at + message.data.len()]);
        at += message.data.len();
    }
    assert_eq!(at, bytes.len());
}

/// containerd's client breaks every read off as soon as its buffer is full.
/// A blob that was read before is answered another way while it is in memory: by the same bytes.
#[tokio::test]
async fn a_read_gives_the_same_bytes_at_any_offset_and_length_in_memory_or_not() {
    let node = Node::start().await;
    let bytes = pattern(400_001);
    let digest = node.cache(&bytes);
    let mut client = node.client();
    let file = std::fs::File::open(node.file_of(&digest)).unwrap();
    for turn in ["first", "in memory", "from the disk"] {
        for offset in [0, 1, 127, 128, 16_383, 32_768, 131_071, 399_999, 400_000, 400_001] {
            for length in [1, 31, 16_384, 32_768, 131_072, 131_073, 400_001, 0] {
                if turn == "from the disk" {
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                }
                let (at, size) = (i64::try_from(offset).unwrap(), i64::try_from(length).unwrap());
                let expected = &bytes[offset..];
                let expected = &expected[..expected.len().min(if length == 0 { usize::MAX } else { length })];
                let read = read(&mut client, &digest, at, size).await.unwrap();
                assert!(read == expected, "{turn}: {length} bytes at {offset}");
            }
        }
        assert_eq!(code(read(&mut client, &digest, 400_002, 1).await), Code::OutOfRange, "{turn}");
        assert!(read(&mut client, &digest, -5, 2).await.unwrap() == bytes[..2], "{turn}");
    }
}

#[tokio::test]
async fn many_small_reads_share_a_connection_and_some_are_broken_off() {
    let node = Node::start().await;
    let bytes = pattern(2_000_000);
    let digest = node.cache(&bytes);
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..8 {
        let (mut client, digest, bytes) = (node.client(), digest.clone(), bytes.clone());
        readers.spawn(async move {
            for (turn, piece) in bytes.chunks(32 << 10).enumerate() {
                let offset = i64::try_from(turn * (32 << 10)).unwrap();
                if (turn + reader) % 5 == 0 {
                    // Gone before the answer, as far as the server knows.
                    let request = api::ReadContentRequest { digest: digest.clone(), offset, size: 32 << 10 };
                    drop(client.read(request).await.unwrap());
                }
                assert!(read(&mut client, &digest, offset, 32 << 10).await.unwrap() == piece);
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}

/// A client may send the head of a call and its message apart, and the message in pieces.
#[tokio::test]
async fn a_read_whose_message_comes_in_pieces_is_answered_like_any_other() {
    let node = Node::start().await;
    let digest = node.cache(b"0123456789");
    read(&mut node.client(), &digest, 0, 0).await.unwrap();
    let request = api::ReadContentRequest { digest, offset: 2, size: 3 };
    let mut message = vec![0, 0, 0, 0, u8::try_from(request.encoded_len()).unwrap()];
    request.encode(&mut message).unwrap();

    let socket = UnixStream::connect(node.folder.path().join("system.sock")).await.unwrap();
    let (mut calls, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    for pieces in [1, 2, 7, message.len()] {
        let head = http::Request::post("http://localhost/containerd.services.content.v1.Content/Read");
        let head = head.header("content-type", "application/grpc").header("te", "trailers");
        poll_fn(|context| calls.poll_ready(context)).await.unwrap();
        let (answer, mut body) = calls.send_request(head.body(()).unwrap(), false).unwrap();
        // So that the head leaves alone.
        tokio::task::yield_now().await;
        let mut left = &message[..];
        for piece in message.chunks(message.len().div_ceil(pieces)) {
            left = &left[piece.len()..];
            body.send_data(piece.to_vec().into(), left.is_empty()).unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let mut bytes = Vec::new();
        while let Some(piece) = answer.body_mut().data().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let end = answer.body_mut().trailers().await.unwrap().unwrap();
        assert_eq!(end["grpc-status"], "0");
        answers.push(bytes);
    }
    for answer in &answers {
        let answer = api::ReadContentResponse::decode(&answer[5..]).unwrap();
        assert_eq!((answer.offset, &answer.data[..]), (2, &b"234"[..]));
    }
    assert_eq!(answers.len(), 4);
    assert!(calls.current_max_send_streams() < 20_000, "whoever reads no answers has no end of them waiting");
    drop(calls);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_blob_whose_file_was_taken_away_under_its_reader_is_not_served_from_memory() {
    let node = Node::start().await;
    let digest = node.cache(b"tide");
    let mut client = node.client();
    for _ in 0..2 {
        assert_eq!(read(&mut client, &digest, 0, 4).await.unwrap(), b"tide");
    }
    std::fs::remove_file(node.file_of(&digest)).unwrap();
    assert_eq!(code(read(&mut client, &digest, 0, 4).await), Code::NotFound);
    node.cache(b"tide");
    assert_eq!(read(&mut client, &digest, 0, 4).await.unwrap(), b"tide");
}

#[tokio::test]
async fn calls_that_are_broken_off_leave_the_connection_good() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(&pattern(3_000_000));
    for _ in 0..200 {
        let request = api::ReadContentRequest { digest: digest.clone(), offset: 0, size: 0 };
        let mut messages = client.read(request).await.unwrap().into_inner();
        assert!(messages.message().await.unwrap().is_some());
    }
    // Many at once, as when pulls are cancelled: broken off before, while and after the server first looks.
    for turns in 0..20 {
        // The test's own client gives a connection up after a thousand of these.
        let mut client = node.connection().await;
        let begin = || {
            let (mut client, digest) = (client.clone(), digest.clone());
            tokio::spawn(async move { info(&mut client, &digest).await })
        };
        let running: Vec<_> = (0..200).map(|_| begin()).collect();
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        running.iter().for_each(JoinHandle::abort);
        info(&mut client, &digest).await.unwrap_or_else(|error| panic!("after {turns} turns: {error:?}"));
    }
}

#[tokio::test]
async fn a_connection_has_room_for_as_many_writers_as_containerd_opens() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(b"tide");
    let mut writers = Vec::new();
    for number in 0..300 {
        let mut writer = Writer::open(&mut client).await;
        writer.ask(stat(&format!("layer-{number}"))).await.unwrap();
        writers.push(writer);
    }
    assert!(info(&mut client, &digest).await.is_ok());
    assert_eq!(statuses(&mut client, &[]).await.len(), 300);
}

#[tokio::test]
async fn a_list_comes_by_the_hundred_and_bears_deletes_while_it_is_open() {
    let node = Node::start().await;
    let mut client = node.client();
    let mut expected = Vec::new();
    for number in 0..250 {
        let digest = node.cache(format!("blob {number}").as_bytes());
        info(&mut client, &digest).await.unwrap();
        expected.push(digest);
    }
    expected.sort();

    let mut pages = client.clone().list(api::ListContentRequest::default()).await.unwrap().into_inner();
    let (mut sizes, mut seen) = (Vec::new(), Vec::new());
    while let Some(page) = pages.message().await.unwrap() {
        sizes.push(page.info.len());
        for blob in page.info {
            delete(&mut client, &blob.digest).await;
            seen.push(blob.digest);
        }
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(seen, expected);
    assert!(listed(&mut client, &[]).await.is_empty());
}

#[tokio::test]
async fn a_list_is_filtered_by_digest_and_labels() {
    let node = Node::start().await;
    let mut client = node.client();
    let [layer, config, bare] = ["layer", "config", "bare"].map(|text| node.cache(text.as_bytes()));
    info(&mut client, &bare).await.unwrap();
    update(&mut client, &layer, &[("kind", "layer"), ("io.test/source", "hub")], &[]).await.unwrap();
    update(&mut client, &config, &[("kind", "config"), ("io.test/source", "hub")], &[]).await.unwrap();

    let by_digest = format!("digest=={bare}");
    for (filters, expected) in [
        (vec![], vec![&layer, &config, &bare]),
        (vec!["labels.kind"], vec![&layer, &config]),
        (vec!["labels.kind==layer"], vec![&layer]),
        (vec!["labels.kind!=layer"], vec![&config, &bare]),
        (vec!["labels.kind~=^con"], vec![&config]),
        (vec![r#"labels."io.test/source"==hub,labels.kind==config"#], vec![&config]),
        (vec!["labels.kind==layer", by_digest.as_str()], vec![&layer, &bare]),
        (vec!["labels.kind==none"], vec![]),
    ] {
        let mut expected: Vec<_> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(listed(&mut client, &filters).await, expected, "{filters:?}");
    }
    let filters = vec!["labels.kind==".to_owned(), "((".to_owned()];
    assert_eq!(code(client.list(api::ListContentRequest { filters }).await), Code::InvalidArgument);
}

#[tokio::test]
async fn an_update_replaces_merges_or_removes_labels_as_its_mask_says() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(b"tide");
    let start = [("a", "1"), ("b", "2")];
    for (labels, mask, expected) in [
        (vec![("c", "3")], vec![], vec![("c", "3")]),
        (vec![("c", "3")], vec!["labels"], vec![("c", "3")]),
        (vec![("c", "3")], vec!["labels.a", "labels"], vec![("c", "3")]),
        (vec![("a", "9"), ("b", "9")], vec!["labels.a"], vec![("a", "9"), ("b", "2")]),
        (vec![("c.d/e", "3")], vec!["labels.c.d/e"], vec![("a", "1"), ("b", "2"), ("c.d/e", "3")]),
        (vec![("a", "")], vec!["labels.a"], vec![("b", "2")]),
        (vec![], vec!["labels.a", "labels.b"], vec![]),
        (vec![], vec![], vec![]),
    ] {
        update(&mut client, &digest, &start, &[]).await.unwrap();
        let before = info(&mut client, &digest).await.unwrap();
        let updated = update(&mut client, &digest, &labels, &mask).await.unwrap();
        assert_eq!(updated.labels, owned(&expected), "{labels:?} by {mask:?}");
        assert_eq!(info(&mut client, &digest).await.unwrap(), updated);
        assert_eq!(updated.created_at, before.created_at);
        assert!(nanoseconds(updated.updated_at) > nanoseconds(before.updated_at));
    }
    update(&mut client, &digest, &start, &[]).await.unwrap();
    for mask in [vec!["size"], vec!["labels", "size"], vec!["labels.a", "digest"], vec!["labelsa"]] {
        let refused = update(&mut client, &digest, &[("a", "9")], &mask).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{mask:?}");
    }
    assert_eq!(info(&mut client, &digest).await.unwrap().labels, owned(&start));
}

#[tokio::test]
async fn times_labels_and_ingests_are_after_a_restart_what_they_were() {
    let mut node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(b"tide");
    let blob = update(&mut client, &digest, &[("kind", "layer")], &[]).await.unwrap();
    assert_ne!(blob.created_at.unwrap().nanos % 1_000_000, 0, "not cut to milliseconds");
    let mut writer = Writer::open(&mut client).await;
    writer.ask(total(9, stat("layer"))).await.unwrap();
    writer.ask(write(0, b"half")).await.unwrap();
    writer.close().await;
    let ingest = status(&mut client, "layer").await.unwrap();
    drop(client);

    node = node.restart().await;
    let mut client = node.client();
    assert_eq!(listed(&mut client, &[]).await, [digest.as_str()]);
    assert_eq!(info(&mut client, &digest).await.unwrap(), blob);
    let after = status(&mut client, "layer").await.unwrap();
    assert_eq!((after.started_at, after.offset, after.total), (ingest.started_at, 4, 9));
    // The last write's time is the file's, or the ingest's own where the file's was cut to a tick of the system's.
    let of_file = Timestamp::from(node.only_ingest().metadata().unwrap().modified().unwrap());
    let own = nanoseconds(ingest.started_at);
    assert_eq!(nanoseconds(after.updated_at), nanoseconds(Some(of_file)).max(own));

    let mut writer = Writer::open(&mut client).await;
    let resumed = writer.ask(stat("layer")).await.unwrap();
    assert_eq!((resumed.offset, resumed.total, resumed.digest), (4, 9, sha256(b"half")));
    writer.ask(write(4, b"-ways")).await.unwrap();
    let committed = writer.ask(commit(9, 9, &sha256(b"half-ways"))).await.unwrap();
    assert_eq!((committed.offset, committed.digest), (9, sha256(b"half-ways")));
}

#[tokio::test]
async fn every_answer_of_a_write_says_how_far_it_is_and_its_digest_so_far() {
    let node = Node::start().await;
    let mut client = node.client();
    let mut writer = Writer::open(&mut client).await;
    let begun = writer.ask(total(8, stat("layer"))).await.unwrap();
    assert_eq!((begun.action, begun.offset, begun.total, begun.digest), (STAT, 0, 8, sha256(b"")));
    let half = writer.ask(write(0, b"tide")).await.unwrap();
    assert_eq!((half.action, half.offset, half.total, half.digest), (WRITE, 4, 8, sha256(b"tide")));
    assert_eq!(half.started_at, begun.started_at);
    assert!(nanoseconds(half.updated_at) > nanoseconds(begun.updated_at));

    // The same to whoever asks meanwhile, for the progress that is shown of a pull.
    let shown = status(&mut client, "layer").await.unwrap();
    assert_eq!((shown.offset, shown.total, shown.r#ref.as_str()), (4, 8, "layer"));
    assert_eq!((shown.started_at, shown.updated_at), (half.started_at, half.updated_at));
    assert_eq!(statuses(&mut client, &["ref==layer"]).await, [shown]);
    assert!(statuses(&mut client, &["ref==other"]).await.is_empty());

    let whole = writer.ask(write(4, b"hold")).await.unwrap();
    assert_eq!((whole.offset, whole.digest), (8, sha256(b"tidehold")));
    let stood = writer.ask(stat("")).await.unwrap();
    assert_eq!((stood.offset, stood.total, stood.digest), (8, 8, sha256(b"tidehold")));
    let committed = writer.ask(commit(8, 8, &sha256(b"tidehold"))).await.unwrap();
    assert_eq!((committed.action, committed.offset), (COMMIT, 8));
    assert_eq!(committed.digest, sha256(b"tidehold"));
    writer.ended().await;
    assert!(statuses(&mut client, &[]).await.is_empty());
    assert_eq!(listed(&mut client, &[]).await, [sha256(b"tidehold")]);
}

#[tokio::test]
async fn the_first_request_of_a_write_names_a_ref() {
    let node = Node::start().await;
    let mut client = node.client();
    for request in [stat(""), write(0, b"tide"), commit(0, 4, &sha256(b"tide"))] {
        let refused = Writer::open(&mut client).await.ask(request).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    assert!(statuses(&mut client, &[]).await.is_empty());
}

#[tokio::test]
async fn a_write_that_makes_no_sense_is_refused_and_the_bytes_before_it_stay() {
    let node = Node::start().await;
    let mut client = node.client();
    let unknown = api::WriteContentRequest { action: 17, ..Default::default() };
    let malformed = api::WriteContentRequest { expected: "sha256:12".into(), ..stat("") };
    for (request, refusal) in [
        (write(5, b"!"), Code::OutOfRange),
        (write(3, b"!"), Code::OutOfRange),
        (write(i64::MAX, b"!"), Code::OutOfRange),
        (write(-1, b"!"), Code::OutOfRange),
        (commit(9, 0, ""), Code::OutOfRange),
        (unknown, Code::InvalidArgument),
        (malformed, Code::InvalidArgument),
        (commit(4, 0, "sha256:12"), Code::InvalidArgument),
    ] {
        let mut writer = Writer::with(&mut client, "layer", b"tide").await;
        assert_eq!(code(writer.ask(request.clone()).await), refusal, "{request:?}");
        assert_eq!(Writer::resume(&mut client, "layer").await.1, 4, "{request:?}");
    }
}

#[tokio::test]
async fn bytes_at_offset_0_begin_the_ingest_anew() {
    let node = Node::start().await;
    let mut client = node.client();
    let mut writer = Writer::with(&mut client, "layer", b"something else").await;
    let anew = writer.ask(write(0, b"tide")).await.unwrap();
    assert_eq!((anew.offset, anew.digest), (4, sha256(b"tide")));
    // A commit may bring the bytes along, and the same holds for it.
    let bytes = b"hold".to_vec();
    let whole = api::WriteContentRequest { data: bytes, ..commit(0, 4, &sha256(b"hold")) };
    assert_eq!(writer.ask(whole).await.unwrap().offset, 4);
    assert_eq!(read(&mut client, &sha256(b"hold"), 0, 0).await.unwrap(), b"hold");

    let mut writer = Writer::with(&mut client, "empty", b"something").await;
    let refused = writer.ask(commit(0, 9, "")).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    assert_eq!(Writer::resume(&mut client, "empty").await.1, 0);
}

#[tokio::test]
async fn a_commit_of_another_size_or_digest_is_refused_and_can_be_mended() {
    let node = Node::start().await;
    let mut client = node.client();
    let (mut writer, _) = Writer::resume(&mut client, "layer").await;
    writer.ask(write(0, b"tide")).await.unwrap();
    for (size, expected) in [(5, sha256(b"tide")), (3, String::new()), (i64::MAX, String::new())] {
        assert_eq!(code(writer.ask(commit(4, size, &expected)).await), Code::FailedPrecondition);
        writer = Writer::resume(&mut client, "layer").await.0;
    }
    for expected in [sha256(b"ebb"), sha512(b"ebb")] {
        assert_eq!(code(writer.ask(commit(4, 4, &expected)).await), Code::FailedPrecondition);
        let offset;
        (writer, offset) = Writer::resume(&mut client, "layer").await;
        assert_eq!(offset, 4);
    }
    assert_eq!(code(info(&mut client, &sha256(b"tide")).await), Code::NotFound);
    writer.ask(commit(4, 4, &sha256(b"tide"))).await.unwrap();
}

#[tokio::test]
async fn a_commit_under_another_hash_is_hashed_with_that() {
    let node = Node::start().await;
    let mut client = node.client();
    let mut writer = Writer::with(&mut client, "layer", b"tide").await;
    let committed = writer.ask(commit(4, 4, &sha512(b"tide"))).await.unwrap();
    assert_eq!(committed.digest, sha512(b"tide"));
    assert_eq!(info(&mut client, &sha512(b"tide")).await.unwrap().size, 4);
    assert_eq!(read(&mut client, &sha512(b"tide"), 0, 0).await.unwrap(), b"tide");
    assert_eq!(code(info(&mut client, &sha256(b"tide")).await), Code::NotFound);
}

#[tokio::test]
async fn what_exists_already_is_said_at_once_and_the_ingest_is_dropped() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(b"tide");
    let expecting = |request| api::WriteContentRequest { expected: digest.clone(), ..request };
    for (request, why) in [
        (expecting(stat("")), "a STAT that expects it"),
        (expecting(write(2, b"de")), "a WRITE that expects it"),
        (commit(4, 4, &digest), "a commit that expects it"),
        (commit(4, 4, ""), "a commit of its bytes"),
        (
            api::WriteContentRequest { data: b"tide".into(), ..commit(0, 0, "") },
            "a commit that brings its bytes",
        ),
    ] {
        let held: &[u8] = if request.offset == 2 { b"ti" } else { b"tide" };
        let mut writer = Writer::with(&mut client, "layer", held).await;
        assert_eq!(code(writer.ask(request).await), Code::AlreadyExists, "{why}");
        assert!(statuses(&mut client, &[]).await.is_empty(), "{why}");
        // containerd goes on as though it had committed: from here on it relies on the blob.
        assert_eq!(listed(&mut client, &[]).await, [digest.as_str()], "{why}");
        delete(&mut client, &digest).await;
    }
}

#[tokio::test]
async fn other_bytes_are_never_committed_as_a_blob_that_exists() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = node.cache(b"tide");
    let mut writer = Writer::with(&mut client, "layer", b"ebb!").await;
    assert_eq!(code(writer.ask(commit(4, 4, &digest)).await), Code::FailedPrecondition);
    assert!(listed(&mut client, &[]).await.is_empty());
    assert_eq!(Writer::resume(&mut client, "layer").await.1, 0, "the next pull does not go on with them");
}

#[tokio::test]
async fn a_ref_that_is_being_written_is_unavailable_until_its_stream_ends() {
    let node = Node::start_for(&["one", "two"]).await;
    let mut client = node.client_of("one");
    let writer = Writer::with(&mut client, "layer", b"tide").await;
    let second = Writer::open(&mut client).await.ask(stat("layer")).await;
    assert_eq!(code(second), Code::Unavailable);
    // Another ref, and the same ref of another containerd, are other ingests.
    assert_eq!(Writer::resume(&mut client, "other").await.1, 0);
    assert_eq!(Writer::resume(&mut node.client_of("two"), "layer").await.1, 0);

    writer.close().await;
    let mut third = Writer::open(&mut client).await;
    assert_eq!(third.ask(stat("layer")).await.unwrap().offset, 4);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_refs_free() {
    let node = Node::start().await;
    let mut client = node.client();
    for _ in 0..20 {
        // Broken off in the middle of a request, and with its whole connection.
        let writer = Writer::with(&mut client, "layer", b"tide").await;
        writer.requests.send(write(4, &pattern(1 << 20))).await.unwrap();
        drop(writer);
        let mut gone = node.connection().await;
        let kept = Writer::with(&mut gone, "other", b"tide").await;
        drop((gone, kept));
        Writer::resume(&mut client, "layer").await;
        Writer::resume(&mut client, "other").await;
    }
    // Streams that never said what they wanted.
    for _ in 0..20 {
        drop(Writer::open(&mut client).await);
        Writer::open(&mut client).await.close().await;
    }
    assert_eq!(statuses(&mut client, &[]).await.len(), 2);
}

#[tokio::test]
async fn a_message_may_have_16_mib_and_a_larger_one_is_refused_in_words() {
    let node = Node::start().await;
    let mut client = node.client();
    let large = pattern((16 << 20) - 1024);
    let mut writer = Writer::open(&mut client).await;
    writer.ask(stat("layer")).await.unwrap();
    let written = writer.ask(write(0, &large)).await.unwrap();
    assert_eq!((usize::try_from(written.offset).unwrap(), written.digest), (large.len(), sha256(&large)));

    let refused = writer.ask(write(written.offset, &pattern((16 << 20) + 1))).await;
    assert!(matches!(code(refused), Code::OutOfRange | Code::ResourceExhausted));
    assert_eq!(Writer::resume(&mut client, "layer").await.1, written.offset);
}

#[tokio::test]
async fn an_abort_drops_the_bytes_and_what_still_writes_them_commits_nothing() {
    let node = Node::start().await;
    let mut client = node.client();
    let mut writer = Writer::with(&mut client, "layer", b"tide").await;
    client.abort(api::AbortRequest { r#ref: "layer".into() }).await.unwrap();
    assert_eq!(code(status(&mut client, "layer").await), Code::NotFound);
    assert!(writer.ask(commit(4, 4, &sha256(b"tide"))).await.is_err());
    assert_eq!(code(info(&mut client, &sha256(b"tide")).await), Code::NotFound);
    assert_eq!(Writer::resume(&mut client, "layer").await.1, 0);
}

#[tokio::test]
async fn a_blob_that_came_in_since_it_was_missed_is_handed_over_at_the_second_status() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = sha256(b"tide");
    assert_eq!(code(info(&mut client, &digest).await), Code::NotFound);
    node.cache(b"tide");

    let name = format!("default/1/layer-{digest}");
    let mut writer = Writer::open(&mut client).await;
    let first = writer.ask(total(4, stat(&name))).await.unwrap();
    assert_eq!((first.offset, first.digest), (0, sha256(b"")));
    for _ in 0..2 {
        let next = writer.ask(stat(&name)).await.unwrap();
        assert_eq!((next.offset, next.total, next.digest), (4, 4, digest.clone()));
    }
    // containerd's client still counts from the first status.
    let committed = writer.ask(commit(0, 4, &digest)).await.unwrap();
    assert_eq!((committed.offset, committed.digest), (4, digest.clone()));
    writer.ended().await;
    assert_eq!(listed(&mut client, &[]).await, [digest]);
    assert!(statuses(&mut client, &[]).await.is_empty());
}

#[tokio::test]
async fn nothing_is_handed_over_where_there_is_any_doubt() {
    let node = Node::start().await;
    let mut client = node.client();
    let [missed, other] = [sha256(b"tide"), sha256(b"ebb!")];
    assert_eq!(code(info(&mut client, &missed).await), Code::NotFound);
    node.cache(b"tide");
    node.cache(b"ebb!");
    for (doubt, name, announced) in [
        ("it was never asked for, as under the policy isolated", format!("a/1/layer-{other}"), 4),
        ("the ref names no digest", "a/1/upload".to_owned(), 4),
        ("it has another length than was announced", format!("a/2/layer-{missed}"), 5),
    ] {
        let mut writer = Writer::open(&mut client).await;
        for _ in 0..3 {
            let reply = writer.ask(total(announced, stat(&name))).await.unwrap();
            assert_eq!((reply.offset, reply.digest), (0, sha256(b"")), "{doubt}");
        }
        writer.close().await;
    }
}

#[tokio::test]
async fn a_blob_is_handed_over_in_the_place_of_bytes_that_an_earlier_pull_left() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = sha256(b"tide");
    let name = format!("a/1/layer-{digest}");
    Writer::with(&mut client, &name, b"wrong").await.close().await;
    assert_eq!(code(info(&mut client, &digest).await), Code::NotFound);
    node.cache(b"tide");
    let (mut writer, left) = Writer::resume(&mut client, &name).await;
    assert_eq!(left, 5);
    let whole = writer.ask(stat(&name)).await.unwrap();
    assert_eq!((whole.offset, whole.digest), (4, digest.clone()));
    writer.ask(commit(5, 4, &digest)).await.unwrap();
    assert_eq!(read(&mut client, &digest, 0, 0).await.unwrap(), b"tide");
}

#[tokio::test]
async fn a_writer_may_write_all_the_same_what_it_was_handed() {
    let node = Node::start().await;
    let mut client = node.client();
    let digest = sha256(b"tide");
    assert_eq!(code(info(&mut client, &digest).await), Code::NotFound);
    node.cache(b"tide");
    let name = format!("default/1/layer-{digest}");
    let mut writer = Writer::open(&mut client).await;
    writer.ask(stat(&name)).await.unwrap();
    assert_eq!(writer.ask(stat(&name)).await.unwrap().offset, 4);
    assert_eq!(writer.ask(write(0, b"ti")).await.unwrap().offset, 2);
    assert_eq!(writer.ask(write(2, b"des")).await.unwrap().digest, sha256(b"tides"));
    writer.ask(commit(5, 5, &sha256(b"tides"))).await.unwrap();
    assert_eq!(read(&mut client, &sha256(b"tides"), 0, 0).await.unwrap(), b"tides");
}

#[tokio::test]
async fn an_absurd_total_costs_nothing_until_the_commit_that_misses_it() {
    let node = Node::start().await;
    let mut client = node.client();
    for announced in [i64::MAX, 1 << 62] {
        let mut writer = Writer::open(&mut client).await;
        assert_eq!(writer.ask(total(announced, stat("layer"))).await.unwrap().total, announced);
        assert_eq!(code(writer.ask(commit(0, 0, "")).await), Code::FailedPrecondition);
    }
    // Less than nothing is as though nobody had said anything.
    let mut writer = Writer::open(&mut client).await;
    assert!(writer.ask(total(i64::MIN, stat("other"))).await.unwrap().total == 0);
}

/// One hold and a socket for each containerd.
struct Node {
    folder: TempDir,
    hold: Hold,
    clients: HashMap<String, Channel>,
    servers: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Node {
    async fn start() -> Self {
        Self::start_for(&["system"]).await
    }

    async fn start_for(containerds: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), containerds).await
    }

    async fn start_in(folder: TempDir, containerds: &[&str]) -> Self {
        let hold = Hold::open(&folder.path().join("data"), clock::now()).unwrap().0;
        let mut node = Self {
            folder,
            hold,
            clients: HashMap::new(),
            servers: Vec::new(),
            stop: CancellationToken::new(),
        };
        for name in containerds {
            let socket = node.folder.path().join(format!("{name}.sock"));
            let listener = UnixListener::bind(&socket).unwrap();
            let service =
                ContentService::open(node.hold.clone(), Owner::new(name), no_resolver(&node.hold), true)
                    .unwrap();
            let stop = node.stop.clone().cancelled_owned();
            node.servers.push(tokio::spawn(async move {
                content::serve(listener, async { Some(service) }, Routes::default(), Calls::default(), stop)
                    .await;
            }));
            node.clients.insert((*name).to_owned(), containerd_client::connect(socket).await.unwrap());
        }
        node
    }

    /// Every client that the test still has must be gone.
    async fn restart(mut self) -> Self {
        let names: Vec<_> = self.clients.drain().map(|(name, _)| name).collect();
        self.stop.cancel();
        for server in self.servers.drain(..) {
            server.await.unwrap();
        }
        let Self { folder, hold, .. } = self;
        hold.flush().unwrap();
        drop(hold);
        for name in &names {
            std::fs::remove_file(folder.path().join(format!("{name}.sock"))).unwrap();
        }
        Self::start_in(folder, &names.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    fn client(&self) -> ContentClient<Channel> {
        self.client_of("system")
    }

    fn client_of(&self, containerd: &str) -> ContentClient<Channel> {
        over(self.clients[containerd].clone())
    }

    /// A client on a connection of its own.
    async fn connection(&self) -> ContentClient<Channel> {
        over(containerd_client::connect(self.folder.path().join("system.sock")).await.unwrap())
    }

    /// Where a blob stands.
    fn file_of(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.folder.path().join("data/blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// The file of the one ingest that there is.
    fn only_ingest(&self) -> PathBuf {
        let mut files = std::fs::read_dir(self.folder.path().join("data/ingest/containerd-system")).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none(), "another one beside {}", file.display());
        file
    }

    /// Puts a blob into the hold that no containerd knows of.
    fn cache(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        self.hold.keep(bytes, &digest, clock::now()).unwrap();
        digest.to_string()
    }
}

/// With containerd's limit on what it takes; what it sends may be too much.
fn over(channel: Channel) -> ContentClient<Channel> {
    ContentClient::new(channel).max_decoding_message_size(16 << 20).max_encoding_message_size(32 << 20)
}

/// One stream of `Write`.
struct Writer {
    requests: mpsc::Sender<api::WriteContentRequest>,
    replies: Streaming<api::WriteContentResponse>,
}

impl Writer {
    async fn open(client: &mut ContentClient<Channel>) -> Self {
        let (requests, coming) = mpsc::channel(1);
        let replies = client.write(ReceiverStream::new(coming)).await.unwrap().into_inner();
        Self { requests, replies }
    }

    /// Takes a ref as containerd does, which asks again where it is busy, and tells how far it is.
    async fn resume(client: &mut ContentClient<Channel>, name: &str) -> (Self, i64) {
        for _ in 0..500 {
            let mut writer = Self::open(client).await;
            match writer.ask(stat(name)).await {
                Ok(reply) => return (writer, reply.offset),
                Err(status) => assert_eq!(status.code(), Code::Unavailable),
            }
        }
        panic!("{name} is never free");
    }

    /// Takes a ref and makes these all of its bytes.
    async fn with(client: &mut ContentClient<Channel>, name: &str, bytes: &[u8]) -> Self {
        let (mut writer, _) = Self::resume(client, name).await;
        writer.ask(write(0, bytes)).await.unwrap();
        writer
    }

    async fn ask(&mut self, request: api::WriteContentRequest) -> Result<api::WriteContentResponse, Status> {
        self.requests.send(request).await.unwrap();
        self.replies.message().await.map(|reply| reply.unwrap())
    }

    /// Sends nothing more, and waits until the server has seen it.
    async fn close(self) {
        let Self { requests, mut replies } = self;
        drop(requests);
        assert_eq!(replies.message().await.unwrap(), None);
    }

    /// The server sends nothing more.
    async fn ended(mut self) {
        assert_eq!(self.replies.message().await.unwrap(), None);
    }
}

fn stat(name: &str) -> api::WriteContentRequest {
    api::WriteContentRequest { action: STAT, r#ref: name.into(), ..Default::default() }
}

fn write(offset: i64, bytes: &[u8]) -> api::WriteContentRequest {
    api::WriteContentRequest { action: WRITE, offset, data: bytes.into(), ..Default::default() }
}

fn commit(offset: i64, total: i64, expected: &str) -> api::WriteContentRequest {
    let expected = expected.into();
    api::WriteContentRequest { action: COMMIT, offset, total, expected, ..Default::default() }
}

fn total(total: i64, request: api::WriteContentRequest) -> api::WriteContentRequest {
    api::WriteContentRequest { total, ..request }
}

async fn info(client: &mut ContentClient<Channel>, digest: &str) -> Result<api::Info, Status> {
    let reply = client.info(api::InfoRequest { digest: digest.into() }).await?;
    Ok(reply.into_inner().info.unwrap())
}

async fn update(
    client: &mut ContentClient<Channel>,
    digest: &str,
    labels: &[(&str, &str)],
    mask: &[&str],
) -> Result<api::Info, Status> {
    let info = api::Info { digest: digest.into(), labels: owned(labels), ..Default::default() };
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let request = api::UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    Ok(client.update(request).await?.into_inner().info.unwrap())
}

async fn delete(client: &mut ContentClient<Channel>, digest: &str) {
    client.delete(api::DeleteContentRequest { digest: digest.into() }).await.unwrap();
}

async fn read(
    client: &mut ContentClient<Channel>,
    digest: &str,
    offset: i64,
    size: i64,
) -> Result<Vec<u8>, Status> {
    let request = api::ReadContentRequest { digest: digest.into(), offset, size };
    let mut messages = client.read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = messages.message().await? {
        bytes.extend(message.data);
    }
    Ok(bytes)
}

/// The digests, in the order in which they come.
async fn listed(client: &mut ContentClient<Channel>, filters: &[&str]) -> Vec<String> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let mut pages = client.list(api::ListContentRequest { filters }).await.unwrap().into_inner();
    let mut digests = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        digests.extend(page.info.into_iter().map(|info| info.digest));
    }
    digests
}

async fn status(client: &mut ContentClient<Channel>, name: &str) -> Result<api::Status, Status> {
    let reply = client.status(api::StatusRequest { r#ref: name.into() }).await?;
    Ok(reply.into_inner().status.unwrap())
}

async fn statuses(client: &mut ContentClient<Channel>, filters: &[&str]) -> Vec<api::Status> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    client.list_statuses(api::ListStatusesRequest { filters }).await.unwrap().into_inner().statuses
}

fn code<T>(outcome: Result<T, Status>) -> Code {
    outcome.err().map_or(Code::Ok, |status| status.code())
}

fn owned(labels: &[(&str, &str)]) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn nanoseconds(time: Option<Timestamp>) -> i128 {
    let time = time.unwrap();
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn sha512(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha512:{hex}")
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// A resolver that may ask nobody.
fn no_resolver(hold: &Hold) -> Resolver {
    let settings = Settings {
        allow_any: false,
        listed: BTreeMap::new(),
        timeouts: Timeouts::default(),
        bandwidth: None,
    };
    let ages = Ages { fresh_for: Duration::ZERO, stale_for: Duration::ZERO };
    let freshness = Freshness { default: ages, rules: vec![] };
    let ages = tidehold::access::Ages { fresh_for: Duration::ZERO, stale_for: Duration::ZERO };
    let access = Access { ages, shared: BTreeSet::new() };
    Resolver::new(
        hold.clone(),
        Upstreams::new(settings, tidehold::record::Record::new(std::time::UNIX_EPOCH)).unwrap(),
        freshness,
        access,
        Fetch::default(),
        tidehold::record::Record::new(std::time::UNIX_EPOCH),
    )
}
