//! Heads (RFC 9112, sections 2 to 6): that of a request is read, that of an answer is written.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};

use super::Request;
use crate::clock;

/// The longest head that is read, in bytes: a token alone may have tens of thousands.
pub(super) const MOST_HEAD_BYTES: usize = 128 << 10;

/// How many headers a request may have.
const MOST_HEADERS: usize = 100;

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The client may ask for something else.
    Next,
    /// It ends: the client wants that, or what comes next is the body of a request, which nobody reads.
    Close,
}

/// Reads the head at the beginning of what has come in, and tells its length in bytes. `None` where there is more to
/// come.
pub(super) fn read(came: &[u8], peer: SocketAddr) -> Result<Option<(Request, After, usize)>, StatusCode> {
    let mut found = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut found);
    let length = match head.parse(came) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let bad = StatusCode::BAD_REQUEST;
    let method = Method::from_bytes(head.method.unwrap_or_default().as_bytes()).map_err(|_| bad)?;
    let uri: Uri = head.path.unwrap_or_default().parse().map_err(|_| bad)?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad)?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| bad)?);
    }
    let after = match head.version {
        Some(1) if !says_close(&headers) && !has_body(&headers) => After::Next,
        // A client of HTTP/1.0 may ask to stay; it is told that it does not.
        _ => After::Close,
    };
    Ok(Some((Request { method, uri, headers, peer }, after, length)))
}

/// How many bytes of empty lines stand in front of a head. Some clients send one behind the body that they believe they
/// had (RFC 9112, section 2.2).
pub(super) fn empty_lines(came: &[u8]) -> usize {
    let mut rest = came;
    while let Some(after) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
        rest = after;
    }
    came.len() - rest.len()
}

/// Whether a head may end in what has come in, of which so much was looked at before; or is none from its first byte on:
/// whoever tries TLS first has to learn at once that this is none, and not once its patience is at an end.
pub(super) fn may_end(came: &[u8], before: usize) -> bool {
    if came.first().is_some_and(|first| !first.is_ascii_alphabetic() && *first != b'\r') {
        return true;
    }
    // A lone line feed ends a line too (RFC 9112, section 2.2).
    let new = came.get(before.saturating_sub(2)..).unwrap_or_default();
    new.windows(2).any(|end| end == b"\n\n") || new.windows(3).any(|end| end == b"\n\r\n")
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

fn has_body(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    headers.contains_key(header::TRANSFER_ENCODING) || lengths.any(|length| length != "0")
}

/// Writes the head of an answer whose body has this length; `None` where there is no body and nobody knows.
pub(super) fn written<B>(response: &Response<B>, length: Option<u64>, after: After) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    begin(&mut head, response, length, after);
    end(&mut head);
    head
}

/// Writes all of a head that is the same whenever it is sent.
pub(super) fn begin<B>(head: &mut Vec<u8>, response: &Response<B>, length: Option<u64>, after: After) {
    let status = response.status();
    // Writing to a Vec cannot fail.
    let _ =
        write!(head, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            put(head, name.as_str(), value.as_bytes());
        }
    }
    if let Some(length) = length {
        put_number(head, "content-length", length);
    }
    if after == After::Close {
        put(head, "connection", b"close");
    }
}

/// Ends a head with the date.
pub(super) fn end(head: &mut Vec<u8>) {
    thread_local! {
        /// The second that was written last, and its text.
        static LAST: RefCell<(u64, String)> = RefCell::default();
    }
    let now = clock::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(written, date)| {
        if *written != second || date.is_empty() {
            *date = httpdate::HttpDate::from(now).to_string();
            *written = second;
        }
        put(head, "date", date.as_bytes());
    });
    head.extend_from_slice(b"\r\n");
}

/// Writes a header that is a number.
pub(super) fn put_number(head: &mut Vec<u8>, name: &str, value: u64) {
    let _ = write!(head, "{name}: {value}\r\n");
}

fn put(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(Request, After, usize)>, StatusCode> {
        read(text.as_bytes(), "127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn a_connection_stays_where_the_client_wants_that_and_sent_nothing_but_a_head() {
        for (rest, after) in [
            ("1.1\r\n", After::Next),
            ("1.1\r\nConnection: keep-alive\r\n", After::Next),
            ("1.1\r\nContent-Length: 0\r\n", After::Next),
            ("1.1\r\nConnection: x, Close\r\n", After::Close),
            ("1.1\r\nContent-Length: 7\r\n", After::Close),
            ("1.1\r\nContent-Length: 0\r\nContent-Length: 7\r\n", After::Close),
            ("1.1\r\nTransfer-Encoding: chunked\r\n", After::Close),
            ("1.0\r\n", After::Close),
            ("1.0\r\nConnection: keep-alive\r\n", After::Close),
        ] {
            let text = format!("GET /v2/ HTTP/{rest}\r\n");
            let (request, decided, length) = parsed(&text).unwrap().unwrap();
            assert_eq!((decided, length, request.uri.path()), (after, text.len(), "/v2/"), "{rest}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused_and_what_is_part_of_one_is_waited_for() {
        for refused in ["GET / HTTP/9.9\r\n\r\n", "\u{1}\r\n\r\n", "GET /\r\nA b\r\n\r\n"] {
            assert_eq!(parsed(refused).unwrap_err(), StatusCode::BAD_REQUEST, "{refused:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MOST_HEADERS + 1));
        assert_eq!(parsed(&many).unwrap_err(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let whole = "\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n";
        for cut in 0..whole.len() {
            assert!(parsed(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(parsed(whole).unwrap().is_some());
    }

    #[test]
    fn empty_lines_in_front_are_no_part_of_a_head() {
        for (came, lines) in [("", 0), ("\r", 0), ("\r\n\r", 2), ("\n\r\n\nGET", 4), ("GET\r\n", 0)] {
            assert_eq!(empty_lines(came.as_bytes()), lines, "{came:?}");
        }
    }

    #[test]
    fn a_client_that_tries_tls_first_is_refused_at_its_first_bytes() {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        assert!(may_end(hello, 0));
        assert_eq!(read(hello, "127.0.0.1:1".parse().unwrap()).unwrap_err(), StatusCode::BAD_REQUEST);
        assert!(!may_end(b"\r", 0) && !may_end(b"GET / HT", 0));
    }

    #[test]
    fn the_end_of_a_head_is_found_in_whatever_pieces_it_comes() {
        for whole in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n"] {
            for cut in 0..whole.len() {
                assert!(!may_end(&whole.as_bytes()[..cut], 0), "{cut}");
                assert!(may_end(whole.as_bytes(), cut), "{cut}");
            }
        }
    }
}
