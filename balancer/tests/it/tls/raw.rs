//! HTTP/2 by hand: what a client of the trade would not send, or not leave out.

use std::io::{Read as _, Write as _};
use std::sync::{Mutex, mpsc};

use rustix::process::Signal;

use super::{Files, Secured, connect_by, speaking_tls};
use crate::conformance::upstream::Upstream;
use crate::support::wait_for;

/// Types of frames (RFC 9113 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `:status` 200 and 400 as the first field of an answer (RFC 7541 A).
const OK: u8 = 0x88;
const BAD: u8 = 0x8c;

const REFUSED_STREAM: u8 = 7;

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A connection that answers no PING.
struct Raw(Secured);

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Raw {
    fn connect(files: &Files, port: u16) -> Self {
        let mut raw = Self(connect_by(b"h2", files, port));
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.send(SETTINGS, 0, 0, &[]);
        raw
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // One that was refused already may have lost its connection as well.
        let _sent = self.0.write_all(&[&head, payload].concat());
    }

    /// A request to `/bad`, or as `fields` say; each field is written out (RFC 7541 6.2.2).
    fn ask(&mut self, stream: u32, method: &str, fields: Fields<'_>, ended: bool) {
        let mut block = Vec::new();
        let first = [(":method", method), (":scheme", "https"), (":authority", "localhost")];
        let path = fields.iter().any(|(name, _)| *name == ":path");
        let path = [(":path", "/bad")].into_iter().filter(|_| !path);
        for (name, value) in first.into_iter().chain(path).chain(fields.iter().copied()) {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let flags = END_HEADERS | if ended { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block);
    }

    /// The next frame; none at the end of the connection, well or not.
    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the balancer neither says anything nor ends the connection")
            }
            Err(_ended) => return None,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if (head[3], head[4] & ACK) == (SETTINGS, 0) {
            self.send(SETTINGS, ACK, 0, &[]);
        }
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that `wanted` takes.
    fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("ended before {what}"));
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Whether the first stream is refused, in whatever way, rather than answered as a good one.
    fn is_refused(&mut self) -> bool {
        loop {
            match self.frame() {
                None => return true,
                Some(frame) if frame.kind == GOAWAY => return true,
                Some(Frame { kind: RESET, stream: 1, .. }) => return true,
                Some(Frame { kind: HEADERS, stream: 1, payload, .. }) => return payload[0] == BAD,
                Some(_) => {}
            }
        }
    }
}

