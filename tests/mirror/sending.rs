//! How blobs get to a client: whole over one connection with other requests, slowly, or not to the end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::{Bench, Large, soon};

const MIB: usize = 1024 * 1024;

/// A daemon that holds a large blob, and a connection to it.
async fn held(bytes: usize) -> (Bench, Large, TcpStream) {
    let bench = Bench::start().await;
    let large = bench.push_with_layer(bytes);
    assert_eq!(bench.get(&bench.blob(&large.layer)).await.body, large.bytes);
    let stream = connect(&bench).await;
    (bench, large, stream)
}

async fn connect(bench: &Bench) -> TcpStream {
    TcpStream::connect(bench.daemon.mirror().replace("http://", "")).await.unwrap()
}

async fn ask(bench: &Bench, stream: &mut TcpStream, method: &str, digest: &str, headers: &str) {
    let url = bench.blob(digest);
    let path = url.strip_prefix(&bench.daemon.mirror()).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// The head of an answer, byte by byte, so that what comes after it stays.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn body(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.unwrap();
    body
}

#[tokio::test]
async fn one_connection_serves_heads_blobs_and_ranges_after_each_other() {
    let (bench, large, mut stream) = held(3 * MIB).await;
    let total = large.bytes.len();
    ask(&bench, &mut stream, "HEAD", &large.layer, "").await;
    assert!(head(&mut stream).await.contains(&format!("content-length: {total}\r\n")));
    // Two at once.
    ask(&bench, &mut stream, "GET", &large.layer, "").await;
    ask(&bench, &mut stream, "GET", &large.layer, "Range: bytes=1000000-2999999\r\n").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(body(&mut stream, total).await == large.bytes);
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 206"));
    assert!(body(&mut stream, 2_000_000).await == large.bytes.slice(1_000_000..3_000_000));
    ask(&bench, &mut stream, "GET", &large.layer, "Connection: close\r\n").await;
    assert!(head(&mut stream).await.contains("connection: close\r\n"));
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest == large.bytes);
}

#[tokio::test]
async fn a_file_removed_while_it_is_sent_is_sent_to_its_end() {
    let (bench, large, mut stream) = held(32 * MIB).await;
    ask(&bench, &mut stream, "GET", &large.layer, "").await;
    head(&mut stream).await;
    std::fs::remove_file(bench.file_of(&large.layer)).unwrap();
    assert!(body(&mut stream, large.bytes.len()).await == large.bytes);
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_sent_breaks_the_connection_off() {
    let (bench, large, mut stream) = held(32 * MIB).await;
    ask(&bench, &mut stream, "GET", &large.layer, "").await;
    head(&mut stream).await;
    std::fs::File::options().write(true).open(bench.file_of(&large.layer)).unwrap().set_len(0).unwrap();
    let mut came = Vec::new();
    let _ = soon(stream.read_to_end(&mut came)).await;
    assert!(came.len() < large.bytes.len());
    std::fs::remove_file(bench.file_of(&large.layer)).unwrap();
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_are_no_matter_to_others() {
    let (bench, large, _) = held(8 * MIB).await;
    for _ in 0..8 {
        let mut stream = connect(&bench).await;
        ask(&bench, &mut stream, "GET", &large.layer, "").await;
        head(&mut stream).await;
    }
    assert!(bench.get(&bench.blob(&large.layer)).await.body == large.bytes);
}
