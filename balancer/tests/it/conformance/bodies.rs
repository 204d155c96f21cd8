//! Bodies of answers: until close, chunked, for HTTP/1.0, and cut short.

use super::client::Client;
use super::message::Framing;
use super::over;
use super::table::Told::{Cut, Shown, ShownOnce};
use super::table::{AnswerCase, answered, asked, run_answers};
use super::upstream::{Then, Upstream};
use crate::support::PATIENCE;

const GET: &str = "GET /~ HTTP/1.1\r\nHost: a\r\n\r\n";
const OLD: &str = "GET /~ HTTP/1.0\r\nHost: a\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_cut_body_is_never_made_whole() {
    // RFC 9112 8: an incomplete message is to be recognised as such.
    let part = |text: &str| Cut(format!("200\nTransfer-Encoding: chunked\n\n{text}").into_bytes());
    let mut cases = vec![
        asked(
            "too short by its length",
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            Then::Close,
            Cut(b"200\nContent-Length: 9\n\nhello".to_vec()),
        ),
        asked(
            "none of its length",
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            Then::Close,
            Cut(b"200\nContent-Length: 9\n\n".to_vec()),
        ),
    ];
    for (name, chunks) in [
        ("cut after a chunk", "5\r\nhello\r\n"),
        ("cut before the end of a chunk", "5\r\nhello"),
        ("cut in the last chunk's line", "5\r\nhello\r\n0"),
        ("cut before the end of the last chunk", "5\r\nhello\r\n0\r\n"),
        ("cut in the trailers", "5\r\nhello\r\n0\r\nX: y\r\n"),
    ] {
        cases.push(asked(name, GET, format!("{CHUNKED}{chunks}"), Then::Close, part("hello")));
    }
    for (name, chunks) in [
        ("a size that is none", "5\r\nhello\r\nx\r\n0\r\n\r\n"),
        ("a size with a plus", "5\r\nhello\r\n+5\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", "5\r\nhello\r\n0x5\r\nhello\r\n0\r\n\r\n"),
        ("an empty size", "5\r\nhello\r\n\r\n0\r\n\r\n"),
        ("a size that overflows", "5\r\nhello\r\n10000000000000000\r\n0\r\n\r\n"),
        ("a bare LF after a size", "5\r\nhello\r\n5\nhello\r\n0\r\n\r\n"),
        ("a bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("a NUL in an extension", "5\r\nhello\r\n5;\0\r\nhello\r\n0\r\n\r\n"),
        ("a trailer without a colon", "5\r\nhello\r\n0\r\nX\r\n\r\n"),
        ("a NUL in a trailer", "5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
    ] {
        cases.push(asked(name, GET, format!("{CHUNKED}{chunks}"), Then::GoOn, part("hello")));
    }
    run_answers(&cases, &[]);
}

#[test]
fn a_body_is_framed_as_its_reader_knows_it() {
    let chunked = |text: &str| format!("200\nTransfer-Encoding: chunked\n\n{text}").into_bytes();
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    let mut cases: Vec<AnswerCase> = vec![
        // RFC 9112 7.1: its end is to be told apart from a cut.
        asked("until close", GET, until_close, Then::Close, Shown(chunked("hello"))),
        asked("until close, HTTP/1.0", GET, "HTTP/1.0 200 OK\r\n\r\nhello", Then::Close, {
            Shown(chunked("hello"))
        }),
        asked("until close, empty", GET, "HTTP/1.1 200 OK\r\n\r\n", Then::Close, {
            Shown(chunked(""))
        }),
        // RFC 9112 6.1: HTTP/1.0 knows no chunks.
        asked("until close to HTTP/1.0", OLD, until_close, Then::Close, {
            Shown(b"200\nConnection: close\n\nhello".to_vec())
        }),
        asked(
            "chunks to HTTP/1.0",
            OLD,
            format!("{CHUNKED}5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
            Then::GoOn,
            Shown(b"200\nConnection: close\n\nhello".to_vec()),
        ),
        asked(
            "a length to HTTP/1.0",
            OLD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Then::GoOn,
            Shown(b"200\nConnection: close\nContent-Length: 5\n\nhello".to_vec()),
        ),
        asked(
            "a length and a close",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Then::Close,
            ShownOnce(b"200\nContent-Length: 5\n\nhello".to_vec()),
        ),
        asked(
            "trailers to who asks",
            "GET /~ HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
            format!("{CHUNKED}5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 9\r\nZ: 1\r\n\r\n"),
            Then::GoOn,
            Shown(chunked("hello\nX: y\nZ: 1")),
        ),
    ];
    for (name, chunks, text) in [
        ("no chunk", "0\r\n\r\n", ""),
        ("an extension", "5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n", "hello"),
        ("several chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("leading noughts", "0005\r\nhello\r\n00\r\n\r\n", "hello"),
        // RFC 9110 6.5.1: not for a client that did not ask for them.
        ("trailers to who did not ask", "5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello"),
    ] {
        cases.push(answered(name, format!("{CHUNKED}{chunks}"), Shown(chunked(text))));
    }
    run_answers(&cases, &[]);
}

#[test]
fn an_upload_that_breaks_off_is_whole_nowhere() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    for (number, part) in [
        "Content-Length: 9\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ]
    .into_iter()
    .enumerate()
    {
        let send = format!("POST /{number} HTTP/1.1\r\nHost: a\r\n{part}");
        let client = Client::sending(&balancer, send.as_bytes());
        assert!(upstream.sees(number + 1), "{part:?} does not stream");
        drop(client);
        let seen = upstream.seen().pop().unwrap();
        assert!(upstream.sees_end_of(seen.connection), "{part:?}: the replica is not told");
        assert!(!upstream.seen().pop().unwrap().whole, "{part:?} became whole");
    }
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[test]
fn a_client_that_goes_away_ends_its_request_at_the_replica() {
    let (told, gone) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |exchange| {
        if exchange.head.target() == "/after" {
            return exchange.play();
        }
        assert_eq!(exchange.head.framing().unwrap(), None::<Framing>);
        let then = exchange.hang();
        told.send(()).unwrap();
        then
    });
    let balancer = over(&[&upstream], &[]);
    let client = Client::sending(&balancer, b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(upstream.sees(1));
    drop(client);
    gone.recv_timeout(PATIENCE).expect("the replica is told that nobody waits");
    let mut client = Client::sending(&balancer, b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.must_answer("after it").status, 200);
}
