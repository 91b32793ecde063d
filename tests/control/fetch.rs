//! `Fetch`: the bytes behind a descriptor.

use tidehold::proto::v1;
use tonic::{Code, Status};

use crate::bench::{Bench, blobs_of, soon};
use crate::socket::client;
use crate::support::hub::{Fault, Kind, MediaTypes, digest_of};

const MIB: usize = 1 << 20;

fn request(media_type: &str, digest: &str, offset: u64, length: u64) -> v1::FetchRequest {
    let target =
        v1::Descriptor { media_type: media_type.into(), digest: digest.into(), ..Default::default() };
    v1::FetchRequest { reference: "tide".into(), target: Some(target), offset, length }
}

/// All that a request gives; every message has to say where it belongs.
async fn fetch(bench: &Bench, request: v1::FetchRequest) -> Result<Vec<u8>, Status> {
    let mut at = request.offset;
    let mut messages = soon(client(bench).await.fetch(request)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = soon(messages.message()).await? {
        assert_eq!(message.offset, at);
        assert!((1..=256 << 10).contains(&message.data.len()));
        at += message.data.len() as u64;
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn what_was_resolved_can_be_fetched_down_to_the_last_layer() {
    let bench = Bench::start().await;
    let own = crate::support::hub::Platform::own().to_string();
    let request_of = v1::ResolveRequest { reference: "tide".into(), platform: own, ..Default::default() };
    let resolved = client(&bench).await.resolve(request_of).await.unwrap().into_inner();
    for target in [resolved.target.unwrap(), resolved.manifest.unwrap()] {
        let bytes = fetch(&bench, request(&target.media_type, &target.digest, 0, 0)).await.unwrap();
        assert_eq!((digest_of(&bytes), bytes.len() as u64), (target.digest, target.size));
    }
    for blob in blobs_of(bench.hub.first().own()) {
        let bytes = fetch(&bench, request("application/octet-stream", blob, 0, 0)).await.unwrap();
        assert_eq!(digest_of(&bytes), blob);
    }
}

#[tokio::test]
async fn a_part_is_clamped_to_the_whole_and_a_place_behind_its_end_is_refused() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    let total = large.bytes.len();
    // Once while it comes in, and then from the hold.
    for (offset, length, from, to) in [
        (100, 0, 100, total),
        (0, 0, 0, total),
        (0, 1, 0, 1),
        (total - 1, 10, total - 1, total),
        (total, 5, total, total),
        (300_000, 600_000, 300_000, 900_000),
        (5, usize::MAX, 5, total),
    ] {
        let bytes = fetch(&bench, request("", &large.layer, offset as u64, length as u64)).await.unwrap();
        assert!(bytes == large.bytes[from..to], "{length} bytes at {offset}");
    }
    let refused = fetch(&bench, request("", &large.layer, total as u64 + 1, 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let manifest = request(MediaTypes::Oci.index(), &bench.hub.first().digest, 1 << 40, 0);
    assert_eq!(fetch(&bench, manifest).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn the_bytes_come_while_the_rest_is_still_on_its_way() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    bench.hub.fault(Kind::Cdn, Fault::HoldAt(MIB as u64 / 2)).await;
    let mut client = client(&bench).await;
    let mut messages = soon(client.fetch(request("", &large.layer, 0, 0))).await.unwrap().into_inner();
    let first = soon(messages.message()).await.unwrap().unwrap();
    assert!(large.bytes.starts_with(&first.data));
    bench.hub.clear(Kind::Cdn).await;
    let mut length = first.data.len();
    while let Some(message) = soon(messages.message()).await.unwrap() {
        length += message.data.len();
    }
    assert_eq!(length, large.bytes.len());
}

#[tokio::test]
async fn wrong_bytes_end_in_an_error_and_what_is_malformed_is_refused() {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(MIB);
    bench.hub.fault(Kind::Cdn, Fault::WrongBytes).await;
    let refused = fetch(&bench, request("", &large.layer, 0, 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");

    let absent = digest_of(b"no blob of this repository");
    assert_eq!(fetch(&bench, request("", &absent, 0, 0)).await.unwrap_err().code(), Code::NotFound);
    for (reference, digest) in [("Tide", absent.as_str()), ("", &absent), ("tide", "sha256:x"), ("tide", "")]
    {
        let request = v1::FetchRequest { reference: reference.into(), ..request("", digest, 0, 0) };
        assert_eq!(fetch(&bench, request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let nothing = v1::FetchRequest { reference: "tide".into(), ..Default::default() };
    assert_eq!(fetch(&bench, nothing).await.unwrap_err().code(), Code::InvalidArgument);
}
