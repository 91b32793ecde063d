//! Registries that a client has no business with: this machine, its network, and what clouds put beside it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use http::{Method, StatusCode};

use crate::bench::Bench;
use crate::support::hub::digest_of;

/// Every spelling of this machine: of 127.0.0.1, of ::1, and of what stands for "here".
const THIS_MACHINE: [&str; 23] = [
    "127.0.0.1",
    "127.0.0.01",
    "127.000.000.001",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
];

/// What is not anyone's registry either.
const SPECIAL: [&str; 24] = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fc00::1]",
    "[fec0::1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[ff02::1]",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "2852039166",
];

#[tokio::test]
async fn no_spelling_of_this_machine_reaches_it() {
    let bench = Bench::start().await;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listeners = [Some(listener), TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok()];
    for host in THIS_MACHINE {
        refuses(&bench, &format!("{host}:{port}")).await;
    }
    for listener in listeners.into_iter().flatten() {
        listener.set_nonblocking(true).unwrap();
        // The kernel queues a connection whether or not it is accepted: none was ever made.
        let met = listener.accept();
        assert!(met.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    assert_eq!(bench.hub.counters().requests, 0);
    assert_eq!(bench.held(), [] as [&str; 0]);
}

/// Refused at once: nothing is waited for.
#[tokio::test]
async fn no_address_of_a_private_network_or_of_a_clouds_own_service_is_tried() {
    let bench = Bench::start().await;
    for host in SPECIAL {
        refuses(&bench, host).await;
        refuses(&bench, &format!("{host}:5000")).await;
    }
    assert_eq!(bench.held(), [] as [&str; 0]);
    let asked = bench.daemon.log();
    let asked =
        asked.lines().filter(|line| line.contains("asked upstream") && line.contains("status=2")).count();
    assert_eq!(asked, 0);
}

/// By `ns=`, written out and encoded, and in the path; with a token, too.
async fn refuses(bench: &Bench, registry: &str) {
    let mirror = bench.daemon.mirror();
    let encoded: String = registry.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let blob = digest_of(b"");
    let bare = registry.replace(['[', ']'], "");
    let in_path = if bare == registry { registry.to_owned() } else { encoded.clone() };
    for url in [
        format!("{mirror}/v2/a/b/manifests/latest?ns={encoded}"),
        format!("{mirror}/v2/a/b/manifests/{blob}?ns={encoded}"),
        format!("{mirror}/v2/a/b/blobs/{blob}?ns={encoded}"),
        format!("{mirror}/v2/{in_path}/a/b/manifests/latest"),
        format!("{mirror}/v2/{in_path}/a/b/blobs/{blob}"),
    ] {
        // What is no registry's name, such as a bare number, is part of a repository's at Docker Hub: that is fine.
        let names_hub = url.contains("/v2/") && !url.contains("ns=") && !registry.contains(['.', ':', '[']);
        if names_hub && registry != "localhost" {
            continue;
        }
        for (method, headers) in
            [(Method::GET, [].as_slice()), (Method::GET, &[("authorization", "Bearer x")])]
        {
            let reply = bench.ask(method, &url, headers).await;
            let refused = [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST].contains(&reply.status);
            assert!(refused, "{registry}: {url}: {reply:?}");
            assert!(["DENIED", "NAME_INVALID"].contains(&reply.error_code().as_str()), "{url}: {reply:?}");
        }
    }
}

/// A registry that is listed and stands on this machine opens no way to others there, nor do its names.
#[tokio::test]
async fn one_listed_registry_on_this_machine_lists_no_other() {
    let bench = Bench::start().await;
    let listed: SocketAddr = bench.hub.registry_address();
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "0x7f000001"] {
        refuses(&bench, &format!("{host}:{}", listed.port())).await;
    }
    assert_eq!(bench.hub.counters().requests, 0);
    assert_eq!(bench.get(&bench.manifest("latest")).await.status, StatusCode::OK);
}
