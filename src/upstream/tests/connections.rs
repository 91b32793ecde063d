//! Connections: where none are made, which are tried again, and how long they may take.

use std::collections::BTreeMap;

use super::site::{Site, anyone, impatient_for_heads, latest, raw, repository, response, upstreams_at};
use crate::oci::Repository;
use crate::upstream::{Failure, Forbidden, Settings, Timeouts, Upstreams, Wait};

#[tokio::test]
async fn a_connection_that_breaks_before_an_answer_is_tried_once_more() {
    let (address, count) = raw(&["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]).await;
    let upstreams = upstreams_at(&format!("http://{address}"), Timeouts::default());
    assert_eq!(upstreams.get_manifest(&anyone(), &repository("a"), &latest()).await.unwrap(), "{}");
    assert_eq!(*count.borrow(), 2);
}

#[tokio::test]
async fn a_connection_that_breaks_again_is_given_up() {
    let (address, count) = raw(&[""]).await;
    let upstreams = upstreams_at(&format!("http://{address}"), Timeouts::default());
    let failure = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
    assert_eq!(*count.borrow(), 2);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_not_asked_for_again() {
    let (address, count) = raw(&["220 mail.example ESMTP\r\n\r\n"]).await;
    let upstreams = upstreams_at(&format!("http://{address}"), Timeouts::default());
    let failure = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(matches!(failure, Failure::Unusable(_)), "{failure:?}");
    assert_eq!(*count.borrow(), 1);
}

#[tokio::test]
async fn a_status_is_not_asked_for_again() {
    for status in [429, 500, 503] {
        let site = Site::serve(move |_| async move { response(status, &[], "") }).await;
        assert!(site.upstreams().head_manifest(&anyone(), &repository("a"), &latest()).await.is_err());
        assert_eq!(site.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_begin_times_out_and_is_not_asked_for_again() {
    let (address, mut count) = raw(&["\0"]).await;
    let upstreams = upstreams_at(&format!("http://{address}"), impatient_for_heads());
    let failure = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(matches!(failure, Failure::TimedOut(Wait::Headers)), "{failure:?}");
    // It may be taken in only after it was given up.
    assert_eq!(*count.wait_for(|count| *count > 0).await.unwrap(), 1);
}

#[tokio::test]
async fn a_refused_connection_says_so() {
    // Bound and not listening: connections are refused, and nobody else can have the port.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let upstreams = upstreams_at(&format!("http://{address}"), Timeouts::default());
    let failure = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(matches!(failure, Failure::Unreachable(_)), "{failure:?}");
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn no_spelling_of_a_forged_destination_is_connected_to() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings =
        Settings { allow_any: true, listed: BTreeMap::new(), timeouts: Timeouts::default(), bandwidth: None };
    let upstreams = Upstreams::new(settings, crate::record::Record::new(std::time::UNIX_EPOCH)).unwrap();
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fe80::1]",
        "[fd00::1]",
    ] {
        let repository = Repository::new(format!("{host}:{port}").parse().unwrap(), "a").unwrap();
        let failure = upstreams.head_manifest(&anyone(), &repository, &latest()).await.unwrap_err();
        assert!(matches!(failure, Failure::Forbidden(Forbidden::Address { .. })), "{host}: {failure:?}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_registry_that_is_not_listed_is_not_asked_where_only_listed_ones_may_be() {
    let settings = Settings {
        allow_any: false,
        listed: BTreeMap::new(),
        timeouts: Timeouts::default(),
        bandwidth: None,
    };
    let upstreams = Upstreams::new(settings, crate::record::Record::new(std::time::UNIX_EPOCH)).unwrap();
    let failure = upstreams.head_manifest(&anyone(), &repository("a"), &latest()).await.unwrap_err();
    assert!(matches!(failure, Failure::Forbidden(Forbidden::NotListed(_))), "{failure:?}");
}