#[test]
fn nothing_that_could_be_taken_for_framing_reaches_a_replica() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    let heads: [Fields<'_>; 17] = [
        &[("transfer-encoding", "chunked")],
        &[("transfer-encoding", "identity")],
        &[("connection", "close")],
        &[("connection", "x-a")],
        &[("upgrade", "websocket")],
        &[("keep-alive", "timeout=5")],
        &[("te", "chunked")],
        &[("content-length", "5"), ("content-length", "6")],
        &[("content-length", "+3")],
        &[("content-length", "3, 3")],
        &[("x-a", "b\r\nx-smuggled: 1")],
        &[("x-a", "b\r\n\r\nGET /smuggled HTTP/1.1")],
        &[("x-a\r\nx-smuggled", "1")],
        &[("x-a: b", "1")],
        &[("X-Upper", "1")],
        &[(":path", "/bad HTTP/1.1\r\nx-smuggled: 1")],
        &[(":path", "/bad /smuggled")],
    ];
    for fields in heads {
        let mut raw = Raw::connect(&files, port);
        raw.ask(1, "POST", fields, false);
        raw.send(DATA, END_STREAM, 1, b"0\r\n\r\n");
        assert!(raw.is_refused(), "{fields:?}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());

    // So a good one is not refused: it is not for being written by hand.
    let mut raw = Raw::connect(&files, port);
    raw.ask(1, "POST", &[("content-length", "5")], false);
    raw.send(DATA, END_STREAM, 1, b"0\r\n\r\n");
    let answer = raw.until("the answer", |frame| frame.kind == HEADERS);
    assert_eq!((answer.stream, answer.payload[0]), (1, OK));
    let seen = upstream.seen();
    assert!(seen.len() == 1 && seen[0].whole && seen[0].body.data == b"0\r\n\r\n", "{seen:?}");
    assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
}

#[test]
fn a_body_of_another_length_than_was_told_is_never_whole_at_a_replica() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    let cases: [(&str, &[&str]); 5] = [
        ("5", &[]),
        ("5", &["abc"]),
        ("5", &["a", "b", "c"]),
        ("3", &["abcde"]),
        ("0", &["GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
    ];
    for (length, pieces) in cases {
        let mut raw = Raw::connect(&files, port);
        raw.ask(1, "POST", &[("content-length", length)], pieces.is_empty());
        for (index, piece) in pieces.iter().enumerate() {
            let ended = u8::from(index + 1 == pieces.len());
            raw.send(DATA, ended * END_STREAM, 1, piece.as_bytes());
        }
        if length == "0" {
            // The head is a whole request by itself: only what follows must not be one more.
            let _refused = raw.is_refused();
        } else {
            assert!(raw.is_refused(), "{length}: {pieces:?}");
        }
    }
    let seen = upstream.seen();
    let whole = seen.iter().filter(|seen| seen.whole);
    assert!(whole.clone().all(|seen| seen.head.only("content-length").as_deref() == Some("0")));
    assert!(upstream.seen_with("smuggled").is_empty(), "{seen:?}");
    assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
}

#[test]
fn what_follows_a_body_of_the_told_length_is_not_passed_on() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    let mut raw = Raw::connect(&files, port);
    raw.ask(1, "POST", &[("content-length", "3")], false);
    raw.send(DATA, 0, 1, b"abc");
    // As in HTTP/1.1 it is a whole request already, whatever comes behind it.
    let whole = || upstream.seen().first().is_some_and(|seen| seen.whole).then_some(());
    wait_for("the whole request", whole);
    raw.send(DATA, END_STREAM, 1, b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // The answer or a reset, then another request that may take the same connection.
    raw.until("an end", |frame| frame.stream == 1);
    raw.ask(3, "GET", &[(":path", "/next")], true);
    let next = raw.until("the next answer", |frame| frame.stream == 3 && frame.kind == HEADERS);
    assert_eq!(next.payload[0], OK);
    let seen = upstream.seen();
    let targets: Vec<_> = seen.iter().map(|seen| seen.head.target()).collect();
    assert_eq!((targets, &seen[0].body.data[..]), (vec!["/bad", "/next"], &b"abc"[..]));
    assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
}

#[test]
fn a_client_that_answers_no_goodbye_is_left() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let short = ["--timeout-keep-alive", "200ms", "--timeout-client-body", "300ms"];
    let (_balancer, port) = speaking_tls(&upstream, &files, &short);
    let mut raw = Raw::connect(&files, port);
    raw.ask(1, "GET", &[], true);
    raw.until("the goodbye", |frame| frame.kind == GOAWAY);
    // Not by the patience of this test, see `Raw::frame`.
    while raw.frame().is_some() {}
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_request_that_crosses_the_goodbye_may_be_sent_again_elsewhere() {
    let (arrived, has_arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (arrived, may_go_on) = (Mutex::new(arrived), Mutex::new(may_go_on));
    let upstream = Upstream::start(move |exchange| {
        arrived.lock().unwrap().send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        exchange.play()
    });
    let files = Files::new();
    let short = ["--timeout-client-body", "300ms"];
    let (mut balancer, port) = speaking_tls(&upstream, &files, &short);
    let mut raw = Raw::connect(&files, port);
    raw.ask(1, "GET", &[], true);
    has_arrived.recv_timeout(crate::support::PATIENCE).unwrap();
    balancer.signal(Signal::TERM);
    raw.until("the goodbye", |frame| frame.kind == GOAWAY);
    raw.ask(3, "POST", &[], true);
    let reset = raw.until("the refusal", |frame| frame.stream == 3);
    assert_eq!((reset.kind, reset.payload[3]), (RESET, REFUSED_STREAM), "{reset:?}");
    go_on.send(()).unwrap();
    let answer = raw.until("the answer", |frame| frame.stream == 1);
    assert_eq!((answer.kind, answer.payload[0]), (HEADERS, OK));
    raw.until("its end", |frame| frame.stream == 1 && frame.flags & END_STREAM != 0);
    assert!(balancer.wait().success());
    assert_eq!(upstream.seen().len(), 1);
}
